//! The hands of the healer: [`Care`] decides, this carries out.
//!
//! What happens to processes, what checks find and what operators want goes to the healer as events
//! in the order in which it happened, one after the other, behind everything that brings programs
//! back to life. What it remembers is written down before anything is done about it, so that the
//! next brain goes on from there. Whatever needs time runs in a task and reports back: nothing in
//! here waits.

mod life;

mod charges;

mod actions;

mod checks;

mod passive;

mod remedies;

mod resume;

mod errands;

mod evidence;

mod flow;

mod tellings;

mod ledger;

mod door;

mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use self::charges::Declared;
use self::checks::{Clues, Looked, Probe};
pub use self::door::*;
use self::errands::ErrandEnd;
use self::evidence::RunPast;
use self::ledger::Ledger;
use self::passive::Passive;
use self::remedies::Remedies;
pub use self::tellings::shown_target;
use super::Refusal;
use super::core_loop::Engine;
use crate::config::{Config, DeclaredCheck};
use crate::core::care::evidence::Evidence;
use crate::core::care::mode::Mode;
use crate::core::care::{
    Answer, AskId, Care, CareEvent, CareRestore, CheckId, HostFacts, IncidentId, Life, RemedyId,
    Target, TargetFacts,
};
use crate::core::{Event, ProcessStatus};
use crate::name::ProcessName;
use crate::os::clock;
use crate::probe::Past;
use crate::store::Note;
use crate::time::Instant;

/// How long a daemon that starts waits for the history.
const NUMBERS_PATIENCE: Duration = Duration::from_secs(2);

/// What tasks report to the loop.
#[derive(Debug)]
pub(super) enum Report {
    /// A check has run.
    Looked(Box<Looked>),
    /// A command of a remedy has ended.
    Errand {
        remedy: RemedyId,
        end: ErrandEnd,
    },
    /// The apply that a remedy asked for is under way, or was refused.
    Applying {
        remedy: RemedyId,
        begun: Result<u64, String>,
    },
    Evidence {
        target: Target,
        incident: IncidentId,
        evidence: Box<Evidence>,
    },
    /// What is remembered over a reboot was written, or why it was not.
    Kept(Option<String>),
}

/// Everything that healing has at hand.
pub(super) struct Healing {
    care: Care,
    declared: Declared,
    /// What happened and is not yet told to the healer.
    events: VecDeque<CareEvent>,
    /// What each process was last said to be doing.
    lives: BTreeMap<ProcessName, Life>,
    /// Processes whose last spawn has failed.
    never_born: BTreeSet<ProcessName>,
    /// Processes that changed since the remedies in progress last looked.
    stirred: BTreeSet<ProcessName>,
    probes: BTreeMap<CheckId, Probe>,
    /// What the last run of each check says of the cause, and what it leaves to the next.
    clues: BTreeMap<CheckId, Clues>,
    pasts: BTreeMap<CheckId, Past>,
    run_pasts: BTreeMap<ProcessName, RunPast>,
    passive: Passive,
    remedies: Remedies,
    asks: BTreeMap<AskId, oneshot::Sender<Result<Answer, Refusal>>>,
    next_ask: u64,
    ledger: Ledger,
    reports: UnboundedSender<Report>,
    /// Nothing is looked at and nothing is healed any more: the daemon ends, or another brain
    /// takes over.
    is_frozen: bool,
}

impl Healing {
    /// Opens what is remembered over a reboot. Nothing is looked after before
    /// [`Engine::begin_healing`].
    pub(super) fn open(
        config: &Config,
        notes: &mut Vec<Note>,
    ) -> (Self, ledger::Past, UnboundedReceiver<Report>) {
        let (reports, receiver) = unbounded_channel();
        let (ledger, remembered) = Ledger::open(&config.supervisor.state_dir, notes);
        let healing = Self {
            care: Care::new(0),
            declared: Declared::new(),
            events: VecDeque::new(),
            lives: BTreeMap::new(),
            never_born: BTreeSet::new(),
            stirred: BTreeSet::new(),
            probes: BTreeMap::new(),
            clues: BTreeMap::new(),
            pasts: BTreeMap::new(),
            run_pasts: BTreeMap::new(),
            passive: Passive::default(),
            remedies: Remedies::default(),
            asks: BTreeMap::new(),
            next_ask: 1,
            ledger,
            reports,
            is_frozen: false,
        };
        let past = remembered.map(|it| (it.host, it.targets));
        (healing, past, receiver)
    }

