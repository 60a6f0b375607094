//! The decision journal: what the core knows, by key, so that the next daemon knows it too.
//!
//! It lives on tmpfs and is never synced: it outlives every process, not the machine. Each
//! change is one `write` of a framed, checksummed record behind the last; the newest record of
//! a key wins. When the file has grown too large, a snapshot goes to the other of two files,
//! whose header is written last. Space is reserved ahead, so that a full file system is met,
//! and said, before it matters; a change that could not be written is part of the next snapshot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::Note;

const MAGIC: &[u8; 8] = b"MENDJRNL";
const VERSION: u32 = 1;
/// Magic, version, generation, checksum of those.
const HEADER_BYTES: usize = 24;
/// Length and checksum before each payload.
const FRAME_BYTES: usize = 8;
/// A snapshot is due at this size, or at four times what is alive.
const COMPACT_BYTES: usize = 1 << 20;
/// Space is reserved in steps of this size.
const RESERVE_BYTES: usize = 256 << 10;

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// What is known, by key.
pub type State = BTreeMap<String, Vec<u8>>;

/// The journal, open for changes.
#[derive(Debug)]
pub struct Journal {
    paths: [PathBuf; 2],
    current: usize,
    file: Option<File>,
    generation: u64,
    /// Where the next record goes.
    end: usize,
    reserved: usize,
    live: State,
    live_bytes: usize,
}

/// One file as it was read.
struct Replayed {
    generation: u64,
    state: State,
    /// Where the valid part ends.
    end: usize,
    /// Something that is not nothing comes after the valid part.
    torn: bool,
}

impl Journal {
    /// Reads what an earlier daemon wrote and goes on after it. Never fails: what cannot be
    /// read or written is in the notes, and the journal then works from memory.
    pub fn open(directory: &Path) -> (Self, State, Vec<Note>) {
        let paths = [0, 1].map(|number| directory.join(format!("journal.{number}")));
        let mut notes = Vec::new();
        let read = [0, 1].map(|number| replay_file(&paths[number], &mut notes));
        let generation = |number: usize| read[number].as_ref().map_or(0, |file| file.generation);
        let current = usize::from(generation(1) > generation(0));
        let generation = generation(current);
        let [first, second] = read;
        let chosen = if current == 0 { first } else { second };
        let (state, end, torn) =
            chosen.map_or((State::new(), 0, true), |file| (file.state, file.end, file.torn));
        let mut journal = Self {
            current,
            file: None,
            generation,
            end,
            reserved: end,
            live_bytes: state.iter().map(|(key, body)| record_bytes(key, body)).sum(),
            live: state.clone(),
            paths,
        };
        if generation > 0 && torn {
            let text = "its torn or damaged end was dropped; the changes before it are in use";
            notes.push(Note::new(&journal.paths[current], text));
        }
        // After damage a fresh file, so that no stale bytes follow what is written next.
        let opened = if torn { journal.compact() } else { journal.reopen() };
        if let Err(error) = opened {
            let text = format!("decisions are kept in memory only: {error}");
            notes.push(Note::new(&journal.paths[journal.current], text));
        }
        (journal, state, notes)
    }

    /// Sets a key.
    ///
    /// # Errors
    ///
    /// When it could not be written: it is then kept in memory and tried again with the next
    /// change. A key of more than 65,535 bytes is [`io::ErrorKind::InvalidInput`].
    pub fn put(&mut self, key: &str, body: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.live.get(key).is_some_and(|kept| kept == body) {
            // A brain that takes over decides most things as they are written here already.
            return Ok(());
        }
        let payload = payload(PUT, key, body)?;
        let added = record_bytes(key, body);
        let before = self.live.insert(key.to_owned(), body.to_vec());
        self.live_bytes += added;
        self.live_bytes -= before.map_or(0, |body| record_bytes(key, &body));
        self.append(&payload)
    }

    /// Removes a key; one that is not there costs nothing.
    ///
    /// # Errors
    ///
    /// As for [`Journal::put`].
    pub fn delete(&mut self, key: &str) -> io::Result<()> {
        let Some(body) = self.live.remove(key) else { return Ok(()) };
        self.live_bytes -= record_bytes(key, &body);
        self.append(&payload(DELETE, key, &[])?)
    }

    fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let bytes = FRAME_BYTES + payload.len();
        let bound = COMPACT_BYTES.max(self.live_bytes.saturating_mul(4));
        if self.file.is_none() || self.end + bytes > bound {
            return self.compact(); // The change is in `live` already.
        }
        let written = self.reserve(bytes).and_then(|()| {
            let record = frame(self.generation, self.end, payload);
            let file = self.file.as_ref().expect("it was seen above");
            file.write_all_at(&record, self.end as u64)
        });
        match written {
            Ok(()) => self.end += bytes,
            // Part of a record may be there: only a fresh file is safe to go on with.
            Err(_) => self.file = None,
        }
        written
    }

    /// Makes sure that `bytes` more can be written without asking for space.
    fn reserve(&mut self, bytes: usize) -> io::Result<()> {
        if self.end + bytes > self.reserved {
            let more = RESERVE_BYTES.max(bytes);
            let file = self.file.as_ref().expect("reserve is called with an open file");
            allocate(file, self.end, more)?;
            self.reserved = self.end + more;
        }
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(options().open(&self.paths[self.current])?);
        self.reserved = self.end;
        self.reserve(1)
    }

    /// Writes all that is alive to the other file and goes on there.
    fn compact(&mut self) -> io::Result<()> {
        let (other, generation) = (1 - self.current, self.generation + 1);
        let file = options().open(&self.paths[other])?;
        file.set_len(0)?;
        let mut bytes = vec![0; HEADER_BYTES];
        for (key, body) in &self.live {
            let record = frame(generation, bytes.len(), &payload(PUT, key, body)?);
            bytes.extend_from_slice(&record);
        }
        allocate(&file, 0, bytes.len() + RESERVE_BYTES)?;
        file.write_all_at(&bytes[HEADER_BYTES..], HEADER_BYTES as u64)?;
        file.write_all_at(&header(generation), 0)?;
        if let Ok(old) = File::options().write(true).open(&self.paths[self.current]) {
            let _ = old.set_len(0); // Only gives memory back; the higher generation wins.
        }
        (self.current, self.generation, self.file) = (other, generation, Some(file));
        (self.end, self.reserved) = (bytes.len(), bytes.len() + RESERVE_BYTES);
        Ok(())
    }
}

fn options() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn allocate(file: &File, offset: usize, bytes: usize) -> io::Result<()> {
    let number =
        |n: usize| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    match fallocate(file, FallocateFlags::empty(), number(offset)?, number(bytes)?) {
        // Without the call, a full file system is met by the write itself.
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => Ok(()),
        done => Ok(done?),
    }
}

fn record_bytes(key: &str, body: &[u8]) -> usize {
    FRAME_BYTES + 3 + key.len() + body.len()
}

fn payload(operation: u8, key: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(key.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    u32::try_from(3 + key.len() + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut payload = vec![operation];
    payload.extend_from_slice(&length.to_le_bytes());
    payload.extend_from_slice(key.as_bytes());
    payload.extend_from_slice(body);
    Ok(payload)
}

/// The checksum covers place and generation, so that a stale record is never taken for new.
fn checksum(generation: u64, offset: usize, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&(offset as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn frame(generation: u64, offset: usize, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("`payload` has checked the length");
    let mut record = length.to_le_bytes().to_vec();
    record.extend_from_slice(&checksum(generation, offset, payload).to_le_bytes());
    record.extend_from_slice(payload);
    record
}

fn header(generation: u64) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&generation.to_le_bytes());
    let checksum = crc32fast::hash(&header);
    header.extend_from_slice(&checksum.to_le_bytes());
    header
}

fn replay_file(path: &Path, notes: &mut Vec<Note>) -> Option<Replayed> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(0) => return None,
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            notes.push(Note::new(path, format!("it cannot be read: {error}")));
            return None;
        }
    }
    let replayed = replay(&bytes);
    if replayed.is_none() && bytes.iter().take(HEADER_BYTES).any(|byte| *byte != 0) {
        if bytes
            .get(8..12)
            .is_some_and(|v| bytes.starts_with(MAGIC) && v > &VERSION.to_le_bytes()[..])
        {
            let aside = path.with_extension("future");
            let moved = std::fs::rename(path, &aside);
            let text = match moved {
                Ok(()) => format!("a newer version wrote it; moved to `{}`", aside.display()),
                Err(error) => format!("a newer version wrote it; it cannot be moved: {error}"),
            };
            notes.push(Note::new(path, text));
        } else {
            notes.push(Note::new(path, "its header is damaged; the other file is used"));
        }
    }
    replayed
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

/// Reads a file's bytes; `None` without a valid header.
fn replay(bytes: &[u8]) -> Option<Replayed> {
    let head = bytes.get(..HEADER_BYTES)?;
    let generation = u64::from_le_bytes(head.get(12..20)?.try_into().ok()?);
    if head != header(generation) {
        return None;
    }
    let mut state = State::new();
    let mut end = HEADER_BYTES;
    while let Some(next) = replay_record(bytes, generation, end, &mut state) {
        end = next;
    }
    let torn = bytes[end..].iter().any(|byte| *byte != 0);
    Some(Replayed { generation, state, end, torn })
}

