//! The exit codes of `mendctl`: few, and the ones that systemctl and LSB scripts know.

use std::process::ExitCode;

/// How a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok,
    /// Something could not be done; stderr says what.
    Failed,
    Usage,
    /// `status`: something asked for is not running.
    NotRunning,
    /// `status`, `wait`: no such name. Other commands: the daemon does not allow it.
    UnknownOrDenied,
    /// `status`: all run, and a check says that one is not well.
    Unhealthy,
    TimedOut,
    /// `plan`, `config diff`: something would change.
    Changes,
    /// No daemon answers at the socket (`EX_UNAVAILABLE`).
    Unreachable,
    /// The configuration has mistakes (`EX_CONFIG`).
    Config,
    Interrupted,
}

impl Exit {
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::NotRunning,
        Self::UnknownOrDenied,
        Self::Unhealthy,
        Self::TimedOut,
        Self::Changes,
        Self::Unreachable,
        Self::Config,
        Self::Interrupted,
    ];

    /// Returns the number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::UnknownOrDenied => 4,
            Self::Unhealthy => 8,
            Self::TimedOut => 9,
            Self::Changes => 10,
            Self::Unreachable => 69,
            Self::Config => 78,
            Self::Interrupted => 130,
        }
    }

    /// Returns the line of the help text.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done; for status: everything asked for is running",
            Self::Failed => "it could not be done",
            Self::Usage => "wrong arguments",
            Self::NotRunning => "status: something asked for is not running",
            Self::UnknownOrDenied => "status, wait: unknown name; else: not allowed",
            Self::Unhealthy => "status: all run, but a check fails; check: one fails",
            Self::TimedOut => "waited in vain; the daemon goes on",
            Self::Changes => "plan, config diff: there are changes",
            Self::Unreachable => "no daemon answers",
            Self::Config => "the configuration has mistakes",
            Self::Interrupted => "interrupted; the daemon goes on",
        }
    }

    /// Returns the table of all codes for `--help`.
    pub fn help() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            text.push_str(&format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_scripts_rely_on() {
        let codes = Exit::ALL.map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 8, 9, 10, 69, 78, 130]);
    }
}
