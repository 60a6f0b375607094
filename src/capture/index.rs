//! The index beside a segment: which bytes arrived when, and from which stream.
//!
//! Entries have 24 bytes, little-endian: offset (u64), wall clock in milliseconds (u64), length
//! (u32), flags (u32). The first one is a header that holds the segment's number instead of an
//! offset. An entry is written after its bytes, so a crash loses times and never text; a torn
//! last entry is overwritten by the next one, and ignored until then. The length of the last
//! entry may be too small; bytes that no entry covers belong to the entry before them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::place::open_or_create;
use crate::time::Wall;

const ENTRY_BYTES: u64 = 24;
/// Bytes of standard error; clear means standard output or both merged.
pub(super) const FLAG_STDERR: u32 = 1;
/// The entry is the header.
const FLAG_HEADER: u32 = 1 << 31;
/// Chunks of one stream that follow each other this fast share an entry, in milliseconds.
const MERGE_MILLIS: i64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) wall: Wall,
    pub(super) len: u32,
    pub(super) flags: u32,
}

impl Entry {
    fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.wall.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_le_bytes());
        bytes[20..].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; 24]) -> Self {
        let [o0, o1, o2, o3, o4, o5, o6, o7, w0, w1, w2, w3, w4, w5, w6, w7, rest @ ..] = bytes;
        let [l0, l1, l2, l3, f0, f1, f2, f3] = rest;
        Self {
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            wall: Wall(i64::from_le_bytes([w0, w1, w2, w3, w4, w5, w6, w7])),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u32::from_le_bytes([f0, f1, f2, f3]),
        }
    }
}

