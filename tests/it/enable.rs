//! Enabled and disabled: what starts by itself, over boots, crashes and new configurations.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{Daemon, Ran, Setup, wait_for};
use crate::proc;

const PROGRAMS: &str = "\
    [defaults.program]\nstart_period = 0\ncommand = ['sleep', '100000']\n\
    [program.db]\n[program.web]\nrequires = ['db']\n[program.other]\n\
    [program.off]\nautostart = false\n[program.many]\nreplicas = 2\n";

/// Ends the daemon in order and starts it with an empty runtime directory.
fn reboot(daemon: &mut Daemon) {
    daemon.ctl_ok(&["shutdown", "--yes"]);
    wait_for("the daemon to be gone", || {
        let left = daemon.family();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    fs::remove_dir_all(daemon.file("run")).expect("the runtime directory goes with a reboot");
    daemon.start_again();
}

#[test]
fn a_disabled_program_stays_down_over_reboot_crash_and_apply_and_says_who_and_why() {
    let mut daemon = Daemon::start(PROGRAMS);
    let (web, db) = (daemon.pid("web"), daemon.pid("db"));
    let ran = daemon.ctl_ok(&["disable", "db", "--reason", "moves to another host"]);
    assert!(ran.out.contains("disabled; it runs until the next boot"), "{ran:#?}");
    assert_eq!((daemon.pid("web"), daemon.pid("db")), (web, db));
    let ran = daemon.ctl_ok(&["disable", "db"]);
    assert!(ran.out.contains("already disabled"), "{ran:#?}");
    daemon.ctl_ok(&["disable", "db", "--reason", "moves to another host"]);

    reboot(&mut daemon);
    daemon.pid("other");
    let expected = "disabled by root: moves to another host; `mendctl enable --now db`";
    let name = daemon.process("db").enabled_by.expect("somebody disabled it");
    let expected = expected.replace("root", &name);
    let db = daemon.wait_state("db", "STOPPED");
    assert_eq!(db.reason, format!("not started: {expected}"));
    assert_eq!((db.enabled, db.enabled_reason.as_deref()), (false, Some("moves to another host")));
    assert!(db.enabled_at.is_some(), "{db:#?}");
    let web = daemon.wait_state("web", "STOPPED");
    assert_eq!(web.reason, format!("requires `db`, which was {expected}"));
    // Nobody brings what it requires: the answer is there at once, and not a time that is over.
    let ran = daemon.ctl(&["start", "web"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    let text = format!("{}{}", ran.out, ran.err);
    assert!(text.contains(&format!("requires `db`, which was {expected}")), "{ran:#?}");
    let detail = daemon.ctl(&["status", "db"]).out;
    assert!(detail.contains(&format!("enabled: no, by {name}: moves to another host")), "{detail}");

    daemon.kill_brain();
    assert!(!daemon.process("db").enabled);
    daemon.kill_both();
    daemon.start_again();
    assert!(!daemon.process("db").enabled);
    daemon.write_programs("[program.other]\ncommand = ['sleep', '100000']\nstart_period = 0\n");
    daemon.ctl_ok(&["reload"]);
    daemon.write_programs(PROGRAMS);
    daemon.ctl_ok(&["reload"]);
    assert_eq!(daemon.wait_state("db", "STOPPED").goal, "down");

    let ran = daemon.ctl_ok(&["enable", "--now", "db", "--reason", "it moved"]);
    assert!(ran.out.contains("enabled; started (was stopped), pid "), "{ran:#?}");
    daemon.pid("web");
    reboot(&mut daemon);
    daemon.pid("db");
    daemon.pid("web");
    assert_eq!(daemon.process("db").enabled_reason.as_deref(), Some("it moved"));
}

#[test]
fn a_start_by_hand_holds_until_the_boot_and_patterns_leave_out_what_is_disabled() {
    let mut daemon = Daemon::start(PROGRAMS);
    daemon.pid("other");
    let ran = daemon.ctl_ok(&["disable", "--now", "other", "off", "--json"]);
    let view: mendd::api::view::ActView = serde_json::from_str(&ran.out).expect("an ActView");
    assert_eq!(view.results.len(), 2, "{view:#?}");
    daemon.wait_state("other", "STOPPED");
    let ran = daemon.ctl_ok(&["start", "all"]);
    assert!(ran.out.contains("other: stopped by "), "{ran:#?}");
    assert_eq!(daemon.process("other").state, "STOPPED");
    daemon.ctl_ok(&["restart", "o*"]);
    assert_eq!(daemon.process("other").state, "STOPPED");
    daemon.ctl_ok(&["start", "other"]);
    let pid = daemon.pid("other");
    // It is supervised like any other, also over a crash of the daemon.
    daemon.kill_both();
    daemon.start_again();
    assert_eq!(daemon.pid("other"), pid);
    proc::send(pid, Signal::SIGKILL);
    daemon.new_pid("other", pid);
    reboot(&mut daemon);
    daemon.pid("db");
    daemon.wait_state("other", "STOPPED");
}

#[test]
fn enabling_outranks_autostart_and_an_older_stop() {
    let mut daemon = Daemon::start(PROGRAMS);
    daemon.pid("other");
    daemon.ctl_ok(&["stop", "other"]);
    let ran = daemon.ctl_ok(&["enable", "off", "other"]);
    assert!(ran.out.contains("enabled; it starts with the next boot"), "{ran:#?}");
    assert_eq!(daemon.process("off").state, "STOPPED");
    reboot(&mut daemon);
    daemon.pid("off");
    daemon.pid("other");
    daemon.ctl_ok(&["stop", "off", "--reason", "for now"]);
    reboot(&mut daemon);
    daemon.pid("other");
    let off = daemon.wait_state("off", "STOPPED");
    assert_eq!((off.goal.as_str(), off.enabled), ("down", true));
}

#[test]
fn what_cannot_be_switched_is_refused_with_a_way_out() {
    let daemon = Daemon::start(PROGRAMS);
    daemon.pid("many:1");
    let ran = daemon.ctl(&["disable", "many:1"]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(ran.err.contains("as a whole: name `many`"), "{ran:#?}");
    let ran = daemon.ctl(&["disable", "nobody"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    let answer = daemon.http("POST", "/v1/start", Some(r#"{"names":["db"],"now":true}"#));
    assert_eq!(answer.status, 400, "{answer:?}");
    let answer = daemon.http("POST", "/v1/programs/many/disable?now=1&wait=30s", None);
    assert_eq!(answer.status, 200, "{answer:?}");
    daemon.wait_state("many:0", "STOPPED");
    daemon.wait_state("many:1", "STOPPED");
}

#[test]
fn a_disabled_program_outlives_an_upgrade_and_a_state_directory_that_cannot_be_written() {
    let setup = Setup::new(PROGRAMS);
    let daemon = setup.start();
    daemon.pid("other");
    daemon.ctl_ok(&["disable", "--now", "other", "--reason", "not today"]);
    let before = daemon.brain_pid();
    daemon.ctl_ok(&["upgrade"]);
    daemon.wait_until("another brain", |status| status.daemon.pid != before);
    let other = daemon.process("other");
    assert_eq!((other.enabled, other.enabled_reason.as_deref()), (false, Some("not today")));
    // The journal in the runtime directory knows it too.
    fs::remove_file(daemon.file("state/switches")).expect("it was written");
    daemon.kill_brain();
    let other = daemon.process("other");
    assert_eq!((other.enabled, other.enabled_reason.as_deref()), (false, Some("not today")));
}

/// `db` has two replicas that fail when a file is there and are ready when another one is; `web`
/// requires it.
fn slow_db(dir: &std::path::Path) -> String {
    let dir = dir.display();
    let command = format!("while [ ! -e {dir}/fail ]; do sleep 0.05; done; exit 1");
    format!(
        "[program.db]\ncommand = '{command}'\nshell = true\nreplicas = 2\nrestart = 'never'\n\
         ready = {{ exec = ['test', '-e', '{dir}/ready'], interval = '50ms' }}\nstart_timeout = '5m'\n\
         {WEB}requires = ['db']\n"
    )
}

const WEB: &str = "[program.web]\ncommand = ['sleep', '100000']\nstart_period = 0\n";

/// Starts `web` by hand while `db` is not ready, does something, and returns the answer.
fn start_meanwhile(daemon: &Daemon, act: impl FnOnce()) -> Ran {
    daemon.ctl_ok(&["stop", "web"]);
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| daemon.ctl(&["start", "web", "--timeout", "1h"]));
        daemon.wait_process("web", "to be wanted", |web| web.goal == "up");
        act();
        starting.join().expect("mendctl has ended")
    })
}

fn start_slow_db() -> Daemon {
    let setup = Setup::new("");
    let programs = slow_db(setup.dir());
    let daemon = setup.programs(&programs).start();
    daemon.wait_state("db:0", "STARTING");
    daemon.wait_state("db:1", "STARTING");
    daemon
}

#[test]
fn a_start_fails_as_soon_as_what_it_requires_has_failed() {
    let daemon = start_slow_db();
    let fail = daemon.file("fail");
    let ran = start_meanwhile(&daemon, || std::fs::write(fail, "").expect("it is written"));
    let text = format!("{}{}", ran.out, ran.err);
    assert!(text.contains("requires `db:") && text.contains("exited"), "{ran:#?}");
    assert_eq!(ran.code, 1, "{ran:#?}");
}

#[test]
fn a_start_does_not_wait_for_a_replica_that_somebody_has_stopped() {
    let daemon = start_slow_db();
    daemon.ctl_ok(&["stop", "db:1"]);
    let ready = daemon.file("ready");
    let ran = start_meanwhile(&daemon, || std::fs::write(ready, "").expect("it is written"));
    assert_eq!(ran.code, 0, "{ran:#?}");
    daemon.pid("web");
}

#[test]
fn a_start_of_what_is_removed_meanwhile_says_so() {
    let daemon = start_slow_db();
    let programs = slow_db(daemon.dir()).split("[program.web]").next().unwrap().to_owned();
    let ran = start_meanwhile(&daemon, || {
        daemon.write_programs(&programs);
        daemon.ctl_ok(&["reload"]);
    });
    assert_eq!(ran.code, 1, "{ran:#?}");
    let text = format!("{}{}", ran.out, ran.err);
    assert!(text.contains("removed from the configuration meanwhile"), "{ran:#?}");
}
