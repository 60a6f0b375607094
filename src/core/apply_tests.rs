//! The machine of an apply against a supervisor on its bench.

use super::*;
use crate::config::{Program, Ready, RestartPolicy};
use crate::core::bench::{Bench, SECOND, actor, name, program, program_with};
use crate::core::{Event, Programs};

const PATIENCE: Duration = Duration::from_secs(60);

fn programs(list: Vec<Program>) -> Programs {
    list.into_iter().map(|p| (p.name.clone(), std::sync::Arc::new(p))).collect()
}

fn newer(text: &str, change: impl FnOnce(&mut Program)) -> Program {
    program_with(text, |p| {
        p.spawn.umask = 0o077;
        p.lifecycle.start_period = SECOND;
        change(p);
    })
}

/// An apply and the supervisor that it looks at; each declaration is carried out.
struct Table {
    bench: Bench,
    apply: Apply,
    ended: Option<ApplyStep>,
}

impl Table {
    fn begin(old: Vec<Program>, new: Vec<Program>, roll_back: bool) -> Self {
        let bench = Bench::running(old.clone());
        let order = ApplyOrder { generation: 2, by: actor(), patience: PATIENCE, roll_back };
        let (old, new) = (programs(old), programs(new));
        let (apply, steps) = Apply::begin(bench.now, old, new, order, &bench.core);
        let mut table = Self { bench, apply, ended: None };
        table.take(steps);
        table
    }

    fn take(&mut self, steps: Vec<ApplyStep>) {
        for step in steps {
            match step {
                ApplyStep::Say(_) | ApplyStep::Record => {}
                ApplyStep::Configure(mix) => {
                    self.bench.send(Event::ConfigureMix(mix));
                }
                end @ (ApplyStep::Applied | ApplyStep::Kept { .. }) => self.ended = Some(end),
                end @ ApplyStep::RolledBack { .. } => self.ended = Some(end),
            }
        }
    }

    fn look(&mut self) {
        while self.ended.is_none() {
            let steps = self.apply.look(self.bench.now, &self.bench.core, &BTreeSet::new());
            if steps.is_empty() {
                return;
            }
            self.take(steps);
        }
    }

    /// Ends the living run in answer to its stop signal, and spawns the next.
    fn replace(&mut self, process: &str) {
        let run = self.bench.run(process);
        self.bench.dies(run, 0);
        self.bench.spawn_all();
        self.look();
    }

    fn advance(&mut self, time: Duration) {
        self.bench.advance(time);
        self.look();
    }
}

#[test]
fn an_apply_ends_when_what_was_replaced_runs_and_not_before() {
    let mut table = Table::begin(vec![program("a")], vec![newer("a", |_| {})], true);
    table.look();
    assert_eq!(table.ended, None, "the old run still stands for it");
    table.replace("a");
    assert_eq!(table.ended, None, "it is starting");
    table.advance(SECOND);
    assert_eq!(table.ended, Some(ApplyStep::Applied));
}

#[test]
fn a_change_in_place_is_applied_at_once() {
    let new = program_with("a", |p| p.logs.keep = 3);
    let mut table = Table::begin(vec![program("a")], vec![new], true);
    let run = table.bench.run("a");
    table.look();
    assert_eq!((table.ended, table.bench.run("a")), (Some(ApplyStep::Applied), run));
}

#[test]
fn the_first_failure_leads_back_and_says_why() {
    let mut table = Table::begin(vec![program("a")], vec![newer("a", |_| {})], true);
    table.replace("a");
    let run = table.bench.run("a");
    table.bench.dies(run, 3);
    table.look();
    assert!(table.apply.is_rolling_back());
    table.bench.spawn_all();
    table.look();
    let Some(ApplyStep::RolledBack { why, culprit, trouble: None }) = table.ended else {
        panic!("{:?}", table.ended);
    };
    assert!(why.contains("`a` does not run: exited with code 3"), "{why}");
    assert_eq!(culprit, Some(name("a")));
}

