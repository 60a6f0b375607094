//! The core's decisions as they are written down: one JSON object per process.
//!
//! Times are nanoseconds of the monotonic clock, so the record is worth something only until
//! the next reboot; the goals alone outlive it. Member names are short and are a promise: a
//! record of any released version must load.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::backoff::Backoff;
use crate::core::breaker::Breaker;
use crate::core::{
    Actor, Born, BreakerState, Exit, Failing, Goal, Remains, Said, Snapshot, SpawnFailure, State,
    StateCode, StopPhase,
};
use crate::name::{NameError, RunId};
use crate::time::{Instant, Wall};

/// Why a record is not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    #[error("the record is not valid JSON of a snapshot")]
    Json(#[from] serde_json::Error),
    #[error("the record names no process")]
    Name(#[from] NameError),
    #[error("the record has the unknown state number {0}")]
    StateCode(u16),
}

/// Writes a snapshot as compact JSON.
///
/// # Errors
///
/// Only when memory for the text cannot be had in the way `serde_json` wants it; the types
/// themselves always serialise.
pub fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, DecisionError> {
    Ok(serde_json::to_vec(&Decision::from(snapshot))?)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
///
/// Anything that is not a whole snapshot, with what is wrong.
pub fn decode(json: &[u8]) -> Result<Snapshot, DecisionError> {
    Snapshot::try_from(serde_json::from_slice::<Decision>(json)?)
}

/// The mirror of [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    process: String,
    up: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<By>,
    state: StateRecord,
    since: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    restart: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    removed: bool,
    /// Run and when it is killed again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    remains: Vec<(u64, Option<u64>)>,
    starts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<(ExitRecord, u64)>,
    /// Message and whether it is transient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<(String, bool)>,
    /// Failures, delays, last delay in nanoseconds.
    #[serde(default)]
    backoff: (u32, u32, u64),
    breaker: BreakerRecord,
    #[serde(default, skip_serializing_if = "SaidRecord::is_nothing")]
    said: SaidRecord,
    /// Why the run is stopped as a failure, and whether it had counted as running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failing: Option<(String, bool)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shed: Option<By>,
    #[serde(default, skip_serializing_if = "is_zero")]
    known: u64,
}

/// The mirror of [`Said`]; times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct SaidRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    look: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    ready: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    unheard: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watchdog: Option<u64>,
}

