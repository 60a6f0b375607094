//! The rules of healing as a whole.

use std::time::Duration;

use super::bench::*;
use super::evidence::Evidence;
use super::*;
use crate::config::{Check, CheckKind, CheckRole, HealMode, Impact, ModeRules, Remedy, RemedyStep};
use crate::core::Exit;

fn web(heal: Vec<Remedy>) -> Vec<Charge> {
    vec![charge("web", &[], vec![check(heal)])]
}

fn fails(bench: &mut Bench, name: &str) {
    bench.sees.insert(target(name), Verdict::Fail);
}

fn recovers(bench: &mut Bench, name: &str) {
    bench.sees.remove(&target(name));
}

#[test]
fn a_failure_is_noticed_healed_proved_and_told_as_one_story() {
    let mut bench = Bench::well(web(vec![Remedy::Reload, Remedy::Restart]));
    fails(&mut bench, "web");
    bench.pass(60);
    assert_eq!(bench.remedies(), ["web reload"]);
    bench.pass(60);
    recovers(&mut bench, "web");
    bench.pass(240);
    assert_eq!(bench.remedies(), ["web restart"]);
    assert!(!bench.is_open("web"));
    let story = bench.story("web");
    for expected in [
        "is down: check `http` says saw fail",
        "fails for a reason that nothing collected explains",
        "gets the remedy `reload`",
        "is still not well after `reload`",
        "gets the remedy `restart`",
        "the incident is over after 2 remedies",
    ] {
        assert!(story.iter().any(|line| line == expected), "no {expected:?} in {story:#?}");
    }
    assert_eq!(bench.alerts(), [AlertKind::RemedyFailed, AlertKind::Recovered]);
}

#[test]
fn remedies_keep_their_distance() {
    let mut bench = Bench::well(web(vec![Remedy::Reload, Remedy::Restart, Remedy::CleanRestart]));
    fails(&mut bench, "web");
    let mut times = Vec::new();
    for second in 0..600 {
        bench.pass(1);
        times.extend(bench.remedies().into_iter().map(|_| second));
    }
    assert!(times.len() >= 3, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 59), "{times:?}");
}

#[test]
fn when_nothing_helps_people_are_told_and_one_attempt_follows_now_and_then() {
    let mut bench = Bench::well(web(vec![Remedy::Restart]));
    fails(&mut bench, "web");
    bench.pass(300);
    assert_eq!(bench.remedies(), ["web restart"]);
    assert!(matches!(bench.standing("web"), Standing::Quarantined { .. }));
    assert_eq!(bench.alerts(), [AlertKind::RemedyFailed, AlertKind::Quarantined]);
    bench.pass(500);
    assert_eq!(bench.remedies(), ["web restart"]);
    bench.pass(4 * 3600);
    assert!((1..8).contains(&bench.remedies().len()));
    recovers(&mut bench, "web");
    bench.pass(300);
    assert!(!bench.is_open("web"));
}

#[test]
fn no_more_than_six_remedies_an_hour() {
    let mut check = check(vec![Remedy::Reload; 20]);
    check.cooldown = Duration::from_secs(1);
    let mut bench = Bench::well(vec![charge("web", &[], vec![check])]);
    fails(&mut bench, "web");
    bench.pass(3000);
    assert_eq!(bench.remedies().len(), 6);
    assert!(matches!(bench.standing("web"), Standing::OverBudget { .. }));
}

#[test]
fn the_cause_chooses_the_first_rung() {
    let ladder = vec![Remedy::Reload, Remedy::Restart, Remedy::Rollback];
    let mut bench = Bench::well(web(ladder));
    bench.evidence = Evidence { exit: Some(Exit::Code(78)), ..Evidence::default() };
    fails(&mut bench, "web");
    bench.pass(60);
    assert_eq!(bench.remedies(), ["web rollback"]);
}

#[test]
fn confirm_looks_twice_more_before_anything_is_touched() {
    let mut bench = Bench::well(web(vec![Remedy::Confirm, Remedy::Restart]));
    fails(&mut bench, "web");
    while bench.standing("web") != Standing::Confirming {
        bench.pass(1);
    }
    recovers(&mut bench, "web");
    bench.pass(300);
    assert_eq!(bench.remedies(), [""; 0]);
    fails(&mut bench, "web");
    bench.pass(60);
    assert_eq!(bench.remedies(), ["web restart"]);
}

