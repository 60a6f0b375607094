//! Asks a process from outside whether it is well: a question and its limits in, a verdict out.
//!
//! A probe knows nothing of programs and decides nothing. It never takes longer than it is given,
//! and when it is dropped before its end nothing of it is left: a connection is closed, a command
//! is killed with all that it has started.

mod tcp;

mod http;

pub mod exec;

pub mod notify;

#[cfg(test)]
mod probe_tests;

use std::time::{Duration, Instant};

use crate::config::Probe;

pub use exec::{Command, Commands};

/// Most bytes that are kept of what a command prints, or an answer says.
pub const MAX_OUTPUT_BYTES: usize = 4096;

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    /// There was no answer in time.
    Timeout,
    /// The question could not be asked, which says nothing of the process.
    Unknown,
}

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub verdict: Verdict,
    /// What was seen: `connection refused`, `answered 503 Service Unavailable`.
    pub sentence: String,
    /// The first bytes that a command printed, or of an answer that was not good.
    pub output: Vec<u8>,
    pub took: Duration,
}

/// What was found, without the time that it took.
struct Finding {
    verdict: Verdict,
    sentence: String,
    output: Vec<u8>,
}

impl Finding {
    fn new(verdict: Verdict, sentence: impl Into<String>) -> Self {
        Self { verdict, sentence: sentence.into(), output: Vec::new() }
    }
}

/// Asks once, for at most `timeout`; `commands` brings the command of an exec probe to life.
pub async fn ask(probe: &Probe, timeout: Duration, commands: &dyn Commands) -> Report {
    let begun = Instant::now();
    let question = async {
        match probe {
            Probe::Tcp(address) => tcp::ask(address).await,
            Probe::Http(target) => http::ask(target).await,
            Probe::Exec(argv) => exec::ask(argv, commands).await,
        }
    };
    let finding = tokio::time::timeout(timeout, question).await.unwrap_or_else(|_| {
        let time = crate::config::format_duration(timeout);
        let sentence = match probe {
            Probe::Tcp(_) | Probe::Http(_) => format!("no answer within {time}"),
            Probe::Exec(_) => format!("did not end within {time} and was killed"),
        };
        Finding::new(Verdict::Timeout, sentence)
    });
    let Finding { verdict, sentence, output } = finding;
    Report { verdict, sentence, output, took: begun.elapsed() }
}

/// Says what an error of the system means, without its number.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "failed".to_owned(),
    }
}

/// Returns the last line with anything in it, as people may read it.
fn last_line(output: &[u8]) -> Option<String> {
    const MAX_CHARS: usize = 200;
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_quoted_without_its_numbers() {
        let error = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(words(&error), "connection refused");
    }

    #[test]
    fn the_last_line_is_one_line_and_not_too_long() {
        assert_eq!(last_line(b"one\ntwo\x1b[1m\n\n").as_deref(), Some("two [1m"));
        assert_eq!(last_line(b" \n"), None);
        assert_eq!(last_line(&[b'x'; 5000]).unwrap().len(), 200);
    }
}
