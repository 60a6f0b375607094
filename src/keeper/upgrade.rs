//! The keeper's part of an upgrade: nothing of the old executable is given up before the new one
//! has proven itself.
//!
//! The brain that asked withdraws: it does nothing any more but wait. A brain of the new executable
//! is started under the old keeper. When it serves, the one that waited is killed, and the new
//! executable is tried as a keeper beside this one, on a copy of the table. Only then this process
//! becomes it, and the new brain does not even notice. Whatever fails on the way, a brain of the
//! old executable comes back: to the programs it was a crash of the brain, which loses nothing.
//!
//! What a death at each moment means, by the step that it hits:
//!
//! - **Leaving** (the old brain answers its clients, ends its launches and gives up its lock).
//!   The old brain dies: the new one is started, as if it had withdrawn. The keeper dies: the old
//!   brain reads the end of its socket once it has withdrawn, and goes on.
//! - **Trying** (the new brain waits for the lock, takes over, serves). The new brain dies: one of
//!   the old executable follows. The old brain dies: nothing was left for it to do. The keeper
//!   dies: both brains read the end of their sockets, and the lock decides which of them goes on
//!   (`engine::standby`); the other one ends.
//! - **Rehearsing**, and later. The old brain is gone, the new one knows everything. The keeper
//!   dies: an ordinary brain without a keeper. The new brain dies: one of the old executable
//!   follows.
//!
//! So from the first step to the last there is always a process that holds every descriptor and
//! that notices when the keeper is killed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::arguments::KeeperArguments;
use super::brain::Brain;
use super::handover;
use super::watch::Keeper;
use super::wire::{ToBrain, UpgradeFailure};
use crate::os::{process, seqpacket};

/// How long the old brain may take to send its last answers and to end the launches under way.
const LEAVE_PATIENCE: Duration = Duration::from_secs(8);

/// How long the new executable may take to read the table.
const REHEARSAL_PATIENCE: Duration = Duration::from_secs(10);

/// An upgrade that is under way, and one that failed and is not told yet.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    step: Option<(Step, CString, Instant)>,
    failure: Option<UpgradeFailure>,
    /// The brain that has withdrawn, until it is reaped.
    resting: Option<Resting>,
}

/// A brain that only waits: for its death, or for the end of its socket should we die before.
#[derive(Debug)]
struct Resting {
    pid: u32,
    /// Open for as long as it lives: its end means that we are gone.
    socket: OwnedFd,
}

/// What is waited for, until the time beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The old brain withdraws; then the new one has this long.
    Leaving { patience: Duration },
    /// The new brain serves.
    Trying,
    /// The new executable proves that it can be this keeper.
    Rehearsing { pid: u32 },
}

impl Upgrade {
    pub(super) fn is_under_way(&self) -> bool {
        self.step.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.step.as_ref().map(|(_, _, until)| *until)
    }

    /// Returns the executable of the next brain, `None` for our own.
    pub(super) fn executable(&self) -> Option<&CStr> {
        match &self.step {
            Some((Step::Trying, path, _)) => Some(path),
            Some((Step::Leaving { .. } | Step::Rehearsing { .. }, _, _)) | None => None,
        }
    }

    /// Returns whether this child was the brain that waited; it is forgotten then.
    pub(super) fn was_resting(&mut self, child: u32) -> bool {
        self.resting.take_if(|resting| resting.pid == child).is_some()
    }

    /// Lets the brain that waits know what it would have to hand over.
    pub(super) fn tell_resting(&self, message: ToBrain) {
        if let Some(resting) = &self.resting {
            // A full socket costs a status only if this process is killed as well.
            let _ = seqpacket::send(resting.socket.as_fd(), &message.encode(), &[], false);
        }
    }

    pub(super) fn is_rehearsal(&self, child: u32) -> bool {
        matches!(&self.step, Some((Step::Rehearsing { pid }, _, _)) if *pid == child)
    }
}

impl Keeper {
    /// Begins to become the executable at `path`.
    pub(super) fn begin_upgrade(&mut self, path: &[u8], patience: Duration) {
        let Ok(path) = CString::new(path) else { return };
        if self.upgrade.step.is_some() {
            let _ = self.send(ToBrain::UpgradeFailed(UpgradeFailure::Busy), &[]);
            return;
        }
        if self.send(ToBrain::UpgradeBegins, &[]).is_err() {
            // Its socket is full or it is dying: it will ask again, or nobody will.
            return;
        }
        let step = Step::Leaving { patience };
        self.upgrade.step = Some((step, path, Instant::now() + LEAVE_PATIENCE));
    }

    /// The old brain has made room: the new one starts, and the old one stays until it serves.
    pub(super) fn brain_withdrew(&mut self) {
        let Some((Step::Leaving { patience }, path, _)) =
            self.upgrade.step.take_if(|(step, _, _)| matches!(step, Step::Leaving { .. }))
        else {
            return;
        };
        let now = Instant::now();
        if let Some((pid, socket)) = self.brain.withdrew(now) {
            let _ = self.epoll.delete(&socket);
            self.upgrade.resting = Some(Resting { pid, socket });
        }
        self.upgrade.step = Some((Step::Trying, path, now + patience));
    }

    /// Ends the brain that waited: another one serves, or nothing is left to serve.
    pub(super) fn dismiss_resting(&mut self) {
        if let Some(resting) = &self.upgrade.resting {
            process::kill_child(resting.pid);
        }
    }

