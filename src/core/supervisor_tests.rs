//! The rules of the core, one test each.

use super::bench::*;
use super::*;
use crate::config::{RestartPolicy, StopStep};
use crate::name::RunId;

fn with_period(name: &str) -> crate::config::Program {
    program_with(name, |p| p.lifecycle.start_period = 2 * SECOND)
}

#[test]
fn a_process_counts_as_running_when_its_start_period_is_over() {
    let mut bench = Bench::running(vec![with_period("web")]);
    assert_eq!(bench.state("web"), StateCode::Starting);
    assert_eq!(bench.advance(2 * SECOND), []);
    assert_eq!(bench.state("web"), StateCode::Running);
    assert_eq!(bench.core.next_deadline(), None, "a quiet process needs no wakeup");
}

#[test]
fn a_crash_is_swept_at_once_and_the_next_run_starts_only_when_all_is_gone() {
    let mut bench = Bench::running(vec![program("web")]);
    let run = bench.run("web");
    assert_eq!(bench.exited(run, 3), [sweep(run, KILL)]);
    assert_eq!(bench.state("web"), StateCode::Backoff);
    assert_eq!(bench.advance(100 * SECOND), []);
    let actions = bench.gone(run);
    assert_eq!(actions, [bench.spawn_action("web")]);
    assert!(bench.run("web") > run);
}

#[test]
fn the_second_crash_waits_and_the_status_says_how_long() {
    let mut bench = Bench::running(vec![program("web")]);
    bench.dies(bench.run("web"), 1);
    bench.spawn_all();
    bench.dies(bench.run("web"), 1);
    assert_eq!(bench.status("web").retry_at, Some(bench.now + SECOND));
    assert_eq!(bench.told.last().unwrap().detail, "exited with code 1; next try in 1 s, 2nd of 5");
    let actions = bench.advance(SECOND);
    assert_eq!(actions, [bench.spawn_action("web")]);
    assert_eq!(bench.status("web").restarts, 1);
}

#[test]
fn a_run_of_reset_after_makes_the_next_failure_the_first() {
    let mut bench = Bench::running(vec![program("web")]);
    bench.dies(bench.run("web"), 1);
    bench.spawn_all();
    bench.advance(60 * SECOND);
    assert_eq!(bench.status("web").failures, (0, 5));
    let actions = bench.dies(bench.run("web"), 1);
    assert!(actions.contains(&bench.spawn_action("web")), "{actions:?}");
}

#[test]
fn the_breaker_opens_after_its_failures_then_makes_one_try_that_decides() {
    let mut bench = Bench::running(vec![program("web")]);
    for _ in 0..4 {
        bench.dies(bench.run("web"), 1);
        bench.advance(10 * SECOND);
        bench.spawn_all();
    }
    bench.dies(bench.run("web"), 1);
    let until = bench.now + 300 * SECOND;
    assert_eq!(bench.status("web").breaker, BreakerState::Open { until });
    assert_eq!(bench.status("web").retry_at, Some(until));
    assert!(bench.status("web").reason.starts_with("restart breaker open: 5 failures in 2 min"));
    assert_eq!(bench.advance(299 * SECOND), []);
    bench.advance(SECOND);
    bench.spawn_all();
    assert_eq!(bench.status("web").breaker, BreakerState::HalfOpen);
    bench.dies(bench.run("web"), 1);
    assert_eq!(bench.status("web").retry_at, Some(bench.now + 600 * SECOND));
    let actions = bench.start("web");
    assert_eq!(actions, [bench.spawn_action("web")], "an operator's start tries at once");
    assert_eq!(bench.status("web").breaker, BreakerState::Closed);
}

#[test]
fn a_spawn_that_cannot_work_is_fatal_until_an_operator_or_a_new_spawn() {
    let mut bench = Bench::configured(vec![program("web")]);
    let fail = |bench: &mut Bench| {
        let failure = SpawnFailure { message: "no such file".into(), transient: false };
        bench.send(Event::SpawnFailed { run: bench.run("web"), failure });
    };
    fail(&mut bench);
    assert_eq!(
        (bench.state("web"), bench.status("web").reason.as_str()),
        (StateCode::Fatal, "no such file")
    );
    bench.configure(vec![program("web")]);
    assert_eq!(bench.state("web"), StateCode::Fatal);
    bench.start("web");
    fail(&mut bench);
    bench.configure(vec![program_with("web", |p| p.spawn.argv = vec!["/bin/other".into()])]);
    assert_eq!(bench.state("web"), StateCode::Starting);
}

