//! A small world for applies: programs that run or fail as their version says, an engine that
//! writes down before it does, and a brain that may die before each of its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mendd::config::{Program, Source};
use mendd::core::{
    Action, Actor, Apply, ApplyOrder, ApplyStep, Command, Event, Exit, Found, FoundRun, Mix,
    Programs, Restore, Supervisor,
};
use mendd::name::{ProcessName, RunId};
use mendd::store::decisions;
use mendd::store::sources::{Active, decode_active, encode_active};
use mendd::time::{Instant, Wall};

const MILLISECOND: Duration = Duration::from_millis(1);

/// The brain has died.
#[derive(Debug)]
pub(crate) struct Died;

#[derive(Debug)]
struct Run {
    process: ProcessName,
    /// What it was spawned as.
    version: String,
    exit: Option<Exit>,
    told_gone: bool,
}

/// What happens by itself: to a run, or a report that is lost with the brain.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Report(Event),
    Die(RunId, Exit),
}

/// What became of the apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Applied,
    Kept,
    RolledBack { trouble: Option<String> },
}

pub(crate) struct ApplyWorld {
    now: Instant,
    old: Programs,
    new: Programs,
    runs: BTreeMap<RunId, Run>,
    fates: Vec<(Instant, Fate)>,
    /// What is written down.
    record: BTreeMap<ProcessName, Vec<u8>>,
    active: Vec<u8>,
    next_run: RunId,
    /// The living brain.
    core: Supervisor,
    apply: Option<Apply>,
    mix: Mix,
    replaced: BTreeMap<ProcessName, RunId>,
    /// Steps until the brain dies.
    pub(crate) fuel: Option<usize>,
    pub(crate) steps: usize,
    pub(crate) end: Option<End>,
    /// Processes that were spawned, in order, with their versions.
    pub(crate) spawned: Vec<(ProcessName, String)>,
}

fn texts(name: &str) -> Vec<Source> {
    vec![Source { path: "/mend.toml".into(), text: name.to_owned() }]
}

pub(crate) fn actor() -> Actor {
    Actor { uid: Some(0), name: "root".to_owned(), reason: None, at: Wall(0) }
}

impl ApplyWorld {
    /// Everything of the old configuration runs.
    pub(crate) fn new(old: &[Program], new: &[Program]) -> Self {
        let programs = |list: &[Program]| -> Programs {
            list.iter().map(|p| (p.name.clone(), Arc::new(p.clone()))).collect()
        };
        let (old, new) = (programs(old), programs(new));
        let active = Active { sources: texts("old"), ..Active::default() };
        let mut world = Self {
            now: Instant::from_nanos(1_000_000_000_000),
            runs: BTreeMap::new(),
            fates: Vec::new(),
            record: BTreeMap::new(),
            active: encode_active(&active),
            next_run: RunId(1),
            core: Supervisor::new(1),
            apply: None,
            mix: Mix::whole(old.clone()),
            replaced: BTreeMap::new(),
            fuel: None,
            steps: 0,
            end: None,
            spawned: Vec::new(),
            old,
            new,
        };
        let all = world.old.values().cloned().collect();
        world.tell(Event::Configure(all)).expect("nothing dies yet");
        world.go_on_for(Duration::from_secs(30)).expect("nothing dies yet");
        world.spawned.clear();
        world
    }

    pub(crate) fn stop(&mut self, process: &str) {
        let processes = vec![process.parse().expect("a name")];
        let command = Command::Stop { processes, by: actor() };
        self.tell(Event::Operator(command)).expect("nothing dies yet");
        self.go_on_for(Duration::from_secs(30)).expect("nothing dies yet");
    }

    /// Begins the apply and plays it to its end, over one death of the brain if there is fuel.
    pub(crate) fn play(&mut self, roll_back: bool, then: Option<usize>) {
        let mut alive = self.begin(roll_back);
        for fuel in [then, None] {
            if alive.is_ok() {
                alive = self.go_on_for(Duration::from_secs(600));
            }
            if alive.is_ok() {
                return;
            }
            self.fuel = fuel;
            alive = self.come_back();
        }
        alive.expect("the last brain lives");
        self.go_on_for(Duration::from_secs(600)).expect("the last brain lives");
    }

