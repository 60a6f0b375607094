//! What the engine writes down, and the trouble it has with it. No trouble stops supervision.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::broadcast;
use tracing::warn;

use super::accepted::Accepted;
use super::kept::Kept;
use super::print::Print;
use super::{Happening, HappeningKind, active};
use crate::core::care::{HostFacts, Target, TargetFacts};
use crate::core::{Actor, Snapshot, Switch};
use crate::name::{ProcessName, ProgramName, RunId};
use crate::store::acts::{self, AcceptedAct};
use crate::store::generations::Generations;
use crate::store::goals::{self, SetGoal};
use crate::store::journal::{Journal, State};
use crate::store::runs::RunFiles;
use crate::store::sources::Active;
use crate::store::{Note, care, decisions, events::EventLog, switches};
use crate::time::Wall;

/// Key of the next run's number in the journal; no process can be called so.
const NEXT_RUN: &str = "!next-run";

/// Key of the shutdown that is under way.
const SHUTDOWN: &str = "!shutdown";

/// Key of what operators enabled and disabled, for a brain that comes back on this boot.
const SWITCHES: &str = "!switches";

/// Key of what watched files were like when their programs got their last renewal.
const PRINTS: &str = "!watched";

/// Before the key of an act that was accepted.
const ACT: &str = "!act ";

/// Key of what the healer remembers of the host; of a target its name follows.
const CARE: &str = "!care";

/// All that is written down.
pub(super) struct Books {
    runtime_dir: PathBuf,
    journal: Journal,
    events: EventLog,
    listeners: broadcast::Sender<Arc<Happening>>,
    goals: Kept,
    switches: Kept,
    /// The switches as they are in the journal.
    switches_noted: Vec<u8>,
    /// The prints of watched files as they are in the journal.
    prints_noted: Vec<u8>,
    files: RunFiles,
    pub(super) generations: Generations,
    pub(super) accepted: Accepted,
    journal_trouble: Option<String>,
}

/// What an earlier brain left.
pub(super) struct Past {
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) next_run: RunId,
    pub(super) goals: Vec<SetGoal>,
    pub(super) switches: BTreeMap<ProgramName, Switch>,
    pub(super) prints: BTreeMap<ProgramName, Print>,
    /// Who ended the daemon, and its exit code, when the brain died in the middle of it.
    pub(super) shutdown: Option<(Actor, u8)>,
    /// Acts whose clients may ask again.
    acts: Vec<AcceptedAct>,
    /// What the healer remembered, of the host and of each target.
    pub(super) care: Option<(HostFacts, Vec<TargetFacts>)>,
    pub(super) notes: Vec<Note>,
}

/// What is read in the runtime directory, which needs no configuration.
pub(crate) struct Papers {
    files: RunFiles,
    journal: Journal,
    events: EventLog,
    past: Past,
    switches_noted: Vec<u8>,
    rebooted: bool,
}

impl Papers {
    /// Reads everything; for the brain that has the lock.
    ///
    /// # Errors
    ///
    /// Only when runs could not be recorded, because then nothing could be adopted safely.
    pub(crate) fn read(runtime_dir: &Path) -> std::io::Result<Self> {
        let rebooted = wipe_after_reboot(runtime_dir);
        let (files, mut notes) = RunFiles::new(runtime_dir)?;
        let (journal, state, more) = Journal::open(runtime_dir);
        notes.extend(more);
        let (events, more) = EventLog::open(runtime_dir);
        notes.extend(more);
        let mut past = Past {
            snapshots: Vec::new(),
            next_run: RunId(1),
            goals: Vec::new(),
            switches: BTreeMap::new(),
            prints: BTreeMap::new(),
            shutdown: None,
            acts: Vec::new(),
            care: None,
            notes: Vec::new(),
        };
        past.read_journal(&state, runtime_dir, &mut notes);
        past.notes = notes;
        let switches_noted = state.get(SWITCHES).map(|body| body.to_vec()).unwrap_or_default();
        Ok(Self { files, journal, events, past, switches_noted, rebooted })
    }
}

