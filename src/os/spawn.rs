//! Brings a process to life without copying the daemon's memory.
//!
//! `clone3(CLONE_VM | CLONE_VFORK | CLONE_PARENT | CLONE_PIDFD | CLONE_FILES)`: the child borrows
//! the caller's memory until its `execve`, so the cost does not grow with the daemon; its parent
//! is the *caller's* parent, the keeper, so that it outlives the caller. The child shares the
//! descriptor table too and leaves it with `close_range(CLOSE_RANGE_UNSHARE)`, which copies only
//! the few descriptors below a fixed number: the cost does not grow with open files either.
//!
//! Rules of the child's side: raw system calls only, no allocation, no lock, nothing that can
//! panic. What goes wrong is left in the shared [`Context`] as errno and stage, which the caller
//! reads as soon as `vfork` lets it go on: an exec failure needs no status pipe.
//!
//! Sources: clone(2), close_range(2), execve(2), vfork(2).
#![allow(unsafe_code, reason = "clone3 and the child's side of it have no safe wrapper")]

mod child;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use self::child::{
    Context, RESERVED_CGROUP, RESERVED_END, RESERVED_EXTRA, RESERVED_RECORD, RESERVED_START,
    RESERVED_STDERR, RESERVED_STDIN, RESERVED_STDOUT, child_main,
};
use crate::os::explain::Stage;

const STACK_BYTES: usize = 64 * 1024;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Everything a child needs, prepared so that it has nothing left to compute.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The executable, found already.
    pub path: CString,
    pub argv: Vec<CString>,
    pub envp: Vec<CString>,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// The record that the child completes with its own identity before it executes.
    pub record: Option<BorrowedFd<'a>>,
    /// Directory of the cgroup leaf to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    pub directory: Option<CString>,
    pub umask: u32,
    pub nice: Option<i32>,
    /// `None` leaves what the daemon has.
    pub oom_score_adj: Option<CString>,
    /// `(resource, soft, hard)`.
    pub limits: Vec<(u32, u64, u64)>,
    /// Supplementary groups, group and user.
    pub identity: Option<(Vec<u32>, u32, u32)>,
    pub no_new_privs: bool,
    /// A descriptor to inherit, and its number in the child, from 3 to 19.
    pub extra: Option<(BorrowedFd<'a>, RawFd)>,
    /// `WATCHDOG_PID` is added to the environment with the child's own pid.
    pub watchdog_pid: bool,
    pub parent: Parent,
}

/// Whose child it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The caller's parent, so that it outlives the caller.
    Keeper,
    /// The caller, whose death kills it.
    Own,
}

/// A child that is executing its program.
#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// Wishes that the kernel refused without the run being worth less: nice, OOM score.
    pub refused: Vec<(Stage, io::Error)>,
}

/// Why there is no child.
#[derive(Debug)]
pub struct SpawnError {
    pub errno: i32,
    pub stage: Stage,
}

/// Bytes of `WATCHDOG_PID=`.
const WATCHDOG_NAME_BYTES: usize = 13;

/// The variable, with room for any pid and the zero byte after it.
const WATCHDOG_PID: &[u8; WATCHDOG_NAME_BYTES + 21] =
    b"WATCHDOG_PID=\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Spawns children; owns the reserved descriptors and the stack they start on.
///
/// One per process: the reserved descriptor numbers are process-wide.
#[derive(Debug)]
pub struct Spawner {
    stack: Vec<u8>,
    null: OwnedFd,
    /// Signals that this process ignores, as bits; `CLONE_CLEAR_SIGHAND` leaves those alone.
    ignored: u64,
    /// `clone3` is missing or forbidden (old seccomp filters): use `clone` and do the rest by hand.
    legacy: bool,
}

impl Spawner {
    /// Reserves the descriptors.
    ///
    /// # Errors
    ///
    /// When `/dev/null` cannot be opened or a reserved number is in use, which means that the
    /// caller did not call this early enough.
    pub fn new() -> io::Result<Self> {
        let null: OwnedFd =
            std::fs::File::options().read(true).write(true).open("/dev/null")?.into();
        let spawner =
            Self { stack: vec![0; STACK_BYTES], null, ignored: ignored_signals(), legacy: false };
        for slot in RESERVED_START..RESERVED_END {
            // SAFETY: fcntl with F_GETFD has no memory effects.
            if unsafe { libc::fcntl(slot, libc::F_GETFD) } >= 0 {
                return Err(io::Error::other(format!("descriptor {slot} is in use already")));
            }
            spawner.place(spawner.null.as_raw_fd(), slot)?;
        }
        Ok(spawner)
    }