fn entry_at(file: &File, number: u64) -> io::Result<Option<Entry>> {
    let mut bytes = [0; 24];
    match file.read_exact_at(&mut bytes, number * ENTRY_BYTES) {
        Ok(()) => Ok(Some(Entry::decode(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the segment number in the header of the index at `path`.
pub(super) fn header_seq(path: &Path) -> Option<u64> {
    let header = entry_at(&File::open(path).ok()?, 0).ok()??;
    (header.flags & FLAG_HEADER != 0).then_some(header.offset)
}

/// Appends to the index of the current segment. Failures lose times only, so they are silent.
#[derive(Debug)]
pub(super) struct IndexWriter {
    file: File,
    /// How many entries there are, the header included.
    entries: u64,
    last: Option<Entry>,
    first: Option<Wall>,
}

impl IndexWriter {
    /// Opens the index of segment `seq`, whose text has `size` bytes; makes it when it is missing
    /// or belongs to another segment.
    pub(super) fn open(path: &Path, seq: u64, size: u64, now: Wall) -> io::Result<Self> {
        let file = open_or_create(path)?;
        let mut index = Self { file, entries: 0, last: None, first: None };
        let fits = entry_at(&index.file, 0)?
            .is_some_and(|header| header.flags & FLAG_HEADER != 0 && header.offset == seq);
        index.entries = index.file.metadata()?.len() / ENTRY_BYTES;
        if fits && index.entries > 1 {
            index.first = entry_at(&index.file, 1)?.map(|entry| entry.wall);
            index.last = entry_at(&index.file, index.entries - 1)?;
        }
        let beyond = index.last.is_some_and(|last| last.offset >= size);
        if !fits || beyond {
            index.start(seq, now)?;
        }
        Ok(index)
    }

    /// Empties the index and writes its header.
    pub(super) fn start(&mut self, seq: u64, now: Wall) -> io::Result<()> {
        // ext4 writes a file that was truncated to nothing to the disk when it is closed
        // (`auto_da_alloc`, ext4(5)), even if there was nothing in it: the end of a daemon with
        // many new logs would wait for that.
        if self.file.metadata()?.len() > 0 {
            self.file.set_len(0)?;
        }
        let header = Entry { offset: seq, wall: now, len: 0, flags: FLAG_HEADER };
        self.file.write_all_at(&header.encode(), 0)?;
        (self.entries, self.last, self.first) = (1, None, None);
        Ok(())
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns when the segment's first bytes arrived.
    pub(super) fn first(&self) -> Option<Wall> {
        self.first
    }

    /// Notes that `len` bytes arrived at `offset`.
    pub(super) fn note(&mut self, offset: u64, len: u64, wall: Wall, flags: u32) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.first.get_or_insert(wall);
        let merged = self.last.and_then(|last| {
            let joins = last.offset + u64::from(last.len) == offset && last.flags == flags;
            let soon = (0..=MERGE_MILLIS).contains(&(wall.0 - last.wall.0));
            let len = last.len.checked_add(len)?;
            (joins && soon).then_some(Entry { len, ..last })
        });
        if let Some(merged) = merged {
            // Written together with the next one: until then the entry is short, not wrong.
            self.last = Some(merged);
            return;
        }
        let entry = Entry { offset, wall, len, flags };
        let mut bytes = [0; 48];
        bytes[24..].copy_from_slice(&entry.encode());
        let written = match self.last {
            Some(last) => {
                bytes[..24].copy_from_slice(&last.encode());
                self.file.write_all_at(&bytes, (self.entries - 1) * ENTRY_BYTES)
            }
            None => self.file.write_all_at(&bytes[24..], self.entries * ENTRY_BYTES),
        };
        if written.is_ok() {
            self.entries += 1;
            self.last = Some(entry);
        }
    }
}

/// Answers questions about one segment's index, which may be growing or missing.
#[derive(Debug, Default)]
pub(super) struct IndexReader {
    file: Option<File>,
    /// The entry found last and the offset at which the next one begins.
    cached: Option<(Entry, Option<u64>)>,
}

impl IndexReader {
    /// Opens the index of segment `seq`; one that is missing or of another segment knows nothing.
    pub(super) fn open(path: &Path, seq: u64) -> Self {
        let file = (header_seq(path) == Some(seq)).then(|| File::open(path).ok()).flatten();
        Self { file, cached: None }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.file.is_none()
    }

    /// Returns the number of the first entry for which `before` is false.
    fn partition(file: &File, before: impl Fn(Entry) -> bool) -> io::Result<u64> {
        let (mut low, mut high) = (1, (file.metadata()?.len() / ENTRY_BYTES).max(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match entry_at(file, middle)? {
                Some(entry) if before(entry) => low = middle + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    /// Returns when the byte at `offset` arrived.
    pub(super) fn time_at(&mut self, offset: u64) -> Option<Wall> {
        let file = self.file.as_ref()?;
        if let Some((entry, next)) = self.cached
            && offset >= entry.offset
            && next.map_or(offset < entry.offset + u64::from(entry.len), |next| offset < next)
        {
            return Some(entry.wall);
        }
        let after = Self::partition(file, |entry| entry.offset <= offset).ok()?;
        if after == 1 {
            return None;
        }
        let entry = entry_at(file, after - 1).ok()??;
        let next = entry_at(file, after).ok()?.map(|next| next.offset);
        self.cached = Some((entry, next));
        Some(entry.wall)
    }

    /// Returns the offset of the first bytes that arrived at or after `wall`; `None` when there
    /// are none.
    pub(super) fn offset_since(&self, wall: Wall) -> Option<u64> {
        let file = self.file.as_ref()?;
        let number = Self::partition(file, |entry| entry.wall < wall).ok()?;
        entry_at(file, number).ok()?.map(|entry| entry.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_entry_is_ignored_and_then_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.idx");
        let mut writer = IndexWriter::open(&path, 3, 0, Wall(1)).unwrap();
        writer.note(0, 10, Wall(100), 0);
        writer.file.write_all_at(&[7; 11], 48).unwrap();
        assert_eq!(IndexReader::open(&path, 3).time_at(15), Some(Wall(100)));
        let mut writer = IndexWriter::open(&path, 3, 10, Wall(2)).unwrap();
        writer.note(10, 5, Wall(200), 0);
        let mut reader = IndexReader::open(&path, 3);
        assert_eq!((reader.time_at(9), reader.time_at(10)), (Some(Wall(100)), Some(Wall(200))));
        assert_eq!(reader.offset_since(Wall(101)), Some(10));
        assert_eq!(reader.offset_since(Wall(201)), None);
    }

    #[test]
    fn the_index_of_another_segment_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.idx");
        IndexWriter::open(&path, 3, 0, Wall(1)).unwrap().note(0, 10, Wall(100), 0);
        assert!(IndexReader::open(&path, 4).is_missing());
        let writer = IndexWriter::open(&path, 4, 10, Wall(1)).unwrap();
        assert_eq!((writer.entries, writer.first()), (1, None));
    }
}
