//! What an operator sees and does: `mendctl` and the HTTP API.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;

use mendd::api::view::{ActView, LogLineView, Problem, StatusView, VersionView};
use nix::sys::signal::Signal;

use crate::harness::{Daemon, wait_for};
use crate::proc;

const TWO: &str = "[defaults.program]\nstart_period = 0\n\
                   [program.web]\ncommand = ['sleep', '1000']\n\
                   [program.db]\ncommand = ['sleep', '1000']\n";

#[test]
fn status_lists_every_program_and_its_exit_code_tells_the_state() {
    let daemon = Daemon::start(TWO);
    let pid = daemon.pid("web");
    daemon.pid("db");
    let all = daemon.ctl_ok(&["status"]);
    assert!(all.out.contains("web") && all.out.contains("db"), "{all:#?}");
    assert!(all.out.contains(&pid.to_string()), "{all:#?}");
    assert_eq!(all.err, "", "data goes to stdout, nothing to stderr");
    daemon.ctl_ok(&["stop", "db"]);
    assert_eq!(daemon.ctl(&["status", "web"]).code, 0);
    assert_eq!(daemon.ctl(&["status", "db"]).code, 3, "a stopped program");
    let unknown = daemon.ctl(&["status", "webb"]);
    assert_eq!(unknown.code, 4, "an unknown name");
    assert!(unknown.err.contains("web"), "the nearest name is offered: {unknown:#?}");
    assert_eq!(daemon.ctl(&["no-such-verb"]).code, 2, "a mistake in the usage");
}

#[test]
fn json_on_stdout_is_one_clean_document() {
    let daemon = Daemon::start(TWO);
    let pid = daemon.pid("web");
    let status: StatusView = serde_json::from_str(&daemon.ctl_ok(&["status", "--json"]).out)
        .expect("status --json is a StatusView");
    assert_eq!(status.schema, 1);
    assert_eq!(status.mode, "normal");
    assert_eq!(status.programs.iter().find(|p| p.name == "web").and_then(|p| p.pid), Some(pid));
    let act: ActView = serde_json::from_str(&daemon.ctl_ok(&["restart", "web", "--json"]).out)
        .expect("restart --json is an ActView");
    assert_eq!(act.results[0].result, "done");
    let error = daemon.ctl(&["start", "nobody", "--json"]);
    assert_ne!(error.code, 0);
    let document = error.out.trim();
    let parsed: serde_json::Value = serde_json::from_str(document).expect("errors are JSON too");
    assert!(parsed.is_object(), "{document}");
}

#[test]
fn one_program_is_shown_with_its_reason_and_its_last_ten_lines() {
    let daemon = Daemon::start(
        "[program.p]\nshell = true\ncommand = 'for n in $(seq 1 30); do echo line-$n-; done; exec sleep 1000'\n",
    );
    daemon.wait_log("p", "line-30-");
    daemon.pid("p");
    let detail = daemon.ctl_ok(&["status", "p"]).out;
    for n in 21..=30 {
        assert!(detail.contains(&format!("line-{n}-")), "{detail}");
    }
    assert!(!detail.contains("line-20-"), "{detail}");
    assert!(detail.contains("RUNNING"), "{detail}");
}

#[test]
fn without_a_daemon_the_client_says_so_and_exits_with_69() {
    let mut daemon = Daemon::start("");
    daemon.ctl_ok(&["shutdown", "--yes"]);
    daemon.wait_exit();
    let ran = daemon.ctl(&["status"]);
    assert_eq!(ran.code, 69, "{ran:#?}");
    assert!(ran.err.contains("mend.sock"), "{ran:#?}");
    assert_eq!(ran.out, "");
}

#[test]
fn signals_reach_the_program_without_a_change_of_its_goal() {
    let daemon = Daemon::start(
        "[program.s]\ncommand = ['{child}', 'signals']\nreload_signal = 'USR2'\nstop = { grace = '50ms' }\n",
    );
    daemon.wait_log("s", "listening");
    let pid = daemon.pid("s");
    daemon.ctl_ok(&["signal", "USR1", "s"]);
    daemon.wait_log("s", "got USR1");
    daemon.ctl_ok(&["signal", "SIGHUP", "s"]);
    daemon.wait_log("s", "got HUP");
    daemon.ctl_ok(&["reload", "s"]);
    daemon.wait_log("s", "got USR2");
    assert_eq!(daemon.pid("s"), pid);
    let bad = daemon.ctl(&["signal", "NONSENSE", "s"]);
    assert_ne!(bad.code, 0, "{bad:#?}");
    assert!(bad.err.contains("NONSENSE"), "{bad:#?}");
}

