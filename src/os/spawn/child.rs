//! The child's side of a spawn, from its first instruction to `execve`.
//!
//! Raw system calls only: the child borrows the memory of a daemon with threads, so it may take
//! no lock, allocate nothing and must not panic.
#![allow(unsafe_code, reason = "runs between clone and execve on borrowed memory")]

use std::os::fd::RawFd;
use std::ptr;

use crate::os::explain::Stage;

/// First of the descriptors that a spawn hands to the child.
pub(super) const RESERVED_START: RawFd = 20;
pub(super) const RESERVED_STDIN: RawFd = RESERVED_START;
pub(super) const RESERVED_STDOUT: RawFd = RESERVED_START + 1;
pub(super) const RESERVED_STDERR: RawFd = RESERVED_START + 2;
pub(super) const RESERVED_RECORD: RawFd = RESERVED_START + 3;
pub(super) const RESERVED_CGROUP: RawFd = RESERVED_START + 4;
pub(super) const RESERVED_EXTRA: RawFd = RESERVED_START + 5;
/// End of the reserved descriptors; everything from here on never reaches the child.
pub(super) const RESERVED_END: RawFd = RESERVED_START + 6;

/// What caller and child share; plain data, read by the child through one pointer.
#[repr(C)]
pub(super) struct Context {
    pub(super) path: *const libc::c_char,
    pub(super) argv: *const *const libc::c_char,
    pub(super) envp: *const *const libc::c_char,
    pub(super) directory: *const libc::c_char,
    pub(super) oom_score_adj: *const libc::c_char,
    pub(super) oom_score_adj_len: usize,
    pub(super) limits: *const (u32, u64, u64),
    pub(super) limits_len: usize,
    pub(super) groups: *const u32,
    pub(super) groups_len: usize,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) has_identity: bool,
    pub(super) has_record: bool,
    pub(super) join_cgroup: bool,
    pub(super) reset_handlers: bool,
    /// Signals that the daemon ignores, as bits: they would stay ignored.
    pub(super) ignored: u64,
    pub(super) no_new_privs: bool,
    pub(super) umask: u32,
    pub(super) nice: i32,
    pub(super) has_nice: bool,
    /// The number of the descriptor that is inherited beside the usual three, or -1.
    pub(super) extra: RawFd,
    /// Where the child writes its pid in decimal, with room for 20 digits, or null.
    pub(super) watchdog_pid: *mut u8,
    pub(super) dies_with_parent: bool,
    pub(super) errno: i32,
    pub(super) stage: u32,
    pub(super) refused_nice: i32,
    pub(super) refused_oom: i32,
}

/// The child's side, from its first instruction to `execve`.
pub(super) unsafe extern "C" fn child_main(context: *mut Context) -> ! {
    // SAFETY: the caller waits in vfork, so the context is ours alone; raw system calls only.
    unsafe {
        let context = &mut *context;
        if let Err((stage, errno)) = become_program(context) {
            context.stage = stage as u32;
            context.errno = errno;
        }
        libc::syscall(libc::SYS_exit_group, 127);
        loop {
            std::hint::spin_loop();
        }
    }
}

/// Makes a raw system call and names the stage when it fails.
macro_rules! call {
    ($stage:expr, $number:expr $(, $argument:expr)*) => {{
        let result = libc::syscall($number $(, $argument)*);
        if result < 0 {
            return Err(($stage, *libc::__errno_location()));
        }
        result
    }};
}

