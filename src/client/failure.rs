//! What can go wrong for a command, in words that say what to do next.

use std::io;
use std::path::PathBuf;

use super::exit::Exit;
use crate::api::view::Problem;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon answered with an error.
    #[error("{}", problem_text(.0))]
    Problem(Problem),
    /// As [`Failure::Problem`], for commands that ask about a name that does not exist.
    #[error("{}", problem_text(.0))]
    UnknownName(Problem),
    #[error("mendd is not running: there is no socket at {}", list(.looked))]
    Missing { looked: Vec<PathBuf> },
    #[error("mendd is not running: nobody answers at `{}`, the socket is left over", .socket.display())]
    Stale { socket: PathBuf },
    #[error("you may not open `{}`: {owner}", .socket.display())]
    Denied { socket: PathBuf, owner: String },
    #[error("cannot connect to `{}`", .socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the connection to mendd broke: {0}")]
    Lost(String),
    #[error("mendd answered what this mendctl does not understand: {0}")]
    Protocol(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    TimedOut(String),
    #[error("{0}")]
    Interrupted(String),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Turns "no such name" into the variant with the exit code of `status` and `wait`.
    #[must_use]
    pub fn when_asking(self) -> Self {
        if let Self::Problem(problem) = &self
            && ["/unknown-name", "/unknown-incident"].iter().any(|it| problem.kind.ends_with(it))
        {
            return Self::UnknownName(problem.clone());
        }
        self
    }

    /// Whether the daemon may be back soon, so that a view should try again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Stale { .. } | Self::Lost(_) | Self::Connect { .. } => {
                true
            }
            Self::Problem(problem) => problem.status == 503,
            Self::UnknownName(_)
            | Self::Denied { .. }
            | Self::Protocol(_)
            | Self::Usage(_)
            | Self::Failed(_)
            | Self::TimedOut(_)
            | Self::Interrupted(_)
            | Self::Output(_) => false,
        }
    }

    /// Whether nobody answered: a daemon that is being replaced, or one that is gone.
    pub fn is_away(&self) -> bool {
        self.is_transient() && !matches!(self, Self::Problem(_))
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Problem(problem) if problem.kind.ends_with("-configuration") => Exit::Config,
            Self::Problem(problem) => match problem.status {
                400 | 422 => Exit::Usage,
                401 | 403 => Exit::UnknownOrDenied,
                408 | 504 => Exit::TimedOut,
                _ => Exit::Failed,
            },
            Self::UnknownName(_) | Self::Denied { .. } => Exit::UnknownOrDenied,
            Self::Missing { .. } | Self::Stale { .. } | Self::Connect { .. } | Self::Lost(_) => {
                Exit::Unreachable
            }
            Self::Usage(_) => Exit::Usage,
            Self::TimedOut(_) => Exit::TimedOut,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::Protocol(_) | Self::Failed(_) | Self::Output(_) => Exit::Failed,
        }
    }

    /// Returns the way out, if there is one to tell.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Problem(problem) | Self::UnknownName(problem) => problem.help.clone(),
            Self::Missing { .. } => Some(
                "start it with `mendd` or `systemctl start mendd`; a daemon elsewhere is named \
                 with --socket or MEND_SOCKET"
                    .to_owned(),
            ),
            Self::Stale { .. } => Some(
                "start it with `mendd` or `systemctl start mendd`; it replaces the socket and \
                 takes over the programs that still run"
                    .to_owned(),
            ),
            Self::Denied { .. } => Some(
                "run mendctl as that user or with sudo, or let your account in under \
                 [supervisor.access]"
                    .to_owned(),
            ),
            Self::Protocol(_) => {
                Some("`mendctl version` shows whether client and daemon differ".to_owned())
            }
            Self::Lost(_) => {
                Some("what was asked for may have been done; `mendctl status` tells".to_owned())
            }
            Self::Connect { .. }
            | Self::Usage(_)
            | Self::Failed(_)
            | Self::TimedOut(_)
            | Self::Interrupted(_)
            | Self::Output(_) => None,
        }
    }

    /// Returns the same as problem details for `--json`.
    pub fn problem(&self) -> Problem {
        let (slug, title) = match self {
            Self::Problem(problem) | Self::UnknownName(problem) => return problem.clone(),
            Self::Missing { .. } | Self::Stale { .. } => ("unreachable", "mendd is not running"),
            Self::Connect { .. } => ("unreachable", "cannot connect to mendd"),
            Self::Denied { .. } => ("denied", "not allowed"),
            Self::Lost(_) => ("connection-lost", "the connection broke"),
            Self::Protocol(_) => ("protocol", "answer not understood"),
            Self::Usage(_) => ("usage", "wrong arguments"),
            Self::Failed(_) => ("failed", "it could not be done"),
            Self::TimedOut(_) => ("timed-out", "waited in vain"),
            Self::Interrupted(_) => ("interrupted", "interrupted"),
            Self::Output(_) => ("output", "cannot write the output"),
        };
        Problem {
            kind: format!("https://mend.invalid/problems/{slug}"),
            title: title.to_owned(),
            status: 0,
            detail: self.whole_text(),
            help: self.help(),
        }
    }

    /// Returns the message with its cause.
    pub fn whole_text(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

fn problem_text(problem: &Problem) -> String {
    if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() }
}

fn list(paths: &[PathBuf]) -> String {
    let quoted: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    quoted.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(slug: &str, status: u16) -> Failure {
        Failure::Problem(Problem {
            kind: format!("https://mend.invalid/problems/{slug}"),
            title: slug.to_owned(),
            status,
            detail: String::new(),
            help: None,
        })
    }

    #[test]
    fn a_refusal_by_the_daemon_has_the_code_of_its_kind() {
        assert_eq!(problem("forbidden", 403).exit(), Exit::UnknownOrDenied);
        assert_eq!(problem("bad-request", 400).exit(), Exit::Usage);
        assert_eq!(problem("bad-configuration", 422).exit(), Exit::Config);
        assert_eq!(problem("internal", 500).exit(), Exit::Failed);
    }

    #[test]
    fn an_unknown_name_is_4_for_questions_and_1_for_acts() {
        assert_eq!(problem("unknown-name", 404).exit(), Exit::Failed);
        assert_eq!(problem("unknown-name", 404).when_asking().exit(), Exit::UnknownOrDenied);
    }
}
