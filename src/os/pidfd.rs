//! A process held by a file descriptor: it can be signalled and waited for, never mistaken.
#![allow(unsafe_code, reason = "pidfd system calls have no safe wrapper in nix")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `f_type` of the pidfs file system, which gives each process an inode of its own.
const PIDFS_MAGIC: u64 = 0x5049_4446;
/// `PIDFD_INFO_EXIT`: the exit status is asked for, and in the answer when known.
const INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` in its first published size, 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: u64 = (3 << 30) | ((mem::size_of::<PidfdInfo>() as u64) << 16) | 0xFF0B;

/// One process, living or dead, whatever becomes of its pid.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process that has this pid now (a zombie too); closed on exec.
    ///
    /// # Errors
    ///
    /// `ESRCH` when there is none, `EMFILE`/`ENFILE` when descriptors have run out.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid =
            libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
        // SAFETY: plain integers go in, a new descriptor or -1 comes out.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).expect("a descriptor is a small number");
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes over a descriptor that is known to be a pidfd.
    pub fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a signal; 0 only asks whether that would be allowed.
    ///
    /// # Errors
    ///
    /// `ESRCH` when the process has been reaped, `EPERM` when it belongs to somebody else.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, a null `siginfo` means "as kill(2) would".
        let done = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, info, 0)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends a signal to a process that may be suspended and would take it only when continued.
    ///
    /// # Errors
    ///
    /// As for [`PidFd::signal`], of the signal itself.
    pub fn wake(&self, signal: i32) -> io::Result<()> {
        self.signal(signal)?;
        if super::process::wants_continue(signal) {
            let _ = self.signal(libc::SIGCONT); // Whoever has ended needs no waking.
        }
        Ok(())
    }

    /// Returns the inode that is the process's own until reboot, 0 on kernels before 6.9,
    /// where all pidfds share one.
    ///
    /// # Errors
    ///
    /// None in practice; `fstat` on an open descriptor does not fail.
    pub fn inode(&self) -> io::Result<u64> {
        // SAFETY: `statfs` is plain numbers, for which zeros are valid.
        let mut place: libc::statfs = unsafe { mem::zeroed() };
        // SAFETY: the descriptor is open and `place` lives over the call.
        if unsafe { libc::fstatfs(self.0.as_raw_fd(), &raw mut place) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if u64::try_from(place.f_type) != Ok(PIDFS_MAGIC) {
            return Ok(0);
        }
        Ok(nix::sys::stat::fstat(&self.0)?.st_ino)
    }

    /// Returns the wait status of a process that has been reaped by somebody else.
    ///
    /// `Ok(None)` when it is not known: still alive, a zombie, or a kernel before 6.15.
    ///
    /// # Errors
    ///
    /// What the kernel says beyond "not supported" and "no such process".
    pub fn exit_status(&self) -> io::Result<Option<i32>> {
        let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
        let fd = self.0.as_raw_fd();
        // SAFETY: the request number carries the size of `info`, which lives over the call.
        if unsafe { libc::ioctl(fd, PIDFD_GET_INFO as libc::Ioctl, &raw mut info) } < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EINVAL | libc::ENOTTY | libc::ESRCH | libc::EOPNOTSUPP) => Ok(None),
                _ => Err(error),
            };
        }
        Ok((info.mask & INFO_EXIT != 0).then_some(info.exit_code))
    }

    /// Tells whether the whole process has ended (as a zombie or reaped).
    pub fn has_exited(&self) -> bool {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Lends the descriptor: readable once the process has ended.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.0
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_signal_through_a_pidfd_ends_the_process_and_is_seen() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pidfd = PidFd::open(child.id()).unwrap();
        assert!(!pidfd.has_exited());
        assert_eq!(pidfd.exit_status().unwrap(), None);
        pidfd.signal(libc::SIGKILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !pidfd.has_exited() {
            assert!(Instant::now() < deadline, "SIGKILL was not seen");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(pidfd.signal(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        if let Some(status) = pidfd.exit_status().unwrap() {
            assert_eq!(status, libc::SIGKILL);
        }
    }

    #[test]
    fn two_pidfds_of_one_process_have_the_same_inode_and_others_another() {
        let own = PidFd::open(std::process::id()).unwrap().inode().unwrap();
        assert_eq!(own, PidFd::open(std::process::id()).unwrap().inode().unwrap());
        if own != 0 {
            let other = PidFd::open(std::os::unix::process::parent_id()).unwrap();
            assert_ne!(own, other.inode().unwrap());
        }
    }
}
