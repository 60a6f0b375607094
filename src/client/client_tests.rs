//! The verbs against a daemon on a real socket.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::fake_daemon::{FakeDaemon, Reply, Seen, process, status};
use super::*;

/// What a command wrote and how it ended.
pub(super) struct Outcome {
    pub(super) exit: Exit,
    pub(super) out: String,
    pub(super) error: String,
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

async fn mendctl_at(socket: &Path, look: Look, arguments: &str) -> Outcome {
    let words = std::iter::once("mendctl").chain(arguments.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap();
    let (out, error) = (Sink::default(), Sink::default());
    let printer =
        Printer::new(Box::new(out.clone()), Box::new(error.clone()), look, cli.global.json);
    let client = Client::new(Some(socket));
    let mut context = Context { client, printer, interrupts: Interrupts::Never };
    let run = run(&mut context, cli.verb);
    let limit = std::time::Duration::from_secs(20);
    let exit = tokio::time::timeout(limit, run).await.unwrap_or_else(|_| {
        panic!("`{arguments}` still runs; out: {}; error: {}", out.text(), error.text())
    });
    Outcome { exit, out: out.text(), error: error.text() }
}

pub(super) async fn mendctl(daemon: &FakeDaemon, arguments: &str) -> Outcome {
    mendctl_at(&daemon.socket, Look::plain(), arguments).await
}

fn two_processes() -> String {
    let mut view =
        status(vec![process("web:0", "RUNNING", Some(71)), process("db", "STOPPED", None)]);
    view.programs[0].group = "site".to_owned();
    serde_json::to_string(&view).unwrap()
}

fn problem(status: u16, slug: &str) -> Reply {
    let problem = json!({
        "type": format!("https://mend.invalid/problems/{slug}"), "title": slug,
        "status": status, "detail": format!("{slug}: `bd`"), "help": "did you mean `db`?",
    });
    Reply::Json(status, problem.to_string())
}

fn act(result: &str, message: &str) -> Reply {
    let outcome = json!({
        "name": "web:0", "result": result, "message": message,
        "process": process("web:0", "RUNNING", Some(123)),
    });
    Reply::Json(200, json!({ "schema": 1, "results": [outcome] }).to_string())
}

#[tokio::test]
async fn status_is_a_table_and_json_is_passed_on_untouched() {
    let daemon = FakeDaemon::start(|_| Reply::Json(200, two_processes()));
    let shown = mendctl(&daemon, "status").await;
    assert_eq!(shown.exit, Exit::Ok, "{}", shown.out);
    assert!(shown.out.starts_with("NAME   STATE      PID"), "{}", shown.out);
    assert!(shown.out.contains("web:0  * RUNNING   71"), "{}", shown.out);
    let named = mendctl(&daemon, "status web:* db").await;
    assert_eq!(named.exit, Exit::NotRunning);
    assert_eq!(daemon.seen()[1].uri, "/v1/status?name=web%3A%2A&name=db");
    let json = mendctl(&daemon, "status --json").await;
    assert_eq!(json.out, two_processes() + "\n");
    assert_eq!(json.error, "");
}

#[tokio::test]
async fn status_of_one_name_shows_facts_and_its_last_lines() {
    let daemon = FakeDaemon::start(|seen| {
        if seen.is("/v1/logs") {
            let line = json!({ "name": "web", "stream": "stdout", "at": null, "cursor": "1:0", "line": "hello" });
            return Reply::Text(format!("{line}\n"));
        }
        let view = status(vec![process("web", "RUNNING", Some(71))]);
        Reply::Json(200, serde_json::to_string(&view).unwrap())
    });
    let shown = mendctl(&daemon, "status web").await;
    assert_eq!(shown.exit, Exit::Ok);
    assert!(shown.out.starts_with("* web: RUNNING\n"), "{}", shown.out);
    assert!(shown.out.contains("pid: 71\n") && shown.out.contains(" hello\n"), "{}", shown.out);
}

#[tokio::test]
async fn another_version_of_the_daemon_is_said_once_on_stderr() {
    let daemon = FakeDaemon::start(|_| {
        let mut view = status(vec![process("web", "RUNNING", Some(71))]);
        view.daemon.version = "99.0.0".to_owned();
        Reply::Json(200, serde_json::to_string(&view).unwrap())
    });
    let shown = mendctl(&daemon, "status --json").await;
    assert_eq!(shown.exit, Exit::Ok);
    assert!(shown.error.contains("mendd 99.0.0 is newer"), "{}", shown.error);
    assert_eq!(shown.error.lines().count(), 1);
    assert!(serde_json::from_str::<Value>(&shown.out).is_ok(), "{}", shown.out);
}

#[tokio::test]
async fn a_watched_status_is_shown_again_after_every_event() {
    let (looks, streams) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let daemon = FakeDaemon::start(move |seen| {
        if seen.is("/v1/events") {
            return match streams.fetch_add(1, Ordering::Relaxed) {
                0 => Reply::Text(sse(1, "state")),
                _ => Reply::Silence,
            };
        }
        let state = match looks.fetch_add(1, Ordering::Relaxed) {
            0 => "STARTING",
            1 => "RUNNING",
            _ => return problem(403, "denied"),
        };
        let view = status(vec![process("web", state, Some(7))]);
        Reply::Json(200, serde_json::to_string(&view).unwrap())
    });
    let sink = Sink::default();
    let watching = {
        let printer =
            Printer::new(Box::new(sink.clone()), Box::new(Sink::default()), Look::plain(), false);
        let client = Client::new(Some(&daemon.socket));
        let mut context = Context { client, printer, interrupts: Interrupts::Never };
        let cli = Cli::try_parse_from(["mendctl", "status", "--watch"]).unwrap();
        async move { run(&mut context, cli.verb).await }
    };
    tokio::pin!(watching);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !sink.text().contains("* RUNNING") {
        assert!(tokio::time::Instant::now() < deadline, "last seen: {}", sink.text());
        let tick = tokio::time::sleep(std::time::Duration::from_millis(10));
        tokio::select! {
            exit = &mut watching => panic!("it ended with {exit:?}: {}", sink.text()),
            () = tick => {}
        }
    }
    assert!(sink.text().contains("! STARTING"), "{}", sink.text());
}

#[tokio::test]
async fn an_unknown_name_is_4_for_status_and_1_for_start() {
    let daemon = FakeDaemon::start(|seen| match seen.is("/v1/events") {
        true => Reply::Text(sse(1, "state")),
        false => problem(404, "unknown-name"),
    });
    let asked = mendctl(&daemon, "status bd").await;
    assert_eq!(asked.exit, Exit::UnknownOrDenied);
    assert_eq!(asked.error, "error: unknown-name: `bd`\nhelp: did you mean `db`?\n");
    assert_eq!(mendctl(&daemon, "wait bd").await.exit, Exit::UnknownOrDenied);
    assert_eq!(mendctl(&daemon, "start bd").await.exit, Exit::Failed);
}

#[tokio::test]
async fn with_json_an_error_is_one_object_on_stdout() {
    let daemon = FakeDaemon::start(|_| problem(403, "forbidden"));
    let refused = mendctl(&daemon, "stop web --json").await;
    assert_eq!(refused.exit, Exit::UnknownOrDenied);
    let document: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(document["error"]["title"], "forbidden");
    assert_eq!(document["error"]["exit_code"], 4);
    assert_eq!(refused.error, "");
}

#[tokio::test]
async fn acts_wait_by_default_and_say_what_was_done() {
    let daemon = FakeDaemon::start(|_| act("done", "started (was stopped)"));
    let done = mendctl(&daemon, "restart web --reason why").await;
    assert_eq!(done.exit, Exit::Ok);
    assert_eq!(done.out, "web:0: started (was stopped), pid 123\n");
    mendctl(&daemon, "start web --no-wait").await;
    mendctl(&daemon, "signal HUP web").await;
    mendctl(&daemon, "reload web --timeout 1m30s").await;
    let seen = daemon.seen();
    let bodies: Vec<(&str, Value)> = seen
        .iter()
        .map(|seen| (seen.uri.as_str(), serde_json::from_str(&seen.body).unwrap()))
        .collect();
    let expected = [
        ("/v1/restart", json!({ "names": ["web"], "wait": "60s", "reason": "why" })),
        ("/v1/start", json!({ "names": ["web"] })),
        ("/v1/signal", json!({ "names": ["web"], "signal": "HUP" })),
        ("/v1/reload-programs", json!({ "names": ["web"], "wait": "90s" })),
    ];
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn an_interrupt_ends_the_waiting_and_says_that_the_daemon_goes_on() {
    let daemon = FakeDaemon::start(|_| {
        // The request came, so the command listens already.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
        Reply::Silence
    });
    let error = Sink::default();
    let printer =
        Printer::new(Box::new(Sink::default()), Box::new(error.clone()), Look::plain(), false);
    let client = Client::new(Some(&daemon.socket));
    let mut context = Context { client, printer, interrupts: Interrupts::Signals };
    let cli = Cli::try_parse_from(["mendctl", "stop", "web"]).unwrap();
    let limit = std::time::Duration::from_secs(20);
    let exit = tokio::time::timeout(limit, run(&mut context, cli.verb)).await.unwrap();
    assert_eq!(exit, Exit::Interrupted);
    let expected =
        "mendctl: no longer waiting; mendd goes on stopping web: `mendctl status web` tells\n";
    assert_eq!(error.text(), expected);
}

#[tokio::test]
async fn a_result_decides_the_exit_code() {
    for (result, exit) in
        [("unchanged", Exit::Ok), ("failed", Exit::Failed), ("timed-out", Exit::TimedOut)]
    {
        let daemon = FakeDaemon::start(move |_| act(result, ""));
        assert_eq!(mendctl(&daemon, "start web").await.exit, exit, "{result}");
    }
}

#[tokio::test]
async fn a_spinner_appears_on_a_terminal_only_and_is_wiped() {
    let respond = |seen: &Seen| match seen.uri.starts_with("/v1/status") {
        true => Reply::Json(200, two_processes()),
        false => Reply::Silence,
    };
    let daemon = FakeDaemon::start(respond);
    let terminal = Look { error_is_terminal: true, ..Look::plain() };
    let run = mendctl_at(&daemon.socket, terminal, "wait db --for running --timeout 600ms");
    // The events never come, so that the time runs out before the first look.
    let shown = run.await;
    assert_eq!(shown.exit, Exit::TimedOut);
    assert!(shown.error.contains("waiting for db to be running"), "{:?}", shown.error);
    assert!(shown.error.contains("db stopped"), "{:?}", shown.error);
    assert!(shown.error.contains("\r\x1b[Kerror: db not running after 600ms"), "{}", shown.error);
    let plain = mendctl(&daemon, "wait db --timeout 600ms").await;
    assert!(!plain.error.contains('\r'), "{:?}", plain.error);
}

#[tokio::test]
async fn reload_without_names_applies_the_configuration() {
    let daemon = FakeDaemon::start(|_| {
        let view = json!({ "schema": 1, "added": ["a", "b"], "removed": [], "restarted": ["c"],
                           "updated": [], "warnings": ["old key"] });
        Reply::Json(200, view.to_string())
    });
    let done = mendctl(&daemon, "reload").await;
    assert_eq!(done.out, "added: a, b\nrestarted: c\n");
    assert_eq!(done.error, "mendctl: warning: old key\n");
    let seen = &daemon.seen()[0];
    assert_eq!((seen.uri.as_str(), seen.body.as_str()), ("/v1/reload", ""));
    let daemon = FakeDaemon::start(|_| problem(422, "bad-configuration"));
    assert_eq!(mendctl(&daemon, "reload").await.exit, Exit::Config);
}

#[tokio::test]
async fn wait_looks_again_after_every_event() {
    let looks = AtomicUsize::new(0);
    let daemon = FakeDaemon::start(move |seen| {
        if seen.is("/v1/events") {
            return Reply::Text(sse(1, "state"));
        }
        let state = ["STARTING", "RUNNING"][looks.fetch_add(1, Ordering::Relaxed).min(1)];
        let view = status(vec![process("web", state, Some(7))]);
        Reply::Json(200, serde_json::to_string(&view).unwrap())
    });
    let reached = mendctl(&daemon, "wait web --for running").await;
    assert_eq!((reached.exit, reached.out.as_str()), (Exit::Ok, "web: running\n"));
}

fn sse(id: u64, kind: &str) -> String {
    let event = json!({ "id": id, "at": "2026-11-23T12:00:00Z", "kind": kind,
                        "data": { "name": "web" } });
    format!("id: {id}\nevent: {kind}\ndata: {event}\n\n")
}

#[tokio::test]
async fn watch_resumes_by_id_and_shows_no_event_twice() {
    let connections = AtomicUsize::new(0);
    let daemon = FakeDaemon::start(move |_| match connections.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Text(sse(1, "state") + &sse(2, "audit")),
        1 => Reply::Text(sse(2, "audit") + &sse(3, "state")),
        _ => problem(403, "forbidden"),
    });
    let shown = mendctl(&daemon, "watch --json").await;
    let ids: Vec<u64> = shown
        .out
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64())
        .collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(daemon.seen().iter().all(|seen| seen.is("/v1/events")));
    let resumed: Vec<_> = daemon.seen().into_iter().map(|seen| seen.last_event_id).collect();
    assert_eq!(resumed, [None, Some("2".to_owned()), Some("3".to_owned())]);
    assert!(shown.error.contains("mendd is gone") && shown.error.contains("back"));
}

#[tokio::test]
async fn watch_goes_on_with_a_daemon_that_counts_anew() {
    let connections = AtomicUsize::new(0);
    let daemon = FakeDaemon::start(move |_| match connections.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Text(sse(9, "state")),
        1 => Reply::Text(sse(2, "gap") + &sse(3, "state")),
        _ => problem(403, "denied"),
    });
    let shown = mendctl(&daemon, "watch --kind state --json").await;
    let ids: Vec<u64> = shown
        .out
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64())
        .collect();
    assert_eq!(ids, [9, 2, 3]);
    assert_eq!(daemon.seen()[2].last_event_id.as_deref(), Some("3"));
}

