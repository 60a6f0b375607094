//! Pinned pidfds: without a service manager's descriptor store, what keeps the exit statuses of
//! runs that end while neither keeper nor brain lives; see [`crate::os::pin`].
//!
//! A convenience of the kernel that may be missing: then such a status is `unknown`, as it is
//! for every ordinary user, and nothing else changes. The mounting is done on a thread of its
//! own, which no spawn waits for.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tracing::debug;

use super::run::Run;
use crate::name::RunId;
use crate::os::pidfd::PidFd;
use crate::os::pin::{self, Pinboard};
use crate::os::process;

/// The pins of this daemon's runs.
#[derive(Debug)]
pub(super) struct Pins {
    place: PathBuf,
    /// `None` where they are not wanted, or the system has refused them.
    words: Option<Sender<Word>>,
    thread: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Word {
    Pin {
        run: RunId,
        pidfd: PidFd,
    },
    Unpin {
        run: RunId,
    },
    Ask {
        run: RunId,
        reply: Sender<PidFd>,
    },
    /// Removes the pins of all other runs: left-overs.
    Only {
        runs: BTreeSet<RunId>,
    },
}

impl Pins {
    /// Starts the thread where pins are wanted, else takes those of an earlier daemon away.
    ///
    /// Nothing is mounted before the first run.
    pub(super) fn start(runtime_dir: &Path, wanted: bool) -> Self {
        let place = runtime_dir.join("pins");
        let mut pins = Self { place, words: None, thread: None, closing: Arc::default() };
        if !wanted {
            pin::dismantle(&pins.place);
            return pins;
        }
        let (sender, words) = unbounded();
        let (place, closing) = (pins.place.clone(), Arc::clone(&pins.closing));
        let started = thread::Builder::new().name("mend-pins".into()).stack_size(128 * 1024).spawn(
            move || {
                process::block_all_signals();
                if let Err(error) = serve(&place, &words, &closing) {
                    debug!(%error, "pidfds cannot be pinned; nothing depends on it");
                }
            },
        );
        match started {
            Ok(thread) => (pins.words, pins.thread) = (Some(sender), Some(thread)),
            Err(error) => debug!(%error, "no thread for pins"),
        }
        pins
    }

    /// Pins a run's process, unless it is pinned already.
    pub(super) fn keep(&mut self, run: RunId, hands: &Run) {
        if self.words.is_none() {
            return;
        }
        let Some(pidfd) = &hands.pidfd else { return };
        match pidfd.as_fd().try_clone_to_owned() {
            Ok(fd) => self.say(Word::Pin { run, pidfd: PidFd::from_owned(fd) }),
            Err(error) => debug!(%run, %error, "cannot pin a process"),
        }
    }

    /// Pins those that live of the runs that were found, and forgets all others.
    pub(super) fn keep_found<'a>(&mut self, runs: impl Iterator<Item = (RunId, &'a Run)> + Clone) {
        self.say(Word::Only { runs: runs.clone().map(|(run, _)| run).collect() });
        for (run, hands) in runs.filter(|(_, hands)| hands.exit.is_none()) {
            self.keep(run, hands);
        }
    }

    /// Returns what is pinned for a run: its process has ended, but how can still be asked.
    pub(super) fn find(&mut self, run: RunId) -> Option<PidFd> {
        let (reply, answer) = bounded(1);
        self.say(Word::Ask { run, reply });
        answer.recv().ok()
    }

    pub(super) fn forget(&mut self, run: RunId) {
        self.say(Word::Unpin { run });
    }

    /// Takes every trace away: the daemon ends in order.
    pub(super) fn close(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.words = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        pin::dismantle(&self.place);
    }

    fn say(&mut self, word: Word) {
        if self.words.as_ref().is_some_and(|words| words.send(word).is_err()) {
            self.words = None;
        }
    }
}

/// Does what it is told, until the first refusal of the system.
fn serve(place: &Path, words: &Receiver<Word>, closing: &AtomicBool) -> io::Result<()> {
    let mut board = Board { place, entered: None, pinned: BTreeSet::new() };
    while let Ok(first) = words.recv() {
        let mut batch = vec![first];
        batch.extend(words.try_iter());
        for word in without_short_lives(batch) {
            if closing.load(Ordering::Relaxed) {
                return Ok(());
            }
            board.obey(word)?;
        }
    }
    Ok(())
}

/// Leaves out the pins of runs that are over by now.
fn without_short_lives(batch: Vec<Word>) -> impl Iterator<Item = Word> {
    let over: BTreeSet<RunId> = batch
        .iter()
        .filter_map(|word| match word {
            Word::Unpin { run } => Some(*run),
            Word::Pin { .. } | Word::Ask { .. } | Word::Only { .. } => None,
        })
        .collect();
    batch.into_iter().filter(move |word| match word {
        Word::Pin { run, .. } => !over.contains(run),
        Word::Unpin { .. } | Word::Ask { .. } | Word::Only { .. } => true,
    })
}

struct Board<'a> {
    place: &'a Path,
    entered: Option<Pinboard>,
    pinned: BTreeSet<RunId>,
}

impl Board<'_> {
    fn obey(&mut self, word: Word) -> io::Result<()> {
        match word {
            Word::Pin { run, pidfd } => {
                if self.enter(true)? && !self.pinned.contains(&run) {
                    self.board()?.pin(&run.to_string(), pidfd.as_fd())?;
                    self.pinned.insert(run);
                }
            }
            Word::Unpin { run } => {
                if self.pinned.remove(&run) {
                    self.board()?.unpin(&run.to_string());
                }
            }
            Word::Ask { run, reply } => {
                if self.enter(false)?
                    && let Ok(pidfd) = self.board()?.open(&run.to_string())
                {
                    // Whoever asked waits.
                    let _ = reply.send(pidfd);
                }
            }
            Word::Only { runs } => {
                if self.enter(false)? {
                    for run in self.pinned.extract_if(.., |run| !runs.contains(run)) {
                        if let Some(board) = &self.entered {
                            board.unpin(&run.to_string());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn board(&self) -> io::Result<&Pinboard> {
        self.entered.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Enters what is there, or what is made now; returns whether this thread is inside.
    fn enter(&mut self, make: bool) -> io::Result<bool> {
        if self.entered.is_some() {
            return Ok(true);
        }
        let board = match Pinboard::enter(self.place, make) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(false),
            board => board?,
        };
        for name in board.names()? {
            match name.parse() {
                Ok(number) => drop(self.pinned.insert(RunId(number))),
                Err(_) => board.unpin(&name),
            }
        }
        self.entered = Some(board);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_over_is_not_pinned() {
        let pidfd = || PidFd::open(std::process::id()).unwrap();
        let batch = vec![
            Word::Unpin { run: RunId(1) },
            Word::Pin { run: RunId(2), pidfd: pidfd() },
            Word::Pin { run: RunId(3), pidfd: pidfd() },
            Word::Unpin { run: RunId(2) },
        ];
        let left: Vec<_> = without_short_lives(batch).collect();
        assert!(
            matches!(
                left[..],
                [
                    Word::Unpin { run: RunId(1) },
                    Word::Pin { run: RunId(3), .. },
                    Word::Unpin { run: RunId(2) }
                ]
            ),
            "{left:?}"
        );
    }

    #[test]
    fn where_pins_are_not_wanted_nothing_is_found_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut pins = Pins::start(directory.path(), false);
        assert!(pins.find(RunId(1)).is_none());
        pins.close();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
