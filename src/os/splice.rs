//! Moves bytes between pipes and files inside the kernel.
//!
//! A byte that `splice` moves is either still in the pipe or already in the file, whatever kills
//! the caller; a read followed by a write has no such promise. `tee` copies without consuming, so
//! that the content can be looked at before it is moved.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl};

/// Bytes that one [`Peek`] can show.
pub const PEEK_BYTES: usize = 64 * 1024;

/// Moves up to `len` bytes from `pipe` to `offset` of `file`, never waiting for the pipe.
///
/// Returns 0 when the pipe is empty and nobody holds its writing end.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] when the pipe is empty but has writers; `ENOSPC`, `EDQUOT`, `EIO`
/// and the like leave what was not moved in the pipe. `EINVAL` when `file` is opened for appending.
pub fn splice_to_file(
    pipe: impl AsFd,
    file: impl AsFd,
    offset: u64,
    len: usize,
) -> io::Result<usize> {
    let mut at = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    loop {
        match nix::fcntl::splice(&pipe, None, &file, Some(&mut at), len, flags) {
            Err(Errno::EINTR) => {}
            moved => return Ok(moved?),
        }
    }
}

/// Asks for a pipe capacity of `bytes`; returns the one that is in force afterwards.
///
/// # Errors
///
/// `EPERM` above the user's limits; the pipe then keeps its capacity.
pub fn set_pipe_size(pipe: impl AsFd, bytes: i32) -> io::Result<usize> {
    let size = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes))?;
    Ok(usize::try_from(size).unwrap_or(0))
}

/// Returns the capacity of a pipe in bytes.
///
/// # Errors
///
/// `EBADF` when it is not a pipe.
pub fn pipe_size(pipe: impl AsFd) -> io::Result<usize> {
    Ok(usize::try_from(fcntl(pipe, FcntlArg::F_GETPIPE_SZ)?).unwrap_or(0))
}

/// A private pipe through which the content of another pipe is looked at without consuming it.
#[derive(Debug)]
pub struct Peek {
    read: File,
    write: OwnedFd,
}

impl Peek {
    /// Makes the private pipe.
    ///
    /// # Errors
    ///
    /// When no more files can be opened.
    pub fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self { read: File::from(read), write })
    }

    /// Puts a copy of the first bytes of `pipe` into `buffer`, at most [`PEEK_BYTES`].
    ///
    /// An empty `buffer` means that the pipe is empty, with or without writers.
    ///
    /// # Errors
    ///
    /// Whatever `tee` says, but for an empty pipe.
    pub fn look(&mut self, pipe: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        let copied = loop {
            let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
            match nix::fcntl::tee(&pipe, &self.write, PEEK_BYTES, flags) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                copied => break copied?,
            }
        };
        buffer.resize(copied, 0);
        self.read.read_exact(buffer)
    }
}
