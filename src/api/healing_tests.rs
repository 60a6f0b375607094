//! The routes of checks and healing: what they show, what they refuse, who may ask.

use super::bench::Bench;
use super::endpoints_tests::call_as;
use super::view::{ChecksView, HealView, HoldView, RunView, WhysView};

#[test]
fn a_request_that_makes_no_sense_is_told_why() {
    let bench = Bench::start();
    for (method, target, body, status, text) in [
        ("GET", "/v1/checks?nane=web", "", 400, "did you mean `name`?"),
        ("GET", "/v1/checks?name=nope", "", 404, "`nope`"),
        ("GET", "/v1/why?name=", "", 400, "may not be empty"),
        ("POST", "/v1/checks/run", r#"{"names":[]}"#, 400, "`names`"),
        ("POST", "/v1/checks/run", r#"{"names":["web"],"max_age":"old"}"#, 400, "`max_age`"),
        ("POST", "/v1/checks/run", r#"{"names":["web"],"age":"1s"}"#, 422, "unknown field `age`"),
        ("POST", "/v1/heal", r#"{"names":["web"],"rung":0}"#, 400, "number 1"),
        ("POST", "/v1/heal", r#"{"names":["web"],"rung":-1}"#, 422, "integer `-1`"),
        ("POST", "/v1/heal", r#"{"names":["web"],"reason":"a\nb"}"#, 400, "`reason`"),
        ("POST", "/v1/heal", r#"{"names":[]}"#, 400, "`names`"),
        ("POST", "/v1/hold", r#"{"names":["web"]}"#, 422, "missing field `for`"),
        ("POST", "/v1/hold", r#"{"names":["web"],"for":"0s"}"#, 400, "`for`"),
        ("POST", "/v1/hold", r#"{"names":["web"],"for":"91d"}"#, 400, "better disabled"),
        ("POST", "/v1/hold", r#"{"names":["web"],"for":"ever"}"#, 400, "`for`"),
        ("POST", "/v1/release", r"{}", 400, "`names`"),
        ("POST", "/v1/release?panic=1", r#"{"names":["web"]}"#, 400, "`panic`"),
    ] {
        let reply = bench.call(method, target, body);
        let problem = reply.problem();
        let told = format!("{} {}", problem.detail, problem.help.unwrap_or_default());
        assert_eq!(reply.status, status, "{method} {target} {body}: {reply:?}");
        assert!(told.contains(text), "{method} {target} {body}: {reply:?}");
    }
}

#[test]
fn what_is_known_of_checks_comes_as_the_client_reads_it() {
    let bench = Bench::start();
    let checks: ChecksView = bench.call("GET", "/v1/checks?name=web", "").json();
    let [check] = &checks.checks[..] else { panic!("{checks:?}") };
    assert_eq!((check.target.as_str(), check.check.as_str()), ("web:0", "port"));
    assert_eq!((check.state.as_str(), check.verdict.as_deref()), ("up", Some("pass")));
    assert_eq!(check.heal, ["confirm", "restart"]);
    assert_eq!(check.next_rung, 1);
    assert!(check.quarantined_until.is_some() && check.next_run.is_some(), "{check:?}");
    assert_eq!(check.results.len(), 2);

    let ran: RunView = bench.call("POST", "/v1/checks/run", r#"{"names":["web"]}"#).json();
    let found: Vec<(Option<&str>, Option<&str>)> = ran
        .results
        .iter()
        .map(|ran| (ran.result.as_ref().map(|it| it.verdict.as_str()), ran.refused.as_deref()))
        .collect();
    assert_eq!(found, [(Some("pass"), None), (None, Some("it does not run"))]);

    let healed: HealView = bench.call("POST", "/v1/heal", r#"{"names":["web"],"rung":2}"#).json();
    assert!(healed.results[0].accepted, "{healed:?}");
    // Of the first rung as an operator counts it.
    assert!(healed.results[0].message.ends_with("Some(1)"), "{healed:?}");

    let body = r#"{"names":["web"],"for":"90d","reason":"moves"}"#;
    let held: HoldView = bench.call("POST", "/v1/hold", body).json();
    assert_eq!(held.names, ["web:0"]);
    let released: HoldView = bench.call("POST", "/v1/release", r#"{"panic":true}"#).json();
    assert_eq!(released.names, ["host"]);

    let whys: WhysView = bench.call("GET", "/v1/why?name=web", "").json();
    assert_eq!(whys.mode, "degraded");
    let hold = whys.whys[0].hold.as_ref().unwrap();
    assert_eq!((hold.by.as_str(), hold.reason.as_deref()), ("alice", Some("moves")));
}

#[test]
fn who_may_look_may_not_heal() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can connect as somebody else");
        return;
    }
    let bench = Bench::start();
    for (method, target, status) in [
        ("GET", "/v1/checks", 200),
        ("GET", "/v1/why", 200),
        ("POST", "/v1/checks/run", 403),
        ("POST", "/v1/heal", 403),
        ("POST", "/v1/hold", 403),
        ("POST", "/v1/release", 403),
    ] {
        let reply = call_as(&bench, 65_533, method, target);
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
    }
}
