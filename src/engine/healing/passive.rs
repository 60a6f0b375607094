//! The signs of life that nobody has to ask for: output, its absence, and what a run says of
//! itself.
//!
//! They are at hand: the logs that the capture writes, and the words that were heard. Logs are read
//! away from the loop, and each line once.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::super::core_loop::Engine;
use super::super::output::log_path;
use crate::capture::{Channel, LogReader};
use crate::config::{LogLook, Look, Sink};
use crate::core::care::{CareEvent, CheckId, Target};
use crate::name::{ProcessName, RunId};
use crate::os::clock;
use crate::probe::{MatchCounter, ProcessSubject};
use crate::time::{Instant, Wall};

/// Lines that are read in one go.
const BATCH_LINES: usize = 500;
/// Batches that one run of a check reads; the next one goes on.
const MAX_BATCHES: usize = 400;

/// What has to be read before a check of a process can judge.
#[derive(Debug)]
pub(super) enum Signs {
    /// Its output goes nowhere.
    Nothing,
    /// When it has written last.
    Output { logs: Vec<PathBuf>, age: Duration },
    /// Which lines match.
    Lines { watch: Arc<Mutex<LogWatch>>, since: Wall },
    /// When it has last said that it is alive.
    Beat(Duration),
}

/// What is remembered between two runs of checks.
#[derive(Debug, Default)]
pub(super) struct Passive {
    /// The last sign of life of each process's run.
    beats: BTreeMap<ProcessName, (RunId, Instant)>,
    logs: BTreeMap<CheckId, (RunId, LogLook, Arc<Mutex<LogWatch>>)>,
}

/// How far the logs of one run were read, and how many lines have matched of late.
#[derive(Debug)]
pub(super) struct LogWatch {
    logs: Vec<(PathBuf, Channel)>,
    readers: Vec<LogReader>,
    counter: MatchCounter,
    within: Duration,
    /// It could not read to the end the last time.
    is_behind: bool,
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

