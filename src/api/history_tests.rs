//! The routes of the history, over a real socket and a real file.

use super::bench::{Bench, wait_until};
use super::endpoints_tests::call_as;
use super::view::{AuditView, CheckHistoryView, IncidentStoryView, IncidentsView, StatisticsView};
use crate::core::care::cause::{Cause, Confidence, Finding};
use crate::core::care::{
    CheckId, Closing, IncidentId, RemedyId, RemedyResult, Story, Target, Verdict,
};
use crate::engine::history::Record;
use crate::time::Wall;

/// An entry of this moment, or of so many milliseconds later.
pub(super) fn told(id: u64, later: i64, story: Story) -> Record {
    let at = Wall(crate::os::clock::wall().0 + later);
    let target = Target::Process("web:0".parse().unwrap());
    Record::Told { at, incident: IncidentId(id), target, story }
}

fn audit(bench: &Bench, query: &str) -> AuditView {
    bench.call("GET", &format!("/v1/audit{query}"), "").json()
}

#[test]
fn a_request_is_in_the_audit_with_who_why_and_what_became_of_it() {
    let bench = Bench::start();
    bench.call("POST", "/v1/programs/web/stop?reason=rest", "");
    bench.call("POST", "/v1/programs/nope/start", "");
    let all = audit(&bench, "");
    let [refused, stopped] = &all.requests[..] else { panic!("{all:?}") };
    assert_eq!(stopped.request, "stop web");
    assert_eq!(stopped.reason.as_deref(), Some("rest"));
    assert_eq!(stopped.outcome, "1 done");
    assert_eq!(stopped.uid, Some(nix::unistd::getuid().as_raw()));
    assert_eq!(stopped.pid, i32::try_from(std::process::id()).ok());
    let executable = std::env::current_exe().unwrap();
    assert_eq!(stopped.executable.as_deref(), executable.to_str());
    assert_eq!(refused.request, "start nope");
    assert!(refused.outcome.starts_with("refused: "), "{refused:?}");
    assert_eq!(all.trouble, None);

    assert_eq!(audit(&bench, "?limit=1").requests, std::slice::from_ref(refused));
    let (user, uid) = (&stopped.user, stopped.uid.unwrap());
    assert_eq!(audit(&bench, &format!("?user={user}")).requests, all.requests);
    assert_eq!(audit(&bench, &format!("?user={uid}")).requests, all.requests);
    assert_eq!(audit(&bench, "?user=nobody-else").requests, []);
    assert_eq!(audit(&bench, "?since=1h").requests, all.requests);
    assert_eq!(audit(&bench, "?until=1h").requests, []);
    for bad in ["limit=0", "limit=x", "since=yesterday", "users=root"] {
        assert_eq!(bench.call("GET", &format!("/v1/audit?{bad}"), "").status, 400, "{bad}");
    }
}

#[test]
fn a_client_that_left_is_in_the_audit() {
    let bench = Bench::start();
    drop(bench.open("POST", "/v1/programs/slow/stop?wait=1h", ""));
    wait_until("the entry", || !audit(&bench, "").requests.is_empty());
    assert_eq!(audit(&bench, "").requests[0].outcome, "the client left before the answer");
}

#[test]
fn who_may_not_is_kept_but_not_without_end() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can connect as somebody else");
        return;
    }
    let bench = Bench::start();
    let count = 23;
    for _ in 0..count {
        assert_eq!(call_as(&bench, 65_533, "POST", "/v1/programs/web/stop").status, 403);
    }
    let kept = audit(&bench, "?user=65533").requests;
    assert!(kept.len() >= 20 && kept.len() < count, "{} are kept", kept.len());
    assert_eq!(kept[0].request, "/v1/programs/{name}/stop");
    assert_eq!(kept[0].outcome, "denied: needs operate");
}

