//! Reads a log back, line by line, over all of its segments and while it grows.

use std::fmt;
use std::io::{self, BufRead};
use std::path::Path;
use std::str::FromStr;

use crate::time::Wall;

use super::Channel;
use super::place::Place;
use super::segment::Segment;

const CHUNK_BYTES: usize = 64 * 1024;
/// Longer lines come in pieces of this size.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// A place in a log that stays valid over rotation, compression and the death of the daemon.
///
/// Written as `SEQ:OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// The segment's number.
    pub seq: u64,
    /// Bytes from the segment's beginning.
    pub offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.offset)
    }
}

/// A text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log cursor looks like `3:4096`")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (seq, offset) = text.split_once(':').ok_or(CursorError)?;
        let seq = seq.parse().map_err(|_| CursorError)?;
        let offset = offset.parse().map_err(|_| CursorError)?;
        Ok(Self { seq, offset })
    }
}

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When its first bytes arrived; `None` when the index does not know.
    pub at: Option<Wall>,
    /// Where it begins.
    pub cursor: Cursor,
    pub bytes: Vec<u8>,
}

/// Reads one log. It begins at the oldest line that is kept.
///
/// At most one chunk and one line are in memory.
#[derive(Debug)]
pub struct LogReader {
    place: Place,
    channel: Channel,
    segment: Option<Segment>,
    /// The number of the segment to open when `segment` is `None`.
    wanted: u64,
    /// Bytes that were read and not handed out; `start` is where the first of them is.
    buffer: Vec<u8>,
    /// So many bytes of `buffer` were handed out already.
    used: usize,
    /// So many bytes of `buffer` were searched for a line end.
    searched: usize,
    start: Cursor,
    start_time: Option<Wall>,
    /// Where the next read begins.
    next: Cursor,
    /// The bytes up to the next line end belong to a line that is not wanted.
    skip_line: bool,
}

