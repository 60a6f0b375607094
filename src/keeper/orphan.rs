//! What a starting keeper does about a brain that lost its keeper.
//!
//! Exactly one brain may move output. A brain proves that it lives by its lock in the runtime
//! directory; one that still holds it either hands over on its socket or, when it does not react
//! (stopped, hung), is killed, which loses nothing. One that has withdrawn for an upgrade whose
//! keeper was killed has given up its lock, and still hands over if it comes to that.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::handover;
use super::lock::is_another_keeper_there;
use super::table::Table;
use super::wire::ToBrain;
use crate::name::RunId;
use crate::os::pidfd::PidFd;
use crate::os::process;
use crate::os::seqpacket::ReceivedFds;

/// Name of the brain's lock in the runtime directory; it contains the brain's pid.
pub const BRAIN_LOCK: &str = "brain.lock";

/// The name of a brain's process, which a pid that was given again does not have.
const BRAIN_COMMAND: &str = "mend-brain";

/// How long a living brain may take to notice that its keeper is gone.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long a brain without a keeper waits for the one that has the lock: longer than a service
/// manager may take to start a keeper.
const PATIENCE_WITHOUT_KEEPER: Duration = Duration::from_secs(20);

/// How long a brain that stood by may take to see that the one that went on in its place is dead.
const CUT_PATIENCE: Duration = Duration::from_millis(500);

/// How long a brain that was let go may take to end, before it is asked whether it was.
const RELIEF_PATIENCE: Duration = Duration::from_millis(500);

/// Pause between two looks at a lock that is held by nobody who is a brain.
const LONG_PAUSE: Duration = Duration::from_millis(200);

/// Pause between two looks at what gives no word when it changes.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes over from a brain that lives without a keeper. Returns the socket of one that has handed
/// over and waits to be dismissed, `None` when no brain is left.
///
/// `was_cut` says that one has died in the middle of handing over.
pub(super) fn take_over(runtime_dir: &Path, table: &mut Table, was_cut: bool) -> Option<OwnedFd> {
    let deadline = Instant::now() + PATIENCE;
    let mut linger = Instant::now() + if was_cut { CUT_PATIENCE } else { Duration::ZERO };
    loop {
        // One that has withdrawn for an upgrade listens without the lock.
        if let Some(socket) = handover::connect_to_orphan(runtime_dir) {
            if handover::receive(socket.as_fd(), table) {
                return Some(socket);
            }
            linger = deadline.min(Instant::now() + CUT_PATIENCE);
        }
        let now = Instant::now();
        if !is_held(runtime_dir) && now >= linger {
            return None;
        }
        if now >= deadline && is_held(runtime_dir) {
            eprintln!("mendd: the brain before does not hand over; killing it");
            evict(runtime_dir);
            let socket = handover::connect_to_orphan(runtime_dir)?;
            return handover::receive(socket.as_fd(), table).then_some(socket);
        }
        wait_for_change(runtime_dir, PAUSE);
    }
}