#[test]
fn what_does_not_run_in_time_leads_back() {
    let never = newer("a", |p| p.lifecycle.start_period = 10 * PATIENCE);
    let mut table = Table::begin(vec![program("a")], vec![never], true);
    table.replace("a");
    table.advance(PATIENCE - SECOND);
    assert!(!table.apply.is_rolling_back());
    table.advance(SECOND);
    assert!(table.apply.is_rolling_back());
    // What is there before does not come back either: that ends too, and is said.
    let deadline = table.apply.next_deadline();
    table.advance(deadline.since(table.bench.now));
    let Some(ApplyStep::RolledBack { why, trouble, .. }) = &table.ended else {
        panic!("{:?}", table.ended);
    };
    assert!(why.contains("not done after 1 min"), "{why}");
    assert!(trouble.as_ref().is_some_and(|text| text.contains("`a`")), "{trouble:?}");
}

#[test]
fn a_job_that_succeeds_counts_and_one_that_fails_does_not() {
    let job = || newer("job", |p| p.lifecycle.restart = RestartPolicy::Never);
    for (code, is_good) in [(0, true), (1, false)] {
        let mut table = Table::begin(vec![program("a")], vec![program("a"), job()], true);
        table.bench.spawn_all();
        let run = table.bench.run("job");
        table.bench.dies(run, code);
        table.look();
        assert_eq!(table.ended == Some(ApplyStep::Applied), is_good, "{code}");
        assert_eq!(!table.apply.is_rolling_back(), is_good, "{code}");
    }
}

#[test]
fn what_an_operator_has_stopped_holds_up_nothing() {
    let mut table = Table::begin(vec![program("a")], vec![newer("a", |_| {})], true);
    table.bench.stop("a");
    table.look();
    assert_eq!(table.ended, Some(ApplyStep::Applied));
}

#[test]
fn what_a_stopped_requirement_holds_back_holds_up_nothing() {
    let follows = |p: &mut Program| p.lifecycle.requires = vec!["db".parse().unwrap()];
    let old = vec![program("db"), program_with("web", follows)];
    let mut bench = Bench::running(old.clone());
    bench.advance(SECOND);
    bench.spawn_all();
    let (db, web) = (bench.run("db"), bench.run("web"));
    bench.stop("db");
    bench.dies(web, 0);
    bench.dies(db, 0);
    let order = ApplyOrder { generation: 2, by: actor(), patience: PATIENCE, roll_back: true };
    let new = programs(vec![program("db"), newer("web", follows)]);
    let (apply, steps) = Apply::begin(bench.now, programs(old), new, order, &bench.core);
    let mut table = Table { bench, apply, ended: None };
    table.take(steps);
    table.look();
    assert_eq!(table.ended, Some(ApplyStep::Applied));
}

#[test]
fn an_end_before_readiness_is_a_failure_also_where_nothing_is_tried_again() {
    let new = newer("a", |p| {
        p.lifecycle.ready = Some(Ready::Notify);
        p.lifecycle.restart = RestartPolicy::OnFailure;
    });
    let mut table = Table::begin(vec![program("a")], vec![new], true);
    let old = table.bench.run("a");
    table.bench.dies(old, 0);
    table.bench.spawn_all();
    let run = table.bench.run("a");
    table.bench.dies(run, 0);
    table.look();
    assert!(table.apply.is_rolling_back(), "{:?}", table.ended);
}

#[test]
fn a_program_that_had_given_up_has_to_run_after_its_change() {
    let old = program_with("a", |p| p.lifecycle.permanent_exit_codes = vec![9]);
    let mut bench = Bench::running(vec![old.clone()]);
    let run = bench.run("a");
    bench.dies(run, 9);
    let order = ApplyOrder { generation: 2, by: actor(), patience: PATIENCE, roll_back: true };
    let (old, new) = (programs(vec![old]), programs(vec![newer("a", |_| {})]));
    let (apply, steps) = Apply::begin(bench.now, old, new, order, &bench.core);
    let mut table = Table { bench, apply, ended: None };
    table.take(steps);
    table.look();
    assert_eq!(table.ended, None);
    table.bench.spawn_all();
    table.advance(SECOND);
    assert_eq!(table.ended, Some(ApplyStep::Applied));
}

