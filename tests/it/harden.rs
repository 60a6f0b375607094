//! What goes wrong seldom: no descriptors left, files deleted under the daemon, a log that cannot
//! be written at the end, a brain killed between two steps.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Daemon, Setup, run, wait_for};
use crate::proc;

/// The pipes of a process that are FIFOs of runs.
fn held_fifos(pid: u32) -> usize {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("a living process of ours");
    links
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target| target.parent().is_some_and(|place| place.ends_with("run/runs")))
        .count()
}

fn limit_descriptors(pid: u32, soft: usize) {
    let ran =
        run(Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--nofile={soft}:")));
    assert_eq!(ran.code, 0, "{ran:#?}");
}

#[test]
fn a_keeper_without_descriptors_says_so_and_holds_the_output_later() {
    let daemon = Daemon::start("[program.p]\ncommand = ['sleep', '1000']\nautostart = false\n");
    let keeper = daemon.keeper_pid();
    let open = fs::read_dir(format!("/proc/{keeper}/fd")).expect("our own daemon").count();
    limit_descriptors(keeper, open);
    daemon.ctl_ok(&["start", "p"]);
    let pid = daemon.pid("p");
    wait_for("the keeper's complaint", || {
        let log = daemon.daemon_log();
        if log.contains("no descriptor is left") { Ok(()) } else { Err(log) }
    });
    assert_eq!(held_fifos(keeper), 0);
    limit_descriptors(keeper, 1024);
    daemon.kill_brain();
    assert_eq!(daemon.pid("p"), pid);
    assert_eq!(held_fifos(keeper), 1);
    proc::send(pid, Signal::SIGKILL);
    daemon.new_pid("p", pid);
}

#[test]
fn a_new_file_that_an_include_matches_is_announced() {
    let daemon = Setup::new("[program.p]\ncommand = ['sleep', '1000']\n")
        .preamble("include = ['conf.d/*.toml']\n")
        .start();
    let announced = |daemon: &Daemon| {
        daemon.wait_until("the announcement", |status| {
            status.daemon.warnings.iter().any(|text| text.contains("has changed and is good"))
        });
    };
    fs::create_dir(daemon.file("conf.d")).expect("a directory");
    let program = |name: &str| format!("[program.{name}]\ncommand = ['sleep', '1000']\n");
    // The directory itself is noticed first, then what is in it.
    fs::write(daemon.file("conf.d/q.toml"), program("q")).expect("a file");
    announced(&daemon);
    daemon.ctl_ok(&["reload"]);
    daemon.pid("q");
    fs::write(daemon.file("conf.d/r.toml"), program("r")).expect("a file");
    announced(&daemon);
}

#[test]
fn too_low_a_limit_on_open_files_is_said_with_the_way_out() {
    let daemon =
        Setup::new("[program.p]\ncommand = ['sleep', '1000']\nautostart = false\nreplicas = 60\n")
            .supervisor("nofile = 300")
            .wrapper(&["bash", "-c", "ulimit -n 300; exec \"$@\"", "bash"])
            .start();
    daemon.wait_until("the warning", |status| {
        status.daemon.warnings.iter().any(|text| text.contains("nofile = 400"))
    });
}

#[test]
fn reloads_are_answered_in_order_each_with_its_own_result() {
    let daemon = Daemon::start("[program.p]\ncommand = ['sleep', '1000']\n");
    let mut clients: Vec<_> = (0..5)
        .map(|_| daemon.ctl_command(&["reload"]).spawn().expect("mendctl can be executed"))
        .collect();
    for client in &mut clients {
        assert!(client.wait().expect("our own child").success());
    }
}

#[test]
fn a_deleted_socket_is_made_again_at_once() {
    let daemon = Daemon::start("[program.p]\ncommand = ['sleep', '1000']\n");
    let pid = daemon.pid("p");
    fs::remove_file(daemon.socket()).expect("the socket is there");
    assert_eq!(daemon.pid("p"), pid);
    for entry in fs::read_dir(daemon.file("run")).expect("the runtime directory is there") {
        let path = entry.expect("an entry").path();
        // Mounts of root's pins stay, as they would under `rm -rf`.
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    assert_eq!(daemon.pid("p"), pid);
    proc::send(pid, Signal::SIGKILL);
    daemon.new_pid("p", pid);
}

#[test]
fn a_hangup_makes_a_moved_socket_again_also_when_the_configuration_is_bad() {
    let daemon = Daemon::start("[program.p]\ncommand = ['sleep', '1000']\n");
    let pid = daemon.pid("p");
    daemon.write_programs("[program.p]\ncommand = 7\n");
    fs::rename(daemon.file("run"), daemon.file("away")).expect("the runtime directory is there");
    proc::send(daemon.main_pid(), Signal::SIGHUP);
    assert_eq!(daemon.pid("p"), pid);
}

#[test]
fn a_log_that_cannot_be_written_does_not_hold_up_the_end() {
    if !proc::is_root() {
        return proc::skip("only root can mount a small disk");
    }
    let daemon = Setup::new(
        "[program.p]\ncommand = ['{child}', 'numbers', '16384', '0', 'sleep']\n\
         logs = { full_disk_block = '10m', compress = 'none' }\n",
    )
    .wrapper(&crate::output::SMALL_DISK)
    .start();
    daemon.pid("p");
    daemon.wait_until("a warning about the full disk", |status| {
        status.daemon.warnings.iter().any(|w| w.contains("full") || w.contains("space"))
    });
    assert_eq!(daemon.stop(), 0);
}
