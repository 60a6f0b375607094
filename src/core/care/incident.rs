//! Incidents: when one begins, what caused it, when it is over; and who is told.

use std::time::Duration;

use super::cause;
use super::event::*;
use super::evidence::Evidence;
use super::healer::Care;
use super::patient::Incident;
use super::story::{Closing, Story};
use crate::core::rate::RateLimit;
use crate::name::CheckName;
use crate::time::Instant;

/// How long healing waits for evidence.
const EVIDENCE_TIME: Duration = Duration::from_secs(5);
/// Evidence costs a walk through `/proc`; when everything fails at once most do without.
const EVIDENCE_RATE: RateLimit = RateLimit { every: Duration::from_secs(1), burst: 10 };

impl Care {
    /// Begins an incident, or goes on with the one in progress, and asks for evidence.
    pub(super) fn open_incident(
        &mut self,
        now: Instant,
        target: &Target,
        check: Option<CheckName>,
        story: Story,
        actions: &mut Vec<CareAction>,
    ) {
        let id = self.incident_of(now, target);
        let Some(patient) = self.patients.get_mut(target) else { return };
        let Some(incident) = &mut patient.facts.incident else { return };
        if incident.recovered.take().is_some() {
            let story = Story::Relapsed;
            actions.push(CareAction::Tell { incident: id, target: target.clone(), story });
        }
        actions.push(CareAction::Tell { incident: id, target: target.clone(), story });
        if self.host.evidence.try_take(now, &EVIDENCE_RATE).is_ok() {
            incident.evidence_by = Some(now + EVIDENCE_TIME);
            let target = target.clone();
            actions.push(CareAction::CollectEvidence { incident: id, target, check });
        }
    }

    /// Returns the incident in progress, which begins now if there was none.
    pub(super) fn incident_of(&mut self, now: Instant, target: &Target) -> IncidentId {
        let id = IncidentId(self.host.next_incident);
        let Some(patient) = self.patients.get_mut(target) else { return id };
        if let Some(incident) = &patient.facts.incident {
            return incident.id;
        }
        self.host.next_incident += 1;
        patient.facts.incident = Some(Incident {
            id,
            opened: now,
            evidence_by: None,
            finding: None,
            begun: 0,
            failed: 0,
            alerted: false,
            recovered: None,
        });
        id
    }

    pub(super) fn on_evidence(
        &mut self,
        _now: Instant,
        target: &Target,
        incident: IncidentId,
        evidence: &Evidence,
        actions: &mut Vec<CareAction>,
    ) {
        let finding = cause::find(evidence);
        if self.host.panic_incident == Some(incident) {
            let story = Story::Cause(finding);
            return actions.push(CareAction::Tell { incident, target: target.clone(), story });
        }
        let Some(patient) = self.patients.get_mut(target) else { return };
        let Some(ours) = patient.facts.incident.as_mut().filter(|ours| ours.id == incident) else {
            return;
        };
        ours.evidence_by = None;
        let known = ours.finding.as_ref().filter(|known| known.outlasts(&finding));
        let is_news = known.is_none();
        let finding = known.cloned().unwrap_or(finding);
        ours.finding = Some(finding.clone());
        for check in patient.down_checks() {
            if let Some(facts) = patient.facts.checks.get_mut(&check.name) {
                facts.ladder.begin_at(finding.first_rung(&check.heal));
            }
        }
        if is_news {
            self.tell(target, || Story::Cause(finding), actions);
        }
        self.stirred.insert(target.clone());
    }

    /// Looks whether the target is well again, still, or no longer.
    pub(super) fn review(&mut self, now: Instant, target: &Target, actions: &mut Vec<CareAction>) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let well = patient.is_well() && patient.facts.course.is_none();
        let stable = patient.stable();
        let Some(incident) = &mut patient.facts.incident else { return };
        match incident.recovered {
            None if well => {
                incident.recovered = Some(now);
                incident.evidence_by = None;
                let after = now.since(incident.opened);
                let alerted = incident.alerted;
                let story = Story::Recovered { after };
                if alerted {
                    let sentence = format!("{target} {}", story.sentence());
                    self.alert(target, AlertKind::Recovered, sentence, actions);
                }
                self.tell(target, || story, actions);
            }
            Some(_) if !well => incident.recovered = None,
            Some(since) if now >= since + stable => {
                let closing = match incident.begun {
                    0 => Closing::ByItself,
                    remedies => Closing::Healed { remedies },
                };
                self.close_incident(target, closing, actions);
            }
            None | Some(_) => {}
        }
    }

    /// Ends the incident, and with it what was done for its time only.
    pub(super) fn close_incident(
        &mut self,
        target: &Target,
        closing: Closing,
        actions: &mut Vec<CareAction>,
    ) {
        self.tell(target, || Story::Closed(closing), actions);
        let Some(patient) = self.patients.get_mut(target) else { return };
        patient.facts.incident = None;
        for program in std::mem::take(&mut patient.facts.fallbacks) {
            actions.push(CareAction::EndFallback { target: target.clone(), program });
        }
        self.host_stirred |= std::mem::take(&mut patient.facts.sheds_others);
    }

    /// Adds to the story of the incident in progress, if there is one.
    pub(super) fn tell(
        &mut self,
        target: &Target,
        story: impl FnOnce() -> Story,
        actions: &mut Vec<CareAction>,
    ) {
        let incident = self.patients.get(target).and_then(|p| p.facts.incident.as_ref());
        if let Some(incident) = incident {
            let (incident, target) = (incident.id, target.clone());
            actions.push(CareAction::Tell { incident, target, story: story() });
        }
    }

    /// Tells people, unless the target is on hold.
    pub(super) fn alert(
        &mut self,
        target: &Target,
        kind: AlertKind,
        sentence: String,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        if patient.is_held() {
            return;
        }
        if let Some(incident) = &mut patient.facts.incident {
            incident.alerted = true;
        }
        let incident = patient.facts.incident.as_ref().map(|incident| incident.id);
        let target = target.clone();
        actions.push(CareAction::Alert(Alert { kind, target, incident, sentence }));
    }
}