    fn place(&self, from: RawFd, slot: RawFd) -> io::Result<()> {
        // SAFETY: dup3 replaces one descriptor number that only this type uses.
        match unsafe { libc::dup3(from, slot, libc::O_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn clear_slots(&self) {
        for slot in RESERVED_START..RESERVED_END {
            // Cannot fail: both numbers are open.
            let _ = self.place(self.null.as_raw_fd(), slot);
        }
    }

    /// Spawns, and returns when the child executes its program or has failed to.
    ///
    /// Only the calling thread waits meanwhile.
    ///
    /// # Errors
    ///
    /// The errno and the stage at which the child gave up; then nothing of it is left.
    pub fn spawn(&mut self, plan: &Plan<'_>) -> Result<Spawned, SpawnError> {
        let prepare = |error: io::Error| SpawnError {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            stage: Stage::Prepare,
        };
        let slots = [
            (Some(plan.stdin), RESERVED_STDIN),
            (Some(plan.stdout), RESERVED_STDOUT),
            (Some(plan.stderr), RESERVED_STDERR),
            (plan.record, RESERVED_RECORD),
            (plan.cgroup, RESERVED_CGROUP),
            (plan.extra.map(|(fd, _)| fd), RESERVED_EXTRA),
        ];
        for (fd, slot) in slots {
            if let Some(fd) = fd {
                self.place(fd.as_raw_fd(), slot).map_err(prepare)?;
            }
        }
        let result = self.clone_and_wait(plan);
        self.clear_slots();
        result
    }

    fn clone_and_wait(&mut self, plan: &Plan<'_>) -> Result<Spawned, SpawnError> {
        let argv = pointers(&plan.argv);
        let mut envp = pointers(&plan.envp);
        // Filled in by the child, which alone knows its pid.
        let mut watchdog_pid = *WATCHDOG_PID;
        if plan.watchdog_pid {
            envp.insert(envp.len() - 1, watchdog_pid.as_ptr().cast());
        }
        let no_groups: Vec<u32> = Vec::new();
        let (groups, gid, uid) = plan
            .identity
            .as_ref()
            .map_or((&no_groups, 0, 0), |(groups, gid, uid)| (groups, *gid, *uid));
        let mut context = Context {
            path: plan.path.as_ptr(),
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            directory: plan.directory.as_deref().map_or(ptr::null(), CStr::as_ptr),
            oom_score_adj: plan.oom_score_adj.as_deref().map_or(ptr::null(), CStr::as_ptr),
            oom_score_adj_len: plan.oom_score_adj.as_ref().map_or(0, |text| text.as_bytes().len()),
            limits: plan.limits.as_ptr(),
            limits_len: plan.limits.len(),
            groups: groups.as_ptr(),
            groups_len: groups.len(),
            uid,
            gid,
            has_identity: plan.identity.is_some(),
            has_record: plan.record.is_some(),
            join_cgroup: false,
            reset_handlers: false,
            ignored: self.ignored,
            no_new_privs: plan.no_new_privs,
            umask: plan.umask,
            nice: plan.nice.unwrap_or(0),
            has_nice: plan.nice.is_some(),
            extra: plan.extra.map_or(-1, |(_, number)| number),
            watchdog_pid: match plan.watchdog_pid {
                true => watchdog_pid[WATCHDOG_NAME_BYTES..].as_mut_ptr(),
                false => ptr::null_mut(),
            },
            dies_with_parent: plan.parent == Parent::Own,
            errno: 0,
            stage: 0,
            refused_nice: 0,
            refused_oom: 0,
        };
        let _blocked = BlockedSignals::new();
        let parent = match plan.parent {
            Parent::Keeper => libc::CLONE_PARENT,
            Parent::Own => 0,
        };
        let (result, pidfd) = self.clone_child(&mut context, parent, plan.cgroup.is_some());
        // The child wrote through the pointer it was given: read afresh.
        // SAFETY: `context` is alive and the child has left this memory by now.
        let context = unsafe { ptr::read_volatile(&raw const context) };
        if result < 0 {
            return Err(SpawnError {
                errno: i32::try_from(-result).unwrap_or(libc::EIO),
                stage: Stage::Prepare,
            });
        }
        // SAFETY: the kernel stored a fresh descriptor that nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        if context.errno != 0 {
            let stage = Stage::from_raw(context.stage).unwrap_or(Stage::Prepare);
            return Err(SpawnError { errno: context.errno, stage });
        }
        let refused = [(Stage::Nice, context.refused_nice), (Stage::OomScore, context.refused_oom)]
            .into_iter()
            .filter(|(_, errno)| *errno != 0)
            .map(|(stage, errno)| (stage, io::Error::from_raw_os_error(errno)))
            .collect();
        Ok(Spawned { pid: u32::try_from(result).unwrap_or(0), pidfd, refused })
    }

    /// Returns the pid or a negated errno, and the pidfd.
    fn clone_child(
        &mut self,
        context: &mut Context,
        parent: i32,
        into_cgroup: bool,
    ) -> (i64, RawFd) {
        let flags =
            (libc::CLONE_VM | libc::CLONE_VFORK | parent | libc::CLONE_FILES | libc::CLONE_PIDFD)
                as u64;
        if !self.legacy {
            let mut pidfd: RawFd = -1;
            let mut args = CloneArgs {
                flags: flags | CLONE_CLEAR_SIGHAND,
                pidfd: (&raw mut pidfd) as u64,
                stack: self.stack.as_mut_ptr() as u64,
                stack_size: self.stack.len() as u64,
                ..CloneArgs::default()
            };
            if into_cgroup {
                args.flags |= CLONE_INTO_CGROUP;
                args.cgroup = RESERVED_CGROUP as u64;
            }
            // SAFETY: the stack and the context outlive the child's use of them (CLONE_VFORK),
            // all signals are blocked, and `child_main` keeps the rules of this module.
            let result = unsafe { clone3(&mut args, context) };
            // SAFETY: the kernel wrote it, if anybody did.
            let pidfd = unsafe { ptr::read_volatile(&raw const pidfd) };
            let unsupported = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::E2BIG];
            if result >= 0 || !unsupported.iter().any(|errno| i64::from(-*errno) == result) {
                return (result, pidfd);
            }
            if into_cgroup && result != -i64::from(libc::ENOSYS) {
                // A cgroup that refuses births may still take a process that joins.
                return self.clone_legacy(context, flags, into_cgroup);
            }
            self.legacy = true;
        }
        self.clone_legacy(context, flags, into_cgroup)
    }

    fn clone_legacy(
        &mut self,
        context: &mut Context,
        flags: u64,
        into_cgroup: bool,
    ) -> (i64, RawFd) {
        context.reset_handlers = true;
        context.join_cgroup = into_cgroup;
        let mut pidfd: RawFd = -1;
        // The stack grows downwards on every architecture this builds for; 16-byte aligned.
        let top = (self.stack.as_mut_ptr() as usize + self.stack.len()) & !15;
        extern "C" fn entry(context: *mut libc::c_void) -> libc::c_int {
            // SAFETY: `clone` passes on the pointer it was given.
            unsafe { child_main(context.cast()) }
        }
        // SAFETY: as for clone3 above.
        let result = unsafe {
            libc::clone(
                entry,
                top as *mut libc::c_void,
                i32::try_from(flags).unwrap_or(0),
                (&raw mut *context).cast(),
                &raw mut pidfd,
            )
        };
        if result < 0 {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            return (-i64::from(errno), -1);
        }
        // SAFETY: the kernel wrote it.
        (i64::from(result), unsafe { ptr::read_volatile(&raw const pidfd) })
    }
}

/// Returns the signals whose action is to be ignored, as bits; bit 0 is signal 1.
fn ignored_signals() -> u64 {
    // SAFETY: the kernel fills in a plain struct; a number that is no signal changes nothing.
    let is_ignored = |signal: i32| unsafe {
        let mut action = [0u64; 4];
        let none = ptr::null::<u64>();
        let asked =
            libc::syscall(libc::SYS_rt_sigaction, signal, none, action.as_mut_ptr(), 8usize);
        asked == 0 && action[0] == libc::SIG_IGN as u64
    };
    (1..=64).filter(|signal| is_ignored(*signal)).fold(0, |bits, signal| bits | 1 << (signal - 1))
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// Blocks every signal while it lives, so that no handler runs on the child's side.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn new() -> Self {
        // SAFETY: both sets are plain data that the calls fill in.
        unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: restores the mask that `new` saved.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &mut CloneArgs, context: *mut Context) -> i64 {
    let result: i64;
    // SAFETY: the child never comes back from `child_main`; the parent sees a plain system call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw mut *args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") context,
            in("r13") child_main as unsafe extern "C" fn(*mut Context) -> !,
            out("rcx") _,
            out("r11") _,
            clobber_abi("C"),
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &mut CloneArgs, context: *mut Context) -> i64 {
    let result: i64;
    // SAFETY: as on x86_64.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") &raw mut *args => result,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x20") context,
            in("x21") child_main as unsafe extern "C" fn(*mut Context) -> !,
            clobber_abi("C"),
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_args: &mut CloneArgs, _context: *mut Context) -> i64 {
    -i64::from(libc::ENOSYS)
}
