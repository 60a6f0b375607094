//! The keeper's own words, on standard error.
//!
//! They must neither end it nor hold it up: `eprintln!` of the standard library panics when the
//! reader of a pipe is gone, and waits when the reader is slow or a terminal is stopped.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest line in bytes; a pipe that is writable takes that much without waiting.
const LINE_BYTES: usize = 1024;

/// Writes one line, if standard error takes it now.
pub(super) fn say(words: fmt::Arguments<'_>) {
    let mut stderr = io::stderr();
    let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if !poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        return;
    }
    let mut line = [0; LINE_BYTES];
    let mut room = &mut line[..LINE_BYTES - 1];
    // What does not fit is cut.
    let _ = room.write_fmt(words);
    let end = LINE_BYTES - 1 - room.len();
    line[end] = b'\n';
    // Nobody reads it any more: there is nobody to tell that.
    let _ = stderr.write_all(&line[..=end]);
}
