//! Runs checks: one task for each, which is dropped to call it off, with all that it has started.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::super::commands::Surroundings;
use super::super::core_loop::Engine;
use super::super::environment;
use super::super::history::Record;
use super::super::launch::Job;
use super::passive::Signs;
use super::{Report, errands};
use crate::config::{DeclaredCheck, Look, Password};
use crate::core::care::evidence::{Certificate, ProbeFailure};
use crate::core::care::{CareEvent, CheckId, Target, Verdict};
use crate::name::RunId;
use crate::os::{clock, pressure};
use crate::probe::{self, Asker, Past, ProcessSubject, Sample, Subject, Unit};

/// One run of a check.
#[derive(Debug)]
pub(super) struct Probe {
    ticket: u64,
    _task: AbortOnDropHandle<()>,
}

/// What one run of a check found, with what the next one needs of it.
#[derive(Debug)]
pub(in crate::engine) struct Looked {
    pub(super) check: CheckId,
    ticket: u64,
    report: probe::Report,
    past: Past,
    /// Read together with a timeout.
    pressure: Option<crate::core::care::gate::Pressure>,
}

/// What the last run of a check says to whoever looks for the cause.
#[derive(Debug, Clone, Default)]
pub(super) struct Clues {
    pub(super) failure: Option<ProbeFailure>,
    pub(super) sample: Option<Sample>,
    pub(super) certificate: Option<Certificate>,
}

impl Clues {
    /// Returns how long there was no sign of life.
    pub(super) fn silence(&self) -> Option<Duration> {
        let sample = self.sample.filter(|sample| sample.unit == Unit::Seconds)?;
        Duration::try_from_secs_f64(sample.value).ok()
    }
}

impl Engine {
    pub(super) fn run_check(&mut self, check: CheckId, ticket: u64) {
        let declared = self.healing.look_of(&check).map(Arc::clone);
        let asked = declared.and_then(|declared| {
            let surroundings = self.surroundings_of_check(&check.target, &declared)?;
            let subject = self.subject(&check.target)?;
            Some((declared, surroundings, subject))
        });
        let reports = self.healing.reports.clone();
        let Some((declared, surroundings, subject)) = asked else {
            return self.healing.tell(CareEvent::Result {
                check,
                ticket,
                verdict: Verdict::Unknown,
                detail: "it does not run".to_owned(),
                took: Duration::ZERO,
                pressure: None,
            });
        };
        let signs = self.signs(&check, &declared.look);
        let mut past = self.healing.pasts.remove(&check).unwrap_or_default();
        let of = check.clone();
        let task = tokio::spawn(async move {
            let report = look(&declared, &surroundings, subject, signs, &mut past).await;
            let is_late = report.verdict == Verdict::Timeout;
            let pressure = is_late.then(|| pressure::gate().ok()).flatten();
            let looked = Looked { check: of, ticket, report, past, pressure };
            // A loop that has ended needs no answer.
            let _ = reports.send(Report::Looked(Box::new(looked)));
        });
        self.healing.probes.insert(check, Probe { ticket, _task: AbortOnDropHandle::new(task) });
    }

    pub(super) fn cancel_check(&mut self, check: &CheckId, ticket: u64) {
        if self.healing.probes.get(check).is_some_and(|probe| probe.ticket == ticket) {
            self.healing.probes.remove(check);
        }
    }

    pub(super) fn on_looked(&mut self, looked: Looked) {
        let Looked { check, ticket, report, past, pressure } = looked;
        self.cancel_check(&check, ticket);
        if !self.healing.care.is_ticket(&check, ticket) {
            return;
        }
        self.healing.pasts.insert(check.clone(), past);
        let probe::Report { verdict, sentence: detail, failure, sample, certificate, took, .. } =
            report;
        let (at, of) = (clock::wall(), check.clone());
        if let Some(sample) = sample {
            let series = format!("{}/{}", super::shown_target(&check.target), check.check);
            self.history.record(Record::Sampled { at, series, value: sample.value });
        }
        self.healing.clues.insert(check.clone(), Clues { failure, sample, certificate });
        self.counts.on_checked(verdict);
        let detail_kept = detail.clone();
        self.history.record(Record::Checked { at, check: of, verdict, detail: detail_kept, took });
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

    /// Does so for a check, which may name another user.
    fn surroundings_of_check(
        &self,
        target: &Target,
        declared: &DeclaredCheck,
    ) -> Option<Surroundings> {
        let mut surroundings = self.surroundings(target, Vec::new())?;
        if let Look::Exec(look) = &declared.look
            && let Some(user) = &look.user
        {
            let program = &mut surroundings.of.program;
            Arc::make_mut(program).spawn.user = Some(user.clone());
        }
        Some(surroundings)
    }

    /// Returns whom a check is about; `None` for a process that does not run.
    fn subject(&self, target: &Target) -> Option<Subject> {
        let Target::Process(process) = target else { return Some(Subject::Host) };
        let status = self.core.status(process)?;
        let hands = status.run.and_then(|run| self.runs.get(&run));
        let mut subject = ProcessSubject::new(status.pid?);
        subject.group = hands.and_then(|hands| hands.cgroup.clone());
        subject.memory_limit = status.program.spawn.limits.memory_bytes;
        Some(Subject::Process(subject))
    }
}

/// Looks once, with the signs of life as they are now.
async fn look(
    declared: &DeclaredCheck,
    surroundings: &Surroundings,
    mut subject: Subject,
    signs: Option<Signs>,
    past: &mut Past,
) -> probe::Report {
    if let (Some(signs), Subject::Process(process)) = (signs, &mut subject)
        && let Err(why) = signs.read_into(process).await
    {
        return unknown(why);
    }
    let needed = password_variable(&declared.look);
    let value = match needed {
        Some(name) => variable(surroundings.of.clone(), name.to_owned()).await,
        None => None,
    };
    let value = |name: &str| value.clone().filter(|_| Some(name) == needed);
    let asker = Asker { subject: &subject, commands: surroundings, variable: &value };
    probe::look(declared, &asker, past).await
}

fn unknown(sentence: String) -> probe::Report {
    probe::Report {
        verdict: Verdict::Unknown,
        sentence,
        failure: None,
        sample: None,
        certificate: None,
        output: Vec::new(),
        took: Duration::ZERO,
    }
}

fn password_variable(look: &Look) -> Option<&str> {
    let password = match look {
        Look::Redis(look) => look.password.as_ref(),
        Look::Postgres(look) => look.password.as_ref(),
        Look::Exec(_) | Look::Tcp(_) | Look::Http(_) | Look::Memory(_) | Look::Cpu(_) => None,
        Look::Fds(_) | Look::Disk(_) | Look::Load(_) | Look::Pressure(_) | Look::Process => None,
        Look::Log(_) | Look::Silence(_) | Look::Heartbeat(_) | Look::Certificate(_) => None,
    };
    match password? {
        Password::Variable(name) => Some(name),
        Password::Written(_) | Password::File(_) => None,
    }
}

/// Looks a variable up in a target's environment, whose files may be on a slow disk.
async fn variable(of: Job, name: String) -> Option<String> {
    let lookup = move || environment::build(&of, "").ok()?.get(&name);
    tokio::task::spawn_blocking(lookup).await.ok()?
}
