//! Waiting for a descriptor to become readable on the runtime.
#![allow(unsafe_code, reason = "tokio asks for a promise that an owned descriptor keeps")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime; it must be in a runtime's context.
///
/// # Errors
///
/// When the runtime's epoll refuses it.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `AsyncFd` owns the descriptor and nothing replaces or closes it before.
    unsafe { Ok(AsyncFd::register_with_interest(fd, Interest::READABLE)?) }
}