/// A line of web's log; lines of one byte come one after the other.
fn log(at: &str, line: &str) -> String {
    let at = format!("2026-11-23T12:00:0{at}Z");
    let cursor = format!("1:{}", line.as_bytes()[0] * 2);
    let line = json!({ "name": "web", "stream": "stdout", "at": at, "cursor": cursor,
        "line": line });
    line.to_string() + "\n"
}

#[tokio::test]
async fn logs_ask_for_what_was_wanted_and_are_bare_in_a_pipe() {
    let daemon = FakeDaemon::start(|_| Reply::Text(log("1.000", "a") + &log("2.000", "b\tc")));
    let shown = mendctl(&daemon, "logs web --stderr -n 5 --grep b").await;
    assert_eq!((shown.exit, shown.out.as_str()), (Exit::Ok, "b\tc\n"));
    assert_eq!(daemon.seen()[0].uri, "/v1/logs?name=web&stream=stderr&format=json&lines=5");
    mendctl(&daemon, "logs -t --since 2026-11-23T11:00:00Z").await;
    assert_eq!(daemon.seen()[1].uri, "/v1/logs?format=json&since=2026-11-23T11%3A00%3A00Z");
}

#[tokio::test]
async fn a_pipe_gets_the_exact_bytes() {
    let daemon = FakeDaemon::start(|_| Reply::Text("a\r\n\n\tno end".to_owned()));
    let shown = mendctl(&daemon, "logs web").await;
    assert_eq!((shown.exit, shown.out.as_str()), (Exit::Ok, "a\r\n\n\tno end"));
    assert_eq!(daemon.seen()[0].uri, "/v1/logs?name=web&lines=100&format=text");
}

