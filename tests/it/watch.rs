//! Programs that follow their files: restarted or signalled when one changes, and never more.

use std::fs;
use std::path::Path;

use crate::harness::{Daemon, Setup, wait_for};
use crate::proc;

/// A program that watches `src` beside the configuration, with more lines.
fn watching(more: &str) -> String {
    format!(
        "[program.app]\ncommand = ['sleep', '100000']\nstart_period = 0\nwatch_debounce = '50ms'\n\
         watch = ['src/**/*.py']\nwatch_ignore = ['build']\n{more}\n\
         [program.beside]\ncommand = ['sleep', '100000']\nstart_period = 0\n"
    )
}

fn start(programs: &str) -> Daemon {
    let setup = Setup::new(programs);
    fs::create_dir_all(setup.dir().join("src/build")).expect("a directory");
    setup.start()
}

/// Changes a file again and again until the program has another pid; the thread that watches may
/// not have begun.
#[track_caller]
fn replaced_by(daemon: &Daemon, file: &str, old: u32) -> u32 {
    let path = daemon.file(file);
    wait_for("another run", || {
        write(&path);
        let process = daemon.process("app");
        match process.pid {
            Some(pid) if pid != old && process.state == "RUNNING" => Ok(()),
            _ => Err(format!("{process:#?}")),
        }
    });
    settled(daemon)
}

/// Waits until what was changed has been acted on, and returns the pid.
fn settled(daemon: &Daemon) -> u32 {
    let marker = daemon.file("src/settled.py");
    let name = "src/settled.py` changed";
    wait_for("the last change to be the last", || {
        write(&marker);
        let reason = daemon.process("app").reason;
        if reason.contains(name) { Ok(()) } else { Err(reason) }
    });
    let mut last = daemon.pid("app");
    wait_for("the restarts to end", || {
        let pid = daemon.pid("app");
        let same = std::mem::replace(&mut last, pid) == pid;
        if same && daemon.process("app").uptime_seconds.is_some_and(|up| up > 0.5) {
            Ok(())
        } else {
            Err(format!("pid {pid}"))
        }
    });
    last
}

fn write(path: &Path) {
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory");
    fs::write(path, "x").expect("the file can be written");
}

#[test]
fn a_changed_file_restarts_its_program_alone_and_the_status_says_which() {
    let daemon = start(&watching(""));
    let (app, beside) = (daemon.pid("app"), daemon.pid("beside"));
    let app = replaced_by(&daemon, "src/a.py", app);
    assert_eq!(daemon.pid("beside"), beside);
    let reason = daemon.process("app").reason;
    let file = daemon.file("src/settled.py");
    assert_eq!(reason, format!("running; restarted because `{}` changed", file.display()));
    let detail = daemon.ctl_ok(&["status", "app"]).out;
    assert!(detail.contains("restarted because"), "{detail}");
    // A directory that is new.
    replaced_by(&daemon, "src/new/deep/b.py", app);
    let restarts = daemon.process("app").restarts;
    // What does not match, is ignored, or is an editor's.
    for name in ["src/a.txt", "src/build/c.py", "src/.a.py.swp", "src/a.py~", "src/.git/d.py"] {
        write(&daemon.file(name));
    }
    let last = daemon.file("src/last.py");
    write(&last);
    let reason = format!("running; restarted because `{}` changed", last.display());
    let app = daemon.wait_process("app", "to follow the last file", |app| app.reason == reason);
    assert_eq!(app.restarts, restarts + 1);
    let mut events = daemon.events(Some(0));
    let wanted = format!("`app`: `{}` changed; restarting", last.display());
    let found = events.find(|event| format!("{event:?}").contains(&wanted));
    assert!(found.is_some(), "no event says: {wanted}");
}

#[test]
fn a_stopped_program_does_not_start_and_one_that_failed_does() {
    let daemon = start(&watching("restart = 'never'"));
    let app = daemon.pid("app");
    let app = replaced_by(&daemon, "src/a.py", app);
    proc::send(app, nix::sys::signal::Signal::SIGKILL);
    daemon.wait_state("app", "EXITED");
    write(&daemon.file("src/a.py"));
    let app = daemon.new_pid("app", app);
    daemon.ctl_ok(&["stop", "app"]);
    write(&daemon.file("src/a.py"));
    // A program that starts for a change of the same kind shows that the change was seen.
    daemon.write_programs(&format!(
        "{}[program.witness]\ncommand = ['sleep', '100000']\nstart_period = 0\n\
         watch = ['src/**/*.py']\nwatch_debounce = '50ms'\n",
        watching("restart = 'never'")
    ));
    daemon.ctl_ok(&["reload"]);
    let witness = daemon.pid("witness");
    wait_for("the witness to be restarted", || {
        write(&daemon.file("src/a.py"));
        let now = daemon.process("witness");
        if now.pid.is_some_and(|pid| pid != witness) { Ok(()) } else { Err(format!("{now:#?}")) }
    });
    assert_eq!(daemon.process("app").state, "STOPPED");
    assert!(!proc::is_alive(app));
}

