//! `mendd` as a whole: what a command line makes this executable, and how its parts are joined.
//!
//! One executable plays three roles in turn. The *launcher* is what the operator starts: it
//! checks the configuration, takes the runtime directory and becomes the *keeper* by `execve`, so
//! that the keeper has nothing of its memory. The keeper starts the *brain*.

mod options;

mod launcher;

mod brain;

mod control_socket;

mod logs;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::keeper;
use crate::keeper::arguments::{BRAIN, BrainArguments, KEEPER, KeeperArguments};

/// Exit codes of `mendd`, in the manner of sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Failure = 1,
    /// Wrong command line.
    Usage = 2,
    /// A file or directory that is needed cannot be made (`EX_CANTCREAT`).
    CannotCreate = 73,
    /// Another daemon has the runtime directory (`EX_TEMPFAIL`).
    Taken = 75,
    /// The configuration has mistakes (`EX_CONFIG`).
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Plays the role that the command line says.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    let role = words.peek().cloned().unwrap_or_default();
    if role == KEEPER {
        words.next();
        return be_keeper(words);
    }
    if role == BRAIN {
        words.next();
        return be_brain(words);
    }
    launcher::launch(words.collect())
}

fn be_keeper(words: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match KeeperArguments::parse(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("mendd: {error}");
            return Exit::Usage.into();
        }
    };
    keeper::run(arguments).unwrap_or_else(|error| {
        eprintln!("mendd: the keeper cannot start: {error}");
        Exit::Failure.into()
    })
}

fn be_brain(words: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match BrainArguments::parse(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("mend-brain: {error}");
            return Exit::Usage.into();
        }
    };
    brain::run(arguments).unwrap_or_else(|failure| {
        // Not `eprintln!`, which panics when nobody reads it: the exit code matters.
        let _ = writeln!(std::io::stderr(), "mend-brain: {:#}", failure.error);
        failure.exit.into()
    })
}