#[tokio::test]
async fn following_goes_on_after_a_restart_without_losing_or_doubling() {
    let connections = AtomicUsize::new(0);
    let daemon = FakeDaemon::start(move |_| match connections.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Text(log("1.000", "a") + &log("2.000", "b") + "{\"name\":\"torn"),
        1 => problem(503, "starting"),
        2 => Reply::Text(
            log("1.000", "a") + &log("2.001", "b") + &log("2.001", "c") + &log("3.000", "d"),
        ),
        _ => problem(403, "forbidden"),
    });
    let shown = mendctl(&daemon, "tail web").await;
    assert_eq!(shown.out, "a\nb\nc\nd\n");
    assert!(shown.error.contains("mendctl: mendd is gone"), "{}", shown.error);
    let seen = daemon.seen();
    assert_eq!(seen[0].uri, "/v1/logs?name=web&format=json&follow=1&lines=10");
    let again = "/v1/logs?name=web&format=json&follow=1&since=2026-11-23T11%3A59%3A57Z";
    assert_eq!(seen[1].uri, again);
    assert_eq!(shown.exit, Exit::UnknownOrDenied);
}

#[tokio::test]
async fn several_processes_on_a_terminal_get_prefixes() {
    let daemon = FakeDaemon::start(|seen| match seen.is("/v1/status") {
        true => Reply::Json(200, two_processes()),
        false => Reply::Text(log("1.000", "a")),
    });
    let terminal = Look { out_is_terminal: true, ..Look::plain() };
    let shown = mendctl_at(&daemon.socket, terminal, "logs").await;
    assert_eq!(shown.out, "web   | a\n");
    let shown = mendctl_at(&daemon.socket, terminal, "logs --no-prefix").await;
    assert_eq!(shown.out, "a\n");
}

