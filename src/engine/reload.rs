//! A new configuration: all of it or nothing.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::core_loop::Engine;
use super::{ApplyRequest, ApplyTarget, Compared, HappeningKind, How, Refusal, Reloaded};
use crate::config::show::{Shown, show};
use crate::config::{Config, Loaded, Program, Report, Source};
use crate::core::{Actor, Event, Fate, Plan, StateCode};
use crate::name::{ProcessName, ProgramName, RunId};
use crate::os::clock;
use crate::store::sources::Active;

/// Open files of the brain for each process: pidfd, the output's pipe twice, its log and index.
/// The keeper has fewer. A notification socket or a pipe of readiness is two more.
const DESCRIPTORS_PER_PROCESS: u64 = 5;

/// Open files of the brain for itself and for some clients.
const OWN_DESCRIPTORS: u64 = 100;

/// Looks up the variables that a configuration may mention.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where the request for a reload gets its answer.
pub(super) type Reply = oneshot::Sender<Result<Reloaded, Refusal>>;

/// What a configuration is read for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To be applied at once.
    Reload { by: Actor, reply: Option<Reply> },
    /// To be applied as a transaction.
    Apply { request: ApplyRequest, reply: Option<super::apply::Reply> },
    /// To be compared with what is active, or with another generation.
    Plan { between: Compared, reply: super::generations::Reply },
    /// Only to say that the files are newer than what runs.
    Look,
}

/// Where a configuration is read from.
#[derive(Debug)]
enum From {
    Files(PathBuf),
    Texts(Vec<Source>),
    /// Both, the one to compare with first.
    Two(Vec<Source>, Vec<Source>),
}

/// What was read away from the loop.
#[derive(Debug)]
pub(super) enum Read {
    Config {
        purpose: Purpose,
        result: Box<Result<Loaded, Report>>,
        /// What to compare with, if not with what is active.
        other: Option<Box<Loaded>>,
    },
    /// The last lines of a process that failed during an apply.
    Output(Vec<String>),
}

/// What is read and what is to be read: one at a time, in the order of the requests, because a
/// file system that hangs must hold up neither the loop nor the threads of others.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) results: UnboundedSender<Read>,
    is_under_way: bool,
    waiting: VecDeque<Purpose>,
}

impl Reading {
    pub(super) fn new() -> (Self, UnboundedReceiver<Read>) {
        let (results, receiver) = unbounded_channel();
        (Self { results, is_under_way: false, waiting: VecDeque::new() }, receiver)
    }
}

impl Engine {
    /// Reads the configuration file again and applies it if it has no mistake.
    ///
    /// The answer is [`Refusal::BadConfiguration`] with every mistake; then nothing has changed.
    pub(super) fn reload(&mut self, by: Actor, reply: Option<Reply>) {
        self.read_config(Purpose::Reload { by, reply });
    }

    /// Says in the status and once in the events that the file is newer than what runs.
    pub(super) fn look_at_files(&mut self) {
        let is_look = |purpose: &Purpose| matches!(purpose, Purpose::Look);
        if !self.reading.waiting.iter().any(is_look) {
            self.read_config(Purpose::Look);
        }
    }

    pub(super) fn read_config(&mut self, purpose: Purpose) {
        if self.reading.is_under_way {
            self.reading.waiting.push_back(purpose);
            return;
        }
        let place = match self.place_of(&purpose) {
            Ok(place) => place,
            Err(refusal) => return self.decline(purpose, refusal),
        };
        if matches!(purpose, Purpose::Reload { .. }) {
            self.systemd.reloading();
        }
        self.reading.is_under_way = true;
        let results = self.reading.results.clone();
        tokio::task::spawn_blocking(move || {
            let (result, other) = match place {
                From::Files(path) => (crate::config::load(&path, &environment), None),
                From::Texts(texts) => (crate::config::load_sources(&texts, &environment), None),
                From::Two(first, second) => {
                    let other = crate::config::load_sources(&first, &environment).ok();
                    (crate::config::load_sources(&second, &environment), other.map(Box::new))
                }
            };
            // A loop that has ended needs no answer.
            let result = Box::new(result);
            let _ = results.send(Read::Config { purpose, result, other });
        });
    }