#[test]
fn a_spawn_that_may_work_later_is_tried_again() {
    let mut bench = Bench::configured(vec![program("web")]);
    let failure = SpawnFailure { message: "out of memory".into(), transient: true };
    bench.send(Event::SpawnFailed { run: bench.run("web"), failure });
    assert_eq!(bench.state("web"), StateCode::Backoff);
    let actions = bench.advance(SECOND);
    assert_eq!(actions, [bench.spawn_action("web")]);
}

#[test]
fn a_permanent_exit_code_is_fatal_and_an_unknown_exit_never_is() {
    let rule = |p: &mut crate::config::Program| p.lifecycle.permanent_exit_codes = vec![64];
    let mut bench = Bench::running(vec![program_with("web", rule)]);
    let run = bench.run("web");
    bench.send(Event::Exited { run, exit: Exit::Unknown });
    bench.gone(run);
    bench.spawn_all();
    assert_eq!(bench.state("web"), StateCode::Running);
    bench.dies(bench.run("web"), 64);
    assert_eq!(bench.state("web"), StateCode::Fatal);
    assert_eq!(bench.core.next_deadline(), None);
}

#[test]
fn a_job_that_succeeds_is_left_exited() {
    for policy in [RestartPolicy::OnFailure, RestartPolicy::Never] {
        let mut bench = Bench::running(vec![program_with("job", |p| {
            p.lifecycle.restart = policy;
            p.lifecycle.start_period = SECOND;
        })]);
        bench.dies(bench.run("job"), 0);
        assert_eq!(bench.state("job"), StateCode::Exited, "{policy:?}");
    }
    let mut bench = Bench::running(vec![with_period("web")]);
    bench.dies(bench.run("web"), 0);
    assert_eq!(bench.state("web"), StateCode::Backoff, "an early exit under `always` has failed");
}

#[test]
fn a_stop_takes_its_steps_then_kills_the_tree_again_and_again() {
    let steps =
        vec![StopStep { signal: 2, grace: SECOND }, StopStep { signal: TERM, grace: GRACE }];
    let mut bench = Bench::running(vec![program_with("web", |p| p.lifecycle.stop.steps = steps)]);
    let run = bench.run("web");
    assert_eq!(bench.stop("web"), [signal(run, 2)]);
    assert_eq!(bench.advance(SECOND), [signal(run, TERM)]);
    assert_eq!(bench.advance(GRACE), [Action::KillTree { run }]);
    assert_eq!(bench.advance(4 * SECOND), []);
    assert_eq!(bench.advance(SECOND), [Action::KillTree { run }]);
    assert!(bench.status("web").reason.contains("does not die of SIGKILL"));
    assert_eq!(bench.exited(run, 0), [sweep(run, KILL)]);
    bench.gone(run);
    assert_eq!(bench.state("web"), StateCode::Stopped);
}

#[test]
fn what_the_main_process_leaves_gets_the_rest_of_the_grace_then_sigkill() {
    let mut bench = Bench::running(vec![program("web")]);
    let run = bench.run("web");
    bench.stop("web");
    bench.advance(4 * SECOND);
    assert_eq!(bench.exited(run, 0), [sweep(run, TERM)]);
    assert_eq!(bench.state("web"), StateCode::Stopping);
    assert_eq!(bench.advance(5 * SECOND), []);
    assert_eq!(bench.advance(SECOND), [sweep(run, KILL)]);
    bench.gone(run);
    assert_eq!(bench.state("web"), StateCode::Stopped);
}

#[test]
fn a_stop_before_the_spawn_is_known_waits_for_it() {
    let mut bench = Bench::configured(vec![program("web")]);
    let run = bench.run("web");
    assert_eq!(bench.stop("web"), []);
    assert_eq!(bench.spawned(run), [signal(run, TERM)]);
    bench.dies(run, 0);
    assert_eq!(bench.state("web"), StateCode::Stopped);
    assert_eq!(bench.status("web").reason, "stopped by alice");
}