#[tokio::test]
async fn shutdown_needs_a_yes_and_returns_when_the_daemon_is_gone() {
    let daemon = FakeDaemon::start({
        let asked = AtomicUsize::new(0);
        move |seen| {
            if seen.method == hyper::Method::POST {
                return Reply::Json(202, String::new());
            }
            // The next daemon has another keeper.
            let keeper = asked.fetch_add(1, Ordering::Relaxed) / 2;
            let view = json!({ "schema": 1, "name": "mendd", "version": "0.1.0", "api": "v1",
                               "pid": 2, "keeper_pid": keeper });
            Reply::Json(200, view.to_string())
        }
    });
    let refused = mendctl(&daemon, "shutdown").await;
    assert_eq!(refused.exit, Exit::Usage);
    assert!(daemon.seen().iter().all(|seen| seen.method == hyper::Method::GET));
    let done = mendctl(&daemon, "shutdown --yes").await;
    assert_eq!((done.exit, done.out.as_str()), (Exit::Ok, "mendd has ended\n"), "{}", done.error);
}

#[tokio::test]
async fn version_and_log_level_tell_what_the_daemon_says() {
    let daemon = FakeDaemon::start(|seen| match seen.is("/v1/log-level") {
        true => Reply::Json(200, json!({ "level": "info" }).to_string()),
        false => {
            let view = json!({ "schema": 1, "name": "mendd", "version": "0.0.9", "api": "v1",
                               "pid": 2, "keeper_pid": 1 });
            Reply::Json(200, view.to_string())
        }
    });
    let version = mendctl(&daemon, "version").await;
    assert!(version.out.contains("mendd 0.0.9 (pid 2, keeper 1)"), "{}", version.out);
    assert!(version.error.contains("mendd 0.0.9 is older"), "{}", version.error);
    let level = mendctl(&daemon, "log-level debug").await;
    assert_eq!(level.out, "log level: debug (was info)\n");
    assert_eq!(daemon.seen()[1].method, hyper::Method::PUT);
    assert_eq!(mendctl(&daemon, "log-level").await.out, "info\n");
}