impl Books {
    /// Opens everything in the state directory, beside what was read in the runtime directory.
    pub(super) fn open(
        runtime_dir: &Path,
        state_dir: &Path,
        listeners: broadcast::Sender<Arc<Happening>>,
        papers: Papers,
    ) -> (Self, Past) {
        let Papers { files, journal, events, mut past, switches_noted, rebooted } = papers;
        let mut notes = std::mem::take(&mut past.notes);
        let goals = Kept::open(&state_dir.join("goals"), goals::VERSION, "goals", &mut notes);
        let file = state_dir.join("switches");
        let switches = Kept::open(&file, switches::VERSION, "switches", &mut notes);
        let (generations, mut more) = Generations::open(state_dir);
        if !generations.is_writable() {
            more.pop(); // Told as trouble, which may be over one day.
        }
        notes.extend(more);
        if rebooted {
            tracing::info!("the machine has been started again since the last run");
        }
        let body = if switches_noted.is_empty() { switches.written() } else { &switches_noted };
        if !body.is_empty() {
            match switches::decode(body) {
                Ok(switches) => past.switches = switches,
                Err(error) => notes.push(Note {
                    file,
                    text: format!("what was enabled and disabled is not understood: {error}"),
                }),
            }
        }
        if !goals.written().is_empty() {
            match goals::decode(goals.written()) {
                Ok(goals) => past.goals = goals,
                Err(error) => notes.push(Note {
                    file: state_dir.join("goals"),
                    text: format!("the goals that were set are not understood: {error}"),
                }),
            }
        }
        past.notes = notes;
        let books = Self {
            runtime_dir: runtime_dir.to_path_buf(),
            journal,
            events,
            listeners,
            goals,
            switches,
            switches_noted,
            prints_noted: Vec::new(),
            files,
            generations,
            accepted: Accepted::from_before(std::mem::take(&mut past.acts)),
            journal_trouble: None,
        };
        (books, past)
    }

    pub(super) fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    pub(super) fn files(&self) -> &RunFiles {
        &self.files
    }

    /// Writes down what was decided about a process.
    pub(super) fn keep(&mut self, process: &ProcessName, snapshot: &Snapshot) {
        let result = decisions::encode(snapshot)
            .map_err(std::io::Error::other)
            .and_then(|body| self.journal.put(&process.to_string(), &body));
        self.journal_result(result);
    }

    /// Forgets a process.
    pub(super) fn forget(&mut self, process: &ProcessName) {
        let result = self.journal.delete(&process.to_string());
        self.journal_result(result);
    }

    /// Makes sure that no later brain gives a number twice.
    pub(super) fn note_next_run(&mut self, next: RunId) {
        let result = self.journal.put(NEXT_RUN, next.to_string().as_bytes());
        self.journal_result(result);
    }

    /// Writes down an act before it is carried out, and forgets older ones.
    pub(super) fn keep_act(&mut self, act: AcceptedAct) {
        let result = self.journal.put(&act_key(&act.key), &acts::encode(&act));
        self.journal_result(result);
        for key in self.accepted.add(act) {
            let result = self.journal.delete(&act_key(&key));
            self.journal_result(result);
        }
    }

    /// Writes down that the daemon is ending, so that the next brain goes on with it.
    pub(super) fn note_shutdown(&mut self, by: &Actor, code: u8) {
        let result = self.journal.put(SHUTDOWN, &goals::encode_shutdown(by, code));
        self.journal_result(result);
    }

    /// Writes down what the healer remembers of a target.
    pub(super) fn keep_care(&mut self, facts: &TargetFacts) {
        let key = care_key(&facts.target);
        let result = self.journal.put(&key, &care::encode_target(facts));
        self.journal_result(result);
    }

    /// Writes down what the healer remembers of the host.
    pub(super) fn keep_care_of_host(&mut self, facts: &HostFacts) {
        let result = self.journal.put(CARE, &care::encode_host(facts));
        self.journal_result(result);
    }

