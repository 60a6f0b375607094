//! The names of the files that make up one log, and which of them are there.
//!
//! Segment numbers start at 1 and only grow; the current segment has the number after the newest
//! closed one, or the one in its index's header when that is higher (all closed ones were pruned).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::index;

/// The files of one log, named after the path of its current segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    current: PathBuf,
}

/// Which files a closed segment consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Parts {
    pub(super) plain: bool,
    pub(super) zstd: bool,
    pub(super) index: bool,
}

/// Opens a file of a log as it is, or makes it. A link in its place is an error: who may write to
/// the directory must not send the daemon elsewhere.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

impl Place {
    pub(super) fn new(current: &Path) -> Self {
        Self { current: current.to_owned() }
    }

    pub(super) fn current(&self) -> &Path {
        &self.current
    }

    pub(super) fn directory(&self) -> &Path {
        match self.current.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        }
    }

    /// Returns the file name without `.log`.
    fn stem(&self) -> String {
        let name = self.current.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(".log").unwrap_or(&name).to_owned()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.directory().join(format!("{}.{suffix}", self.stem()))
    }

    pub(super) fn index(&self) -> PathBuf {
        self.beside("idx")
    }

    pub(super) fn closed(&self, seq: u64) -> PathBuf {
        self.beside(&format!("{seq:06}.log"))
    }

    pub(super) fn compressed(&self, seq: u64) -> PathBuf {
        self.beside(&format!("{seq:06}.log.zst"))
    }

    /// Returns where a compression under way writes.
    pub(super) fn unfinished(&self, seq: u64) -> PathBuf {
        self.beside(&format!("{seq:06}.log.zst.tmp"))
    }

    pub(super) fn closed_index(&self, seq: u64) -> PathBuf {
        self.beside(&format!("{seq:06}.idx"))
    }

    /// Calls `found` with the number and the suffix of each numbered file of this log.
    pub(super) fn for_each_numbered(&self, mut found: impl FnMut(u64, &str)) -> io::Result<()> {
        let prefix = format!("{}.", self.stem());
        let entries = match fs::read_dir(self.directory()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else {
                continue;
            };
            let Some((number, suffix)) = rest.split_once('.') else { continue };
            if number.len() < 6 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            if let Ok(seq) = number.parse() {
                found(seq, suffix);
            }
        }
        Ok(())
    }

    /// Returns the closed segments by number; numbers of which only an index is left are not
    /// among them.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read; a missing one is an empty log.
    pub(super) fn segments(&self) -> io::Result<BTreeMap<u64, Parts>> {
        let mut segments: BTreeMap<u64, Parts> = BTreeMap::new();
        self.for_each_numbered(|seq, suffix| match suffix {
            "log" => segments.entry(seq).or_default().plain = true,
            "log.zst" => segments.entry(seq).or_default().zstd = true,
            "idx" => segments.entry(seq).or_default().index = true,
            _ => {}
        })?;
        segments.retain(|_, parts| parts.plain || parts.zstd);
        Ok(segments)
    }

    /// Returns the number of the current segment, given the closed ones.
    pub(super) fn current_seq(&self, closed: &BTreeMap<u64, Parts>) -> u64 {
        let after_closed = closed.last_key_value().map_or(1, |(seq, _)| seq + 1);
        let written = index::header_seq(&self.index()).unwrap_or(0);
        after_closed.max(written)
    }
}
