//! The sweeper: makes sure that nothing of a run's tree of processes is left.
//!
//! One thread serves all runs, so that a thousand stops at once cost a few scans of `/proc`.
//! With a control group, `populated 0` is the only truth and its event is waited for. Without
//! one, the keeper is the subreaper: whatever escapes becomes its child sooner or later, and
//! the marker `MEND_RUN` in the environment, the session or the group tells whose it was.
//!
//! Rules: a signal goes through a pidfd that was checked after it was opened, never to a bare
//! pid; one empty scan proves nothing, because processes that fork during it can hide; only
//! what was found by these marks is touched. A program that wipes its environment, starts a
//! session and loses its parent all at once cannot be attributed and is left alone.

mod hunt;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::UnboundedSender;

use self::hunt::Hunt;
use self::snapshot::Marks;
use super::cgroup::{self, Leaf};
use super::pidfd::PidFd;
use crate::name::RunId;

/// First pause before something that did not work is tried again; it doubles up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// Pause between the looks that must all find nothing.
const EMPTY_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// Asks that what is left of a run, whose main process has ended, gets a signal.
#[derive(Debug, Clone)]
pub struct SweepJob {
    pub run: RunId,
    /// The pid that the main process had.
    pub main_pid: u32,
    /// The run's leaf; `None` when it has none.
    pub cgroup: Option<PathBuf>,
    /// SIGKILL is repeated until it has worked, any other signal is sent once to each process.
    pub signal: i32,
    /// The run was not always a child of this keeper, so orphans may be elsewhere.
    pub adopted_elsewhere: bool,
}

/// Asks for SIGKILL to everything of a run, its main process first of all.
#[derive(Debug)]
pub struct KillJob {
    pub run: RunId,
    pub main_pid: u32,
    /// Held since before the main process could have been reaped.
    pub main: PidFd,
    pub cgroup: Option<PathBuf>,
}

#[derive(Debug)]
enum Message {
    Sweep(SweepJob),
    Kill(KillJob),
    Track(RunId, u32),
    Untrack(RunId),
    End,
}