#[test]
fn globs_and_all_select_programs() {
    let daemon = Daemon::start(
        "[defaults.program]\nstart_period = 0\n\
         [program.api-1]\ncommand = ['sleep', '1000']\n\
         [program.api-2]\ncommand = ['sleep', '1000']\n\
         [program.web]\ncommand = ['sleep', '1000']\n",
    );
    daemon.pid("web");
    daemon.ctl_ok(&["stop", "api-*"]);
    let states = ["api-1", "api-2", "web"].map(|name| daemon.process(name).state);
    assert_eq!(states, ["STOPPED", "STOPPED", "RUNNING"]);
    daemon.ctl_ok(&["stop", "all"]);
    assert_eq!(daemon.process("web").state, "STOPPED");
    daemon.ctl_ok(&["start", "all"]);
    assert!(daemon.status().programs.iter().all(|p| p.state == "RUNNING"));
}

#[test]
fn wait_returns_when_the_state_is_reached_and_9_when_it_is_not() {
    let daemon = Daemon::start(
        "[program.later]\ncommand = ['{child}', 'exit', '0', '0.5']\nrestart = 'never'\nstart_period = 0\n\
         [program.on]\ncommand = ['sleep', '1000']\n",
    );
    daemon.ctl_ok(&["wait", "later", "--for", "exited"]);
    assert_eq!(daemon.process("later").state, "EXITED");
    daemon.ctl_ok(&["wait", "on", "--for", "running"]);
    let never = daemon.ctl(&["wait", "on", "--for", "stopped", "--timeout", "300ms"]);
    assert_eq!(never.code, 9, "{never:#?}");
}

#[test]
fn logs_shows_the_last_lines_raw_when_piped() {
    let daemon = Daemon::start(
        "[program.p]\nshell = true\ncommand = 'seq 1 50; exec sleep 1000'\n\
         [program.q]\nshell = true\ncommand = 'echo from-q; exec sleep 1000'\n\
         [program.s]\ncommand = ['{child}', 'streams']\nlogs = { merge_stderr = false }\n",
    );
    daemon.wait_log("p", "\n50\n");
    daemon.wait_log("q", "from-q");
    daemon.wait_log("s", "to stdout");
    assert_eq!(daemon.ctl_ok(&["logs", "-n", "3", "p"]).out, "48\n49\n50\n");
    let many = daemon.ctl_ok(&["logs", "-n", "1", "p", "q"]).out;
    assert!(many.contains("50") && many.contains("from-q"), "{many}");
    let glob = daemon.ctl_ok(&["logs", "-n", "1", "[pq]"]).out;
    assert!(glob.contains("50") && glob.contains("from-q"), "{glob}");
    assert_eq!(daemon.ctl_ok(&["logs", "--stderr", "s"]).out, "to stderr\n");
    let stamped = daemon.ctl_ok(&["logs", "-n", "1", "--timestamps", "p"]).out;
    assert!(stamped.trim_end().ends_with("50") && stamped.trim_end().len() > 10, "{stamped}");
    assert_eq!(daemon.ctl_ok(&["logs", "--since", "1h", "q"]).out, "from-q\n");
    let json = daemon.ctl_ok(&["logs", "-n", "2", "--json", "p"]).out;
    let lines: Vec<LogLineView> =
        json.lines().map(|line| serde_json::from_str(line).expect("NDJSON")).collect();
    assert_eq!((lines.len(), lines[1].line.as_str(), lines[1].name.as_str()), (2, "50", "p"));
    assert!(lines[1].at.is_some(), "{lines:?}");
    assert_ne!(daemon.ctl(&["logs", "nobody"]).code, 0);
}

#[test]
fn a_followed_log_shows_lines_live_over_a_restart_and_the_death_of_the_brain() {
    let daemon = Daemon::start(
        "[program.p]\nshell = true\nstart_period = 0\ncommand = 'echo first; exec sleep 1000'\n",
    );
    daemon.wait_log("p", "first");
    let mut follow = daemon.ctl_command(&["logs", "-f", "-n", "10", "p"]);
    let mut follow = follow
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mendctl runs");
    let out = BufReader::new(follow.stdout.take().expect("stdout is piped"));
    let (lines, seen) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        out.lines().map_while(Result::ok).all(|line| lines.send(line).is_ok())
    });
    let patience = *crate::harness::PATIENCE;
    let next = || seen.recv_timeout(patience);
    assert_eq!(next().as_deref(), Ok("first"));
    let old = daemon.pid("p");
    proc::send(old, Signal::SIGKILL);
    daemon.new_pid("p", old);
    let second = next();
    daemon.kill_brain();
    daemon.ctl_ok(&["restart", "p"]);
    let third = next();
    follow.kill().expect("our own child");
    follow.wait().expect("our own child");
    assert!(reader.join().is_ok());
    assert_eq!((second.as_deref(), third.as_deref()), (Ok("first"), Ok("first")));
    assert!(seen.try_recv().is_err(), "no line came twice");
}

