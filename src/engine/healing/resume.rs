//! What an earlier brain began: what became of it is said, and nothing is begun again.

use std::collections::BTreeSet;

use super::super::core_loop::Engine;
use super::super::select::processes_of;
use super::remedies::{Hand, Renewal};
use crate::config::Remedy;
use crate::core::care::{CareEvent, IncidentId, RemedyId, RemedyOutcome, Target};
use crate::core::{Event, Mending, ProcessStatus, StateCode};
use crate::name::{ProcessName, RunId};

impl Engine {
    /// Says what became of a remedy, or waits for what is still under way.
    pub(super) fn resume_remedy(&mut self, remedy: RemedyId, target: Target, what: Remedy) {
        let incident = self.incident_of(&target);
        let goes_on = match &what {
            Remedy::Restart => self.resume_renewal(remedy, &target, false),
            Remedy::CleanRestart => self.resume_renewal(remedy, &target, true),
            Remedy::RestartGroup => self.resume_renewal(remedy, &target, false),
            Remedy::Fallback { program } => {
                let ended = self.engage(remedy, incident, &target, program);
                if let Some(outcome) = ended {
                    self.end_remedy(remedy, outcome);
                }
                true
            }
            Remedy::Rollback => self.resume_rollback(remedy),
            Remedy::Run { .. } => {
                self.kill_left_errand(remedy);
                false
            }
            Remedy::Reload | Remedy::Signal { .. } | Remedy::Steps(_) | Remedy::Shed => false,
            Remedy::Confirm | Remedy::Alert | Remedy::Quarantine => false,
        };
        if !goes_on {
            let outcome = RemedyOutcome::Lost;
            self.healing.tell(CareEvent::RemedyEnded { remedy, outcome });
        }
    }

    pub(super) fn incident_of(&self, target: &Target) -> IncidentId {
        let facts = self.healing.care.target_facts(target);
        let course = facts.and_then(|facts| facts.course.as_ref());
        course.map_or(IncidentId(0), |course| course.incident)
    }

    /// Waits for the new run of a process that has not got it yet.
    fn resume_renewal(&mut self, remedy: RemedyId, target: &Target, kills: bool) -> bool {
        let Target::Process(process) = target else { return false };
        let Some(status) = self.core.status(process) else { return false };
        let Some(before) = run_to_end(&status) else { return false };
        if kills {
            self.note_stale_files(process);
        }
        let before = [(process.clone(), before)].into();
        let renewal = Renewal { before, kills, killed: BTreeSet::new() };
        self.healing.remedies.doing.insert(remedy, Hand::Renewal(renewal));
        self.healing.stirred.insert(process.clone());
        true
    }

    fn resume_rollback(&mut self, remedy: RemedyId) -> bool {
        let order = self.applying.as_ref().map(|applying| &applying.progress().order);
        let Some(order) = order.filter(|order| order.by.is_mend()) else { return false };
        let generation = order.generation;
        self.healing.remedies.doing.insert(remedy, Hand::Apply(generation));
        true
    }

    /// Brings what the core does and what the healer remembers together, in case the last brain
    /// died between writing down and doing.
    pub(super) fn reconcile(&mut self) {
        let shed: BTreeSet<Target> = self.healing.care.host_facts().shed.clone();
        let is_shed = |process: &ProcessName| {
            self.core.snapshot(process).is_some_and(|facts| facts.shed.is_some())
        };
        let has_pid =
            |process: &ProcessName| self.core.status(process).is_some_and(|it| it.pid.is_some());
        let (mut more, mut less) = (Vec::new(), Vec::new());
        for process in self.core.names() {
            let target = Target::Process(process.clone());
            match (shed.contains(&target), is_shed(process)) {
                (true, false) if has_pid(process) => more.push(process.clone()),
                (false, true) => less.push(process.clone()),
                (true, true | false) | (false, false) => {}
            }
        }
        let by = |why: &str| crate::core::Actor::mend(why.to_owned(), crate::os::clock::wall());
        self.mend(Mending::Shed, more, by("others need what it uses"));
        self.mend(Mending::Unshed, less, by("it is needed no longer"));
        let targets: Vec<Target> = self.healing.care.targets().cloned().collect();
        let mut standbys: BTreeSet<ProcessName> = BTreeSet::new();
        for target in &targets {
            let facts = self.healing.care.target_facts(target);
            for program in facts.into_iter().flat_map(|facts| &facts.fallbacks) {
                if let Some(declared) = self.config.programs.get(program) {
                    standbys.extend(processes_of(declared));
                }
            }
        }
        let standbys = standbys.into_iter().collect();
        self.mend(Mending::Engage, standbys, by("it stands in for what is not well"));
    }

    fn mend(&mut self, what: Mending, processes: Vec<ProcessName>, by: crate::core::Actor) {
        if !processes.is_empty() {
            self.tell(Event::Mend { what, processes, by });
        }
    }
}

/// Returns the run that has yet to end of a process that is being replaced, or that none has;
/// `None` for a process that nothing is done to.
fn run_to_end(status: &ProcessStatus) -> Option<Option<RunId>> {
    match status.state {
        StateCode::Stopping => Some(status.run),
        StateCode::Starting if status.pid.is_none() => Some(None),
        // Its start waits for something.
        StateCode::Stopped | StateCode::Backoff if status.goal == crate::core::Goal::Up => {
            Some(None)
        }
        StateCode::Stopped | StateCode::Starting | StateCode::Running => None,
        StateCode::Backoff | StateCode::Exited | StateCode::Fatal => None,
        StateCode::Unknown => None,
    }
}
