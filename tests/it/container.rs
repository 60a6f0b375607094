//! `mendd` as PID 1: reaps orphans, forwards signals, ends with a program's code.

use nix::sys::signal::Signal;

use crate::harness::{Daemon, Setup, wait_for};
use crate::proc;

/// `unshare` stays outside as the parent; the daemon is PID 1 of a namespace of its own.
const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// Returns a daemon that is PID 1, and its pid as seen from outside.
fn container(programs: &str) -> Option<(Daemon, u32)> {
    if !proc::is_root() {
        proc::skip("only root makes a PID namespace everywhere");
        return None;
    }
    let daemon = Setup::new(programs).wrapper(&NAMESPACE).start();
    let init = proc::children(daemon.main_pid())[0];
    Some((daemon, init))
}

#[test]
fn as_pid_1_it_is_the_keeper_and_reaps_orphans() {
    let Some((daemon, init)) =
        container("[program.o]\ncommand = ['{child}', 'orphans', '20']\nstart_period = 0\n")
    else {
        return;
    };
    assert_eq!(daemon.keeper_pid(), 1);
    daemon.wait_log("o", "orphaned");
    wait_for("the orphans to be reaped", || {
        let zombies: Vec<u32> = proc::children(init)
            .into_iter()
            .filter(|pid| {
                matches!(proc::state(*pid), Some('Z')) || proc::command(*pid).contains("sleep 0.05")
            })
            .collect();
        if zombies.is_empty() { Ok(()) } else { Err(format!("{zombies:?}")) }
    });
    // The program itself is supervised as anywhere.
    daemon.ctl_ok(&["restart", "o"]);
    end(daemon, init, 0);
}

#[test]
fn as_pid_1_it_survives_the_death_of_its_brain() {
    let Some((daemon, init)) = container("[program.a]\ncommand = ['sleep', '1000']\n") else {
        return;
    };
    let inside = daemon.pid("a");
    let children = proc::children(init);
    let sleep = children.iter().find(|pid| proc::command(**pid).starts_with("sleep"));
    let brain = children.iter().find(|pid| !proc::command(**pid).starts_with("sleep"));
    let (sleep, brain) = (*sleep.expect("the program"), *brain.expect("the brain"));
    let old = daemon.brain_pid();
    proc::send(brain, Signal::SIGKILL);
    daemon.wait_until("another brain", |status| status.daemon.pid != old);
    assert_eq!(daemon.pid("a"), inside);
    assert!(proc::is_alive(sleep));
    end(daemon, init, 0);
}

#[test]
fn sigterm_to_pid_1_stops_everything_in_order() {
    let Some((daemon, init)) = container(
        "[program.web]\ncommand = ['{child}', 'mark', '{dir}/order', 'web']\nrequires = ['db']\n\
         [program.db]\ncommand = ['{child}', 'mark', '{dir}/order', 'db']\nstart_period = '100ms'\n",
    ) else {
        return;
    };
    daemon.pid("web");
    let order = daemon.file("order");
    wait_for("both to be marked", || {
        let text = std::fs::read_to_string(&order).unwrap_or_default();
        if text == "start db\nstart web\n" { Ok(()) } else { Err(text) }
    });
    let mut daemon = daemon;
    proc::send(init, Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(), 0);
    let text = std::fs::read_to_string(&order).expect("it was written");
    assert!(text.ends_with("stop web\nstop db\n"), "{text}");
}

#[test]
fn it_ends_with_the_code_of_the_program_it_is_told_to_follow() {
    for (wrapper, what) in [(&NAMESPACE[..], "as PID 1"), (&[][..], "as any process")] {
        if !wrapper.is_empty() && !proc::is_root() {
            proc::skip("only root makes a PID namespace everywhere");
            continue;
        }
        let mut daemon = Setup::new(
            "[program.main]\nshell = true\nrestart = 'never'\n\
             start_period = 0\n\
             command = 'until [ -e {dir}/go ]; do sleep 0.05; done; exit 42'\n\
             [program.side]\ncommand = ['sleep', '1000']\n",
        )
        .wrapper(wrapper)
        .flag("--exit-when")
        .flag("main")
        .start();
        std::fs::write(daemon.file("go"), "").expect("a file");
        assert_eq!(daemon.wait_exit(), 42, "{what}");
    }
}

#[test]
fn it_ends_with_128_and_the_signal_that_killed_the_program_it_follows() {
    let mut daemon = Setup::new(
        "[program.main]\ncommand = ['sleep', '1000']\nrestart = 'never'\nstart_period = 0\n",
    )
    .flag("--exit-when")
    .flag("main")
    .start();
    let pid = daemon.pid("main");
    proc::send(pid, Signal::SIGKILL);
    assert_eq!(daemon.wait_exit(), 128 + 9);
}

#[track_caller]
fn end(mut daemon: Daemon, init: u32, code: i32) {
    proc::send(init, Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(), code);
}
