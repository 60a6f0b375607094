//! Looks after runs that are not ready yet, from outside: probes, and the lines of their output.
//!
//! There is a look-out exactly as long as the core waits for a run and its program's `ready` asks
//! for one; what it sees goes to the core as an event. Nothing has to be remembered: the next
//! brain looks again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

use super::commands::Surroundings;
use super::core_loop::Engine;
use super::launch::Job;
use super::output::log_path;
use super::run::{Mark, Run};
use crate::capture::{Followers, LogReader};
use crate::config::{Probing, Ready};
use crate::core::{Event, Word};
use crate::name::{ProcessName, RunId};
use crate::os::clock;
use crate::probe::{self, Verdict};
use crate::time::Wall;

/// From the first probe to the second, where nothing is said.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest time from one probe to the next, where nothing is said.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Lines that are looked at in one go.
const BATCH_LINES: usize = 500;

/// What a look-out has seen of a run.
#[derive(Debug)]
pub(super) struct Seen {
    run: RunId,
    what: Sight,
}

#[derive(Debug)]
enum Sight {
    Ready,
    NotYet(String),
}

/// All look-outs.
#[derive(Debug)]
pub(super) struct Lookouts {
    posted: BTreeMap<ProcessName, Lookout>,
    sender: UnboundedSender<Seen>,
}

#[derive(Debug)]
struct Lookout {
    run: RunId,
    ready: Ready,
    /// One for each stream of output that is looked at, or one for all probes.
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Lookouts {
    pub(super) fn new() -> (Self, UnboundedReceiver<Seen>) {
        let (sender, receiver) = unbounded_channel();
        (Self { posted: BTreeMap::new(), sender }, receiver)
    }

    /// Takes down the look-out for a process.
    pub(super) fn dismiss(&mut self, process: &ProcessName) {
        self.posted.remove(process);
    }

    pub(super) fn dismiss_all(&mut self) {
        self.posted.clear();
    }
}

impl Engine {
    /// Posts or takes down the look-out for a process, as the core's state asks for.
    pub(super) fn attend(&mut self, process: &ProcessName) {
        let Some((run, program)) = self.core.unready(process) else {
            return self.lookouts.dismiss(process);
        };
        let Some(ready) = program.lifecycle.ready.as_ref() else { return };
        let posted = self.lookouts.posted.get(process);
        if posted.is_some_and(|lookout| lookout.run == run && lookout.ready == *ready) {
            return;
        }
        let (ready, program) = (ready.clone(), Arc::clone(program));
        self.lookouts.dismiss(process);
        let tasks = match &ready {
            // The run says so itself, or time does.
            Ready::Notify | Ready::Descriptor(_) | Ready::After(_) => return,
            Ready::Log(pattern) => match self.watch_output(run, pattern) {
                Some(tasks) => tasks,
                None => return,
            },
            Ready::Probe(probing) => {
                let of = Job::new(run, process.clone(), program);
                let surroundings =
                    Surroundings { of, door: self.jobs.door(), variables: Vec::new() };
                let sender = self.lookouts.sender.clone();
                let probes = probe_until_ready(run, probing.clone(), surroundings, sender);
                vec![AbortOnDropHandle::new(tokio::spawn(probes))]
            }
        };
        let lookout = Lookout { run, ready, _tasks: tasks };
        self.lookouts.posted.insert(process.clone(), lookout);
    }

    /// Does so for all: what is waited for may have changed in place.
    pub(super) fn attend_all(&mut self) {
        let processes: Vec<_> = self.core.names().cloned().collect();
        processes.iter().for_each(|process| self.attend(process));
    }

    /// Watches every stream of a run's output; `None` until it is known where they begin.
    fn watch_output(&self, run: RunId, pattern: &str) -> Option<Vec<AbortOnDropHandle<()>>> {
        let hands = self.runs.get(&run)?;
        let marks = match hands.wants_marks {
            true if hands.marks.len() < hands.pipes.len() => return None,
            true => hands.marks.clone(),
            // Its output is of interest only since the configuration has changed.
            false => self.marks_by_time(hands),
        };
        let pattern = Arc::new(Regex::new(pattern).ok()?);
        let watch = |mark: &Mark| {
            let watch = Watch {
                run,
                mark: mark.clone(),
                pattern: Arc::clone(&pattern),
                followers: self.pump.followers(),
                sender: self.lookouts.sender.clone(),
            };
            AbortOnDropHandle::new(tokio::spawn(watch.run()))
        };
        Some(marks.iter().map(watch).collect())
    }

