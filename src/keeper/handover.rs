//! How a keeper gets its table when it is not the first: from the image before it (upgrade), from
//! an orphaned brain (the keeper before it was killed), or from systemd's descriptor store.
//!
//! Runs at the start, before the keeper stops taking memory.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::table::{SLOT_BYTES, Slot, Table};
use super::wire::{HEADER_BYTES, ToBrain};
use crate::name::RunId;
use crate::os::{process, seqpacket};

/// Name of the socket in the runtime directory on which an orphaned brain hands over.
pub const SOCKET_NAME: &str = "handover.sock";

/// Writes the table for the next image, into a descriptor that survives the exec.
pub(super) fn write_table(table: &Table) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"mend-table", MFdFlags::empty())?);
    for slot in table.export() {
        file.write_all(&slot.to_bytes())?;
    }
    Ok(file.into())
}

/// Decides whether the table's descriptors survive an exec.
pub(super) fn inherit_all(table: &Table, inherited: bool) {
    for slot in (0..table.end()).filter_map(|index| table.get(index)) {
        for fd in [slot.pidfd, slot.pipes[0], slot.pipes[1]] {
            if fd >= 0 {
                // A descriptor of the table is open, so this cannot fail.
                let _ = process::set_inherited(fd, inherited);
            }
        }
    }
}

/// Reads what [`write_table`] of the image before wrote.
///
/// What the brain was told counts, because it is the same brain.
pub(super) fn read_table(fd: RawFd) -> io::Result<Table> {
    let mut file = File::from(process::adopt_fd(fd)?);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut table = Table::new();
    for chunk in bytes.chunks_exact(SLOT_BYTES) {
        if let Some(chunk) = chunk.first_chunk::<SLOT_BYTES>() {
            table.import(Slot::from_bytes(chunk));
        }
    }
    Ok(table)
}

/// Connects to an orphaned brain that waits for a keeper, `None` when there is none.
pub(super) fn connect_to_orphan(runtime_dir: &Path) -> Option<OwnedFd> {
    let address = UnixAddr::new(&runtime_dir.join(SOCKET_NAME)).ok()?;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).ok()?;
    connect(fd.as_raw_fd(), &address).ok()?;
    Some(fd)
}

/// How long an orphaned brain may be silent in the middle of its handover.
const SILENCE: Duration = Duration::from_secs(5);

/// Takes over what an orphaned brain hands over, and returns whether that was all.
///
/// What has not come when the brain dies, or when it is silent for too long, is found on disk by
/// the next one.
pub(super) fn receive(socket: BorrowedFd<'_>, table: &mut Table) -> bool {
    let mut bytes = [0; HEADER_BYTES];
    while is_readable_within(socket, SILENCE) {
        let Ok(received) = seqpacket::receive(socket, &mut bytes, true) else { break };
        let seqpacket::Received { length, fds, is_cut } = received;
        if is_cut {
            say_cut();
        }
        if let Ok(ToBrain::End) = ToBrain::decode(&bytes[..length]) {
            return true;
        }
        let Ok(ToBrain::Entry { run, pid, exit, pipes, has_pidfd }) =
            ToBrain::decode(&bytes[..length])
        else {
            break;
        };
        let mut fds = fds.into_iter().flatten();
        let mut slot = Slot::new(run, [-1, -1]);
        for place in slot.pipes.iter_mut().take(usize::from(pipes)) {
            *place = fds.next().map_or(-1, IntoRawFd::into_raw_fd);
        }
        if has_pidfd {
            slot.pidfd = fds.next().map_or(-1, IntoRawFd::into_raw_fd);
        }
        slot.pid = pid.unwrap_or(0);
        slot.flags |= Slot::FOREIGN;
        if let Some(exit) = exit {
            slot.end(exit);
        }
        if let Some(index) = table.find(run) {
            // A service manager has kept some of it as well.
            let stored = table.remove(index);
            [stored.pidfd, stored.pipes[0], stored.pipes[1]].into_iter().for_each(close);
        }
        table.insert(slot);
    }
    false
}

/// Tells an orphaned brain that it may end: another one holds all that it holds.
pub(super) fn dismiss(socket: &OwnedFd) {
    // A brain that is gone by now was killed after it had said everything.
    let _ = seqpacket::send(socket.as_fd(), &ToBrain::End.encode(), &[], false);
}

fn is_readable_within(socket: BorrowedFd<'_>, patience: Duration) -> bool {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    loop {
        match poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

/// Takes the descriptors that systemd kept while nobody held them (sd_listen_fds(3)).
///
/// Their names are `RUN-pidfd`, `RUN-0` and `RUN-1`, as the brain stored them.
pub(super) fn take_stored(table: &mut Table) {
    let Ok(stored) = sd_notify::listen_fds_with_names() else { return };
    for (fd, name) in stored {
        let fd = fd.as_raw_fd();
        let Ok(fd) = process::adopt_fd(fd) else { continue };
        let Some((run, kind)) = name.split_once('-') else { continue };
        let Ok(run) = run.parse().map(RunId) else { continue };
        let index = table.find(run).or_else(|| {
            let mut slot = Slot::new(run, [-1, -1]);
            slot.flags |= Slot::FOREIGN;
            table.insert(slot)
        });
        let Some(slot) = index.and_then(|index| table.get_mut(index)) else { continue };
        let place = match kind {
            "pidfd" => &mut slot.pidfd,
            "0" => &mut slot.pipes[0],
            "1" => &mut slot.pipes[1],
            _ => continue,
        };
        if *place < 0 {
            *place = fd.into_raw_fd();
        }
    }
}

/// Says that this process has no room for the descriptors of a message.
///
/// The output of the run is safe while its process or the brain lives; the next brain offers
/// them again.
pub(super) fn say_cut() {
    eprintln!(
        "mendd: no descriptor is left to hold the output of another run; raise `[supervisor] \
         nofile` and the limit that the daemon is started with"
    );
}

/// Closes a descriptor of a slot that is no longer needed.
pub(super) fn close(fd: RawFd) {
    if let Ok(fd) = process::adopt_fd(fd) {
        drop(fd);
    }
}
