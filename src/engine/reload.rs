//! A new configuration: all of it or nothing.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::core_loop::Engine;
use super::{HappeningKind, Refusal, Reloaded};
use crate::config::{Config, Loaded, Program, Report};
use crate::core::{Actor, Event};

/// Open files of the brain for each process: pidfd, the output's pipe twice, its log and index.
/// The keeper has fewer.
const DESCRIPTORS_PER_PROCESS: u64 = 5;

/// Open files of the brain for itself and for some clients.
const OWN_DESCRIPTORS: u64 = 100;

/// Looks up the variables that a configuration may mention.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where the request for a reload gets its answer.
pub(super) type Reply = oneshot::Sender<Result<Reloaded, Refusal>>;

/// What the configuration is read for.
#[derive(Debug)]
enum Purpose {
    /// To be applied.
    Reload { by: Actor, reply: Option<Reply> },
    /// Only to say that the files are newer than what runs.
    Look { path: PathBuf },
}

/// The configuration as it was read away from the loop.
#[derive(Debug)]
pub(super) struct Read {
    purpose: Purpose,
    result: Result<Loaded, Report>,
}

/// What is read and what is to be read: one at a time, in the order of the requests, because a
/// file system that hangs must hold up neither the loop nor the threads of others.
#[derive(Debug)]
pub(super) struct Reading {
    results: UnboundedSender<Read>,
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
    pub(super) fn on_config_change(&mut self, path: PathBuf) {
        let is_look = |purpose: &Purpose| matches!(purpose, Purpose::Look { .. });
        if !self.reading.waiting.iter().any(is_look) {
            self.read_config(Purpose::Look { path });
        }
    }

    fn read_config(&mut self, purpose: Purpose) {
        if self.reading.is_under_way {
            self.reading.waiting.push_back(purpose);
            return;
        }
        let purpose = match purpose {
            Purpose::Reload { by, reply } if self.ending.is_under_way() => {
                return self.finish_reload(&by, reply, Err(Refusal::ShuttingDown));
            }
            purpose @ (Purpose::Reload { .. } | Purpose::Look { .. }) => purpose,
        };
        if matches!(purpose, Purpose::Reload { .. }) {
            self.systemd.reloading();
        }
        self.reading.is_under_way = true;
        let results = self.reading.results.clone();
        let path = self.config_path.clone();
        tokio::task::spawn_blocking(move || {
            let result = crate::config::load(&path, &environment);
            // A loop that has ended needs no answer.
            let _ = results.send(Read { purpose, result });
        });
    }

