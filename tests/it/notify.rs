//! What programs say of themselves as services for systemd do: readiness, status, watchdog.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Daemon, Setup, wait_for};
use crate::proc;
use crate::readiness::{obedient, order, wait_obeys, wait_reason, while_the_brain_is_dead};

#[test]
fn a_program_says_that_it_is_ready_and_what_it_does() {
    let daemon = Daemon::start(&obedient("web", "ready = 'notify'"));
    wait_obeys(&daemon, "web", 1);
    order(&daemon, "web", "notify STATUS=loading 3 of 7\\nEXTEND_TIMEOUT_USEC=600000000");
    daemon.wait_process("web", "to say what it does", |web| {
        web.state == "STARTING" && web.status_text.as_deref() == Some("loading 3 of 7")
    });
    wait_reason(&daemon, "web", "STARTING", "gives up 10 min");
    let shown = daemon.ctl(&["status", "web"]).out;
    assert!(shown.contains("says: loading 3 of 7"), "{shown}");
    // While the brain is dead, too; more than one.
    while_the_brain_is_dead(&daemon, || {
        order(&daemon, "web", "notify STATUS=serving");
        order(&daemon, "web", "notify RELOADING=1\\nSTOPPING=1\\nX_UNKNOWN=1");
        order(&daemon, "web", "notify READY=1");
    });
    let web = daemon.wait_state("web", "RUNNING");
    assert_eq!(web.status_text.as_deref(), Some("serving"));
    daemon.kill_brain();
    assert_eq!(daemon.process("web").status_text.as_deref(), Some("serving"));
}

#[test]
fn what_is_said_after_all_of_mend_was_killed_is_heard_by_the_next_one() {
    let mut daemon = Daemon::start(&obedient("web", "ready = 'notify'"));
    wait_obeys(&daemon, "web", 1);
    let pid = daemon.process("web").pid;
    daemon.kill_both();
    daemon.start_again();
    order(&daemon, "web", "notify READY=1");
    assert_eq!(Some(daemon.pid("web")), pid);
    // And over a replaced keeper.
    daemon.kill_keeper();
    order(&daemon, "web", "notify STATUS=heard");
    daemon.wait_process("web", "to be heard", |web| web.status_text.as_deref() == Some("heard"));
}

#[test]
fn what_was_said_to_nobody_does_not_stop_a_start() {
    let mut daemon = Daemon::start(&obedient("web", "ready = 'notify'\nstart_timeout = '8s'"));
    wait_obeys(&daemon, "web", 1);
    let pid = daemon.process("web").pid;
    daemon.kill_both();
    daemon.start_again();
    wait_reason(&daemon, "web", "STARTING", "what it said of its readiness may be lost");
    daemon.kill_brain();
    let web = daemon.wait_state("web", "RUNNING");
    assert_eq!((web.pid, web.restarts), (pid, 0));
}

#[test]
fn nonsense_strangers_and_huge_datagrams_change_nothing() {
    let daemon = Daemon::start(&obedient("web", "ready = 'notify'"));
    wait_obeys(&daemon, "web", 1);
    let pid = daemon.process("web").pid.expect("it is starting");
    order(&daemon, "web", &format!("notify READY=1\\n{}", "x".repeat(5000)));
    wait_for("a word about it", || {
        let log = daemon.daemon_log();
        let told = log.contains("a notification of more than 4096 bytes is ignored");
        if told { Ok(()) } else { Err(log) }
    });
    order(&daemon, "web", "notify READY=1\0STATUS=x");
    order(&daemon, "web", "notify MAINPID=1");
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let text = String::from_utf8_lossy(&environment).into_owned();
    let socket = text.split('\0').find_map(|entry| entry.strip_prefix("NOTIFY_SOCKET=@"));
    // Not one of its processes, although it has the right user.
    let stranger = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let name = socket.expect("it has a notification socket");
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            name,
        )
        .expect("a good name");
    stranger.send_to_addr(b"READY=1", &address).expect("anybody may send");
    order(&daemon, "web", "notify STATUS=last");
    let web = daemon
        .wait_process("web", "to have said all", |web| web.status_text.as_deref() == Some("last"));
    assert_eq!((web.state.as_str(), web.pid), ("STARTING", Some(pid)));
    order(&daemon, "web", "notify READY=1");
    daemon.pid("web");
}

