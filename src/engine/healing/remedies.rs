//! Carries remedies out: what is done at once, what has to be waited for, and when it has ended.
//!
//! What an operator has stopped is never touched. A remedy that replaces runs has ended when the
//! new ones live; whether they are well is for the checks to say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::super::core_loop::Engine;
use super::super::select::processes_of;
use super::super::{ApplyBegun, ApplyRequest, ApplyTarget, GenerationOutcome, Refusal};
use super::Report;
use crate::config::Remedy;
use crate::core::care::{CareEvent, IncidentId, RemedyId, RemedyOutcome, Target};
use crate::core::{Actor, Command, Event, Goal, Mending, ProcessStatus, StateCode};
use crate::name::{ProcessName, ProgramName, RunId};
use crate::os::clock;
use crate::time::Instant;

/// All remedies that are being carried out.
#[derive(Debug, Default)]
pub(super) struct Remedies {
    pub(super) doing: BTreeMap<RemedyId, Hand>,
    /// What is to be removed before the next run of a process is spawned.
    stale_files: BTreeMap<ProcessName, Vec<PathBuf>>,
    /// The last apply that has ended, for a remedy that has yet to learn its number.
    applied: Option<(u64, Result<(), String>)>,
}

/// What is being done for one remedy.
#[derive(Debug)]
pub(super) enum Hand {
    /// A command runs; dropping the task kills it.
    Errand {
        _task: AbortOnDropHandle<()>,
    },
    Renewal(Renewal),
    /// These are to run.
    Standby(BTreeSet<ProcessName>),
    /// An apply was asked for.
    Asking {
        _task: AbortOnDropHandle<()>,
    },
    Apply(u64),
}

/// Runs that are being replaced.
#[derive(Debug)]
pub(super) struct Renewal {
    /// Each process, with the run that is to end.
    pub(super) before: BTreeMap<ProcessName, Option<RunId>>,
    /// Whether what is being stopped is killed at once.
    pub(super) kills: bool,
    pub(super) killed: BTreeSet<RunId>,
}

impl Remedies {
    /// Ends everything that is under way, and kills all commands.
    pub(super) fn drop_all(&mut self) {
        self.doing.clear();
        self.stale_files.clear();
    }

    /// Whether something of this process is waited for.
    pub(super) fn concerns(&self, process: &ProcessName) -> bool {
        self.doing.values().any(|hand| match hand {
            Hand::Renewal(renewal) => renewal.before.contains_key(process),
            Hand::Standby(processes) => processes.contains(process),
            Hand::Errand { .. } | Hand::Asking { .. } | Hand::Apply(_) => false,
        })
    }

    pub(super) fn take_stale_files(&mut self, process: &ProcessName) -> Vec<PathBuf> {
        self.stale_files.remove(process).unwrap_or_default()
    }
}

/// How far a process that is being replaced has come.
#[derive(Debug, PartialEq)]
enum Progress {
    UnderWay,
    Lives,
    Failed(String),
}

/// Judges a process that had the run `before` when its replacement began.
fn judge_renewal(before: Option<RunId>, status: &ProcessStatus) -> Progress {
    let is_new = status.run.is_some() && status.run != before;
    match status.state {
        _ if status.goal == Goal::Down => Progress::Failed(status.reason.clone()),
        StateCode::Starting | StateCode::Running if is_new && status.pid.is_some() => {
            Progress::Lives
        }
        StateCode::Fatal => Progress::Failed(status.reason.clone()),
        // Waiting to be tried again, and not just for the old run to be gone.
        StateCode::Backoff if status.retry_at.is_some() => Progress::Failed(status.reason.clone()),
        StateCode::Exited => Progress::Failed(status.reason.clone()),
        StateCode::Starting | StateCode::Running | StateCode::Stopping => Progress::UnderWay,
        StateCode::Stopped | StateCode::Backoff | StateCode::Unknown => Progress::UnderWay,
    }
}

/// Judges a standby that was to be started.
fn judge_standby(status: &ProcessStatus) -> Progress {
    match status.state {
        _ if status.goal == Goal::Down => {
            Progress::Failed(format!("`{}` {}", status.process, status.reason))
        }
        StateCode::Running => Progress::Lives,
        StateCode::Fatal | StateCode::Exited => Progress::Failed(status.reason.clone()),
        StateCode::Backoff if status.retry_at.is_some() => Progress::Failed(status.reason.clone()),
        StateCode::Starting | StateCode::Stopping | StateCode::Backoff => Progress::UnderWay,
        StateCode::Stopped | StateCode::Unknown => Progress::UnderWay,
    }
}

