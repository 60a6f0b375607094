//! What the healer remembers, as it is written down: one JSON object per target, one for the host.
//!
//! Within a boot the records are in the journal and their times are those of the monotonic clock.
//! For the next boot [`encode_all`] puts them together with the moment of writing on both clocks,
//! and [`Remembered::at`] moves every time to where it belongs on the new clock. Member names are
//! a promise: a record of any released version must load.

mod host;
mod reboot;
mod remedy;
mod target;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::core::care::{HostFacts, Target, TargetFacts};
use crate::name::NameError;
use crate::time::{Instant, Wall};

use self::host::HostRecord;
use self::target::TargetRecord;

/// Version of the file in the state directory.
pub const VERSION: u32 = 1;

/// How the host is called in a record; no process can be called so.
const HOST: &str = "!host";

/// Why a record is not understood.
#[derive(Debug, thiserror::Error)]
pub enum CareError {
    #[error("the record is not valid JSON of what the healer remembers")]
    Json(#[from] serde_json::Error),
    #[error("the record has a name that is none")]
    Name(#[from] NameError),
    #[error("the record has the unknown cause `{0}`")]
    Cause(String),
}

/// All that is remembered, and when it was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Remembered {
    /// The boot whose monotonic clock the times are of.
    pub boot: String,
    pub written: (Instant, Wall),
    pub host: HostFacts,
    pub targets: Vec<TargetFacts>,
}

#[derive(Serialize, Deserialize)]
struct RememberedRecord {
    boot: String,
    /// Nanoseconds of the monotonic clock and milliseconds since 1970-01-01 UTC.
    written: (u64, i64),
    host: HostRecord,
    targets: Vec<TargetRecord>,
}

/// Returns the name of a target in records.
pub fn name_of(target: &Target) -> String {
    match target {
        Target::Host => HOST.to_owned(),
        Target::Process(name) => name.to_string(),
    }
}

fn target_of(name: &str) -> Result<Target, NameError> {
    if name == HOST { Ok(Target::Host) } else { name.parse().map(Target::Process) }
}

/// Writes what is remembered of one target.
pub fn encode_target(facts: &TargetFacts) -> Vec<u8> {
    serde_json::to_vec(&TargetRecord::from(facts)).unwrap_or_default()
}

/// Reads what [`encode_target`] wrote.
///
/// # Errors
///
/// Anything that is not a whole record, with what is wrong.
pub fn decode_target(json: &[u8]) -> Result<TargetFacts, CareError> {
    TargetFacts::try_from(serde_json::from_slice::<TargetRecord>(json)?)
}

/// Writes what is remembered of the host as a whole.
pub fn encode_host(facts: &HostFacts) -> Vec<u8> {
    serde_json::to_vec(&HostRecord::from(facts)).unwrap_or_default()
}

/// Reads what [`encode_host`] wrote.
///
/// # Errors
///
/// Anything that is not a whole record, with what is wrong.
pub fn decode_host(json: &[u8]) -> Result<HostFacts, CareError> {
    HostFacts::try_from(serde_json::from_slice::<HostRecord>(json)?)
}

/// Writes everything for the next boot.
pub fn encode_all(remembered: &Remembered) -> Vec<u8> {
    let (at, wall) = remembered.written;
    let record = RememberedRecord {
        boot: remembered.boot.clone(),
        written: (at.as_nanos(), wall.0),
        host: HostRecord::from(&remembered.host),
        targets: remembered.targets.iter().map(TargetRecord::from).collect(),
    };
    serde_json::to_vec(&record).unwrap_or_default()
}

/// Reads what [`encode_all`] wrote; a target that is not understood is left out, the others count.
///
/// # Errors
///
/// What is wrong with the whole.
pub fn decode_all(json: &[u8]) -> Result<Remembered, CareError> {
    let record: RememberedRecord = serde_json::from_slice(json)?;
    let (at, wall) = record.written;
    let targets = record.targets.into_iter();
    Ok(Remembered {
        boot: record.boot,
        written: (Instant::from_nanos(at), Wall(wall)),
        host: HostFacts::try_from(record.host)?,
        targets: targets.filter_map(|target| TargetFacts::try_from(target).ok()).collect(),
    })
}