    /// Says where to read from, or why not to read at all.
    fn place_of(&self, purpose: &Purpose) -> Result<From, Refusal> {
        let files = || Ok(From::Files(self.config_path.clone()));
        match purpose {
            Purpose::Look => files(),
            Purpose::Plan { between, .. } => match *between {
                Compared::Files => self.check_idle().and_then(|()| files()),
                Compared::Previous => {
                    self.check_idle()?;
                    self.texts_to_go_to(ApplyTarget::Previous)
                }
                Compared::Generation(number) => {
                    self.check_idle()?;
                    self.texts_to_go_to(ApplyTarget::Generation(number))
                }
                Compared::Generations(older, newer) => {
                    Ok(From::Two(self.texts_of(older)?, self.texts_of(newer)?))
                }
            },
            Purpose::Reload { .. } | Purpose::Apply { .. } if self.ending.is_under_way() => {
                Err(Refusal::ShuttingDown)
            }
            Purpose::Reload { .. } => self.check_idle().and_then(|()| files()),
            Purpose::Apply { request, .. } => {
                self.check_idle()?;
                self.texts_to_go_to(request.target)
            }
        }
    }

    fn texts_to_go_to(&self, target: ApplyTarget) -> Result<From, Refusal> {
        match self.generation_of(target)? {
            None => Ok(From::Files(self.config_path.clone())),
            Some(number) => Ok(From::Texts(self.texts_of(number)?)),
        }
    }

    fn decline(&mut self, purpose: Purpose, refusal: Refusal) {
        match purpose {
            Purpose::Look => {}
            Purpose::Reload { by, reply } => self.finish_reload(&by, reply, Err(refusal)),
            Purpose::Apply { request, reply } => self.answer_apply(&request, reply, Err(refusal)),
            Purpose::Plan { reply, .. } => drop(reply.send(Err(refusal))),
        }
    }

    /// Acts on what was read, and reads the next that is asked for.
    pub(super) fn on_read(&mut self, read: Read) {
        match read {
            Read::Output(lines) => return self.on_output(lines),
            Read::Config { purpose, result, other } => self.on_config(purpose, *result, other),
        }
        crate::os::memory::give_back();
        self.reading.is_under_way = false;
        while !self.reading.is_under_way
            && let Some(next) = self.reading.waiting.pop_front()
        {
            self.read_config(next);
        }
    }

    /// Shows what runs, read again from the texts that are kept, away from the loop.
    pub(super) fn show_config(&self, reply: oneshot::Sender<Result<Vec<Shown>, Refusal>>) {
        // Another socket takes effect when the daemon is started again, its directory too.
        let runtime_dir = self.books.runtime_dir().to_owned();
        tokio::task::spawn_blocking(move || {
            let texts = super::active::read(&runtime_dir).map(|active| active.sources);
            let shown = texts.map(|texts| show(&texts, &environment, false)).unwrap_or_default();
            let lost = "the texts of the configuration that runs are lost; `mendctl reload` \
                        keeps them again";
            let result =
                if shown.is_empty() { Err(Refusal::Failed(lost.to_owned())) } else { Ok(shown) };
            // Whoever asked may have gone.
            let _ = reply.send(result);
        });
    }

    fn on_config(
        &mut self,
        purpose: Purpose,
        result: Result<Loaded, Report>,
        other: Option<Box<Loaded>>,
    ) {
        match purpose {
            Purpose::Look => self.compare_with_files(result),
            Purpose::Plan { between, reply } => {
                let planned = self.planned(between, result, other);
                drop(reply.send(planned));
            }
            Purpose::Apply { request, reply } => self.on_apply_read(request, reply, result),
            Purpose::Reload { by, reply } => {
                let result = match (self.check_idle(), result) {
                    _ if self.ending.is_under_way() => Err(Refusal::ShuttingDown),
                    // One has begun while the files were read.
                    (Err(busy), _) => Err(busy),
                    (Ok(()), Ok(loaded)) => Ok(self.activate(loaded, How::Reload, &by)),
                    (Ok(()), Err(report)) => Err(self.refuse(&report)),
                };
                self.finish_reload(&by, reply, result);
                self.systemd.reloaded(&self.summary());
            }
        }
    }