#[test]
fn a_start_during_a_stop_starts_again_after_it() {
    let mut bench = Bench::running(vec![program("web")]);
    let run = bench.run("web");
    bench.stop("web");
    assert_eq!(bench.start("web"), []);
    assert_eq!(bench.exited(run, 0), [sweep(run, TERM)]);
    let actions = bench.gone(run);
    assert_eq!(actions, [bench.spawn_action("web")]);
}

#[test]
fn a_stop_during_backoff_needs_no_signal() {
    let mut bench = Bench::running(vec![with_period("web")]);
    bench.dies(bench.run("web"), 1);
    assert_eq!(bench.stop("web"), []);
    assert_eq!((bench.state("web"), bench.core.next_deadline()), (StateCode::Stopped, None));
}

#[test]
fn a_restart_replaces_a_run_and_starts_what_is_stopped() {
    let mut bench = Bench::running(vec![program("web")]);
    let run = bench.run("web");
    assert_eq!(bench.restart("web"), [signal(run, TERM)]);
    let actions = bench.dies(run, 0);
    assert!(actions.contains(&bench.spawn_action("web")), "{actions:?}");
    bench.spawn_all();
    bench.stop("web");
    bench.dies(bench.run("web"), 0);
    let actions = bench.restart("web");
    assert_eq!(actions, [bench.spawn_action("web")]);
}

#[test]
fn a_dependant_starts_when_its_requirement_runs_and_stops_before_it() {
    let mut bench = Bench::configured(vec![requires("web", "db"), with_period("db")]);
    let db = bench.run("db");
    assert_eq!(bench.status("web").waiting_for, [name("db")]);
    bench.spawned(db);
    assert_eq!(bench.state("web"), StateCode::Stopped);
    let actions = bench.advance(2 * SECOND);
    assert_eq!(actions, [bench.spawn_action("web")]);
    bench.spawn_all();
    let web = bench.run("web");
    assert_eq!(bench.stop("db"), [signal(web, TERM)]);
    assert_eq!(bench.exited(web, 0), [sweep(web, TERM)]);
    assert_eq!(bench.gone(web), [signal(db, TERM)]);
    bench.dies(db, 0);
    assert_eq!(bench.status("web").goal, Goal::Up, "it was stopped only because `db` was");
    assert_eq!(bench.status("web").reason, "requires `db`, which was stopped by alice");
    bench.start("web");
    assert_eq!(bench.state("db"), StateCode::Starting, "a start takes its requirement with it");
}

#[test]
fn a_dependant_of_a_fatal_requirement_waits_and_says_so() {
    let mut bench = Bench::configured(vec![requires("web", "db"), program("db")]);
    let failure = SpawnFailure { message: "no such file".into(), transient: false };
    bench.send(Event::SpawnFailed { run: bench.run("db"), failure });
    let reason = "requires `db`, which is FATAL; starts by itself when `db` runs";
    assert_eq!(bench.status("web").reason, reason);
    bench.start("db");
    let actions = bench.spawned(bench.run("db"));
    assert_eq!(actions, [bench.spawn_action("web")]);
}

#[test]
fn a_wanted_program_that_fails_holds_nobody_up() {
    let wants = |p: &mut crate::config::Program| p.lifecycle.wants = vec!["cache".parse().unwrap()];
    let mut bench = Bench::configured(vec![program_with("web", wants), program("cache")]);
    assert_eq!(bench.status("web").waiting_for, [name("cache")]);
    let failure = SpawnFailure { message: "no such file".into(), transient: false };
    let actions = bench.send(Event::SpawnFailed { run: bench.run("cache"), failure });
    assert_eq!(actions, [bench.spawn_action("web")]);
}

#[test]
fn starts_go_by_priority_then_name_and_stops_the_other_way() {
    let with = |name: &str, priority| program_with(name, |p| p.lifecycle.priority = priority);
    let mut bench = Bench::configured(vec![]);
    let actions = bench.configure(vec![with("a", 5), with("c", 1), with("b", 1)]);
    let names = ["b", "c", "a"];
    assert_eq!(actions, names.map(|name| bench.spawn_action(name)));
    bench.spawn_all();
    let stops = ["a", "c", "b"].map(|name| signal(bench.run(name), TERM));
    assert_eq!(bench.shutdown(), stops);
}

