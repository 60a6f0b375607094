//! Opening `mend.db`: made when it is missing, brought to this version when it is older, left
//! alone when it is newer, moved aside when it is damaged.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::fault::Fault;
use super::schema;
use crate::time::Wall;

/// How long a write waits for another process that is reading or writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an old file may be looked through before it is used; what is not found by then shows
/// itself when it is touched.
const LOOK_TIME: Duration = Duration::from_millis(250);

/// Steps of SQLite's machine between two looks at the clock.
const LOOK_STEPS: i32 = 5_000;

/// Damaged files that are kept for whoever wants to save what is in them.
const KEPT_ASIDE: usize = 3;

/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// `MEND` in the header, so that `file` and people can tell whose it is.
const APPLICATION_ID: i32 = 0x4d45_4e44;

/// Device and inode: tells a file from another one of its name.
pub(super) type Identity = (u64, u64);

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) connection: Connection,
    identity: Identity,
}

/// Something that was done about the file and should be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Nothing is lost.
    Info(String),
    /// Something is.
    Warning(String),
}

impl OpenFile {
    /// Opens the file, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`Fault::Damaged`] for what [`set_aside`] should be called with.
    pub(super) fn open(path: &Path, words: &mut Vec<Word>) -> Result<Self, Fault> {
        let is_new = prepare(path)?;
        if !is_new {
            look_at_header(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let version = schema::version(&connection)?;
        if version > schema::STEPS.len() {
            return Err(Fault::Newer(version));
        }
        if !is_ours(&connection, version)? {
            return Err(Fault::Damaged("it is a database of something else".to_owned()));
        }
        if version == 0 {
            // Nothing that can be decided later, and written each time that it is said.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        set_up(&connection)?;
        if version == 0 {
            connection.pragma_update(None, "application_id", APPLICATION_ID)?;
            schema::migrate(&mut connection, 0, schema::STEPS)?;
        } else {
            renew(&mut connection, path, version, schema::STEPS, words)?;
        }
        Ok(Self { connection, identity: identity(path)? })
    }

    /// Opens a file that cannot be changed, to read what is in it.
    pub(super) fn open_unchanging(path: &Path) -> Result<Connection, Fault> {
        look_at_header(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let mut name = String::from("file:");
        for byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'/' | b'.' | b'-' | b'_' => name.push(char::from(*byte)),
                byte if byte.is_ascii_alphanumeric() => name.push(char::from(*byte)),
                byte => name.push_str(&format!("%{byte:02x}")),
            }
        }
        // As it is by definition: where nothing can be written, no lock can be had either.
        name.push_str("?immutable=1");
        let connection = Connection::open_with_flags(name, flags)?;
        match schema::version(&connection)? {
            version if version == schema::STEPS.len() => Ok(connection),
            version if version > schema::STEPS.len() => Err(Fault::Newer(version)),
            version => Err(Fault::ReadOnly(format!("it is still of version {version}"))),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Looks for damage, for a moment.
    pub(super) fn look_through(&mut self) -> Result<(), Fault> {
        look_through(&mut self.connection)
    }

    /// Whether the name leads to this file, and not to another one or to none.
    pub(super) fn is_in_place(&self, path: &Path) -> bool {
        identity(path).is_ok_and(|now| now == self.identity)
    }
}

/// Opens a history that lives in memory.
pub(super) fn in_memory() -> Result<Connection, Fault> {
    let mut connection = Connection::open_in_memory()?;
    schema::migrate(&mut connection, 0, schema::STEPS)?;
    Ok(connection)
}

fn is_ours(connection: &Connection, version: usize) -> Result<bool, Fault> {
    if version > 0 {
        let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        return Ok(id == APPLICATION_ID);
    }
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0)
}

fn set_up(connection: &Connection) -> Result<(), Fault> {
    // Some file systems cannot do it: then it is slower, and as safe.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL;
         PRAGMA cache_size = -256;
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;",
    )?;
    // These answer with their value.
    connection.query_row("PRAGMA wal_autocheckpoint = 256", [], |_| Ok(()))?;
    connection.query_row("PRAGMA journal_size_limit = 1048576", [], |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(24);
    Ok(())
}

/// Makes the file if it is missing; returns whether it is empty.
fn prepare(path: &Path) -> Result<bool, Fault> {
    let create = || fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let made = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
            }
            create()
        }
        made => made,
    };
    match made {
        Ok(_) => Ok(true),
        // A read-only file system says so before it says that the file is there.
        Err(error) => match fs::symlink_metadata(path) {
            Ok(about) if about.is_file() => Ok(about.len() == 0),
            Ok(_) => Err(Fault::CannotOpen("it is no file".to_owned())),
            Err(_) => Err(error.into()),
        },
    }
}