    fn begin(&mut self, roll_back: bool) -> Result<(), Died> {
        self.tick()?;
        let patience = Duration::from_secs(60);
        let order = ApplyOrder { generation: 2, by: actor(), patience, roll_back };
        let (old, new) = (self.old.clone(), self.new.clone());
        let (apply, steps) = Apply::begin(self.now, old, new, order, &self.core);
        self.apply = Some(apply);
        self.take(steps)?;
        self.look()
    }

    /// What is written down before anything is done, and what is done, costs a step.
    fn tick(&mut self) -> Result<(), Died> {
        self.steps += 1;
        match &mut self.fuel {
            Some(0) => Err(Died),
            Some(fuel) => {
                *fuel -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn look(&mut self) -> Result<(), Died> {
        while let Some(apply) = &mut self.apply {
            let steps = apply.look(self.now, &self.core, &BTreeSet::new());
            if steps.is_empty() {
                break;
            }
            self.take(steps)?;
        }
        Ok(())
    }

    fn take(&mut self, steps: Vec<ApplyStep>) -> Result<(), Died> {
        for step in steps {
            self.tick()?;
            let progress = self.apply.as_ref().map(|apply| apply.progress().clone());
            match step {
                ApplyStep::Say(_) => {}
                ApplyStep::Record => {
                    let apply = progress.map(|progress| (texts("new"), progress));
                    let replaced = self.replaced.clone();
                    self.active = encode_active(&Active { sources: texts("old"), replaced, apply });
                }
                ApplyStep::Configure(mix) => {
                    self.mix = mix.clone();
                    self.core.remember_goals(progress.expect("it is under way").goals);
                    self.tell(Event::ConfigureMix(mix))?;
                }
                ApplyStep::Applied => self.finish("new", End::Applied)?,
                ApplyStep::Kept { .. } => self.finish("new", End::Kept)?,
                ApplyStep::RolledBack { trouble, .. } => {
                    self.finish("old", End::RolledBack { trouble })?;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, name: &str, end: End) -> Result<(), Died> {
        let apply = self.apply.take().expect("it is under way");
        self.replaced.extend(apply.progress().replaced.clone());
        let replaced = self.replaced.clone();
        self.active = encode_active(&Active { sources: texts(name), replaced, apply: None });
        self.end = Some(end);
        self.tick()
    }

    fn tell(&mut self, event: Event) -> Result<(), Died> {
        let actions = self.core.on_event(self.now, event);
        self.perform(actions)
    }

    fn perform(&mut self, actions: Vec<Action>) -> Result<(), Died> {
        self.next_run = self.core.next_run();
        for action in &actions {
            match action {
                Action::Announce(change) => self.write_down(&change.process.clone())?,
                Action::Persist { process } => self.write_down(process)?,
                Action::Forget { process } => {
                    self.tick()?;
                    self.record.remove(process);
                }
                Action::Spawn { .. } | Action::Signal { .. } | Action::KillTree { .. } => {}
                Action::Sweep { .. } | Action::ShutdownComplete => {}
            }
        }
        for action in actions {
            self.tick()?;
            self.execute(action);
        }
        Ok(())
    }

    fn write_down(&mut self, process: &ProcessName) -> Result<(), Died> {
        self.tick()?;
        if let Some(snapshot) = self.core.snapshot(process) {
            let record = decisions::encode(snapshot).expect("a snapshot can be written");
            self.record.insert(process.clone(), record);
        }
        Ok(())
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::Spawn { process, run } => {
                let twin = self.runs.values().find(|it| it.process == process && !it.told_gone);
                assert!(twin.is_none(), "two runs of {process}: {twin:?}");
                let program = self.mix.of(&process).expect("it is declared");
                let version = program.spawn.argv[0].clone();
                if version.contains("bad") {
                    self.later(500, Fate::Die(run, Exit::Code(1)));
                }
                self.spawned.push((process.clone(), version.clone()));
                self.runs.insert(run, Run { process, version, exit: None, told_gone: false });
                self.later(10, Fate::Report(Event::Spawned { run, pid: 77 }));
            }
            Action::Signal { run, signal, .. } => {
                self.later(300, Fate::Die(run, Exit::Signal { signal, core_dumped: false }));
            }
            Action::KillTree { run } => {
                self.later(5, Fate::Die(run, Exit::Signal { signal: 9, core_dumped: false }));
            }
            Action::Sweep { run, .. } => self.later(20, Fate::Report(Event::Gone { run })),
            Action::Announce(_) | Action::Persist { .. } | Action::Forget { .. } => {}
            Action::ShutdownComplete => {}
        }
    }

    fn later(&mut self, millis: u64, fate: Fate) {
        let at = self.now + Duration::from_millis(millis);
        self.fates.push((at, fate));
        self.fates.sort_by_key(|(at, _)| *at);
    }

    /// Plays until nothing happens any more, or this long.
    fn go_on_for(&mut self, time: Duration) -> Result<(), Died> {
        let until = self.now + time;
        loop {
            let of_apply = self.apply.as_ref().map(Apply::next_deadline);
            let of_fate = self.fates.first().map(|(at, _)| *at);
            let times = [of_fate, self.core.next_deadline(), of_apply];
            let next = times.into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= until) else { return Ok(()) };
            self.now = self.now.max(next);
            if of_fate.is_some_and(|at| at <= self.now) {
                let (_, fate) = self.fates.remove(0);
                self.happen(fate)?;
            } else if self.core.next_deadline().is_some_and(|at| at <= self.now) {
                self.tick()?;
                self.tell(Event::DeadlineReached)?;
            } else {
                self.now = self.now + MILLISECOND;
            }
            self.look()?;
        }
    }

    fn happen(&mut self, fate: Fate) -> Result<(), Died> {
        match fate {
            Fate::Report(event) => {
                if let Event::Gone { run } = &event
                    && let Some(run) = self.runs.get_mut(run)
                {
                    run.told_gone = true;
                }
                self.tick()?;
                self.tell(event)
            }
            Fate::Die(run, exit) => {
                let Some(dead) = self.runs.get_mut(&run).filter(|it| it.exit.is_none()) else {
                    return Ok(());
                };
                dead.exit = Some(exit);
                self.later(10, Fate::Report(Event::Exited { run, exit }));
                Ok(())
            }
        }
    }

    /// The next brain takes over from what is written down and what is alive.
    fn come_back(&mut self) -> Result<(), Died> {
        self.fates.retain(|(_, fate)| matches!(fate, Fate::Die(..)));
        self.runs.retain(|_, run| !run.told_gone);
        let active = decode_active(&self.active).expect("it was written whole");
        let programs = |texts: &[Source]| match texts[0].text.as_str() {
            "old" => self.old.clone(),
            _ => self.new.clone(),
        };
        let current = programs(&active.sources);
        self.replaced = active.replaced;
        let mut replaced = self.replaced.clone();
        self.apply = active.apply.map(|(texts, progress)| {
            replaced.extend(progress.replaced.clone());
            Apply::resume(current.clone(), programs(&texts), progress)
        });
        self.mix =
            self.apply.as_ref().map_or_else(|| Mix::whole(current), |apply| apply.mix().clone());
        let found = |(run, it): (&RunId, &Run)| {
            let found = match it.exit {
                None => Found::Alive { pid: 77 },
                Some(exit) => Found::Ended { exit },
            };
            FoundRun { run: *run, process: it.process.clone(), found }
        };
        let runs: Vec<FoundRun> = self.runs.iter().map(found).collect();
        let is_stale = |run: &&FoundRun| replaced.get(&run.process).is_some_and(|it| run.run < *it);
        let restore = Restore {
            programs: self.mix.programs.values().cloned().collect(),
            except: self.mix.except.clone(),
            snapshots: self
                .record
                .values()
                .map(|json| decisions::decode(json).expect("it was encoded"))
                .collect(),
            spawn_changed: runs.iter().filter(is_stale).map(|it| it.process.clone()).collect(),
            runs,
            next_run: self.next_run,
            shutdown: None,
        };
        self.core = Supervisor::new(2);
        if let Some(apply) = &self.apply {
            self.core.remember_goals(apply.progress().goals.clone());
        }
        let actions = self.core.restore(self.now, restore);
        self.perform(actions)?;
        self.look()
    }

    /// What runs, each process with its version.
    pub(crate) fn alive(&self) -> BTreeSet<(String, String)> {
        let alive = self.runs.values().filter(|run| run.exit.is_none());
        alive.map(|run| (run.process.to_string(), run.version.clone())).collect()
    }
}
