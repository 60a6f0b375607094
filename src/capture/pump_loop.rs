//! The pump's thread: one epoll, edge-triggered, over all FIFOs.
//!
//! Edge-triggered, because a FIFO without writers stays in the state of a hang-up for as long as
//! the keeper or we hold it, and must not wake anyone. A stream that cannot be emptied (a full
//! disk) is therefore remembered as pending, as no new edge will tell of it.
//!
//! Streams wait up to 20 ms for company after the first became ready, less when a quarter of the
//! pipe would fill in that time; meanwhile the thread sleeps on its eventfd alone. Streams that
//! are followed or very busy are moved at once.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use tokio::sync::mpsc::UnboundedSender;

use crate::config::{Logs, Sink as SinkKind};
use crate::name::{ProcessName, RunId};
use crate::os::clock::wall;
use crate::time::Wall;

use super::follow::Followers;
use super::index::FLAG_STDERR;
use super::log::Log;
use super::mark;
use super::pace::{Pace, WINDOW};
use super::place::Place;
use super::pump::{Channel, Message, Notice, Stream};
use super::sinks::{Journal, Sink, StandardOutput, Watched};
use super::tidy::Tidier;
use super::totals::Totals;
use super::writer::{Left, LogWriter, Tools};

/// Pause after a failure to wait.
const FAILED_WAIT: Duration = Duration::from_millis(20);
/// Bytes of one stream before others get their turn.
const BUDGET_BYTES: u64 = 4 * 1024 * 1024;
/// A finished run's FIFO holds at most one pipe; more comes from a stranger that still writes.
const FINISH_BYTES: u64 = 64 * 1024 * 1024;
const WAKE: u64 = u64::MAX;
const EVENTS: usize = 64;

#[derive(Debug)]
struct Source {
    run: RunId,
    channel: Channel,
    fifo: OwnedFd,
    log: u64,
    pace: Pace,
    /// Where to write down where its output begins, until that is done.
    mark: Option<PathBuf>,
    is_finishing: bool,
    /// It may hold bytes that no edge will tell of.
    is_pending: bool,
}

#[derive(Debug)]
pub(super) struct Worker {
    epoll: Epoll,
    wake: Arc<EventFd>,
    inbox: Receiver<Message>,
    notices: UnboundedSender<Notice>,
    followers: Arc<Followers>,
    totals: Arc<Totals>,
    tools: Tools,
    tidier: Tidier,
    standard_output: Option<Sink>,
    journal: Option<Sink>,
    /// In the order of attachment, which is the order of their bytes in a shared log.
    sources: BTreeMap<u64, Source>,
    runs: BTreeMap<RunId, Vec<u64>>,
    logs: BTreeMap<u64, Log>,
    paths: BTreeMap<PathBuf, u64>,
    next_id: u64,
    /// Streams that have output, and when they get their turn.
    ready: BTreeMap<u64, Instant>,
    /// Until then a stream without delay may have more.
    busy_until: Option<Instant>,
}

fn flags(channel: Channel) -> u32 {
    match channel {
        Channel::Stdout => 0,
        Channel::Stderr => FLAG_STDERR,
    }
}