impl Engine {
    pub(super) fn take_remedy(
        &mut self,
        remedy: RemedyId,
        incident: IncidentId,
        target: Target,
        what: Remedy,
        until: Instant,
    ) {
        let outcome = match what {
            Remedy::Run { argv } => {
                return self.run_errand(remedy, incident, &target, None, argv, until);
            }
            Remedy::Restart => self.renew_target(remedy, incident, &target, false),
            Remedy::CleanRestart => self.renew_target(remedy, incident, &target, true),
            Remedy::RestartGroup => self.renew_group(remedy, incident, &target),
            Remedy::Reload => self.reload_target(incident, &target),
            Remedy::Signal { signal } => self.signal_target(incident, &target, signal),
            Remedy::Fallback { program } => self.engage(remedy, incident, &target, &program),
            Remedy::Rollback => self.roll_back(remedy, incident, &target),
            // The healer does these by itself, step by step.
            Remedy::Steps(_) | Remedy::Shed | Remedy::Confirm => Some(Ok(())),
            Remedy::Alert | Remedy::Quarantine => Some(Ok(())),
        };
        if let Some(outcome) = outcome {
            self.end_remedy(remedy, outcome);
        }
    }

    pub(super) fn end_remedy(&mut self, remedy: RemedyId, outcome: Result<(), String>) {
        self.healing.remedies.doing.remove(&remedy);
        let outcome = match outcome {
            Ok(()) => RemedyOutcome::Done,
            Err(why) => RemedyOutcome::Failed(why),
        };
        self.healing.tell(CareEvent::RemedyEnded { remedy, outcome });
    }

    pub(super) fn cancel_remedy(&mut self, remedy: RemedyId) {
        match self.healing.remedies.doing.remove(&remedy) {
            Some(Hand::Renewal(renewal)) => {
                for process in renewal.before.keys() {
                    self.healing.remedies.stale_files.remove(process);
                }
            }
            Some(Hand::Errand { .. } | Hand::Standby(_) | Hand::Asking { .. }) => {}
            Some(Hand::Apply(_)) => {}
            None => self.kill_left_errand(remedy),
        }
    }

    /// Looks at what is waited for, as far as it has changed.
    pub(super) fn look_at_remedies(&mut self) {
        if self.healing.stirred.is_empty() {
            return;
        }
        self.healing.stirred.clear();
        let doing: Vec<RemedyId> = self.healing.remedies.doing.keys().copied().collect();
        for remedy in doing {
            self.kill_what_stops(remedy);
            if let Some(outcome) = self.judge_remedy(remedy) {
                self.end_remedy(remedy, outcome);
            }
        }
    }

    fn judge_remedy(&self, remedy: RemedyId) -> Option<Result<(), String>> {
        let gone = || Progress::Failed("it is no longer configured".to_owned());
        let status = |process: &ProcessName| self.core.status(process);
        let progress: Vec<Progress> = match self.healing.remedies.doing.get(&remedy)? {
            Hand::Renewal(Renewal { before, .. }) => before
                .iter()
                .map(|(process, run)| {
                    status(process).map_or_else(gone, |status| judge_renewal(*run, &status))
                })
                .collect(),
            Hand::Standby(processes) => processes
                .iter()
                .map(|process| status(process).map_or_else(gone, |it| judge_standby(&it)))
                .collect(),
            Hand::Errand { .. } | Hand::Asking { .. } | Hand::Apply(_) => return None,
        };
        if progress.iter().all(|it| *it == Progress::Lives) {
            return Some(Ok(()));
        }
        progress.into_iter().find_map(|it| match it {
            Progress::Failed(why) => Some(Err(why)),
            Progress::UnderWay | Progress::Lives => None,
        })
    }

    /// Kills what a clean restart stops: whatever hangs is not waited for.
    fn kill_what_stops(&mut self, remedy: RemedyId) {
        let Some(Hand::Renewal(renewal)) = self.healing.remedies.doing.get_mut(&remedy) else {
            return;
        };
        if !renewal.kills {
            return;
        }
        let mut due = Vec::new();
        for (process, before) in &renewal.before {
            let Some(run) = *before else { continue };
            let status = self.core.status(process);
            let stops = status.is_some_and(|status| {
                status.state == StateCode::Stopping && status.run == Some(run)
            });
            if stops && renewal.killed.insert(run) {
                due.push(run);
            }
        }
        due.into_iter().for_each(|run| self.kill_tree(run));
    }