/// Looks at the first bytes, so that a file of a newer version is not touched at all.
fn look_at_header(path: &Path) -> Result<(), Fault> {
    let mut header = [0; 100];
    let read = fs::File::open(path).and_then(|mut file| {
        let mut filled = 0;
        while filled < header.len() {
            match file.read(&mut header[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    })?;
    if read == 0 {
        return Ok(());
    }
    if read < header.len() || !header.starts_with(MAGIC) {
        return Err(Fault::Damaged("it is no SQLite file".to_owned()));
    }
    let version = u32::from_be_bytes([header[60], header[61], header[62], header[63]]);
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > schema::STEPS.len() {
        return Err(Fault::Newer(version));
    }
    Ok(())
}

fn look_through(connection: &mut Connection) -> Result<(), Fault> {
    let until = Instant::now() + LOOK_TIME;
    connection.progress_handler(LOOK_STEPS, Some(move || Instant::now() >= until))?;
    let found: Result<String, rusqlite::Error> =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(word) if word == "ok" => Ok(()),
        Ok(damage) => Err(Fault::Damaged(damage.replace('\n', "; "))),
        Err(rusqlite::Error::SqliteFailure(failure, _))
            if failure.code == rusqlite::ErrorCode::OperationInterrupted =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Brings an older file to this version, after a copy of it was made.
pub(super) fn renew(
    connection: &mut Connection,
    path: &Path,
    from: usize,
    steps: &[&str],
    words: &mut Vec<Word>,
) -> Result<(), Fault> {
    if from == steps.len() {
        return Ok(());
    }
    let copy = beside(path, &format!("version-{from}"));
    match fs::remove_file(&copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    // Made with the mode of the original, and filled by SQLite: it sees what is in the WAL too.
    fs::File::options().write(true).create_new(true).mode(0o600).open(&copy)?;
    let name = copy.to_str().ok_or_else(|| Fault::Other("its path is not UTF-8".to_owned()))?;
    connection
        .execute("VACUUM INTO ?1", [name])
        .inspect_err(|_| _ = fs::remove_file(&copy))
        .map_err(Fault::from)?;
    schema::migrate(connection, from, steps)?;
    words.push(Word::Info(format!(
        "`{}` was brought from version {from} to {}; what it was before is in `{}`",
        path.display(),
        steps.len(),
        copy.display()
    )));
    Ok(())
}

/// Moves a damaged file out of the way, with what belongs to it.
pub(super) fn set_aside(path: &Path, why: &str, now: Wall) -> Result<Word, Fault> {
    let time = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
    let aside = beside(path, &format!("corrupt-{}", time.strftime("%Y%m%dT%H%M%S.%3fZ")));
    fs::rename(path, &aside)?;
    for end in ["-wal", "-shm"] {
        // Missing, or worth nothing without the rest: its counterpart is what counts.
        let _ = fs::rename(with_end(path, end), with_end(&aside, end));
    }
    forget_older(path);
    Ok(Word::Warning(format!(
        "the history in `{}` is damaged ({why}): it was moved to `{}`, and a new one is begun",
        path.display(),
        aside.display()
    )))
}

/// Removes all but the newest of the files that were moved aside.
fn forget_older(path: &Path) {
    let Some(directory) = path.parent() else { return };
    let prefix = beside(path, "corrupt-");
    let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
    let is_aside = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        name.starts_with(prefix) && !name.ends_with(b"-wal") && !name.ends_with(b"-shm")
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    // Their names end with the time.
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_aside).collect();
    files.sort();
    let surplus = files.len().saturating_sub(KEPT_ASIDE);
    for file in &files[..surplus] {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(with_end(file, end));
        }
    }
}

fn beside(path: &Path, word: &str) -> PathBuf {
    with_end(path, &format!(".{word}"))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn identity(path: &Path) -> Result<Identity, Fault> {
    let about = fs::metadata(path)?;
    Ok((about.dev(), about.ino()))
}
