//! Rules of enabling and disabling, and of renewals after changed files.

use super::bench::*;
use super::*;
use crate::config::{self, OnWatch, Watch};

fn switch(bench: &mut Bench, program: &str, enabled: bool) -> Vec<Action> {
    let by = Actor { reason: Some("it moves".into()), ..actor() };
    let programs = vec![program.parse().unwrap()];
    bench.send(Event::Operator(Command::Switch { programs, enabled, by }))
}

/// Starts the machine again: goals and switches are all that is left.
fn reboot(bench: &Bench) -> Bench {
    let mut next = Bench::configured(Vec::new());
    next.core = Supervisor::new(1);
    next.core.remember_switches(bench.core.switches().clone());
    next.core.remember_goals_of_before(bench.core.explicit_goals());
    next.configure(bench.programs.iter().map(|program| (**program).clone()).collect());
    next
}

fn settled(name: &str) -> config::Program {
    program_with(name, |p| p.lifecycle.start_period = std::time::Duration::ZERO)
}

#[test]
fn a_disabled_program_runs_on_and_does_not_start_with_the_next_boot() {
    let mut bench = Bench::running(vec![settled("db")]);
    assert_eq!(switch(&mut bench, "db", false), []);
    assert_eq!(bench.state("db"), StateCode::Running);
    let next = reboot(&bench);
    let status = next.status("db");
    assert_eq!(
        (status.state, status.goal, status.enabled),
        (StateCode::Stopped, Goal::Down, false)
    );
    assert_eq!(
        status.reason,
        "not started: disabled by alice: it moves; `mendctl enable --now db`"
    );
}

#[test]
fn a_start_by_hand_of_a_disabled_program_holds_until_the_boot() {
    let mut bench = Bench::running(vec![settled("db")]);
    switch(&mut bench, "db", false);
    let mut bench = reboot(&bench);
    bench.start("db");
    bench.spawn_all();
    assert_eq!(bench.state("db"), StateCode::Running);
    let again = bench.programs.iter().map(|program| (**program).clone()).collect();
    bench.configure(again);
    assert_eq!(bench.state("db"), StateCode::Running);
    assert_eq!(reboot(&bench).state("db"), StateCode::Stopped);
}

#[test]
fn a_disabled_program_that_a_roll_back_brings_back_runs_again_if_it_did() {
    let mut bench = Bench::running(vec![settled("db")]);
    switch(&mut bench, "db", false);
    let mut bench = reboot(&bench);
    bench.start("db");
    bench.spawn_all();
    let (goals, run) = (bench.core.explicit_goals(), bench.run("db"));
    bench.configure(Vec::new());
    bench.dies(run, 0);
    bench.core.remember_goals(goals);
    bench.configure(vec![settled("db")]);
    bench.spawn_all();
    assert_eq!(bench.state("db"), StateCode::Running);
}

#[test]
fn a_dependant_does_not_take_a_disabled_program_along_and_says_so() {
    let programs = vec![settled("db"), requires("web", "db"), requires("far", "web")];
    let mut bench = Bench::running(programs);
    switch(&mut bench, "db", false);
    let mut bench = reboot(&bench);
    let expected =
        "requires `db`, which was disabled by alice: it moves; `mendctl enable --now db`";
    assert_eq!(bench.status("web").reason, expected);
    assert_eq!(bench.start("web"), []);
    assert_eq!(bench.status("web").reason, expected);
    assert_eq!(bench.state("db"), StateCode::Stopped);
    assert!(bench.status("web").blocked && bench.status("far").blocked);
    switch(&mut bench, "db", true);
    bench.start("db");
    bench.spawn_all();
    assert_eq!(bench.status("web").run.map(|_| ()), Some(()));
    assert!(!bench.status("far").blocked);
}

#[test]
fn enabling_outranks_autostart_and_an_older_stop_but_not_a_newer_one() {
    let off = || program_with("db", |p| p.lifecycle.autostart = false);
    let mut bench = Bench::configured(vec![off()]);
    bench.stop("db");
    switch(&mut bench, "db", true);
    assert_eq!(bench.state("db"), StateCode::Stopped, "it is not started now");
    let mut next = reboot(&bench);
    assert_eq!(next.state("db"), StateCode::Starting);
    next.spawn_all();
    next.stop("db");
    assert_eq!(reboot(&next).state("db"), StateCode::Stopped);
}

#[test]
fn a_program_that_comes_back_to_the_configuration_is_as_it_was_switched() {
    let mut bench = Bench::configured(vec![settled("db")]);
    bench.stop("db");
    switch(&mut bench, "db", false);
    bench.configure(Vec::new());
    bench.configure(vec![settled("db")]);
    assert_eq!(bench.status("db").goal, Goal::Down);
    assert!(!bench.status("db").enabled);
}

fn watching(act: OnWatch) -> config::Program {
    program_with("web", |p| {
        p.lifecycle.start_period = std::time::Duration::ZERO;
        p.watch = Some(Watch {
            targets: vec![config::WatchTarget::Path("/srv/app.py".into())],
            ignore: Vec::new(),
            debounce: std::time::Duration::ZERO,
            act,
        });
    })
}

fn changed(bench: &mut Bench) -> Vec<Action> {
    let cause = "`/srv/app.py` changed".to_owned();
    bench.send(Event::FilesChanged { program: "web".parse().unwrap(), cause })
}