#[test]
fn programs_of_other_users_are_heard() {
    if !proc::is_root() {
        return proc::skip("only root runs programs of other users");
    }
    let setup = Setup::new("");
    // The program is another user's, who has to reach its orders.
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
    fs::set_permissions(setup.dir(), open).expect("our own directory");
    let programs = format!(
        "{}{}",
        obedient("web", "ready = 'notify'\nuser = 'nobody'"),
        obedient("pipe", "ready = 'fd:3'\nuser = 'nobody'")
    );
    let daemon = setup.programs(&programs).start();
    wait_obeys(&daemon, "web", 1);
    order(&daemon, "web", "notify READY=1");
    daemon.pid("web");
    wait_obeys(&daemon, "pipe", 1);
    order(&daemon, "pipe", "write 3 \\n");
    daemon.pid("pipe");
}

#[test]
fn systemd_notify_and_its_barrier_are_understood() {
    if Command::new("systemd-notify").arg("--version").output().is_err() {
        return proc::skip("`systemd-notify` is not installed");
    }
    let daemon = Daemon::start(
        "[program.tool]\nshell = true\nready = 'notify'\n\
         command = 'systemd-notify --ready --status=up && echo barrier passed; sleep 1000'\n",
    );
    daemon.wait_state("tool", "RUNNING");
    // The tool waits until its datagram is taken out.
    daemon.wait_log("tool", "barrier passed");
    assert_eq!(daemon.process("tool").status_text.as_deref(), Some("up"));
}

#[test]
fn python_feeds_its_watchdog_as_the_manual_says() {
    let found = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter();
    let Some(python) = found.into_iter().find(|path| fs::metadata(path).is_ok()) else {
        return proc::skip("`python3` is not installed");
    };
    let script = "import os, socket, time\n\
                  s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                  a = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1)\n\
                  assert int(os.environ['WATCHDOG_PID']) == os.getpid()\n\
                  t = int(os.environ['WATCHDOG_USEC']) / 1e6\n\
                  s.sendto(b'READY=1', a)\n\
                  for n in range(5):\n    s.sendto(b'WATCHDOG=1', a); time.sleep(t / 3)\n\
                  print('fed', flush=True)\n\
                  s.sendto(b'WATCHDOG=trigger', a)\n\
                  time.sleep(1000)\n";
    let setup = Setup::new("");
    fs::write(setup.dir().join("feed.py"), script).expect("a script");
    let daemon = setup
        .programs(&format!(
            "[program.py]\ncommand = ['{python}', '{{dir}}/feed.py']\nready = 'notify'\n\
             watchdog = '5s'\nbackoff = {{ initial = '10m', max = '10m' }}\n"
        ))
        .start();
    daemon.wait_state("py", "RUNNING");
    daemon.wait_log("py", "fed");
    let after = daemon.wait_process("py", "to be aborted", |py| py.exit.is_some());
    assert_eq!(after.exit.and_then(|exit| exit.signal), Some(Signal::SIGABRT as i32));
}

#[test]
fn a_watchdog_that_is_not_fed_ends_the_run_and_the_next_one_is_watched_too() {
    let more = "ready = 'notify'\nwatchdog = '400ms'\nstop = { grace = '2s' }\n\
                backoff = { initial = '10ms' }";
    let daemon = Daemon::start(&obedient("web", more));
    wait_obeys(&daemon, "web", 1);
    order(&daemon, "web", "notify READY=1");
    wait_for("the run to be aborted", || {
        let web = daemon.process("web");
        let signal = web.exit.as_ref().and_then(|exit| exit.signal);
        if signal == Some(Signal::SIGABRT as i32) { Ok(()) } else { Err(format!("{web:#?}")) }
    });
    wait_obeys(&daemon, "web", 2);
    let shown = daemon.ctl(&["status", "web"]).out;
    assert!(shown.contains("web: STARTING") && shown.contains("SIGABRT"), "{shown}");
}
