//! What a brain does whose keeper is gone: it keeps the output moving until another keeper has
//! taken over every run, and then ends, because the next brain will be that keeper's child.
//!
//! Without a service manager it starts the keeper itself. Under systemd the manager starts one
//! (`Restart=`), and two must not stand: the brain only waits on a socket for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket,
};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use super::systemd::Notifier;
use crate::keeper::arguments::KeeperArguments;
use crate::keeper::wire::HEADER_BYTES;
use crate::keeper::{HANDOVER_SOCKET, KEEPER_LOCK, is_another_keeper_there};
use crate::os::peer::peer_credentials;
use crate::os::readable::readable;
use crate::os::seqpacket::Received;
use crate::os::{clock, process, seqpacket};

/// How long a service manager has to start a keeper before the brain starts one itself.
const MANAGER_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before the second try to get a keeper; doubles from here on. The first one may come
/// too early: a dying process closes its socket before its lock.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Longest pause between two tries to get a keeper.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a dying keeper may take to let go of its lock, on the busiest machine.
const DEATH_PATIENCE: Duration = Duration::from_secs(30);

/// What a brain holds for the next keeper.
pub(super) trait Estate {
    /// Returns the number of runs.
    fn count(&self) -> usize;

    /// Sends every run, and the end of the list.
    fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()>;

    /// Returns how long another keeper may stand and not ask; `None`: for ever.
    fn patience(&self) -> Option<Duration>;
}

/// Returns when another keeper than `killed` has everything, or needs none of it; then whether it
/// has been given.
pub(super) async fn hand_over(
    estate: &impl Estate,
    door: Option<&KeeperDoor>,
    words: &KeeperArguments,
    killed: u32,
) -> bool {
    let mut another_stands = None;
    let mut patience = if Notifier::is_present() { MANAGER_PATIENCE } else { Duration::ZERO };
    loop {
        if let Some(door) = door
            && let Ok(Ok(socket)) = tokio::time::timeout(patience, accept(&door.listener)).await
        {
            if give(estate, socket.as_fd()) {
                return true;
            }
            continue;
        }
        match start_heir(words) {
            Ok(socket) => {
                if give(estate, socket.as_fd()) {
                    return true;
                }
            }
            // Another keeper stands already, or the one before is not quite dead.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !is_another_keeper_there(&words.runtime_dir, killed) {
                    another_stands = None;
                } else if let Some(most) = estate.patience()
                    && clock::now() >= *another_stands.get_or_insert_with(clock::now) + most
                {
                    info!("another keeper stands that asks for nothing");
                    return false;
                }
            }
            Err(error) => warn!(%error, "cannot start a keeper; trying again"),
        }
        patience = (patience * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        if door.is_none() {
            tokio::time::sleep(patience).await;
        }
    }
}

/// Starts a keeper in place of one that was killed before this brain had taken over from it.
///
/// Does nothing where another keeper stands already, or where a service manager starts it.
pub(crate) fn replace_keeper(words: &KeeperArguments, killed: u32) {
    if Notifier::is_present() {
        return;
    }
    let deadline = std::time::Instant::now() + DEATH_PATIENCE;
    let mut started = start_keeper(words, None);
    while started.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        && !is_another_keeper_there(&words.runtime_dir, killed)
        && std::time::Instant::now() < deadline
    {
        std::thread::sleep(FIRST_PAUSE);
        started = start_keeper(words, None);
    }
    match started {
        Ok(()) => warn!("the keeper was killed; another one is started"),
        Err(error)
            if error.kind() == io::ErrorKind::WouldBlock
                && is_another_keeper_there(&words.runtime_dir, killed) => {}
        Err(error) => tracing::error!(%error, "the keeper was killed and none can be started"),
    }
}