#[test]
fn an_unknown_verdict_heals_nothing_and_a_broken_check_is_told() {
    let mut bench = Bench::well(web(vec![Remedy::Restart]));
    bench.sees.insert(target("web"), Verdict::Unknown);
    bench.pass(3600);
    assert_eq!(bench.remedies(), [""; 0]);
    assert_eq!(bench.alerts(), [AlertKind::CheckBroken]);
}

#[test]
fn what_is_on_hold_is_neither_healed_nor_told_until_the_hold_ends() {
    let mut bench = Bench::well(web(vec![Remedy::Restart]));
    let until = bench.now + Duration::from_secs(600);
    bench.send(CareEvent::Operator(CareCommand::Hold {
        target: target("web"),
        until,
        by: actor(),
    }));
    fails(&mut bench, "web");
    bench.pass(599);
    assert!(bench.remedies().is_empty() && bench.alerts().is_empty());
    assert_eq!(bench.standing("web"), Standing::Held { until });
    bench.pass(2);
    assert_eq!(bench.remedies(), ["web restart"]);
}

#[test]
fn what_the_operator_stopped_is_left_alone_and_its_remedy_called_off() {
    let mut bench = Bench::well(web(vec![Remedy::Restart]));
    bench.outcome = None;
    fails(&mut bench, "web");
    assert_eq!(bench.until_remedy(), ["web restart"]);
    bench.lives(&target("web"), Life::Stopped { by_operator: true });
    assert!(bench.told.iter().any(|action| matches!(action, CareAction::CancelRemedy { .. })));
    assert!(bench.story("web").contains(&"the incident is over: it was stopped".to_owned()));
    bench.pass(3600);
    assert!(bench.remedies().is_empty() && bench.care.next_deadline().is_none());
}

#[test]
fn what_fails_because_of_something_it_requires_waits_for_that() {
    let db = charge("db", &[], vec![check(vec![Remedy::Restart])]);
    let pool = charge("pool", &["db"], vec![]);
    let web = charge("web", &["pool"], vec![check(vec![Remedy::Restart])]);
    let mut bench = Bench::well(vec![db, pool, web]);
    fails(&mut bench, "db");
    fails(&mut bench, "web");
    bench.outcome = None;
    bench.pass(50);
    assert_eq!(bench.remedies(), ["db restart"]);
    assert_eq!(bench.standing("web"), Standing::Blocked { by: target("db") });
    bench.lives(&target("db"), Life::Failed { exit: None, retry: Retry::Never });
    bench.pass(3600);
    assert_eq!(bench.standing("web"), Standing::Blocked { by: target("db") });
}

#[test]
fn when_half_of_everything_fails_at_once_only_the_host_is_looked_at() {
    let names = ["a", "b", "c", "d", "e"];
    let of = |name: &&str| charge(name, &[], vec![check(vec![Remedy::Restart])]);
    let mut charges: Vec<Charge> = names.iter().map(of).collect();
    let disk =
        Check { kind: CheckKind::Disk, ..check(vec![Remedy::Run { argv: vec!["clean".into()] }]) };
    charges.push(Charge { target: Target::Host, ..charge("host", &[], vec![disk]) });
    let mut bench = Bench::well(charges);
    let slow = |name: &&&str| ["a", "b", "c"].contains(*name);
    names.iter().filter(slow).for_each(|name| fails(&mut bench, name));
    bench.sees.insert(Target::Host, Verdict::Fail);
    bench.pass(120);
    let panics = |action: &CareAction| matches!(action, CareAction::Alert(alert) if alert.kind == AlertKind::Panic);
    let began = bench.told.iter().position(panics).expect("people were told");
    bench.told.drain(..began);
    assert_eq!(bench.remedies(), ["the host run"]);
    names.iter().for_each(|name| recovers(&mut bench, name));
    bench.sees.clear();
    bench.pass(600);
    assert!(bench.alerts().contains(&AlertKind::PanicOver));
    assert!(names.iter().all(|name| !bench.is_open(name)));
}