    fn finish_reload(
        &mut self,
        by: &Actor,
        reply: Option<Reply>,
        result: Result<Reloaded, Refusal>,
    ) {
        self.audit(by, "reload".into(), result.as_ref().err());
        match (reply, result) {
            // Whoever asked may have gone.
            (Some(reply), result) => drop(reply.send(result)),
            (None, Err(refusal)) => error!("{refusal}"),
            (None, Ok(_)) => {}
        }
    }

    pub(super) fn refuse(&mut self, report: &Report) -> Refusal {
        // The control socket is looked after also then.
        (self.on_reload)(&self.config);
        let mistakes = report.mistakes();
        warn!("the configuration has {mistakes} mistakes and was not applied:\n{report}");
        let message = self.say_mistakes(report);
        self.note_trouble("configuration", Some(message));
        Refusal::BadConfiguration { rendered: report.render(false), mistakes }
    }

    /// Makes a checked configuration the active one, at once.
    pub(super) fn activate(&mut self, loaded: Loaded, how: How, by: &Actor) -> Reloaded {
        let Loaded { config, warnings, sources } = loaded;
        let plan = Plan::new(&self.config, &config);
        let mut reloaded = reloaded(&plan);
        reloaded.warnings = warnings.iter().map(|warning| warning.message.clone()).collect();
        reloaded.warnings.extend(self.effects(&plan, &config));
        for warning in &reloaded.warnings {
            warn!("{warning}");
        }
        self.replaced = self.replaced_by(&config);
        let texts = sources.clone();
        let active = Active { sources, replaced: self.replaced.clone(), apply: None };
        let trouble = self.books.keep_active(&active).err();
        self.note_trouble("active configuration", trouble);
        self.note_trouble("descriptors", lacks_descriptors(&config));
        self.note_trouble("configuration", None);
        self.except.clear();
        let programs = config.programs.values().cloned().collect();
        self.set_config(Arc::new(config));
        self.tell(Event::Configure(programs));
        self.attend_all();
        self.keep_goals();
        self.note_generation(&texts, how, by, plan.summary());
        let detail = plan.summary();
        info!("configuration applied: {detail}");
        self.happened(HappeningKind::Daemon { what: "reloaded".into(), detail });
        reloaded
    }

    /// Lets everything but the core know of a configuration.
    pub(super) fn set_config(&mut self, config: Arc<Config>) {
        let before = std::mem::replace(&mut self.config, config);
        let of_before = |program: &Program| before.programs.get(&program.name).map(|p| &p.logs);
        let relogged =
            |program: &&Arc<Program>| of_before(program).is_some_and(|logs| *logs != program.logs);
        for program in self.config.programs.values().filter(relogged) {
            for process in super::select::processes_of(program) {
                self.pump.configure(&process, &program.logs);
            }
        }
        self.watch.arm(&self.config);
        self.file_watcher.arm(&self.config);
        self.keep_changes_that_count();
        self.configure_healing();
        (self.on_reload)(&self.config);
    }

    /// Returns the first run of each process that is spawned as `config` says, for those of
    /// which an older run may be left.
    fn replaced_by(&self, config: &Config) -> BTreeMap<ProcessName, RunId> {
        let mut replaced = self.stale_runs();
        let first = self.core.next_run();
        for status in self.core.statuses() {
            let process = status.process;
            let declared = config.programs.get(process.program());
            let is_changed = declared.is_some_and(|it| it.spawn != status.program.spawn);
            if is_changed && status.run.is_some() {
                replaced.insert(process, first);
            }
        }
        replaced
    }

    /// Returns what is known of processes whose present run is an older one.
    pub(super) fn stale_runs(&self) -> BTreeMap<ProcessName, RunId> {
        let is_stale = |process: &ProcessName, first: RunId| {
            let run = self.core.status(process).and_then(|status| status.run);
            run.is_some_and(|run| run < first)
        };
        let known = self.replaced.iter().filter(|(process, first)| is_stale(process, **first));
        known.map(|(process, first)| (process.clone(), *first)).collect()
    }