unsafe fn become_program(context: &mut Context) -> Result<(), (Stage, i32)> {
    // SAFETY: see `child_main`.
    unsafe {
        // From here on the descriptor table is the child's own.
        call!(
            Stage::Prepare,
            libc::SYS_close_range,
            RESERVED_END as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE
        );
        // What whoever started the daemon left open is none of the program's business either.
        call!(
            Stage::Prepare,
            libc::SYS_close_range,
            3 as libc::c_uint,
            (RESERVED_START - 1) as libc::c_uint,
            0
        );
        reset_handlers(if context.reset_handlers { u64::MAX } else { context.ignored });
        call!(Stage::Session, libc::SYS_setsid);
        if context.join_cgroup {
            let name = c"cgroup.procs".as_ptr();
            let fd = call!(
                Stage::Cgroup,
                libc::SYS_openat,
                RESERVED_CGROUP,
                name,
                libc::O_WRONLY | libc::O_CLOEXEC,
                0
            );
            call!(Stage::Cgroup, libc::SYS_write, fd, c"0".as_ptr(), 1usize);
            libc::syscall(libc::SYS_close, fd);
        }
        call!(Stage::Stdin, libc::SYS_dup3, RESERVED_STDIN, 0, 0);
        call!(Stage::Output, libc::SYS_dup3, RESERVED_STDOUT, 1, 0);
        call!(Stage::Output, libc::SYS_dup3, RESERVED_STDERR, 2, 0);
        if context.extra >= 0 {
            call!(Stage::Output, libc::SYS_dup3, RESERVED_EXTRA, context.extra, 0);
        }
        if !context.watchdog_pid.is_null() {
            let mut digits = [0u8; DIGITS];
            let pid = libc::syscall(libc::SYS_getpid).unsigned_abs();
            let length = decimal(&mut digits, 0, pid);
            ptr::copy_nonoverlapping(digits.as_ptr(), context.watchdog_pid, length);
        }
        libc::syscall(libc::SYS_umask, context.umask);
        // Before the limits: a small one on files or descriptors must not cost the identity.
        if context.has_record {
            write_record()?;
        }
        adjust(context)?;
        if !context.directory.is_null() {
            call!(Stage::Directory, libc::SYS_chdir, context.directory);
        }
        if context.no_new_privs {
            call!(Stage::NoNewPrivs, libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        }
        // After the identity, whose change would undo it.
        if context.dies_with_parent {
            call!(Stage::Prepare, libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        }
        let none: u64 = 0;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut::<u64>(),
            8usize,
        );
        call!(Stage::Exec, libc::SYS_execve, context.path, context.argv, context.envp);
    }
    Ok(())
}

/// Scheduling, limits and identity, in the order that needs privileges first.
unsafe fn adjust(context: &mut Context) -> Result<(), (Stage, i32)> {
    // SAFETY: see `child_main`.
    unsafe {
        if !context.oom_score_adj.is_null() {
            let path = c"/proc/self/oom_score_adj".as_ptr();
            let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_WRONLY, 0);
            let text = context.oom_score_adj;
            if fd < 0 || libc::syscall(libc::SYS_write, fd, text, context.oom_score_adj_len) < 0 {
                context.refused_oom = *libc::__errno_location();
            }
            libc::syscall(libc::SYS_close, fd);
        }
        if context.has_nice
            && libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, context.nice) < 0
        {
            context.refused_nice = *libc::__errno_location();
        }
        for index in 0..context.limits_len {
            let (resource, soft, hard) = *context.limits.add(index);
            let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
            call!(
                Stage::Limits,
                libc::SYS_prlimit64,
                0,
                resource,
                &raw const limit,
                ptr::null_mut::<libc::rlimit64>()
            );
        }
        if context.has_identity {
            call!(Stage::Groups, libc::SYS_setgroups, context.groups_len, context.groups);
            let (gid, uid) = (context.gid, context.uid);
            call!(Stage::Gid, libc::SYS_setresgid, gid, gid, gid);
            call!(Stage::Uid, libc::SYS_setresuid, uid, uid, uid);
        }
    }
    Ok(())
}

/// Gives signals back their default action; bit 0 is signal 1.
unsafe fn reset_handlers(signals: u64) {
    // The kernel's own struct sigaction: handler, flags, restorer, mask; all zero is SIG_DFL.
    let default = [0u64; 4];
    for signal in (1..=64).filter(|signal| signals & (1 << (signal - 1)) != 0) {
        // SAFETY: SIGKILL and SIGSTOP fail, which changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                8usize,
            );
        }
    }
}

/// Appends `pid pidfs-inode\n` and the raw `/proc/self/stat` line to the record.
///
/// Because the child itself writes it before it executes, a program that runs always has a
/// record, whoever was killed meanwhile.
unsafe fn write_record() -> Result<(), (Stage, i32)> {
    // SAFETY: see `child_main`; the buffer is on the child's own stack.
    unsafe {
        let pid = libc::syscall(libc::SYS_getpid);
        let mut inode = 0u64;
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if pidfd >= 0 {
            let mut stat: libc::stat = std::mem::zeroed();
            if libc::fstat(i32::try_from(pidfd).unwrap_or(-1), &raw mut stat) == 0 {
                inode = stat.st_ino;
            }
            libc::syscall(libc::SYS_close, pidfd);
        }
        let mut buffer = [0u8; 1024];
        let mut length = decimal(&mut buffer, 0, pid.unsigned_abs());
        buffer[length] = b' ';
        length = decimal(&mut buffer, length + 1, inode);
        buffer[length] = b'\n';
        length += 1;
        let path = c"/proc/self/stat".as_ptr();
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let stat = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0);
        if stat >= 0 {
            let room = buffer.as_mut_ptr().add(length);
            let read = libc::syscall(libc::SYS_read, stat, room, buffer.len() - length);
            length += usize::try_from(read).unwrap_or(0);
            libc::syscall(libc::SYS_close, stat);
        }
        call!(Stage::Record, libc::SYS_write, RESERVED_RECORD, buffer.as_ptr(), length);
    }
    Ok(())
}

/// Digits of the largest number.
const DIGITS: usize = 20;

/// Writes `number` in decimal at `start` and returns the end.
fn decimal<const N: usize>(buffer: &mut [u8; N], start: usize, mut number: u64) -> usize {
    let mut digits = [0u8; DIGITS];
    let mut count = 0;
    loop {
        digits[count] = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    for index in 0..count {
        buffer[start + index] = digits[count - 1 - index];
    }
    start + count
}