#[test]
fn a_program_that_can_reload_is_signalled_and_keeps_its_pid() {
    let script = "trap 'echo reloaded' HUP; echo ready; while :; do sleep 0.05; done";
    let daemon = start(&format!(
        "[program.app]\nshell = true\ncommand = \"{script}\"\nreload_signal = 'HUP'\n\
         watch = ['src']\nwatch_debounce = '50ms'\n"
    ));
    let pid = daemon.pid("app");
    wait_for("a reload", || {
        write(&daemon.file("src/any/file"));
        let out = daemon.ctl_ok(&["logs", "app"]).out;
        if out.contains("reloaded") { Ok(()) } else { Err(out) }
    });
    assert_eq!(daemon.pid("app"), pid);
    // Neither does a change of what is watched restart anything.
    daemon.write_programs(&format!(
        "[program.app]\nshell = true\ncommand = \"{script}\"\nreload_signal = 'HUP'\n\
         watch = ['other']\non_watch = 'restart'\nwatch_debounce = '50ms'\n"
    ));
    daemon.ctl_ok(&["reload"]);
    assert_eq!(daemon.pid("app"), pid);
    wait_for("a restart", || {
        write(&daemon.file("other"));
        let process = daemon.process("app");
        if process.pid.is_some_and(|now| now != pid) { Ok(()) } else { Err(format!("{process:?}")) }
    });
}

#[test]
fn a_file_that_changes_while_no_part_of_mend_lives_is_not_missed() {
    let mut daemon = start(&watching(""));
    let (app, beside) = (daemon.pid("app"), daemon.pid("beside"));
    let app = replaced_by(&daemon, "src/a.py", app);
    // Nothing has changed: nothing is restarted.
    daemon.kill_both();
    daemon.start_again();
    assert_eq!((daemon.pid("app"), daemon.pid("beside")), (app, beside));
    daemon.kill_both();
    let file = daemon.file("src/late.py");
    write(&file);
    daemon.start_again();
    daemon.new_pid("app", app);
    let reason = format!("running; restarted because `{}` changed", file.display());
    let app = daemon.wait_process("app", "to follow the file", |app| app.reason == reason);
    // Once.
    daemon.kill_brain();
    assert_eq!((Some(daemon.pid("app")), daemon.pid("beside")), (app.pid, beside));
}

#[test]
fn what_links_lead_to_never_looks_like_a_change_after_a_death_or_an_upgrade() {
    let setup = Setup::new(
        "[program.app]\ncommand = ['sleep', '100000']\nstart_period = 0\n\
         watch_debounce = '50ms'\nwatch = ['src/**', 'mtab', 'current/app']\n",
    );
    let at = |name: &str| setup.dir().join(name);
    for directory in ["src", "elsewhere", "releases/1", "releases/2"] {
        fs::create_dir_all(at(directory)).expect("a directory");
    }
    write(&at("releases/1/app"));
    write(&at("releases/2/app"));
    for (link, leads_to) in [
        ("mtab", "/proc/self/mounts"),
        ("src/mtab", "/proc/self/mounts"),
        ("src/directory", "../elsewhere"),
        ("src/broken", "nowhere"),
        ("current", "releases/1"),
    ] {
        std::os::unix::fs::symlink(leads_to, at(link)).expect("a link");
    }
    let pipe = at("src/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut daemon = setup.start();
    let app = replaced_by(&daemon, "src/a.py", daemon.pid("app"));
    let restarts = daemon.process("app").restarts;
    write(&daemon.file("elsewhere/file"));
    daemon.kill_brain();
    daemon.ctl_ok(&["upgrade"]);
    daemon.kill_both();
    daemon.start_again();
    assert_eq!(daemon.pid("app"), app);
    // What counts is seen as ever, and it is the first restart.
    let fresh = daemon.file("fresh");
    std::os::unix::fs::symlink("releases/2", &fresh).expect("a link");
    fs::rename(&fresh, daemon.file("current")).expect("the link is swapped");
    let file = daemon.file("current/app");
    let reason = format!("running; restarted because `{}` changed", file.display());
    let process = daemon.wait_process("app", "to follow the link", |app| app.reason == reason);
    assert_eq!(process.restarts, restarts + 1);
}