    /// Says what a plan has beside its effect on programs.
    pub(super) fn effects(&self, plan: &Plan, config: &Config) -> Vec<String> {
        let waits = plan.daemon_restart().into_iter().map(|key| {
            let key = key.trim_start_matches("supervisor.");
            if key == "log_dir" {
                let old = self.config.supervisor.log_dir.display();
                return format!(
                    "`[supervisor] log_dir`: what runs goes on writing below `{old}` until it is \
                     started again"
                );
            }
            format!("`[supervisor] {key}` takes effect when the daemon is started again")
        });
        waits.chain(lacks_descriptors(config)).chain(self.would_hold(config)).collect()
    }

    /// Says what a configuration would stop that runs now, although a plan lists it as changed in
    /// place or not at all: its new requirements are not wanted.
    pub(super) fn would_hold(&self, config: &Config) -> Vec<String> {
        let held = self.core.would_hold(clock::now(), &config.programs);
        let text = |(program, why): (ProgramName, String)| {
            format!(
                "`{program}` runs and would be stopped: {why}; start that first, or stop \
                 `{program}` yourself"
            )
        };
        held.into_iter().map(text).collect()
    }

    /// One line for `systemctl status`.
    pub(super) fn summary(&self) -> String {
        let (mut all, mut running) = (0, 0);
        for process in self.core.names() {
            all += 1;
            running += u32::from(self.core.state(process) == Some(StateCode::Running));
        }
        format!("{running} of {all} processes running")
    }

    /// Says that the daemon serves, to the service manager and in the events.
    pub(super) fn say_started(&mut self, what: &str, detail: String) {
        info!("{detail}");
        self.happened(HappeningKind::Daemon { what: what.to_owned(), detail });
        let status = self.summary();
        self.systemd.ready(std::os::unix::process::parent_id(), &status);
    }
}

fn reloaded(plan: &Plan) -> Reloaded {
    let restarts = |fate: &Fate| match fate {
        Fate::Restart | Fate::RestartInTurn | Fate::RestartWith(_) => true,
        Fate::Start | Fate::Stop | Fate::Update => false,
    };
    Reloaded {
        added: plan.names(|fate| *fate == Fate::Start),
        removed: plan.names(|fate| *fate == Fate::Stop),
        restarted: plan.names(restarts),
        updated: plan.names(|fate| *fate == Fate::Update),
        warnings: Vec::new(),
    }
}

/// Returns how many descriptors a brain that runs all of it has open.
pub(crate) fn descriptors_to_start(config: &Config) -> u64 {
    let of_program = |program: &Arc<Program>| {
        let processes = super::select::processes_of(program).len() as u64;
        let spawn = &program.spawn;
        let ears = u64::from(spawn.notify) + u64::from(spawn.ready_fd.is_some());
        processes * (DESCRIPTORS_PER_PROCESS + 2 * ears)
    };
    OWN_DESCRIPTORS + config.programs.values().map(of_program).sum::<u64>()
}

fn count_processes(config: &Config) -> u64 {
    let count = |program: &Arc<Program>| super::select::processes_of(program).len() as u64;
    config.programs.values().map(count).sum()
}

/// Says when the limit on open files is too low for the processes of `config`, and the way out.
pub(super) fn lacks_descriptors(config: &Config) -> Option<String> {
    let processes = count_processes(config);
    let (limit, hard) = crate::os::limits::nofile();
    let needed = descriptors_to_start(config);
    if needed <= limit {
        return None;
    }
    let more = if needed <= hard {
        String::new()
    } else {
        format!(", and start the daemon with a hard limit of that (it is {hard}; `LimitNOFILE=`)")
    };
    Some(format!(
        "{processes} processes need about {needed} open files, the daemon may have {limit}: set \
         `[supervisor] nofile = {needed}` or more{more}, then restart the daemon"
    ))
}
