//! One log on disk: opening, pouring a pipe into it, and rotation.
//!
//! The file's size is the only truth about how far the log has come; it is asked before each
//! splice, so a crash, an outside truncation and a removed directory need no bookkeeping.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::time::Duration;

use nix::unistd::{Gid, Uid};

use crate::config::{Compression, Logs};
use crate::name::ProcessName;
use crate::os::splice::{Peek, splice_to_file};
use crate::time::Wall;

use super::index::IndexWriter;
use super::place::{Place, open_or_create};
use super::read::Cursor;

/// A line this much longer than the size limit is cut.
const CUT_BYTES: u64 = 1024 * 1024;
/// Bytes asked of one splice: the largest pipe.
const SPLICE_BYTES: u64 = 1024 * 1024;

/// What pouring is done with; one for all logs, so that a quiet log costs nothing.
#[derive(Debug)]
pub(super) struct Tools {
    peek: Peek,
    buffer: Vec<u8>,
}

impl Tools {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { peek: Peek::new()?, buffer: Vec::new() })
    }
}

/// How a pipe was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing in it, with or without writers.
    Empty,
    /// The budget is used up.
    More,
}

/// The files of the current segment.
#[derive(Debug)]
struct Open {
    file: File,
    index: IndexWriter,
    seq: u64,
    /// The size after our last write.
    end: u64,
}

#[derive(Debug)]
pub(super) struct LogWriter {
    pub(super) place: Place,
    pub(super) process: ProcessName,
    pub(super) logs: Logs,
    owner: Option<(u32, u32)>,
    open: Option<Open>,
    /// The highest segment number used so far.
    seq: u64,
    /// The segment is too old and ends in the middle of a line.
    age_due: bool,
    /// Closed segments may wait for compression or removal.
    pub(super) untidy: bool,
}

impl LogWriter {
    pub(super) fn new(
        place: Place,
        process: ProcessName,
        logs: Logs,
        owner: Option<(u32, u32)>,
    ) -> Self {
        Self { place, process, logs, owner, open: None, seq: 0, age_due: false, untidy: false }
    }

