//! Gives the control API the log files that the pump writes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::api::{BoxFuture, LogChannel, LogLines, LogQuery, LogRecord, LogSource};
use crate::capture::{Channel, Follower, Followers, LogReader, MergedLine, MergedReader};
use crate::engine::LogPlace;
use crate::name::ProcessName;
use crate::time::Wall;

/// Lines in one batch.
const BATCH_LINES: usize = 500;

/// Log files, and the hub that tells when they grow.
#[derive(Debug)]
pub(super) struct LogFiles {
    pub(super) followers: Arc<Followers>,
}

impl LogSource for LogFiles {
    fn open(
        &self,
        places: Vec<LogPlace>,
        query: LogQuery,
    ) -> BoxFuture<'_, io::Result<Box<dyn LogLines>>> {
        let followers = Arc::clone(&self.followers);
        Box::pin(async move {
            // Reading compressed segments takes the disk's time, not the engine's.
            let opened = tokio::task::spawn_blocking(move || View::open(&followers, places, query))
                .await
                .map_err(io::Error::other)??;
            Ok(Box::new(opened) as Box<dyn LogLines>)
        })
    }
}

/// Whose lines a reader yields.
#[derive(Debug, Clone)]
struct Origin {
    process: ProcessName,
    channel: LogChannel,
}

/// An open view.
struct View {
    origins: Vec<Origin>,
    /// `None` only while a batch is being read elsewhere.
    reader: Option<MergedReader>,
    /// The newest lines of before, when only so many are wanted.
    ready: Vec<LogRecord>,
    until: Option<Wall>,
    growth: Option<mpsc::Receiver<()>>,
    ended: bool,
}

impl View {
    fn open(
        followers: &Arc<Followers>,
        places: Vec<LogPlace>,
        query: LogQuery,
    ) -> io::Result<Self> {
        let mut origins = Vec::new();
        let mut readers = Vec::new();
        let mut followed = Vec::new();
        for place in places {
            let streams = [
                (query.stdout, place.stdout, LogChannel::Stdout, Channel::Stdout),
                (query.stderr, place.stderr, LogChannel::Stderr, Channel::Stderr),
            ];
            for (wanted, path, channel, stream) in streams {
                let Some(path) = path.filter(|_| wanted) else { continue };
                if query.follow {
                    // Followed first and read then: growth in between is told.
                    followed.push(followers.follow(&path));
                }
                let mut reader = LogReader::open(&path, stream)?;
                match (query.since, query.lines) {
                    (Some(since), _) => reader.since(since)?,
                    (None, Some(lines)) => reader.tail(u64::try_from(lines).unwrap_or(u64::MAX))?,
                    (None, None) => {}
                }
                origins.push(Origin { process: place.process.clone(), channel });
                readers.push(reader);
            }
        }
        let mut view = Self {
            origins,
            reader: Some(MergedReader::new(readers)),
            ready: Vec::new(),
            until: query.until,
            growth: None,
            ended: false,
        };
        if let Some(lines) = query.lines {
            view.read_newest(lines, query.follow)?;
        }
        if query.follow {
            view.growth = Some(watch(followed));
        }
        Ok(view)
    }

    /// Reads all there is and keeps the newest `lines` of each process.
    fn read_newest(&mut self, lines: usize, follow: bool) -> io::Result<()> {
        // Each reader starts at most `lines` before its end, so this is bounded.
        let mut all = Vec::new();
        loop {
            let batch = self.read_batch(follow)?;
            if batch.is_empty() {
                break;
            }
            all.extend(batch);
        }
        let mut left: BTreeMap<ProcessName, usize> = BTreeMap::new();
        let mut kept: Vec<LogRecord> = all
            .into_iter()
            .rev()
            .filter(|record| {
                let left = left.entry(record.process.clone()).or_insert(lines);
                let wanted = *left > 0;
                *left = left.saturating_sub(1);
                wanted
            })
            .collect();
        kept.reverse();
        self.ready = kept;
        Ok(())
    }

    fn read_batch(&mut self, follow: bool) -> io::Result<Vec<LogRecord>> {
        let Some(reader) = &mut self.reader else { return Ok(Vec::new()) };
        let mut lines = reader.next_lines(BATCH_LINES)?;
        if lines.is_empty() && !follow && !self.ended {
            self.ended = true;
            lines = reader.flush_partial();
            return Ok(self.records(lines, false));
        }
        Ok(self.records(lines, true))
    }

    fn records(&self, lines: Vec<MergedLine>, ended: bool) -> Vec<LogRecord> {
        let until = self.until;
        lines
            .into_iter()
            .filter(|line| match (line.line.at, until) {
                (Some(at), Some(until)) => at < until,
                _ => true,
            })
            .filter_map(|line| {
                let origin = self.origins.get(line.source)?;
                Some(LogRecord {
                    process: origin.process.clone(),
                    channel: origin.channel,
                    at: line.line.at,
                    cursor: line.line.cursor,
                    line: line.line.bytes,
                    ended,
                })
            })
            .collect()
    }
}

/// Joins the growth of many logs into one channel that holds at most one word.
fn watch(followers: Vec<Follower>) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    for mut follower in followers {
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    () = follower.changed() => {
                        // A full channel says it already.
                        let _ = sender.try_send(());
                    }
                }
            }
        });
    }
    receiver
}

impl LogLines for View {
    fn next(&mut self) -> BoxFuture<'_, io::Result<Vec<LogRecord>>> {
        Box::pin(async move {
            if !self.ready.is_empty() {
                return Ok(std::mem::take(&mut self.ready));
            }
            loop {
                let follow = self.growth.is_some();
                let batch = self.read_batch(follow)?;
                if !batch.is_empty() {
                    return Ok(batch);
                }
                match &mut self.growth {
                    None => return Ok(Vec::new()),
                    Some(growth) => {
                        if growth.recv().await.is_none() {
                            return Ok(Vec::new());
                        }
                    }
                }
            }
        })
    }
}