#[test]
fn what_is_only_observed_says_what_it_would_do() {
    let mut check = check(vec![Remedy::Reload, Remedy::Restart]);
    check.mode = HealMode::Observe;
    let mut bench = Bench::well(vec![charge("web", &[], vec![check])]);
    fails(&mut bench, "web");
    bench.pass(300);
    assert_eq!(bench.remedies(), [""; 0]);
    let story = bench.story("web");
    for word in ["reload", "restart"] {
        let line = format!("would get the remedy `{word}`, but is only observed");
        assert_eq!(story.iter().filter(|told| **told == line).count(), 1, "{story:#?}");
    }
}

#[test]
fn a_check_of_readiness_heals_nothing_and_tells_people() {
    let mut check = check(vec![Remedy::Restart]);
    check.role = CheckRole::Ready;
    let mut bench = Bench::well(vec![charge("web", &[], vec![check])]);
    fails(&mut bench, "web");
    bench.pass(600);
    assert_eq!((bench.remedies().len(), bench.alerts()), (0, vec![AlertKind::Unhealable]));
}

#[test]
fn a_start_check_holds_the_others_back_until_it_has_passed() {
    let start = Check { role: CheckRole::Start, name: "start".parse().unwrap(), ..check(vec![]) };
    let charges = vec![charge("web", &[], vec![start, check(vec![Remedy::Restart])])];
    let mut bench = Bench::configured(charges, ModeRules::default());
    fails(&mut bench, "web");
    bench.starts(&target("web"));
    bench.pass(30);
    let id = |name: &str| CheckId { target: target("web"), check: name.parse().unwrap() };
    assert!(bench.care.is_scheduled(&id("start")) && !bench.care.is_scheduled(&id("http")));
    recovers(&mut bench, "web");
    bench.pass(30);
    assert!(!bench.care.is_scheduled(&id("start")) && bench.care.is_scheduled(&id("http")));
}

#[test]
fn many_who_ask_share_one_probe_and_a_young_result_is_good_enough() {
    let mut bench = Bench::well(web(vec![]));
    let check = CheckId { target: target("web"), check: "http".parse().unwrap() };
    let ask = |bench: &mut Bench, ask, max_age| {
        let command = CareCommand::Run { check: check.clone(), max_age, ask: AskId(ask) };
        bench.care.on_event(bench.now, CareEvent::Operator(command))
    };
    let first = ask(&mut bench, 1, Duration::ZERO);
    let CareAction::RunCheck { ticket, .. } = first[0] else { panic!("{first:?}") };
    assert!(ask(&mut bench, 2, Duration::ZERO).is_empty());
    let is_answer = |action: &&CareAction| matches!(action, CareAction::Answer { .. });
    let result = CareEvent::Result {
        check: check.clone(),
        ticket,
        verdict: Verdict::Pass,
        detail: String::new(),
        took: Duration::ZERO,
        pressure: None,
    };
    assert_eq!(bench.care.on_event(bench.now, result).iter().filter(is_answer).count(), 2);
    let third = ask(&mut bench, 3, Duration::from_secs(5));
    assert!(matches!(third[..], [CareAction::Answer { answer: Answer::Result(_), .. }]));
}

#[test]
fn an_operator_may_choose_the_rung_but_not_heal_what_is_well() {
    let mut bench = Bench::well(web(vec![Remedy::Reload, Remedy::Restart]));
    let heal = |rung| {
        CareEvent::Operator(CareCommand::Heal {
            target: target("web"),
            rung,
            by: actor(),
            ask: AskId(1),
        })
    };
    let answer = |bench: &mut Bench| match bench.told.pop() {
        Some(CareAction::Answer { answer, .. }) => answer,
        other => panic!("no answer but {other:?}"),
    };
    bench.send(heal(None));
    assert_eq!(answer(&mut bench), Answer::Refused("nothing of web is down".into()));
    fails(&mut bench, "web");
    bench.evidence = Evidence::default();
    let until = bench.now + Duration::from_secs(100);
    bench.send(CareEvent::Operator(CareCommand::Hold {
        target: target("web"),
        until,
        by: actor(),
    }));
    bench.pass(60);
    bench.send(heal(Some(7)));
    assert_eq!(answer(&mut bench), Answer::Refused("the ladder of `http` has 2 rungs".into()));
    bench.send(heal(Some(1)));
    assert!(matches!(answer(&mut bench), Answer::Accepted(_)));
    bench.pass(60);
    assert_eq!(bench.remedies(), ["web restart"]);
}

