//! When a start counts as done: a connection, an answer, a line, a command, and what follows
//! when none of them comes.

use std::fs;
use std::io::Write;
use std::net::TcpListener;

use nix::sys::signal::Signal;

use crate::harness::{Daemon, wait_for};
use crate::proc;

/// A port that nothing listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A program that does what the test tells it.
pub(crate) fn obedient(name: &str, more: &str) -> String {
    format!("[program.{name}]\ncommand = ['{{child}}', 'obey', '{{dir}}/{name}.orders']\n{more}\n")
}

/// Waits until the present run of an obedient program listens, and tells it something.
#[track_caller]
pub(crate) fn order(daemon: &Daemon, name: &str, order: &str) {
    let path = daemon.file(&format!("{name}.orders"));
    wait_for("the program to obey", || {
        // Made by the program, which takes what comes after.
        if path.exists() { Ok(()) } else { Err("no file of orders".to_owned()) }
    });
    let mut file = fs::File::options().append(true).open(path).expect("a file of orders");
    file.write_all(format!("{order}\n").as_bytes()).expect("an order");
}

/// Waits until an obedient program has started so often.
#[track_caller]
pub(crate) fn wait_obeys(daemon: &Daemon, name: &str, times: usize) {
    wait_for(&format!("start {times} of {name}"), || {
        let log = String::from_utf8_lossy(&daemon.log_bytes(name, "stdout")).into_owned();
        let seen = log.matches("obeys\n").count();
        if seen >= times { Ok(()) } else { Err(log) }
    });
}

#[track_caller]
pub(crate) fn wait_reason(daemon: &Daemon, name: &str, state: &str, words: &str) {
    daemon.wait_process(name, &format!("to be {state} with `{words}`"), |process| {
        process.state == state && process.reason.contains(words)
    });
}

/// Stops the brain, does something in its absence, and kills it; another one serves afterwards.
#[track_caller]
pub(crate) fn while_the_brain_is_dead(daemon: &Daemon, act: impl FnOnce()) {
    let brain = daemon.brain_pid();
    proc::send(brain, Signal::SIGSTOP);
    act();
    proc::send(brain, Signal::SIGKILL);
    daemon.wait_until("another brain", |status| status.daemon.pid != brain);
}

#[test]
fn a_listener_makes_ready_and_dependants_wait_for_it_and_say_so() {
    let port = free_port();
    let db = obedient("db", &format!("ready = {{ tcp = '127.0.0.1:{port}' }}"));
    let daemon = Daemon::start(&format!(
        "{db}[program.web]\ncommand = ['sleep', '1000']\nrequires = ['db']\nstart_period = 0\n"
    ));
    wait_obeys(&daemon, "db", 1);
    let words = format!("tcp 127.0.0.1:{port}: connection refused; gives up 1 min");
    wait_reason(&daemon, "db", "STARTING", &words);
    wait_reason(&daemon, "web", "STOPPED", "requires `db`, which is not ready: tcp 127.0.0.1");
    let db = daemon.process("db");
    assert_eq!((db.ready, db.gives_up_at.is_some()), (Some(false), true));
    assert_eq!(daemon.process("web").waiting_for, ["db"]);
    daemon.kill_brain();
    wait_reason(&daemon, "db", "STARTING", "connection refused");
    order(&daemon, "db", &format!("listen {port}"));
    daemon.ctl_ok(&["wait", "db", "web", "--for", "ready"]);
    let after = daemon.process("db");
    assert_eq!((after.ready, after.pid, after.gives_up_at), (Some(true), db.pid, None));
    assert_eq!(daemon.process("web").ready, None, "it declares nothing");
}

#[test]
fn an_answer_over_http_makes_ready_when_its_status_is_a_good_one() {
    let port = free_port();
    let daemon = Daemon::start(&obedient(
        "web",
        &format!("ready = {{ http = 'http://127.0.0.1:{port}/healthz', interval = '50ms' }}"),
    ));
    fs::write(daemon.file("status"), "503 Not Yet").expect("a status to answer with");
    wait_obeys(&daemon, "web", 1);
    order(&daemon, "web", &format!("serve {port} {}", daemon.file("status").display()));
    wait_reason(&daemon, "web", "STARTING", "answered 503 Service Unavailable: because of 503");
    fs::write(daemon.file("status"), "nonsense").expect("a status to answer with");
    wait_reason(&daemon, "web", "STARTING", "did not answer in HTTP");
    fs::write(daemon.file("status"), "204 Fine").expect("a status to answer with");
    daemon.wait_state("web", "RUNNING");
}

