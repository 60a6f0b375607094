//! `check`, `heal`, `hold`, `release` and `why` against a daemon on a real socket.

use serde_json::{Value, json};

use super::client_tests::mendctl;
use super::exit::Exit;
use super::fake_daemon::{FakeDaemon, Reply};
use super::verbs::check::tests::view;
use crate::api::view::{CheckView, ChecksView, SCHEMA};

fn ran(verdict: Option<&str>) -> FakeDaemon {
    let result = verdict.map(|verdict| {
        json!({ "at": "2026-11-23T10:30:00Z", "verdict": verdict, "detail": "HTTP 200",
            "took_seconds": 0.004 })
    });
    let refused = result.is_none().then_some("it does not run");
    let ran = json!({ "target": "web:0", "check": "http", "result": result, "refused": refused });
    let view = json!({ "schema": 1, "results": [ran] }).to_string();
    FakeDaemon::start(move |_| Reply::Json(200, view.clone()))
}

fn bodies(daemon: &FakeDaemon) -> Vec<(String, Value)> {
    let parsed = |body: &str| serde_json::from_str(body).unwrap_or_default();
    daemon.seen().into_iter().map(|seen| (seen.uri, parsed(&seen.body))).collect()
}

#[tokio::test]
async fn a_check_that_is_run_decides_the_exit_code() {
    for (verdict, exit) in [
        (Some("pass"), Exit::Ok),
        (Some("warn"), Exit::Ok),
        (Some("fail"), Exit::Unhealthy),
        (Some("unknown"), Exit::Unhealthy),
        (None, Exit::Unhealthy),
    ] {
        let daemon = ran(verdict);
        let shown = mendctl(&daemon, "check run web/http --max-age 10s").await;
        assert_eq!(shown.exit, exit, "{verdict:?}");
        let line = match verdict {
            Some(verdict) => format!("web:0/http: {verdict}, HTTP 200 (4 ms)\n"),
            None => "web:0/http: not run, it does not run\n".to_owned(),
        };
        assert_eq!(shown.out, line);
        let body = json!({ "names": ["web/http"], "max_age": "10s" });
        assert_eq!(bodies(&daemon), [("/v1/checks/run".to_owned(), body)]);
    }
}

#[tokio::test]
async fn checks_that_are_listed_decide_the_exit_code_and_none_is_no_mistake() {
    let empty = json!({ "schema": 1, "checks": [] }).to_string();
    let daemon = FakeDaemon::start(move |_| Reply::Json(200, empty.clone()));
    let shown = mendctl(&daemon, "check list web host").await;
    assert_eq!((shown.exit, shown.out.as_str()), (Exit::Ok, ""));
    assert!(shown.error.contains("[[program.NAME.check]]"), "{}", shown.error);
    assert_eq!(bodies(&daemon)[0].0, "/v1/checks?name=web&name=host");

    for (state, exit) in [
        ("up", Exit::Ok),
        ("suspect", Exit::Ok),
        ("held", Exit::Ok),
        ("down", Exit::Unhealthy),
        ("healing", Exit::Unhealthy),
        ("broken", Exit::Unhealthy),
    ] {
        let check = CheckView { state: state.to_owned(), ..view() };
        let checks = ChecksView { schema: SCHEMA, checks: vec![check] };
        let view = serde_json::to_string(&checks).unwrap();
        let past = json!({ "schema": 1, "results": [], "trouble": "it is damaged" }).to_string();
        let daemon = FakeDaemon::start(move |seen| match seen.is("/v1/checks") {
            true => Reply::Json(200, view.clone()),
            false => Reply::Json(200, past.clone()),
        });
        let listed = mendctl(&daemon, "check list").await;
        assert_eq!(listed.exit, exit, "{state}");
        assert!(listed.out.contains(state), "{}", listed.out);
        let shown = mendctl(&daemon, "check show web/http").await;
        assert_eq!(shown.exit, exit, "{state}");
        assert!(shown.error.contains("may not be all: it is damaged"), "{}", shown.error);
        assert_eq!(daemon.seen()[2].uri, "/v1/checks/web:0/http/results?limit=10");
    }
}

#[tokio::test]
async fn what_is_not_healed_is_said_on_stderr_with_exit_code_1() {
    for (accepted, exit) in [(true, Exit::Ok), (false, Exit::Failed)] {
        let message = "web:0 is healed next";
        let result = json!({ "name": "web:0", "accepted": accepted, "message": message });
        let view = json!({ "schema": 1, "results": [result] }).to_string();
        let daemon = FakeDaemon::start(move |_| Reply::Json(200, view.clone()));
        let shown = mendctl(&daemon, "heal web --rung 2 --reason now").await;
        assert_eq!(shown.exit, exit);
        let (said, silent) = match accepted {
            true => (&shown.out, &shown.error),
            false => (&shown.error, &shown.out),
        };
        assert!(said.contains(message), "{said}");
        assert_eq!(silent, "");
        let body = json!({ "names": ["web"], "rung": 2, "reason": "now" });
        assert_eq!(bodies(&daemon), [("/v1/heal".to_owned(), body)]);
    }
}

#[tokio::test]
async fn a_hold_has_an_end_and_a_release_names_something() {
    let view = json!({ "schema": 1, "names": ["web:0", "web:1"] }).to_string();
    let daemon = FakeDaemon::start(move |_| Reply::Json(200, view.clone()));
    let held = mendctl(&daemon, "hold web --for 30m --reason moves").await;
    assert_eq!(held.exit, Exit::Ok);
    let lines = "web:0 is left alone for 30m\nweb:1 is left alone for 30m\n";
    assert_eq!(held.out, lines);
    let released = mendctl(&daemon, "release web").await;
    assert_eq!(released.out, "web:0 is looked after again\nweb:1 is looked after again\n");
    mendctl(&daemon, "release --panic").await;
    let expected = [
        ("/v1/hold", json!({ "names": ["web"], "for": "1800s", "reason": "moves" })),
        ("/v1/release", json!({ "names": ["web"], "panic": false })),
        ("/v1/release", json!({ "names": [], "panic": true })),
    ];
    assert_eq!(bodies(&daemon), expected.map(|(uri, body)| (uri.to_owned(), body)));
}
