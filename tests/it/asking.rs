//! An act whose daemon dies before it has answered: its client learns what came of it from the
//! next one, and nothing is done twice.

use std::fs;
use std::process::{Child, Stdio};

use mendd::api::view::ActView;
use nix::sys::signal::Signal;

use crate::harness::{Daemon, Ran};
use crate::http;
use crate::proc;

/// Writes a line at each start and ends when it can take the file `go`, or when there is `end`.
const SLOW: &str = "[program.slow]\nstart_period = 0\nshell = true\nstop = { grace = '10m' }\n\
    command = '''trap '' TERM; echo x >> {dir}/starts; echo up; \
    until [ -e {dir}/end ] || rm {dir}/go 2>/dev/null; do sleep 0.02; done'''\n";

fn begin(daemon: &Daemon, args: &[&str]) -> Child {
    let mut command = daemon.ctl_command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("mendctl can be executed")
}

#[track_caller]
fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().expect("mendctl ends by itself, within its timeout");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Ran { code: output.status.code().unwrap_or(-1), out, err }
}

/// Lets one run end.
fn release(daemon: &Daemon) {
    fs::write(daemon.file("go"), "").expect("our own directory");
}

/// Lets every run end: nothing else stops them.
fn end(daemon: &Daemon) {
    fs::write(daemon.file("end"), "").expect("our own directory");
}

fn starts(daemon: &Daemon) -> usize {
    fs::read_to_string(daemon.file("starts")).unwrap_or_default().lines().count()
}

#[test]
fn a_restart_is_done_once_and_waited_for_over_the_deaths_of_two_brains() {
    let daemon = Daemon::start(SLOW);
    daemon.wait_log("slow", "up");
    let old = daemon.pid("slow");
    let client = begin(&daemon, &["restart", "slow", "--timeout", "20s"]);
    daemon.wait_state("slow", "STOPPING");
    daemon.kill_brain();
    daemon.kill_brain();
    release(&daemon);
    let ran = finish(client);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.starts_with("slow: restarted, pid "), "{ran:#?}");
    let new = daemon.new_pid("slow", old);
    assert!(ran.out.contains(&new.to_string()), "{ran:#?}");
    assert_eq!(starts(&daemon), 2, "one start and one restart");
    end(&daemon);
}

#[test]
fn a_stop_whose_brain_died_is_waited_for_and_one_that_takes_too_long_says_so() {
    let daemon = Daemon::start(SLOW);
    daemon.wait_log("slow", "up");
    let short = begin(&daemon, &["stop", "slow", "--timeout", "1s"]);
    let long = begin(&daemon, &["stop", "slow", "--timeout", "20s"]);
    daemon.wait_state("slow", "STOPPING");
    daemon.kill_brain();
    let ran = finish(short);
    assert_eq!(ran.code, 9, "{ran:#?}");
    assert!(ran.out.starts_with("slow: not yet: "), "{ran:#?}");
    release(&daemon);
    let ran = finish(long);
    assert_eq!((ran.code, ran.out.as_str()), (0, "slow: stopped\n"), "{ran:#?}");
}

#[test]
fn a_request_sent_again_under_its_key_does_nothing_twice() {
    let daemon = Daemon::start("[program.a]\nstart_period = 0\ncommand = ['sleep', '1000']\n");
    let old = daemon.pid("a");
    let send = |request: &str, key: &str| {
        let header = format!("Idempotency-Key: {key}\r\n");
        let body = r#"{"names":["a"],"wait":"10s"}"#;
        http::request_with(&daemon.socket(), request, body, &header).expect("an answer")
    };
    let outcome = |answer: &http::Answer| {
        let view: ActView = answer.json();
        (view.results[0].result.clone(), view.results[0].message.clone())
    };
    let first = send("/v1/restart", "one");
    let new = daemon.new_pid("a", old);
    assert_eq!(outcome(&first), ("done".to_owned(), "restarted".to_owned()));
    assert_eq!(outcome(&send("/v1/restart", "one")), outcome(&first));
    daemon.kill_brain();
    assert_eq!(outcome(&send("/v1/restart", "one")), outcome(&first));
    assert_eq!(daemon.pid("a"), new);
    assert_eq!(send("/v1/stop", "one").status, 422, "the key of another request");
    assert_eq!(send("/v1/restart", "no key").status, 400);
    assert_eq!(outcome(&send("/v1/restart", "two")).0, "done");
    assert_ne!(daemon.pid("a"), new);
}

#[test]
fn a_client_whose_daemon_does_not_come_back_says_what_is_not_known() {
    let daemon = Daemon::start(SLOW);
    daemon.wait_log("slow", "up");
    let client = begin(&daemon, &["stop", "slow", "--timeout", "1s"]);
    daemon.wait_state("slow", "STOPPING");
    let (keeper, brain) = (daemon.keeper_pid(), daemon.brain_pid());
    proc::send(keeper, Signal::SIGSTOP);
    proc::send(brain, Signal::SIGKILL);
    let ran = finish(client);
    proc::send(keeper, Signal::SIGCONT);
    assert_eq!(ran.code, 69, "{ran:#?}");
    assert!(ran.err.contains("nobody has answered since"), "{ran:#?}");
    assert!(ran.err.contains("may have been done"), "{ran:#?}");
    daemon.wait_until("another brain", |status| status.daemon.pid != brain);
    end(&daemon);
}