    /// Acts on a configuration that was read, and reads the next one that is asked for.
    pub(super) fn on_read(&mut self, read: Read) {
        let Read { purpose, result } = read;
        match purpose {
            Purpose::Look { path } => self.compare_with_files(&path, result),
            Purpose::Reload { by, reply } => {
                let result = match result {
                    _ if self.ending.is_under_way() => Err(Refusal::ShuttingDown),
                    Ok(loaded) => Ok(self.apply(loaded)),
                    Err(report) => Err(self.refuse(&report)),
                };
                self.finish_reload(&by, reply, result);
                self.systemd.reloaded(&self.summary());
            }
        }
        crate::os::memory::give_back();
        self.reading.is_under_way = false;
        while !self.reading.is_under_way
            && let Some(next) = self.reading.waiting.pop_front()
        {
            self.read_config(next);
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

    fn refuse(&mut self, report: &Report) -> Refusal {
        // The control socket is looked after also then.
        (self.on_reload)(&self.config);
        let mistakes = report.mistakes();
        warn!("the configuration has {mistakes} mistakes and was not applied:\n{report}");
        let file = self.config_path.display();
        let message = format!(
            "`{file}` has mistakes; what runs is the configuration before \
             (`mendctl config check {file}` shows them)"
        );
        self.note_trouble("configuration", Some(message));
        Refusal::BadConfiguration { rendered: report.render(false), mistakes }
    }

    /// Makes a checked configuration the active one.
    pub(super) fn apply(&mut self, loaded: Loaded) -> Reloaded {
        let Loaded { config, warnings, sources } = loaded;
        let mut reloaded = compare(&self.config, &config);
        reloaded.warnings = warnings.iter().map(|warning| warning.message.clone()).collect();
        reloaded.warnings.extend(needs_restart(&self.config, &config));
        reloaded.warnings.extend(lacks_descriptors(&config));
        for warning in &reloaded.warnings {
            warn!("{warning}");
        }
        let before = std::mem::replace(&mut self.config, Arc::new(config));
        let trouble = self.books.keep_active(&sources);
        self.note_trouble("active configuration", trouble);
        self.note_trouble("descriptors", lacks_descriptors(&self.config));
        self.note_trouble("configuration", None);
        let of_before = |program: &Program| before.programs.get(&program.name).map(|p| &p.logs);
        let relogged =
            |program: &&Arc<Program>| of_before(program).is_some_and(|logs| *logs != program.logs);
        for program in self.config.programs.values().filter(relogged) {
            for process in super::select::processes_of(program) {
                self.pump.configure(&process, &program.logs);
            }
        }
        self.watch.arm(&self.config);
        (self.on_reload)(&self.config);
        let programs = self.config.programs.values().cloned().collect();
        self.tell(Event::Configure(programs));
        self.keep_goals();
        let detail = describe(&reloaded);
        info!("configuration applied: {detail}");
        self.happened(HappeningKind::Daemon { what: "reloaded".into(), detail });
        reloaded
    }

    fn compare_with_files(&mut self, path: &Path, result: Result<Loaded, Report>) {
        // A directory may have come to be.
        self.watch.arm(&self.config);
        let message = match result {
            Ok(loaded) if loaded.config == *self.config => None,
            Ok(_) => Some(format!(
                "`{}` has changed and is good; `mendctl reload` applies it",
                path.display()
            )),
            Err(report) => Some(format!(
                "`{}` has changed and has {} mistakes; what runs is the configuration before",
                path.display(),
                report.mistakes()
            )),
        };
        self.note_trouble("configuration", message);
    }

    /// One line for `systemctl status`.
    pub(super) fn summary(&self) -> String {
        let (mut all, mut running) = (0, 0);
        for status in self.core.statuses() {
            all += 1;
            running += u32::from(status.state == crate::core::StateCode::Running);
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

fn compare(old: &Config, new: &Config) -> Reloaded {
    let mut reloaded = Reloaded::default();
    for (name, program) in &new.programs {
        match old.programs.get(name) {
            None => reloaded.added.push(name.to_string()),
            Some(before) if before == program => {}
            Some(before) if needs_new_run(before, program) => {
                reloaded.restarted.push(name.to_string());
            }
            Some(_) => reloaded.updated.push(name.to_string()),
        }
    }
    let gone = old.programs.keys().filter(|name| !new.programs.contains_key(*name));
    reloaded.removed = gone.map(ToString::to_string).collect();
    reloaded
}

fn needs_new_run(old: &Program, new: &Program) -> bool {
    old.spawn != new.spawn || old.replicas.is_none() != new.replicas.is_none()
}

/// Says when the limit on open files is too low for the processes of `config`, and the way out.
pub(super) fn lacks_descriptors(config: &Config) -> Option<String> {
    let count = |program: &Arc<Program>| super::select::processes_of(program).len() as u64;
    let processes: u64 = config.programs.values().map(count).sum();
    let (limit, hard) = crate::os::limits::nofile();
    let needed = OWN_DESCRIPTORS + processes * DESCRIPTORS_PER_PROCESS;
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

/// Names the settings of the daemon itself that a running daemon cannot change.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.supervisor, &new.supervisor);
    let changed = [
        ("socket", old.socket != new.socket),
        ("state_dir", old.state_dir != new.state_dir),
        ("log", old.log != new.log),
        ("nofile", old.nofile != new.nofile),
    ];
    let mut warnings: Vec<_> = changed
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| {
            format!("`[supervisor] {key}` takes effect when the daemon is started again")
        })
        .collect();
    if old.log_dir != new.log_dir {
        warnings.push(format!(
            "`[supervisor] log_dir`: what runs goes on writing below `{}` until it is started again",
            old.log_dir.display()
        ));
    }
    warnings
}

fn describe(reloaded: &Reloaded) -> String {
    let part = |word: &str, names: &[String]| {
        (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
    };
    let parts: Vec<_> = [
        part("added", &reloaded.added),
        part("removed", &reloaded.removed),
        part("restarted", &reloaded.restarted),
        part("changed in place", &reloaded.updated),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "nothing changed".into() } else { parts.join("; ") }
}
