//! One random life: the core, the kernel, the operator, and the death of the brain.
//!
//! After each event it is asserted that: no run starts before the one before is known to be
//! gone; what an operator stopped does not start; nothing starts before what it requires is
//! ready; in an orderly end nothing stops before what depends on it; no deadline that was reached
//! is named again; what is on record is what the core knows; what is disabled does not start
//! unless somebody started it since the boot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use mendd::config::{Program, Ready};
use mendd::core::{
    Action, Actor, Command, Event, Goal, Mending, Restore, Snapshot, StateCode, Supervisor, Switch,
};
use mendd::name::{ProcessName, ProgramName, RunId};
use mendd::store::decisions;
use mendd::store::goals::SetGoal;
use mendd::time::{Instant, Wall};

use crate::kernel::{Kernel, Main};
use crate::programs;

pub(crate) struct World {
    core: Supervisor,
    kernel: Kernel,
    now: Instant,
    rng: Rng,
    programs: Vec<Arc<Program>>,
    /// What the engine has written down.
    record: BTreeMap<ProcessName, Vec<u8>>,
    /// What the operator stopped and nobody started since.
    stopped: BTreeSet<ProcessName>,
    /// What the engine has written down of the goals and the switches.
    goals: Vec<SetGoal>,
    switches: BTreeMap<ProgramName, Switch>,
    /// What was up when it was disabled, or was started by hand, since the boot.
    by_hand: BTreeSet<ProcessName>,
    shutdown_completions: u32,
    /// The shortest start period that was configured during the life of a program.
    periods: BTreeMap<ProgramName, Duration>,
    /// A line for each action, times as offsets from the start.
    pub(crate) trace: String,
}

