//! Who is at the other end of a Unix socket, as the kernel recorded it at `connect`.
#![allow(unsafe_code, reason = "nix offers no wrapper for SO_PEERGROUPS")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt};

/// Most supplementary groups that Linux lets a process have (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// The credentials of a peer when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCredentials {
    pub uid: u32,
    pub gid: u32,
    /// The pid in our namespace; 0 when the peer lives in a namespace that we cannot see. It
    /// may have been recycled since: good for the record, not for a decision.
    pub pid: i32,
    /// Supplementary groups, at most 65,536.
    pub groups: Vec<u32>,
}

/// Reads the credentials of the peer of a connected Unix stream socket.
///
/// # Errors
///
/// What `getsockopt` reports. A kernel without `SO_PEERGROUPS` gives no supplementary groups.
pub fn peer_credentials(socket: &impl AsFd) -> io::Result<PeerCredentials> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials).map_err(io::Error::from)?;
    Ok(PeerCredentials {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid(),
        groups: peer_groups(socket)?,
    })
}

fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let fd = socket.as_fd().as_raw_fd();
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut length = libc::socklen_t::try_from(std::mem::size_of_val(groups.as_slice()))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the pointer and the length describe the vector's own initialised memory, and
        // the kernel writes at most `length` bytes of plain integers into it.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ERANGE) if count > groups.len() && count <= MAX_GROUPS => {
                groups.resize(count, 0);
            }
            // ENODATA: the peer is of a kind without credentials; ENOPROTOOPT: an old kernel.
            Some(libc::ENOPROTOOPT | libc::ENODATA) => return Ok(Vec::new()),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (left, _right) = UnixStream::pair().unwrap();
        let peer = peer_credentials(&left).unwrap();
        assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
        assert_eq!(peer.gid, nix::unistd::getgid().as_raw());
        assert_eq!(peer.pid, nix::unistd::getpid().as_raw());
        let mut own: Vec<u32> =
            nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        let mut seen = peer.groups;
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
    }
}
