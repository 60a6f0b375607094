//! Checks that nobody has to be asked for: output, its absence, and signs of life.
//!
//! What they look at is at hand: the logs that the capture writes, the words that were heard, the
//! time at which a file was written. Files are read away from the loop.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use regex::bytes::Regex;

use super::super::core_loop::Engine;
use super::super::output::log_path;
use super::checks::Found;
use crate::capture::{Channel, LogReader};
use crate::config::{Bounds, HeartbeatLook, Level, LogLook, Look, SilenceLook, Sink};
use crate::core::care::evidence::ProbeFailure;
use crate::core::care::{CareEvent, CheckId, Target, Verdict};
use crate::core::text;
use crate::name::{ProcessName, RunId};
use crate::os::clock;
use crate::time::{Instant, Wall};

/// Lines that are read in one go.
const BATCH_LINES: usize = 500;
/// Batches that one run of a check reads; the next one goes on.
const MAX_BATCHES: usize = 400;

/// How a check is answered.
pub(super) enum Question {
    /// By asking.
    Ask,
    Answered(Found),
    Work(Work),
}

/// What has to be read for an answer.
pub(super) enum Work {
    Silence { look: SilenceLook, logs: Vec<PathBuf>, age: Duration },
    File { path: PathBuf, within: Duration, age: Duration },
    Lines { look: LogLook, watch: Arc<Mutex<LogWatch>>, since: Wall },
}

/// What is remembered between two runs of checks.
#[derive(Debug, Default)]
pub(super) struct Passive {
    /// The last sign of life of each process's run.
    beats: BTreeMap<ProcessName, (RunId, Instant)>,
    logs: BTreeMap<CheckId, (RunId, Arc<Mutex<LogWatch>>)>,
}

/// How far the logs of one run were read, and which lines of the last time matched.
#[derive(Debug)]
pub(super) struct LogWatch {
    logs: Vec<(PathBuf, Channel)>,
    readers: Vec<LogReader>,
    matches: VecDeque<Wall>,
}

impl Passive {
    pub(super) fn forget(&mut self, process: &ProcessName) {
        self.beats.remove(process);
        self.logs.retain(|check, _| check.target != Target::Process(process.clone()));
    }
}

impl Engine {
    /// Notes that a run has said that it is alive.
    pub(in crate::engine) fn note_beat(&mut self, run: RunId) {
        if let Some(hands) = self.runs.get(&run) {
            let beat = (run, clock::now());
            self.healing.passive.beats.insert(hands.process.clone(), beat);
        }
    }

    /// A run has said that its start takes so much longer.
    pub(in crate::engine) fn note_more_time(&mut self, run: RunId, time: Duration) {
        if let Some(hands) = self.runs.get(&run) {
            let target = Target::Process(hands.process.clone());
            self.healing.tell(CareEvent::MoreTime { target, until: clock::now() + time });
        }
    }

    /// Says how a check is answered.
    pub(super) fn question(&mut self, check: &CheckId, look: &Look) -> Question {
        match look {
            Look::Log(look) => self.question_of_lines(check, look),
            Look::Silence(look) => self.question_of_silence(check, look),
            Look::Heartbeat(look) => self.question_of_heartbeat(check, look),
            Look::Exec(_) | Look::Tcp(_) | Look::Http(_) | Look::Redis(_) => Question::Ask,
            Look::Postgres(_) | Look::Memory(_) | Look::Cpu(_) | Look::Fds(_) => Question::Ask,
            Look::Disk(_) | Look::Load(_) | Look::Pressure(_) => Question::Ask,
            Look::Process | Look::Certificate(_) => Question::Ask,
        }
    }

    /// Returns the living run of a target, and how old it is.
    fn living(&self, check: &CheckId) -> Option<(ProcessName, RunId, Duration)> {
        let Target::Process(process) = &check.target else { return None };
        let status = self.core.status(process)?;
        let age = status.uptime(clock::now())?;
        Some((process.clone(), status.run?, age))
    }

    /// Returns the logs of a process; none where its output goes nowhere.
    pub(super) fn logs_of(&self, process: &ProcessName) -> Vec<(PathBuf, Channel)> {
        let logs = self.config.programs.get(process.program()).map(|program| &program.logs);
        if logs.is_some_and(|logs| logs.sink == Sink::None) {
            return Vec::new();
        }
        let both = logs.is_some_and(|logs| !logs.merge_stderr);
        let streams =
            if both { &[Channel::Stdout, Channel::Stderr][..] } else { &[Channel::Stdout] };
        let place = |channel: &Channel| (log_path(&self.config, process, *channel), *channel);
        streams.iter().map(place).collect()
    }

    fn question_of_silence(&self, check: &CheckId, look: &SilenceLook) -> Question {
        let Some((process, _, age)) = self.living(check) else { return gone() };
        let logs: Vec<PathBuf> = self.logs_of(&process).into_iter().map(|(log, _)| log).collect();
        if logs.is_empty() {
            return Question::Answered(Found::unknown("its output goes nowhere"));
        }
        Question::Work(Work::Silence { look: look.clone(), logs, age })
    }