#[test]
fn a_whole_line_of_this_run_makes_ready_also_one_that_nobody_was_there_to_see() {
    let daemon = Daemon::start(&obedient("db", "ready = { log = '^ready (to|for) \\w+$' }"));
    wait_obeys(&daemon, "db", 1);
    order(&daemon, "db", "print not ready to go\\nready to");
    daemon.wait_log("db", "not ready to go");
    assert_eq!(daemon.process("db").state, "STARTING", "the line has no end yet");
    while_the_brain_is_dead(&daemon, || {
        order(&daemon, "db", "print  go\\nmore\\n");
        order(&daemon, "db", "write 1 done\\n");
    });
    let first = daemon.pid("db");
    // What the run before has printed last does not make the next one ready.
    order(&daemon, "db", "print ready for nothing\\n");
    daemon.wait_log("db", "ready for nothing");
    proc::send(first, Signal::SIGKILL);
    wait_obeys(&daemon, "db", 2);
    daemon.kill_brain();
    order(&daemon, "db", "print still busy\\n");
    daemon.wait_log("db", "still busy");
    wait_reason(&daemon, "db", "STARTING", "waits for a line of output that matches");
    order(&daemon, "db", "print ready to serve\\r\\n");
    assert_ne!(daemon.pid("db"), first);
}

#[test]
fn a_line_on_standard_error_counts_too_where_it_has_its_own_log() {
    let more = "logs = { merge_stderr = false }\nready = { log = 'listening' }";
    let daemon = Daemon::start(&obedient("db", more));
    wait_obeys(&daemon, "db", 1);
    order(&daemon, "db", "write 2 listening\\n");
    daemon.pid("db");
}

#[test]
fn a_line_on_the_given_descriptor_makes_ready_also_while_the_brain_is_dead() {
    let daemon = Daemon::start(&format!(
        "{}{}{}",
        obedient("three", "ready = 'fd:3'"),
        obedient("ten", "ready = 'fd:10'"),
        obedient("closes", "ready = 'fd:3'")
    ));
    for name in ["three", "ten", "closes"] {
        wait_obeys(&daemon, name, 1);
    }
    order(&daemon, "three", "write 3 almost");
    daemon.wait_log("three", "did write");
    assert_eq!(daemon.process("three").state, "STARTING", "the line has no end yet");
    order(&daemon, "closes", "close 3");
    wait_reason(&daemon, "closes", "STARTING", "its descriptor 3: it was closed without one");
    while_the_brain_is_dead(&daemon, || {
        order(&daemon, "three", "write 3 there\\n");
        order(&daemon, "three", "close 3");
        order(&daemon, "ten", "write 10 \\n");
        wait_for("the lines to be written", || {
            // Their output waits for the next brain; the descriptor tells.
            let pid = proc::with_environment("MEND_PROCESS=three").keys().next().copied();
            let open = pid.is_some_and(|pid| fs::metadata(format!("/proc/{pid}/fd/3")).is_ok());
            if open { Err("descriptor 3 is open".to_owned()) } else { Ok(()) }
        });
    });
    daemon.pid("three");
    daemon.pid("ten");
}

#[test]
fn a_line_on_the_descriptor_outlives_all_of_mend() {
    let mut daemon = Daemon::start(&obedient("late", "ready = 'fd:3'"));
    wait_obeys(&daemon, "late", 1);
    let pid = daemon.process("late").pid;
    daemon.kill_both();
    order(&daemon, "late", "write 3 ready\\n");
    daemon.start_again();
    assert_eq!(Some(daemon.pid("late")), pid);
}

