//! One value in a file of two slots: a write goes to the older slot, in place, so that a torn
//! one always leaves the other, and a full file system cannot refuse it.
//!
//! Each slot has a header (magic, format version, sequence number, length, checksum) and the
//! body. Reading picks the newest valid slot and says what was wrong with the other. A file of
//! a newer format, or one that somebody else could have written, is moved aside, never used
//! and never overwritten.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::Note;

const MAGIC: &[u8; 8] = b"MENDSLOT";
/// Magic 8, version 4, length 4, sequence number 8, checksum 4, unused 4.
const HEADER_BYTES: usize = 32;

/// Whether a write has to survive a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `fdatasync` after each write; for the state directory.
    Synced,
    /// Survives every process, not the machine; for tmpfs.
    Volatile,
}

/// The value that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub body: Vec<u8>,
    pub sequence: u64,
    /// The format version it was written with, at most the one asked for.
    pub version: u32,
}

/// A slot file, open for writing as far as the file system lets it.
#[derive(Debug)]
pub struct Slots {
    path: PathBuf,
    version: u32,
    slot_bytes: usize,
    durability: Durability,
    file: Option<File>,
    sequence: u64,
    /// The slot that the next write goes to.
    next: usize,
    /// The file is not ours to write and could not be moved aside.
    refused: bool,
}

/// What one slot holds.
#[derive(Debug)]
enum Slot {
    Empty,
    Valid(Loaded),
    Future(u32),
    Damaged(&'static str),
}

impl Slots {
    /// Reads the file, or makes it with two slots of `slot_bytes` each (header of 32 included).
    ///
    /// Never fails: trouble is in the notes, and [`Slots::write`] tries again.
    pub fn open(
        path: &Path,
        version: u32,
        slot_bytes: usize,
        durability: Durability,
    ) -> (Self, Option<Loaded>, Vec<Note>) {
        let mut slots = Self {
            path: path.to_path_buf(),
            version,
            slot_bytes: slot_bytes.max(HEADER_BYTES * 2),
            durability,
            file: None,
            sequence: 0,
            next: 0,
            refused: false,
        };
        let mut notes = Vec::new();
        let loaded = match File::open(path) {
            Ok(file) => slots.load(&file, &mut notes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                notes.push(Note::new(path, format!("it cannot be read: {error}")));
                None
            }
        };
        if let Err(error) = slots.ready(0) {
            notes.push(Note::new(path, format!("changes are kept in memory only: {error}")));
        }
        (slots, loaded, notes)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the next write finds an open file.
    pub fn is_writable(&self) -> bool {
        self.file.is_some()
    }

    fn load(&mut self, file: &File, notes: &mut Vec<Note>) -> Option<Loaded> {
        let read = file.metadata().and_then(|about| Ok((about, fs::read(&self.path)?)));
        let (about, bytes) = match read {
            Ok(read) => read,
            Err(error) => {
                notes.push(Note::new(&self.path, format!("it cannot be read: {error}")));
                return None;
            }
        };
        let own = nix::unistd::geteuid().as_raw();
        if (about.uid() != own && about.uid() != 0) || about.mode() & 0o022 != 0 {
            let why =
                format!("uid {} and mode {:o} are not safe", about.uid(), about.mode() & 0o777);
            self.move_aside("untrusted", &why, notes);
            return None;
        }
        if bytes.is_empty() {
            return None;
        }
        // A truncated file still has its first slot where it was written.
        let size =
            if bytes.len() >= self.slot_bytes * 2 { bytes.len() / 2 } else { self.slot_bytes };
        let found =
            [0, size].map(|at| parse(bytes.get(at..).unwrap_or_default(), size, self.version));
        if let Some(version) = found.iter().find_map(|slot| match slot {
            Slot::Future(version) => Some(*version),
            Slot::Empty | Slot::Valid(_) | Slot::Damaged(_) => None,
        }) {
            let why = format!("format {version} is newer than {}", self.version);
            self.move_aside("future", &why, notes);
        } else if bytes.len() >= size * 2 {
            self.slot_bytes = size;
        }
        self.choose(found, notes)
    }

    /// Picks the newest valid slot and plans the next write to the other one.
    fn choose(&mut self, found: [Slot; 2], notes: &mut Vec<Note>) -> Option<Loaded> {
        let mut best: Option<(usize, Loaded)> = None;
        let mut damage = None;
        for (index, slot) in found.into_iter().enumerate() {
            match slot {
                Slot::Valid(loaded) => {
                    if best.as_ref().is_none_or(|(_, best)| loaded.sequence > best.sequence) {
                        best = Some((index, loaded));
                    }
                }
                Slot::Damaged(what) => damage = Some((index, what)),
                Slot::Empty | Slot::Future(_) => {}
            }
        }
        if let Some((index, what)) = damage {
            let used = match &best {
                Some((_, loaded)) => format!("number {} in the other one is used", loaded.sequence),
                None => "nothing older is left".to_owned(),
            };
            notes.push(Note::new(&self.path, format!("slot {index} is damaged ({what}); {used}")));
        }
        let (index, loaded) = best?;
        (self.next, self.sequence) = (1 - index, loaded.sequence);
        Some(loaded)
    }

    fn move_aside(&mut self, suffix: &str, why: &str, notes: &mut Vec<Note>) {
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".{suffix}"));
        let text = match fs::rename(&self.path, &aside) {
            Ok(()) => format!("{why}; moved to `{}`", Path::new(&aside).display()),
            Err(error) => {
                self.refused = true;
                format!("{why}; it is not used, and cannot be moved: {error}")
            }
        };
        notes.push(Note::new(&self.path, text));
    }

