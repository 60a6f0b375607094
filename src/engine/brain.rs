//! Joins the engine's parts at the start, and takes leave at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tracing::{info, warn};
use tracing_appender::non_blocking::WorkerGuard;

use super::apply::Applying;
use super::books::{Books, Papers};
use super::core_loop::{End, Engine, Sources};
use super::ears::Ears;
use super::fdstore::FdStore;
use super::file_watch::FileWatcher;
use super::healing::Healing;
use super::held::Held;
use super::history::History;
use super::keeper_link::KeeperSender;
use super::launch::{self, Workshop};
use super::lookouts::Lookouts;
use super::output::waits_for_output;
use super::pins::Pins;
use super::reload::Reading;
use super::run::{Found, exit_of};
use super::standby::{After, Offer};
use super::successor::KeeperDoor;
use super::upgrade::Upgrading;
use super::{
    Handle, How, adopt, commands, config_watch, door, logging, standby, successor, systemd,
};
use crate::capture::{Followers, Pump};
use crate::config::{Config, DaemonLog, Loaded, Source};
use crate::core::filewatch::FileWatch;
use crate::core::{self, Actor, Event, FoundRun, Progress, Restore, Supervisor, Word};
use crate::keeper::arguments::KeeperArguments;
use crate::keeper::wire::ToKeeper;
use crate::name::{ProcessName, ProgramName, RunId};
use crate::os::cgroup::Cgroups;
use crate::os::peer::peer_credentials;
use crate::os::spawn::Spawner;
use crate::os::tree::Sweeper;
use crate::os::{claim, clock, memory};
use crate::store::sources::Active;

/// After so long a start is over, whose code and memory are given back then.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// How long the end waits for what is not yet written of the history.
pub(super) const HISTORY_PATIENCE: Duration = Duration::from_secs(1);

/// What a brain is given to begin with.
pub(crate) struct Setup {
    pub(crate) runtime_dir: PathBuf,
    pub(crate) config_path: PathBuf,
    /// What was read beside the configuration.
    pub(crate) papers: Option<Papers>,
    /// What was active when the brain before died, or the file at the daemon's start.
    pub(crate) loaded: Loaded,
    /// The first run of each process that is spawned as it is declared in `loaded`.
    pub(crate) replaced: BTreeMap<ProcessName, RunId>,
    /// The apply in whose middle the brain before died.
    pub(crate) apply: Option<(Loaded, Progress)>,
    /// What is to be applied once everything is taken over.
    pub(crate) newer: Option<Loaded>,
    /// Why it is not the files that the daemon is started with.
    pub(crate) instead: Option<String>,
    /// The daemon as a whole has just been started.
    pub(crate) cold: bool,
    pub(crate) log: DaemonLog,
    pub(crate) nofile: (u64, u64),
    pub(crate) exit_when: Option<ProgramName>,
    /// Called with each configuration that becomes active.
    pub(crate) on_reload: Box<dyn Fn(&Config)>,
}

/// Why a brain's life is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything is stopped; the daemon ends with this code.
    Finished(u8),
    /// The keeper is gone; the runs live.
    KeeperLost,
    /// A brain of another executable takes over as soon as this one is gone.
    Replaced,
}

/// A brain that has taken over.
pub(crate) struct Brain {
    engine: Engine,
    sources: Sources,
    newer: Option<Loaded>,
    instead: Option<String>,
    texts: Vec<Source>,
    cold: bool,
    cgroups: Option<Arc<Cgroups>>,
    adopted: usize,
    _log: WorkerGuard,
}