#[test]
fn a_command_that_succeeds_makes_ready_and_nothing_of_those_before_is_left() {
    let daemon = Daemon::start(
        "[program.web]\ncommand = ['sleep', '1000']\nenvironment = { PLACE = '{dir}/there' }\n\
         directory = '{dir}'\n\
         ready = { exec = ['sh', '-c', 'sleep 1000 & [ -e $PLACE ] && [ -e there ] || \
         { echo nothing at $PLACE; exit 7; }'], interval = '50ms', timeout = '40ms' }\n\
         [program.slow]\ncommand = ['sleep', '1000']\n\
         ready = { exec = ['sh', '-c', 'setsid sleep 999 & sleep 999'], timeout = '50ms' }\n\
         [program.absent]\ncommand = ['sleep', '1000']\nready = { exec = ['/no/such/program'] }\n",
    );
    wait_reason(&daemon, "slow", "STARTING", "did not end within 50ms and was killed");
    wait_reason(&daemon, "absent", "STARTING", "/no/such/program");
    // Under load a shell may not even start in time, which is said as well.
    daemon.wait_process("web", "to say why", |web| {
        web.reason.contains("exited with code 7: nothing at") || web.reason.contains("killed")
    });
    // Those that were under way are killed too, and with them what they have started.
    daemon.kill_brain();
    fs::write(daemon.file("there"), "").expect("a file");
    daemon.write_programs(
        "[program.web]\ncommand = ['sleep', '1000']\nenvironment = { PLACE = '{dir}/there' }\n\
         directory = '{dir}'\nready = { exec = 'test -e there' }\n",
    );
    daemon.ctl_ok(&["reload"]);
    daemon.pid("web");
    daemon.ctl_ok(&["stop", "web"]);
}

#[test]
fn a_start_that_takes_too_long_has_failed_and_is_tried_again() {
    let daemon = Daemon::start(
        "[program.never]\ncommand = ['{child}', 'deaf']\nready = 'notify'\nstart_timeout = '300ms'\n\
         stop = { grace = '100ms' }\nbackoff = { initial = '10m', max = '10m' }\n",
    );
    let failed = daemon.wait_state("never", "BACKOFF");
    let words = "not ready after 300 ms: waits for `READY=1` on its notification socket";
    assert!(failed.reason.contains(words), "{}", failed.reason);
    assert_eq!((failed.failures, failed.pid), (1, None));
    assert_eq!(failed.exit.and_then(|exit| exit.signal), Some(Signal::SIGKILL as i32));
}

#[test]
fn a_program_is_replaced_with_the_one_it_restarts_with() {
    let daemon = Daemon::start(
        "[program.db]\ncommand = ['sleep', '1000']\nstart_period = 0\n\
         [program.web]\ncommand = ['sleep', '1000']\nstart_period = 0\nrestart_with = ['db']\n\
         [program.other]\ncommand = ['sleep', '1000']\nstart_period = 0\nafter = ['db']\n",
    );
    let (db, web, other) = (daemon.pid("db"), daemon.pid("web"), daemon.pid("other"));
    while_the_brain_is_dead(&daemon, || proc::send(db, Signal::SIGKILL));
    let db = daemon.new_pid("db", db);
    let web = daemon.new_pid("web", web);
    wait_reason(&daemon, "web", "RUNNING", "restarted because `db` was replaced");
    daemon.ctl_ok(&["stop", "web"]);
    proc::send(db, Signal::SIGKILL);
    daemon.new_pid("db", db);
    assert_eq!(daemon.process("web").state, "STOPPED");
    assert_eq!((daemon.pid("other"), proc::is_alive(web)), (other, false));
}

#[test]
fn readiness_that_is_declared_later_restarts_nothing_that_need_not() {
    let port = free_port();
    let program = |ready: &str| obedient("web", ready);
    let daemon = Daemon::start(&program(&format!("ready = {{ tcp = '127.0.0.1:{port}' }}")));
    wait_obeys(&daemon, "web", 1);
    let pid = daemon.process("web").pid;
    order(&daemon, "web", "print listening\\n");
    daemon.wait_log("web", "listening");
    daemon.write_programs(&program("ready = { log = 'listening' }"));
    daemon.ctl_ok(&["reload"]);
    assert_eq!(Some(daemon.pid("web")), pid);
    // It must be given the socket, so this one needs a new run.
    daemon.write_programs(&program("ready = 'notify'"));
    daemon.ctl_ok(&["reload"]);
    wait_obeys(&daemon, "web", 2);
    order(&daemon, "web", "notify READY=1");
    assert_ne!(Some(daemon.pid("web")), pid);
}