    /// Writes the value over the older slot; the newer one stays until this one is whole.
    ///
    /// A value that no longer fits goes to a new, larger file that replaces this one.
    ///
    /// # Errors
    ///
    /// When it could not be written. The value before it is still on disk, the caller keeps
    /// the new one in memory and calls again with the next change.
    pub fn write(&mut self, body: &[u8]) -> io::Result<()> {
        self.ready(body.len())?;
        let sequence = self.sequence + 1;
        let bytes = encode(self.version, sequence, body)?;
        let file = self.file.as_ref().expect("`ready` has opened it");
        let written = file
            .write_all_at(&bytes, (self.next * self.slot_bytes) as u64)
            .and_then(|()| self.sync(file));
        match written {
            Ok(()) => (self.sequence, self.next) = (sequence, 1 - self.next),
            Err(_) => self.file = None,
        }
        written
    }

    /// Makes sure that a file is open whose slots hold a body of this length.
    fn ready(&mut self, body_bytes: usize) -> io::Result<()> {
        if self.refused {
            let text = "the file there is not ours to overwrite: move it away and restart";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let needed = HEADER_BYTES + body_bytes;
        if needed <= self.slot_bytes {
            if self.file.is_some() {
                return Ok(());
            }
            match File::options().read(true).write(true).open(&self.path) {
                Ok(file) if file.metadata()?.len() >= self.slot_bytes as u64 * 2 => {
                    self.file = Some(file);
                    return Ok(());
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {} // Missing, or truncated: made anew.
            }
        }
        let slot_bytes = if needed > self.slot_bytes { needed * 2 } else { self.slot_bytes };
        self.rebuild(slot_bytes)
    }

    /// Makes a new file with the old newest value in it and puts it in the old one's place.
    fn rebuild(&mut self, slot_bytes: usize) -> io::Result<()> {
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let made = self.build(&temporary, slot_bytes);
        match made.and_then(|file| fs::rename(&temporary, &self.path).map(|()| file)) {
            Ok(file) => {
                if self.durability == Durability::Synced
                    && let Some(parent) = self.path.parent()
                {
                    File::open(parent)?.sync_all()?;
                }
                (self.file, self.slot_bytes, self.next) = (Some(file), slot_bytes, 1);
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&temporary); // A full disk leaves an empty one behind.
                Err(error)
            }
        }
    }

    fn build(&self, temporary: &Path, slot_bytes: usize) -> io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(temporary)?;
        let length = i64::try_from(slot_bytes * 2).map_err(|_| io::ErrorKind::FileTooLarge)?;
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => {
                file.write_all_at(&vec![0; slot_bytes * 2], 0)?;
            }
            done => done?,
        }
        if let Some(old) = self.newest() {
            file.write_all_at(&encode(old.version, old.sequence, &old.body)?, 0)?;
        }
        self.sync(&file)?;
        Ok(file)
    }

    /// The newest value on disk, as a rebuild carries it over.
    fn newest(&self) -> Option<Loaded> {
        let bytes = fs::read(&self.path).ok()?;
        let slots = [0, self.slot_bytes]
            .map(|at| parse(bytes.get(at..).unwrap_or_default(), self.slot_bytes, self.version));
        let valid = slots.into_iter().filter_map(|slot| match slot {
            Slot::Valid(loaded) => Some(loaded),
            Slot::Empty | Slot::Future(_) | Slot::Damaged(_) => None,
        });
        valid.max_by_key(|loaded| loaded.sequence)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        match self.durability {
            Durability::Synced => file.sync_data(),
            Durability::Volatile => Ok(()),
        }
    }
}

fn encode(version: u32, sequence: u64, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    let checksum = checksum(&bytes, body);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(body);
    Ok(bytes)
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

fn parse(bytes: &[u8], slot_bytes: usize, version: u32) -> Slot {
    let bytes = &bytes[..bytes.len().min(slot_bytes)];
    if bytes.len() < HEADER_BYTES {
        return Slot::Damaged("truncated");
    }
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    if bytes[..HEADER_BYTES].iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    if !bytes.starts_with(MAGIC) {
        return Slot::Damaged("not a slot");
    }
    let end = HEADER_BYTES.saturating_add(word(12) as usize);
    let Some(body) = bytes.get(HEADER_BYTES..end) else { return Slot::Damaged("truncated") };
    if checksum(&bytes[..24], body) != word(24) {
        return Slot::Damaged("torn or changed");
    }
    // Every format keeps this header, so a newer one is known from a damaged one.
    if word(8) > version {
        return Slot::Future(word(8));
    }
    let sequence = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
    Slot::Valid(Loaded { body: body.to_vec(), sequence, version: word(8) })
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
