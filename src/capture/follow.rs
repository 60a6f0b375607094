//! Tells those who follow a log that it grew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Who follows which log. A log that nobody follows costs nothing here.
#[derive(Debug, Default)]
pub struct Followers {
    /// Logs that are followed; asked before the lock is taken.
    followed: AtomicUsize,
    logs: Mutex<BTreeMap<PathBuf, watch::Sender<()>>>,
}

impl Followers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, watch::Sender<()>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the log whose current segment is `path`, whether or not it exists yet.
    ///
    /// Follow first and read then: growth in between is told.
    pub fn follow(self: &Arc<Self>, path: &Path) -> Follower {
        let mut logs = self.lock();
        let sender = logs.entry(path.to_owned()).or_insert_with(|| watch::Sender::new(()));
        let growth = sender.subscribe();
        self.followed.store(logs.len(), Ordering::Release);
        drop(logs);
        Follower { hub: Arc::clone(self), path: path.to_owned(), growth: Some(growth) }
    }

    /// Returns whether any log is followed.
    pub(super) fn is_any_followed(&self) -> bool {
        self.followed.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_followed(&self, path: &Path) -> bool {
        self.is_any_followed() && self.lock().contains_key(path)
    }

    /// Wakes the followers of `path`.
    pub(super) fn grew(&self, path: &Path) {
        if self.is_any_followed()
            && let Some(sender) = self.lock().get(path)
        {
            sender.send_replace(());
        }
    }
}

/// One follower of one log; dropping it ends the following.
#[derive(Debug)]
pub struct Follower {
    hub: Arc<Followers>,
    path: PathBuf,
    growth: Option<watch::Receiver<()>>,
}

impl Follower {
    /// Waits until the log grew since the last call (or since [`Followers::follow`]).
    ///
    /// Safe to cancel: growth that was not reported yet is reported by the next call.
    pub async fn changed(&mut self) {
        let is_told = match &mut self.growth {
            Some(growth) => growth.changed().await.is_ok(),
            None => false,
        };
        if !is_told {
            // Unreachable while the follower lives, as its sender stays in the hub.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut logs = self.hub.lock();
        self.growth = None;
        if logs.get(&self.path).is_some_and(|sender| sender.receiver_count() == 0) {
            logs.remove(&self.path);
        }
        self.hub.followed.store(logs.len(), Ordering::Release);
    }
}
