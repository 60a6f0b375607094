//! What can be wrong with the file, told apart as far as something different is done about it.

use std::io;

use rusqlite::ffi::ErrorCode;

/// Why the file cannot be used. The text goes on from the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Another process holds it for itself.
    #[error("another process has locked it")]
    Locked,
    #[error("the disk is full")]
    Full,
    #[error("it cannot be changed: {0}")]
    ReadOnly(String),
    #[error("it cannot be opened: {0}")]
    CannotOpen(String),
    /// Written by a later version of the daemon.
    #[error("it is of version {0}, of a newer mendd, and left as it is")]
    Newer(usize),
    /// What it holds cannot be right.
    #[error("it is damaged ({0})")]
    Damaged(String),
    /// The records themselves are refused, whatever the file is like.
    #[error("it refuses what is written: {0}")]
    Refused(String),
    #[error("{0}")]
    Other(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(failure, message) = &error else {
            return Self::from_conversion(&error);
        };
        let text = message.clone().unwrap_or_else(|| failure.to_string());
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "SQLite has some thirty codes, and more to come"
        )]
        match failure.code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed => Self::Locked,
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Self::ReadOnly(text),
            ErrorCode::CannotOpen => Self::CannotOpen(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Damaged(text),
            // Our statements fit our tables: these are others.
            ErrorCode::Unknown if failure.extended_code == rusqlite::ffi::SQLITE_ERROR => {
                Self::Damaged(text)
            }
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig => {
                Self::Refused(text)
            }
            _ => Self::Other(text),
        }
    }
}

impl Fault {
    /// A value that is not of its column's type, or a statement that does not fit.
    fn from_conversion(error: &rusqlite::Error) -> Self {
        let is_ours = matches!(error, rusqlite::Error::ToSqlConversionFailure(_));
        if is_ours { Self::Refused(error.to_string()) } else { Self::Damaged(error.to_string()) }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the standard library adds kinds")]
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly(error.to_string())
            }
            _ => Self::CannotOpen(error.to_string()),
        }
    }
}