    /// Forgets what the healer remembered of a target.
    pub(super) fn forget_care(&mut self, target: &Target) {
        let result = self.journal.delete(&care_key(target));
        self.journal_result(result);
    }

    /// Forgets all that the healer remembered: it is in the state directory.
    pub(super) fn close_care(&mut self, targets: &[Target]) {
        targets.iter().for_each(|target| self.forget_care(target));
        let result = self.journal.delete(CARE);
        self.journal_result(result);
    }

    fn journal_result(&mut self, result: std::io::Result<()>) {
        self.journal_trouble = result.err().map(|error| {
            format!(
                "decisions cannot be written to `{}` ({error}): they are kept in memory and \
                 would be lost with the daemon",
                self.runtime_dir.display()
            )
        });
    }

    /// Returns the present trouble with the journal.
    pub(super) fn trouble(&self) -> Option<String> {
        self.journal_trouble.clone()
    }

    /// Returns the present trouble with the goals.
    pub(super) fn goals_trouble(&self) -> Option<String> {
        self.goals.trouble()
    }

    /// Returns the present trouble with the switches.
    pub(super) fn switches_trouble(&self) -> Option<String> {
        self.switches.trouble()
    }

    /// Writes the goals that operators set, if they changed.
    pub(super) fn keep_goals(&mut self, goals: &[SetGoal]) {
        self.goals.write(goals::encode(goals));
    }

    /// Writes what operators enabled and disabled, if it changed.
    pub(super) fn keep_switches(&mut self, switches: &BTreeMap<ProgramName, Switch>) {
        let body = switches::encode(switches);
        if body != self.switches_noted {
            let result = self.journal.put(SWITCHES, &body);
            self.journal_result(result);
            self.switches_noted = body.clone();
        }
        self.switches.write(body);
    }

    /// Keeps what watched files are like.
    pub(super) fn keep_prints(&mut self, prints: &BTreeMap<ProgramName, Print>) {
        let named: BTreeMap<&str, (u32, u32)> =
            prints.iter().map(|(program, print)| (program.as_str(), print.parts())).collect();
        let body = serde_json::to_vec(&named).unwrap_or_default();
        if body != self.prints_noted {
            let result = self.journal.put(PRINTS, &body);
            self.journal_result(result);
            self.prints_noted = body;
        }
    }

    /// Keeps what is active.
    ///
    /// # Errors
    ///
    /// A sentence that says what follows from it.
    pub(super) fn keep_active(&mut self, active: &Active) -> Result<(), String> {
        active::keep(&self.runtime_dir, active).map_err(|error| {
            let message = format!(
                "the active configuration cannot be kept in `{}` ({error}): a brain that comes \
                 back would go on with the one before",
                self.runtime_dir.display()
            );
            warn!("{message}");
            message
        })
    }

    /// Reads what is active as it was kept.
    pub(super) fn active(&self) -> Option<Active> {
        active::read(&self.runtime_dir)
    }

    /// Removes what is left of a run on disk.
    pub(super) fn close_run(&self, run: RunId) {
        self.files.remove(run);
    }

    /// Forgets everything that only a next brain would want: the daemon ends in order, and the
    /// next one begins to count anew. Goals are in the state directory; where they could not be
    /// written there, the decisions stay.
    pub(super) fn close(&mut self, processes: &[ProcessName]) {
        if self.goals_trouble().is_none() {
            processes.iter().for_each(|process| self.forget(process));
        }
        if self.switches_trouble().is_none() {
            let result = self.journal.delete(SWITCHES);
            self.journal_result(result);
        }
        let acts: Vec<String> = self.accepted.keys().map(act_key).collect();
        for key in acts {
            let result = self.journal.delete(&key);
            self.journal_result(result);
        }
        active::forget(&self.runtime_dir);
        self.forget_shutdown();
    }

    /// Forgets that the daemon was ending.
    pub(super) fn forget_shutdown(&mut self) {
        let result = self.journal.delete(SHUTDOWN);
        self.journal_result(result);
    }