#[test]
fn a_shutdown_ends_once_and_leaves_the_goals() {
    let mut bench = Bench::running(vec![requires("web", "db"), program("db")]);
    let (web, db) = (bench.run("web"), bench.run("db"));
    assert_eq!(bench.shutdown(), [signal(web, TERM)]);
    assert_eq!(bench.shutdown(), []);
    bench.exited(web, 0);
    assert_eq!(bench.gone(web), [signal(db, TERM)]);
    bench.exited(db, 0);
    assert_eq!(bench.gone(db), [Action::ShutdownComplete]);
    assert_eq!(bench.status("db").goal, Goal::Up);
    assert_eq!(bench.start("db"), []);
    assert_eq!(Bench::configured(vec![]).shutdown(), [Action::ShutdownComplete]);
}

#[test]
fn a_removed_process_is_stopped_then_forgotten_and_may_come_back_meanwhile() {
    let mut bench = Bench::running(vec![program("web")]);
    let run = bench.run("web");
    assert_eq!(bench.configure(vec![]), [signal(run, TERM)]);
    bench.configure(vec![program("web")]);
    let actions = bench.dies(run, 0);
    assert!(actions.contains(&bench.spawn_action("web")), "{actions:?}");
    bench.spawn_all();
    let run = bench.run("web");
    bench.configure(vec![]);
    bench.exited(run, 0);
    assert_eq!(bench.gone(run), [Action::Forget { process: name("web") }]);
    assert_eq!(bench.core.status(&name("web")), None);
}

#[test]
fn only_a_change_of_the_spawn_restarts_a_run() {
    let mut bench = Bench::running(vec![program("web")]);
    let run = bench.run("web");
    assert_eq!(bench.configure(vec![with_period("web")]), []);
    let other = program_with("web", |p| p.spawn.nice = Some(5));
    assert_eq!(bench.configure(vec![other]), [signal(run, TERM)]);
}

#[test]
fn replicas_come_and_go_alone() {
    let with = |count| program_with("web", |p| p.replicas = Some(count));
    let mut bench = Bench::running(vec![with(1)]);
    let actions = bench.configure(vec![with(3)]);
    assert_eq!(actions, ["web:1", "web:2"].map(|name| bench.spawn_action(name)));
    bench.spawn_all();
    let last = bench.run("web:2");
    assert_eq!(bench.configure(vec![with(2)]), [signal(last, TERM)]);
}

#[test]
fn reports_on_earlier_or_unknown_runs_have_no_effect() {
    let mut bench = Bench::running(vec![program("web")]);
    let old = bench.run("web");
    bench.dies(old, 1);
    bench.spawn_all();
    let (before, told) = (bench.core.snapshot(&name("web")).cloned(), bench.told.len());
    for run in [old, RunId(999)] {
        assert_eq!(bench.exited(run, 0), []);
        assert_eq!(bench.gone(run), []);
        assert_eq!(bench.spawned(run), []);
    }
    bench.spawned(bench.run("web"));
    let after = (bench.core.snapshot(&name("web")).cloned(), bench.told.len());
    assert_eq!(after, (before, told));
}

#[test]
fn what_an_operator_stopped_stays_stopped_over_a_reboot() {
    let mut bench = Bench::running(vec![program("web"), program("db")]);
    bench.stop("web");
    let goals = bench.core.explicit_goals();
    assert_eq!(goals, [(name("web"), Goal::Down, actor())]);
    let mut next = Bench::configured(vec![]);
    next.core = Supervisor::new(2);
    next.core.remember_goals_of_before(goals);
    next.configure(vec![program("web"), program("db")]);
    assert_eq!((next.state("web"), next.state("db")), (StateCode::Stopped, StateCode::Starting));
    assert_eq!(next.status("web").reason, "stopped by alice");
}

/// Lets the brain die; the next one finds these runs.
fn restored(bench: &mut Bench, runs: Vec<FoundRun>) -> Vec<Action> {
    let names: Vec<_> = bench.core.statuses().map(|status| status.process).collect();
    let restore = Restore {
        programs: bench.programs.clone(),
        except: std::collections::BTreeMap::new(),
        snapshots: names.iter().filter_map(|name| bench.core.snapshot(name)).cloned().collect(),
        runs,
        next_run: bench.core.next_run(),
        spawn_changed: std::collections::BTreeSet::new(),
        shutdown: None,
    };
    bench.core = Supervisor::new(3);
    let actions = bench.core.restore(bench.now, restore);
    bench.sift(actions)
}

fn found(process: &str, run: RunId, found: Found) -> FoundRun {
    FoundRun { run, process: name(process), found }
}

