//! One segment as a reader sees it: plain or compressed, growing or closed.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use crate::time::Wall;

use super::index::IndexReader;
use super::place::Place;

/// Tries to get a consistent picture while rotations go on.
const TRIES: usize = 32;

enum Source {
    Plain(File),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<File>>>),
}

/// An open segment.
pub(super) struct Segment {
    pub(super) seq: u64,
    source: Source,
    pub(super) index: IndexReader,
    /// Nothing will be added to it any more.
    pub(super) is_closed: bool,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("seq", &self.seq)
            .field("is_closed", &self.is_closed)
            .finish()
    }
}

fn exists(result: io::Result<File>) -> io::Result<Option<File>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

impl Segment {
    /// Opens the oldest segment whose number is at least `wanted`, else the current one.
    ///
    /// Returns `None` when there is none (yet).
    ///
    /// # Errors
    ///
    /// When the directory or the file cannot be read.
    pub(super) fn open(place: &Place, wanted: u64) -> io::Result<Option<Self>> {
        for _ in 0..TRIES {
            let closed = place.segments()?;
            if let Some((seq, _)) = closed.range(wanted..).next() {
                if let Some(segment) = Self::open_closed(place, *seq)? {
                    return Ok(Some(segment));
                }
                continue; // Compressed or pruned since it was listed.
            }
            let seq = place.current_seq(&closed);
            let Some(file) = exists(File::open(place.current()))? else { return Ok(None) };
            let again = place.segments()?;
            if again.last_key_value().map(|(last, _)| *last)
                == closed.last_key_value().map(|(last, _)| *last)
                && place.current_seq(&again) == seq
            {
                let index = IndexReader::open(&place.index(), seq);
                return Ok(Some(Self {
                    seq,
                    source: Source::Plain(file),
                    index,
                    is_closed: false,
                }));
            }
        }
        Ok(None)
    }

    fn open_closed(place: &Place, seq: u64) -> io::Result<Option<Self>> {
        let source = match exists(File::open(place.closed(seq)))? {
            Some(file) => Source::Plain(file),
            None => match exists(File::open(place.compressed(seq)))? {
                Some(file) => Source::Zstd(Box::new(zstd::stream::read::Decoder::new(file)?)),
                None => return Ok(None),
            },
        };
        let index = IndexReader::open(&place.closed_index(seq), seq);
        Ok(Some(Self { seq, source, index, is_closed: true }))
    }

    /// Moves to `offset` from the beginning of a freshly opened segment; past its end, to the end.
    ///
    /// Returns where it came to.
    pub(super) fn skip_to(&mut self, offset: u64) -> io::Result<u64> {
        match &mut self.source {
            Source::Plain(file) => {
                let at = offset.min(file.metadata()?.len());
                file.seek(SeekFrom::Start(at))
            }
            Source::Zstd(decoder) => io::copy(&mut decoder.take(offset), &mut io::sink()),
        }
    }

    /// Reads on; 0 means the end of what is there now.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match &mut self.source {
                Source::Plain(file) => file.read(buffer),
                Source::Zstd(decoder) => decoder.read(buffer),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Returns whether the current segment was moved away since it was opened.
    pub(super) fn was_moved(&self, place: &Place) -> io::Result<bool> {
        let Source::Plain(file) = &self.source else { return Ok(true) };
        let ours = file.metadata()?;
        match fs::metadata(place.current()) {
            Ok(there) => Ok((there.dev(), there.ino()) != (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Returns the size of a plain segment.
    pub(super) fn plain_len(&self) -> io::Result<Option<u64>> {
        match &self.source {
            Source::Plain(file) => Ok(Some(file.metadata()?.len())),
            Source::Zstd(_) => Ok(None),
        }
    }

    /// Returns when the segment was changed last.
    pub(super) fn changed(&self) -> io::Result<Wall> {
        let metadata = match &self.source {
            Source::Plain(file) => file.metadata()?,
            Source::Zstd(decoder) => decoder.get_ref().get_ref().metadata()?,
        };
        Ok(Wall(metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000))
    }
}