/// The mirror of [`Actor`], the time in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct By {
    uid: Option<u32>,
    name: String,
    reason: Option<String>,
    at: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateRecord {
    Stopped,
    Waiting { shows: u16, told: bool },
    Starting { run: u64, born: Option<(u32, u64)> },
    Running { run: u64, born: (u32, u64) },
    Signalled { run: u64, born: (u32, u64), step: usize, until: u64 },
    Killing { run: u64, born: (u32, u64), again_at: u64, times: u32 },
    Sweeping { run: u64, born: (u32, u64), kill_at: Option<u64> },
    Backoff { retry_at: u64 },
    Exited,
    Fatal,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExitRecord {
    Code(i32),
    Signal(i32, bool),
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct BreakerRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open_until: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    half_open: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failures: Vec<u64>,
    #[serde(default)]
    opened: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl SaidRecord {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&Said> for SaidRecord {
    fn from(said: &Said) -> Self {
        Self {
            status: said.status.clone(),
            look: said.look.clone(),
            ready: said.ready,
            unheard: said.unheard,
            start_until: said.start_until.map(Instant::as_nanos),
            watchdog: said.watchdog.map(nanos_of),
        }
    }
}

impl From<SaidRecord> for Said {
    fn from(record: SaidRecord) -> Self {
        Self {
            status: record.status,
            look: record.look,
            ready: record.ready,
            unheard: record.unheard,
            start_until: record.start_until.map(Instant::from_nanos),
            watchdog: record.watchdog.map(Duration::from_nanos),
        }
    }
}

pub(super) fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&Actor> for By {
    fn from(actor: &Actor) -> Self {
        let Actor { uid, name, reason, at } = actor.clone();
        Self { uid, name, reason, at: at.0 }
    }
}

impl From<By> for Actor {
    fn from(by: By) -> Self {
        Self { uid: by.uid, name: by.name, reason: by.reason, at: Wall(by.at) }
    }
}

impl From<&Snapshot> for Decision {
    fn from(snapshot: &Snapshot) -> Self {
        let nanos = Instant::as_nanos;
        Self {
            process: snapshot.process.to_string(),
            up: snapshot.goal == Goal::Up,
            by: snapshot.goal_by.as_ref().map(By::from),
            state: (&snapshot.state).into(),
            since: nanos(snapshot.since),
            restart: snapshot.restart,
            removed: snapshot.removed,
            remains: snapshot
                .remains
                .iter()
                .map(|remains| (remains.run.0, remains.kill_again_at.map(nanos)))
                .collect(),
            starts: snapshot.starts,
            exit: snapshot.last_exit.map(|(exit, at)| (exit.into(), nanos(at))),
            failure: snapshot.failure.as_ref().map(|f| (f.message.clone(), f.transient)),
            backoff: (
                snapshot.backoff.failures,
                snapshot.backoff.delays,
                nanos_of(snapshot.backoff.last_delay),
            ),
            breaker: (&snapshot.breaker).into(),
            said: (&snapshot.said).into(),
            failing: snapshot.failing.as_ref().map(|f| (f.why.clone(), f.counted_as_running)),
            because: snapshot.because.clone(),
            shed: snapshot.shed.as_ref().map(By::from),
            known: snapshot.known.0,
        }
    }
}

impl TryFrom<Decision> for Snapshot {
    type Error = DecisionError;

    fn try_from(decision: Decision) -> Result<Self, DecisionError> {
        let time = Instant::from_nanos;
        let (failures, delays, last_delay) = decision.backoff;
        Ok(Self {
            process: decision.process.parse()?,
            goal: if decision.up { Goal::Up } else { Goal::Down },
            goal_by: decision.by.map(Actor::from),
            state: decision.state.try_into()?,
            since: time(decision.since),
            restart: decision.restart,
            removed: decision.removed,
            remains: decision
                .remains
                .into_iter()
                .map(|(run, at)| Remains { run: RunId(run), kill_again_at: at.map(time) })
                .collect(),
            starts: decision.starts,
            last_exit: decision.exit.map(|(exit, at)| (exit.into(), time(at))),
            failure: decision
                .failure
                .map(|(message, transient)| SpawnFailure { message, transient }),
            backoff: Backoff { failures, delays, last_delay: Duration::from_nanos(last_delay) },
            breaker: decision.breaker.into(),
            said: decision.said.into(),
            failing: decision
                .failing
                .map(|(why, counted_as_running)| Failing { why, counted_as_running }),
            because: decision.because,
            shed: decision.shed.map(Actor::from),
            known: RunId(decision.known),
        })
    }
}

impl From<&State> for StateRecord {
    fn from(state: &State) -> Self {
        let nanos = Instant::as_nanos;
        let pair = |born: Born| (born.pid, nanos(born.at));
        match *state {
            State::Stopped => Self::Stopped,
            State::Waiting { shows, told } => Self::Waiting { shows: shows.code(), told },
            State::Starting { run, born } => Self::Starting { run: run.0, born: born.map(pair) },
            State::Running { run, born } => Self::Running { run: run.0, born: pair(born) },
            State::Stopping { run: RunId(run), born, phase } => {
                let born = pair(born);
                match phase {
                    StopPhase::Signalled { step, until } => {
                        Self::Signalled { run, born, step, until: nanos(until) }
                    }
                    StopPhase::Killing { again_at, times } => {
                        Self::Killing { run, born, again_at: nanos(again_at), times }
                    }
                    StopPhase::Sweeping { kill_at } => {
                        Self::Sweeping { run, born, kill_at: kill_at.map(nanos) }
                    }
                }
            }
            State::Backoff { retry_at } => Self::Backoff { retry_at: nanos(retry_at) },
            State::Exited => Self::Exited,
            State::Fatal => Self::Fatal,
        }
    }
}

impl TryFrom<StateRecord> for State {
    type Error = DecisionError;

    fn try_from(record: StateRecord) -> Result<Self, DecisionError> {
        let time = Instant::from_nanos;
        let born = |(pid, at): (u32, u64)| Born { pid, at: time(at) };
        let stopping = |run: u64, pair: (u32, u64), phase: StopPhase| Self::Stopping {
            run: RunId(run),
            born: born(pair),
            phase,
        };
        Ok(match record {
            StateRecord::Stopped => Self::Stopped,
            StateRecord::Waiting { shows, told } => Self::Waiting { shows: code(shows)?, told },
            StateRecord::Starting { run, born: pair } => {
                Self::Starting { run: RunId(run), born: pair.map(born) }
            }
            StateRecord::Running { run, born: pair } => {
                Self::Running { run: RunId(run), born: born(pair) }
            }
            StateRecord::Signalled { run, born, step, until } => {
                stopping(run, born, StopPhase::Signalled { step, until: time(until) })
            }
            StateRecord::Killing { run, born, again_at, times } => {
                stopping(run, born, StopPhase::Killing { again_at: time(again_at), times })
            }
            StateRecord::Sweeping { run, born, kill_at } => {
                stopping(run, born, StopPhase::Sweeping { kill_at: kill_at.map(time) })
            }
            StateRecord::Backoff { retry_at } => Self::Backoff { retry_at: time(retry_at) },
            StateRecord::Exited => Self::Exited,
            StateRecord::Fatal => Self::Fatal,
        })
    }
}

/// Returns the state that has this number.
fn code(number: u16) -> Result<StateCode, DecisionError> {
    use StateCode::{Backoff, Exited, Fatal, Running, Starting, Stopped, Stopping, Unknown};
    [Stopped, Starting, Running, Backoff, Stopping, Exited, Fatal, Unknown]
        .into_iter()
        .find(|code| code.code() == number)
        .ok_or(DecisionError::StateCode(number))
}

impl From<Exit> for ExitRecord {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code(code),
            Exit::Signal { signal, core_dumped } => Self::Signal(signal, core_dumped),
            Exit::Unknown => Self::Unknown,
        }
    }
}

impl From<ExitRecord> for Exit {
    fn from(record: ExitRecord) -> Self {
        match record {
            ExitRecord::Code(code) => Self::Code(code),
            ExitRecord::Signal(signal, core_dumped) => Self::Signal { signal, core_dumped },
            ExitRecord::Unknown => Self::Unknown,
        }
    }
}

impl From<&Breaker> for BreakerRecord {
    fn from(breaker: &Breaker) -> Self {
        let (open_until, half_open) = match breaker.state {
            BreakerState::Closed => (None, false),
            BreakerState::Open { until } => (Some(until.as_nanos()), false),
            BreakerState::HalfOpen => (None, true),
        };
        let failures = breaker.failures.iter().map(|at| at.as_nanos()).collect();
        Self { open_until, half_open, failures, opened: breaker.opened }
    }
}

impl From<BreakerRecord> for Breaker {
    fn from(record: BreakerRecord) -> Self {
        let state = match (record.open_until, record.half_open) {
            (Some(until), _) => BreakerState::Open { until: Instant::from_nanos(until) },
            (None, true) => BreakerState::HalfOpen,
            (None, false) => BreakerState::Closed,
        };
        let failures = record.failures.into_iter().map(Instant::from_nanos).collect();
        Self { state, failures, opened: record.opened }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instants() -> impl Strategy<Value = Instant> {
        any::<u64>().prop_map(Instant::from_nanos)
    }

    fn births() -> impl Strategy<Value = Born> {
        (any::<u32>(), instants()).prop_map(|(pid, at)| Born { pid, at })
    }

    fn states() -> impl Strategy<Value = State> {
        let phases = prop_oneof![
            (0_usize..9, instants()).prop_map(|(step, until)| StopPhase::Signalled { step, until }),
            (instants(), any::<u32>())
                .prop_map(|(again_at, times)| StopPhase::Killing { again_at, times }),
            proptest::option::of(instants()).prop_map(|kill_at| StopPhase::Sweeping { kill_at }),
        ];
        let runs = || any::<u64>().prop_map(RunId);
        prop_oneof![
            Just(State::Stopped),
            any::<bool>().prop_map(|told| State::Waiting { shows: StateCode::Fatal, told }),
            (runs(), proptest::option::of(births()))
                .prop_map(|(run, born)| State::Starting { run, born }),
            (runs(), births()).prop_map(|(run, born)| State::Running { run, born }),
            (runs(), births(), phases).prop_map(|(run, born, phase)| State::Stopping {
                run,
                born,
                phase
            }),
            instants().prop_map(|retry_at| State::Backoff { retry_at }),
            Just(State::Exited),
            Just(State::Fatal),
        ]
    }

    fn exits() -> impl Strategy<Value = Exit> {
        prop_oneof![
            any::<i32>().prop_map(Exit::Code),
            (1..64, any::<bool>())
                .prop_map(|(signal, core_dumped)| Exit::Signal { signal, core_dumped }),
            Just(Exit::Unknown),
        ]
    }

    prop_compose! {
        fn snapshots()(
            state in states(),
            since in instants(),
            flags in any::<(bool, bool, bool)>(),
            by in proptest::option::of((any::<Option<u32>>(), ".*", any::<Option<String>>(), any::<i64>())),
            remains in proptest::collection::vec((any::<u64>(), proptest::option::of(instants())), 0..3),
            starts in any::<u64>(),
            last_exit in proptest::option::of((exits(), instants())),
            failure in proptest::option::of((".*", any::<bool>())),
            backoff in any::<(u32, u32, u64)>(),
            failures in proptest::collection::vec(instants(), 0..5),
            said in (any::<Option<String>>(), any::<Option<String>>(), proptest::option::of(instants()), any::<Option<u64>>(), any::<(bool, bool)>()),
            failing in any::<Option<(String, bool)>>(),
            because in any::<Option<String>>(),
            known in any::<u64>(),
            breaker in prop_oneof![
                Just(BreakerState::Closed),
                Just(BreakerState::HalfOpen),
                instants().prop_map(|until| BreakerState::Open { until }),
            ],
        ) -> Snapshot {
            Snapshot {
                process: "web:3".parse().unwrap(),
                goal: if flags.0 { Goal::Up } else { Goal::Down },
                goal_by: by.map(|(uid, name, reason, at)| Actor { uid, name, reason, at: Wall(at) }),
                state,
                since,
                restart: flags.1,
                removed: flags.2,
                remains: remains
                    .into_iter()
                    .map(|(run, kill_again_at)| Remains { run: RunId(run), kill_again_at })
                    .collect(),
                starts,
                last_exit,
                failure: failure.map(|(message, transient)| SpawnFailure { message, transient }),
                backoff: Backoff {
                    failures: backoff.0,
                    delays: backoff.1,
                    last_delay: Duration::from_nanos(backoff.2),
                },
                breaker: Breaker { state: breaker, failures: failures.into(), opened: backoff.1 },
                said: Said {
                    status: said.0,
                    look: said.1,
                    ready: said.4.0,
                    unheard: said.4.1,
                    start_until: said.2,
                    watchdog: said.3.map(Duration::from_nanos),
                },
                failing: failing
                    .map(|(why, counted_as_running)| Failing { why, counted_as_running }),
                because,
                shed: flags.2.then(|| Actor::mend("a test".into(), Wall(1))),
                known: RunId(known),
            }
        }
    }

    proptest! {
        #[test]
        fn every_snapshot_survives_the_record(snapshot in snapshots()) {
            prop_assert_eq!(decode(&encode(&snapshot).unwrap()).unwrap(), snapshot);
        }

        #[test]
        fn a_torn_record_is_refused(snapshot in snapshots(), cut in 1_usize..50) {
            let json = encode(&snapshot).unwrap();
            prop_assert!(decode(&json[..json.len().saturating_sub(cut)]).is_err());
        }
    }

    #[test]
    fn a_record_of_before_readiness_loads() {
        let json = r#"{"process":"web","up":true,"state":{"starting":{"run":7,"born":[12,5]}},
            "since":1,"starts":1,"breaker":{}}"#;
        let snapshot = decode(json.as_bytes()).unwrap();
        assert_eq!((snapshot.said, snapshot.failing), (Said::default(), None));
        assert_eq!((snapshot.because, snapshot.known), (None, RunId(0)));
    }

    #[test]
    fn a_record_with_an_unknown_state_number_is_refused() {
        let json = r#"{"process":"web","up":true,"state":{"waiting":{"shows":7,"told":true}},
            "since":1,"starts":0,"breaker":{}}"#;
        assert!(matches!(decode(json.as_bytes()), Err(DecisionError::StateCode(7))));
    }
}
