//! Asks a process or the host from outside whether it is well: a question and its limits in, a
//! verdict out.
//!
//! A probe knows nothing of programs and decides nothing. It never takes longer than it is given,
//! and when it is dropped before its end nothing of it is left: a connection is closed, a query
//! is cancelled, a command is killed with all that it has started. [`ask`] is for readiness, and
//! [`look`] for checks, whose verdicts are finer:
//!
//! - `Fail` is a wrong answer, or a plain no: refused, closed, over a limit.
//! - `Timeout` is no answer in time.
//! - `Warn` is a good answer that came late, or a service that lives and cannot serve yet.
//! - `Unknown` is that nobody was asked: the command does not start, a name has no address, this
//!   process has no descriptor left, a file or a password of the check is wrong. It says nothing
//!   of the target.
//!
//! [`evidence`] looks for the cause once something has failed.
#![expect(clippy::result_large_err, reason = "a finding is made once for each look")]

mod finding;

mod subject;

mod progress;

mod aside;

mod connect;

mod tcp;

mod http;

mod tls;

mod certificate;

mod redis;
mod resp;

mod postgres;
mod postgres_error;

mod password;

pub mod exec;
mod plugin;

mod memory;

mod cpu;

mod host;

mod signs;

mod file;

mod words;

pub mod evidence;

pub mod notify;

#[cfg(test)]
mod probe_tests;

use std::time::{Duration, Instant};

use regex::bytes::Regex;

use crate::config::{DeclaredCheck, Look, Probe};
use crate::core::care::evidence::ProbeFailure;
use crate::core::text;

use finding::Finding;
use progress::{Progress, Stage};

pub use crate::core::care::Verdict;
pub use cpu::Past;
pub use exec::{Command, Commands};
pub use finding::{Report, Sample, Unit};
pub use signs::MatchCounter;
pub use subject::{Asker, ProcessSubject, Subject};

/// Most bytes that are kept of what a command prints, or an answer says.
pub const MAX_OUTPUT_BYTES: usize = 4096;

/// Asks once whether a process is ready, for at most `timeout`; `commands` brings the command of
/// an exec probe to life.
pub async fn ask(probe: &Probe, timeout: Duration, commands: &dyn Commands) -> Report {
    let begun = Instant::now();
    let progress = Progress::new(timeout);
    let question = async {
        match probe {
            Probe::Tcp(address) => tcp::ask(address, &progress).await,
            Probe::Http(target) => http::ask(target, &progress).await,
            Probe::Exec(argv) => exec::ask(argv, commands, &progress).await,
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
    finding.took(begun.elapsed())
}

/// Runs a check once, for at most its time limit. `past` is what the last look of the same check
/// at the same target has left; its owner keeps it.
pub async fn look(declared: &DeclaredCheck, asker: &Asker<'_>, past: &mut Past) -> Report {
    let begun = Instant::now();
    let DeclaredCheck { check, look, .. } = declared;
    let progress = Progress::new(check.timeout);
    let looking = examine(declared, asker, past, &progress, begun);
    let finding = match tokio::time::timeout(check.timeout, looking).await {
        Ok(finding) => finding,
        Err(_) => late(look, progress.stage(), check.timeout),
    };
    finding.took(begun.elapsed())
}

async fn examine(
    declared: &DeclaredCheck,
    asker: &Asker<'_>,
    past: &mut Past,
    progress: &Progress,
    begun: Instant,
) -> Finding {
    let role = declared.check.role;
    let subject = asker.subject;
    let (finding, latency) = match &declared.look {
        Look::Exec(look) => return exec::look(look, asker.commands, progress).await,
        Look::Tcp(look) => (tcp::look(look, progress).await, &look.latency),
        Look::Http(look) => (http::look(look, progress).await, &look.latency),
        Look::Redis(look) => (redis::look(look, role, asker, progress).await, &look.latency),
        Look::Postgres(look) => (postgres::look(look, role, asker, progress).await, &look.latency),
        Look::Certificate(look) => return certificate::look(look, progress).await,
        Look::Memory(look) => {
            let (look, subject) = (look.clone(), subject.clone());
            return either(blocking(move || memory::look(&look, &subject)).await);
        }
        Look::Fds(look) => {
            let (look, subject) = (look.clone(), subject.clone());
            return either(blocking(move || memory::look_fds(&look, &subject)).await);
        }
        Look::Cpu(look) => return cpu::look(look, subject, past).await,
        Look::Disk(look) => return host::look_disk(look).await,
        Look::Load(look) => return host::look_load(look),
        Look::Pressure(look) => return host::look_pressure(look, subject),
        Look::Log(look) => {
            return of_process(subject, |process| signs::look_log(look, process.matches));
        }
        Look::Silence(look) => {
            return of_process(subject, |process| signs::look_silence(look, process.quiet_for));
        }
        Look::Heartbeat(look) => {
            let age = subject.process().map(|process| process.watchdog_age);
            return signs::look_heartbeat(look, age).await;
        }
        Look::Process => return Finding::unknown("the supervisor knows by itself that it runs"),
    };
    finding.within(begun.elapsed(), latency.as_ref())
}

/// A look that could not go on has found something too.
fn either(result: Result<Finding, Finding>) -> Finding {
    match result {
        Ok(finding) | Err(finding) => finding,
    }
}

fn of_process(subject: &Subject, judge: impl Fn(&ProcessSubject) -> Finding) -> Finding {
    let no_process = || Finding::unknown("the host has no output of its own");
    subject.process().map_or_else(no_process, judge)
}

/// Looks at files of the kernel, which may be many, away from the loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Finding> + Send + 'static,
) -> Result<T, Finding> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Finding::unknown(format!("the look was given up: {error}"))))
}

/// Compiles a pattern; a checked configuration has only valid ones.
fn pattern(text: &str) -> Result<Regex, Finding> {
    Regex::new(text).map_err(|_| Finding::unknown(format!("`{text}` is no regular expression")))
}

/// Says what it means that a look was not over in time.
fn late(look: &Look, stage: Stage, limit: Duration) -> Finding {
    let time = text::duration(limit);
    let failure = match (look, stage) {
        (Look::Disk(_), _) => {
            let sentence = format!("{look}: the disk did not answer within {time}");
            return Finding::new(Verdict::Timeout, sentence);
        }
        (Look::Exec(_), Stage::Begun) => {
            return Finding::unknown(format!("`{look}` could not be started within {time}"));
        }
        (Look::Exec(_), _) => {
            let sentence = format!("`{look}` did not end within {time} and was killed");
            return Finding::new(Verdict::Timeout, sentence);
        }
        (_, Stage::Begun) => {
            return Finding::unknown(format!("{look}: this machine was not ready within {time}"));
        }
        (_, Stage::Resolving) => {
            return Finding::unknown(format!("{look}: the name was not resolved within {time}"));
        }
        (_, Stage::Connecting) => ProbeFailure::ConnectTimeout,
        (_, Stage::Asking | Stage::Answering) => ProbeFailure::AnswerTimeout,
    };
    let sentence = match stage {
        Stage::Answering => format!("{look} began to answer and did not end within {time}"),
        Stage::Asking => format!("{look} accepted the connection and did not answer within {time}"),
        Stage::Begun | Stage::Resolving | Stage::Connecting => {
            format!("{look} did not accept a connection within {time}")
        }
    };
    Finding::timeout(failure, sentence)
}