    /// Says why something is done, as the sentences about processes go on from `because`.
    pub(super) fn reason(&self, target: &Target, incident: IncidentId) -> String {
        let facts = self.healing.care.target_facts(target);
        let course = facts.and_then(|facts| facts.course.as_ref());
        match course {
            Some(course) => {
                format!("check `{}` of {target} failed (incident {})", course.check, incident.0)
            }
            None => format!("{target} failed (incident {})", incident.0),
        }
    }

    fn mend_by(&self, target: &Target, incident: IncidentId) -> Actor {
        Actor::mend(self.reason(target, incident), clock::wall())
    }

    /// Returns the status of a target that may be touched.
    fn touchable(&self, target: &Target) -> Result<ProcessStatus, String> {
        let Target::Process(process) = target else {
            return Err("that cannot be done to the host".to_owned());
        };
        let status = self.core.status(process).ok_or("it is no longer configured")?;
        match status.goal {
            Goal::Up => Ok(status),
            Goal::Down => Err(status.reason),
        }
    }

    fn renew_target(
        &mut self,
        remedy: RemedyId,
        incident: IncidentId,
        target: &Target,
        clean: bool,
    ) -> Option<Result<(), String>> {
        let status = match self.touchable(target) {
            Ok(status) => status,
            Err(why) => return Some(Err(why)),
        };
        if clean {
            self.note_stale_files(&status.process);
        }
        self.begin_renewal(remedy, incident, target, vec![status.process], clean);
        None
    }

    pub(super) fn note_stale_files(&mut self, process: &ProcessName) {
        let files = self.core.program(process).map(|program| program.stale_files.clone());
        if let Some(files) = files.filter(|files| !files.is_empty()) {
            self.healing.remedies.stale_files.insert(process.clone(), files);
        }
    }

    fn renew_group(
        &mut self,
        remedy: RemedyId,
        incident: IncidentId,
        target: &Target,
    ) -> Option<Result<(), String>> {
        let status = match self.touchable(target) {
            Ok(status) => status,
            Err(why) => return Some(Err(why)),
        };
        let name = &status.program.name;
        let groups = self.config.groups.values().filter(|it| it.programs.contains(name));
        let mut programs: BTreeSet<&ProgramName> = groups.flat_map(|it| &it.programs).collect();
        programs.insert(name);
        let programs = programs.into_iter().filter_map(|name| self.config.programs.get(name));
        let is_up = |process: &ProcessName| {
            self.core.status(process).is_some_and(|status| status.goal == Goal::Up)
        };
        let processes = programs.flat_map(|program| processes_of(program)).filter(is_up).collect();
        self.begin_renewal(remedy, incident, target, processes, false);
        None
    }

    fn begin_renewal(
        &mut self,
        remedy: RemedyId,
        incident: IncidentId,
        target: &Target,
        processes: Vec<ProcessName>,
        kills: bool,
    ) {
        let run = |process: &ProcessName| self.core.status(process).and_then(|it| it.run);
        let before = processes.iter().map(|process| (process.clone(), run(process))).collect();
        let renewal = Renewal { before, kills, killed: BTreeSet::new() };
        self.healing.remedies.doing.insert(remedy, Hand::Renewal(renewal));
        let by = self.mend_by(target, incident);
        self.healing.stirred.extend(processes.iter().cloned());
        self.tell(Event::Mend { what: Mending::Replace, processes, by });
    }

    fn reload_target(
        &mut self,
        incident: IncidentId,
        target: &Target,
    ) -> Option<Result<(), String>> {
        let signal = self.touchable(target).and_then(|status| {
            let signal = status.program.lifecycle.reload_signal;
            signal.ok_or_else(|| format!("`{}` has no `reload_signal`", status.program.name))
        });
        match signal {
            Ok(signal) => self.signal_target(incident, target, signal),
            Err(why) => Some(Err(why)),
        }
    }

    fn signal_target(
        &mut self,
        incident: IncidentId,
        target: &Target,
        signal: i32,
    ) -> Option<Result<(), String>> {
        let status = match self.touchable(target) {
            Ok(status) if status.pid.is_some() => status,
            Ok(_) => return Some(Err("it does not run".to_owned())),
            Err(why) => return Some(Err(why)),
        };
        // What was stopped may have been so as a whole, and going on harms nobody.
        let hands = status.run.and_then(|run| self.runs.get(&run));
        if let (libc::SIGCONT, Some(hands)) = (signal, hands) {
            let sent = hands.signal(signal, true);
            return Some(sent.map_err(|error| format!("it cannot be signalled: {error}")));
        }
        let by = self.mend_by(target, incident);
        let processes = vec![status.process];
        self.tell(Event::Operator(Command::Signal { processes, signal, by }));
        Some(Ok(()))
    }