    fn question_of_heartbeat(&self, check: &CheckId, look: &HeartbeatLook) -> Question {
        let age = self.living(check).map(|(_, run, age)| (run, age));
        if let Some(path) = &look.file {
            // The host has been there for ever.
            let age = age.map_or(Duration::MAX, |(_, age)| age);
            return Question::Work(Work::File { path: path.clone(), within: look.within, age });
        }
        let (Target::Process(process), Some((run, age))) = (&check.target, age) else {
            return gone();
        };
        let beat = self.healing.passive.beats.get(process).filter(|(of, _)| *of == run);
        // What was said to an earlier brain is not known; this one has not listened for longer.
        let listened = clock::wall().since(self.started);
        let silent = match beat {
            Some((_, at)) => clock::now().since(*at),
            None => age.min(listened),
        };
        Question::Answered(judge_beat(silent, look.within, "`WATCHDOG=1` was last said"))
    }

    fn question_of_lines(&mut self, check: &CheckId, look: &LogLook) -> Question {
        let Some((process, run, age)) = self.living(check) else { return gone() };
        let logs = self.logs_of(&process);
        if logs.is_empty() {
            return Question::Answered(Found::unknown("its output goes nowhere"));
        }
        let fresh = || {
            let watch = LogWatch { logs, readers: Vec::new(), matches: VecDeque::new() };
            (run, Arc::new(Mutex::new(watch)))
        };
        let watches = &mut self.healing.passive.logs;
        if watches.get(check).is_none_or(|(of, _)| *of != run) {
            watches.insert(check.clone(), fresh());
        }
        let Some((_, watch)) = watches.get(check) else { return gone() };
        let since = back(age.min(look.within));
        Question::Work(Work::Lines { look: look.clone(), watch: Arc::clone(watch), since })
    }
}

fn gone() -> Question {
    Question::Answered(Found::unknown("it does not run"))
}

/// Returns the civil time so long ago.
fn back(time: Duration) -> Wall {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Wall(clock::wall().0.saturating_sub(millis))
}

