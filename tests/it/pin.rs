//! Pinned pidfds: without a service manager, the exit status of what ended while no part of Mend
//! lived is known all the same.

use std::fs;
use std::path::Path;

use mendd::os::pin::Pinboard;
use nix::sys::signal::Signal;

use crate::harness::{Daemon, wait_for};
use crate::proc;

const PROGRAMS: &str = "[program.seven]\n\
     command = ['sh', '-c', 'until [ -e {dir}/go ]; do sleep 0.05; done; exit 7']\n\
     restart = 'never'\nstart_period = 0\n\
     [program.signalled]\ncommand = ['sleep', '1000']\nrestart = 'never'\nstart_period = 0\n\
     [program.lives]\ncommand = ['sleep', '1000']\nstart_period = 0\n";

/// The mounts of this process's namespace below a directory.
fn mounts_below(directory: &Path) -> Vec<String> {
    let prefix = format!("{}/", directory.display());
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the kernel tells the mounts");
    let point = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    table.lines().filter_map(point).filter(|point| point.starts_with(&prefix)).collect()
}

/// The number of pins, as the next brain would find them.
fn pins(daemon: &Daemon) -> usize {
    let place = daemon.file("run/pins");
    let looked = std::thread::scope(|scope| {
        // A thread that is inside sees nothing else any more.
        let look = || Pinboard::enter(&place, false).and_then(|board| board.names());
        scope.spawn(look).join().expect("it does not panic")
    });
    looked.map_or(0, |names| names.len())
}

/// Waits until `count` runs are pinned; `false`, with the reason said, where that cannot be.
fn are_pinned(daemon: &Daemon, count: usize) -> bool {
    if !proc::is_root() || !proc::keeps_exit_status_in_pidfds() {
        proc::skip("needs root and kernel 6.15");
        return false;
    }
    let refused = || daemon.daemon_log().contains("pidfds cannot be pinned");
    wait_for("the pins", || match pins(daemon) {
        pinned if pinned == count || refused() => Ok(()),
        pinned => Err(format!("{pinned} pins")),
    });
    if refused() {
        proc::skip("this system does not let mendd mount");
    }
    !refused()
}

#[track_caller]
fn wait_dead(pid: u32) {
    wait_for("a program to be dead", || {
        if proc::is_alive(pid) { Err(format!("{pid} lives")) } else { Ok(()) }
    });
}

fn start() -> Daemon {
    let daemon = crate::harness::Setup::new(PROGRAMS).flag("--log-level=debug").start();
    daemon.pid("lives");
    daemon
}

#[test]
fn what_ended_while_all_of_mend_was_dead_has_its_true_status() {
    let mut daemon = start();
    let (seven, signalled, lives) =
        (daemon.pid("seven"), daemon.pid("signalled"), daemon.pid("lives"));
    if !are_pinned(&daemon, 3) {
        return;
    }
    // Over a life of the brain too: the next one goes on with the same pins.
    daemon.kill_brain();
    assert_eq!(pins(&daemon), 3);
    daemon.kill_both();
    proc::send(signalled, Signal::SIGUSR1);
    fs::write(daemon.file("go"), "").expect("the signal to end");
    wait_dead(seven);
    wait_dead(signalled);
    assert_eq!(mounts_below(daemon.dir()).len(), 2, "they outlive mendd");
    daemon.start_again();
    let exit = |name: &str| {
        let exit = daemon.wait_state(name, "EXITED").exit.expect("it ended");
        (exit.kind, exit.code, exit.signal)
    };
    assert_eq!(exit("seven"), ("code".to_owned(), Some(7), None));
    assert_eq!(exit("signalled"), ("signal".to_owned(), None, Some(Signal::SIGUSR1 as i32)));
    assert_eq!(daemon.pid("lives"), lives);
    let dir = daemon.dir().to_owned();
    daemon.ctl_ok(&["shutdown", "--yes"]);
    assert_eq!(daemon.wait_exit(), 0);
    assert_eq!(mounts_below(&dir), Vec::<String>::new());
    assert!(!dir.join("run/pins").exists());
}

#[test]
fn many_runs_cost_two_mounts_and_none_is_left_after_a_wipe() {
    let mut daemon = start();
    if !are_pinned(&daemon, 3) {
        return;
    }
    let more = "[program.many]\ncommand = ['sleep', '1000']\nreplicas = 50\nstart_period = 0\n";
    daemon.write_programs(&format!("{PROGRAMS}{more}"));
    daemon.ctl_ok(&["reload"]);
    assert!(are_pinned(&daemon, 53));
    // What ends while mendd lives is not pinned any more.
    daemon.ctl_ok(&["stop", "many:0"]);
    assert!(are_pinned(&daemon, 52));
    assert_eq!(mounts_below(daemon.dir()).len(), 2);
    let lives = daemon.pid("lives");
    daemon.kill_both();
    // As an operator would clean up by hand, and as far as the kernel lets him.
    let cleaned = fs::remove_dir_all(daemon.file("run"));
    assert!(cleaned.is_err(), "a mount is in the way");
    for pid in daemon.family().into_keys() {
        proc::send(pid, Signal::SIGKILL);
    }
    wait_dead(lives);
    daemon.start_again();
    assert_ne!(daemon.pid("lives"), lives);
    let dir = daemon.dir().to_owned();
    assert_eq!(daemon.stop(), 0);
    assert_eq!(mounts_below(&dir), Vec::<String>::new());
}