    /// Returns when something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let care = self.care.next_deadline().filter(|_| !self.is_frozen);
        care.into_iter().chain(self.ledger.next_deadline()).min()
    }

    /// Whether something happened that the healer has not been told.
    pub(super) fn has_work(&self) -> bool {
        !self.is_frozen && (!self.events.is_empty() || !self.stirred.is_empty())
    }

    /// Stops everything that is under way and never begins again. What is remembered stays.
    pub(super) fn freeze(&mut self) {
        self.is_frozen = true;
        self.events.clear();
        self.stirred.clear();
        self.probes.clear();
        self.remedies.drop_all();
        self.asks.clear();
    }

    /// Returns the files that are to be removed before the next run of a process is spawned.
    pub(super) fn take_stale_files(&mut self, process: &ProcessName) -> Vec<PathBuf> {
        self.remedies.take_stale_files(process)
    }

    /// Returns the mode of the host in a word.
    pub(super) fn mode(&self) -> &'static str {
        self.care.mode().word()
    }

    /// Returns the healer, to look at.
    pub(super) fn care(&self) -> &Care {
        &self.care
    }

    fn look_of(&self, check: &CheckId) -> Option<&Arc<DeclaredCheck>> {
        self.declared.get(&check.target)?.get(&check.check)
    }

    /// Has something told to the healer, after everything that happened before.
    fn tell(&mut self, event: CareEvent) {
        if !self.is_frozen {
            self.events.push_back(event);
        }
    }
}

impl Engine {
    /// Goes on where the last brain has died, or begins: then numbers that were given before are
    /// only in the history.
    pub(super) fn begin_healing(
        &mut self,
        past: Option<(HostFacts, Vec<TargetFacts>)>,
        is_new: bool,
    ) {
        let names: Vec<ProcessName> = self.core.names().cloned().collect();
        names.iter().for_each(|process| self.note_life(process));
        let lives = self.healing.lives.iter();
        let lives = lives.map(|(name, life)| (Target::Process(name.clone()), *life)).collect();
        self.healing.events.clear();
        self.healing.declared = charges::declared(&self.config);
        let (mut host, targets) = past.unwrap_or_default();
        if is_new {
            let last = self.history.last_numbers(NUMBERS_PATIENCE);
            host.next_incident = host.next_incident.max(last.incident + 1);
            host.next_remedy = host.next_remedy.max(last.remedy + 1);
        }
        let restore = CareRestore {
            charges: charges::charges(&self.config),
            settings: charges::settings(&self.config),
            host,
            targets,
            lives,
        };
        let (care, actions) = Care::restore(clock::now(), fastrand::u64(..), restore);
        self.healing.ledger.begin(&care);
        self.healing.care = care;
        self.reconcile();
        self.carry_out(actions);
    }

    /// Looks after what is configured now.
    pub(super) fn configure_healing(&mut self) {
        self.healing.declared = charges::declared(&self.config);
        let charges = charges::charges(&self.config);
        let settings = charges::settings(&self.config);
        self.healing.tell(CareEvent::Configure { charges, settings });
    }

    /// An event is about to change processes in a way that their lives depend on.
    pub(super) fn foresee(&mut self, event: &Event) {
        if let Event::SpawnFailed { run, .. } = event
            && let Some(process) = self.core.process_of_run(*run)
        {
            self.healing.never_born.insert(process.clone());
        }
    }

