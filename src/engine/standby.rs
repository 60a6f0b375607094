//! What the brain that makes room for an upgrade does until the new one has proven to live: it
//! moves no output, decides nothing and spawns nothing, but keeps every descriptor and watches the
//! keeper.
//!
//! The order of things, with the old brain O, the keeper K and the new brain N:
//!
//! 1. O ends its launches, stops its pump, opens the door for a keeper, gives up the brain's lock
//!    and says that it has withdrawn. From here on it waits.
//! 2. K starts N, which takes the lock, takes over and serves.
//! 3. K kills O.
//!
//! When K dies between 1 and 3, nobody tells O and N what to do; lock and door do. The door is
//! opened, and taken away, by nobody but the holder of the lock. The lock is held by
//!
//! - N, which has not taken over: its next word to K fails, and it starts a keeper (or leaves
//!   that to the service manager) and ends. Then O has the lock, and that keeper finds O's door.
//! - N, which has taken over: an ordinary brain without a keeper. It opens a door of its own, and
//!   takes it away when a keeper has everything: that is how O learns that it is not needed.
//! - nobody, because N is dead, was never started or still waits for the lock: O goes on. N, if it
//!   waits, ends as soon as another keeper is there. When N has left its door behind, it was
//!   killed in the middle of handing over: O opens its own again, and offers what it has.
//! - N, which hangs: O kills it once it has had its time.
//!
//! In each case one process holds the lock and is the only one that moves output, and one keeper
//! results, because whoever starts it needs the keeper's lock. What O knows may be old by then (N
//! served for a moment and was killed as well): a run that ended meanwhile shows by its pidfd, one
//! that was forgotten or is new by its record, so that the brain after O sees the truth.
//!
//! `standby_tests.rs` plays every order of these steps and of two deaths among the three.

use std::fs::{File, TryLockError};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tracing::{error, info, warn};

use super::brain::HISTORY_PATIENCE;
use super::core_loop::{Engine, Sources};
use super::keeper_link::KeeperLink;
use super::successor::{DoorOwner, Estate, KeeperDoor};
use crate::capture::Pump;
use crate::keeper::wire::{ToBrain, ToKeeper};
use crate::keeper::{self, PATIENCE, is_another_keeper_there};
use crate::os::clock;

/// Pause between two looks at the lock, which gives no word when it becomes free.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a brain that has taken over may look for a keeper, which a service manager may have
/// to start, before it counts as one that hangs.
const HEIR_PATIENCE: Duration = Duration::from_secs(30);

/// How long a keeper that may have everything from the new brain is given to ask for it.
const OFFER_PATIENCE: Duration = Duration::from_secs(2);

/// What is left to do for a brain whose keeper was killed while it stood by.
#[derive(Debug)]
pub(super) enum After {
    /// It has the lock and moves the output: it hands over to the next keeper.
    GoOn(Option<KeeperDoor>),
    /// A keeper stands that lacks what only this brain has, or has it all.
    Offer(Option<KeeperDoor>),
    Leave,
}

/// What a brain whose keeper was killed sees of the others.
#[derive(Debug, Clone, Copy)]
struct Sight {
    /// Nobody else holds the brain's lock: this brain has just taken it.
    has_lock: bool,
    door: DoorOwner,
    /// Another keeper has the runtime directory.
    is_followed: bool,
    waited: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Keep the lock and go on.
    GoOn,
    /// Open the door again, give the lock back and offer what there is.
    Offer,
    /// Give the lock back if need be and end.
    Leave,
    /// Kill the brain that holds the lock.
    Evict,
    Wait,
}

impl Sight {
    fn step(self) -> Step {
        let Self { has_lock, door, is_followed, waited } = self;
        match (has_lock, is_followed, door) {
            (true, false, _) | (true, true, DoorOwner::This) => Step::GoOn,
            (true, true, DoorOwner::Another) => Step::Offer,
            (_, true, DoorOwner::Nobody) => Step::Leave,
            // Whoever has the lock hands over to that keeper, or is that keeper's own brain.
            (false, true, DoorOwner::Another) if waited > OFFER_PATIENCE => Step::Leave,
            (false, true, DoorOwner::This) if waited > 2 * PATIENCE => Step::Leave,
            (false, false, DoorOwner::This) if waited > PATIENCE => Step::Evict,
            (false, false, _) if waited > HEIR_PATIENCE => Step::Evict,
            (false, _, _) => Step::Wait,
        }
    }
}