    /// Returns what a check of a process has to read first, if it goes by signs of life.
    pub(super) fn signs(&mut self, check: &CheckId, look: &Look) -> Option<Signs> {
        let Target::Process(process) = &check.target else { return None };
        let status = self.core.status(process)?;
        let (run, age) = (status.run?, status.uptime(clock::now())?);
        match look {
            Look::Silence(_) => {
                let logs: Vec<PathBuf> =
                    self.logs_of(process).into_iter().map(|(log, _)| log).collect();
                Some(if logs.is_empty() { Signs::Nothing } else { Signs::Output { logs, age } })
            }
            Look::Log(look) => Some(self.lines(check, process, run, age, look)),
            Look::Heartbeat(_) => Some(Signs::Beat(self.beat_age(process, run, age))),
            Look::Exec(_) | Look::Tcp(_) | Look::Http(_) | Look::Redis(_) => None,
            Look::Postgres(_) | Look::Memory(_) | Look::Cpu(_) | Look::Fds(_) => None,
            Look::Disk(_) | Look::Load(_) | Look::Pressure(_) => None,
            Look::Process | Look::Certificate(_) => None,
        }
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

    fn beat_age(&self, process: &ProcessName, run: RunId, age: Duration) -> Duration {
        match self.healing.passive.beats.get(process).filter(|(of, _)| *of == run) {
            Some((_, at)) => clock::now().since(*at),
            // What was said to an earlier brain is not known; this one has not listened for longer.
            None => age.min(clock::wall().since(self.started)),
        }
    }

    fn lines(
        &mut self,
        check: &CheckId,
        process: &ProcessName,
        run: RunId,
        age: Duration,
        look: &LogLook,
    ) -> Signs {
        let logs = self.logs_of(process);
        let watches = &mut self.healing.passive.logs;
        let known = watches.get(check).filter(|(of, how, _)| *of == run && how == look);
        let watch = match known {
            Some((_, _, watch)) => Arc::clone(watch),
            None => {
                let Ok(counter) = MatchCounter::new(look) else { return Signs::Nothing };
                let watch = LogWatch::new(logs, counter, look.within);
                let watch = Arc::new(Mutex::new(watch));
                watches.insert(check.clone(), (run, look.clone(), Arc::clone(&watch)));
                watch
            }
        };
        let millis = i64::try_from(age.min(look.within).as_millis()).unwrap_or(i64::MAX);
        Signs::Lines { watch, since: Wall(clock::wall().0.saturating_sub(millis)) }
    }
}

impl Signs {
    /// Reads them into what is known of the process.
    ///
    /// # Errors
    ///
    /// A sentence on why they cannot be read.
    pub(super) async fn read_into(self, process: &mut ProcessSubject) -> Result<(), String> {
        match self {
            Self::Nothing => return Err("its output goes nowhere".to_owned()),
            Self::Beat(age) => process.watchdog_age = age,
            Self::Output { logs, age } => {
                let last = move || logs.iter().filter_map(|log| written(log).ok()).min();
                let last = tokio::task::spawn_blocking(last).await.map_err(given_up)?;
                process.quiet_for = last.map_or(age, |last| last.min(age));
            }
            Self::Lines { watch, since } => {
                let count = move || {
                    let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
                    watch.count(since)
                };
                let count = tokio::task::spawn_blocking(count).await.map_err(given_up)?;
                process.matches =
                    count.map_err(|error| format!("its output cannot be read: {error}"))?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn given_up(error: tokio::task::JoinError) -> String {
    format!("the look was given up: {error}")
}

/// Returns how long ago a file was last written; zero when that is to come by this clock.
fn written(path: &std::path::Path) -> io::Result<Duration> {
    let written = std::fs::metadata(path)?.modified()?;
    Ok(SystemTime::now().duration_since(written).unwrap_or_default())
}

impl LogWatch {
    fn new(logs: Vec<(PathBuf, Channel)>, counter: MatchCounter, within: Duration) -> Self {
        Self { logs, readers: Vec::new(), counter, within, is_behind: false }
    }

    /// Passes over what is too old to count, so that a flood does not hide what is printed now.
    fn catch_up(&mut self) -> io::Result<()> {
        let within = i64::try_from(self.within.as_millis()).unwrap_or(i64::MAX);
        let since = Wall(clock::wall().0.saturating_sub(within));
        for reader in &mut self.readers {
            let here = reader.cursor();
            reader.since(since)?;
            if reader.cursor() < here {
                reader.seek(here)?;
            }
        }
        Ok(())
    }

    /// Reads on, and returns how many lines of late match; the first time from `since` on.
    fn count(&mut self, since: Wall) -> io::Result<u32> {
        if std::mem::take(&mut self.is_behind) {
            self.catch_up()?;
        }
        if self.readers.is_empty() {
            for (log, channel) in &self.logs {
                let mut reader = LogReader::open(log, *channel)?;
                reader.since(since)?;
                self.readers.push(reader);
            }
        }
        let now = (clock::now(), clock::wall());
        let mut lines = Vec::new();
        for reader in &mut self.readers {
            let mut is_all = false;
            for _ in 0..MAX_BATCHES {
                let more = reader.next_lines(BATCH_LINES)?;
                is_all = more.len() < BATCH_LINES;
                lines.extend(more.into_iter().map(|line| {
                    let ago = line.at.map(|at| now.1.since(at)).unwrap_or_default();
                    (now.0 - ago, line.bytes)
                }));
                if is_all {
                    break;
                }
            }
            self.is_behind |= !is_all;
        }
        lines.sort_by_key(|(at, _)| *at);
        lines.iter().for_each(|(at, line)| self.counter.see(line, *at));
        Ok(self.counter.count(now.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bounds;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    }

    #[test]
    fn silence_is_that_of_the_log_and_never_longer_than_the_run() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        std::fs::write(&log, "old").unwrap();
        let hour = SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::options().write(true).open(&log).unwrap().set_modified(hour).unwrap();
        let quiet = |age| {
            let mut process = ProcessSubject::new(1);
            let age = Duration::from_secs(age);
            let signs = Signs::Output { logs: vec![log.clone()], age };
            block_on(signs.read_into(&mut process)).unwrap();
            process.quiet_for.as_secs()
        };
        assert_eq!((quiet(60), quiet(7_200)), (60, 3_600));
    }

    #[test]
    fn what_writes_nowhere_cannot_be_judged_by_its_output() {
        let refused = block_on(Signs::Nothing.read_into(&mut ProcessSubject::new(1)));
        assert_eq!(refused.unwrap_err(), "its output goes nowhere");
    }

    #[test]
    fn matching_lines_are_counted_once_and_of_all_streams_together() {
        let place = tempfile::tempdir().unwrap();
        let log = |name: &str| place.path().join(name);
        let look = LogLook {
            pattern: "ERROR".into(),
            count: Bounds { warn: None, fail: Some(9) },
            within: Duration::from_secs(60),
        };
        let logs = vec![(log("out"), Channel::Stdout), (log("err"), Channel::Stderr)];
        let mut watch = LogWatch::new(logs, MatchCounter::new(&look).unwrap(), look.within);
        std::fs::write(log("out"), "ERROR one\nfine\n").unwrap();
        std::fs::write(log("err"), "ERROR two\r\n").unwrap();
        assert_eq!(watch.count(Wall(0)).unwrap(), 2);
        assert_eq!(watch.count(Wall(0)).unwrap(), 2);
        let mut file = std::fs::File::options().append(true).open(log("err")).unwrap();
        io::Write::write_all(&mut file, "ERROR\n".repeat(700).as_bytes()).unwrap();
        assert_eq!(watch.count(Wall(0)).unwrap(), 9);
    }

    #[test]
    fn a_flood_that_cannot_be_read_in_one_go_does_not_hide_what_comes_after_it() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let look = LogLook {
            pattern: "ERROR".into(),
            count: Bounds { warn: None, fail: Some(9) },
            within: Duration::from_millis(20),
        };
        let counter = MatchCounter::new(&look).unwrap();
        let logs = vec![(log.clone(), Channel::Stdout)];
        let mut watch = LogWatch::new(logs, counter, look.within);
        std::fs::write(&log, "x\n".repeat(BATCH_LINES * MAX_BATCHES + 1)).unwrap();
        assert_eq!(watch.count(Wall(0)).unwrap(), 0);
        assert!(watch.is_behind);
        // Without an index all of a file is as old as its last byte.
        let hour = SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::options().write(true).open(&log).unwrap().set_modified(hour).unwrap();
        watch.catch_up().unwrap();
        let mut file = std::fs::File::options().append(true).open(&log).unwrap();
        io::Write::write_all(&mut file, b"ERROR\n").unwrap();
        assert_eq!((watch.count(Wall(0)).unwrap(), watch.is_behind), (1, false));
    }
}