#[test]
fn progress_that_cannot_be_written_leads_back() {
    let mut table = Table::begin(vec![program("a")], vec![newer("a", |_| {})], true);
    let steps = table.apply.on_unrecorded(table.bench.now, "no space", &table.bench.core);
    assert!(!steps.contains(&ApplyStep::Record));
    table.take(steps);
    assert!(table.apply.is_rolling_back());
    let steps = table.apply.on_unrecorded(table.bench.now, "no space", &table.bench.core);
    assert_eq!(steps, [ApplyStep::Configure(table.apply.mix().clone())]);
}

/// A job that ends for good, and what requires it.
fn job_and(web: impl FnOnce(&mut Program)) -> Vec<Program> {
    let job = program_with("job", |p| {
        p.lifecycle.restart = RestartPolicy::Never;
        p.lifecycle.start_period = SECOND;
    });
    let requires_job = |p: &mut Program| {
        p.lifecycle.requires = vec!["job".parse().unwrap()];
        web(p);
    };
    vec![job, program_with("web", requires_job)]
}

#[test]
fn what_requires_a_job_that_has_ended_fails_at_once_and_not_when_the_time_is_over() {
    let old = job_and(|_| {});
    let mut table = Table::begin(old[..1].to_vec(), old.clone(), true);
    let run = table.bench.run("job");
    table.bench.dies(run, 0);
    table.look();
    let Some(ApplyStep::RolledBack { why, .. }) = table.ended else {
        panic!("{:?}", table.ended);
    };
    assert!(why.contains("`web` does not run: requires `job`, which has exited"), "{why}");
}

#[test]
fn what_did_not_run_before_for_want_of_the_same_holds_up_nothing() {
    let old = job_and(|_| {});
    let mut bench = Bench::running(old.clone());
    let run = bench.run("job");
    bench.dies(run, 0);
    assert!(bench.status("web").blocked);
    let order = ApplyOrder { generation: 2, by: actor(), patience: PATIENCE, roll_back: true };
    let new = programs(job_and(|p| p.spawn.umask = 0o077));
    let (apply, steps) = Apply::begin(bench.now, programs(old), new, order, &bench.core);
    let mut table = Table { bench, apply, ended: None };
    table.take(steps);
    table.look();
    assert_eq!(table.ended, Some(ApplyStep::Applied));
}

#[test]
fn a_requirement_that_fails_after_the_change_began_is_noticed_by_what_changed_alone() {
    let db = || program_with("db", |p| p.lifecycle.restart = RestartPolicy::Never);
    let web = |umask| {
        program_with("web", |p| {
            p.lifecycle.requires = vec!["db".parse().unwrap()];
            p.lifecycle.start_period = SECOND;
            p.spawn.umask = umask;
        })
    };
    let mut bench = Bench::running(vec![db(), web(0o022)]);
    bench.advance(SECOND);
    bench.spawn_all();
    bench.advance(SECOND);
    let (old, new) = (programs(vec![db(), web(0o022)]), programs(vec![db(), web(0o077)]));
    let order = ApplyOrder { generation: 2, by: actor(), patience: PATIENCE, roll_back: true };
    let (apply, steps) = Apply::begin(bench.now, old, new, order, &bench.core);
    let mut table = Table { bench, apply, ended: None };
    table.take(steps);
    table.look();
    let (db, web) = (table.bench.run("db"), table.bench.run("web"));
    table.bench.dies(db, 0);
    table.bench.dies(web, 0);
    for process in ["web", "db"] {
        let changed = [name(process)].into();
        let steps = table.apply.look(table.bench.now, &table.bench.core, &changed);
        table.take(steps);
    }
    assert!(table.apply.is_rolling_back());
}
