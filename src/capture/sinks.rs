//! Copies of the output for others: the daemon's own standard output and the journal.
//!
//! A sink reads the log files like any other reader, on a thread of its own. A reader of standard
//! output that has stopped reading, or a journal that hangs, therefore delays its own copy and
//! nothing else; the backlog is the file. A copy begins where the log ends when it is declared,
//! and lines that an outlet refuses are in the file only.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use tokio::sync::mpsc::UnboundedSender;

use crate::name::{ProcessName, RunId};

use super::read::{Cursor, LogReader};
use super::{Channel, Notice};

const JOURNAL: &str = "/run/systemd/journal/socket";
/// journald's own `LineMax`.
const JOURNAL_LINE_BYTES: usize = 48 * 1024;
/// An unfinished line is shown after this time.
const PARTIAL: Duration = Duration::from_secs(1);
const LINES: usize = 256;

/// A log that a sink copies.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) log: PathBuf,
    pub(super) process: ProcessName,
    pub(super) run: RunId,
    pub(super) channel: Channel,
    /// `None` begins at the log's end as the sink finds it.
    pub(super) from: Option<Cursor>,
}

#[derive(Debug)]
enum Message {
    /// The log is copied from now on; a log that is copied already only gets its new run.
    Watch(Watched),
    Grew(PathBuf, Arc<AtomicBool>),
    /// Nothing will be written to the log any more.
    Close(PathBuf),
}

/// Where lines go.
pub(super) trait Outlet: Send + 'static {
    fn write(&mut self, watched: &Watched, line: &[u8]) -> io::Result<()>;
}

/// `name | line` on the daemon's own standard output.
pub(super) struct StandardOutput;

impl Outlet for StandardOutput {
    fn write(&mut self, watched: &Watched, line: &[u8]) -> io::Result<()> {
        let mut text = format!("{} | ", watched.process).into_bytes();
        text.extend_from_slice(line);
        text.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }
}