    /// Decides what the death of a brain means for the upgrade; returns whether it was part of it.
    pub(super) fn upgrade_goes_on(&mut self, status: i32) -> bool {
        let now = Instant::now();
        match self.upgrade.step.take() {
            None => false,
            Some((Step::Leaving { patience }, path, _)) => {
                self.upgrade.step = Some((Step::Trying, path, now + patience));
                self.brain.start_now(now);
                true
            }
            Some((Step::Trying, _, _)) => {
                self.go_back(UpgradeFailure::BrainEnded { status });
                self.brain.start_now(now);
                true
            }
            Some((Step::Rehearsing { pid }, _, _)) => {
                process::kill_child(pid);
                self.go_back(UpgradeFailure::BrainEnded { status });
                self.brain.start_now(now);
                true
            }
        }
    }

    /// A brain serves: of the new executable, or of the old one that has to hear what failed.
    pub(super) fn upgrade_serves(&mut self) {
        if let Some(failure) = self.upgrade.failure
            && self.send(ToBrain::UpgradeFailed(failure), &[]).is_ok()
        {
            self.upgrade.failure = None;
        }
        let Some((Step::Trying, path, _)) = &self.upgrade.step else { return };
        let path = path.clone();
        match self.start_rehearsal(&path) {
            Ok(pid) => {
                let until = Instant::now() + REHEARSAL_PATIENCE;
                self.upgrade.step = Some((Step::Rehearsing { pid }, path, until));
            }
            Err(error) => self.fail(UpgradeFailure::Exec { errno: errno_of(&error) }),
        }
    }

    /// Ends a step that took too long.
    pub(super) fn check_upgrade(&mut self, now: Instant) {
        let Some((step, _, until)) = &mut self.upgrade.step else { return };
        if *until > now {
            return;
        }
        match *step {
            Step::Leaving { .. } => {
                *until = now + LEAVE_PATIENCE;
                if let Some(pid) = self.brain.pid {
                    process::kill_child(pid);
                }
            }
            Step::Trying => self.fail(UpgradeFailure::BrainLate),
            Step::Rehearsing { pid } => {
                process::kill_child(pid);
                self.fail(UpgradeFailure::KeeperLate);
            }
        }
    }

    /// The rehearsal has ended: becomes the new executable when it went well.
    pub(super) fn rehearsed(&mut self, status: i32) {
        let Some((_, path, _)) = self.upgrade.step.take() else { return };
        if status != 0 {
            return self.fail(UpgradeFailure::KeeperEnded { status });
        }
        // What the brain has said so far is for this image; the rest waits in the socket.
        self.read_brain();
        if self.goodbye.is_some() {
            // The daemon is at its end: there is nothing left to become.
            return;
        }
        let error = self.become_image(&path);
        self.fail(UpgradeFailure::Exec { errno: errno_of(&error) });
    }

    /// Kills the new brain, after whose death the old one comes back.
    fn fail(&mut self, failure: UpgradeFailure) {
        self.go_back(failure);
        match self.brain.pid {
            Some(pid) => process::kill_child(pid),
            None => self.brain.start_now(Instant::now()),
        }
    }

    fn go_back(&mut self, failure: UpgradeFailure) {
        eprintln!("mendd: the upgrade is rolled back: {failure}");
        self.upgrade.step = None;
        self.upgrade.failure = Some(failure);
    }

    fn start_rehearsal(&self, path: &CStr) -> io::Result<u32> {
        let table = handover::write_table(&self.table)?;
        let arguments = KeeperArguments {
            lock: self.lock.as_raw_fd(),
            table: Some(table.as_raw_fd()),
            brain: None,
            rehearsal: true,
            handover: None,
            ..self.arguments.clone()
        };
        process::fork_exec(path, &arguments.to_argv()?, table.as_fd(), table.as_raw_fd())
    }

    /// Replaces this image, keeping the table, the lock, the brain and every descriptor of a run.
    ///
    /// Returns only when that did not work; then everything is as before.
    fn become_image(&self, path: &CStr) -> io::Error {
        match self.try_become_image(path) {
            Ok(never) => match never {},
            Err(error) => {
                let _ = process::set_inherited(self.lock.as_raw_fd(), false);
                handover::inherit_all(&self.table, false);
                if let Some(socket) = &self.brain.socket {
                    let _ = process::set_inherited(socket.as_raw_fd(), false);
                }
                error
            }
        }
    }

    fn try_become_image(&self, path: &CStr) -> io::Result<std::convert::Infallible> {
        let (Some(pid), Some(socket)) = (self.brain.pid, &self.brain.socket) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let table = handover::write_table(&self.table)?;
        let arguments = KeeperArguments {
            lock: self.lock.as_raw_fd(),
            table: Some(table.as_raw_fd()),
            brain: Some((pid, socket.as_raw_fd())),
            rehearsal: false,
            handover: None,
            ..self.arguments.clone()
        };
        let argv = arguments.to_argv()?;
        handover::inherit_all(&self.table, true);
        process::set_inherited(self.lock.as_raw_fd(), true)?;
        process::set_inherited(socket.as_raw_fd(), true)?;
        Err(process::exec(path, &argv))
    }
}

/// Tries whether this executable can go on as the keeper that wrote these arguments and this
/// table; changes nothing.
///
/// # Errors
///
/// When it cannot.
pub(super) fn rehearse(arguments: &KeeperArguments) -> io::Result<()> {
    let fd = arguments.table.ok_or(io::ErrorKind::InvalidInput)?;
    handover::read_table(fd)?;
    Brain::new(arguments)?;
    Ok(())
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
