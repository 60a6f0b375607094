//! The engine's hands on one run.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use crate::capture::Channel;
use crate::config::Config;
use crate::keeper::wire::WaitStatus;
use crate::name::{ProcessName, RunId};
use crate::os::pidfd::PidFd;

/// One run that lives, or whose end is not yet dealt with.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) process: ProcessName,
    /// `None` for a run that the keeper holds without a pid: it was never born.
    pub(super) pid: Option<u32>,
    pub(super) pidfd: Option<PidFd>,
    /// Read ends of its output, for the keeper that may follow the present one.
    pub(super) pipes: Vec<(Channel, OwnedFd)>,
    pub(super) cgroup: Option<PathBuf>,
    /// How the main process ended, once the keeper has told.
    pub(super) exit: Option<WaitStatus>,
    /// The core knows that nothing of it is left; only its output may still be under way.
    pub(super) gone: bool,
    /// Not a child of the present keeper.
    pub(super) foreign: bool,
}

impl Run {
    /// Sends a signal to the main process or its group, while the main process is there.
    pub(super) fn signal(&self, signal: i32, group: bool) -> std::io::Result<()> {
        let (Some(pid), Some(pidfd)) = (self.pid, &self.pidfd) else {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        };
        if group {
            crate::os::process::signal_group(pidfd.as_fd(), pid, signal)
        } else {
            pidfd.signal(signal)
        }
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
}

/// Returns the current log segment of one stream: `LOG_DIR/web/0.stdout.log`.
pub(super) fn log_path(config: &Config, process: &ProcessName, channel: Channel) -> PathBuf {
    let stream = match channel {
        Channel::Stdout => "stdout",
        Channel::Stderr => "stderr",
    };
    config
        .supervisor
        .log_dir
        .join(process.program().as_str())
        .join(format!("{}.{stream}.log", process.file_stem()))
}