#[test]
fn a_transaction_that_fails_is_undone_and_one_that_hangs_too() {
    let step = |n: &str| RemedyStep { argv: vec![n.into()], undo: Some(vec![n.into()]) };
    let mut bench = Bench::well(web(vec![Remedy::Steps(vec![step("one"), step("two")])]));
    fails(&mut bench, "web");
    assert_eq!(bench.until_remedy(), ["web do 0"]);
    let remedy = bench.care.target_facts(&target("web")).unwrap().course.as_ref().unwrap().remedy;
    let ended = |step, undo| CareEvent::StepEnded { remedy, step, undo, result: Ok(()) };
    bench.send(ended(0, false));
    assert_eq!(bench.remedies(), ["web do 1"]);
    bench.pass(31);
    assert_eq!(bench.remedies(), ["web undo 1"]);
    bench.send(ended(1, true));
    assert_eq!(bench.remedies(), ["web undo 0"]);
    bench.send(ended(0, true));
    assert!(bench.story("web").contains(&"all steps were undone".to_owned()));
    assert!(bench.care.target_facts(&target("web")).unwrap().course.is_none());
}

#[test]
fn the_next_brain_asks_for_the_outcome_of_a_remedy_and_never_begins_it_again() {
    let mut bench = Bench::well(web(vec![Remedy::Reload, Remedy::Restart]));
    bench.outcome = None;
    fails(&mut bench, "web");
    assert_eq!(bench.until_remedy(), ["web reload"]);
    bench.told.clear();
    bench.die();
    let resumed = bench.told.iter().find_map(|action| {
        let CareAction::ResumeRemedy { remedy, .. } = action else { return None };
        Some(*remedy)
    });
    let remedy = resumed.expect("its outcome is asked for");
    assert_eq!(bench.remedies(), [""; 0]);
    recovers(&mut bench, "web");
    bench.send(CareEvent::RemedyEnded { remedy, outcome: RemedyOutcome::Lost });
    bench.pass(200);
    assert!(!bench.is_open("web"));
}

#[test]
fn the_next_brain_knows_cool_downs_holds_and_where_on_the_ladder_it_stood() {
    let mut bench = Bench::well(web(vec![Remedy::Reload, Remedy::Restart]));
    fails(&mut bench, "web");
    bench.until_remedy();
    bench.pass(25);
    let before = bench.standing("web");
    assert!(matches!(before, Standing::Cooling { .. }), "{before:?}");
    bench.die();
    assert_eq!(bench.standing("web"), before);
    bench.pass(60);
    assert_eq!(bench.remedies(), ["web restart"]);
}

#[test]
fn a_program_that_cannot_start_is_healed_through_its_process_check() {
    let process =
        Check { kind: CheckKind::Process, ..check(vec![Remedy::Restart, Remedy::Rollback]) };
    let mut bench = Bench::well(vec![charge("web", &[], vec![process])]);
    bench.evidence = Evidence { exit: Some(Exit::Code(78)), ..Evidence::default() };
    bench.lives(&target("web"), Life::Failed { exit: Some(Exit::Code(78)), retry: Retry::Never });
    assert_eq!(bench.alerts(), [AlertKind::KeepsFailing, AlertKind::Recovered]);
    assert_eq!(bench.remedies(), ["web rollback"]);
    bench.pass(120);
    assert!(!bench.is_open("web"));
}

