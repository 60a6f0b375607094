//! systemd's descriptor store: while neither keeper nor brain lives, the manager holds the read
//! ends of every run's output and its pidfd, so that last words and exit statuses survive even
//! that; see sd_notify(3), `FDSTORE=1`.
//!
//! The next keeper takes them back ([`crate::keeper`], `take_stored`). Words to the manager go
//! out on a thread of their own, because a busy PID 1 must not keep the loop waiting. Without a
//! manager nothing happens.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use tracing::warn;

use super::extra::Extra;
use super::run::Run;
use crate::capture::Channel;
use crate::name::RunId;
use crate::os::process;

/// The way to the store; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct FdStore(Option<Sender<Word>>);

#[derive(Debug)]
enum Word {
    Store { name: String, fd: OwnedFd },
    Remove { name: String },
}

impl FdStore {
    /// Starts the thread when there is a manager.
    pub(super) fn start() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Self(None) };
        let connected = Manager::connect(path.as_bytes())
            .and_then(|manager| {
                let (sender, words) = unbounded();
                thread::Builder::new()
                    .name("mend-fdstore".into())
                    .stack_size(64 * 1024)
                    .spawn(move || manager.serve(&words))?;
                Ok(sender)
            })
            .inspect_err(|error| warn!(%error, "the service manager's store cannot be used"));
        Self(connected.ok())
    }

    /// Tells whether a manager is there.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Lets the manager hold a run's descriptors.
    pub(super) fn keep(&self, run: RunId, hands: &Run) {
        let Some(sender) = &self.0 else { return };
        let pidfd = hands.pidfd.as_ref().map(|pidfd| (name(run, "pidfd"), pidfd.as_fd()));
        let pipes = hands.pipes.iter().map(|(channel, fd)| {
            let place = match channel {
                Channel::Stdout => "0",
                Channel::Stderr => "1",
            };
            (name(run, place), std::os::fd::AsFd::as_fd(fd))
        });
        // To the keeper it is the first pipe of a run of its own.
        let extras = hands
            .extras
            .iter()
            .map(|(extra, fd)| (name(extra.key(run), "0"), std::os::fd::AsFd::as_fd(fd)));
        for (name, fd) in pipes.chain(pidfd).chain(extras) {
            match fd.try_clone_to_owned() {
                Ok(fd) => drop(sender.send(Word::Store { name, fd })),
                Err(error) => warn!(%run, %error, "cannot give a descriptor to the manager"),
            }
        }
    }

    /// Lets the manager hold those runs that were found without its help.
    pub(super) fn keep_found<'a>(&self, runs: impl Iterator<Item = (RunId, &'a Run)>) {
        if self.0.is_none() {
            return;
        }
        // What the manager gave to this keeper at its start, it still has.
        let given = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let given: HashSet<&str> = given.split(':').collect();
        for (run, hands) in runs {
            if !given.contains(name(run, "pidfd").as_str()) {
                self.keep(run, hands);
            }
        }
    }

    /// Lets the manager close what a run was listened to through.
    pub(super) fn forget_extra(&self, run: RunId, extra: Extra) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(Word::Remove { name: name(extra.key(run), "0") });
        }
    }

    /// Lets the manager close a run's descriptors.
    pub(super) fn forget(&self, run: RunId) {
        let Some(sender) = &self.0 else { return };
        for place in ["0", "1", "pidfd"] {
            // The thread ends only with this process.
            let _ = sender.send(Word::Remove { name: name(run, place) });
        }
    }
}

fn name(run: RunId, place: &str) -> String {
    format!("{run}-{place}")
}

/// The manager's notification socket.
struct Manager(OwnedFd);

impl Manager {
    fn connect(path: &[u8]) -> io::Result<Self> {
        let address = match path.strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name)?,
            None => UnixAddr::new(path)?,
        };
        let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        nix::sys::socket::connect(fd.as_raw_fd(), &address)?;
        Ok(Self(fd))
    }

    fn serve(&self, words: &Receiver<Word>) {
        process::block_all_signals();
        let mut warned = false;
        while let Ok(first) = words.recv() {
            let mut batch = vec![first];
            batch.extend(words.try_iter());
            for word in without_short_lives(batch) {
                if let Err(error) = self.say(&word)
                    && !std::mem::replace(&mut warned, true)
                {
                    warn!(%error, "the service manager does not take descriptors");
                }
            }
        }
    }

    fn say(&self, word: &Word) -> io::Result<()> {
        let (text, fds) = match word {
            // Polling would drop a pipe at the child's death, together with its last words.
            Word::Store { name, fd } => {
                (format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), vec![fd.as_raw_fd()])
            }
            Word::Remove { name } => (format!("FDSTOREREMOVE=1\nFDNAME={name}"), Vec::new()),
        };
        let control = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[][..] } else { &control[..] };
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg::<()>(self.0.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }
}

/// Leaves out what is to be stored and removed again in one go: runs that ended at once.
fn without_short_lives(batch: Vec<Word>) -> Vec<Word> {
    let removed: HashSet<String> = batch
        .iter()
        .filter_map(|word| match word {
            Word::Remove { name } => Some(name.clone()),
            Word::Store { .. } => None,
        })
        .collect();
    let mut skipped = HashSet::new();
    batch
        .into_iter()
        .filter(|word| match word {
            Word::Store { name, .. } if removed.contains(name) => {
                skipped.insert(name.clone());
                false
            }
            Word::Store { .. } => true,
            Word::Remove { name } => !skipped.contains(name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> Word {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        Word::Store { name: name.to_owned(), fd }
    }

    fn remove(name: &str) -> Word {
        Word::Remove { name: name.to_owned() }
    }

    #[test]
    fn a_run_that_ended_at_once_is_not_told() {
        let batch = vec![remove("1-0"), store("2-0"), store("3-0"), remove("2-0")];
        let told: Vec<String> = without_short_lives(batch)
            .into_iter()
            .map(|word| match word {
                Word::Store { name, .. } => format!("+{name}"),
                Word::Remove { name } => format!("-{name}"),
            })
            .collect();
        assert_eq!(told, ["-1-0", "+3-0"]);
    }
}