#[tokio::test]
async fn live_names_are_listed_and_a_missing_daemon_stays_silent() {
    let daemon = FakeDaemon::start(|_| Reply::Json(200, two_processes()));
    let listed = mendctl(&daemon, "__complete names").await;
    assert_eq!(listed.out, "@site\nall\ndb\nweb\nweb:0\n");
    let silent = mendctl_at(Path::new("/nonexistent/s"), Look::plain(), "__complete names").await;
    assert_eq!((silent.exit, silent.out + &silent.error), (Exit::Ok, String::new()));
}

#[tokio::test]
async fn a_configuration_is_checked_without_a_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let check = async |name: &str, text: &str, options: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        let arguments = format!("config check {} {options}", file.display());
        mendctl_at(Path::new("/nonexistent/s"), Look::plain(), &arguments).await
    };
    let good = check("good.toml", "[program.web]\ncommand = \"true\"\n", "").await;
    assert_eq!(good.exit, Exit::Ok, "{}", good.error);
    assert!(good.out.ends_with("good.toml: correct\n"), "{}", good.out);
    let bad = "[program.web]\ncommand = \"true\"\nreplicsa = 2\n";
    let shown = check("bad.toml", bad, "").await;
    assert_eq!((shown.exit, shown.out.as_str()), (Exit::Config, ""));
    assert!(shown.error.contains("replicas"), "{}", shown.error);
    let json = check("bad.toml", bad, "--json").await;
    let document: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&document["valid"], json.exit), (&json!(false), Exit::Config));
    let first = &document["diagnostics"][0];
    assert_eq!((&first["line"], &first["column"]), (&json!(3), &json!(1)), "{first}");
    let latin = directory.path().join("latin.toml");
    std::fs::write(&latin, b"[program.web]\n# \xfc\n").unwrap();
    for verb in ["check", "show"] {
        let arguments = format!("config {verb} {}", latin.display());
        let latin = mendctl_at(Path::new("/nonexistent/s"), Look::plain(), &arguments).await;
        assert_eq!(latin.exit, Exit::Config, "{}", latin.error);
        assert!(latin.error.contains("byte 0xfc at offset 16, in line 2"), "{}", latin.error);
        assert!(latin.error.contains("iconv"), "{}", latin.error);
    }
    let none = "config check /nonexistent/supervisor.toml";
    let missing = mendctl_at(Path::new("/nonexistent/s"), Look::plain(), none).await;
    assert_eq!(missing.exit, Exit::Failed);
    assert_ne!(missing.error, "");
}