#[test]
fn an_incident_is_listed_and_its_story_is_told_in_order() {
    let bench = Bench::start();
    let finding = Finding {
        cause: Cause::Killed,
        confidence: Confidence::Certain,
        facts: vec!["SIGKILL".to_owned()],
        sentence: "was killed from outside".to_owned(),
    };
    let check: crate::name::CheckName = "http".parse().unwrap();
    let began = Story::Began {
        id: RemedyId(4),
        check: check.clone(),
        rung: 0,
        remedy: "restart".to_owned(),
    };
    let took = std::time::Duration::from_secs(2);
    let stories = [
        Story::Failed { check, verdict: Verdict::Fail, detail: "refused".to_owned() },
        Story::Cause(finding),
        began,
        Story::Verified { remedy: "restart".to_owned(), took },
        Story::Recovered { after: took },
        Story::Closed(Closing::Healed { remedies: 1 }),
    ];
    for (at, story) in (-8..).zip(stories) {
        bench.history.record(told(3, 3_600_000 * at, story));
    }
    let how = "was killed by SIGKILL".to_owned();
    bench.history.record(told(4, 0, Story::Ended { how }));

    let list: IncidentsView = bench.call("GET", "/v1/incidents", "").json();
    let [open, healed] = &list.incidents[..] else { panic!("{list:?}") };
    assert_eq!((open.id, open.closed.as_deref(), open.check.as_deref()), (4, None, None));
    assert_eq!((healed.id, healed.remedies), (3, 1));
    assert_eq!(healed.healed_by.as_deref(), Some("restart"));
    assert_eq!(healed.closing.as_deref(), Some("healed"));
    let seconds = healed.recovery_seconds.unwrap();
    assert!((14_390.0..14_410.0).contains(&seconds), "{seconds}");
    assert_eq!(healed.cause.as_ref().unwrap().word, "killed");
    let one: IncidentStoryView = bench.call("GET", "/v1/incidents/3", "").json();
    assert_eq!(&one.incident, healed);
    let kinds: Vec<&str> = one.steps.iter().map(|step| step.kind.as_str()).collect();
    assert_eq!(kinds, ["failed", "cause", "began", "verified", "recovered", "closed"]);
    assert_eq!(one.steps[0].sentence, "is down: check `http` says refused");
    assert_eq!(one.steps[0].at, healed.opened);

    let filtered = |query: &str| {
        let list: IncidentsView = bench.call("GET", &format!("/v1/incidents?{query}"), "").json();
        list.incidents.iter().map(|incident| incident.id).collect::<Vec<_>>()
    };
    assert_eq!(filtered("open=1"), [4]);
    assert_eq!(filtered("program=web"), [4, 3]);
    assert_eq!(filtered("program=web%3A0&limit=1"), [4]);
    assert_eq!(filtered("program=db"), [0_u64; 0]);
    assert_eq!(filtered("since=1h"), [4]);
    let missing = bench.call("GET", "/v1/incidents/99", "");
    assert_eq!(missing.status, 404);
    assert!(missing.problem().kind.ends_with("/unknown-incident"));
    assert_eq!(bench.call("GET", "/v1/incidents/x", "").status, 400);
}

#[test]
fn statistics_and_the_results_of_a_check_are_told() {
    let bench = Bench::start();
    bench.history.record(told(1, -60_000, Story::Ended { how: "was killed".to_owned() }));
    bench.history.record(told(1, -50_000, Story::Closed(Closing::ByItself)));
    let target = Target::Process("web:0".parse().unwrap());
    for (name, verdict) in [("port", Verdict::Pass), ("port", Verdict::Fail), ("x", Verdict::Pass)]
    {
        let check = CheckId { target: target.clone(), check: name.parse().unwrap() };
        let (detail, took) = (name.to_owned(), std::time::Duration::from_millis(2));
        let at = crate::os::clock::wall();
        bench.history.record(Record::Checked { at, check, verdict, detail, took });
    }
    let (at, took) = (crate::os::clock::wall(), std::time::Duration::from_secs(2));
    let (remedy, what, result) = (RemedyId(1), "restart".to_owned(), RemedyResult::Verified);
    bench.history.record(Record::RemedyOver { at, remedy, target, what, result, took });

    let all: StatisticsView = bench.call("GET", "/v1/statistics", "").json();
    assert_eq!((all.incidents, all.open, all.by_itself), (1, 0, 1));
    // The two were told at times of their own.
    let down = all.targets[0].down_seconds.round();
    assert_eq!((all.targets[0].target.as_str(), down), ("web:0", 10.0));
    let restart = &all.remedies[0];
    assert_eq!((restart.remedy.as_str(), restart.success), ("restart", Some(1.0)));
    assert_eq!(restart.mean_seconds, Some(2.0));
    let other: StatisticsView = bench.call("GET", "/v1/statistics?program=db", "").json();
    assert_eq!((other.incidents, other.targets.len(), other.remedies.len()), (0, 0, 0));
    assert_eq!(bench.call("GET", "/v1/statistics?since=never", "").status, 400);

    let results = |target: &str| -> CheckHistoryView { bench.call("GET", target, "").json() };
    let found = results("/v1/checks/web:0/port/results").results;
    let verdicts: Vec<&str> = found.iter().map(|it| it.verdict.as_str()).collect();
    assert_eq!(verdicts, ["fail", "pass"]);
    assert_eq!((found[0].runs, found[0].took_mean_seconds), (1, 0.002));
    assert_eq!(results("/v1/checks/web/port/results?limit=1").results, found[..1]);
    assert_eq!(results("/v1/checks/web/gone/results").results, []);
}
