//! What a starting brain has got from its keeper before it does anything else.
//!
//! The descriptors are kept until the brain has taken over: when the keeper is killed meanwhile,
//! they may be the last ones that hold the output and the pidfd of a run that has ended, and are
//! handed on to the next keeper.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::keeper_link::KeeperSender;
use super::successor::{self, Estate, KeeperDoor};
use crate::keeper;
use crate::keeper::arguments::KeeperArguments;
use crate::keeper::wire::ToBrain;
use crate::name::RunId;
use crate::os::seqpacket::{self, ReceivedFds};
use crate::store::runs::{Record, RunFiles};

/// How long another keeper may stand without asking for what is held before it is taken to have
/// all of it from somebody else.
const PATIENCE: Duration = Duration::from_secs(1);

/// The keeper's table as it was at the start of this brain.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(super) entries: Vec<(ToBrain, ReceivedFds)>,
    is_complete: bool,
    /// Records that were complete already, and do not change any more.
    pub(super) records: BTreeMap<RunId, Record>,
}

impl Held {
    /// Asks the keeper for its table, as far as it lives long enough to send it.
    ///
    /// # Errors
    ///
    /// When the socket cannot be duplicated.
    pub(crate) fn receive(keeper: BorrowedFd<'_>) -> io::Result<Self> {
        let keeper = KeeperSender::new(keeper.try_clone_to_owned()?);
        let mut entries = Vec::new();
        let listed = keeper.list_into(&mut entries);
        Ok(Self { entries, is_complete: listed.is_ok(), records: BTreeMap::new() })
    }

    /// Reads the run records as far as they can be read without waiting. For the brain that has
    /// the lock, while its configuration is read.
    pub(crate) fn read_records(&mut self, runtime_dir: &Path) {
        let files = RunFiles::at(runtime_dir);
        // What cannot be read is asked for again, and said, when the runs are put together.
        for run in files.list().unwrap_or_default() {
            let record = files.read_record(run).ok();
            self.records.extend(record.filter(Record::is_whole).map(|record| (run, record)));
        }
    }

    /// Returns whether the keeper has sent all of it.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Lets a brain go that waits for a keeper in vain, and takes what only it has.
    pub(crate) fn relieve_other(&mut self, runtime_dir: &Path) {
        let known: BTreeSet<RunId> = self.runs().map(|(run, _)| run).collect();
        let is_new = |(entry, _): &(ToBrain, ReceivedFds)| matches!(entry, ToBrain::Entry { run, .. } if !known.contains(run));
        self.entries.extend(keeper::relieve(runtime_dir).into_iter().filter(is_new));
    }

    /// Hands everything to the next keeper after the one that was `killed`; it is started where
    /// no service manager does it.
    pub(crate) async fn hand_on(&self, words: &KeeperArguments, killed: u32) {
        let door = KeeperDoor::open(&words.runtime_dir);
        let given = successor::hand_over(self, door.as_ref(), words, killed).await;
        if let Some(door) = door.filter(|_| given) {
            door.close();
        }
    }

    /// Returns everything with descriptors of its own.
    pub(super) fn duplicate(&self) -> io::Result<Vec<(ToBrain, ReceivedFds)>> {
        let duplicate = |fds: &ReceivedFds| -> io::Result<ReceivedFds> {
            let mut copies = [const { None }; seqpacket::MAX_FDS];
            for (copy, fd) in copies.iter_mut().zip(fds) {
                *copy = fd.as_ref().map(OwnedFd::try_clone).transpose()?;
            }
            Ok(copies)
        };
        self.entries.iter().map(|(entry, fds)| Ok((*entry, duplicate(fds)?))).collect()
    }

    /// Returns the runs, whether or not they have ended: their pids and how many pipes are held.
    pub(super) fn runs(&self) -> impl Iterator<Item = (RunId, (Option<u32>, usize))> {
        self.entries.iter().filter_map(|(entry, _)| match entry {
            ToBrain::Entry { run, pid, pipes, .. } => Some((*run, (*pid, usize::from(*pipes)))),
            ToBrain::End
            | ToBrain::Exited { .. }
            | ToBrain::Signal { .. }
            | ToBrain::Pong
            | ToBrain::UpgradeBegins
            | ToBrain::Upgraded
            | ToBrain::UpgradeFailed(_) => None,
        })
    }
}

impl Estate for Held {
    fn count(&self) -> usize {
        self.entries.len()
    }

    fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        for (entry, fds) in &self.entries {
            let fds: Vec<_> = fds.iter().flatten().map(AsRawFd::as_raw_fd).collect();
            seqpacket::send(socket, &entry.encode(), &fds, true)?;
        }
        seqpacket::send(socket, &ToBrain::End.encode(), &[], true)
    }

    fn patience(&self) -> Option<Duration> {
        Some(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::keeper::wire::{HEADER_BYTES, WaitStatus};

    fn entry(run: u64) -> ToBrain {
        let exit = Some(WaitStatus::Known(256));
        ToBrain::Entry { run: RunId(run), pid: Some(7), exit, pipes: 1, has_pidfd: false }
    }

    fn say(keeper: &OwnedFd, message: ToBrain, fds: &[i32]) {
        seqpacket::send(keeper.as_fd(), &message.encode(), fds, true).unwrap();
    }

    #[test]
    fn what_a_dying_keeper_has_sent_is_handed_on_with_its_descriptors() {
        let (brain, keeper) = seqpacket::pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        nix::unistd::write(&write, b"last words").unwrap();
        say(&keeper, entry(3), &[read.as_raw_fd()]);
        drop((read, write));
        let dies = std::thread::spawn(move || {
            // Killed when it has been asked, before it could send the end of its list.
            seqpacket::receive(keeper.as_fd(), &mut [0; HEADER_BYTES], true).unwrap();
        });
        let held = Held::receive(brain.as_fd()).unwrap();
        dies.join().unwrap();
        assert!(!held.is_complete());
        assert_eq!(held.runs().collect::<Vec<_>>(), [(RunId(3), (Some(7), 1))]);

        let (ours, next) = seqpacket::pair().unwrap();
        held.send(ours.as_fd()).unwrap();
        drop(held);
        let mut bytes = [0; HEADER_BYTES];
        let first = seqpacket::receive(next.as_fd(), &mut bytes, true).unwrap();
        assert_eq!(ToBrain::decode(&bytes[..first.length]).unwrap(), entry(3));
        let mut text = [0; 20];
        let read = nix::unistd::read(first.fds[0].as_ref().unwrap(), &mut text).unwrap();
        assert_eq!(&text[..read], b"last words");
        let last = seqpacket::receive(next.as_fd(), &mut bytes, true).unwrap();
        assert_eq!(ToBrain::decode(&bytes[..last.length]).unwrap(), ToBrain::End);
    }
}