impl Worker {
    pub(super) fn new(
        inbox: Receiver<Message>,
        wake: Arc<EventFd>,
        notices: UnboundedSender<Notice>,
        followers: Arc<Followers>,
        totals: Arc<Totals>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            wake,
            inbox,
            notices,
            followers,
            totals,
            tools: Tools::new()?,
            tidier: Tidier::default(),
            standard_output: None,
            journal: None,
            sources: BTreeMap::new(),
            runs: BTreeMap::new(),
            logs: BTreeMap::new(),
            paths: BTreeMap::new(),
            next_id: 0,
            ready: BTreeMap::new(),
            busy_until: None,
        })
    }

    pub(super) fn run(mut self) {
        loop {
            while let Ok(message) = self.inbox.try_recv() {
                match message {
                    Message::Attach(stream) => self.on_attach(*stream),
                    Message::Finish(run) => self.on_finish(run),
                    Message::Configure(process, logs) => self.on_configure(&process, &logs),
                    Message::Reopen => self.on_reopen(),
                    Message::Stop => return self.end(),
                }
            }
            self.move_ready();
            self.on_deadlines();
            if let Err(error) = self.wait() {
                tracing::error!(%error, "the log pump cannot wait for output");
                std::thread::sleep(FAILED_WAIT); // Not a spin, whatever it is.
            }
        }
    }

    fn end(mut self) {
        self.tidier.stop();
        for sink in [self.standard_output.take(), self.journal.take()].into_iter().flatten() {
            sink.stop();
        }
    }

    /// Waits for messages, output and deadlines, and notes which streams are ready.
    fn wait(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let is_hot = self.followers.is_any_followed() || self.busy_until.is_some_and(|at| now < at);
        let turn = self.ready.values().min().copied();
        if turn.is_some_and(|due| due <= now) {
            return self.gather(Some(Duration::ZERO));
        }
        if let Some(due) = turn
            && !is_hot
        {
            // On the eventfd alone, or each line of a quiet stream would wake us.
            let timeout = TimeSpec::from_duration(due.saturating_duration_since(now));
            let mut fds = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, Some(timeout), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            return self.gather(Some(Duration::ZERO));
        }
        let due = self.next_deadline(now).map(|due| due.saturating_duration_since(now));
        self.gather(due.map(|due| if due.is_zero() { due } else { due + TICK }))
    }

    fn gather(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(timeout) => EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX),
        };
        let mut events = [EpollEvent::empty(); EVENTS];
        let found = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            found => found?,
        };
        let now = Instant::now();
        for event in &events[..found] {
            if event.data() == WAKE {
                let _ = self.wake.read();
            } else if let Some(delay) = self.delay_of(event.data()) {
                self.ready.entry(event.data()).or_insert(now + delay);
            }
        }
        Ok(())
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let wall = wall();
        let of_log = |log: &Log| {
            if log.is_in_trouble() {
                return log.next_retry();
            }
            let age = log.writer.next_age_deadline()?;
            // An hour at most, so that a step of the civil clock is noticed.
            Some(now + age.since(wall).min(Duration::from_secs(3600)))
        };
        self.logs.values().filter_map(of_log).chain(self.ready.values().copied()).min()
    }

    /// Returns how long a stream that has become ready may wait for others.
    fn delay_of(&self, id: u64) -> Option<Duration> {
        let source = self.sources.get(&id)?;
        let log = self.logs.get(&source.log)?;
        let is_followed = self.followers.is_followed(log.writer.place.current());
        Some(if is_followed { Duration::ZERO } else { source.pace.delay })
    }

    /// Moves the streams whose turn it is; with the first of those that wait, all of them.
    fn move_ready(&mut self) {
        let now = Instant::now();
        let has_waited = |(id, due): (&u64, &Instant)| {
            *due <= now && self.delay_of(*id).is_some_and(|delay| !delay.is_zero())
        };
        let is_everyones = self.ready.iter().any(has_waited);
        let is_due = |(_, due): &(&u64, &Instant)| is_everyones || **due <= now;
        let turn: Vec<u64> = self.ready.iter().filter(is_due).map(|(id, _)| *id).collect();
        for id in turn {
            self.ready.remove(&id);
            self.move_source(id, BUDGET_BYTES);
        }
    }

    /// Moves what one stream has, unless its log is in trouble.
    fn move_source(&mut self, id: u64, budget: u64) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let Some(log) = self.logs.get_mut(&source.log) else { return };
        let now = Instant::now();
        if log.is_in_trouble() {
            source.is_pending = true;
            if log.is_dropping(now)
                && let Err(error) = log.discard(source.fifo.as_fd())
            {
                tracing::debug!(%error, "output cannot be dropped");
            }
            return;
        }
        let channel = flags(source.channel);
        let (bytes, left) =
            log.writer.pour(source.fifo.as_fd(), channel, budget, wall(), &mut self.tools);
        source.is_pending = left.is_err();
        source.pace.on_moved(bytes, now);
        self.totals.on_moved(bytes);
        if source.pace.delay.is_zero() {
            self.busy_until = Some(now + WINDOW);
        }
        match left {
            Ok(Left::Empty) => {}
            Ok(Left::More) => drop(self.ready.insert(id, now)),
            Err(error) => {
                if let Some(notice) = log.on_failure(&error, now) {
                    let _ = self.notices.send(notice);
                }
            }
        }
        let log_id = source.log;
        self.after_growth(log_id, bytes);
    }

    /// Tells those who read the log, and has closed segments looked after.
    fn after_growth(&mut self, log_id: u64, bytes: u64) {
        let Some(log) = self.logs.get_mut(&log_id) else { return };
        if bytes > 0 {
            let path = log.writer.place.current();
            self.followers.grew(path);
            let sink = match log.writer.logs.sink {
                SinkKind::Stdout => &self.standard_output,
                SinkKind::Journald => &self.journal,
                SinkKind::File | SinkKind::None => &None,
            };
            if let Some(sink) = sink {
                sink.grew(path, &log.told);
            }
        }
        if log.writer.take_untidy() {
            let sent = self.tidier.send(log.writer.place.clone(), log.writer.logs.clone());
            if let Err(error) = sent {
                tracing::warn!(%error, "closed log segments are not looked after");
            }
        }
    }

    fn on_attach(&mut self, stream: Stream) {
        let Stream { run, process, channel, fifo, log: path, logs, owner, mark } = stream;
        let log_id = match self.paths.get(&path) {
            Some(id) => *id,
            None => {
                let writer =
                    LogWriter::new(Place::new(&path), process.clone(), logs.clone(), owner);
                let id = self.new_id();
                self.logs.insert(id, Log::new(writer, Arc::clone(&self.totals)));
                self.paths.insert(path.clone(), id);
                id
            }
        };
        self.empty_earlier(log_id);
        let Some(log) = self.logs.get_mut(&log_id) else { return };
        log.streams += 1;
        if log.writer.logs != logs {
            log.writer.configure(&logs);
        }
        // A log that is there is opened by its first byte: a brain that takes over a thousand
        // quiet runs has better things to do, and opening lists the whole directory. One that is
        // copied elsewhere or rotated by age has to be known before.
        let can_wait = mark.is_none()
            && logs.sink == SinkKind::File
            && logs.max_age.is_none()
            && log.writer.end().is_none()
            && std::fs::symlink_metadata(&path).is_ok();
        if !can_wait
            && !log.is_in_trouble()
            && let Err(error) = log.writer.ensure_open(wall())
            && let Some(notice) = log.on_failure(&error, Instant::now())
        {
            let _ = self.notices.send(notice);
        }
        let from = log.writer.end();
        self.watch(logs.sink, Watched { log: path, process, run, channel, from });
        let id = self.new_id();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        if let Err(error) = self.epoll.add(&fifo, EpollEvent::new(flags, id)) {
            tracing::error!(%error, %run, "output cannot be watched; it is moved at the end");
        }
        let pace = Pace::new(&fifo, Instant::now());
        let source = Source {
            run,
            channel,
            fifo,
            log: log_id,
            pace,
            mark,
            is_finishing: false,
            is_pending: false,
        };
        self.sources.insert(id, source);
        self.tell_mark(id);
        self.runs.entry(run).or_default().push(id);
        // What was printed before is told by an edge, as adding reports the state once.
        self.after_growth(log_id, 0);
    }

    /// Says where a stream begins in its log, once that can be known.
    fn tell_mark(&mut self, id: u64) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let Some(log) = self.logs.get(&source.log) else { return };
        let Some(end) = log.writer.end() else { return };
        if let Some(mark) = source.mark.take() {
            let from = mark::first(&mark, end);
            let (run, channel) = (source.run, source.channel);
            let log = log.writer.place.current().to_owned();
            let _ = self.notices.send(Notice::Marked { run, log, channel, from });
        }
    }

    /// Moves what earlier runs have left for this log: their lines come before those of the next.
    fn empty_earlier(&mut self, log_id: u64) {
        if self.logs.get(&log_id).is_none_or(|log| log.streams == 0) {
            return;
        }
        let of_log = |(id, source): (&u64, &Source)| (source.log == log_id).then_some(*id);
        let earlier: Vec<u64> = self.sources.iter().filter_map(of_log).collect();
        for id in earlier {
            self.move_source(id, FINISH_BYTES);
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn watch(&mut self, kind: SinkKind, watched: Watched) {
        let notices = self.notices.clone();
        let (slot, started) = match kind {
            SinkKind::File | SinkKind::None => return,
            SinkKind::Stdout => {
                let start = || Sink::start("mend-stdout", StandardOutput, notices);
                let started = self.standard_output.is_none().then(start);
                (&mut self.standard_output, started)
            }
            SinkKind::Journald => {
                let start = || Sink::start("mend-journal", Journal::default(), notices);
                let started = self.journal.is_none().then(start);
                (&mut self.journal, started)
            }
        };
        match started.transpose() {
            Ok(None) => {}
            Ok(started) => *slot = started,
            Err(error) => tracing::error!(%error, "output is not copied from the log"),
        }
        if let Some(sink) = slot {
            sink.watch(watched);
        }
    }

    fn on_finish(&mut self, run: RunId) {
        let Some(ids) = self.runs.get(&run).cloned() else {
            let _ = self.notices.send(Notice::Ended { run });
            return;
        };
        for id in ids {
            if let Some(source) = self.sources.get_mut(&id) {
                source.is_finishing = true;
            }
            self.move_source(id, FINISH_BYTES);
            self.close_if_done(id);
        }
    }

    /// Closes a stream of a finished run once it is empty.
    fn close_if_done(&mut self, id: u64) {
        let is_done =
            self.sources.get(&id).is_some_and(|source| source.is_finishing && !source.is_pending);
        if !is_done {
            return;
        }
        let Some(source) = self.sources.remove(&id) else { return };
        self.ready.remove(&id);
        // Explicitly: the keeper holds the same open file, so closing ours would not end it.
        let _ = self.epoll.delete(&source.fifo);
        drop(source.fifo);
        if let Some(log) = self.logs.get_mut(&source.log) {
            log.streams -= 1;
        }
        self.close_log_if_unused(source.log);
        if let Some(ids) = self.runs.get_mut(&source.run) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.runs.remove(&source.run);
                let _ = self.notices.send(Notice::Ended { run: source.run });
            }
        }
    }

    fn close_log_if_unused(&mut self, id: u64) {
        let is_unused =
            self.logs.get(&id).is_some_and(|log| log.streams == 0 && !log.is_in_trouble());
        if !is_unused {
            return;
        }
        let Some(log) = self.logs.remove(&id) else { return };
        let path = log.writer.place.current();
        self.paths.remove(path);
        for sink in [&self.standard_output, &self.journal].into_iter().flatten() {
            sink.close(path);
        }
    }

    fn on_configure(&mut self, process: &ProcessName, logs: &Logs) {
        let of_process = |log: &(&u64, &Log)| log.1.writer.process == *process;
        let ids: Vec<u64> = self.logs.iter().filter(of_process).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(log) = self.logs.get_mut(&id) else { continue };
            let old = log.writer.logs.sink;
            log.writer.configure(logs);
            let path = log.writer.place.current().to_owned();
            let from = log.writer.end();
            if old != logs.sink {
                for sink in [&self.standard_output, &self.journal].into_iter().flatten() {
                    sink.close(&path);
                }
                let newest = self.sources.values().rev().find(|source| source.log == id);
                if let Some(source) = newest {
                    let (run, channel, process) = (source.run, source.channel, process.clone());
                    self.watch(logs.sink, Watched { log: path, process, run, channel, from });
                }
            }
            self.after_growth(id, 0);
        }
    }

    fn on_reopen(&mut self) {
        let ids: Vec<u64> = self.logs.keys().copied().collect();
        for id in ids {
            let Some(log) = self.logs.get_mut(&id) else { continue };
            log.writer.close();
            if !log.is_in_trouble()
                && let Err(error) = log.writer.ensure_open(wall())
                && let Some(notice) = log.on_failure(&error, Instant::now())
            {
                let _ = self.notices.send(notice);
            }
            self.after_growth(id, 0);
        }
    }

    /// Retries logs in trouble and closes segments that are too old.
    fn on_deadlines(&mut self) {
        let (now, wall) = (Instant::now(), wall());
        let is_due = |log: &Log| match log.next_retry() {
            Some(at) => at <= now,
            None => log.writer.next_age_deadline().is_some_and(|at| at <= wall),
        };
        let due: Vec<u64> =
            self.logs.iter().filter(|(_, log)| is_due(log)).map(|(id, _)| *id).collect();
        for id in due {
            let Some(log) = self.logs.get_mut(&id) else { continue };
            if log.is_in_trouble() {
                self.retry(id, now, wall);
            } else if let Err(error) = log.writer.on_age_deadline(wall)
                && let Some(notice) = log.on_failure(&error, now)
            {
                let _ = self.notices.send(notice);
            }
            self.after_growth(id, 0);
        }
    }

    fn retry(&mut self, log_id: u64, now: Instant, wall: Wall) {
        let Some(log) = self.logs.get_mut(&log_id) else { return };
        let mut result = log.retry(wall);
        let of_log = |(id, source): (&u64, &Source)| (source.log == log_id).then_some(*id);
        let unmarked: Vec<u64> = self.sources.iter().filter_map(of_log).collect();
        unmarked.into_iter().for_each(|id| self.tell_mark(id));
        let Some(log) = self.logs.get_mut(&log_id) else { return };
        let mut moved = 0;
        let mut closable = Vec::new();
        let pending = self.sources.iter_mut().filter(|(_, source)| source.log == log_id);
        for (id, source) in pending {
            if result.is_ok() {
                let flags = flags(source.channel);
                let pipe = source.fifo.as_fd();
                let (bytes, left) =
                    log.writer.pour(pipe, flags, FINISH_BYTES, wall, &mut self.tools);
                moved += bytes;
                self.totals.on_moved(bytes);
                source.is_pending = left.is_err();
                result = left.map(drop);
            }
            if result.is_err() && log.is_dropping(now) {
                source.is_pending = log.discard(source.fifo.as_fd()).is_err();
            }
            closable.push(*id);
        }
        let notice = match &result {
            Ok(()) => log.on_success(),
            Err(error) => log.on_failure(error, now),
        };
        if let Some(notice) = notice {
            let _ = self.notices.send(notice);
        }
        self.after_growth(log_id, moved.max(u64::from(result.is_ok())));
        for id in closable {
            self.close_if_done(id);
        }
        self.close_log_if_unused(log_id);
    }
}

/// Timeouts of the kernel's waits are cut to milliseconds; one more avoids waking early.
const TICK: Duration = Duration::from_millis(1);
