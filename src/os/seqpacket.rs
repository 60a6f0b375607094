//! Message sockets (`AF_UNIX`, `SOCK_SEQPACKET`) that carry descriptors; see unix(7).
//!
//! Nothing here allocates: the keeper uses it.
#![allow(unsafe_code, reason = "SCM_RIGHTS without allocation has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors in one message.
pub const MAX_FDS: usize = 3;

/// Longest message in bytes.
pub const MAX_BYTES: usize = 4352;

/// The descriptors of one received message, in order.
pub type ReceivedFds = [Option<OwnedFd>; MAX_FDS];

/// One message as it arrived.
#[derive(Debug)]
pub struct Received {
    /// 0 means that the other end is closed.
    pub length: usize,
    pub fds: ReceivedFds,
    /// Some descriptors are missing: this process has no room for more of them.
    pub is_cut: bool,
}

/// Room for the control message: 8-byte aligned, enough for [`MAX_FDS`] descriptors.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Makes a connected pair; both ends are close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel fills in two descriptors that are ours alone.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// Sends one message whole. With `wait` false a full socket is [`io::ErrorKind::WouldBlock`].
///
/// # Errors
///
/// Those of sendmsg(2); `ETOOMANYREFS` when too many descriptors are under way.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd], wait: bool) -> io::Result<()> {
    debug_assert!(fds.len() <= MAX_FDS && bytes.len() <= MAX_BYTES);
    let mut part = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: every pointer in `message` points to a live local; the control message is written
    // within `control`, whose size CMSG_SPACE of MAX_FDS descriptors does not exceed.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let payload = u32::try_from(size_of_val(fds)).unwrap_or(0);
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(payload) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload) as _;
            std::ptr::copy_nonoverlapping(
                fds.as_ptr(),
                libc::CMSG_DATA(header).cast::<RawFd>(),
                fds.len(),
            );
        }
        let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
        loop {
            if libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Receives one message.
///
/// The descriptors are close-on-exec. With `wait` false an empty socket is
/// [`io::ErrorKind::WouldBlock`].
///
/// # Errors
///
/// Those of recvmsg(2). Descriptors that find no room are no error, see [`Received::is_cut`].
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], wait: bool) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    let mut fds: ReceivedFds = [const { None }; MAX_FDS];
    // SAFETY: as in `send`; each received descriptor is taken exactly once.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        let flags = libc::MSG_CMSG_CLOEXEC | if wait { 0 } else { libc::MSG_DONTWAIT };
        let length = loop {
            let result = libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags);
            if result >= 0 {
                break result.unsigned_abs();
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
            let data = libc::CMSG_DATA(header);
            let payload = (*header).cmsg_len as usize - (data as usize - header as usize);
            for index in 0..payload / size_of::<RawFd>() {
                let fd = data.cast::<RawFd>().add(index).read_unaligned();
                let fd = OwnedFd::from_raw_fd(fd);
                if let Some(place) = fds.get_mut(index) {
                    *place = Some(fd);
                }
            }
        }
        let is_cut = message.msg_flags & libc::MSG_CTRUNC != 0;
        Ok(Received { length, fds, is_cut })
    }
}
