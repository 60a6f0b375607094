//! The receiving end of sd_notify(3): a datagram socket whose senders the kernel names.
//!
//! A datagram is looked at first and taken out when what it said is written down, so that a
//! SIGKILL in between loses nothing. Descriptors that come with one are never received: the
//! kernel closes them when the datagram is taken out, which is all that `BARRIER=1` asks for.
#![allow(unsafe_code, reason = "SCM_CREDENTIALS beside refused descriptors has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt,
};

/// Longest datagram that is listened to, as systemd has it.
pub const MAX_BYTES: usize = 4096;

/// One datagram as it waits.
#[derive(Debug)]
pub struct Datagram {
    pub bytes: Vec<u8>,
    /// It was longer than [`MAX_BYTES`].
    pub is_cut: bool,
    pub sender: Sender,
}

/// Who sent a datagram, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// 0 when the sender lives in a namespace that we cannot see.
    pub pid: u32,
    pub uid: u32,
}

/// Makes a socket with an abstract name, which needs no file and no permission on one.
///
/// # Errors
///
/// `EADDRINUSE` when somebody has that name, `EMFILE` and the like.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    // Before anything can arrive: only then every datagram has its sender.
    setsockopt(&fd, sockopt::PassCred, &true)?;
    bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    Ok(fd)
}

/// Room for the credentials alone, so that no descriptor is ever received.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// Returns a copy of the first datagram that waits, `None` when there is none.
///
/// # Errors
///
/// Those of recvmsg(2).
pub fn peek(socket: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 32]);
    // SAFETY: every pointer in `message` points to a live local; the kernel writes within the
    // lengths that are given with them.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let length = loop {
            let result = libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags);
            if result >= 0 {
                break result.unsigned_abs();
            }
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::WouldBlock {
                return Ok(None);
            }
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        bytes.truncate(length);
        let mut sender = Sender { pid: 0, uid: u32::MAX };
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() && (*header).cmsg_type == libc::SCM_CREDENTIALS {
            let found = libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned();
            sender = Sender { pid: u32::try_from(found.pid).unwrap_or(0), uid: found.uid };
        }
        let is_cut = message.msg_flags & libc::MSG_TRUNC != 0;
        Ok(Some(Datagram { bytes, is_cut, sender }))
    }
}

/// Takes out the first datagram that waits, and closes what came with it.
///
/// # Errors
///
/// Those of recv(2), an empty socket among them.
pub fn take(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [0_u8];
    // SAFETY: one live byte; the rest of the datagram is thrown away.
    let taken =
        unsafe { libc::recv(socket.as_raw_fd(), byte.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT) };
    if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd, UnixAddr) {
        let name = format!("mend-test/{}/{:016x}", std::process::id(), fastrand::u64(..));
        let ours = open(&name).unwrap();
        let flags = SockFlag::SOCK_CLOEXEC;
        let theirs = socket(AddressFamily::Unix, SockType::Datagram, flags, None).unwrap();
        (ours, theirs, UnixAddr::new_abstract(name.as_bytes()).unwrap())
    }

    fn send(from: &OwnedFd, to: &UnixAddr, bytes: &[u8], fds: &[i32]) {
        let control = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &control[..] };
        let parts = [IoSlice::new(bytes)];
        sendmsg(from.as_raw_fd(), &parts, control, MsgFlags::empty(), Some(to)).unwrap();
    }

    #[test]
    fn a_datagram_stays_until_it_is_taken_and_names_its_sender() {
        let (ours, theirs, address) = pair();
        assert!(peek(ours.as_fd()).unwrap().is_none());
        send(&theirs, &address, b"READY=1", &[]);
        send(&theirs, &address, b"STATUS=x", &[]);
        for _ in 0..2 {
            let found = peek(ours.as_fd()).unwrap().unwrap();
            assert_eq!((found.bytes.as_slice(), found.is_cut), (&b"READY=1"[..], false));
            let uid = crate::os::process::effective_uid();
            assert_eq!(found.sender, Sender { pid: std::process::id(), uid });
        }
        take(ours.as_fd()).unwrap();
        assert_eq!(peek(ours.as_fd()).unwrap().unwrap().bytes, b"STATUS=x");
        take(ours.as_fd()).unwrap();
        assert!(take(ours.as_fd()).is_err());
    }

    #[test]
    fn a_datagram_that_is_too_long_is_cut_and_says_so() {
        let (ours, theirs, address) = pair();
        send(&theirs, &address, &[b'x'; MAX_BYTES + 1], &[]);
        let found = peek(ours.as_fd()).unwrap().unwrap();
        assert_eq!((found.bytes.len(), found.is_cut), (MAX_BYTES, true));
        take(ours.as_fd()).unwrap();
        assert!(peek(ours.as_fd()).unwrap().is_none());
    }

    #[test]
    fn descriptors_that_are_sent_along_are_closed_when_the_datagram_is_taken() {
        let (ours, theirs, address) = pair();
        let flags = nix::fcntl::OFlag::O_CLOEXEC;
        let (read, write) = nix::unistd::pipe2(flags).unwrap();
        send(&theirs, &address, b"BARRIER=1", &[write.as_raw_fd()]);
        drop(write);
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        assert_eq!(peek(ours.as_fd()).unwrap().unwrap().bytes, b"BARRIER=1");
        assert!(open() <= before + 8, "the descriptor was received");
        take(ours.as_fd()).unwrap();
        // The end of the pipe, as nobody holds the other one any more.
        assert_eq!(nix::unistd::read(&read, &mut [0; 1]).unwrap(), 0);
    }
}
