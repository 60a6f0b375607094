//! Starts the brain, and decides when the next one may start.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::arguments::{BrainArguments, KeeperArguments};
use crate::os::{process, seqpacket};

/// Delay before the second start of a brain that died before it served; doubles from here on.
const FIRST_DELAY: Duration = Duration::from_millis(100);

const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The executable that this process runs, whatever has become of its file.
pub(super) const OWN_EXECUTABLE: &CStr = c"/proc/self/exe";

/// Number of the message socket in the brain.
const BRAIN_SOCKET: i32 = 3;

/// The brain as the keeper sees it.
#[derive(Debug)]
pub(super) struct Brain {
    argv_cold: Vec<CString>,
    argv_warm: Vec<CString>,
    cold: bool,
    pub(super) pid: Option<u32>,
    /// One that served and has closed its end; it is not reaped yet.
    dying: Option<u32>,
    pub(super) socket: Option<OwnedFd>,
    /// It has said that it serves.
    pub(super) ready: bool,
    /// Some brain of this keeper has served.
    pub(super) ever_ready: bool,
    delay: Duration,
    start_at: Option<Instant>,
}

impl Brain {
    /// Prepares the command line, so that a later start needs no memory.
    pub(super) fn new(arguments: &KeeperArguments) -> io::Result<Self> {
        let argv = |cold| {
            BrainArguments {
                runtime_dir: arguments.runtime_dir.clone(),
                socket: BRAIN_SOCKET,
                nofile: arguments.nofile,
                cold,
                options: arguments.options.clone(),
            }
            .to_argv()
        };
        Ok(Self {
            argv_cold: argv(true)?,
            argv_warm: argv(false)?,
            // After an upgrade or a handover the daemon as a whole went on running.
            cold: arguments.table.is_none() && arguments.handover.is_none(),
            pid: None,
            dying: None,
            socket: None,
            ready: false,
            ever_ready: false,
            delay: Duration::ZERO,
            start_at: Some(Instant::now()),
        })
    }

    /// Goes on with a brain that serves already: the image before this one started it.
    pub(super) fn adopt(&mut self, pid: u32, socket: OwnedFd) {
        self.pid = Some(pid);
        self.socket = Some(socket);
        self.start_at = None;
        self.served();
    }

    /// Starts a brain of `executable` at the other end of a new socket pair.
    pub(super) fn start(&mut self, executable: &CStr) -> io::Result<()> {
        let (ours, theirs) = seqpacket::pair()?;
        let argv = if self.cold { &self.argv_cold } else { &self.argv_warm };
        let pid = process::fork_exec(executable, argv, theirs.as_fd(), BRAIN_SOCKET)?;
        self.pid = Some(pid);
        self.socket = Some(ours);
        self.ready = false;
        self.start_at = None;
        Ok(())
    }

    /// Notes that the brain serves.
    pub(super) fn served(&mut self) {
        self.ready = true;
        self.ever_ready = true;
        self.cold = false;
    }

    /// Notes that the brain has died, and plans the next one: at once after one that served.
    pub(super) fn died(&mut self, now: Instant) {
        self.delay = if self.ready {
            Duration::ZERO
        } else {
            (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY)
        };
        self.pid = None;
        self.socket = None;
        self.ready = false;
        self.start_at = Some(now + self.delay);
    }

    /// Notes that the brain has closed its end, and plans the next one at once, if it served.
    ///
    /// The kernel closes a dying process's descriptors when none of its threads runs any more,
    /// and some of them, such as those of inotify, take it tens of milliseconds. What is still
    /// open then, the next brain waits for: the lock, and the control socket.
    pub(super) fn hung_up(&mut self, now: Instant) {
        if self.ready && self.dying.is_none() {
            self.dying = self.pid.take();
            self.socket = None;
            self.ready = false;
            self.start_now(now);
        }
    }

    /// Returns whether this child is one that had closed its end; it is forgotten then.
    pub(super) fn was_dying(&mut self, child: u32) -> bool {
        self.dying.take_if(|pid| *pid == child).is_some()
    }

    /// Notes that the brain has made room for the next one and only waits; returns what it was.
    pub(super) fn withdrew(&mut self, now: Instant) -> Option<(u32, OwnedFd)> {
        let was = self.pid.take().zip(self.socket.take());
        self.ready = false;
        self.start_now(now);
        was
    }

    /// Plans a start at once: the one before failed because of its executable.
    pub(super) fn start_now(&mut self, now: Instant) {
        self.delay = Duration::ZERO;
        self.start_at = Some(now);
    }

    /// Plans a start after a failed fork.
    pub(super) fn start_later(&mut self, now: Instant) {
        self.start_at = Some(now + FIRST_DELAY);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.start_at.is_some_and(|at| at <= now)
    }

    /// Returns the time until the planned start.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.start_at.map(|at| at.saturating_duration_since(now))
    }
}
