//! Commands that remedies run: as the program's user, with its directory, environment and limits,
//! in a control group of their own, and with what is known of the incident.
//!
//! A command is killed with all that it has started when it takes too long or is called off; so is
//! whatever it leaves behind at its end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::super::core_loop::Engine;
use super::super::launch::Job;
use super::Report;
use super::remedies::Hand;
use crate::config::Probe;
use crate::core::care::cause::Cause;
use crate::core::care::{CareEvent, IncidentId, RemedyId, Target, Verdict};
use crate::core::placeholder;
use crate::name::{ProcessName, RunId};
use crate::os::pidfd::PidFd;
use crate::os::{clock, proc};
use crate::probe;
use crate::time::Instant;

/// The healer calls a command off; this only keeps one from staying for ever if that fails.
const MARGIN: Duration = Duration::from_secs(10);
/// How long the command that is told of a change of mode may take.
const HOOK_TIME: Duration = Duration::from_secs(60);
/// Marks the processes of a remedy in their environment.
const MARK: &str = "MEND_REMEDY";

/// How a command ended.
#[derive(Debug)]
pub(in crate::engine) struct ErrandEnd {
    step: Option<(usize, bool)>,
    result: Result<(), String>,
}

/// Returns a job whose surroundings are the daemon's own.
pub(super) fn host_job() -> Job {
    let name = "host".parse().expect("it is a name");
    let mut program = placeholder(&name);
    program.spawn.inherit_environment = true;
    Job::new(RunId(0), ProcessName::new(name, None), Arc::new(program))
}

impl Engine {
    /// Runs a command for a remedy; with a step, for one step of a transaction.
    pub(super) fn run_errand(
        &mut self,
        remedy: RemedyId,
        incident: IncidentId,
        target: &Target,
        step: Option<(usize, bool)>,
        argv: Vec<String>,
        until: Instant,
    ) {
        let refused = |why: &str| ErrandEnd { step, result: Err(why.to_owned()) };
        let status = match target {
            Target::Host => None,
            Target::Process(process) => self.core.status(process),
        };
        let stopped = status.as_ref().filter(|it| it.goal == crate::core::Goal::Down);
        // What was begun is undone also then.
        if let Some(status) = stopped.filter(|_| !matches!(step, Some((_, true)))) {
            let end = refused(&status.reason);
            return self.on_errand_ended(remedy, end);
        }
        let variables = self.variables(remedy, incident, target);
        let Some(surroundings) = self.surroundings(target, variables) else {
            return self.on_errand_ended(remedy, refused("it is no longer configured"));
        };
        info!(%target, incident = incident.0, "runs `{}`", argv.join(" "));
        let reports = self.healing.reports.clone();
        let limit = until.since(clock::now()) + MARGIN;
        let number = incident.0;
        let task = tokio::spawn(async move {
            let report = probe::ask(&Probe::Exec(argv), limit, &surroundings).await;
            for line in String::from_utf8_lossy(&report.output).lines() {
                // Foreign bytes do nothing to a terminal that shows the log.
                let line: String = line.chars().filter(|it| !it.is_control()).collect();
                info!(incident = number, "it prints: {line}");
            }
            let result = match report.verdict {
                Verdict::Pass => Ok(()),
                Verdict::Warn | Verdict::Fail | Verdict::Timeout | Verdict::Unknown => {
                    Err(report.sentence)
                }
            };
            // A loop that has ended needs no answer.
            let _ = reports.send(Report::Errand { remedy, end: ErrandEnd { step, result } });
        });
        let task = AbortOnDropHandle::new(task);
        self.healing.remedies.doing.insert(remedy, Hand::Errand { _task: task });
    }