#[test]
fn the_next_brain_leaves_what_lives_alone_and_goes_on_with_a_stop() {
    let mut bench = Bench::running(vec![program("web"), program("db")]);
    let (web, db) = (bench.run("web"), bench.run("db"));
    bench.stop("web");
    let before = bench.core.snapshot(&name("web")).cloned();
    let alive = Found::Alive { pid: 101 };
    let runs = vec![found("web", web, alive), found("db", db, alive)];
    assert_eq!(restored(&mut bench, runs), []);
    assert_eq!(bench.core.snapshot(&name("web")), before.as_ref());
    assert_eq!(bench.advance(GRACE), [Action::KillTree { run: web }]);
}

#[test]
fn the_next_brain_keeps_a_delay_to_its_end() {
    let mut bench = Bench::running(vec![with_period("web")]);
    bench.dies(bench.run("web"), 1);
    let retry_at = bench.status("web").retry_at;
    bench.advance(SECOND / 2);
    assert_eq!(restored(&mut bench, vec![]), []);
    assert_eq!(bench.status("web").retry_at, retry_at);
    let actions = bench.advance(SECOND / 2);
    assert_eq!(actions, [bench.spawn_action("web")]);
}

#[test]
fn the_next_brain_hears_of_an_exit_that_the_last_one_missed() {
    let mut bench = Bench::running(vec![program("web")]);
    let run = bench.run("web");
    let runs = vec![found("web", run, Found::Ended { exit: Exit::Code(4) })];
    assert_eq!(restored(&mut bench, runs), [sweep(run, KILL)]);
    let actions = bench.gone(run);
    assert_eq!(actions, [bench.spawn_action("web")]);
}

#[test]
fn a_spawn_that_died_with_the_brain_is_asked_for_again_under_a_new_number() {
    let mut bench = Bench::configured(vec![program("web")]);
    let run = bench.run("web");
    let actions = restored(&mut bench, vec![found("web", run, Found::NeverBorn)]);
    assert!(bench.run("web") > run);
    assert_eq!(actions, [bench.spawn_action("web")]);
}

#[test]
fn an_unrecorded_run_is_adopted_when_its_place_is_free_and_killed_when_not() {
    let mut bench = Bench::running(vec![program("web")]);
    let (web, stranger) = (bench.run("web"), RunId(50));
    let alive = Found::Alive { pid: 7 };
    let runs = vec![found("web", web, alive), found("web", stranger, alive)];
    assert_eq!(restored(&mut bench, runs), [Action::KillTree { run: stranger }]);
    assert_eq!(bench.advance(5 * SECOND), [Action::KillTree { run: stranger }]);
    assert_eq!(bench.exited(stranger, 0), [sweep(stranger, KILL)]);
    bench.gone(stranger);
    assert_eq!(bench.status("web").run, Some(web));
    assert_eq!(bench.core.next_run(), RunId(51));

    let mut bench = Bench::configured(vec![program_with("web", |p| p.lifecycle.autostart = false)]);
    bench.programs = vec![std::sync::Arc::new(program("web"))];
    bench.core = Supervisor::new(1);
    assert_eq!(restored(&mut bench, vec![found("web", stranger, alive)]), []);
    assert_eq!((bench.state("web"), bench.run("web")), (StateCode::Running, stranger));
}

#[test]
fn a_run_of_a_program_that_is_no_longer_configured_is_stopped_and_forgotten() {
    let mut bench = Bench::running(vec![program("web")]);
    let run = bench.run("web");
    bench.programs = vec![];
    let runs = vec![found("web", run, Found::Alive { pid: 101 })];
    assert_eq!(restored(&mut bench, runs), [signal(run, TERM)]);
    bench.exited(run, 0);
    assert_eq!(bench.gone(run), [Action::Forget { process: name("web") }]);
}

#[test]
fn five_thousand_processes_start_crash_and_start_again_in_little_work() {
    let count = 5_000;
    let mut bench = Bench::running(vec![program_with("web", |p| p.replicas = Some(count))]);
    let runs: Vec<RunId> = bench.core.statuses().filter_map(|status| status.run).collect();
    assert_eq!(runs.len(), 5_000);
    for run in &runs {
        let actions = bench.dies(*run, 1);
        assert_eq!(actions.len(), 2, "one sweep and one spawn, nothing for the others");
    }
}
