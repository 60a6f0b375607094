//! Every route over a real socket: what it answers, refuses, and tells the engine.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::Caps;
use super::bench::{Bench, Reply, line, request, wait_until};
use super::history_tests::told;
use super::routes::ROUTES;
use super::view::{ActView, LogLevelBody, LogLineView, ProgramView, ReloadView, StatusView};
use crate::config::{Access, Principals};
use crate::core::care::Story;
use crate::engine::Verb;

#[test]
fn every_route_answers() {
    let bench = Bench::start();
    bench.history.record(told(7, 1, Story::Ended { how: "was killed".to_owned() }));
    for route in &ROUTES {
        let target = route.path.replace("{name}", "web").replace("{id}", "7");
        let (target, body) = match target.as_str() {
            "/v1/signal" => (target.clone(), r#"{"names":["web"],"signal":"HUP"}"#),
            "/v1/start"
            | "/v1/stop"
            | "/v1/restart"
            | "/v1/reload-programs"
            | "/v1/enable"
            | "/v1/checks/run"
            | "/v1/heal"
            | "/v1/release"
            | "/v1/disable" => (target.clone(), r#"{"names":["web"]}"#),
            "/v1/hold" => (target.clone(), r#"{"names":["web"],"for":"30m"}"#),
            "/v1/log-level" if route.method == "PUT" => (target.clone(), r#"{"level":"debug"}"#),
            "/v1/programs/web/signal" => (format!("{target}?signal=HUP"), ""),
            "/v1/reload" => (format!("{target}?reason=good"), ""),
            _ => (target.clone(), ""),
        };
        let headers = format!("Content-Length: {}\r\n", body.len());
        let mut reader = bench.open(route.method.as_str(), &target, &headers);
        reader.stream.write_all(body.as_bytes()).unwrap();
        let head = reader.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{} {target}: {head}", route.method);
        assert!(head.contains("content-type: "), "{} {target}: {head}", route.method);
    }
}

#[test]
fn the_status_shows_what_the_engine_knows() {
    let bench = Bench::start();
    let reply = bench.call("GET", "/v1/status?name=web", "");
    assert!(reply.head.contains("content-type: application/json"), "{reply:?}");
    let status: StatusView = reply.json();
    assert_eq!((status.schema, status.mode.as_str()), (1, "normal"));
    assert_eq!(status.daemon.started, "1970-01-01T00:00:00.000Z");
    let web = &status.programs[0];
    assert_eq!(
        (web.name.as_str(), web.program.as_str(), web.group.as_str()),
        ("web:0", "web", "site")
    );
    assert_eq!((web.state.as_str(), web.statecode, web.pid), ("RUNNING", 20, Some(123)));
    assert_eq!(web.description, "pid 123, uptime 0:01:07");
    assert_eq!(web.since, "2026-11-23T11:51:00.120Z");
    assert_eq!(web.uptime_seconds, Some(67.0));
    assert_eq!(web.exit.as_ref().unwrap().text, "exited with code 3");
    let one: ProgramView = bench.call("GET", "/v1/programs/web%3A0", "").json();
    assert_eq!((one.name.as_str(), &one.processes), ("web:0", &status.programs));
}

#[test]
fn an_act_reaches_the_engine_with_its_author_and_reason() {
    let bench = Bench::start();
    let body = r#"{"names":["web","@site"],"wait":"1m30s","reason":"deploy"}"#;
    let view: ActView = bench.call("POST", "/v1/restart", body).json();
    assert_eq!(view.results[0].result, "done");
    assert_eq!(view.results[0].process.name, "web:0");
    bench.call("POST", "/v1/programs/web:0/signal?signal=SIGHUP&wait=2&reason=ping%20it", "");
    bench.call("POST", "/v1/programs/web/reload", "");
    let headers = "Idempotency-Key: a-1.b_2\r\nContent-Length: 0\r\n";
    bench.open("POST", "/v1/programs/web/stop", headers).until("\r\n\r\n");
    let headers = "Idempotency-Key: a b\r\nContent-Length: 0\r\n";
    let mut bad = bench.open("POST", "/v1/programs/web/stop", headers);
    let bad = bad.until("\r\n\r\n");
    assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
    let acts = bench.known.acts.lock().unwrap();
    assert_eq!((acts[0].key.as_deref(), acts[3].key.as_deref()), (None, Some("a-1.b_2")));
    assert_eq!(acts.len(), 4);
    assert_eq!((acts[0].verb, acts[0].wait), (Verb::Restart, Some(Duration::from_secs(90))));
    assert_eq!(acts[0].names, ["web", "@site"]);
    assert_eq!(acts[0].by.uid, Some(nix::unistd::getuid().as_raw()));
    assert_eq!(acts[0].by.reason.as_deref(), Some("deploy"));
    assert_eq!((acts[1].verb, acts[1].wait), (Verb::Signal(1), Some(Duration::from_secs(2))));
    assert_eq!(acts[1].names, ["web:0"]);
    assert_eq!(acts[1].by.reason.as_deref(), Some("ping it"));
    assert_eq!((acts[2].verb, acts[2].wait), (Verb::Reload, None));
}

#[test]
fn what_the_engine_refuses_becomes_a_problem_with_a_way_out() {
    let bench = Bench::start();
    let reply = bench.call("GET", "/v1/programs/nope", "");
    let problem = reply.problem();
    assert_eq!((reply.status, problem.help.as_deref()), (404, Some("did you mean `node`?")));
    assert!(problem.kind.ends_with("/unknown-name"));

    let reply = bench.call("POST", "/v1/reload", "");
    let problem = reply.problem();
    assert_eq!((reply.status, problem.detail.as_str()), (422, "line 3"));
    assert_eq!(problem.title, "The configuration has 2 mistakes");

    let reply = bench.call("POST", "/v1/programs/late/start", "");
    assert_eq!(reply.status, 503);
    assert!(reply.problem().kind.ends_with("/shutting-down"));
    assert!(reply.head.contains("retry-after: "), "{reply:?}");

    let reply = bench.call("PUT", "/v1/log-level", r#"{"level":"loud"}"#);
    assert_eq!((reply.status, reply.problem().detail.as_str()), (422, "`loud` is no level"));
    let level: LogLevelBody = bench.call("PUT", "/v1/log-level", r#"{"level":"debug"}"#).json();
    assert_eq!(level.level, "info");
    let reload: ReloadView = bench.call("POST", "/v1/reload?reason=good", "").json();
    assert_eq!(reload.added, ["new"]);
}

#[test]
fn a_request_that_makes_no_sense_is_told_why() {
    let bench = Bench::start();
    for (method, target, body, status, text) in [
        ("GET", "/v1/nothing", "", 404, "`/v1/nothing`"),
        ("GET", "/v1/status?nane=web", "", 400, "did you mean `name`?"),
        ("GET", "/v1/status?name=", "", 400, "may not be empty"),
        ("GET", "/v1/version?x=1", "", 400, "`x`"),
        ("POST", "/v1/programs/web/start?wait=soon", "", 400, "`wait`"),
        ("POST", "/v1/programs/web/start?wait=1s&wait=2s", "", 400, "twice"),
        ("POST", "/v1/programs/web/start?signal=HUP", "", 400, "`signal`"),
        ("POST", "/v1/programs/web/signal", "", 400, "`signal`: it is missing"),
        ("POST", "/v1/programs/web/signal?signal=BANG", "", 400, "`BANG` is no signal"),
        ("POST", "/v1/programs/web/start", "{\"wait\":\"1s\"}", 400, "query"),
        ("POST", "/v1/start", "", 400, "EOF"),
        ("POST", "/v1/start", "{names", 400, "key must be a string"),
        ("POST", "/v1/start", "{}", 422, "missing field `names`"),
        ("POST", "/v1/start", r#"{"names":[],"wait":"1s"}"#, 400, "`names`"),
        ("POST", "/v1/start", r#"{"names":["a"],"wat":"1s"}"#, 422, "unknown field `wat`"),
        ("POST", "/v1/start", r#"{"names":["a"],"signal":"HUP"}"#, 400, "`signal`"),
        ("POST", "/v1/start", r#"{"names":["a"],"reason":"a\nb"}"#, 400, "`reason`"),
        ("GET", "/v1/logs?lines=few", "", 400, "`lines`"),
        ("GET", "/v1/logs?since=long", "", 400, "`since`"),
        ("GET", "/v1/logs?stream=both", "", 400, "`stream`"),
        ("GET", "/v1/logs?format=xml", "", 400, "`format`"),
        ("GET", "/v1/logs?follow=maybe", "", 400, "`follow`"),
        ("GET", "/v1/programs/web/logs?name=db", "", 400, "`name`"),
        ("GET", "/v1/events?after=x", "", 400, "`after`"),
    ] {
        let reply = bench.call(method, target, body);
        let problem = reply.problem();
        let told = format!("{} {}", problem.detail, problem.help.unwrap_or_default());
        assert_eq!(reply.status, status, "{method} {target} {body}: {reply:?}");
        assert!(told.contains(text), "{method} {target} {body}: {reply:?}");
    }
    assert!(bench.known.acts.lock().unwrap().is_empty(), "something reached the engine");
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let bench = Bench::start();
    let reply = bench.call("DELETE", "/v1/log-level", "");
    assert_eq!(reply.status, 405);
    assert_eq!(reply.head.matches("allow: ").count(), 1, "{reply:?}");
    assert!(reply.head.contains("allow: get, put, head"), "{reply:?}");
    assert!(reply.problem().kind.ends_with("/method-not-allowed"));
    let reply = bench.call("GET", "/v1/programs/web/start", "");
    assert!(reply.head.contains("allow: post"), "{reply:?}");
}

#[test]
fn head_is_get_without_the_body() {
    let bench = Bench::start();
    let reply = bench.call("HEAD", "/v1/status", "");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert!(reply.head.contains("content-length: "), "{reply:?}");
}

#[test]
fn logs_come_as_exact_text_or_as_json_lines() {
    let bench = Bench::start();
    let reply = bench.call("GET", "/v1/logs?timestamps=1&prefix=1&lines=5", "");
    assert!(reply.body.contains("2026-11-23T11:52:07.120Z web:0 | first\n"), "{reply:?}");
    let query = bench.query.lock().unwrap().clone().unwrap();
    assert_eq!(
        (query.lines, query.follow, query.stdout, query.stderr),
        (Some(5), false, true, true)
    );

    let mut reader =
        bench.open("GET", "/v1/programs/web/logs?follow=1&format=json&since=10m&stream=stderr", "");
    assert!(reader.until("first").contains("application/x-ndjson"));
    let query = bench.query.lock().unwrap().clone().unwrap();
    assert_eq!((query.lines, query.stdout, query.stderr), (None, false, true));
    bench.lines.send(vec![line("second")]).unwrap();
    let text = reader.until("\"second\"}\n");
    let json = text.lines().find(|line| line.contains("second")).unwrap();
    let view: LogLineView = serde_json::from_str(json).unwrap();
    assert_eq!((view.name.as_str(), view.line.as_str()), ("web:0", "second"));
    // An empty batch is this source's way to fail: the transfer breaks off, it does not end.
    bench.lines.send(Vec::new()).unwrap();
    let mut rest = Vec::new();
    reader.stream.read_to_end(&mut rest).unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a part was taken for the whole");
}

#[test]
fn a_peer_without_the_role_is_refused_and_told_which_one_it_needs() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can connect as somebody else");
        return;
    }
    let bench = Bench::start();
    // 65,533 may observe, nobody else has a role.
    for (uid, method, target, status) in [
        (65_533, "GET", "/v1/status", 200),
        (65_533, "POST", "/v1/programs/web/stop", 403),
        (65_533, "POST", "/v1/shutdown", 403),
        (65_534, "GET", "/v1/status", 403),
        (65_534, "GET", "/", 403),
    ] {
        let reply = call_as(&bench, uid, method, target);
        assert_eq!(reply.status, status, "{uid} {method} {target}: {reply:?}");
        if status == 403 {
            let problem = reply.problem();
            let needed = if target.contains("shut") { "admin" } else { "" };
            assert!(problem.detail.contains(needed), "{problem:?}");
            assert!(problem.help.unwrap().contains("[supervisor.access]"));
        }
    }
    assert!(bench.known.acts.lock().unwrap().is_empty());

    bench.access.set(Access {
        operate: Principals { uids: vec![65_534], gids: Vec::new() },
        ..Access::default()
    });
    assert_eq!(call_as(&bench, 65_534, "POST", "/v1/programs/web/stop").status, 200);
    assert_eq!(call_as(&bench, 65_534, "POST", "/v1/reload").status, 403);
    assert_eq!(call_as(&bench, 65_533, "GET", "/v1/status").status, 403);
    let acts = bench.known.acts.lock().unwrap();
    assert_eq!(acts[0].by.uid, Some(65_534));
}

#[test]
fn a_crowd_never_turns_an_administrator_away() {
    let bench = Bench::with(Caps { requests: 0, ..Caps::default() });
    assert_eq!(bench.call("GET", "/v1/status", "").status, 200);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("half skipped: only root can connect as somebody else");
        return;
    }
    let reply = call_as(&bench, 65_533, "GET", "/v1/status");
    assert_eq!(reply.status, 503);
    assert!(reply.head.contains("retry-after: "), "{reply:?}");
    assert!(reply.problem().kind.ends_with("/busy"));
}

/// Sends a request from a process of another user: this program, run again as [`ask_as_told`].
pub(super) fn call_as(bench: &Bench, uid: u32, method: &str, target: &str) -> Reply {
    // The other user may not be able to reach this program where it lies.
    let program = bench.directory().join("ask");
    if !program.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    }
    let mut command = Command::new(&program);
    command
        .args(["--exact", "api::endpoints_tests::ask_as_told", "--ignored", "--nocapture"])
        .env("MEND_TEST_SOCKET", bench.socket())
        .env("MEND_TEST_REQUEST", request(method, target, ""))
        .current_dir("/")
        .uid(uid)
        .gid(uid);
    let mut output = None;
    // A child that another test is just starting may still hold the copy open for writing.
    wait_until("the copy to be closed", || match command.output() {
        Ok(done) => {
            output = Some(done);
            true
        }
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => false,
        Err(error) => panic!("{error}"),
    });
    let output = output.unwrap();
    let start = output.stdout.windows(8).position(|it| it == b"HTTP/1.1");
    let start = start.unwrap_or_else(|| panic!("no answer: {output:?}"));
    let end = output.stdout.windows(9).position(|it| it == b"<<<END>>>").unwrap();
    Reply::read(&output.stdout[start..end])
}

#[test]
#[ignore = "run by the test of the roles, as another user"]
fn ask_as_told() {
    let (Ok(socket), Ok(text)) =
        (std::env::var("MEND_TEST_SOCKET"), std::env::var("MEND_TEST_REQUEST"))
    else {
        return;
    };
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes.extend_from_slice(b"<<<END>>>");
    std::io::stdout().write_all(&bytes).unwrap();
}
