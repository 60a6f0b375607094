//! The bench of the core's unit tests: owns the time, answers for the engine, names programs.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{Breaker, Program, RestartPolicy, StopStep};
use crate::name::{ProcessName, RunId};
use crate::time::{Instant, Wall};

pub(crate) const GRACE: Duration = Duration::from_secs(10);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const TERM: i32 = 15;
pub(crate) const KILL: i32 = 9;

/// Declares a program that starts at once, restarts always and stops by SIGTERM.
pub(crate) fn program(name: &str) -> Program {
    let mut program = restore::placeholder(&name.parse().unwrap());
    let lifecycle = &mut program.lifecycle;
    lifecycle.autostart = true;
    lifecycle.restart = RestartPolicy::Always;
    lifecycle.backoff = crate::config::Backoff {
        initial: SECOND,
        max: 60 * SECOND,
        factor: 2.0,
        jitter: 0.0,
        reset_after: 60 * SECOND,
    };
    lifecycle.breaker =
        Breaker { failures: 5, window: 120 * SECOND, open: 300 * SECOND, max_open: 3600 * SECOND };
    lifecycle.stop.steps = vec![StopStep { signal: TERM, grace: GRACE }];
    program
}

/// The same with one change of its lifecycle.
pub(crate) fn program_with(name: &str, change: impl FnOnce(&mut Program)) -> Program {
    let mut program = program(name);
    change(&mut program);
    program
}

pub(crate) fn requires(name: &str, required: &str) -> Program {
    program_with(name, |p| p.lifecycle.requires = vec![required.parse().unwrap()])
}

pub(crate) fn actor() -> Actor {
    Actor { uid: Some(1000), name: "alice".into(), reason: None, at: Wall(0) }
}

pub(crate) fn name(text: &str) -> ProcessName {
    text.parse().unwrap()
}

/// A supervisor and its clock. Announcements go to `told`, everything else is returned.
pub(crate) struct Bench {
    pub(crate) core: Supervisor,
    pub(crate) now: Instant,
    pub(crate) told: Vec<Change>,
    pub(crate) programs: Vec<Arc<Program>>,
}

impl Bench {
    /// Configures these programs; nothing has answered yet.
    pub(crate) fn configured(programs: Vec<Program>) -> Self {
        let mut bench = Self {
            core: Supervisor::new(1),
            now: Instant::default() + 1000 * SECOND,
            told: Vec::new(),
            programs: Vec::new(),
        };
        bench.configure(programs);
        bench
    }

    /// Configures these programs and spawns all that the core asks for.
    pub(crate) fn running(programs: Vec<Program>) -> Self {
        let mut bench = Self::configured(programs);
        bench.spawn_all();
        bench
    }

    pub(crate) fn configure(&mut self, programs: Vec<Program>) -> Vec<Action> {
        self.programs = programs.into_iter().map(Arc::new).collect();
        self.send(Event::Configure(self.programs.clone()))
    }

    pub(crate) fn send(&mut self, event: Event) -> Vec<Action> {
        let actions = self.core.on_event(self.now, event);
        self.sift(actions)
    }

    pub(crate) fn sift(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let mut rest = Vec::new();
        for action in actions {
            match action {
                Action::Announce(change) => self.told.push(change),
                Action::Persist { .. } => {}
                other @ (Action::Spawn { .. }
                | Action::Signal { .. }
                | Action::KillTree { .. }
                | Action::Sweep { .. }
                | Action::Forget { .. }
                | Action::ShutdownComplete) => rest.push(other),
            }
        }
        rest
    }

    pub(crate) fn advance(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        if self.core.next_deadline().is_some_and(|at| at <= self.now) {
            return self.send(Event::DeadlineReached);
        }
        Vec::new()
    }

    /// Answers `Spawned` for every process that is being spawned, until none is.
    pub(crate) fn spawn_all(&mut self) {
        loop {
            let waiting: Vec<RunId> = self
                .core
                .statuses()
                .filter(|status| status.state == StateCode::Starting && status.pid.is_none())
                .filter_map(|status| status.run)
                .collect();
            if waiting.is_empty() {
                return;
            }
            for run in waiting {
                self.spawned(run);
            }
        }
    }

    pub(crate) fn spawned(&mut self, run: RunId) -> Vec<Action> {
        self.send(Event::Spawned { run, pid: u32::try_from(run.0).unwrap() + 100 })
    }

    pub(crate) fn exited(&mut self, run: RunId, code: i32) -> Vec<Action> {
        self.send(Event::Exited { run, exit: Exit::Code(code) })
    }

    pub(crate) fn gone(&mut self, run: RunId) -> Vec<Action> {
        self.send(Event::Gone { run })
    }

    /// Lets the run end with this code and leave nothing behind.
    pub(crate) fn dies(&mut self, run: RunId, code: i32) -> Vec<Action> {
        let mut actions = self.exited(run, code);
        actions.extend(self.gone(run));
        actions
    }

    /// The brain dies; the next one finds every run that lives alive, and all others never born.
    pub(crate) fn die_and_restore(&mut self) -> Vec<Action> {
        let names: Vec<ProcessName> = self.core.statuses().map(|status| status.process).collect();
        let runs = self.core.statuses().filter_map(|status| {
            let pid = u32::try_from(status.run?.0).unwrap() + 100;
            Some(FoundRun {
                run: status.run?,
                process: status.process,
                found: Found::Alive { pid },
            })
        });
        let restore = Restore {
            programs: self.programs.clone(),
            except: std::collections::BTreeMap::new(),
            snapshots: names.iter().filter_map(|name| self.core.snapshot(name)).cloned().collect(),
            runs: runs.collect(),
            next_run: self.core.next_run(),
            spawn_changed: std::collections::BTreeSet::new(),
            shutdown: None,
        };
        self.core = Supervisor::new(2);
        let actions = self.core.restore(self.now, restore);
        self.sift(actions)
    }

    pub(crate) fn start(&mut self, process: &str) -> Vec<Action> {
        let processes = vec![name(process)];
        self.send(Event::Operator(Command::Start { processes, by: actor() }))
    }

    pub(crate) fn stop(&mut self, process: &str) -> Vec<Action> {
        let processes = vec![name(process)];
        self.send(Event::Operator(Command::Stop { processes, by: actor() }))
    }

    pub(crate) fn restart(&mut self, process: &str) -> Vec<Action> {
        let processes = vec![name(process)];
        self.send(Event::Operator(Command::Restart { processes, by: actor() }))
    }

    pub(crate) fn shutdown(&mut self) -> Vec<Action> {
        self.send(Event::Operator(Command::Shutdown { by: actor() }))
    }

    pub(crate) fn status(&self, process: &str) -> ProcessStatus {
        self.core.status(&name(process)).unwrap()
    }

    pub(crate) fn state(&self, process: &str) -> StateCode {
        self.status(process).state
    }

    pub(crate) fn run(&self, process: &str) -> RunId {
        self.status(process).run.unwrap()
    }

    pub(crate) fn spawn_action(&self, process: &str) -> Action {
        Action::Spawn { process: name(process), run: self.run(process) }
    }
}

pub(crate) fn signal(run: RunId, signal: i32) -> Action {
    Action::Signal { run, signal, group: true }
}

pub(crate) fn sweep(run: RunId, signal: i32) -> Action {
    Action::Sweep { run, signal }
}