    /// Notes what a process that has changed is doing now.
    pub(super) fn note_life(&mut self, process: &ProcessName) {
        let Some(facts) = self.core.snapshot(process) else { return };
        let Some(program) = self.core.program(process) else { return };
        let never_born = self.healing.never_born.contains(process);
        let life = life::life_of(facts, &program.lifecycle, never_born);
        if let Some(run) = life.run() {
            self.healing.never_born.remove(process);
            self.note_birth(process, run);
        }
        if self.healing.remedies.concerns(process) {
            self.healing.stirred.insert(process.clone());
        }
        if self.healing.lives.insert(process.clone(), life) != Some(life) {
            let target = Target::Process(process.clone());
            self.healing.tell(CareEvent::Life { target, life });
        }
    }

    /// Nothing of a process is left.
    pub(super) fn forget_life(&mut self, process: &ProcessName) {
        self.healing.lives.remove(process);
        self.healing.never_born.remove(process);
        self.healing.run_pasts.remove(process);
        self.healing.passive.forget(process);
        self.healing.stirred.insert(process.clone());
    }

    /// Tells the healer the next thing that happened, and does what it wants done.
    pub(super) fn heal(&mut self) {
        self.look_at_remedies();
        if let Some(event) = self.healing.events.pop_front() {
            let actions = self.healing.care.on_event(clock::now(), event);
            self.carry_out(actions);
        }
    }

    /// Does what is due by time.
    pub(super) fn on_healing_deadline(&mut self) {
        let now = clock::now();
        let care = &self.healing.care;
        let is_told = self.healing.events.iter().any(|it| *it == CareEvent::DeadlineReached);
        if care.next_deadline().is_some_and(|at| at <= now) && !is_told {
            // First of all, so that the healer sees how late it is and not how much waits.
            self.healing.events.push_front(CareEvent::DeadlineReached);
            self.heal();
        }
        if self.healing.ledger.next_deadline().is_some_and(|at| at <= now) {
            let reports = self.healing.reports.clone();
            self.healing.ledger.write(&self.healing.care, &reports);
        }
    }

    /// Takes in what a task reports.
    pub(super) fn on_report(&mut self, report: Report) {
        match report {
            Report::Looked(looked) => self.on_looked(*looked),
            Report::Errand { remedy, end } => self.on_errand_ended(remedy, end),
            Report::Applying { remedy, begun } => self.on_rollback_begun(remedy, begun),
            Report::Evidence { target, incident, evidence } => {
                self.healing.tell(CareEvent::Evidence { target, incident, evidence });
            }
            Report::Kept(trouble) => {
                self.healing.ledger.on_written();
                self.note_trouble("healing", trouble);
            }
        }
    }

    /// Writes down what is remembered for the next start; what is under way ends.
    pub(super) fn close_healing(&mut self) {
        self.healing.freeze();
        if let Some(trouble) = self.healing.ledger.close(&self.healing.care) {
            tracing::warn!("{trouble}");
        }
        let targets: Vec<Target> = self.healing.care.targets().cloned().collect();
        self.books.close_care(&targets);
    }

    /// Says what an operator should know of the host as healing sees it.
    pub(super) fn health_warnings(&self) -> Vec<String> {
        let (care, now) = (&self.healing.care, clock::now());
        let busy = "the host is too busy: what checks do not answer in time does not count";
        let busy = care.is_under_pressure(now).then(|| busy.to_owned());
        let mode = care.mode();
        let reasons = || match care.reasons(now) {
            reasons if reasons.is_empty() => {
                format!("the mode is still {}, until all has been well for a time", mode.word())
            }
            reasons => format!("the mode is {}: {}", mode.word(), reasons.join("; ")),
        };
        let mode = (mode != Mode::Normal).then(reasons);
        busy.into_iter().chain(mode).collect()
    }

    /// Adds to a status what healing knows.
    pub(super) fn with_health(&self, mut status: ProcessStatus) -> ProcessStatus {
        let target = Target::Process(status.process.clone());
        let care = &self.healing.care;
        status.health = care.health(&target);
        let facts = care.target_facts(&target);
        status.incident = facts.and_then(|facts| facts.incident.as_ref()).map(|it| it.id);
        status
    }
}