/// journald's native protocol.
pub(super) struct Journal {
    address: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Default for Journal {
    fn default() -> Self {
        Self::at(JOURNAL.into())
    }
}

impl Journal {
    pub(super) fn at(address: PathBuf) -> Self {
        Self { address, socket: None }
    }
}

impl Outlet for Journal {
    fn write(&mut self, watched: &Watched, line: &[u8]) -> io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.address)?;
                socket.set_write_timeout(Some(Duration::from_secs(5)))?;
                self.socket.insert(socket)
            }
        };
        let priority = match watched.channel {
            Channel::Stdout => 6,
            Channel::Stderr => 3,
        };
        let pieces =
            if line.is_empty() { vec![line] } else { line.chunks(JOURNAL_LINE_BYTES).collect() };
        for piece in pieces {
            let mut datagram = format!(
                "SYSLOG_IDENTIFIER={0}\nPRIORITY={priority}\nMEND_PROCESS={0}\nMEND_RUN={1}\nMESSAGE\n",
                watched.process, watched.run
            )
            .into_bytes();
            // The binary form of a field: any byte may be in it.
            datagram.extend_from_slice(&(piece.len() as u64).to_le_bytes());
            datagram.extend_from_slice(piece);
            datagram.push(b'\n');
            if let Err(error) = socket.send(&datagram) {
                self.socket = None; // A restarted journal has a new socket.
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The owner of one sink's thread.
#[derive(Debug)]
pub(super) struct Sink {
    messages: Sender<Message>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sink {
    pub(super) fn start(
        name: &str,
        outlet: impl Outlet,
        notices: UnboundedSender<Notice>,
    ) -> io::Result<Self> {
        let (messages, inbox) = unbounded();
        let stopping = Arc::new(AtomicBool::new(false));
        let copier = Copier {
            outlet,
            notices,
            logs: BTreeMap::new(),
            trouble: false,
            stopping: Arc::clone(&stopping),
        };
        let thread =
            thread::Builder::new().name(name.to_owned()).spawn(move || copier.run(&inbox))?;
        Ok(Self { messages, stopping, thread })
    }

    pub(super) fn watch(&self, watched: Watched) {
        let _ = self.messages.send(Message::Watch(watched));
    }

    /// Tells that a log grew, unless the sink has yet to look at the last time it did.
    pub(super) fn grew(&self, log: &std::path::Path, told: &Arc<AtomicBool>) {
        if !told.swap(true, Ordering::AcqRel) {
            let _ = self.messages.send(Message::Grew(log.to_owned(), Arc::clone(told)));
        }
    }

    pub(super) fn close(&self, log: &std::path::Path) {
        let _ = self.messages.send(Message::Close(log.to_owned()));
    }

    /// Ends the thread after what it has been told; one that hangs in a write is left behind.
    pub(super) fn stop(self) {
        let Self { messages, stopping, thread } = self;
        drop(messages);
        let patience = Instant::now() + Duration::from_millis(500);
        while !thread.is_finished() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(2));
        }
        stopping.store(true, Ordering::Release);
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

struct Copied {
    watched: Watched,
    reader: LogReader,
    partial_since: Option<Instant>,
}

struct Copier<O> {
    outlet: O,
    notices: UnboundedSender<Notice>,
    logs: BTreeMap<PathBuf, Copied>,
    trouble: bool,
    stopping: Arc<AtomicBool>,
}

impl<O: Outlet> Copier<O> {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let due = self.logs.values().filter_map(|copied| copied.partial_since).min();
            let message = match due {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => inbox.recv_deadline(since + PARTIAL),
            };
            match message {
                Ok(Message::Watch(watched)) => self.watch(watched),
                Ok(Message::Grew(log, told)) => {
                    told.store(false, Ordering::Release);
                    self.copy(&log, false);
                }
                Ok(Message::Close(log)) => {
                    self.copy(&log, true);
                    self.logs.remove(&log);
                }
                Err(RecvTimeoutError::Timeout) => self.flush_partials(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn watch(&mut self, watched: Watched) {
        if let Some(copied) = self.logs.get_mut(&watched.log) {
            copied.watched.run = watched.run;
            return;
        }
        let opened = LogReader::open(&watched.log, watched.channel).and_then(|mut reader| {
            match watched.from {
                Some(cursor) => reader.seek(cursor)?,
                None => reader.tail(0)?,
            }
            Ok(reader)
        });
        match opened {
            Ok(reader) => {
                let log = watched.log.clone();
                self.logs.insert(log, Copied { watched, reader, partial_since: None });
            }
            Err(error) => self.report(&watched.process, &error),
        }
    }

    fn copy(&mut self, log: &std::path::Path, is_end: bool) {
        while !self.stopping.load(Ordering::Acquire) {
            let Some(copied) = self.logs.get_mut(log) else { return };
            let result = copied.reader.next_lines(LINES).and_then(|mut lines| {
                let is_last = lines.len() < LINES;
                if is_last && is_end {
                    lines.extend(copied.reader.flush_partial());
                }
                for line in &lines {
                    self.outlet.write(&copied.watched, &line.bytes)?;
                }
                Ok((is_last, !lines.is_empty()))
            });
            let process = copied.watched.process.clone();
            match result {
                Ok((is_last, has_written)) => {
                    if has_written && std::mem::take(&mut self.trouble) {
                        let message = "the copy of its output goes on".to_owned();
                        let _ = self.notices.send(Notice::Recovered { process, message });
                    }
                    let Some(copied) = self.logs.get_mut(log) else { return };
                    if !copied.reader.has_partial() {
                        copied.partial_since = None;
                    } else if copied.partial_since.is_none() {
                        copied.partial_since = Some(Instant::now());
                    }
                    if is_last {
                        return;
                    }
                }
                Err(error) => return self.report(&process, &error),
            }
        }
    }

    fn flush_partials(&mut self) {
        let now = Instant::now();
        for copied in self.logs.values_mut() {
            if copied.partial_since.is_some_and(|since| since + PARTIAL <= now) {
                copied.partial_since = None;
                if let Some(line) = copied.reader.flush_partial() {
                    let _ = self.outlet.write(&copied.watched, &line.bytes);
                }
            }
        }
    }

    /// Says once that copies are being lost; the log itself has everything.
    fn report(&mut self, process: &ProcessName, error: &io::Error) {
        if !std::mem::replace(&mut self.trouble, true) {
            let message = format!("its output is in the log file but cannot be copied: {error}");
            let _ = self.notices.send(Notice::Trouble { process: process.clone(), message });
        }
    }
}