    /// Opens the current segment unless it is open and still in its place.
    ///
    /// # Errors
    ///
    /// When a directory or file cannot be made; the next call tries again.
    pub(super) fn ensure_open(&mut self, now: Wall) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            let metadata = open.file.metadata()?;
            if metadata.nlink() > 0 {
                if metadata.len() < open.end {
                    open.index.start(open.seq, now)?;
                    self.age_due = false;
                }
                open.end = metadata.len();
                return Ok(());
            }
            self.open = None;
        }
        self.make_directory()?;
        let closed = self.place.segments()?;
        self.untidy |= !closed.is_empty();
        self.adopt_index(&closed)?;
        let seq = self.place.current_seq(&closed).max(self.seq + 1);
        // The index is made first: its header holds the number of a segment that is about to be.
        let size = fs::symlink_metadata(self.place.current()).map_or(0, |metadata| metadata.len());
        let index = IndexWriter::open(&self.place.index(), seq, size, now)?;
        let file = open_or_create(self.place.current())?;
        let end = file.metadata()?.len();
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            // Without the privilege the files simply stay the daemon's.
            let _ = nix::unistd::fchown(&file, uid, gid);
            let _ = nix::unistd::fchown(index.file(), uid, gid);
        }
        // The next opening under the same number is that of `reopen` or a lost file, so only
        // finished numbers count as used.
        self.seq = seq - 1;
        self.open = Some(Open { file, index, seq, end });
        self.age_due = false;
        Ok(())
    }

    fn make_directory(&self) -> io::Result<()> {
        let directory = self.place.directory();
        if directory.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        if let Some((_, gid)) = self.owner {
            // The owner may read its logs, but not replace them: the directory stays ours.
            let _ = nix::unistd::chown(directory, None, Some(Gid::from_raw(gid)));
        }
        Ok(())
    }

    /// Completes a rotation that a crash cut between its two renames.
    fn adopt_index(
        &self,
        closed: &std::collections::BTreeMap<u64, super::place::Parts>,
    ) -> io::Result<()> {
        let Some(seq) = super::index::header_seq(&self.place.index()) else { return Ok(()) };
        match closed.get(&seq) {
            Some(parts) if !parts.index => {
                fs::rename(self.place.index(), self.place.closed_index(seq))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Forgets the open files; the next use opens what is then at their paths.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Returns where the next byte will be written, unless the log is not open.
    pub(super) fn end(&self) -> Option<Cursor> {
        self.open.as_ref().map(|open| Cursor { seq: open.seq, offset: open.end })
    }

    /// Returns when the segment becomes too old, unless it is empty or waits for a line end.
    pub(super) fn next_age_deadline(&self) -> Option<Wall> {
        let max_age = self.logs.max_age?;
        let open = self.open.as_ref().filter(|open| open.end > 0 && !self.age_due)?;
        Some(Wall(open.index.first()?.0.saturating_add(millis(max_age))))
    }

    /// Closes the segment when it is too old: now at a line end, else at the next one.
    pub(super) fn on_age_deadline(&mut self, now: Wall) -> io::Result<()> {
        if self.next_age_deadline().is_none_or(|due| due > now) {
            return Ok(());
        }
        self.ensure_open(now)?;
        if self.is_at_line_start()? {
            return self.rotate(now);
        }
        self.age_due = true;
        Ok(())
    }

    fn is_at_line_start(&self) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(true) };
        let Some(last) = open.end.checked_sub(1) else { return Ok(true) };
        let mut byte = [0];
        open.file.read_exact_at(&mut byte, last)?;
        Ok(byte == *b"\n")
    }

    fn limit_bytes(&self) -> u64 {
        if self.logs.max_size_bytes == 0 { u64::MAX } else { self.logs.max_size_bytes }
    }

    /// Moves what is in `pipe` into the log, at most about `budget` bytes, rotating on the way.
    ///
    /// Returns the number of bytes that were moved, also when an error ended it; on an error
    /// nothing has left the pipe but what is counted.
    pub(super) fn pour(
        &mut self,
        pipe: BorrowedFd<'_>,
        flags: u32,
        budget: u64,
        now: Wall,
        tools: &mut Tools,
    ) -> (u64, io::Result<Left>) {
        let mut moved = 0;
        while moved < budget {
            match self.pour_once(pipe, flags, now, tools) {
                Ok(0) => return (moved, Ok(Left::Empty)),
                Ok(bytes) => moved += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return (moved, Ok(Left::Empty));
                }
                Err(error) => return (moved, Err(error)),
            }
        }
        (moved, Ok(Left::More))
    }

    fn pour_once(
        &mut self,
        pipe: BorrowedFd<'_>,
        flags: u32,
        now: Wall,
        tools: &mut Tools,
    ) -> io::Result<u64> {
        self.ensure_open(now)?;
        let limit = self.limit_bytes();
        let mut size = self.open.as_ref().map_or(0, |open| open.end);
        let mut is_due = size > 0 && (size >= limit || self.age_due);
        if is_due && (size >= limit.saturating_add(CUT_BYTES) || self.is_at_line_start()?) {
            self.rotate(now)?;
            size = self.open.as_ref().map_or(0, |open| open.end);
            is_due = false;
        }
        let len = if is_due {
            tools.peek.look(pipe, &mut tools.buffer)?;
            let line_end = tools.buffer.iter().position(|byte| *byte == b'\n');
            // An empty peek still splices, which tells the end from a pause.
            line_end.map_or(tools.buffer.len(), |at| at + 1).max(1) as u64
        } else {
            SPLICE_BYTES.min(limit.saturating_sub(size).max(1))
        };
        let open = self.open.as_mut().expect("ensure_open and rotate leave the segment open");
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let bytes = splice_to_file(pipe, &open.file, size, len)? as u64;
        if bytes > 0 {
            open.end = size + bytes;
            open.index.note(size, bytes, now, flags);
        }
        Ok(bytes)
    }

    /// Closes the current segment and begins the next. The order of steps is that of the module.
    fn rotate(&mut self, now: Wall) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        fs::rename(self.place.current(), self.place.closed(open.seq))?;
        self.seq = open.seq;
        self.untidy = true;
        fs::rename(self.place.index(), self.place.closed_index(open.seq)).or_else(|error| {
            if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
        })?;
        self.ensure_open(now)
    }

    /// Writes `text` as a line of its own.
    ///
    /// # Errors
    ///
    /// When it does not fit as a whole; the log then is as it was.
    pub(super) fn write_line(&mut self, text: &str, now: Wall) -> io::Result<()> {
        self.ensure_open(now)?;
        let line =
            if self.is_at_line_start()? { format!("{text}\n") } else { format!("\n{text}\n") };
        let open = self.open.as_mut().expect("ensure_open leaves the segment open");
        if let Err(error) = open.file.write_all_at(line.as_bytes(), open.end) {
            open.file.set_len(open.end)?;
            return Err(error);
        }
        open.index.note(open.end, line.len() as u64, now, 0);
        open.end += line.len() as u64;
        Ok(())
    }

    /// Returns `true` once after closed segments appeared that may need work.
    pub(super) fn take_untidy(&mut self) -> bool {
        std::mem::take(&mut self.untidy)
    }

    /// Takes new limits; they hold from the next byte on.
    pub(super) fn configure(&mut self, logs: &Logs) {
        let compress = logs.compress == Compression::Zstd;
        let was = self.logs.compress == Compression::Zstd;
        self.untidy |= compress != was
            || logs.keep != self.logs.keep
            || logs.max_total_bytes != self.logs.max_total_bytes;
        self.age_due = false;
        self.logs = logs.clone();
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