    pub(super) fn run_step(
        &mut self,
        remedy: RemedyId,
        incident: IncidentId,
        target: Target,
        step: (usize, bool),
        argv: Vec<String>,
    ) {
        let facts = self.healing.care.target_facts(&target);
        let course = facts.and_then(|facts| facts.course.as_ref());
        let limit = course.map_or(HOOK_TIME, |course| course.limit);
        self.run_errand(remedy, incident, &target, Some(step), argv, clock::now() + limit);
    }

    pub(super) fn on_errand_ended(&mut self, remedy: RemedyId, end: ErrandEnd) {
        let ErrandEnd { step, result } = end;
        self.healing.remedies.doing.remove(&remedy);
        match step {
            None => self.end_remedy(remedy, result),
            Some((step, undo)) => {
                self.healing.tell(CareEvent::StepEnded { remedy, step, undo, result });
            }
        }
    }

    /// Returns what a command learns of the incident, beside its program's environment.
    fn variables(
        &self,
        remedy: RemedyId,
        incident: IncidentId,
        target: &Target,
    ) -> Vec<(String, Option<String>)> {
        let facts = self.healing.care.target_facts(target);
        let course = facts.and_then(|facts| facts.course.as_ref());
        let found = facts.and_then(|facts| facts.incident.as_ref()?.finding.as_ref());
        let check = course.map(|course| course.check.to_string());
        let cause = found.map_or(Cause::Unknown, |finding| finding.cause);
        let status = match target {
            Target::Host => None,
            Target::Process(process) => self.core.status(process),
        };
        let pid = status.and_then(|status| status.pid).map(|pid| pid.to_string());
        let of_host = *target == Target::Host;
        let mut variables = vec![
            (MARK, Some(remedy.0.to_string())),
            ("MEND_INCIDENT", Some(incident.0.to_string())),
            ("MEND_TARGET", Some(if of_host { "host".to_owned() } else { target.to_string() })),
            ("MEND_CHECK", check),
            ("MEND_CAUSE", Some(cause.word().to_owned())),
            ("MEND_CAUSE_TEXT", found.map(|finding| finding.sentence.clone())),
            ("MEND_PID", pid),
            // It is none of the run, which may be swept while this command has it replaced.
            ("MEND_RUN", None),
        ];
        if of_host {
            variables.push(("MEND_PROCESS", None));
        }
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Kills what a command of an earlier brain has left, where no control group has done so.
    pub(super) fn kill_left_errand(&self, remedy: RemedyId) {
        let number = remedy.0.to_string();
        for pid in proc::all_pids() {
            let is_ours = |environment: &[u8]| {
                let value = |name| proc::value_in(environment, name);
                value(MARK).as_deref() == Some(&number)
                    && value("MEND_INSTANCE").as_deref() == Some(&self.instance)
            };
            if !proc::environment(pid).is_some_and(|it| is_ours(&it)) {
                continue;
            }
            // Looked at again behind the pidfd: the pid may have been given away.
            if let Ok(pidfd) = PidFd::open(pid)
                && proc::environment(pid).is_some_and(|it| is_ours(&it))
                && let Err(error) = pidfd.signal(libc::SIGKILL)
            {
                warn!(pid, %error, "cannot kill what an interrupted remedy has left");
            }
        }
    }

    /// Tells the operator's command that the mode has changed; nobody waits for it.
    pub(super) fn run_mode_hook(&self, argv: Vec<String>, variables: Vec<(String, String)>) {
        let mut given: Vec<(String, Option<String>)> =
            variables.into_iter().map(|(name, value)| (name, Some(value))).collect();
        given.extend(["MEND_RUN", "MEND_PROCESS"].map(|name| (name.to_owned(), None)));
        let Some(surroundings) = self.surroundings(&Target::Host, given) else { return };
        tokio::spawn(async move {
            let command = argv.join(" ");
            let report = probe::ask(&Probe::Exec(argv), HOOK_TIME, &surroundings).await;
            if report.verdict != Verdict::Pass {
                warn!("`on_mode_change` (`{command}`): {}", report.sentence);
            }
        });
    }
}