#[test]
fn events_tell_what_happened_and_resume_by_id() {
    let daemon = Daemon::start(TWO);
    let old = daemon.pid("web");
    let mut live = daemon.events(None);
    daemon.ctl_ok(&["stop", "web"]);
    let is_stop = |event: &mendd::api::view::EventView| {
        event.kind == "state" && event.data["process"] == "web" && event.data["to"] == "STOPPED"
    };
    let stopped = live.find(|event| is_stop(event)).expect("the stop is told");
    // Everything is told again to one who was away, each id once and in order.
    let resumed: Vec<u64> =
        daemon.events(Some(0)).map(|e| e.id).take_while(|id| *id < stopped.id).collect();
    assert!(!resumed.is_empty() && resumed.windows(2).all(|p| p[0] < p[1]), "{resumed:?}");
    daemon.kill_brain();
    daemon.ctl_ok(&["start", "web"]);
    let mut after = daemon.events(Some(stopped.id));
    let running = after
        .find(|e| e.kind == "state" && e.data["process"] == "web" && e.data["to"] == "RUNNING")
        .expect("the new run is told");
    assert!(running.id > stopped.id, "ids go on over the death of the brain");
    assert_ne!(running.data["pid"], old);
}

#[test]
fn every_change_is_audited_with_who_and_what() {
    let daemon = Daemon::start(TWO);
    daemon.pid("web");
    daemon.ctl_ok(&["stop", "web"]);
    let audit = daemon.events(Some(0)).find(|e| e.kind == "audit").expect("an audit event");
    assert_eq!(audit.data["uid"], nix::unistd::geteuid().as_raw(), "{audit:?}");
    assert!(audit.data["request"].as_str().is_some_and(|r| r.contains("stop")), "{audit:?}");
}

#[test]
fn the_http_api_answers_like_its_document_says() {
    let daemon = Daemon::start(TWO);
    daemon.pid("web");
    let version: VersionView = daemon.http("GET", "/v1/version", None).json();
    assert_eq!(version.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(version.keeper_pid, daemon.main_pid(), "what was executed is the keeper");
    assert_ne!(version.pid, version.keeper_pid);
    let document: serde_json::Value = daemon.http("GET", "/v1/openapi.json", None).json();
    assert!(document["openapi"].as_str().is_some_and(|v| v.starts_with("3.")), "{document}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(daemon.http("GET", path, None).status, 200, "{path}");
    }
    let body = r#"{"names":["web"],"wait":"10s"}"#;
    let stopped: ActView = daemon.http("POST", "/v1/stop", Some(body)).json();
    assert_eq!(stopped.results[0].process.state, "STOPPED");
    for (method, target, body, status) in [
        ("GET", "/v1/nothing", None, 404),
        ("DELETE", "/v1/status", None, 405),
        ("POST", "/v1/stop", Some(r#"{"names":["nobody"]}"#), 404),
        ("POST", "/v1/stop", Some("{"), 400),
        ("GET", "/v1/programs/nobody", None, 404),
    ] {
        let answer = daemon.http(method, target, body);
        assert_eq!(answer.status, status, "{method} {target}: {answer:#?}");
        assert_eq!(answer.content_type, "application/problem+json", "{method} {target}");
        let problem: Problem = answer.json();
        assert_eq!(problem.status, status);
    }
}

#[test]
fn the_level_of_the_daemons_own_log_changes_at_run_time() {
    let daemon = Daemon::start(TWO);
    daemon.ctl_ok(&["log-level", "debug"]);
    let answer = daemon.http("GET", "/v1/log-level", None);
    assert!(answer.body.contains("debug"), "{answer:#?}");
    assert_ne!(daemon.ctl(&["log-level", "not a level!"]).code, 0);
}

#[test]
fn the_log_of_the_daemon_can_be_json() {
    let daemon = crate::harness::Setup::new(TWO).flag("--log-format").flag("json").start();
    daemon.pid("web");
    let log = wait_for("a word of the daemon", || {
        let log = fs::read_to_string(daemon.file("daemon.log")).unwrap_or_default();
        if log.contains('\n') { Ok(log) } else { Err(log) }
    });
    let (whole, _) = log.rsplit_once('\n').expect("a line");
    for line in whole.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not JSON: {line}");
    }
}

#[test]
fn completions_and_versions_need_no_daemon() {
    let mut daemon = Daemon::start("");
    daemon.ctl_ok(&["shutdown", "--yes"]);
    daemon.wait_exit();
    for shell in ["bash", "zsh", "fish"] {
        assert!(daemon.ctl_ok(&["completion", shell]).out.contains("mendctl"), "{shell}");
    }
    let version = daemon.ctl_ok(&["--version"]).out;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}