/// The door to the sweeping thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Sweeper {
    messages: Sender<Message>,
    wake: Arc<EventFd>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sweeper {
    /// Starts the thread `mend-sweep`. Each sweep is answered once on `gone`, a kill never.
    ///
    /// # Errors
    ///
    /// When neither an eventfd nor a thread can be had.
    pub fn start(keeper_pid: u32, gone: UnboundedSender<RunId>) -> io::Result<Self> {
        Self::start_marked(keeper_pid, None, gone)
    }

    /// As [`Sweeper::start`]; a process counts as marked only if its environment has
    /// `MEND_INSTANCE=<instance>` too, which keeps two daemons on one machine apart.
    ///
    /// # Errors
    ///
    /// As for [`Sweeper::start`].
    pub fn start_marked(
        keeper_pid: u32,
        instance: Option<String>,
        gone: UnboundedSender<RunId>,
    ) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (messages, inbox) = unbounded();
        let worker = Worker {
            inbox,
            wake: Arc::clone(&wake),
            gone,
            marks: Marks { keeper_pid, instance },
            mains: BTreeMap::new(),
            leaves: BTreeMap::new(),
            hunt: Hunt::default(),
        };
        let thread =
            thread::Builder::new().name("mend-sweep".to_owned()).spawn(move || worker.run())?;
        Ok(Self { messages, wake, thread: Some(thread) })
    }

    /// Queues a sweep; it replaces an earlier sweep or kill of the same run.
    pub fn sweep(&self, job: SweepJob) {
        self.send(Message::Sweep(job));
    }

    /// Queues a kill of the whole tree; it replaces an earlier job of the same run.
    pub fn kill_tree(&self, job: KillJob) {
        self.send(Message::Kill(job));
    }

    /// Says that `pid` is the main process of a living run, which no sweep of another touches.
    ///
    /// Wakes nobody: it matters to the next sweep, which comes through the same queue.
    pub fn track(&self, run: RunId, pid: u32) {
        let _ = self.messages.send(Message::Track(run, pid));
    }

    /// Takes back [`Sweeper::track`]; a sweep of the run does so by itself.
    pub fn untrack(&self, run: RunId) {
        let _ = self.messages.send(Message::Untrack(run));
    }

    fn send(&self, message: Message) {
        // Only a thread that has panicked does not listen; its panic was reported.
        if self.messages.send(message).is_ok() {
            let _ = self.wake.write(1); // Full means that it is awake anyway.
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells whether the leaf of a run has nobody in it; then it is removed, and no sweep is needed.
pub fn already_empty(leaf: &Path) -> bool {
    if cgroup::populated(leaf).unwrap_or(true) {
        return false;
    }
    // Nobody can come back into it: a leaf that stays busy for a moment goes at the next start.
    let _ = cgroup::remove_tree(leaf);
    true
}

/// A job whose run has a leaf.
struct LeafJob {
    leaf: Leaf,
    events: File,
    signal: i32,
    signalled: bool,
    /// An event has come, or nobody has looked yet.
    look: bool,
    /// A sweep is answered, a kill is not.
    answer: bool,
    retry: Retry,
}

impl LeafJob {
    fn is_due(&self) -> bool {
        self.look || (self.signal == libc::SIGKILL && self.retry.is_due())
    }
}

/// When to look again although nothing was heard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    pause: Duration,
    at: Instant,
}

impl Retry {
    pub(crate) fn new() -> Self {
        Self { pause: FIRST_RETRY, at: Instant::now() }
    }

    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Looks again in a moment, because one look proves nothing.
    pub(crate) fn soon(&mut self) {
        self.at = Instant::now() + EMPTY_PAUSE;
    }

    pub(crate) fn later(&mut self) {
        self.at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
    }
}

struct Worker {
    inbox: Receiver<Message>,
    wake: Arc<EventFd>,
    gone: UnboundedSender<RunId>,
    marks: Marks,
    mains: BTreeMap<RunId, u32>,
    leaves: BTreeMap<RunId, LeafJob>,
    hunt: Hunt,
}

impl Worker {
    fn run(mut self) {
        loop {
            let _ = self.wake.read(); // Only lowers the flag; EAGAIN is as good.
            while let Ok(message) = self.inbox.try_recv() {
                match message {
                    Message::Sweep(job) => self.on_sweep(job),
                    Message::Kill(job) => self.on_kill(job),
                    Message::Track(run, pid) => drop(self.mains.insert(run, pid)),
                    Message::Untrack(run) => drop(self.mains.remove(&run)),
                    Message::End => return,
                }
            }
            let due = self.leaves.iter().filter(|(_, job)| job.is_due());
            let due: Vec<RunId> = due.map(|(run, _)| *run).collect();
            for run in due {
                self.check_leaf(run);
            }
            if !self.hunt.is_idle() {
                let others: BTreeSet<u32> = self.mains.values().copied().collect();
                for run in self.hunt.step(&self.marks, &others) {
                    self.answer(run);
                }
            }
            self.wait();
        }
    }

    fn answer(&self, run: RunId) {
        let _ = self.gone.send(run); // Nobody to hear it any more is no trouble.
    }

    fn on_sweep(&mut self, job: SweepJob) {
        self.mains.remove(&job.run);
        self.leaves.remove(&job.run);
        self.hunt.forget(job.run);
        match job.cgroup.as_deref().map(open_leaf) {
            Some(Ok((leaf, events))) => {
                let signal = job.signal;
                let retry = Retry::new();
                let watch = LeafJob {
                    leaf,
                    events,
                    signal,
                    signalled: false,
                    look: true,
                    answer: true,
                    retry,
                };
                self.leaves.insert(job.run, watch);
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => self.answer(job.run),
            // No leaf, or one that cannot be read: look for the processes themselves.
            Some(Err(_)) | None => self.hunt.sweep(job),
        }
    }

    fn on_kill(&mut self, job: KillJob) {
        self.leaves.remove(&job.run);
        self.hunt.forget(job.run);
        match job.cgroup.as_deref().map(open_leaf) {
            Some(Ok((leaf, events))) => {
                // The main process may have moved itself out of its leaf.
                let _ = job.main.signal(libc::SIGKILL);
                let (signal, retry) = (libc::SIGKILL, Retry::new());
                let watch = LeafJob {
                    leaf,
                    events,
                    signal,
                    signalled: false,
                    look: true,
                    answer: false,
                    retry,
                };
                self.leaves.insert(job.run, watch);
            }
            Some(Err(_)) | None => self.hunt.kill(job),
        }
    }

    /// Looks at one leaf: gone, or to be signalled, or to be waited for.
    fn check_leaf(&mut self, run: RunId) {
        let Some(job) = self.leaves.get_mut(&run) else { return };
        job.look = false;
        if !is_populated(&mut job.events) {
            // A kill leaves the directory to the sweep that follows it.
            let answer = job.answer;
            if answer {
                let _ = job.leaf.remove(); // Should it stay busy, the next start removes it.
            }
            self.leaves.remove(&run);
            if answer {
                self.answer(run);
            }
            return;
        }
        if job.signal == libc::SIGKILL {
            if job.retry.is_due() {
                let _ = job.leaf.kill(); // Tried again until nobody is left.
                job.retry.later();
            }
        } else if !job.signalled {
            let _ = job.leaf.signal_each(job.signal); // Once is once, also if one refused it.
            job.signalled = true;
        }
    }

    /// Sleeps until a message, an event of a leaf, the end of a process or a retry.
    fn wait(&mut self) {
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new((*self.wake).as_fd(), PollFlags::POLLIN)];
        let killing = self.leaves.values().filter(|job| job.signal == libc::SIGKILL);
        let mut deadline: Option<Instant> = killing.map(|job| job.retry.at).min();
        for job in self.leaves.values() {
            fds.push(PollFd::new(job.events.as_fd(), PollFlags::POLLPRI));
        }
        for member in self.hunt.awaited() {
            fds.push(PollFd::new(member, PollFlags::POLLIN));
        }
        if let Some(at) = self.hunt.next_look() {
            deadline = Some(deadline.map_or(at, |earlier| earlier.min(at)));
        }
        let timeout = deadline.map_or(PollTimeout::NONE, |at| {
            // Rounded up: waking a moment too early would only find nothing to do.
            let millis = at.saturating_duration_since(Instant::now()).as_micros().div_ceil(1_000);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut fds, timeout); // EINTR is one more look.
        let heard = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let looks: Vec<bool> = fds.iter().skip(1).take(self.leaves.len()).map(heard).collect();
        drop(fds);
        for (job, look) in self.leaves.values_mut().zip(looks) {
            job.look |= look;
        }
    }
}

fn open_leaf(path: &Path) -> io::Result<(Leaf, File)> {
    Ok((Leaf::reopen(path)?, File::open(path.join("cgroup.events"))?))
}

/// Reads the state anew, which also arms the next `POLLPRI`.
fn is_populated(events: &mut File) -> bool {
    let mut text = String::new();
    let read = events.rewind().and_then(|()| events.read_to_string(&mut text));
    match read {
        Ok(_) => !text.lines().any(|line| line == "populated 0"),
        // A group that was removed has nobody in it.
        Err(error) => error.raw_os_error() != Some(libc::ENODEV),
    }
}

/// A descriptor to wait for, as the hunt lends it.
pub(crate) type Awaited<'a> = BorrowedFd<'a>;

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
