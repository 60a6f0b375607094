//! What is written down: decisions, goals, events; checksummed, versioned, in A/B slots.
//!
//! What the disk does wrong never stops the daemon: it keeps working from memory, and each
//! trouble becomes a [`Note`] or an error that says which older truth is in use.

use std::fmt;
use std::path::{Path, PathBuf};

pub mod runs;

pub mod journal;

pub mod slots;

pub mod events;

pub mod decisions;

pub mod care;

pub mod acts;

pub mod goals;

pub mod switches;

pub mod sources;

pub mod applying;

pub mod generations;

pub mod history;

/// Something about a stored file that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub file: PathBuf,
    /// What was wrong and what was done about it.
    pub text: String,
}

impl Note {
    fn new(file: &Path, text: impl Into<String>) -> Self {
        Self { file: file.to_path_buf(), text: text.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.file.display(), self.text)
    }
}
