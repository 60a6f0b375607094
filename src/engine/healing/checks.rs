//! Runs checks: one task for each, which is dropped to call it off, with all that it has started.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::super::commands::Surroundings;
use super::super::core_loop::Engine;
use super::super::history::Record;
use super::super::launch::Job;
use super::passive::Question;
use super::{Report, errands};
use crate::config::{Look, Probe as Asked};
use crate::core::care::evidence::ProbeFailure;
use crate::core::care::gate::Pressure;
use crate::core::care::{CareEvent, CheckId, Target, Verdict};
use crate::name::RunId;
use crate::os::{clock, pressure};
use crate::probe;

/// One run of a check.
#[derive(Debug)]
pub(super) struct Probe {
    ticket: u64,
    _task: AbortOnDropHandle<()>,
}

/// What one run of a check found.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) struct Found {
    pub(super) verdict: Verdict,
    /// One line for people.
    pub(super) sentence: String,
    /// How it failed, as far as it is known in other words than the sentence.
    pub(super) failure: Option<ProbeFailure>,
    pub(super) took: Duration,
}

impl Found {
    pub(super) fn unknown(sentence: impl Into<String>) -> Self {
        let verdict = Verdict::Unknown;
        Self { verdict, sentence: sentence.into(), failure: None, took: Duration::ZERO }
    }
}

impl Engine {
    pub(super) fn run_check(&mut self, check: CheckId, ticket: u64) {
        let reports = self.healing.reports.clone();
        let report = move |check, found: Found| {
            let is_late = found.verdict == Verdict::Timeout;
            let pressure = is_late.then(|| pressure::gate().ok()).flatten();
            // A loop that has ended needs no answer.
            let _ = reports.send(Report::Looked { check, ticket, found, pressure });
        };
        let declared = self.healing.look_of(&check).map(Arc::clone);
        let surroundings = self.surroundings(&check.target, Vec::new());
        let (Some(declared), Some(surroundings)) = (declared, surroundings) else {
            return report(check, Found::unknown("it is not there any more"));
        };
        let question = self.question(&check, &declared.look);
        let timeout = declared.check.timeout;
        let of = check.clone();
        let task = tokio::spawn(async move {
            let found = match question {
                Question::Ask => ask(&declared.look, timeout, &surroundings).await,
                Question::Answered(found) => found,
                Question::Work(work) => work.run().await,
            };
            report(of, found);
        });
        self.healing.probes.insert(check, Probe { ticket, _task: AbortOnDropHandle::new(task) });
    }

    pub(super) fn cancel_check(&mut self, check: &CheckId, ticket: u64) {
        if self.healing.probes.get(check).is_some_and(|probe| probe.ticket == ticket) {
            self.healing.probes.remove(check);
        }
    }

    pub(super) fn on_looked(
        &mut self,
        check: CheckId,
        ticket: u64,
        found: Found,
        pressure: Option<Pressure>,
    ) {
        self.cancel_check(&check, ticket);
        if !self.healing.care.is_ticket(&check, ticket) {
            return;
        }
        let Found { verdict, sentence: detail, failure, took } = found;
        match failure {
            Some(failure) => drop(self.healing.failures.insert(check.clone(), failure)),
            None => drop(self.healing.failures.remove(&check)),
        }
        let at = clock::wall();
        self.healing.history.record(Record::Checked {
            at,
            check: check.clone(),
            verdict,
            detail: detail.clone(),
            took,
        });
        self.healing.tell(CareEvent::Result { check, ticket, verdict, detail, took, pressure });
    }

    /// Returns what a command gets that is run on behalf of a target: of a process what its program
    /// is given, of the host what the daemon has.
    pub(super) fn surroundings(
        &self,
        target: &Target,
        variables: Vec<(String, Option<String>)>,
    ) -> Option<Surroundings> {
        let of = match target {
            Target::Host => errands::host_job(),
            Target::Process(process) => {
                let status = self.core.status(process)?;
                let run = status.run.unwrap_or(RunId(0));
                Job::new(run, process.clone(), status.program)
            }
        };
        Some(Surroundings { of, door: self.jobs.door(), variables })
    }
}

/// Asks what a check asks, within its time.
async fn ask(look: &Look, timeout: Duration, surroundings: &Surroundings) -> Found {
    let Some(asked) = asked(look) else {
        return Found::unknown("this kind of check cannot be run");
    };
    let report = probe::ask(&asked, timeout, surroundings).await;
    let verdict = match report.verdict {
        probe::Verdict::Pass => Verdict::Pass,
        probe::Verdict::Fail => Verdict::Fail,
        probe::Verdict::Timeout => Verdict::Timeout,
        probe::Verdict::Unknown => Verdict::Unknown,
    };
    Found { verdict, sentence: report.sentence, failure: None, took: report.took }
}

fn asked(look: &Look) -> Option<Asked> {
    match look {
        Look::Exec(look) => Some(Asked::Exec(look.argv.clone())),
        Look::Tcp(look) => match &look.endpoint {
            crate::config::Endpoint::Tcp(address) => Some(Asked::Tcp(address.clone())),
            crate::config::Endpoint::Unix(_) => None,
        },
        Look::Http(look) => Some(Asked::Http(look.target.clone())),
        _ => None,
    }
}