#[test]
fn a_later_try_that_shows_less_does_not_replace_the_cause_of_an_incident() {
    let mut bench = Bench::well(vec![charge("web", &[], vec![])]);
    let fails = |bench: &mut Bench, code: i32, output: &[&str]| {
        let exit = Some(Exit::Code(code));
        let output = output.iter().map(|line| (*line).to_owned()).collect();
        bench.evidence = Evidence { exit, output, ..Evidence::default() };
        bench.lives(&target("web"), Life::Failed { exit, retry: Retry::Soon });
        bench.starts(&target("web"));
    };
    fails(&mut bench, 1, &[]);
    fails(&mut bench, 1, &["bind(): Address already in use"]);
    fails(&mut bench, 1, &[]);
    fails(&mut bench, 1, &["no space left on device"]);
    let story = bench.story("web");
    let causes = ["exited with code 1", "already in use", "no space left"];
    let told: Vec<usize> =
        story.iter().filter_map(|line| causes.iter().position(|it| line.contains(it))).collect();
    // How a run ended is told each time, and before the cause of it.
    let ends = 4;
    assert_eq!(told.iter().filter(|it| **it == 0).count(), ends + 1, "{story:#?}");
    assert_eq!(told.iter().filter(|it| **it == 1).count(), 1, "{story:#?}");
    assert_eq!(told.iter().filter(|it| **it == 2).count(), 1, "{story:#?}");
}

#[test]
fn a_crash_that_the_supervisor_answers_is_an_incident_that_ends_by_itself() {
    let mut bench = Bench::well(vec![charge("web", &[], vec![])]);
    let exit = Exit::Signal { signal: 9, core_dumped: false };
    bench.evidence = Evidence { exit: Some(exit), ..Evidence::default() };
    bench.lives(&target("web"), Life::Failed { exit: Some(exit), retry: Retry::Soon });
    bench.starts(&target("web"));
    bench.pass(120);
    let story = bench.story("web");
    let expected = [
        "killed by SIGKILL",
        "was killed by SIGKILL from outside of Mend",
        "is well again after 0 ms",
        "the incident is over: it came back without a remedy",
    ];
    assert_eq!(story, expected);
}

#[test]
fn a_standby_is_stopped_when_the_program_has_been_well_for_a_time() {
    let mut bench = Bench::well(web(vec![Remedy::Fallback { program: "spare".parse().unwrap() }]));
    fails(&mut bench, "web");
    bench.pass(60);
    assert_eq!(bench.remedies(), ["web fallback"]);
    let ends = |bench: &Bench| {
        bench.told.iter().any(|action| matches!(action, CareAction::EndFallback { .. }))
    };
    recovers(&mut bench, "web");
    bench.pass(30);
    assert!(!ends(&bench));
    bench.pass(120);
    assert!(ends(&bench));
}

#[test]
fn an_emergency_stops_what_is_least_important_and_brings_it_back() {
    let pay = Check { impact: Impact::Critical, ..check(vec![]) };
    let pay = Charge { impact: Impact::Critical, priority: 10, ..charge("pay", &[], vec![pay]) };
    let report = Charge { priority: 900, ..charge("report", &[], vec![]) };
    let mode = ModeRules { shed_emergency: Some(500), ..ModeRules::default() };
    let mut bench = Bench::configured(vec![pay, report], mode);
    bench.starts(&target("pay"));
    bench.starts(&target("report"));
    bench.pass(120);
    fails(&mut bench, "pay");
    bench.pass(120);
    assert_eq!(bench.care.mode(), mode::Mode::Emergency);
    assert!(bench.lives[&target("report")].is_stopped());
    recovers(&mut bench, "pay");
    bench.pass(240);
    assert_eq!(bench.care.mode(), mode::Mode::Normal);
    assert!(!bench.lives[&target("report")].is_stopped());
}

#[test]
fn a_quiet_check_asks_for_nothing_to_be_written_down() {
    let mut bench = Bench::well(web(vec![Remedy::Restart]));
    bench.record.clear();
    bench.pass(3600);
    assert!(bench.record.is_empty());
}

#[test]
fn what_is_no_longer_configured_is_forgotten() {
    let mut bench = Bench::well(web(vec![Remedy::Restart]));
    fails(&mut bench, "web");
    bench.outcome = None;
    bench.until_remedy();
    let settings = bench.settings;
    bench.send(CareEvent::Configure { charges: Vec::new(), settings });
    let forgotten = CareAction::Forget { target: target("web") };
    assert!(bench.told.contains(&forgotten));
    assert!(
        bench.care.next_deadline().is_none() && bench.care.host_facts().brakes.running.is_empty()
    );
}