/// Applies the record at `at`; returns where the next one is.
fn replay_record(bytes: &[u8], generation: u64, at: usize, state: &mut State) -> Option<usize> {
    let length = usize::try_from(number(bytes, at)?).ok()?;
    let start = at + FRAME_BYTES;
    let payload = bytes.get(start..start.checked_add(length)?)?;
    if number(bytes, at + 4)? != checksum(generation, at, payload) {
        return None;
    }
    let key_bytes = usize::from(u16::from_le_bytes(payload.get(1..3)?.try_into().ok()?));
    let key = std::str::from_utf8(payload.get(3..3 + key_bytes)?).ok()?;
    match *payload.first()? {
        PUT => drop(state.insert(key.to_owned(), payload[3 + key_bytes..].to_vec())),
        DELETE => drop(state.remove(key)),
        _ => return None,
    }
    Some(start + length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(directory: &Path, changes: &[(u8, Option<Vec<u8>>)]) -> Vec<State> {
        let (mut journal, mut state, _) = Journal::open(directory);
        let mut states = vec![state.clone()];
        for (key, body) in changes {
            let key = format!("key{key}");
            match body {
                Some(body) => {
                    journal.put(&key, body).unwrap();
                    state.insert(key, body.clone());
                }
                None => {
                    journal.delete(&key).unwrap();
                    state.remove(&key);
                }
            }
            states.push(state.clone());
        }
        states
    }

    fn current(directory: &Path) -> PathBuf {
        let paths = [0, 1].map(|n| directory.join(format!("journal.{n}")));
        let full = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
        paths.into_iter().find(full).unwrap()
    }

    #[test]
    fn the_newest_record_of_a_key_wins_after_a_restart_and_deletes_hold() {
        let place = tempfile::tempdir().unwrap();
        let changes = [(1, Some(b"a".to_vec())), (2, Some(vec![])), (1, Some(b"b".to_vec()))];
        let states = written(place.path(), &changes);
        let (mut journal, state, notes) = Journal::open(place.path());
        assert_eq!((Some(&state), notes.len()), (states.last(), 0));
        journal.delete("key1").unwrap();
        journal.delete("key1").unwrap();
        let (_, state, notes) = Journal::open(place.path());
        assert_eq!((state.len(), notes.len()), (1, 0));
    }

    #[test]
    fn a_journal_of_many_changes_stays_small() {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, _, _) = Journal::open(place.path());
        for round in 0..3_000_u32 {
            journal
                .put("web:0", &[round.to_le_bytes().repeat(100), vec![1; 600]].concat())
                .unwrap();
        }
        let total: u64 =
            journal.paths.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
        assert!(total <= (COMPACT_BYTES + RESERVE_BYTES) as u64, "{total} bytes");
        let (_, state, notes) = Journal::open(place.path());
        assert_eq!((&state, notes.len()), (&journal.live, 0));
    }

    #[test]
    fn without_a_place_it_works_from_memory_and_catches_up() {
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("missing");
        let (mut journal, _, notes) = Journal::open(&missing);
        assert_eq!(notes.len(), 1);
        journal.put("a", b"1").unwrap_err();
        std::fs::create_dir(&missing).unwrap();
        journal.put("b", b"2").unwrap();
        assert_eq!(Journal::open(&missing).1.len(), 2);
    }

    #[test]
    fn a_file_of_a_newer_version_is_moved_aside() {
        let place = tempfile::tempdir().unwrap();
        written(place.path(), &[(1, Some(b"a".to_vec()))]);
        let path = current(place.path());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8] = 9;
        std::fs::write(&path, bytes).unwrap();
        let (_, state, notes) = Journal::open(place.path());
        assert_eq!((state.len(), notes.len()), (0, 1));
        assert!(path.with_extension("future").exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_damage_leaves_a_state_that_was_true_once(
            changes in prop::collection::vec(
                (0_u8..4, prop::option::of(prop::collection::vec(any::<u8>(), 0..40))), 0..30),
            truncate in any::<bool>(),
            at in 0_usize..2_000,
            bit in 0_u32..8,
        ) {
            let place = tempfile::tempdir().unwrap();
            let states = written(place.path(), &changes);
            let path = current(place.path());
            let mut bytes = std::fs::read(&path).unwrap();
            if truncate { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            std::fs::write(&path, bytes).unwrap();
            let (mut journal, state, _) = Journal::open(place.path());
            prop_assert!(states.contains(&state) || state.is_empty());
            journal.put("after", b"x").unwrap();
            let (_, again, _) = Journal::open(place.path());
            prop_assert_eq!(again, journal.live);
        }
    }
}