    /// Writes an event down and tells those who listen; returns its id.
    pub(super) fn happened(&mut self, at: Wall, kind: HappeningKind) -> u64 {
        let happening = self.events.append(at, kind);
        let id = happening.id;
        // Nobody listens most of the time.
        let _ = self.listeners.send(happening);
        id
    }

    /// Returns the id of the newest event.
    pub(super) fn last_event(&self) -> u64 {
        self.events.last_id()
    }

    pub(super) fn events_after(&mut self, id: u64) -> Vec<Arc<Happening>> {
        self.events.after(id)
    }
}

impl Past {
    /// Reads what the healer remembered; without the host's part there is none of this boot.
    fn read_care(&mut self, state: &State, runtime_dir: &Path, notes: &mut Vec<Note>) {
        let mut note = |key: &str, error: care::CareError| {
            notes.push(Note {
                file: runtime_dir.join("journal"),
                text: format!("what was remembered as `{key}` is not understood: {error}"),
            });
        };
        let Some(host) = state.get(CARE) else { return };
        let host = care::decode_host(host).unwrap_or_else(|error| {
            note(CARE, error);
            HostFacts::default()
        });
        let mut targets = Vec::new();
        for (key, body) in state.iter().filter(|(key, _)| key.starts_with("!care ")) {
            match care::decode_target(body) {
                Ok(facts) => targets.push(facts),
                Err(error) => note(key, error),
            }
        }
        self.care = Some((host, targets));
    }

    fn read_journal(&mut self, state: &State, runtime_dir: &Path, notes: &mut Vec<Note>) {
        self.read_care(state, runtime_dir, notes);
        for (key, body) in state {
            if key.starts_with(CARE) {
                continue;
            }
            if key == NEXT_RUN {
                let number = std::str::from_utf8(body).ok().and_then(|text| text.parse().ok());
                self.next_run = RunId(number.unwrap_or(1));
                continue;
            }
            if key == SHUTDOWN {
                self.shutdown = goals::decode_shutdown(body);
                continue;
            }
            if key == SWITCHES {
                continue;
            }
            if let Some(key) = key.strip_prefix(ACT) {
                self.acts.extend(acts::decode(key, body));
                continue;
            }
            if key == PRINTS {
                // Without it a change that nobody saw is not acted on, no more.
                let named: BTreeMap<String, (u32, u32)> =
                    serde_json::from_slice(body).unwrap_or_default();
                self.prints = named
                    .into_iter()
                    .filter_map(|(name, parts)| {
                        Some((name.parse().ok()?, Print::from_parts(parts)))
                    })
                    .collect();
                continue;
            }
            match decisions::decode(body) {
                Ok(snapshot) => self.snapshots.push(snapshot),
                Err(error) => notes.push(Note {
                    file: runtime_dir.join("journal"),
                    text: format!("what was decided about `{key}` is not understood: {error}"),
                }),
            }
        }
    }
}

fn act_key(key: &str) -> String {
    format!("{ACT}{key}")
}

fn care_key(target: &Target) -> String {
    format!("{CARE} {}", care::name_of(target))
}

/// Removes decisions of another boot: their times and pids mean nothing any more.
///
/// Matters only where the runtime directory is not on tmpfs.
fn wipe_after_reboot(runtime_dir: &Path) -> bool {
    let rebooted = is_of_another_boot(runtime_dir);
    if rebooted {
        for name in ["journal.0", "journal.1", "active.json"] {
            let _ = std::fs::remove_file(runtime_dir.join(name));
        }
    }
    rebooted
}

/// Whether what is in the runtime directory was written before the machine was started.
pub(super) fn is_of_another_boot(runtime_dir: &Path) -> bool {
    let written = std::fs::read_to_string(runtime_dir.join("boot_id")).unwrap_or_default();
    !written.trim().is_empty()
        && crate::os::proc::boot_id().is_some_and(|current| current != written.trim())
}
