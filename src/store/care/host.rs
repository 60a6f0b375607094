//! What is remembered of the host as a whole, in a record.

use serde::{Deserialize, Serialize};

use super::{CareError, name_of, target_of};
use crate::core::care::brakes::{Brakes, Panic, PanicState};
use crate::core::care::gate::{Episode, PressureGate};
use crate::core::care::mode::{Lasting, ModeState};
use crate::core::care::{HostFacts, IncidentId, Target};
use crate::core::rate::Rate;
use crate::name::NameError;
use crate::time::Instant;

/// The mirror of [`HostFacts`]; times in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct HostRecord {
    /// Who is being healed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    running: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recent: Vec<(u64, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    panic: Option<PanicRecord>,
    #[serde(default)]
    panic_seen_until: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    panic_incident: Option<u64>,
    /// Since when the host is too busy, and when that was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pressure: Option<(u64, u64)>,
    #[serde(default)]
    degraded: LastingRecord,
    #[serde(default)]
    emergency: LastingRecord,
    #[serde(default)]
    evidence: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shed: Vec<String>,
    next_incident: u64,
    next_remedy: u64,
    generation: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PanicRecord {
    since: u64,
    last_failure: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    better_since: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct LastingRecord {
    on: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    differs_since: Option<u64>,
}

impl From<Lasting> for LastingRecord {
    fn from(lasting: Lasting) -> Self {
        Self { on: lasting.on, differs_since: lasting.differs_since.map(Instant::as_nanos) }
    }
}

impl From<LastingRecord> for Lasting {
    fn from(record: LastingRecord) -> Self {
        Self { on: record.on, differs_since: record.differs_since.map(Instant::from_nanos) }
    }
}

impl From<&HostFacts> for HostRecord {
    fn from(facts: &HostFacts) -> Self {
        let panic = match facts.panic.state {
            PanicState::Calm => None,
            PanicState::Panic { since, last_failure, better_since } => Some(PanicRecord {
                since: since.as_nanos(),
                last_failure: last_failure.as_nanos(),
                better_since: better_since.map(Instant::as_nanos),
            }),
        };
        let healed = |(at, target): &(Instant, Target)| (at.as_nanos(), name_of(target));
        let episode = |it: Episode| (it.since.as_nanos(), it.last_seen.as_nanos());
        Self {
            running: facts.brakes.running.iter().map(name_of).collect(),
            recent: facts.brakes.recent.iter().map(healed).collect(),
            panic,
            panic_seen_until: facts.panic.seen_until.as_nanos(),
            panic_incident: facts.panic_incident.map(|incident| incident.0),
            pressure: facts.gate.episode.map(episode),
            degraded: facts.mode.degraded.into(),
            emergency: facts.mode.emergency.into(),
            evidence: facts.evidence.due.as_nanos(),
            shed: facts.shed.iter().map(name_of).collect(),
            next_incident: facts.next_incident,
            next_remedy: facts.next_remedy,
            generation: facts.generation,
        }
    }
}

impl TryFrom<HostRecord> for HostFacts {
    type Error = CareError;

    fn try_from(record: HostRecord) -> Result<Self, CareError> {
        let time = Instant::from_nanos;
        let targets = |names: &[String]| names.iter().map(|name| target_of(name)).collect();
        let running: Result<_, NameError> = targets(&record.running);
        let shed: Result<_, NameError> = targets(&record.shed);
        let healed = |(at, name): &(u64, String)| Ok((time(*at), target_of(name)?));
        let recent: Result<_, NameError> = record.recent.iter().map(healed).collect();
        let state = match record.panic {
            None => PanicState::Calm,
            Some(panic) => PanicState::Panic {
                since: time(panic.since),
                last_failure: time(panic.last_failure),
                better_since: panic.better_since.map(time),
            },
        };
        let episode =
            |(since, last_seen)| Episode { since: time(since), last_seen: time(last_seen) };
        Ok(Self {
            brakes: Brakes { running: running?, recent: recent? },
            panic: Panic { state, seen_until: time(record.panic_seen_until) },
            panic_incident: record.panic_incident.map(IncidentId),
            gate: PressureGate { episode: record.pressure.map(episode) },
            mode: ModeState {
                degraded: record.degraded.into(),
                emergency: record.emergency.into(),
            },
            evidence: Rate { due: time(record.evidence) },
            shed: shed?,
            next_incident: record.next_incident,
            next_remedy: record.next_remedy,
            generation: record.generation,
        })
    }
}
