//! Surroundings that are not as they should be: what a parent left open, a reader that went away,
//! a directory of somebody else, limits that leave no room.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::harness::{Daemon, Setup, wait_for};
use crate::proc;

#[test]
fn descriptors_that_the_daemon_inherited_reach_nobody() {
    let daemon = Setup::new("[program.p]\ncommand = ['{child}', 'facts']\n")
        .wrapper(&["bash", "-c", "exec 9</dev/null 22</dev/null; exec \"$@\"", "bash"])
        .start();
    let log = daemon.wait_log("p", "end of facts");
    assert!(log.lines().any(|line| line == "fds="), "{log}");
}

#[test]
fn the_keeper_outlives_the_reader_of_its_words() {
    let daemon = Setup::new("[program.p]\ncommand = ['sleep', '1000']\n")
        .wrapper(&["bash", "-c", "exec \"$@\" 2> >(exec true)", "bash"])
        .start();
    let (keeper, pid) = (daemon.keeper_pid(), daemon.pid("p"));
    daemon.kill_brain();
    daemon.kill_brain();
    assert_eq!((daemon.keeper_pid(), daemon.pid("p")), (keeper, pid));
}

#[test]
fn a_runtime_directory_that_everyone_can_write_is_refused() {
    let setup = Setup::new("");
    let run = setup.dir().join("run");
    fs::create_dir(&run).expect("a directory");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o1777)).expect("our own directory");
    let ran = setup.refused();
    assert_eq!(ran.code, 73, "{ran:#?}");
    assert!(ran.err.contains("everyone") && ran.err.contains("socket"), "{ran:#?}");
}

fn open_to_others(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let about = fs::symlink_metadata(&path).expect("it is there");
        // A namespace file of the kernel's, whose mode nobody can change, in a closed directory.
        let is_namespace = path.ends_with("pins/ns");
        if about.permissions().mode() & 0o007 != 0 && !is_namespace {
            found.push(format!("{} {:o}", path.display(), about.permissions().mode() & 0o777));
        }
        if about.is_dir() {
            open_to_others(&path, found);
        }
    }
}

#[test]
fn nothing_that_the_daemon_makes_is_open_to_others_whatever_its_umask() {
    let daemon = Setup::new("[program.p]\nshell = true\ncommand = 'echo hello; exec sleep 1000'\n")
        .wrapper(&["bash", "-c", "umask 0; exec \"$@\"", "bash"])
        .start();
    daemon.wait_log("p", "hello");
    let mut found = Vec::new();
    for name in ["run", "state", "logs"] {
        open_to_others(&daemon.file(name), &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_run_without_room_for_files_is_known_again_after_everything_was_killed() {
    let mut daemon = Daemon::start(
        "[program.p]\ncommand = ['sleep', '1000']\nlimits = { nofile = 8, fsize = 1 }\n",
    );
    let pid = daemon.pid("p");
    daemon.kill_both();
    daemon.start_again();
    assert_eq!(daemon.pid("p"), pid);
}

#[test]
fn a_stdin_that_nobody_writes_keeps_no_other_program_waiting() {
    let setup = Setup::new(
        "[program.a]\ncommand = ['cat']\nstdin = '{dir}/pipe'\nrestart = 'never'\n\
         start_period = 0\n[program.b]\ncommand = ['sleep', '1000']\n",
    );
    nix::unistd::mkfifo(&setup.dir().join("pipe"), Mode::S_IRWXU).expect("a FIFO");
    let daemon = setup.start();
    daemon.pid("b");
    daemon.wait_state("a", "EXITED");
}

#[test]
fn a_start_after_a_shutdown_that_was_killed_means_what_it_says() {
    let mut daemon = Daemon::start(
        "[program.deaf]\ncommand = ['{child}', 'deaf']\nstop = { grace = '10m' }\n\
         [program.p]\ncommand = ['sleep', '1000']\n",
    );
    daemon.wait_log("deaf", "deaf");
    let deaf = daemon.pid("deaf");
    proc::send(daemon.main_pid(), Signal::SIGTERM);
    daemon.wait_state("deaf", "STOPPING");
    daemon.kill_both();
    proc::send(deaf, Signal::SIGKILL);
    wait_for("the last program to be dead", || {
        if proc::is_alive(deaf) { Err("alive".to_owned()) } else { Ok(()) }
    });
    daemon.start_again();
    daemon.pid("p");
    let again = daemon.pid("deaf");
    assert_ne!(again, deaf);
    daemon.ctl_ok(&["stop", "--no-wait", "deaf"]);
    proc::send(again, Signal::SIGKILL);
    daemon.wait_state("deaf", "STOPPED");
}