impl Brain {
    /// Finds what is there and takes over; nothing new is spawned yet.
    ///
    /// # Errors
    ///
    /// When the keeper, the runtime directory or a thread cannot be had.
    pub(crate) fn start(
        spawner: Spawner,
        socket: OwnedFd,
        held: &Held,
        setup: Setup,
    ) -> io::Result<(Self, Handle)> {
        let (log_level, guard) = logging::start(&setup.log)?;
        let (handle, door) = door();
        let texts = setup.loaded.sources;
        let active = Arc::new(setup.loaded.config);
        let papers = setup.papers.map_or_else(|| Papers::read(&setup.runtime_dir), Ok)?;
        let state_dir = &active.supervisor.state_dir;
        let (mut books, mut past) =
            Books::open(&setup.runtime_dir, state_dir, door.events.clone(), papers);
        if setup.cold && past.shutdown.take().is_some() {
            info!("the shutdown that was under way ends here: the daemon was started again");
            books.forget_shutdown();
        }
        let mut trouble = BTreeMap::new();
        let mut notes = Vec::new();
        for note in &past.notes {
            warn!("{note}");
            trouble.insert(format!("store {}", note.file.display()), note.to_string());
        }
        if let Some(text) = books.goals_trouble() {
            warn!("{text}");
            trouble.insert("goals".to_owned(), text);
        }
        if let Some(text) = books.switches_trouble() {
            warn!("{text}");
            trouble.insert("switches".to_owned(), text);
        }
        let applying = setup.apply.map(|(new, progress)| {
            Applying::resume((Arc::clone(&active), texts.clone()), new, progress)
        });
        let mut config = active;
        let mut except = BTreeMap::new();
        let mut replaced = setup.replaced;
        if let Some(applying) = &applying {
            config = applying.config(applying.mix());
            except.clone_from(&applying.mix().except);
            replaced.extend(applying.progress().replaced.clone());
        } else {
            let sources = texts.clone();
            let active = Active { sources, replaced: replaced.clone(), apply: None };
            if let Err(message) = books.keep_active(&active) {
                trouble.insert("active configuration".to_owned(), message);
            }
        }
        // Not our parent, which is another one once the keeper is dead.
        let keeper_pid = u32::try_from(peer_credentials(&socket)?.pid).unwrap_or(0);
        let keeper = KeeperSender::new(socket);
        let fdstore = FdStore::start();
        // Where a manager holds the descriptors, pins would be in its way for nothing; with a
        // keeper that is PID 1, nothing outlives it.
        let wanted = !fdstore.is_there() && std::os::unix::process::parent_id() != 1;
        let mut pins = Pins::start(&setup.runtime_dir, wanted);
        let found = adopt::find_runs(&keeper, held, books.files(), &fdstore, &mut pins)?;
        let instance = claim::instance(&setup.runtime_dir);
        let cgroups = Cgroups::probe(&instance)
            .inspect_err(|why| info!("no control groups: {why}; trees are found by scanning"))
            .ok()
            .map(Arc::new);
        if let Some(cgroups) = &cgroups {
            commands::clear_left_over(cgroups);
            claim::claim(cgroups, &setup.runtime_dir);
            if setup.cold {
                claim::remove_abandoned(cgroups);
            }
        }
        let (launched_sender, launched) = unbounded_channel();
        let (gone_sender, gone) = unbounded_channel();
        let (notice_sender, notices) = unbounded_channel();
        let (upgrading, checked) = Upgrading::new();
        let (reading, read) = Reading::new();
        let workshop = Workshop {
            files: books.files().clone(),
            keeper: keeper.clone(),
            cgroups: cgroups.clone(),
            instance: instance.clone(),
            nofile: setup.nofile,
            commands: 0,
        };
        let (ears, heard) = Ears::new();
        let (lookouts, seen) = Lookouts::new();
        let (healing, remembered, reports) = Healing::open(&config, &mut notes);
        let is_new = past.care.is_none();
        let care = past.care.take().or(remembered);
        for note in &notes {
            warn!("{note}");
            trouble.insert(format!("store {}", note.file.display()), note.to_string());
        }
        let (watch, config_changes) = config_watch::start(&config);
        let (mut file_watcher, touched) = FileWatcher::new();
        file_watcher.arm(&config);
        let state_dir = &config.supervisor.state_dir;
        let (history, said) =
            History::start(state_dir.join("mend.db"), config.supervisor.history, setup.cold)?;
        let on_reload = {
            let (history, on_reload) = (history.clone(), setup.on_reload);
            Box::new(move |config: &Config| {
                history.set_limits(config.supervisor.history);
                on_reload(config);
            })
        };
        let mut engine = Engine {
            core: Supervisor::new(fastrand::u64(..)),
            config,
            config_path: setup.config_path,
            keeper: keeper.clone(),
            keeper_pid,
            jobs: launch::start(spawner, workshop, launched_sender)?,
            pump: Pump::start(notice_sender)?,
            sweeper: Sweeper::start_marked(keeper_pid, Some(instance.clone()), gone_sender)?,
            runs: BTreeMap::new(),
            books,
            waiters: super::waiters::Waiters::default(),
            changed: BTreeSet::new(),
            early_exits: BTreeMap::new(),
            trouble,
            started: clock::wall(),
            ending: super::shutdown::Ending::default(),
            shutdown_replies: Vec::new(),
            exit_when: setup.exit_when,
            on_reload,
            log_level,
            systemd: systemd::Notifier::from_environment(),
            fdstore,
            pins,
            upgrading,
            reading,
            watch,
            except,
            replaced,
            applying,
            ears,
            lookouts,
            healing,
            instance,
            file_watcher,
            file_changes: FileWatch::default(),
            prints: BTreeMap::new(),
            old_prints: BTreeMap::new(),
            history,
            counts: super::counts::Counts::default(),
        };
        let adopted = found.len();
        engine.take_over(found, past);
        engine.begin_healing(care, is_new);
        engine.pins.keep_found(engine.runs.iter().map(|(run, hands)| (*run, hands)));
        if setup.cold {
            let runs = engine.runs.iter().map(|(run, hands)| (*run, hands));
            engine.fdstore.keep_found(runs);
        }
        let sources = Sources {
            link: keeper.link()?,
            launched,
            gone,
            notices,
            signals: signals()?,
            config_changes,
            touched,
            checked,
            read,
            heard,
            seen,
            reports,
            said,
            door,
        };
        let brain = Self {
            engine,
            sources,
            newer: setup.newer,
            instead: setup.instead,
            texts,
            cold: setup.cold,
            cgroups,
            adopted,
            _log: guard,
        };
        Ok((brain, handle))
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.engine.config)
    }

    pub(crate) fn followers(&self) -> Arc<Followers> {
        self.engine.pump.followers()
    }

    pub(crate) fn history(&self) -> History {
        self.engine.history.clone()
    }

    /// Returns a way to ask for the level of the daemon's own log.
    pub(crate) fn log_level(&self) -> Box<dyn Fn() -> String + Send + Sync> {
        let level = self.engine.log_level.clone();
        Box::new(move || level.get())
    }

    /// Serves until the daemon ends or the keeper is lost.
    pub(crate) async fn run(&mut self) -> Ended {
        if self.engine.keeper.send(&ToKeeper::Ready, &[]).is_err() {
            return Ended::KeeperLost;
        }
        let detail = match self.adopted {
            0 => "started".to_owned(),
            count => format!("took over {count} runs"),
        };
        let what = if self.adopted == 0 { "started" } else { "adopted" };
        let config = &self.engine.config;
        info!(
            "mendd {} serves `{}`: {} programs of `{}`",
            env!("CARGO_PKG_VERSION"),
            config.supervisor.socket.display(),
            config.programs.len(),
            self.engine.config_path.display()
        );
        self.engine.say_started(what, detail);
        let lack = super::reload::lacks_descriptors(&self.engine.config);
        self.engine.note_trouble("descriptors", lack);
        if !self.cold {
            self.engine.end_if_exited();
        }
        self.begin_with_configuration();
        tokio::spawn(async {
            tokio::time::sleep(START_PATIENCE).await;
            memory::give_back();
            memory::forget_code();
        });
        match self.engine.run(&mut self.sources).await {
            End::Finished(code) => Ended::Finished(code),
            End::KeeperLost => Ended::KeeperLost,
            End::Replaced => Ended::Replaced,
        }
    }

    /// Brings the configuration, its record and the files together.
    fn begin_with_configuration(&mut self) {
        let engine = &mut self.engine;
        if engine.ending.is_under_way() {
            engine.interrupt_apply();
        }
        engine.check_generations(&std::mem::take(&mut self.texts));
        engine.go_on_with_apply();
        if let Some(newer) = self.newer.take() {
            let name = "the start of mendd".to_owned();
            let by = Actor { uid: None, name, reason: None, at: clock::wall() };
            engine.activate(newer, How::Start, &by);
        } else if !self.cold || self.instead.is_some() {
            // Somebody may have edited them meanwhile.
            engine.watch.look_soon(&engine.config_path);
        }
        if let Some(text) = self.instead.take() {
            engine.say_last_good(text);
        }
    }

    /// Ends the daemon: the keeper exits with `code` once this process is gone.
    pub(crate) fn say_goodbye(self, code: u8) {
        let mut engine = self.engine;
        // First: a brain that dies from here on is not followed by another, which would find no
        // word of the shutdown any more and start everything again.
        let _ = engine.keeper.send(&ToKeeper::Bye { code }, &[]);
        let processes: Vec<_> = engine.core.names().cloned().collect();
        engine.close_healing();
        engine.books.close(&processes);
        engine.pins.close();
        engine.pump.stop();
        engine.history.close(HISTORY_PATIENCE);
        if let Some(cgroups) = &self.cgroups {
            cgroups.leave();
        }
        info!("everything is stopped");
    }

    /// Makes room for the brain of an upgrade and waits for the end, which the keeper brings when
    /// that brain serves. Returns when this brain had to go on because the keeper was killed
    /// before, or is not needed although it was.
    pub(crate) async fn stand_by(mut self, words: &KeeperArguments, lock: &mut File) {
        let runtime_dir = &words.runtime_dir;
        match standby::stand_by(&mut self.engine, &mut self.sources, runtime_dir, lock).await {
            After::GoOn(door) => self.hand_over(door, words).await,
            After::Offer(door) => {
                let offer = Offer(&self.engine);
                let killed = self.engine.keeper_pid;
                successor::hand_over(&offer, door.as_ref(), words, killed).await;
                self.leave(None);
            }
            After::Leave => self.leave(None),
        }
    }

    /// Ends this brain; `door` is one that nobody needs any more.
    fn leave(self, door: Option<KeeperDoor>) {
        self.engine.pump.stop();
        self.engine.history.settle(HISTORY_PATIENCE);
        if let Some(door) = door {
            door.close();
        }
    }

    /// Gets this brain's runs under a keeper again; the next brain goes on from there.
    pub(crate) async fn find_keeper(mut self, words: &KeeperArguments) {
        warn!("the keeper is gone; the programs run on and wait for the next one");
        let door = KeeperDoor::open(&words.runtime_dir);
        // Nothing is told to the core any more: what happens from here on, the next brain finds.
        self.engine.finish_launches(&mut self.sources.launched).await;
        self.hand_over(door, words).await;
    }

    async fn hand_over(self, door: Option<KeeperDoor>, words: &KeeperArguments) {
        let killed = self.engine.keeper_pid;
        let given = successor::hand_over(&self.engine, door.as_ref(), words, killed).await;
        self.leave(door.filter(|_| given));
    }
}