#[tokio::test]
async fn a_missing_or_left_over_socket_is_told_apart() {
    let missing = mendctl_at(Path::new("/nonexistent/mend.sock"), Look::plain(), "status").await;
    assert_eq!(missing.exit, Exit::Unreachable);
    let text = "error: mendd is not running: there is no socket at `/nonexistent/mend.sock`\n";
    assert!(missing.error.starts_with(text), "{}", missing.error);
    let mut daemon = FakeDaemon::start(|_| Reply::Silence);
    daemon.crash().await;
    let stale = mendctl(&daemon, "status").await;
    assert_eq!(stale.exit, Exit::Unreachable);
    assert!(stale.error.contains("nobody answers at"), "{}", stale.error);
}

#[tokio::test]
async fn a_command_waits_for_the_brain_that_follows_one_that_died() {
    let status = json!({ "schema": 1, "mode": "normal", "programs": [] }).to_string();
    let mut daemon = FakeDaemon::start(|_| Reply::Silence);
    daemon.crash().await;
    let next = FakeDaemon::start(move |_| Reply::Json(200, status.clone()));
    let (first, _) = tokio::join!(mendctl(&daemon, "wait x --timeout 1s"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::rename(&next.socket, &daemon.socket).unwrap();
    });
    assert!(!first.error.contains("nobody answers"), "{}", first.error);
    assert!(!next.seen().is_empty());
}

