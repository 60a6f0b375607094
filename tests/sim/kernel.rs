//! The simulated kernel and engine's hands: runs that ignore signals, leave others behind, die
//! late of SIGKILL; reports that come late, twice, or get lost with the brain.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use mendd::config::{Lifecycle, Ready};
use mendd::core::{Event, Exit, Found, FoundRun, SpawnFailure, Word};
use mendd::name::{ProcessName, RunId};
use mendd::time::Instant;

pub(crate) const SIGKILL: i32 = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Main {
    /// The spawn fails; the report is on its way.
    Unborn,
    Alive,
    Ended(Exit),
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) process: ProcessName,
    pub(crate) main: Main,
    pub(crate) leftovers: bool,
    pub(crate) told_gone: bool,
    pub(crate) born_at: Instant,
    /// Whether a brain was told of the birth.
    pub(crate) told_born: bool,
    pub(crate) told_exit: bool,
    /// Whether a brain was told that it is ready.
    pub(crate) told_ready: bool,
    /// When it becomes ready, if anything shows that.
    ready_at: Option<Instant>,
    ignores_signals: bool,
    leftovers_ignore_signals: bool,
    watched: bool,
    gone_on_its_way: bool,
}

/// Something that happens by itself at a time.
#[derive(Debug)]
enum Fate {
    Report(Event),
    Die {
        run: RunId,
        exit: Exit,
        natural: bool,
    },
    LeftoversDie {
        run: RunId,
    },
    /// A run says that it is alive, and will again after this time.
    Feed {
        run: RunId,
        every: Duration,
    },
    /// A run says something else.
    Say {
        run: RunId,
        word: Word,
    },
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) runs: BTreeMap<RunId, Run>,
    fates: BTreeMap<(Instant, u64), Fate>,
    sequence: u64,
    /// Nothing fails or dies by itself any more.
    pub(crate) calm: bool,
    rng: Rng,
}

