//! How a process ended that is not the keeper's child: what its pidfd tells.

use std::os::fd::RawFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::wire::WaitStatus;
use crate::os::pidfd::PidFd;
use crate::os::process;

fn has_event(pidfd: RawFd, event: PollFlags) -> bool {
    process::lend_fd(pidfd, |fd| {
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok()
            && fds[0].revents().is_some_and(|events| events.contains(event))
    })
}

pub(super) fn process_has_exited(pidfd: RawFd) -> bool {
    has_event(pidfd, PollFlags::POLLIN)
}

/// Returns how a process that is not our child ended, `None` while that may still become known.
pub(super) fn foreign_status(pidfd: RawFd, pid: u32) -> Option<WaitStatus> {
    // Asked for first: the kernel tells the status from the moment of the reaping on, and a
    // process that is reaped between two questions must not count as one that nobody can tell of.
    let is_reaped = has_event(pidfd, PollFlags::POLLHUP);
    let pidfd = process::lend_fd(pidfd, |fd| fd.try_clone_to_owned()).map(PidFd::from_owned).ok();
    let told = || pidfd.as_ref().and_then(|pidfd| pidfd.exit_status().ok().flatten());
    if let Some(status) = told() {
        return Some(WaitStatus::Known(status));
    }
    if is_reaped {
        return Some(WaitStatus::Unknown);
    }
    // Not reaped yet: the process table still has the status, for those who may read it.
    let stat = crate::os::proc::stat(pid);
    let is_gone = |pidfd: &PidFd| {
        pidfd.signal(0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
    };
    if pidfd.as_ref().is_some_and(is_gone) {
        // Reaped meanwhile, or by a kernel before 6.9, where a pidfd never hangs up and no event
        // will follow; what was read may be of the next owner of the pid.
        return Some(told().map_or(WaitStatus::Unknown, WaitStatus::Known));
    }
    stat.filter(|stat| stat.state == 'Z')?.exit_code.map(WaitStatus::Known)
}