#[tokio::test]
async fn an_act_whose_answer_broke_is_asked_about_again_under_its_key() {
    let count = AtomicUsize::new(0);
    let daemon = FakeDaemon::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Reply::Broken,
        2 => act("done", "restarted"),
        _ => problem(503, "shutting-down"),
    });
    let first = mendctl(&daemon, "restart web --timeout 7s").await;
    assert_eq!((first.exit, first.out.as_str()), (Exit::Ok, "web:0: restarted, pid 123\n"));
    let second = mendctl(&daemon, "restart web").await;
    assert_eq!(second.exit, Exit::Failed, "a refusal is an answer");
    let seen = daemon.seen();
    let keys: Vec<&str> =
        seen.iter().map(|seen| seen.idempotency_key.as_deref().unwrap()).collect();
    assert_eq!((seen.len(), keys[0].len()), (4, 32));
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3], "{keys:?}");
    let wait = |seen: &Seen| serde_json::from_str::<Value>(&seen.body).unwrap()["wait"].clone();
    assert_eq!(wait(&seen[0]), json!("7s"));
    assert!(wait(&seen[2]).as_str().unwrap().starts_with('6'), "what is left of it");
}

#[tokio::test]
async fn an_answer_of_another_kind_is_no_crash() {
    for answer in ["", "[]", "{\"schema\":1}", "not json"] {
        let daemon = FakeDaemon::start(move |_| Reply::Json(200, answer.to_owned()));
        let shown = mendctl(&daemon, "status").await;
        assert_eq!(shown.exit, Exit::Failed, "{answer}");
        assert!(shown.error.contains("does not understand"), "{}", shown.error);
    }
    let daemon = FakeDaemon::start(|_| Reply::Json(404, "no such route".to_owned()));
    let shown = mendctl(&daemon, "status").await;
    assert!(shown.error.contains("mendd answered 404: no such route"), "{}", shown.error);
}

#[tokio::test]
async fn audit_and_incidents_ask_for_what_is_wanted_and_say_when_it_may_not_be_all() {
    let daemon = FakeDaemon::start(|seen| match seen.uri.split('?').next() {
        Some("/v1/audit") => {
            Reply::Json(200, r#"{"schema":1,"requests":[],"trouble":"locked"}"#.to_owned())
        }
        Some("/v1/incidents") => {
            Reply::Json(200, r#"{"schema":1,"incidents":[],"trouble":null}"#.to_owned())
        }
        _ => problem(404, "unknown-incident"),
    });
    let audit = mendctl(
        &daemon,
        "audit --since 2026-11-23T12:00:00Z --until 2026-11-24T12:00:00Z --user a&b -n 5",
    );
    let audit = audit.await;
    assert_eq!((audit.exit, audit.out.as_str()), (Exit::Ok, "nobody has asked for a change\n"));
    assert_eq!(audit.error, "mendctl: warning: this may not be all: locked\n");
    let list = mendctl(&daemon, "incidents --open --program web:0").await;
    assert_eq!((list.exit, list.out.as_str()), (Exit::Ok, "no incidents\n"));
    assert_eq!(mendctl(&daemon, "incidents --since never").await.exit, Exit::Usage);
    assert_eq!(mendctl(&daemon, "incidents show 9").await.exit, Exit::UnknownOrDenied);
    let seen: Vec<String> = daemon.seen().into_iter().map(|seen| seen.uri).collect();
    assert_eq!(
        seen,
        [
            "/v1/audit?limit=5&since=2026-11-23T12%3A00%3A00Z&until=2026-11-24T12%3A00%3A00Z\
             &user=a%26b",
            "/v1/incidents?limit=100&program=web%3A0&open=1",
            "/v1/incidents/9",
        ]
    );
}