/// Waits until no other brain has the lock, and kills one that keeps it for too long.
///
/// A brain whose own keeper (at the other end of `keeper`) is killed meanwhile is not the one that
/// must go on: the other one may be about to get a keeper itself. While the keeper lives, the
/// other one may wait for a keeper in vain, as ours got everything from a third: `relieve` is
/// called now and then.
///
/// # Errors
///
/// [`io::ErrorKind::NotConnected`] when our keeper is gone and another one is there, else what the
/// file system says.
pub fn wait_for_brain_lock(
    runtime_dir: &Path,
    lock: &File,
    keeper: BorrowedFd<'_>,
    keeper_pid: u32,
    mut relieve: impl FnMut(),
) -> io::Result<()> {
    let mut deadline = Instant::now() + PATIENCE;
    let mut relieve_at = Instant::now() + RELIEF_PATIENCE;
    let mut lost = false;
    loop {
        if !lost && process::is_hung_up(keeper) {
            lost = true;
            deadline = Instant::now() + PATIENCE_WITHOUT_KEEPER;
        }
        if lost && is_another_keeper_there(runtime_dir, keeper_pid) {
            let text = "the keeper was killed, and another one is there";
            return Err(io::Error::new(io::ErrorKind::NotConnected, text));
        }
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if !lost && Instant::now() >= relieve_at => {
                relieve();
                relieve_at = Instant::now() + RELIEF_PATIENCE;
            }
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                wait_for_change(runtime_dir, PAUSE);
            }
            Err(TryLockError::WouldBlock) if evict(runtime_dir) => {
                // Whoever takes it now has had no time yet.
                deadline = Instant::now() + PATIENCE;
            }
            // Held by nobody who is a brain: nothing may be done before it is free.
            Err(TryLockError::WouldBlock) => std::thread::sleep(LONG_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Lets a brain go that waits for a keeper in vain, and returns its runs that have ended: of those
/// it may hold the last output. Those that live are found on disk.
pub fn relieve(runtime_dir: &Path) -> Vec<(ToBrain, ReceivedFds)> {
    let mut table = Table::new();
    let Some(socket) = handover::connect_to_orphan(runtime_dir) else { return Vec::new() };
    let is_complete = handover::receive(socket.as_fd(), &mut table);
    let mut ended = Vec::new();
    for index in 0..table.end() {
        if table.get(index).is_none() {
            continue;
        }
        let slot = table.remove(index);
        let pipes = slot.pipes.into_iter().filter(|fd| *fd >= 0).count();
        let entry = ToBrain::Entry {
            run: RunId(slot.run),
            pid: (slot.pid != 0).then_some(slot.pid),
            exit: slot.exit(),
            pipes: u8::try_from(pipes).unwrap_or(0),
            has_pidfd: slot.pidfd >= 0,
        };
        let mut places = ReceivedFds::default();
        let held = slot.pipes.into_iter().chain([slot.pidfd]).filter(|fd| *fd >= 0);
        for (place, fd) in places.iter_mut().zip(held) {
            *place = process::adopt_fd(fd).ok();
        }
        if is_complete && slot.exit().is_some() {
            ended.push((entry, places));
        }
    }
    if is_complete {
        handover::dismiss(&socket);
    }
    ended
}

/// Returns whether another brain holds the lock or, withdrawn for an upgrade, waits for a keeper.
pub fn is_other_brain_there(runtime_dir: &Path) -> bool {
    is_held(runtime_dir) || handover::connect_to_orphan(runtime_dir).is_some()
}

/// Returns whether some process holds the brain's lock.
fn is_held(runtime_dir: &Path) -> bool {
    let Ok(file) = File::open(runtime_dir.join(BRAIN_LOCK)) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Returns the brain that the lock names. It names nobody for the moment in which a brain has
/// just taken it.
fn holder(runtime_dir: &Path) -> Option<PidFd> {
    let pid = std::fs::read_to_string(runtime_dir.join(BRAIN_LOCK)).ok()?.trim().parse().ok()?;
    let pidfd = PidFd::open(pid).ok()?;
    // Read when the pidfd was open already: it cannot be the name of a later process.
    (is_brain(pid) && pid != std::process::id()).then_some(pidfd)
}

/// Returns whether this is a brain, alive or dying.
pub fn is_brain(pid: u32) -> bool {
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    command.is_ok_and(|command| command.trim_end() == BRAIN_COMMAND)
}

/// Kills the brain that the lock names; returns whether there was one.
pub fn evict(runtime_dir: &Path) -> bool {
    let Some(brain) = holder(runtime_dir) else { return false };
    let _ = brain.signal(libc::SIGKILL);
    wait_for_exit(&brain, PATIENCE);
    true
}

fn wait_for_change(runtime_dir: &Path, patience: Duration) {
    match holder(runtime_dir) {
        Some(brain) => wait_for_exit(&brain, patience),
        None => std::thread::sleep(patience.min(Duration::from_millis(1))),
    }
}

fn wait_for_exit(brain: &PidFd, patience: Duration) {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut [PollFd::new(brain.as_fd(), PollFlags::POLLIN)], timeout);
}
