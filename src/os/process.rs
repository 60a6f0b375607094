//! What a process does to itself and its children: name, subreaper, reap, replace.
#![allow(unsafe_code, reason = "fork, exec and wait for the keeper, without allocation")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

/// Sets the name that `ps` shows (15 bytes at most); see prctl(2), `PR_SET_NAME`.
pub fn set_name(name: &CStr) {
    // SAFETY: the kernel copies at most 16 bytes of a valid string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Makes this process the parent of every orphan below it; the flag survives `execve`.
///
/// # Errors
///
/// Those of prctl(2), none of which a supported kernel has.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: no memory is passed.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Reaps one child that has ended and returns its pid and wait status, `None` when none has.
pub fn reap_next() -> Option<(u32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is a live local.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    u32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| (pid, status))
}

/// Forks and executes `path`; `keep` is the one descriptor that the program gets besides the
/// standard ones, under the number `number`. All signals are unblocked in the child, which leads
/// a session of its own.
///
/// # Errors
///
/// Those of fork(2). A failed exec shows as a child that exits with 127.
pub fn fork_exec(
    path: &CStr,
    argv: &[CString],
    keep: BorrowedFd<'_>,
    number: RawFd,
) -> io::Result<u32> {
    let mut pointers = [ptr::null(); 64];
    for (place, text) in pointers.iter_mut().zip(argv) {
        *place = text.as_ptr();
    }
    if argv.len() >= pointers.len() {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    // SAFETY: the caller has one thread; the child makes async-signal-safe calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => unsafe {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
            libc::setsid();
            if keep.as_raw_fd() == number {
                libc::fcntl(number, libc::F_SETFD, 0);
            } else {
                libc::dup2(keep.as_raw_fd(), number);
            }
            libc::execv(path.as_ptr(), pointers.as_ptr());
            libc::_exit(127)
        },
        pid => Ok(u32::try_from(pid).unwrap_or(0)),
    }
}

/// Replaces this process by `path`; descriptors that are not close-on-exec survive.
///
/// Returns only when it did not work, with the reason.
pub fn exec(path: &CStr, argv: &[CString]) -> io::Error {
    let pointers: Vec<_> = argv.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: the pointers live through the call and end with null.
    unsafe { libc::execv(path.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Decides whether a descriptor survives `execve`.
///
/// # Errors
///
/// `EBADF` when it is not open.
pub fn set_inherited(fd: RawFd, inherited: bool) -> io::Result<()> {
    let flags = if inherited { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: F_SETFD has no memory effects.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes sure that no descriptor from `first` on survives `execve`.
pub fn close_on_exec_from(first: RawFd) {
    let from = libc::c_uint::try_from(first).unwrap_or(0);
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: no memory is passed, and no descriptor is closed here.
    if unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, flags) } == 0 {
        return;
    }
    // Kernels before 5.11 know the call but not the flag.
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number >= first) {
            // The directory's own descriptor is closed by the time it could matter.
            let _ = set_inherited(number, false);
        }
    }
}

/// Takes over a descriptor that this process inherited under a known number.
///
/// # Errors
///
/// `EBADF` when nothing is open under that number.
pub fn adopt_fd(number: RawFd) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    set_inherited(number, false)?;
    // SAFETY: it is open, as F_SETFD has just proved, and the caller's argument list says that
    // it was handed to this process and nobody else here owns it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(number) })
}

/// Blocks every signal in this thread, for a signalfd or a dedicated thread to receive them.
pub fn block_all_signals() {
    // SAFETY: plain data.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
    }
}

/// Makes room for this many descriptors, as far as the limit allows; for a process that has one
/// thread. Once there are more, each growth of the table waits for all processors, ten milliseconds
/// and longer.
pub fn reserve_descriptors(count: u64) {
    let most = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_or(0, |(soft, _)| soft);
    let last = count.min(most).saturating_sub(1);
    let Ok(last) = i32::try_from(last) else { return };
    // SAFETY: the copy is a new descriptor, which is closed again and used by nobody.
    unsafe {
        let copy = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, last);
        if copy >= 0 {
            libc::close(copy);
        }
    }
}

/// Returns the user id this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

/// Lends a descriptor that is known by its number alone.
pub fn lend_fd<T>(fd: RawFd, use_it: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    assert!(fd >= 0, "a descriptor number is never negative");
    // SAFETY: the keeper's table owns it and is borrowed by the caller for this call.
    use_it(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Kills a child that this process has not reaped yet, so that its pid is still its own.
pub fn kill_child(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 0
    {
        // SAFETY: no memory is passed.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Returns whether the other end of a socket is closed.
pub fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one live element.
    unsafe { libc::poll(&raw mut polled, 1, 0) > 0 && polled.revents & libc::POLLHUP != 0 }
}

/// Returns whether a pidfd is of a child of this process, alive or not yet reaped.
pub fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    let Ok(id) = libc::id_t::try_from(pidfd.as_raw_fd()) else { return false };
    // SAFETY: `info` is a live local that the kernel fills in.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) == 0
    }
}

/// Sends a signal to the process group that `pid` leads; `pidfd` proves that it is still there.
///
/// Kernels from 6.9 on do it without a race (`PIDFD_SIGNAL_PROCESS_GROUP`).
///
/// # Errors
///
/// `ESRCH` when the group is gone, `EPERM` when it belongs to somebody else.
pub fn signal_group(pidfd: BorrowedFd<'_>, pid: u32, signal: i32) -> io::Result<()> {
    const PROCESS_GROUP: libc::c_uint = 4;
    let none = ptr::null::<libc::siginfo_t>();
    // SAFETY: no memory is passed.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, PROCESS_GROUP)
    };
    if sent == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EINVAL) {
        return Err(error);
    }
    let group = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no memory is passed.
    match unsafe { libc::kill(-group, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether SIGCONT has to follow a signal: whoever is suspended takes most only when it is
/// continued. SIGKILL needs no help, and what suspends is not taken back; see systemd.kill(5).
pub(crate) fn wants_continue(signal: i32) -> bool {
    let needs_no_help = [0, libc::SIGKILL, libc::SIGCONT];
    let suspends = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    !needs_no_help.contains(&signal) && !suspends.contains(&signal)
}

/// Sends a signal to a group as [`signal_group`] does, also to those in it that are suspended.
///
/// # Errors
///
/// As for [`signal_group`], of the signal itself: SIGCONT finds nobody where all have ended.
pub fn wake_group(pidfd: BorrowedFd<'_>, pid: u32, signal: i32) -> io::Result<()> {
    signal_group(pidfd, pid, signal)?;
    if wants_continue(signal) {
        let _ = signal_group(pidfd, pid, libc::SIGCONT);
    }
    Ok(())
}

/// Starts a process that is nobody's child to wait for: it leads a session of its own, and what
/// is not close-on-exec here is open there.
///
/// # Errors
///
/// Those of fork(2). A failed exec shows as a child that exits with 127.
pub fn spawn_detached(path: &CStr, argv: &[CString]) -> io::Result<()> {
    let pointers: Vec<_> = argv.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: the child makes async-signal-safe calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => unsafe {
            libc::setsid();
            libc::execv(path.as_ptr(), pointers.as_ptr());
            libc::_exit(127)
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_suspended_process_would_not_take_is_followed_by_sigcont() {
        let follows = [libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGABRT, libc::SIGUSR1];
        assert!(follows.into_iter().all(wants_continue));
        let alone = [0, libc::SIGKILL, libc::SIGCONT, libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN];
        assert!(!alone.into_iter().any(wants_continue));
    }
}
