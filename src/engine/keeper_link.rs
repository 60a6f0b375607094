//! The brain's end of the wire to the keeper.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::unix::AsyncFd;

use crate::keeper::wire::{HEADER_BYTES, ToBrain, ToKeeper};
use crate::os::readable::readable;
use crate::os::seqpacket::{self, Received, ReceivedFds};

/// Sends to the keeper from any thread; order is kept within a thread, but for
/// [`post`](Self::post).
#[derive(Debug, Clone)]
pub(super) struct KeeperSender {
    socket: Arc<OwnedFd>,
    posted: Arc<Mutex<Posted>>,
}

/// What a full socket holds back.
#[derive(Debug, Default)]
struct Posted {
    messages: VecDeque<[u8; HEADER_BYTES]>,
    /// A thread waits for room and sends them.
    is_served: bool,
}

/// Receives from the keeper.
#[derive(Debug)]
pub(super) struct KeeperLink {
    socket: AsyncFd<OwnedFd>,
}

impl KeeperSender {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket), posted: Arc::default() }
    }

    /// Sends one message; waits while the keeper is stopped and its socket is full.
    ///
    /// # Errors
    ///
    /// `EPIPE` or `ECONNRESET` when the keeper is gone.
    pub(super) fn send(&self, message: &ToKeeper<'_>, fds: &[RawFd]) -> io::Result<()> {
        let header = message.encode();
        match message {
            ToKeeper::Upgrade { path, .. } => {
                seqpacket::send(self.socket.as_fd(), &[&header[..], path].concat(), fds, true)
            }
            ToKeeper::Hold { .. }
            | ToKeeper::Born { .. }
            | ToKeeper::Drop { .. }
            | ToKeeper::List
            | ToKeeper::Ready
            | ToKeeper::Ping
            | ToKeeper::Withdrawn
            | ToKeeper::Bye { .. } => seqpacket::send(self.socket.as_fd(), &header, fds, true),
        }
    }

    /// Sends one message without waiting: what finds no room is sent as soon as there is some.
    ///
    /// Messages that were sent later may overtake it.
    pub(super) fn post(&self, message: &ToKeeper<'_>) {
        let header = message.encode();
        let mut posted = self.lock_posted();
        if posted.messages.is_empty() && !posted.is_served {
            match seqpacket::send(self.socket.as_fd(), &header, &[], false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A keeper that is gone is noticed by whoever receives from it.
                Ok(()) | Err(_) => return,
            }
        }
        posted.messages.push_back(header);
        if !posted.is_served {
            let sender = self.clone();
            let thread = std::thread::Builder::new().name("mend-post".into());
            // Without a thread they wait for the next one that is posted.
            posted.is_served =
                thread.stack_size(64 * 1024).spawn(move || sender.send_posted()).is_ok();
        }
    }

    /// Sends what was posted, waiting for room, until nothing is left.
    fn send_posted(&self) {
        crate::os::process::block_all_signals();
        loop {
            let Some(header) = self.lock_posted().next() else { return };
            if seqpacket::send(self.socket.as_fd(), &header, &[], true).is_err() {
                let mut posted = self.lock_posted();
                posted.messages.clear();
                posted.is_served = false;
                return;
            }
        }
    }

    fn lock_posted(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the keeper's table and returns it. Waits; only for the start.
    pub(super) fn list(&self) -> io::Result<Vec<(ToBrain, ReceivedFds)>> {
        let mut entries = Vec::new();
        self.list_into(&mut entries)?;
        Ok(entries)
    }

    /// Like [`list`](Self::list), but keeps what has come when the keeper dies meanwhile.
    pub(super) fn list_into(&self, entries: &mut Vec<(ToBrain, ReceivedFds)>) -> io::Result<()> {
        self.send(&ToKeeper::List, &[])?;
        loop {
            let (message, fds) =
                receive(&self.socket, true)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match message {
                ToBrain::End => return Ok(()),
                entry @ ToBrain::Entry { .. } => entries.push((entry, fds)),
                ToBrain::Exited { .. }
                | ToBrain::Signal { .. }
                | ToBrain::Pong
                | ToBrain::UpgradeBegins
                | ToBrain::Upgraded
                | ToBrain::UpgradeFailed(_) => {}
            }
        }
    }

    /// Makes the receiving half; needs a runtime.
    pub(super) fn link(&self) -> io::Result<KeeperLink> {
        let socket = readable(self.socket.try_clone()?)?;
        Ok(KeeperLink { socket })
    }
}

impl Posted {
    fn next(&mut self) -> Option<[u8; HEADER_BYTES]> {
        let message = self.messages.pop_front();
        self.is_served = message.is_some();
        message
    }
}

impl KeeperLink {
    /// Returns all messages that have arrived, at least one; `None` when the keeper is gone.
    pub(super) async fn receive(&self) -> Option<Vec<ToBrain>> {
        loop {
            let mut ready = self.socket.readable().await.ok()?;
            let mut messages = Vec::new();
            loop {
                match receive(self.socket.get_ref(), false) {
                    Ok(Some((message, _))) => messages.push(message),
                    // The keeper died with unread messages; what it said itself comes after this.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                    Ok(None) if messages.is_empty() => return None,
                    Err(error)
                        if error.kind() != io::ErrorKind::WouldBlock && messages.is_empty() =>
                    {
                        return None;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break;
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            if !messages.is_empty() {
                return Some(messages);
            }
        }
    }
}

fn receive(socket: &OwnedFd, wait: bool) -> io::Result<Option<(ToBrain, ReceivedFds)>> {
    let mut bytes = [0; HEADER_BYTES];
    loop {
        let Received { length, fds, is_cut } =
            seqpacket::receive(socket.as_fd(), &mut bytes, wait)?;
        if length == 0 {
            return Ok(None);
        }
        if is_cut {
            tracing::error!(
                "no descriptor is left for what the keeper holds; raise `[supervisor] nofile`"
            );
        }
        match ToBrain::decode(&bytes[..length]) {
            Ok(message) => return Ok(Some((message, fds))),
            // A keeper of another version may say more than this one understands; that is no
            // reason to think that it is gone.
            Err(error) => tracing::warn!(%error, "from the keeper"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RunId;

    #[test]
    fn what_a_stopped_keeper_has_no_room_for_arrives_once_it_goes_on() {
        const COUNT: u64 = 5_000;
        let (ours, theirs) = seqpacket::pair().unwrap();
        let sender = KeeperSender::new(ours);
        for run in 0..COUNT {
            sender.post(&ToKeeper::Drop { run: RunId(run) });
        }
        assert!(sender.lock_posted().is_served, "the socket was never full");
        for run in 0..COUNT {
            let mut bytes = [0; HEADER_BYTES];
            let length = seqpacket::receive(theirs.as_fd(), &mut bytes, true).unwrap().length;
            let expected = ToKeeper::Drop { run: RunId(run) };
            assert_eq!(ToKeeper::decode(&bytes[..length]), Ok(expected));
        }
    }
}