/// Withdraws and waits; returns when the keeper was killed and it is clear who goes on.
pub(super) async fn stand_by(
    engine: &mut Engine,
    sources: &mut Sources,
    runtime_dir: &Path,
    lock: &mut File,
) -> After {
    let idle = match make_room(engine, sources).await {
        Ok(idle) => idle,
        Err(why) => {
            // It keeps the lock: what is still being spawned must end with this process before
            // the next brain looks, and the keeper sees to that.
            warn!("{why}; waiting for the keeper to end this brain");
            watch_keeper(engine, &sources.link).await;
            return After::GoOn(KeeperDoor::open(runtime_dir));
        }
    };
    std::mem::replace(&mut engine.pump, idle).stop();
    // Of two brains one writes the history.
    engine.history.settle(HISTORY_PATIENCE);
    let mut door = KeeperDoor::open(runtime_dir);
    if let Err(error) = lock.unlock() {
        // The new brain waits for a while and kills this one.
        error!(%error, "cannot give up the brain's lock");
    }
    // A keeper that is gone is noticed below.
    let _ = engine.keeper.send(&ToKeeper::Withdrawn, &[]);
    watch_keeper(engine, &sources.link).await;
    let step = decide(runtime_dir, engine.keeper_pid, door.as_ref(), lock).await;
    let is_ours = |door: &KeeperDoor| door.owner() == DoorOwner::This;
    if step != Step::Leave && !door.as_ref().is_some_and(is_ours) {
        door = KeeperDoor::open(runtime_dir);
    }
    if step == Step::GoOn {
        warn!(
            "the keeper was killed during the upgrade; the programs run on and wait for the next"
        );
        if let Err(error) = keeper::sign_lock(lock) {
            warn!(%error, "cannot write the brain's lock");
        }
        engine.attach_every_output();
        return After::GoOn(door);
    }
    let _: std::io::Result<()> = lock.unlock();
    info!("the keeper was killed during the upgrade; another brain goes on");
    if step == Step::Offer { After::Offer(door) } else { After::Leave }
}

/// Ends what this brain has begun; returns the pump of a brain that moves nothing.
async fn make_room(engine: &mut Engine, sources: &mut Sources) -> Result<Pump, String> {
    if !engine.finish_launches(&mut sources.launched).await {
        return Err("a program takes long to start".to_owned());
    }
    Pump::start(unbounded_channel().0).map_err(|error| format!("cannot wait idly: {error}"))
}

/// Returns when the keeper is gone; what it still tells is what would be handed over.
async fn watch_keeper(engine: &mut Engine, link: &KeeperLink) {
    while let Some(messages) = link.receive().await {
        for message in messages {
            let ToBrain::Exited { run, status } = message else { continue };
            if let Some(hands) = engine.runs.get_mut(&run) {
                hands.exit.get_or_insert(status);
            }
        }
    }
}

/// Looks until it is clear what this brain has to do; it has the lock then, unless it is to leave.
async fn decide(runtime_dir: &Path, killed: u32, door: Option<&KeeperDoor>, lock: &File) -> Step {
    let begun = clock::now();
    loop {
        // Looked at in this order: a brain that has handed over lets go of the lock only when its
        // door is gone again and the next keeper is there.
        let has_lock = match lock.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                error!(%error, "cannot take the brain's lock; trying again");
                false
            }
        };
        let sight = Sight {
            has_lock,
            door: door.map_or(DoorOwner::Another, KeeperDoor::owner),
            is_followed: is_another_keeper_there(runtime_dir, killed),
            waited: clock::now().since(begun),
        };
        match sight.step() {
            Step::Wait => {}
            Step::Evict => {
                keeper::evict(runtime_dir);
            }
            step @ (Step::GoOn | Step::Offer | Step::Leave) => return step,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
#[path = "standby_tests.rs"]
mod tests;

/// What there is for a keeper that may have all of it from another brain.
pub(super) struct Offer<'a>(pub(super) &'a Engine);

impl Estate for Offer<'_> {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn send(&self, socket: BorrowedFd<'_>) -> std::io::Result<()> {
        self.0.send(socket)
    }

    fn patience(&self) -> Option<Duration> {
        Some(OFFER_PATIENCE)
    }
}
