//! Names that operators write, checked once where they enter.

use std::fmt;
use std::str::FromStr;

/// Longest name of a program or group, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name may not be empty")]
    Empty,
    #[error("a name has at most {MAX_NAME_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    #[error("a name may not contain {0:?}: letters, digits, `.`, `-` and `_` are allowed")]
    Character(char),
    #[error("a name starts with a letter, a digit or `_`, not {0:?}")]
    FirstCharacter(char),
    #[error("`{0}` is reserved: it selects every program")]
    Reserved(String),
    #[error("`{0}` is not a replica number")]
    Replica(String),
}

fn check(text: &str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong(text.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(odd) = text.chars().find(|c| !allowed(*c)) {
        return Err(NameError::Character(odd));
    }
    if matches!(first, '.' | '-') {
        return Err(NameError::FirstCharacter(first));
    }
    if text == "all" {
        return Err(NameError::Reserved(text.to_owned()));
    }
    Ok(())
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Returns the name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked_name! {
    /// A program's name: 1 to 64 bytes of letters, digits, `.`, `-` and `_`.
    ///
    /// `:` is left out because XML-RPC clients write `group:process`, `/` because the name
    /// becomes a directory.
    ProgramName
}

checked_name! {
    /// A group's name, with the rules of [`ProgramName`].
    GroupName
}

checked_name! {
    /// A check's name, unique among the checks of one program or of the host, with the rules of
    /// [`ProgramName`].
    CheckName
}

/// One supervised member of a program: `web`, or `web:0` when the program has replicas.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessName {
    program: ProgramName,
    replica: Option<u32>,
}

impl ProcessName {
    /// Names the only process of a program (`None`) or one of its replicas.
    pub fn new(program: ProgramName, replica: Option<u32>) -> Self {
        Self { program, replica }
    }

    pub fn program(&self) -> &ProgramName {
        &self.program
    }

    pub fn replica(&self) -> Option<u32> {
        self.replica
    }

    /// Returns a form without `:` for file names: `web` or `web.0`.
    ///
    /// It is unique only together with the program's own directory.
    pub fn file_stem(&self) -> String {
        self.replica.unwrap_or(0).to_string()
    }
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replica {
            None => f.pad(self.program.as_str()),
            Some(replica) => f.pad(&format!("{}:{replica}", self.program)),
        }
    }
}

impl FromStr for ProcessName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            None => Ok(Self::new(text.parse()?, None)),
            Some((program, replica)) => {
                let number = replica.parse().map_err(|_| NameError::Replica(replica.to_owned()))?;
                Ok(Self::new(program.parse()?, Some(number)))
            }
        }
    }
}

/// One life of a process, from spawn to exit; unique for the life of a runtime directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_survives_a_round_trip() {
        for text in ["web", "web:0", "a.b-c_D:17"] {
            assert_eq!(text.parse::<ProcessName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_that_would_break_paths_or_clients_are_refused() {
        for text in ["", "a/b", "..", "-x", "a b", "all", "ä", &"x".repeat(65)] {
            assert!(text.parse::<ProgramName>().is_err(), "{text:?} was accepted");
        }
        assert!("web:x".parse::<ProcessName>().is_err());
    }
}