#[test]
fn a_changed_file_restarts_what_runs_and_the_status_says_why() {
    let mut bench = Bench::running(vec![watching(OnWatch::Restart)]);
    let run = bench.run("web");
    assert_eq!(changed(&mut bench), [signal(run, TERM)]);
    let told = bench.told.last().unwrap();
    assert_eq!(told.detail, "restarting because `/srv/app.py` changed; SIGTERM, grace 10 s");
    bench.dies(run, 0);
    bench.spawn_all();
    let status = bench.status("web");
    assert_eq!(status.reason, "running; restarted because `/srv/app.py` changed");
    assert_eq!(status.goal_by, None);
    let run = bench.run("web");
    bench.dies(run, 1);
    bench.spawn_all();
    assert_eq!(bench.status("web").reason, "running; the run before exited with code 1");
}

#[test]
fn a_changed_file_signals_what_runs_where_that_is_asked_for() {
    let mut bench = Bench::running(vec![watching(OnWatch::Signal(1))]);
    let run = bench.run("web");
    assert_eq!(changed(&mut bench), [Action::Signal { run, signal: 1, group: false }]);
}

#[test]
fn a_changed_file_starts_at_once_what_had_failed() {
    let mut bench = Bench::running(vec![watching(OnWatch::Signal(1))]);
    for _ in 0..3 {
        let run = bench.run("web");
        bench.dies(run, 1);
        bench.advance(10 * SECOND);
        bench.spawn_all();
    }
    let run = bench.run("web");
    bench.dies(run, 1);
    assert_eq!(bench.state("web"), StateCode::Backoff);
    assert_eq!(changed(&mut bench), [bench.spawn_action("web")]);
    assert_eq!(bench.status("web").failures.0, 0);
}

#[test]
fn a_changed_file_leaves_alone_what_an_operator_stopped_and_what_is_shutting_down() {
    let mut bench = Bench::running(vec![watching(OnWatch::Restart)]);
    let run = bench.run("web");
    bench.stop("web");
    assert_eq!(changed(&mut bench), []);
    bench.dies(run, 0);
    assert_eq!(changed(&mut bench), []);
    assert_eq!(bench.state("web"), StateCode::Stopped);
    let mut bench = Bench::running(vec![watching(OnWatch::Restart)]);
    bench.shutdown();
    assert_eq!(changed(&mut bench), []);
}

#[test]
fn a_change_of_what_is_watched_restarts_nothing() {
    let mut bench = Bench::running(vec![watching(OnWatch::Restart)]);
    let run = bench.run("web");
    assert_eq!(bench.configure(vec![watching(OnWatch::Signal(10))]), []);
    assert_eq!(bench.run("web"), run);
}

#[test]
fn replicas_that_nobody_wants_block_nothing_as_long_as_there_are_others() {
    let db = program_with("db", |p| {
        p.replicas = Some(2);
        p.lifecycle.start_period = SECOND;
    });
    let mut bench = Bench::running(vec![db, requires("web", "db")]);
    let end = |bench: &mut Bench, process: &str| {
        let run = bench.run(process);
        bench.stop(process);
        bench.dies(run, 0);
    };
    end(&mut bench, "db:1");
    let status = bench.status("web");
    assert!(!status.blocked, "{status:?}");
    assert_eq!(status.waiting_for, [name("db:0")]);
    assert!(status.reason.starts_with("requires `db:0`, which is "), "{}", status.reason);
    end(&mut bench, "db:0");
    let status = bench.status("web");
    assert!(status.blocked, "{status:?}");
    assert_eq!(status.waiting_for, [name("db:0"), name("db:1")]);
    assert!(status.reason.contains("which was stopped by alice"), "{}", status.reason);
}

#[test]
fn what_another_configuration_would_hold_is_found_without_touching_anything() {
    let mid = || requires("mid", "db");
    let mut bench = Bench::running(vec![settled("db"), mid(), settled("web"), settled("new")]);
    bench.advance(SECOND);
    bench.spawn_all();
    bench.advance(SECOND);
    bench.stop("db");
    for process in ["mid", "db"] {
        let run = bench.run(process);
        bench.dies(run, 0);
    }
    let programs = |list: Vec<config::Program>| -> crate::core::Programs {
        list.into_iter().map(|p| (p.name.clone(), std::sync::Arc::new(p))).collect()
    };
    let same = programs(vec![settled("db"), mid(), settled("web"), settled("new")]);
    assert_eq!(bench.core.would_hold(bench.now, &same), []);
    // `mid` is held already; `web` would be, through it; `new` would restart anyway.
    let next = programs(vec![settled("db"), mid(), requires("web", "mid"), settled("new")]);
    let held = bench.core.would_hold(bench.now, &next);
    let why = "it requires `mid`, stopped because it requires `db`, stopped by alice";
    let expected = ("web".parse().unwrap(), why.to_owned());
    assert_eq!(held, [expected]);
    assert_eq!(bench.status("web").state, StateCode::Running);
    // What it newly requires and nobody has stopped is started for it.
    let late = program_with("late", |p| p.lifecycle.autostart = false);
    let next = programs(vec![late, settled("web"), requires("new", "late")]);
    assert_eq!(bench.core.would_hold(bench.now, &next), []);
}
