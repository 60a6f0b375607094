//! The door to the history: whatever is to be remembered goes through a bounded queue to a thread
//! of its own, so that the loop never waits for a disk. Without something to write the thread
//! sleeps without end.

mod waiting;

mod thread;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use self::waiting::Waiting;
use crate::config::HistoryLimits;
use crate::core::care::IncidentId;
pub use crate::store::history::*;
use crate::time::Wall;

/// How long somebody waits for an answer out of the history.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A cheap, cloneable door to the history.
#[derive(Debug, Clone)]
pub struct History(Arc<Shared>);

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("the history cannot be read: `{}`: {fault}", path.display())]
    Fault { path: PathBuf, fault: Fault },
    #[error("the history does not answer: the disk that it is on may hang")]
    Late,
    #[error("the thread that keeps the history has died")]
    Dead,
}

/// What the thread has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// It cannot write, and why; or it can again.
    Trouble(Option<String>),
    /// Something was done about the file.
    Word(Word),
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    bell: Condvar,
}

/// A question, and where its answer goes.
type Question = Box<dyn FnOnce(&mut Store, &[Record]) + Send>;

#[derive(Default)]
struct Queue {
    waiting: Waiting,
    /// Something waits that should not wait for more, and the thread knows.
    is_urgent: bool,
    /// Since when something waits that may.
    since: Option<Instant>,
    questions: VecDeque<Question>,
    limits: Option<HistoryLimits>,
    /// Who waits until everything is written; `true` closes the file as well.
    settling: Vec<(mpsc::Sender<()>, bool)>,
    dead: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// Starts the thread that keeps the history in this file. With `look` it opens a file that is
    /// there and looks for damage; otherwise nothing is opened before there is something to do.
    ///
    /// # Errors
    ///
    /// When there can be no thread.
    pub(crate) fn start(
        path: PathBuf,
        limits: HistoryLimits,
        look: bool,
    ) -> io::Result<(Self, UnboundedReceiver<Said>)> {
        let (said, receiver): (UnboundedSender<Said>, _) = unbounded_channel();
        let shared = Arc::new(Shared::default());
        thread::start(Arc::clone(&shared), Store::new(path, limits), look, said)?;
        Ok((Self(shared), receiver))
    }

    /// Remembers something. Never waits, and never fails: what the disk refuses is kept in memory
    /// as long as there is room, and written later.
    pub fn record(&self, record: Record) {
        let mut queue = self.0.queue();
        if queue.dead {
            return;
        }
        let (was_empty, was_urgent) = (queue.waiting.is_empty(), queue.is_urgent);
        queue.waiting.push(record);
        queue.is_urgent = queue.waiting.is_urgent();
        if was_empty {
            queue.since = Some(Instant::now());
        }
        if was_empty || (queue.is_urgent && !was_urgent) {
            drop(queue);
            self.0.bell.notify_one();
        }
    }

    /// Returns how many records were lost since the start, for want of room or refused.
    pub fn lost(&self) -> u64 {
        self.0.queue().waiting.lost_ever()
    }

    /// Returns who asked for what, newest first.
    ///
    /// # Errors
    ///
    /// When it cannot be read, neither from the file nor from memory.
    pub async fn asked(&self, query: AskedQuery) -> Result<Found<Vec<Asked>>, Unread> {
        self.ask(move |store, waiting| store.asked(waiting, &query)).await
    }

    /// Returns incidents, newest first.
    ///
    /// # Errors
    ///
    /// As [`History::asked`].
    pub async fn incidents(&self, query: IncidentQuery) -> Result<Found<Vec<Incident>>, Unread> {
        self.ask(move |store, waiting| store.incidents(waiting, &query)).await
    }

    /// Returns one incident with its story.
    ///
    /// # Errors
    ///
    /// As [`History::asked`].
    pub async fn story(&self, id: IncidentId) -> Result<Found<Option<WholeStory>>, Unread> {
        self.ask(move |store, waiting| store.story(waiting, id)).await
    }

    /// Returns results of checks, newest first.
    ///
    /// # Errors
    ///
    /// As [`History::asked`].
    pub async fn checked(&self, query: CheckedQuery) -> Result<Found<Vec<Checked>>, Unread> {
        self.ask(move |store, waiting| store.checked(waiting, &query)).await
    }

    /// Returns the samples of a series between two times, oldest first.
    ///
    /// # Errors
    ///
    /// As [`History::asked`].
    pub async fn samples(
        &self,
        series: String,
        since: Wall,
        until: Wall,
    ) -> Result<Found<Vec<Sample>>, Unread> {
        self.ask(move |store, waiting| store.samples(waiting, &series, since, until)).await
    }

    /// Returns the names of all series.
    ///
    /// # Errors
    ///
    /// As [`History::asked`].
    pub async fn series(&self) -> Result<Found<Vec<String>>, Unread> {
        self.ask(|store, waiting| store.series(waiting)).await
    }

    /// Returns what healing has achieved.
    ///
    /// # Errors
    ///
    /// As [`History::asked`].
    pub async fn statistics(&self, query: StatisticsQuery) -> Result<Found<Statistics>, Unread> {
        self.ask(move |store, waiting| store.statistics(waiting, &query)).await
    }

    /// Returns the highest numbers that were ever given to incidents and remedies, waiting for
    /// them at most so long: for a daemon that starts and has no other memory.
    pub fn last_numbers(&self, patience: Duration) -> LastNumbers {
        let (sender, answer) = mpsc::channel();
        self.question(Box::new(move |store, waiting| {
            let found = store.last_numbers(waiting).map(|found| found.found);
            let _ = sender.send(found.unwrap_or_default());
        }));
        answer.recv_timeout(patience).unwrap_or_default()
    }

    /// Keeps this much from now on.
    pub(super) fn set_limits(&self, limits: HistoryLimits) {
        self.0.queue().limits = Some(limits);
    }

    /// Writes what waits, as far as it can be written in this time. Another brain goes on.
    pub(super) fn settle(&self, patience: Duration) {
        self.finish(false, patience);
    }

    /// Writes what waits and closes the file: the daemon ends.
    pub(super) fn close(&self, patience: Duration) {
        self.finish(true, patience);
    }

    fn finish(&self, close: bool, patience: Duration) {
        let (sender, done) = mpsc::channel();
        {
            let mut queue = self.0.queue();
            if queue.dead {
                return;
            }
            queue.settling.push((sender, close));
        }
        self.0.bell.notify_one();
        if done.recv_timeout(patience).is_err() {
            tracing::warn!("the newest of the history could not be written in time");
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Store, &[Record]) -> Result<Found<T>, Fault> + Send + 'static,
    ) -> Result<Found<T>, Unread> {
        let (reply, answer) = oneshot::channel();
        self.question(Box::new(move |store, waiting| {
            let found = question(store, waiting);
            let path = store.path().to_path_buf();
            // Whoever asked may have gone.
            let _ = reply.send(found.map_err(|fault| Unread::Fault { path, fault }));
        }));
        match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unread::Dead),
            Err(_) => Err(Unread::Late),
        }
    }

    fn question(&self, question: Question) {
        let mut queue = self.0.queue();
        if !queue.dead {
            queue.questions.push_back(question);
            drop(queue);
            self.0.bell.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
