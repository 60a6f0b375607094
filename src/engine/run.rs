//! The engine's hands on one run.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::extra::Extra;
use crate::capture::{Channel, Cursor};
use crate::keeper::wire::WaitStatus;
use crate::name::{ProcessName, RunId};
use crate::os::pidfd::PidFd;

/// The place in a log at which the output of a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) log: PathBuf,
    pub(super) channel: Channel,
    pub(super) from: Cursor,
}

/// One run that lives, or whose end is not yet dealt with.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) process: ProcessName,
    /// `None` for a run that the keeper holds without a pid: it was never born.
    pub(super) pid: Option<u32>,
    pub(super) pidfd: Option<PidFd>,
    /// Read ends of its output, for the keeper that may follow the present one.
    pub(super) pipes: Vec<(Channel, OwnedFd)>,
    /// What it is listened to through, beside its output.
    pub(super) extras: Vec<(Extra, OwnedFd)>,
    /// Where in which log its output begins, if anybody wants to know.
    pub(super) marks: Vec<Mark>,
    /// The pump was asked for them.
    pub(super) wants_marks: bool,
    pub(super) cgroup: Option<PathBuf>,
    /// How the main process ended, once the keeper has told.
    pub(super) exit: Option<WaitStatus>,
    /// The core knows that nothing of it is left; only its output may still be under way.
    pub(super) gone: bool,
    /// Not a child of the present keeper.
    pub(super) foreign: bool,
}

impl Run {
    /// Sends a signal to the main process or its group, while the main process is there. A group
    /// takes it also where it is suspended: it is asked to end, not told something.
    pub(super) fn signal(&self, signal: i32, group: bool) -> std::io::Result<()> {
        let (Some(pid), Some(pidfd)) = (self.pid, &self.pidfd) else {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        };
        if group {
            crate::os::process::wake_group(pidfd.as_fd(), pid, signal)
        } else {
            pidfd.signal(signal)
        }
    }

    /// Lends what it is listened to through.
    pub(super) fn extra(&self, wanted: Extra) -> Option<BorrowedFd<'_>> {
        let found = self.extras.iter().find(|(extra, _)| *extra == wanted);
        found.map(|(_, fd)| fd.as_fd())
    }

    /// Returns the descriptors as the keeper's table lists them: pipes, then the pidfd.
    pub(super) fn descriptors(&self) -> Vec<std::os::fd::RawFd> {
        let pidfd = self.pidfd.as_ref().map(|pidfd| pidfd.as_fd().as_raw_fd());
        self.pipes.iter().map(|(_, fd)| fd.as_raw_fd()).chain(pidfd).collect()
    }
}

/// Turns a wait status into the core's terms; see wait(2).
pub(super) fn exit_of(status: WaitStatus) -> crate::core::Exit {
    use crate::core::Exit;
    match status {
        WaitStatus::Unknown => Exit::Unknown,
        WaitStatus::Known(status) if libc::WIFEXITED(status) => {
            Exit::Code(libc::WEXITSTATUS(status))
        }
        WaitStatus::Known(status) => {
            Exit::Signal { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
        }
    }
}

/// A run that was there before this brain, as found in the keeper's table and on disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) run: RunId,
    pub(super) hands: Run,
    /// What it has said through what it is listened to may be lost.
    pub(super) unheard: bool,
}