/// Hands over, and waits for the word that all of it has arrived: a keeper that is killed before
/// has taken nothing, one that is stopped is waited for.
fn give(estate: &impl Estate, socket: BorrowedFd<'_>) -> bool {
    let accepted = || {
        let mut bytes = [0; HEADER_BYTES];
        match seqpacket::receive(socket, &mut bytes, true)? {
            Received { length: 0, .. } => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    };
    match estate.send(socket).and_then(|()| accepted()) {
        Ok(()) => {
            info!("handed {} runs to the next keeper", estate.count());
            true
        }
        Err(error) => {
            warn!(%error, "the next keeper went away during the handover");
            false
        }
    }
}

/// Where a keeper connects to this brain.
#[derive(Debug)]
pub(super) struct KeeperDoor {
    listener: AsyncFd<OwnedFd>,
    path: PathBuf,
    /// Device and inode of the socket's name, which is not given again while it is open.
    place: (u64, u64),
}

impl KeeperDoor {
    /// Opens it in place of any other brain's; `None` when that cannot be.
    pub(super) fn open(runtime_dir: &Path) -> Option<Self> {
        let path = runtime_dir.join(HANDOVER_SOCKET);
        listen_for_keeper(&path)
            .and_then(|listener| Ok(Self { listener, place: place_of(&path)?, path }))
            .inspect_err(|error| warn!(%error, "no keeper can connect to this brain"))
            .ok()
    }

    /// Returns whose door the next keeper finds.
    pub(super) fn owner(&self) -> DoorOwner {
        match place_of(&self.path) {
            Ok(place) if place == self.place => DoorOwner::This,
            Err(error) if error.kind() == io::ErrorKind::NotFound => DoorOwner::Nobody,
            Ok(_) | Err(_) => DoorOwner::Another,
        }
    }

    /// Takes it away: a keeper has everything, and another brain need not offer it again. Only
    /// for the brain that has the lock.
    pub(super) fn close(self) {
        if self.owner() == DoorOwner::This {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whose door a keeper finds in the runtime directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DoorOwner {
    This,
    /// A brain that had the lock after this one; alive or dead.
    Another,
    /// A brain that had the lock after this one has handed everything over.
    Nobody,
}

fn place_of(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|about| (about.dev(), about.ino()))
}

fn listen_for_keeper(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let _ = std::fs::remove_file(path);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    nix::sys::stat::fchmod(&fd, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(4)?)?;
    readable(fd)
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    loop {
        let mut ready = listener.readable().await?;
        let accepted = ready.try_io(|listener| {
            accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).map_err(io::Error::from)
        });
        match accepted {
            Ok(Ok(fd)) => {
                let fd = process::adopt_fd(fd)?;
                let peer = peer_credentials(&fd)?.uid;
                if peer == 0 || peer == process::effective_uid() {
                    return Ok(fd);
                }
                warn!(uid = peer, "somebody else wants the programs handed over; refused");
            }
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

/// Starts a keeper that is handed over to, and returns our end of the socket pair.
fn start_heir(words: &KeeperArguments) -> io::Result<OwnedFd> {
    let (ours, theirs) = seqpacket::pair()?;
    start_keeper(words, Some(theirs))?;
    Ok(ours)
}

/// Starts a keeper with a lock of its own.
fn start_keeper(words: &KeeperArguments, handover: Option<OwnedFd>) -> io::Result<()> {
    let lock = crate::keeper::take_lock(&words.runtime_dir.join(KEEPER_LOCK))?;
    let arguments = KeeperArguments {
        lock: lock.as_raw_fd(),
        handover: handover.as_ref().map(AsRawFd::as_raw_fd),
        ..words.clone()
    };
    let argv = arguments.to_argv()?;
    let passed = [Some(lock.as_raw_fd()), arguments.handover];
    for fd in passed.into_iter().flatten() {
        process::set_inherited(fd, true)?;
    }
    let started = process::spawn_detached(c"/proc/self/exe", &argv);
    for fd in passed.into_iter().flatten() {
        process::set_inherited(fd, false)?;
    }
    started
}