fn actor() -> Actor {
    Actor { uid: Some(0), name: "root".to_owned(), reason: None, at: Wall(0) }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, programs::configuration)
    }

    /// A life of other programs.
    pub(crate) fn with(seed: u64, programs: fn(&mut Rng) -> Vec<Arc<Program>>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let programs = programs(&mut rng);
        let mut world = Self {
            core: Supervisor::new(rng.u64(..)),
            kernel: Kernel::new(rng.u64(..)),
            now: Instant::from_nanos(1_000_000_000_000),
            rng,
            programs: programs.clone(),
            record: BTreeMap::new(),
            stopped: BTreeSet::new(),
            goals: Vec::new(),
            switches: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            shutdown_completions: 0,
            periods: BTreeMap::new(),
            trace: String::new(),
        };
        world.send(Event::Configure(programs));
        world
    }

    /// Does one random thing.
    pub(crate) fn step(&mut self) {
        match self.rng.u8(..100) {
            0..70 => self.go_on(Duration::from_secs(3600)),
            70..75 => {
                let jump = Duration::from_millis(self.rng.u64(..20_000));
                self.now = self.now + jump;
            }
            75..88 => self.operate(),
            88..92 => self.reconfigure(),
            92..95 => self.lie(),
            95..97 => self.die(),
            97 => self.reboot(),
            _ => {
                let whole = self.rng.bool();
                if whole {
                    self.die();
                } else {
                    self.operate();
                }
            }
        }
    }

    /// Goes to the next time at which something happens, at most `limit` away.
    fn go_on(&mut self, limit: Duration) {
        let times = [self.kernel.next_time(), self.core.next_deadline(), Some(self.now + limit)];
        let next = times.into_iter().flatten().min().expect("there is a limit");
        self.now = self.now.max(next);
        if let Some(heard) = self.kernel.happen(self.now) {
            if let Some(event) = heard {
                self.send(event);
            }
        } else if self.core.next_deadline().is_some_and(|at| at <= self.now) {
            let survived = self.send(Event::DeadlineReached);
            let next = self.core.next_deadline();
            assert!(
                !survived || next.is_none_or(|at| at > self.now),
                "a deadline that was reached is named again"
            );
        }
    }

    fn operate(&mut self) {
        let all = programs::processes(&self.programs);
        let processes: Vec<ProcessName> =
            all.into_iter().filter(|_| self.rng.u8(..3) == 0).collect();
        let by = actor();
        let command = match self.rng.u8(..16) {
            0..5 => Command::Start { processes, by },
            5..7 => Command::Stop { processes, by },
            7..9 => Command::Restart { processes, by },
            9 => Command::Signal { processes, signal: 1, by },
            10..12 => {
                let programs = self.some_program().into_iter().collect();
                Command::Switch { programs, enabled: self.rng.bool(), by }
            }
            12..15 => return self.mend(processes),
            _ => {
                let Some(program) = self.some_program() else { return };
                let cause = "`/a` changed".to_owned();
                self.send(Event::FilesChanged { program, cause });
                return;
            }
        };
        self.send(Event::Operator(command));
    }

    /// A remedy does something to processes.
    fn mend(&mut self, mut processes: Vec<ProcessName>) {
        let all = [Mending::Replace, Mending::Shed, Mending::Unshed, Mending::Disengage];
        let what = match self.rng.u8(..5) {
            // A standby that was stopped by hand may be started again.
            4 => {
                processes.retain(|process| !self.stopped.contains(process));
                Mending::Engage
            }
            number => all[usize::from(number)],
        };
        let by = Actor::mend("incident 1".into(), Wall(0));
        self.send(Event::Mend { what, processes, by });
    }

    fn some_program(&mut self) -> Option<ProgramName> {
        let count = self.programs.len();
        (count > 0).then(|| self.programs[self.rng.usize(..count)].name.clone())
    }

    fn reconfigure(&mut self) {
        self.programs = self.changed_programs();
        self.send(Event::Configure(self.programs.clone()));
    }

    /// Takes most programs as they are and some from another configuration. An edge to a
    /// program that is missing is cut, as the checked configuration has none.
    fn changed_programs(&mut self) -> Vec<Arc<Program>> {
        let other = programs::configuration(&mut self.rng);
        let mut merged: BTreeMap<ProgramName, Arc<Program>> = BTreeMap::new();
        for program in &self.programs {
            if self.rng.u8(..8) > 0 {
                merged.insert(program.name.clone(), program.clone());
            }
        }
        for program in other {
            if self.rng.u8(..3) == 0 {
                merged.insert(program.name.clone(), program);
            }
        }
        let names: BTreeSet<ProgramName> = merged.keys().cloned().collect();
        let cut = |program: Arc<Program>| {
            let mut program = Arc::unwrap_or_clone(program);
            program.lifecycle.requires.retain(|name| names.contains(name));
            program.lifecycle.wants.retain(|name| names.contains(name));
            program.lifecycle.after.retain(|name| names.contains(name));
            program.lifecycle.restart_with.retain(|name| names.contains(name));
            Arc::new(program)
        };
        merged.into_values().map(cut).collect()
    }

    /// Reports something about a run that is unknown or over.
    fn lie(&mut self) {
        let run = RunId(self.core.next_run().0 + self.rng.u64(..5));
        let event = match self.rng.u8(..5) {
            3 => Event::Ready { run },
            4 => Event::Told { run, word: mendd::core::Word::Hung },
            0 => Event::Spawned { run, pid: 5 },
            1 => Event::Exited { run, exit: mendd::core::Exit::Code(0) },
            _ => Event::Gone { run },
        };
        assert_eq!(self.core.on_event(self.now, event), [], "an unknown run had an effect");
    }

    /// Hands an event to the core and does what it says. Returns whether the brain survived.
    fn send(&mut self, event: Event) -> bool {
        if let Event::Operator(
            Command::Start { processes, .. } | Command::Restart { processes, .. },
        ) = &event
        {
            self.forget_stops(processes);
            self.by_hand.extend(processes.iter().cloned());
        }
        if let Event::Operator(Command::Switch { enabled: false, programs, .. }) = &event {
            let up = self.core.statuses().filter(|status| status.goal == Goal::Up);
            let hit = up.filter(|status| programs.contains(status.process.program()));
            self.by_hand.extend(hit.map(|status| status.process));
        }
        if let Event::Operator(Command::Switch { enabled: true, programs, .. }) = &event {
            // The newer word holds; a dependant may take it along from now on.
            self.stopped.retain(|process| !programs.contains(process.program()));
        }
        self.note_periods();
        let actions = self.core.on_event(self.now, event.clone());
        // The brain may die between any two actions.
        let dies_after = (!self.kernel.calm && self.rng.u8(..100) == 0)
            .then(|| self.rng.usize(..=actions.len()));
        let count = dies_after.unwrap_or(actions.len());
        for action in actions.into_iter().take(count) {
            self.execute(action);
        }
        if dies_after.is_some() {
            self.die();
            return false;
        }
        if let Event::Operator(Command::Stop { processes, .. }) = event {
            self.stopped.extend(processes);
        }
        self.goals = self.core.explicit_goals();
        self.switches = self.core.switches().clone();
        self.check_record();
        true
    }

    /// A start takes with it what is required and wanted.
    fn forget_stops(&mut self, processes: &[ProcessName]) {
        let mut queue: Vec<ProgramName> = processes.iter().map(|p| p.program().clone()).collect();
        let mut needed = BTreeSet::new();
        while let Some(name) = queue.pop() {
            if let Some(program) = self.programs.iter().find(|program| program.name == name) {
                let lifecycle = &program.lifecycle;
                for name in lifecycle.requires.iter().chain(&lifecycle.wants) {
                    queue.push(name.clone());
                    needed.insert(name.clone());
                }
            }
        }
        self.stopped.retain(|name| !processes.contains(name) && !needed.contains(name.program()));
    }

    fn execute(&mut self, action: Action) {
        let offset = self.now.since(Instant::from_nanos(1_000_000_000_000));
        writeln!(self.trace, "{offset:?} {action:?}").expect("a string takes everything");
        match action {
            Action::Spawn { process, run } => {
                self.check_spawn(&process);
                let status = self.core.status(&process).expect("it was just checked");
                self.kernel.spawn(self.now, process, run, &status.program.lifecycle);
            }
            Action::Signal { run, signal, group } => {
                self.check_stop(run);
                self.kernel.signal(self.now, run, signal, group);
            }
            Action::KillTree { run } => self.kernel.kill_tree(self.now, run),
            Action::Sweep { run, signal } => self.kernel.sweep(self.now, run, signal),
            Action::Announce(change) => self.write_down(change.process),
            Action::Persist { process } => self.write_down(process),
            Action::Forget { process } => {
                assert_eq!(self.kernel.may_live(&process), None, "{process} was forgotten alive");
                self.record.remove(&process);
                self.stopped.remove(&process);
                self.by_hand.remove(&process);
            }
            Action::ShutdownComplete => self.shutdown_completions += 1,
        }
    }

    fn write_down(&mut self, process: ProcessName) {
        if let Some(snapshot) = self.core.snapshot(&process) {
            let record = decisions::encode(snapshot).expect("a snapshot can be written");
            self.record.insert(process, record);
        }
    }

    fn check_spawn(&self, process: &ProcessName) {
        assert_eq!(self.kernel.may_live(process), None, "two runs of {process}");
        assert!(!self.stopped.contains(process), "{process} was stopped, and starts");
        assert!(!self.core.is_shutting_down(), "{process} starts during shutdown");
        let off = self.core.switches().get(process.program()).is_some_and(|s| !s.enabled);
        assert!(!off || self.by_hand.contains(process), "{process} is disabled, and starts");
        let status = self.core.status(process).expect("a process that starts is known");
        assert_eq!(status.goal, Goal::Up, "{process} starts although it should be down");
        for required in &status.program.lifecycle.requires {
            let runs = |name: &ProcessName| {
                let run = self.core.status(name).filter(|s| s.state == StateCode::Running)?.run?;
                let run = self.kernel.runs.get(&run)?;
                let period = self.start_period(required);
                let told = run.told_born && !run.told_exit && run.main != Main::Unborn;
                let ready = run.told_ready || self.now.since(run.born_at) >= period;
                (told && ready).then_some(())
            };
            let any_runs = self.core.processes_of(required).any(|name| runs(name).is_some());
            assert!(any_runs, "{process} starts before `{required}` runs");
        }
    }

    /// In an orderly end, whoever depends on what is being stopped is gone already.
    fn check_stop(&self, run: RunId) {
        if !self.kernel.calm || !self.core.is_shutting_down() {
            return;
        }
        let Some(process) = self.core.process_of_run(run) else { return };
        for program in &self.programs {
            let lifecycle = &program.lifecycle;
            let edges =
                [&lifecycle.requires, &lifecycle.wants, &lifecycle.after, &lifecycle.restart_with];
            if edges.iter().any(|names| names.contains(process.program())) {
                for dependant in self.core.processes_of(&program.name) {
                    let lives = self.kernel.may_live(dependant);
                    assert_eq!(lives, None, "{process} stops before {dependant} is gone");
                }
            }
        }
    }

    fn start_period(&self, name: &ProgramName) -> Duration {
        self.periods.get(name).copied().unwrap_or_default()
    }

    fn note_periods(&mut self) {
        for program in &self.programs {
            let period = match program.lifecycle.ready {
                None => program.lifecycle.start_period,
                Some(Ready::After(time)) => time,
                // Time alone never makes it ready.
                Some(_) => Duration::MAX,
            };
            let shortest = self.periods.entry(program.name.clone()).or_insert(period);
            *shortest = period.min(*shortest);
        }
    }

    /// Every change that the next brain must know came with an action that records it.
    fn check_record(&mut self) {
        if self.rng.u8(..4) > 0 {
            return;
        }
        for status in self.core.statuses() {
            let name = status.process;
            let known = self.core.snapshot(&name).expect("it has a status");
            let written = self.record.get(&name).unwrap_or_else(|| panic!("{name} has no record"));
            assert_eq!(decisions::decode(written).expect("it was encoded"), *known, "{name}");
        }
    }

    /// The brain dies and the next one takes over.
    fn die(&mut self) {
        let runs = self.kernel.lose_brain(self.now);
        if self.rng.bool() {
            self.now = self.now + Duration::from_millis(self.rng.u64(..10_000));
        }
        let old = self.programs.clone();
        if self.rng.u8(..4) == 0 {
            self.programs = self.changed_programs();
        }
        let is_changed = |program: &Arc<Program>| {
            old.iter().any(|old| old.name == program.name && old.spawn != program.spawn)
        };
        let restore = Restore {
            programs: self.programs.clone(),
            except: BTreeMap::new(),
            snapshots: self
                .record
                .values()
                .map(|json| decisions::decode(json).expect("it was encoded"))
                .collect::<Vec<Snapshot>>(),
            runs,
            next_run: self.core.next_run(),
            spawn_changed: self
                .programs
                .iter()
                .filter(|program| is_changed(program))
                .flat_map(|program| programs::processes(std::slice::from_ref(program)))
                .collect(),
            shutdown: None,
        };
        self.note_periods();
        writeln!(self.trace, "the brain dies").expect("a string takes everything");
        self.core = Supervisor::new(self.rng.u64(..));
        self.core.remember_switches(self.switches.clone());
        self.core.remember_goals_of_before(self.goals.clone());
        for action in self.core.restore(self.now, restore) {
            self.execute(action);
        }
        self.check_record();
    }

    /// Nothing fails from the beginning.
    pub(crate) fn be_calm(&mut self) {
        self.kernel.calm = true;
    }

    /// The machine starts again: goals and switches are all that is left.
    fn reboot(&mut self) {
        writeln!(self.trace, "the machine starts again").expect("a string takes everything");
        self.kernel = Kernel::new(self.rng.u64(..));
        self.record.clear();
        self.by_hand.clear();
        self.core = Supervisor::new(self.rng.u64(..));
        self.core.remember_switches(self.switches.clone());
        self.core.remember_goals_of_before(self.goals.clone());
        let configured = programs::processes(&self.programs);
        self.stopped.retain(|process| configured.contains(process));
        self.send(Event::Configure(self.programs.clone()));
    }

    /// From now on nothing fails, dies or lies by itself. What is on its way still arrives.
    pub(crate) fn calm_down(&mut self) {
        self.be_calm();
        let until = self.now + Duration::from_secs(60);
        while self.now < until {
            self.go_on(Duration::from_secs(60));
        }
    }

    pub(crate) fn start_all(&mut self) {
        let processes = programs::processes(&self.programs);
        self.send(Event::Operator(Command::Start { processes, by: actor() }));
    }

    pub(crate) fn stop_all(&mut self) {
        let processes = programs::processes(&self.programs);
        self.send(Event::Operator(Command::Stop { processes, by: actor() }));
    }

    pub(crate) fn shut_down(&mut self) {
        self.send(Event::Operator(Command::Shutdown { by: actor() }));
    }

    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, limit: Duration, reached: fn(&Self) -> bool) {
        let until = self.now + limit;
        for _ in 0..20_000 {
            if reached(self) {
                return;
            }
            if self.now >= until {
                break;
            }
            self.go_on(limit);
        }
        let states: Vec<String> = self
            .core
            .statuses()
            .map(|s| format!("{} {} ({})", s.process, s.state.name(), s.reason))
            .collect();
        panic!("waited {limit:?} for: {what}; last: {states:#?}");
    }

    pub(crate) fn is_all_running(&self) -> bool {
        let names = programs::processes(&self.programs);
        let is_running =
            |name| self.core.status(name).is_some_and(|status| status.state == StateCode::Running);
        names.iter().all(is_running) && self.core.statuses().count() == names.len()
    }

    pub(crate) fn is_all_gone(&self) -> bool {
        self.kernel.is_empty() && self.core.statuses().all(|status| status.run.is_none())
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        assert!(self.shutdown_completions <= 1, "shutdown was complete twice");
        self.shutdown_completions == 1
    }
}