impl Kernel {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { runs: BTreeMap::new(), fates: BTreeMap::new(), sequence: 0, calm: false, rng }
    }

    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.fates.keys().next().map(|(at, _)| *at)
    }

    fn later(&mut self, at: Instant, fate: Fate) {
        self.sequence += 1;
        self.fates.insert((at, self.sequence), fate);
    }

    fn delay(&mut self, limit_ms: u64) -> Duration {
        Duration::from_micros(self.rng.u64(1..limit_ms * 1000))
    }

    /// Lets the next thing happen that is due at `now`; returns what the brain hears of it.
    pub(crate) fn happen(&mut self, now: Instant) -> Option<Option<Event>> {
        let key = *self.fates.keys().next().filter(|(at, _)| *at <= now)?;
        let fate = self.fates.remove(&key).expect("the key was just seen");
        Some(match fate {
            Fate::Report(event) => self.report(now, event),
            Fate::Die { run, exit, natural } => {
                if !(natural && self.calm) {
                    self.die(now, run, exit);
                }
                None
            }
            Fate::LeftoversDie { run } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.leftovers = false;
                }
                self.check_gone(now, run);
                None
            }
            Fate::Feed { run, every } => self.is_alive(run).then(|| {
                self.later(now + every, Fate::Feed { run, every });
                Event::Told { run, word: Word::Alive }
            }),
            Fate::Say { run, word } => self.is_alive(run).then_some(Event::Told { run, word }),
        })
    }

    fn is_alive(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|run| run.main == Main::Alive && run.told_born)
    }

    fn report(&mut self, now: Instant, event: Event) -> Option<Event> {
        match &event {
            Event::Spawned { run, .. } => {
                self.runs.get_mut(run).filter(|r| !r.told_born)?.told_born = true;
            }
            Event::SpawnFailed { run, .. } => {
                self.runs.remove(run);
            }
            Event::Exited { run, .. } => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.told_exit = true;
                }
            }
            Event::Gone { run } => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.told_gone = true;
                }
            }
            Event::Ready { run } => {
                self.runs.get_mut(run).filter(|run| run.main == Main::Alive)?.told_ready = true;
            }
            Event::Told { .. } => {}
            Event::Configure(_)
            | Event::ConfigureMix(_)
            | Event::Operator(_)
            | Event::FilesChanged { .. }
            | Event::Mend { .. }
            | Event::DeadlineReached => {}
        }
        if !self.calm && self.rng.u8(..8) == 0 {
            let at = now + self.delay(5000);
            if !matches!(event, Event::Spawned { .. }) {
                self.later(at, Fate::Report(event.clone()));
            }
        }
        Some(event)
    }

    pub(crate) fn spawn(
        &mut self,
        now: Instant,
        process: ProcessName,
        id: RunId,
        lifecycle: &Lifecycle,
    ) {
        assert!(!self.runs.contains_key(&id), "run {id} was used twice");
        let fails = !self.calm && self.rng.u8(..8) == 0;
        let run = Run {
            process,
            main: if fails { Main::Unborn } else { Main::Alive },
            leftovers: self.rng.u8(..3) == 0 && !fails,
            told_gone: false,
            born_at: now,
            told_born: false,
            told_exit: false,
            told_ready: false,
            ready_at: None,
            ignores_signals: self.rng.u8(..4) == 0,
            leftovers_ignore_signals: self.rng.bool(),
            watched: false,
            gone_on_its_way: false,
        };
        self.runs.insert(id, run);
        let told_at = now + self.delay(200);
        if fails {
            let transient = self.rng.u8(..3) > 0;
            let failure = SpawnFailure { message: "cannot execute".to_owned(), transient };
            return self.later(told_at, Fate::Report(Event::SpawnFailed { run: id, failure }));
        }
        let pid = u32::try_from(id.0 % 30_000).expect("small") + 2;
        self.later(told_at, Fate::Report(Event::Spawned { run: id, pid }));
        self.live(now, id, lifecycle);
        let life = match self.rng.u8(..4) {
            0 => self.delay(300),
            1 => self.delay(5_000),
            2 => self.delay(100_000),
            _ => self.delay(10_000_000),
        };
        let exit = match self.rng.u8(..5) {
            0 => Exit::Code(0),
            1 => Exit::Code(7),
            2 => Exit::Signal { signal: 11, core_dumped: true },
            3 => Exit::Unknown,
            _ => Exit::Code(1),
        };
        self.later(now + life, Fate::Die { run: id, exit, natural: true });
    }

    /// Decides when a run is ready and what it says meanwhile.
    fn live(&mut self, now: Instant, id: RunId, lifecycle: &Lifecycle) {
        let soon = now + Duration::from_millis(201);
        if matches!(lifecycle.ready, Some(Ready::Notify)) && (self.calm || self.rng.u8(..4) > 0) {
            let limit = if self.calm { 500 } else { 30_000 };
            let at = soon + self.delay(limit);
            if let Some(run) = self.runs.get_mut(&id) {
                run.ready_at = Some(at);
            }
            self.later(at, Fate::Report(Event::Ready { run: id }));
        }
        if let Some(watchdog) = lifecycle.watchdog
            && (self.calm || self.rng.u8(..4) > 0)
        {
            self.later(soon, Fate::Feed { run: id, every: watchdog / 2 });
        }
        for _ in 0..self.rng.u8(..3) {
            let word = match self.rng.u8(..8) {
                0..3 => Word::Look("connection refused".to_owned()),
                3..5 => Word::Status("busy".to_owned()),
                5 => Word::Extend(self.delay(20_000)),
                6 if !self.calm => Word::Watchdog(self.delay(20_000)),
                7 if !self.calm => Word::Hung,
                _ => Word::Alive,
            };
            let at = soon + self.delay(60_000);
            self.later(at, Fate::Say { run: id, word });
        }
    }

    fn die(&mut self, now: Instant, id: RunId, exit: Exit) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.main == Main::Alive) else {
            return;
        };
        run.main = Main::Ended(exit);
        let reported = run.told_born;
        // A report of the birth that is still on its way arrives within 200 ms.
        let earliest = if reported { Duration::ZERO } else { Duration::from_millis(201) };
        let at = now + earliest + self.delay(50);
        self.later(at, Fate::Report(Event::Exited { run: id, exit }));
    }

    pub(crate) fn signal(&mut self, now: Instant, id: RunId, signal: i32, group: bool) {
        let Some(run) = self.runs.get(&id) else { return };
        let (dies, leftovers_die) = (!run.ignores_signals, group && !run.leftovers_ignore_signals);
        if dies {
            let at = now + self.delay(2000);
            let exit = Exit::Signal { signal, core_dumped: false };
            self.later(at, Fate::Die { run: id, exit, natural: false });
        }
        if leftovers_die {
            let at = now + self.delay(2000);
            self.later(at, Fate::LeftoversDie { run: id });
        }
    }

    pub(crate) fn kill_tree(&mut self, now: Instant, id: RunId) {
        let blocked = self.rng.u8(..8) == 0;
        let at = now + self.delay(if blocked { 12_000 } else { 20 });
        let exit = Exit::Signal { signal: SIGKILL, core_dumped: false };
        self.later(at, Fate::Die { run: id, exit, natural: false });
        self.later(at, Fate::LeftoversDie { run: id });
    }

    pub(crate) fn sweep(&mut self, now: Instant, id: RunId, signal: i32) {
        let Some(run) = self.runs.get_mut(&id) else {
            return self.later(now, Fate::Report(Event::Gone { run: id }));
        };
        assert!(run.main != Main::Alive, "run {id} was swept while its main process lived");
        run.watched = true;
        let obeys = signal == SIGKILL || (signal > 0 && !run.leftovers_ignore_signals);
        if obeys && run.leftovers {
            let at = now + self.delay(1000);
            self.later(at, Fate::LeftoversDie { run: id });
        }
        self.check_gone(now, id);
    }

    fn check_gone(&mut self, now: Instant, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let ended = matches!(run.main, Main::Ended(_));
        if ended && !run.leftovers && run.watched && !run.gone_on_its_way {
            run.gone_on_its_way = true;
            let at = now + self.delay(20);
            self.later(at, Fate::Report(Event::Gone { run: id }));
        }
    }

    /// The brain is dead: reports on their way and watches are lost. Returns what the next one
    /// finds.
    pub(crate) fn lose_brain(&mut self, now: Instant) -> Vec<FoundRun> {
        self.fates.retain(|_, fate| !matches!(fate, Fate::Report(_)));
        self.runs.retain(|_, run| !run.told_gone);
        // Readiness is seen again by whoever looks next.
        let unseen: Vec<_> = self
            .runs
            .iter()
            .filter(|(_, run)| run.main == Main::Alive && !run.told_ready)
            .filter_map(|(id, run)| Some((*id, run.ready_at?)))
            .collect();
        for (run, at) in unseen {
            let at = at.max(now) + self.delay(50);
            self.later(at, Fate::Report(Event::Ready { run }));
        }
        let mut found = Vec::new();
        for (id, run) in &mut self.runs {
            run.watched = false;
            run.gone_on_its_way = false;
            let what = match run.main {
                Main::Unborn => Found::NeverBorn,
                Main::Alive => Found::Alive { pid: 77 },
                Main::Ended(_) if self.rng.u8(..4) == 0 => Found::Ended { exit: Exit::Unknown },
                Main::Ended(exit) => Found::Ended { exit },
            };
            run.told_born |= run.main != Main::Unborn;
            run.told_exit |= run.main != Main::Alive;
            found.push(FoundRun { run: *id, process: run.process.clone(), found: what });
        }
        self.runs.retain(|_, run| run.main != Main::Unborn);
        found
    }

    /// Whether a run of the process may still be there, as far as the brain was told.
    pub(crate) fn may_live(&self, process: &ProcessName) -> Option<RunId> {
        let of_process = |(_, run): &(&RunId, &Run)| run.process == *process && !run.told_gone;
        self.runs.iter().find(of_process).map(|(id, _)| *id)
    }

    /// Whether anything of any run is alive.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.values().all(|run| run.main != Main::Alive && !run.leftovers)
    }
}
