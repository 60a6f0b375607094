//! The runs in the loop's hands, as they are handed to another keeper.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::core_loop::Engine;
use super::successor::Estate;
use crate::keeper::wire::ToBrain;
use crate::os::seqpacket;

impl Estate for Engine {
    fn count(&self) -> usize {
        self.runs.len()
    }

    fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        for (run, hands) in &self.runs {
            let pipes = u8::try_from(hands.pipes.len()).unwrap_or(0);
            let entry = ToBrain::Entry {
                run: *run,
                pid: hands.pid,
                exit: hands.exit,
                pipes,
                has_pidfd: hands.pidfd.is_some(),
            };
            seqpacket::send(socket, &entry.encode(), &hands.descriptors(), true)?;
            for (extra, fd) in &hands.extras {
                let entry = ToBrain::Entry {
                    run: extra.key(*run),
                    pid: None,
                    exit: None,
                    pipes: 1,
                    has_pidfd: false,
                };
                seqpacket::send(socket, &entry.encode(), &[fd.as_raw_fd()], true)?;
            }
        }
        seqpacket::send(socket, &ToBrain::End.encode(), &[], true)
    }

    /// The output of these runs moves nowhere else.
    fn patience(&self) -> Option<Duration> {
        None
    }
}
