//! `plan`, `apply` and `config history` against a daemon on a real socket.

use serde_json::{Value, json};

use super::client_tests::mendctl;
use super::exit::Exit;
use super::fake_daemon::{FakeDaemon, Reply, Seen};

fn plan(changes: bool) -> Value {
    let program = json!({ "name": "web", "action": "restart", "because": null, "keys": [
        { "key": "nice", "old": "1", "new": "2", "effect": "restart" },
    ] });
    let programs = if changes { vec![program] } else { vec![] };
    json!({
        "schema": 1, "changes": changes, "summary": "restarts web", "fingerprint": "00c0ffee",
        "programs": programs, "settings": [], "warnings": ["mind the gap"], "given_up": null,
    })
}

fn event(id: u64, what: &str, detail: &str) -> String {
    let data = json!({ "what": what, "detail": detail });
    let event = json!({ "id": id, "at": "2026-11-23T10:30:00Z", "kind": "daemon", "data": data });
    format!("id: {id}\nevent: daemon\ndata: {event}\n\n")
}

fn generation(outcome: &str) -> Value {
    json!({
        "number": 4, "at": "2026-11-23T10:30:00Z", "by": "alice", "uid": 7, "reason": "deploy",
        "how": "apply", "outcome": outcome, "changes": "restarts web",
        "why": "`web` does not run\nits last output:\n  no port", "copy_of": null,
    })
}

/// Applies to this end: as the event says it, as the list says it.
fn applies(what: &'static str, outcome: &'static str) -> FakeDaemon {
    FakeDaemon::start(move |seen| match seen.uri.split('?').next() {
        Some("/v1/plan") => Reply::Json(200, plan(true).to_string()),
        Some("/v1/apply") => {
            let view = json!({
                "schema": 1, "generation": 4, "begun": true, "event": 7, "plan": plan(true),
                "result": null,
            });
            Reply::Json(200, view.to_string())
        }
        Some("/v1/generations") => {
            let list = [generation(outcome)];
            let view = json!({ "schema": 1, "current": 4, "applying": null, "generations": list });
            Reply::Json(200, view.to_string())
        }
        _ => Reply::Text([event(8, "apply", "starting web"), event(9, what, "x")].concat()),
    })
}

#[tokio::test]
async fn a_plan_tells_by_its_exit_code_whether_anything_would_change() {
    for (changes, exit) in [(true, Exit::Changes), (false, Exit::Ok)] {
        let daemon = FakeDaemon::start(move |_| Reply::Json(200, plan(changes).to_string()));
        let shown = mendctl(&daemon, "plan").await;
        assert_eq!(shown.exit, exit);
        assert!(shown.error.contains("mind the gap"), "{}", shown.error);
        let json = mendctl(&daemon, "plan --json").await;
        assert_eq!((json.exit, json.out), (exit, format!("{}\n", plan(changes))));
        assert_eq!(mendctl(&daemon, "apply --dry-run").await.exit, exit);
        let posts = daemon.seen().into_iter().filter(|seen: &Seen| seen.method == "POST").count();
        assert_eq!(posts, 0);
    }
}

#[tokio::test]
async fn an_apply_shows_its_progress_and_its_end() {
    let daemon = applies("applied", "applied");
    let done = mendctl(&daemon, "apply --yes --timeout 90s --reason deploy").await;
    assert_eq!(done.exit, Exit::Ok, "{}", done.error);
    assert!(done.error.contains("nice: 1 -> 2") && done.error.contains("starting web"));
    assert!(done.out.starts_with("generation 4 is applied after "), "{}", done.out);
    let posts: Vec<Seen> = daemon.seen().into_iter().filter(|seen| seen.method == "POST").collect();
    let body: Value = serde_json::from_str(&posts[0].body).unwrap();
    let expected = json!({
        "timeout": "90s", "no_rollback": false, "back": false, "fingerprint": "00c0ffee",
        "reason": "deploy",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_roll_back_is_a_failure_that_says_why() {
    let daemon = applies("apply-rolled-back", "rolled-back");
    let done = mendctl(&daemon, "apply --yes").await;
    assert_eq!((done.exit, done.out.as_str()), (Exit::Failed, ""));
    assert!(done.error.contains("rolled back") && done.error.contains("no port"), "{}", done.error);
    let json = mendctl(&daemon, "apply --yes --json").await;
    assert_eq!(json.exit, Exit::Failed);
    let document: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(document["result"]["outcome"], "rolled-back");
}

#[tokio::test]
async fn without_anybody_to_ask_an_apply_wants_to_be_told() {
    let daemon = applies("applied", "applied");
    let refused = mendctl(&daemon, "apply").await;
    assert_eq!(refused.exit, Exit::Usage);
    assert!(refused.error.contains("--yes"), "{}", refused.error);
    assert!(daemon.seen().iter().all(|seen| seen.method != "POST"));
}

#[tokio::test]
async fn the_history_marks_what_counts() {
    let daemon = applies("applied", "applied");
    let shown = mendctl(&daemon, "config history").await;
    assert_eq!(shown.exit, Exit::Ok);
    assert!(shown.out.starts_with("*   4  "), "{}", shown.out);
    assert!(shown.out.contains("apply by alice (uid 7)"), "{}", shown.out);
    assert!(shown.out.contains("reason: deploy") && shown.out.contains("no port"));
}
