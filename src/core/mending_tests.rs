//! Rules of what remedies may do to processes.

use super::bench::*;
use super::*;

fn settled(name: &str) -> crate::config::Program {
    program_with(name, |p| p.lifecycle.start_period = std::time::Duration::ZERO)
}

fn standby(name: &str) -> crate::config::Program {
    program_with(name, |p| {
        p.lifecycle.start_period = std::time::Duration::ZERO;
        p.lifecycle.autostart = false;
    })
}

fn mend(bench: &mut Bench, what: Mending, process: &str) -> Vec<Action> {
    let by = Actor::mend("incident 3".into(), crate::time::Wall(0));
    bench.send(Event::Mend { what, processes: vec![name(process)], by })
}

/// Lets a stop come to its end.
fn stops(bench: &mut Bench, run: crate::name::RunId) -> Vec<Action> {
    let exit = Exit::Signal { signal: TERM, core_dumped: false };
    let mut actions = bench.send(Event::Exited { run, exit });
    actions.extend(bench.gone(run));
    actions
}

#[test]
fn a_replaced_run_says_why_and_what_failed_is_tried_at_once() {
    let mut bench = Bench::running(vec![settled("web")]);
    let run = bench.run("web");
    assert_eq!(mend(&mut bench, Mending::Replace, "web"), [signal(run, TERM)]);
    assert_eq!(
        bench.status("web").reason,
        "restarting because incident 3; the stop signal was sent"
    );
    stops(&mut bench, run);
    bench.spawn_all();
    assert_eq!(bench.status("web").reason, "running; restarted because incident 3");
    let run = bench.run("web");
    bench.dies(run, 1);
    bench.spawn_all();
    let run = bench.run("web");
    bench.dies(run, 1);
    assert_eq!(bench.state("web"), StateCode::Backoff);
    mend(&mut bench, Mending::Replace, "web");
    assert_eq!(bench.state("web"), StateCode::Starting);
}

#[test]
fn what_an_operator_has_stopped_is_not_replaced() {
    let mut bench = Bench::running(vec![settled("web")]);
    let run = bench.run("web");
    bench.stop("web");
    stops(&mut bench, run);
    assert_eq!(mend(&mut bench, Mending::Replace, "web"), []);
    assert_eq!(bench.state("web"), StateCode::Stopped);
}

#[test]
fn what_is_shed_comes_back_by_itself_and_its_goal_stays() {
    let mut bench = Bench::running(vec![settled("web")]);
    let run = bench.run("web");
    assert_eq!(mend(&mut bench, Mending::Shed, "web"), [signal(run, TERM)]);
    stops(&mut bench, run);
    let status = bench.status("web");
    assert_eq!((status.state, status.goal, status.goal_by), (StateCode::Stopped, Goal::Up, None));
    assert_eq!(status.reason, "kept down by mend: incident 3; starts again when that is over");
    bench.die_and_restore();
    assert_eq!(bench.state("web"), StateCode::Stopped);
    mend(&mut bench, Mending::Unshed, "web");
    assert_eq!(bench.state("web"), StateCode::Starting);
}

#[test]
fn an_operators_start_and_stop_outrank_the_shedding() {
    let mut bench = Bench::running(vec![settled("web")]);
    let run = bench.run("web");
    mend(&mut bench, Mending::Shed, "web");
    stops(&mut bench, run);
    bench.start("web");
    bench.spawn_all();
    assert_eq!(bench.state("web"), StateCode::Running);
    mend(&mut bench, Mending::Shed, "web");
    let run = bench.run("web");
    stops(&mut bench, run);
    bench.stop("web");
    mend(&mut bench, Mending::Unshed, "web");
    assert_eq!((bench.state("web"), bench.status("web").goal), (StateCode::Stopped, Goal::Down));
}

#[test]
fn an_operators_start_ends_the_shedding_of_what_still_stops() {
    let mut bench = Bench::running(vec![settled("web")]);
    let run = bench.run("web");
    mend(&mut bench, Mending::Shed, "web");
    bench.start("web");
    stops(&mut bench, run);
    bench.spawn_all();
    assert_eq!(bench.state("web"), StateCode::Running);
    assert_ne!(bench.run("web"), run);
}

#[test]
fn what_waits_for_its_next_try_stays_down_when_it_is_shed() {
    let mut bench = Bench::running(vec![settled("web")]);
    for _ in 0..2 {
        bench.spawn_all();
        let run = bench.run("web");
        bench.dies(run, 1);
    }
    mend(&mut bench, Mending::Shed, "web");
    bench.advance(60 * SECOND);
    assert_eq!(bench.status("web").run, None);
    mend(&mut bench, Mending::Unshed, "web");
    assert_eq!(bench.state("web"), StateCode::Starting);
}

#[test]
fn a_standby_is_started_and_stopped_again_and_its_goal_is_not_for_the_next_boot() {
    let mut bench = Bench::running(vec![standby("spare")]);
    assert_eq!(bench.state("spare"), StateCode::Stopped);
    mend(&mut bench, Mending::Engage, "spare");
    bench.spawn_all();
    assert_eq!(bench.state("spare"), StateCode::Running);
    assert_eq!(bench.core.explicit_goals(), []);
    let run = bench.run("spare");
    mend(&mut bench, Mending::Disengage, "spare");
    stops(&mut bench, run);
    assert_eq!(bench.status("spare").reason, "stopped by mend: incident 3");
    assert_eq!(bench.core.explicit_goals(), []);
}

#[test]
fn a_standby_that_an_operator_starts_meanwhile_runs_on() {
    let mut bench = Bench::running(vec![standby("spare")]);
    mend(&mut bench, Mending::Engage, "spare");
    bench.spawn_all();
    bench.start("spare");
    assert_eq!(mend(&mut bench, Mending::Disengage, "spare"), []);
    assert_eq!(bench.state("spare"), StateCode::Running);
}

#[test]
fn a_disabled_program_is_no_standby_and_neither_is_one_that_was_stopped_by_hand() {
    let mut bench = Bench::running(vec![standby("spare"), settled("web")]);
    let programs = vec!["spare".parse().unwrap()];
    let by = actor();
    bench.send(Event::Operator(Command::Switch { programs, enabled: false, by }));
    assert_eq!(mend(&mut bench, Mending::Engage, "spare"), []);
    let run = bench.run("web");
    bench.stop("web");
    stops(&mut bench, run);
    assert_eq!(mend(&mut bench, Mending::Engage, "web"), []);
}

#[test]
fn a_standby_that_was_tried_by_hand_is_one_still() {
    let mut bench = Bench::running(vec![standby("spare")]);
    bench.start("spare");
    bench.spawn_all();
    let run = bench.run("spare");
    bench.stop("spare");
    stops(&mut bench, run);
    mend(&mut bench, Mending::Engage, "spare");
    assert_eq!(bench.state("spare"), StateCode::Starting);
}