    pub(super) fn engage(
        &mut self,
        remedy: RemedyId,
        incident: IncidentId,
        target: &Target,
        program: &ProgramName,
    ) -> Option<Result<(), String>> {
        if *target != Target::Host
            && let Err(why) = self.touchable(target)
        {
            return Some(Err(why));
        }
        let Some(declared) = self.config.programs.get(program) else {
            return Some(Err(format!("`{program}` is no longer configured")));
        };
        let processes = processes_of(declared);
        let by = self.mend_by(target, incident);
        let standby = Hand::Standby(processes.iter().cloned().collect());
        self.healing.remedies.doing.insert(remedy, standby);
        self.healing.stirred.extend(processes.iter().cloned());
        self.tell(Event::Mend { what: Mending::Engage, processes, by });
        None
    }

    pub(super) fn end_fallback(&mut self, target: &Target, program: &ProgramName) {
        let Some(declared) = self.config.programs.get(program) else { return };
        let processes = processes_of(declared);
        let by = Actor::mend(format!("{target} is well again"), clock::wall());
        self.tell(Event::Mend { what: Mending::Disengage, processes, by });
    }

    fn roll_back(
        &mut self,
        remedy: RemedyId,
        incident: IncidentId,
        target: &Target,
    ) -> Option<Result<(), String>> {
        let current = self.books.generations.current();
        if let Some(back) = current.filter(|it| it.copy_of.is_some() && it.by.is_mend()) {
            let number = back.number;
            return Some(Err(format!(
                "the configuration before is back since generation {number}"
            )));
        }
        let (reply, answer) = oneshot::channel::<Result<ApplyBegun, Refusal>>();
        let reports = self.healing.reports.clone();
        let task = tokio::spawn(async move {
            let begun = match answer.await {
                Ok(Ok(apply)) if apply.begun => Ok(apply.generation),
                Ok(Ok(_)) => Err("the configuration before is the same".to_owned()),
                Ok(Err(refusal)) => Err(refusal.to_string()),
                Err(_gone) => Err("the daemon ends".to_owned()),
            };
            // A loop that has ended needs no answer.
            let _ = reports.send(Report::Applying { remedy, begun });
        });
        let hand = Hand::Asking { _task: AbortOnDropHandle::new(task) };
        self.healing.remedies.doing.insert(remedy, hand);
        let request = ApplyRequest {
            by: self.mend_by(target, incident),
            target: ApplyTarget::Previous,
            patience: None,
            roll_back: true,
            fingerprint: None,
        };
        self.apply(request, Some(reply));
        None
    }

    pub(super) fn on_rollback_begun(&mut self, remedy: RemedyId, begun: Result<u64, String>) {
        let doing = &mut self.healing.remedies.doing;
        if !matches!(doing.get(&remedy), Some(Hand::Asking { .. })) {
            return;
        }
        match begun {
            Err(why) => self.end_remedy(remedy, Err(why)),
            Ok(generation) => {
                doing.insert(remedy, Hand::Apply(generation));
                if let Some((last, outcome)) = self.healing.remedies.applied.take()
                    && last == generation
                {
                    self.end_remedy(remedy, outcome);
                }
            }
        }
    }

    /// An apply has come to its end.
    pub(in crate::engine) fn on_applied(
        &mut self,
        generation: u64,
        outcome: GenerationOutcome,
        why: Option<&str>,
    ) {
        let result = match outcome {
            GenerationOutcome::Applied | GenerationOutcome::Kept => Ok(()),
            GenerationOutcome::RolledBack | GenerationOutcome::Applying => {
                Err(why.unwrap_or("it was given up").to_owned())
            }
            GenerationOutcome::Interrupted | GenerationOutcome::Rejected => {
                Err(why.unwrap_or("it was given up").to_owned())
            }
        };
        let waits = |hand: &Hand| matches!(hand, Hand::Apply(number) if *number == generation);
        let doing = self.healing.remedies.doing.iter();
        let waiting = doing.filter(|(_, hand)| waits(hand)).map(|(remedy, _)| *remedy).next();
        match waiting {
            Some(remedy) => self.end_remedy(remedy, result),
            None => self.healing.remedies.applied = Some((generation, result)),
        }
    }
}
