//! The next brain: the decisions of the last one meet what is really there.
//!
//! Every pending decision goes on: delays, graces, breakers, goals. A run that nobody can tell
//! of is never guessed dead: the engine is asked to sweep it and the next one waits for `Gone`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::configure::process_names;
use super::program::{Process, SIGKILL};
use super::snapshot::{Snapshot, State, StopPhase};
use super::supervisor::Supervisor;
use super::{Action, Actor, Exit, StateCode};
use crate::config::{self, Program};
use crate::name::{ProcessName, ProgramName, RunId};
use crate::time::Instant;

/// What the engine found of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRun {
    pub run: RunId,
    pub process: ProcessName,
    pub found: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The main process lives.
    Alive { pid: u32 },
    /// The main process has ended; others of its tree may live.
    Ended { exit: Exit },
    /// The spawn was asked for but never happened, and never will.
    NeverBorn,
}

/// Everything that a new brain starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Restore {
    pub programs: Vec<Arc<Program>>,
    /// Processes that keep another declaration than their program's, in the middle of an apply.
    pub except: BTreeMap<ProcessName, Arc<Program>>,
    pub snapshots: Vec<Snapshot>,
    /// Every run that has a record or a living process. A run that a snapshot knows and this
    /// does not counts as never born before `Spawned`, and as ended unseen after it.
    pub runs: Vec<FoundRun>,
    /// Higher than every run number that may have been used; the core looks at the ones above
    /// as well.
    pub next_run: RunId,
    /// Processes whose living run was spawned otherwise than they are declared now.
    pub spawn_changed: BTreeSet<ProcessName>,
    /// The last brain was shutting down, for this actor.
    pub shutdown: Option<Actor>,
}

impl Supervisor {
    /// Goes on where another brain has died. Meant for a supervisor that is still empty.
    ///
    /// Each [`Action::Sweep`] it returns must be answered by `Gone`, also when nothing is left.
    pub fn restore(&mut self, now: Instant, restore: Restore) -> Vec<Action> {
        let mut actions = Vec::new();
        let actions = &mut actions;
        self.next_run = highest_run(&restore).max(self.next_run);
        let mut found: BTreeMap<RunId, FoundRun> =
            restore.runs.into_iter().map(|found| (found.run, found)).collect();
        let kept = self.declare(&restore.programs);
        self.graph.is_being_built = true;
        for snapshot in restore.snapshots {
            self.insert_snapshot(now, snapshot, &kept, actions);
        }
        for program in &restore.programs {
            for name in process_names(program) {
                let declared = restore.except.get(&name).unwrap_or(program);
                self.declare_process(now, &name, declared, actions);
            }
        }
        if let Some(by) = restore.shutdown {
            self.begin_shutdown(by);
        }
        self.graph.rebuild();
        let names: Vec<ProcessName> = self.processes.keys().cloned().collect();
        for name in names {
            self.confront(now, &name, &mut found, actions);
        }
        if found.is_empty() {
            self.graph.stir_all();
        } else {
            for (_, stranger) in found.into_iter().rev() {
                self.take_stranger(now, stranger, actions);
            }
            self.graph.rebuild();
        }
        self.start_wanted(now, &restore.programs, actions);
        self.replace_changed(now, &restore.spawn_changed, actions);
        self.settle(now, actions);
        std::mem::take(actions)
    }

    fn insert_snapshot(
        &mut self,
        now: Instant,
        mut facts: Snapshot,
        kept: &BTreeSet<ProcessName>,
        actions: &mut Vec<Action>,
    ) {
        let name = facts.process.clone();
        let declared = self.graph.node(name.program()).filter(|node| node.configured);
        let program = match declared {
            Some(node) => node.program.clone(),
            None => {
                let program = Arc::new(placeholder(name.program()));
                self.graph.declare(program.clone(), false);
                program
            }
        };
        let is_removed_now = !kept.contains(&name) && !facts.removed;
        facts.removed |= is_removed_now;
        let mut process = Process::new(name, program, now);
        process.facts = facts;
        if is_removed_now {
            process.persist(actions);
        }
        process.look_again(now, actions);
        for run in process.run().into_iter().chain(process.facts.remains.iter().map(|r| r.run)) {
            self.runs.insert(run, process.facts.process.clone());
        }
        self.insert(process);
    }

    /// Tells a process what became of the runs it knows.
    fn confront(
        &mut self,
        now: Instant,
        name: &ProcessName,
        found: &mut BTreeMap<RunId, FoundRun>,
        actions: &mut Vec<Action>,
    ) {
        let Some(process) = self.get(name) else { return };
        let remains = process.facts.remains.clone();
        for old in remains {
            let what = found.remove(&old.run).map(|found| found.found);
            match what {
                Some(Found::Alive { .. }) => {
                    self.update(name, |process| process.kill_stray(now, old.run, actions));
                }
                Some(Found::NeverBorn) => {
                    self.update(name, |process| {
                        process.facts.remains.retain(|remains| remains.run != old.run);
                        process.persist(actions);
                    });
                    self.runs.remove(&old.run);
                }
                Some(Found::Ended { .. }) | None => {
                    self.update(name, |process| {
                        for remains in &mut process.facts.remains {
                            if remains.run == old.run {
                                remains.kill_again_at = None;
                            }
                        }
                        process.persist(actions);
                    });
                    actions.push(Action::Sweep { run: old.run, signal: SIGKILL });
                }
            }
        }
        let Some(run) = self.get(name).and_then(Process::run) else { return };
        let what = found.remove(&run).map(|found| found.found);
        self.confront_run(now, name, run, what, actions);
    }

