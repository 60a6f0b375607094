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
//! When K dies between 1 and 3, nobody tells O and N what to do; the lock does. It is held by
//!
//! - N, which has not taken over: its next word to K fails, and it starts a keeper (or leaves
//!   that to the service manager) and ends. Then O has the lock, and that keeper finds O's door.
//! - N, which has taken over: an ordinary brain without a keeper. It opens a door of its own, and
//!   that is how O learns that it is not needed: it ends when a keeper is there.
//! - nobody, because N is dead, was never started or still waits for the lock: O goes on. N, if it
//!   waits, ends as soon as another keeper is there.
//! - N, which hangs: O kills it once it has had its time.
//!
//! In each case one process holds the lock and is the only one that moves output, and one keeper
//! results, because whoever starts it needs the keeper's lock. What O knows may be old by then (N
//! served for a moment and was killed as well): a run that ended meanwhile shows by its pidfd, one
//! that was forgotten or is new by its record, so that the brain after O sees the truth.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tracing::{error, info, warn};

use super::core_loop::{Engine, Sources};
use super::keeper_link::KeeperLink;
use super::successor::KeeperDoor;
use crate::capture::Pump;
use crate::keeper::wire::{ToBrain, ToKeeper};
use crate::keeper::{self, PATIENCE, is_another_keeper_there};
use crate::os::clock;

/// Pause between two looks at the lock, which gives no word when it becomes free.
const PAUSE: Duration = Duration::from_millis(5);

/// Withdraws and waits. `Some` when this brain has to go on, with the door that it has opened;
/// `None` when it is not needed any more.
pub(super) async fn stand_by(
    engine: &mut Engine,
    sources: &mut Sources,
    runtime_dir: &Path,
    lock: &mut File,
) -> Option<Option<KeeperDoor>> {
    if !engine.finish_launches(&mut sources.launched).await {
        // What is still being spawned must end with this process, before the next brain looks.
        warn!("a program takes long to start; leaving without waiting for the new brain");
        return None;
    }
    let idle = Pump::start(unbounded_channel().0)
        .inspect_err(|error| error!(%error, "cannot wait for the new brain"))
        .ok()?;
    std::mem::replace(&mut engine.pump, idle).stop();
    let door = KeeperDoor::open(runtime_dir);
    if let Err(error) = lock.unlock() {
        error!(%error, "cannot give up the brain's lock; leaving");
        return None;
    }
    // A keeper that is gone is noticed below.
    let _ = engine.keeper.send(&ToKeeper::Withdrawn, &[]);
    watch_keeper(engine, &sources.link).await;
    if !must_go_on(runtime_dir, engine.keeper_pid, door.as_ref(), lock).await {
        info!("the keeper was killed during the upgrade; another brain goes on");
        return None;
    }
    warn!("the keeper was killed during the upgrade; the programs run on and wait for the next");
    if let Err(error) = keeper::sign_lock(lock) {
        warn!(%error, "cannot write the brain's lock");
    }
    engine.attach_every_output();
    Some(door)
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

/// Waits for the lock, and returns whether this brain is the one that goes on, with the lock.
async fn must_go_on(
    runtime_dir: &Path,
    killed: u32,
    door: Option<&KeeperDoor>,
    lock: &File,
) -> bool {
    let begun = clock::now();
    loop {
        // Looked at in this order: a brain that has handed over lets go of the lock only when its
        // door is open and the next keeper is there.
        let taken = match lock.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                error!(%error, "cannot take the brain's lock");
                return false;
            }
        };
        let waited = clock::now().since(begun);
        let is_ours = door.is_some_and(KeeperDoor::is_ours);
        let is_followed = is_another_keeper_there(runtime_dir, killed);
        match (taken, is_followed) {
            // A keeper that has not come to our door has everything from another brain.
            (true, true) if !is_ours => {
                let _: io::Result<()> = lock.unlock();
                return false;
            }
            (true, _) => return true,
            (false, true) if !is_ours || waited > 2 * PATIENCE => return false,
            (false, false) if is_ours && waited > PATIENCE => keeper::evict(runtime_dir),
            (false, _) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}