impl LogReader {
    /// Opens the log whose current segment is `path`; it need not exist yet.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn open(path: &Path, channel: Channel) -> io::Result<Self> {
        let place = Place::new(path);
        place.segments()?;
        Ok(Self {
            place,
            channel,
            segment: None,
            wanted: 0,
            buffer: Vec::new(),
            used: 0,
            searched: 0,
            start: Cursor::default(),
            start_time: None,
            next: Cursor::default(),
            skip_line: false,
        })
    }

    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// Returns where the next line begins.
    pub fn cursor(&self) -> Cursor {
        self.start
    }

    /// Goes on from `cursor`; from the oldest line when that segment is no longer kept.
    ///
    /// # Errors
    ///
    /// When the segment cannot be read.
    pub fn seek(&mut self, cursor: Cursor) -> io::Result<()> {
        self.segment = None;
        self.wanted = cursor.seq;
        self.buffer.clear();
        (self.used, self.searched, self.skip_line) = (0, 0, false);
        self.start = cursor;
        self.next = cursor;
        self.ensure_segment().map(drop)
    }

    /// Goes to the last `lines` complete lines; 0 goes to the end.
    ///
    /// An unfinished last line is not counted, and comes after them.
    ///
    /// # Errors
    ///
    /// When a segment cannot be read.
    pub fn tail(&mut self, lines: u64) -> io::Result<()> {
        let closed = self.place.segments()?;
        let current = self.place.current_seq(&closed);
        let numbers: Vec<u64> = closed.keys().copied().chain([current]).collect();
        let mut missing = lines;
        for seq in numbers.iter().rev() {
            let Some((found, place)) = self.last_lines(*seq, missing)? else { continue };
            if found == missing {
                return self.seek(place);
            }
            missing -= found;
        }
        self.seek(Cursor { seq: numbers.first().copied().unwrap_or(0), offset: 0 })
    }

    /// Counts the lines that end in segment `seq` and finds where the last `wanted` of them begin.
    ///
    /// Two passes in constant memory, as compressed segments cannot be read backwards.
    fn last_lines(&self, seq: u64, wanted: u64) -> io::Result<Option<(u64, Cursor)>> {
        let Some(total) = self.scan(seq, None)? else { return Ok(None) };
        let found = total.lines.min(wanted);
        let start = self.scan(seq, Some(total.lines - found))?;
        Ok(start.map(|start| (found, Cursor { seq, offset: start.offset })))
    }

    /// Counts line ends of segment `seq`, up to the end or until `stop` of them were seen.
    fn scan(&self, seq: u64, stop: Option<u64>) -> io::Result<Option<Scan>> {
        let Some(mut segment) = Segment::open(&self.place, seq)? else { return Ok(None) };
        if segment.seq != seq {
            return Ok(None);
        }
        let mut scan = Scan { lines: 0, offset: 0 };
        if stop == Some(0) {
            return Ok(Some(scan));
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut read_bytes = 0;
        loop {
            let bytes = segment.read(&mut chunk)?;
            if bytes == 0 {
                return Ok(Some(scan));
            }
            let mut rest = &chunk[..bytes];
            while let Some(len) = line_len(rest) {
                rest = &rest[len..];
                scan.lines += 1;
                scan.offset = read_bytes + (bytes - rest.len()) as u64;
                if stop == Some(scan.lines) {
                    return Ok(Some(scan));
                }
            }
            read_bytes += bytes as u64;
        }
    }

    /// Goes to the first line that begins at or after `wall`, as exactly as the index knows.
    ///
    /// # Errors
    ///
    /// When a segment cannot be read.
    pub fn since(&mut self, wall: Wall) -> io::Result<()> {
        let closed = self.place.segments()?;
        let current = self.place.current_seq(&closed);
        for seq in closed.keys().copied().chain([current]) {
            let Some(segment) = Segment::open(&self.place, seq)? else { continue };
            if segment.seq != seq {
                continue;
            }
            let found = segment.index.offset_since(wall);
            match found {
                Some(0) => return self.seek(Cursor { seq, offset: 0 }),
                Some(offset) => {
                    // One byte earlier, to see whether a line begins exactly there.
                    self.seek(Cursor { seq, offset: offset - 1 })?;
                    self.skip_line = true;
                    return Ok(());
                }
                // Without an index the file's own time must do.
                None if segment.index.is_missing() && segment.changed()? >= wall => {
                    return self.seek(Cursor { seq, offset: 0 });
                }
                None => {}
            }
        }
        self.tail(0)
    }

    /// Returns up to `max` complete lines; fewer or none means that there are no more for now.
    ///
    /// # Errors
    ///
    /// When a segment cannot be read; the next call goes on at the same line.
    pub fn next_lines(&mut self, max: usize) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        while lines.len() < max {
            if let Some(line) = self.take_line() {
                lines.extend(line);
            } else if !self.fill()? {
                break;
            }
        }
        Ok(lines)
    }

    /// Returns the unfinished last line, if any; what follows of it is then a line of its own.
    pub fn flush_partial(&mut self) -> Option<LogLine> {
        let rest = self.buffer.len() - self.used;
        (rest > 0 && !self.skip_line).then(|| self.take(rest, rest))
    }

    /// Returns whether an unfinished line waits for its end.
    pub fn has_partial(&self) -> bool {
        self.buffer.len() > self.used
    }

    /// Takes the next line out of the buffer; `Some(None)` is one that was skipped.
    fn take_line(&mut self) -> Option<Option<LogLine>> {
        let unseen = &self.buffer[self.searched..];
        let (text, whole) = if let Some(len) = line_len(unseen) {
            let whole = self.searched + len - self.used;
            (whole - 1, whole)
        } else {
            self.searched = self.buffer.len();
            if self.buffer.len() - self.used < MAX_LINE_BYTES {
                return None;
            }
            (MAX_LINE_BYTES, MAX_LINE_BYTES)
        };
        let ended = whole > text;
        let line = self.take(text.min(MAX_LINE_BYTES), whole);
        if !self.skip_line {
            return Some(Some(line));
        }
        self.skip_line = !ended;
        Some(None)
    }

    fn take(&mut self, text: usize, whole: usize) -> LogLine {
        let bytes = self.buffer[self.used..self.used + text].to_vec();
        let (at, cursor) = (self.start_time, self.start);
        self.used += whole;
        self.searched = self.searched.max(self.used);
        let rest = (self.buffer.len() - self.used) as u64;
        self.start = Cursor { offset: self.next.offset.saturating_sub(rest), ..self.next };
        self.start_time = self.time_of(self.start);
        LogLine { at, cursor, bytes }
    }

    fn time_of(&mut self, cursor: Cursor) -> Option<Wall> {
        let segment = self.segment.as_mut().filter(|segment| segment.seq == cursor.seq)?;
        segment.index.time_at(cursor.offset)
    }

    fn ensure_segment(&mut self) -> io::Result<bool> {
        if self.segment.is_some() {
            return Ok(true);
        }
        let Some(mut segment) = Segment::open(&self.place, self.wanted)? else { return Ok(false) };
        let is_same = segment.seq == self.next.seq;
        let offset = if is_same { segment.skip_to(self.next.offset)? } else { 0 };
        self.next = Cursor { seq: segment.seq, offset };
        self.wanted = segment.seq;
        self.segment = Some(segment);
        if !self.has_partial() {
            self.start = self.next;
        }
        Ok(true)
    }

    /// Reads one chunk; `false` means that there is nothing more for now.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.used);
        self.searched -= self.used;
        self.used = 0;
        loop {
            if !self.ensure_segment()? {
                return Ok(false);
            }
            let Some(segment) = &mut self.segment else { return Ok(false) };
            let old = self.buffer.len();
            self.buffer.resize(old + CHUNK_BYTES, 0);
            let result = segment.read(&mut self.buffer[old..]);
            let bytes = *result.as_ref().unwrap_or(&0);
            self.buffer.truncate(old + bytes);
            result?;
            if bytes > 0 {
                self.next.offset += bytes as u64;
                if old == 0 || self.start_time.is_none() {
                    self.start_time = self.time_of(self.start);
                }
                return Ok(true);
            }
            if !self.advance()? {
                return Ok(false);
            }
        }
    }

    /// Decides at the end of a segment; `true` means that there may be more to read.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(segment) = &mut self.segment else { return Ok(false) };
        if segment.is_closed {
            self.wanted = segment.seq + 1;
            self.next = Cursor { seq: self.wanted, offset: 0 };
            self.segment = None;
            return Ok(true);
        }
        if segment.was_moved(&self.place)? {
            // Nothing is written to it any more, but something may have been since our last read.
            segment.is_closed = true;
            return Ok(true);
        }
        if segment.plain_len()?.is_some_and(|len| len < self.next.offset) {
            // Truncated from outside: what is there now is new.
            segment.skip_to(0)?;
            segment.index = super::index::IndexReader::open(&self.place.index(), segment.seq);
            self.next.offset = 0;
            self.buffer.clear();
            (self.used, self.searched) = (0, 0);
            self.start = self.next;
            return Ok(true);
        }
        Ok(false)
    }
}

struct Scan {
    lines: u64,
    /// Where the line after the last line end begins.
    offset: u64,
}

/// Returns the length of the first line, its end included.
fn line_len(mut bytes: &[u8]) -> Option<usize> {
    let all = bytes;
    let len = bytes.skip_until(b'\n').expect("reading from memory does not fail");
    (len > 0 && all[len - 1] == b'\n').then_some(len)
}