impl Work {
    pub(super) async fn run(self) -> Found {
        let begun = clock::now();
        let work = move || match self {
            Self::Silence { look, logs, age } => silence(&look, &logs, age),
            Self::File { path, within, age } => match written(&path) {
                Ok(ago) => {
                    let what = format!("`{}` was last written", path.display());
                    judge_beat(ago.min(age), within, &what)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && age < within => {
                    found(Verdict::Pass, format!("`{}` is not there yet", path.display()))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    found(Verdict::Fail, format!("`{}` is not there", path.display()))
                }
                Err(error) => {
                    Found::unknown(format!("cannot look at `{}`: {error}", path.display()))
                }
            },
            Self::Lines { look, watch, since } => {
                let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
                match watch.read(&look, since) {
                    Ok(count) => judge_lines(&look, count),
                    Err(why) => Found::unknown(format!("its output cannot be read: {why}")),
                }
            }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(found) => Found { took: clock::now().since(begun), ..found },
            Err(error) => Found::unknown(format!("nobody could look: {error}")),
        }
    }
}

fn found(verdict: Verdict, sentence: String) -> Found {
    Found { verdict, sentence, failure: None, took: Duration::ZERO }
}

fn verdict(level: Level) -> Verdict {
    match level {
        Level::Good => Verdict::Pass,
        Level::Warn => Verdict::Warn,
        Level::Fail => Verdict::Fail,
    }
}

/// Names the bound that was reached.
fn bound<T: Copy>(bounds: &Bounds<T>, level: Level) -> Option<T> {
    match level {
        Level::Good => None,
        Level::Warn => bounds.warn,
        Level::Fail => bounds.fail,
    }
}

fn threshold(level: Level, what: &str, value: String, limit: String) -> Option<ProbeFailure> {
    let what = what.to_owned();
    (level == Level::Fail).then_some(ProbeFailure::Threshold { what, value, limit })
}

fn silence(look: &SilenceLook, logs: &[PathBuf], age: Duration) -> Found {
    let last = logs.iter().filter_map(|log| written(log).ok()).min();
    let silent = last.map_or(age, |last| last.min(age));
    let level = look.longest.of_most(silent);
    let shown = text::duration(silent);
    let sentence = match bound(&look.longest, level) {
        None => format!("last output {shown} ago"),
        Some(most) => format!("no output for {shown} (limit {})", text::duration(most)),
    };
    let limit = bound(&look.longest, level).map(text::duration).unwrap_or_default();
    let failure = threshold(level, "silence", shown, limit);
    Found { failure, ..found(verdict(level), sentence) }
}

fn judge_beat(silent: Duration, within: Duration, what: &str) -> Found {
    let (shown, limit) = (text::duration(silent), text::duration(within));
    let level = if silent > within { Level::Fail } else { Level::Good };
    let sentence = match level {
        Level::Good => format!("{what} {shown} ago"),
        Level::Warn | Level::Fail => format!("{what} {shown} ago (limit {limit})"),
    };
    let failure = threshold(level, "sign of life", shown, limit);
    Found { failure, ..found(verdict(level), sentence) }
}

fn judge_lines(look: &LogLook, count: usize) -> Found {
    let level = look.count.of_most(u32::try_from(count).unwrap_or(u32::MAX));
    let within = text::duration(look.within);
    let lines = if count == 1 { "line" } else { "lines" };
    let mut sentence = format!("{count} {lines} of the last {within} match `{}`", look.pattern);
    let limit = bound(&look.count, level).map(|limit| limit.to_string());
    if let Some(limit) = &limit {
        sentence.push_str(&format!(" (limit {limit})"));
    }
    let value = format!("{count} in {within}");
    let failure = threshold(level, "matching lines", value, limit.unwrap_or_default());
    Found { failure, ..found(verdict(level), sentence) }
}

/// Returns how long ago a file was last written; zero when that is to come by this clock.
fn written(path: &std::path::Path) -> io::Result<Duration> {
    let written = std::fs::metadata(path)?.modified()?;
    Ok(SystemTime::now().duration_since(written).unwrap_or_default())
}

impl LogWatch {
    /// Reads on, and returns how many lines since then match.
    fn read(&mut self, look: &LogLook, since: Wall) -> Result<usize, String> {
        let pattern = Regex::new(&look.pattern).map_err(|error| error.to_string())?;
        if self.readers.is_empty() {
            for (log, channel) in &self.logs {
                let mut reader =
                    LogReader::open(log, *channel).map_err(|error| error.to_string())?;
                reader.since(since).map_err(|error| error.to_string())?;
                self.readers.push(reader);
            }
        }
        // More than the highest bound says nothing new.
        let most = look.count.warn.max(look.count.fail).unwrap_or(1);
        let most = usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1);
        for reader in &mut self.readers {
            for _ in 0..MAX_BATCHES {
                let lines = reader.next_lines(BATCH_LINES).map_err(|error| error.to_string())?;
                let is_all = lines.len() < BATCH_LINES;
                for line in lines {
                    let bytes = line.bytes.strip_suffix(b"\r").unwrap_or(&line.bytes);
                    if pattern.is_match(bytes) {
                        self.matches.push_back(line.at.unwrap_or_else(clock::wall));
                    }
                }
                if is_all {
                    break;
                }
            }
        }
        self.matches.retain(|at| *at >= since);
        let surplus = self.matches.len().saturating_sub(most);
        self.matches.drain(..surplus);
        Ok(self.matches.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_that_of_the_log_and_never_longer_than_the_run() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        std::fs::write(&log, "old").unwrap();
        let hour = SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::options().write(true).open(&log).unwrap().set_modified(hour).unwrap();
        let minutes = |number: u64| Some(Duration::from_secs(number * 60));
        let look = SilenceLook { longest: Bounds { warn: minutes(10), fail: minutes(30) } };
        let at = |age| silence(&look, std::slice::from_ref(&log), Duration::from_secs(age));
        assert_eq!(at(60).sentence, "last output 1 min ago");
        assert_eq!(at(1_200).verdict, Verdict::Warn);
        let found = at(7_200);
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.sentence.ends_with("(limit 30 min)"), "{}", found.sentence);
        assert!(found.failure.is_some());
    }

    #[test]
    fn a_sign_of_life_may_be_as_old_as_its_limit() {
        let second = Duration::from_secs(1);
        assert_eq!(judge_beat(second, second, "it").verdict, Verdict::Pass);
        let late = judge_beat(second * 2, second, "`/run/beat` was last written");
        assert_eq!(late.verdict, Verdict::Fail);
        assert_eq!(late.sentence, "`/run/beat` was last written 2 s ago (limit 1 s)");
    }

    #[test]
    fn matching_lines_are_counted_once_and_forgotten_with_time() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let look = LogLook {
            pattern: "ERROR".into(),
            count: Bounds { warn: None, fail: Some(3) },
            within: Duration::from_secs(60),
        };
        let logs = vec![(log.clone(), Channel::Stdout)];
        let mut watch = LogWatch { logs, readers: Vec::new(), matches: VecDeque::new() };
        std::fs::write(&log, "ERROR one\nfine\nERROR two\r\n").unwrap();
        assert_eq!(watch.read(&look, Wall(0)), Ok(2));
        assert_eq!(watch.read(&look, Wall(0)), Ok(2));
        let more = "ERROR three\n".repeat(700);
        let mut file = std::fs::File::options().append(true).open(&log).unwrap();
        io::Write::write_all(&mut file, more.as_bytes()).unwrap();
        assert_eq!(watch.read(&look, Wall(0)), Ok(4));
        assert_eq!(judge_lines(&look, 4).verdict, Verdict::Fail);
        assert_eq!(watch.read(&look, Wall(i64::MAX)), Ok(0));
        assert_eq!(judge_lines(&look, 1).sentence, "1 line of the last 1 min match `ERROR`");
    }
}