    /// Returns where a run's output begins as exactly as the times in its logs tell.
    fn marks_by_time(&self, hands: &Run) -> Vec<Mark> {
        let status = self.core.status(&hands.process);
        let age = status.and_then(|status| status.uptime(clock::now())).unwrap_or_default();
        let millis = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let born = Wall(clock::wall().0.saturating_sub(millis));
        let place = |channel| {
            let log = log_path(&self.config, &hands.process, channel);
            let mut reader = LogReader::open(&log, channel).ok()?;
            reader.since(born).ok()?;
            Some(Mark { log, channel, from: reader.cursor() })
        };
        hands.pipes.iter().filter_map(|(channel, _)| place(*channel)).collect()
    }

    /// Tells the core what a look-out has seen.
    pub(super) fn on_seen(&mut self, seen: Seen) {
        let run = seen.run;
        self.tell(match seen.what {
            Sight::Ready => Event::Ready { run },
            Sight::NotYet(text) => Event::Told { run, word: Word::Look(text) },
        });
    }
}

/// Probes a run until it is ready, quickly at first.
async fn probe_until_ready(
    run: RunId,
    probing: Probing,
    surroundings: Surroundings,
    sender: UnboundedSender<Seen>,
) {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let begun = clock::now();
        let report = probe::ask(&probing.probe, probing.timeout, &surroundings).await;
        match report.verdict {
            Verdict::Pass | Verdict::Warn => {
                let _ = sender.send(Seen { run, what: Sight::Ready });
                return;
            }
            Verdict::Fail | Verdict::Timeout | Verdict::Unknown => {
                if report.sentence != said {
                    report.sentence.clone_into(&mut said);
                    let what = Sight::NotYet(report.sentence);
                    if sender.send(Seen { run, what }).is_err() {
                        return;
                    }
                }
            }
        }
        let next = begun + probing.interval.unwrap_or(pause);
        pause = (pause * 8 / 5).min(LONGEST_PAUSE);
        tokio::time::sleep_until(clock::to_tokio(next)).await;
    }
}

/// Waits for a line in one stream of a run's output.
struct Watch {
    run: RunId,
    mark: Mark,
    pattern: Arc<Regex>,
    followers: Arc<Followers>,
    sender: UnboundedSender<Seen>,
}

impl Watch {
    async fn run(self) {
        // Followed first and read then: growth in between is told.
        let mut follower = self.followers.follow(&self.mark.log);
        let mut reader = None;
        loop {
            match self.look(reader.take()).await {
                Ok((_, Found::Match)) => {
                    let _ = self.sender.send(Seen { run: self.run, what: Sight::Ready });
                    return;
                }
                Ok((again, Found::More)) => reader = Some(again),
                Ok((again, Found::NothingYet)) => {
                    reader = Some(again);
                    follower.changed().await;
                }
                Err(error) => {
                    let log = self.mark.log.display();
                    let text = format!("its output cannot be read from `{log}`: {error}");
                    let _ = self.sender.send(Seen { run: self.run, what: Sight::NotYet(text) });
                    follower.changed().await;
                }
            }
        }
    }

    /// Reads on, away from the loop: it may take the disk's time.
    async fn look(&self, reader: Option<LogReader>) -> io::Result<(LogReader, Found)> {
        let (mark, pattern) = (self.mark.clone(), Arc::clone(&self.pattern));
        let work = move || {
            let mut reader = match reader {
                Some(reader) => reader,
                None => open(&mark)?,
            };
            let lines = reader.next_lines(BATCH_LINES)?;
            let is_match =
                |bytes: &[u8]| pattern.is_match(bytes.strip_suffix(b"\r").unwrap_or(bytes));
            let found = if lines.iter().any(|line| is_match(&line.bytes)) {
                Found::Match
            } else if lines.len() == BATCH_LINES {
                Found::More
            } else {
                Found::NothingYet
            };
            Ok((reader, found))
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

enum Found {
    Match,
    More,
    NothingYet,
}

fn open(mark: &Mark) -> io::Result<LogReader> {
    let mut reader = LogReader::open(&mark.log, mark.channel)?;
    reader.seek(mark.from)?;
    Ok(reader)
}