impl Engine {
    /// Takes over what was found, in one step, before anything else happens.
    fn take_over(&mut self, mut found: Vec<Found>, past: super::books::Past) {
        // Runs of one process share a log: the older one's output comes first.
        found.sort_by_key(|found| found.run);
        let now = clock::now();
        let mut runs = Vec::new();
        let mut last_run = RunId(0);
        let mut unheard = Vec::new();
        for Found { run, mut hands, unheard: is_unheard } in found {
            unheard.extend(is_unheard.then_some(run));
            last_run = last_run.max(run);
            let found = match hands.exit.map(exit_of) {
                None => core::Found::Alive { pid: hands.pid.unwrap_or(0) },
                Some(exit) => core::Found::Ended { exit },
            };
            runs.push(FoundRun { run, process: hands.process.clone(), found });
            let program = self.declared(&hands.process).cloned();
            // Without a mark the run began when nobody wanted one: a new one would be too late.
            hands.wants_marks =
                program.as_deref().is_some_and(waits_for_output) && self.has_marks(run, &hands);
            self.attach_output(run, &hands, program.as_deref());
            self.ears.listen(run, &hands);
            if let (Some(pid), false) = (hands.pid, hands.exit.is_some()) {
                self.sweeper.track(run, pid);
            }
            self.runs.insert(run, hands);
        }
        // Whoever starts anew reads its files anew.
        self.old_prints = past.prints;
        self.old_prints.retain(|program, _| {
            self.runs.values().any(|hands| hands.process.program() == program)
        });
        let next_run = past.next_run.max(RunId(last_run.0 + 1));
        self.core.remember_switches(past.switches);
        self.core.remember_goals_of_before(past.goals);
        if let Some(applying) = &self.applying {
            self.core.remember_goals(applying.progress().goals.clone());
        }
        if let Some((_, code)) = &past.shutdown {
            self.ending.begin(now + self.config.supervisor.shutdown_timeout, *code);
        }
        let restore = Restore {
            programs: self.config.programs.values().cloned().collect(),
            except: self.except.clone(),
            snapshots: past.snapshots,
            // Decided before the brain died, and not begun.
            spawn_changed: runs
                .iter()
                .filter(|found| self.replaced.get(&found.process).is_some_and(|it| found.run < *it))
                .map(|found| found.process.clone())
                .collect(),
            runs,
            next_run,
            shutdown: past.shutdown.map(|(by, _)| by),
        };
        let actions = self.core.restore(now, restore);
        let mut pending: Vec<Event> = Vec::new();
        self.perform(actions, &mut pending);
        pending.extend(unheard.into_iter().map(|run| Event::Told { run, word: Word::Unheard }));
        for event in pending {
            self.tell(event);
        }
        self.drop_forgotten_runs();
        self.attend_all();
    }

    /// A run that ended and was dealt with before the brain before died only needs its output
    /// drained; the core has forgotten it.
    fn drop_forgotten_runs(&mut self) {
        let forgotten: Vec<_> = self
            .runs
            .iter()
            .filter(|(run, hands)| {
                hands.exit.is_some() && !hands.gone && self.core.process_of_run(**run).is_none()
            })
            .map(|(run, _)| *run)
            .collect();
        for run in forgotten {
            self.finish_output(run);
        }
    }
}

/// Receives signals that are sent to the brain itself rather than to the keeper.
fn signals() -> io::Result<tokio::sync::mpsc::UnboundedReceiver<i32>> {
    let wanted = [libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let (sender, receiver) = unbounded_channel();
    std::thread::Builder::new().name("mend-signals".into()).stack_size(64 * 1024).spawn(
        move || {
            for signal in signals.forever() {
                if sender.send(signal).is_err() {
                    return;
                }
            }
        },
    )?;
    Ok(receiver)
}
