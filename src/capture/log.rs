//! A log and its trouble: what to do while it cannot be written.
//!
//! Trouble keeps the output in the pipe, so that the process blocks and loses nothing; after
//! `full_disk_block` the output is read and counted instead, and the log gets a line about it as
//! soon as it can be written again.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::time::Wall;

use super::pump::Notice;
use super::totals::Totals;
use super::writer::LogWriter;

/// Time between two tries to write.
const RETRY: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Trouble {
    since: Instant,
    retry_at: Instant,
    dropped_bytes: u64,
}

/// A log that streams share, and whether it can be written.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) writer: LogWriter,
    /// How many streams pour into it.
    pub(super) streams: usize,
    /// The sink was told and has not looked yet.
    pub(super) told: Arc<AtomicBool>,
    trouble: Option<Trouble>,
    /// Total of the bytes dropped, for the message of the recovery.
    dropped_bytes: u64,
    totals: Arc<Totals>,
}

impl Log {
    pub(super) fn new(writer: LogWriter, totals: Arc<Totals>) -> Self {
        let told = Arc::new(AtomicBool::new(false));
        Self { writer, streams: 0, told, trouble: None, dropped_bytes: 0, totals }
    }

    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.trouble.as_ref().map(|trouble| trouble.retry_at)
    }

    /// Takes a failed write; returns what to tell, once per trouble.
    pub(super) fn on_failure(&mut self, error: &io::Error, now: Instant) -> Option<Notice> {
        let retry_at = now + RETRY;
        if let Some(trouble) = &mut self.trouble {
            trouble.retry_at = retry_at;
            return None;
        }
        self.trouble = Some(Trouble { since: now, retry_at, dropped_bytes: 0 });
        let path = self.writer.place.current().display();
        let patience = self.writer.logs.full_disk_block;
        let message = format!(
            "cannot write its log `{path}`: {error}; its output waits, and is dropped after \
             {patience:?}"
        );
        Some(Notice::Trouble { process: self.writer.process.clone(), message })
    }

    /// Tries to write again, first of all the line about what was dropped.
    pub(super) fn retry(&mut self, wall: Wall) -> io::Result<()> {
        let Some(trouble) = &mut self.trouble else { return Ok(()) };
        self.writer.ensure_open(wall)?;
        if trouble.dropped_bytes > 0 {
            let bytes = trouble.dropped_bytes;
            self.writer.write_line(
                &format!("-- mend: {bytes} bytes dropped while the disk was full --"),
                wall,
            )?;
            trouble.dropped_bytes = 0;
        }
        Ok(())
    }

    /// Ends the trouble; returns what to tell.
    pub(super) fn on_success(&mut self) -> Option<Notice> {
        self.trouble.take()?;
        let message = match std::mem::take(&mut self.dropped_bytes) {
            0 => "its log can be written again; nothing was lost".to_owned(),
            bytes => format!("its log can be written again; {bytes} bytes were dropped"),
        };
        Some(Notice::Recovered { process: self.writer.process.clone(), message })
    }

    /// Returns whether the patience is over, so that output is dropped.
    pub(super) fn is_dropping(&self, now: Instant) -> bool {
        let patience = self.writer.logs.full_disk_block;
        self.trouble.as_ref().is_some_and(|trouble| now >= trouble.since + patience)
    }

    /// Reads and counts what is in `fifo`.
    pub(super) fn discard(&mut self, fifo: BorrowedFd<'_>) -> io::Result<()> {
        let mut file = std::fs::File::from(fifo.try_clone_to_owned()?);
        let mut buffer = [0; 16 * 1024];
        loop {
            let bytes = match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(bytes) => bytes as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.dropped_bytes += bytes;
            self.totals.on_dropped(bytes);
            if let Some(trouble) = &mut self.trouble {
                trouble.dropped_bytes += bytes;
            }
        }
    }
}