    fn confront_run(
        &mut self,
        now: Instant,
        name: &ProcessName,
        run: RunId,
        what: Option<Found>,
        actions: &mut Vec<Action>,
    ) {
        let Some(process) = self.get(name) else { return };
        let stop_wanted = self.is_stop_wanted(process);
        let random = 0.5;
        match (process.facts.state.clone(), what) {
            (State::Starting { born: None, .. }, Some(Found::NeverBorn) | None) => {
                self.runs.remove(&run);
                self.update(name, |process| {
                    process.facts.restart = false;
                    process.facts.state =
                        State::Waiting { shows: StateCode::Starting, told: false };
                    process.persist(actions);
                });
            }
            (State::Starting { born: None, .. }, Some(Found::Alive { pid })) => {
                self.update(name, |process| {
                    let asked_at = process.facts.since;
                    process.on_spawned(asked_at, run, pid, actions);
                });
            }
            (State::Stopping { phase: StopPhase::Sweeping { kill_at }, .. }, _) => {
                let signal = if kill_at.is_some() { 0 } else { SIGKILL };
                actions.push(Action::Sweep { run, signal });
            }
            (_, Some(Found::Alive { .. })) => {}
            (_, Some(Found::Ended { exit })) => self.update(name, |process| {
                process.on_exited(now, exit, stop_wanted, random, actions);
            }),
            (_, Some(Found::NeverBorn) | None) => self.update(name, |process| {
                process.on_exited(now, Exit::Unknown, stop_wanted, random, actions);
            }),
        }
    }

    /// Adopts a run that no snapshot knows if its place is free, else kills it.
    fn take_stranger(&mut self, now: Instant, stranger: FoundRun, actions: &mut Vec<Action>) {
        let FoundRun { run, process: name, found } = stranger;
        if found == Found::NeverBorn {
            return;
        }
        if self.get(&name).is_none() {
            let program = match self.graph.node(name.program()) {
                Some(node) => node.program.clone(),
                None => {
                    let program = Arc::new(placeholder(name.program()));
                    self.graph.declare(program.clone(), false);
                    program
                }
            };
            let mut process = Process::new(name.clone(), program, now);
            process.facts.removed = true;
            self.insert(process);
        }
        self.runs.insert(run, name.clone());
        self.update(&name, |process| match found {
            Found::Alive { pid } => {
                let is_free = process.run().is_none() && process.facts.remains.is_empty();
                if is_free {
                    process.adopt(now, run, pid, actions);
                } else {
                    process.kill_stray(now, run, actions);
                }
            }
            Found::Ended { .. } | Found::NeverBorn => {
                process.facts.remains.push(super::Remains { run, kill_again_at: None });
                process.persist(actions);
                actions.push(Action::Sweep { run, signal: SIGKILL });
            }
        });
    }
}

/// Returns the number after the highest run that anything mentions.
fn highest_run(restore: &Restore) -> RunId {
    let of_state = restore.snapshots.iter().filter_map(|snapshot| match snapshot.state {
        State::Starting { run, .. } | State::Running { run, .. } => Some(run),
        State::Stopping { run, .. } => Some(run),
        State::Stopped | State::Waiting { .. } | State::Backoff { .. } => None,
        State::Exited | State::Fatal => None,
    });
    let of_remains =
        restore.snapshots.iter().flat_map(|snapshot| snapshot.remains.iter().map(|r| r.run));
    let of_found = restore.runs.iter().map(|found| found.run);
    let highest = of_state.chain(of_remains).chain(of_found).max();
    highest.map_or(restore.next_run, |run| RunId(run.0 + 1).max(restore.next_run))
}

/// Stands in for a program that is no longer configured: SIGTERM, 10 s, SIGKILL.
pub(crate) fn placeholder(name: &ProgramName) -> Program {
    let group = name.as_str().parse().expect("program and group names have the same rules");
    let delay = Duration::from_secs(1);
    let stop = config::StopStep { signal: 15, grace: Duration::from_secs(10) };
    Program {
        name: name.clone(),
        group,
        replicas: None,
        spawn: config::Spawn {
            argv: vec!["(no longer configured)".to_owned()],
            user: None,
            directory: Some(PathBuf::from("/")),
            umask: 0o022,
            inherit_environment: false,
            environment: BTreeMap::new(),
            environment_files: Vec::new(),
            nice: None,
            oom_score_adj: 0,
            limits: config::Limits::default(),
            stdin: config::Stdin::Null,
            no_new_privs: false,
            notify: false,
            watchdog: None,
            ready_fd: None,
        },
        lifecycle: config::Lifecycle {
            autostart: false,
            priority: 0,
            requires: Vec::new(),
            wants: Vec::new(),
            after: Vec::new(),
            restart_with: Vec::new(),
            start_period: Duration::ZERO,
            ready: None,
            start_timeout: Duration::from_secs(60),
            watchdog: None,
            restart: config::RestartPolicy::Never,
            success_exit_codes: vec![0],
            permanent_exit_codes: Vec::new(),
            backoff: config::Backoff {
                initial: delay,
                max: delay,
                factor: 1.0,
                jitter: 0.0,
                reset_after: delay,
            },
            breaker: config::Breaker { failures: 0, window: delay, open: delay, max_open: delay },
            stop: config::Stop { steps: vec![stop] },
            reload_signal: None,
        },
        logs: config::Logs {
            sink: config::Sink::File,
            merge_stderr: true,
            max_size_bytes: 10 << 20,
            max_age: None,
            keep: 10,
            max_total_bytes: None,
            compress: config::Compression::None,
            full_disk_block: Duration::from_secs(30),
        },
        watch: None,
        checks: Vec::new(),
        impact: config::Impact::Normal,
        stale_files: Vec::new(),
    }
}
