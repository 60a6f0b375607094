//! Checks, healing and the reasons for it.

use serde::{Deserialize, Serialize};

use super::ProcessView;

/// `GET /v1/checks`: all checks, or those of `?name=…`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChecksView {
    pub schema: u32,
    pub checks: Vec<CheckView>,
}

/// How one check stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckView {
    /// `web:0`, or `host`.
    pub target: String,
    pub check: String,
    /// `http`, `exec`, …
    pub kind: String,
    /// What it asks: `http://127.0.0.1:8000/healthz`.
    pub asks: String,
    /// `start`, `live`, `ready`.
    pub role: String,
    /// `none`, `starting`, `up`, `suspect`, `down`, `healing`, `verifying`, `flapping`, `held`,
    /// `broken`.
    pub state: String,
    /// RFC 3339: when its state was entered.
    pub since: String,
    /// Of the last result: `pass`, `warn`, `fail`, `timeout`, `unknown`.
    pub verdict: Option<String>,
    pub detail: Option<String>,
    /// RFC 3339: when the last result came.
    pub at: Option<String>,
    pub took_seconds: Option<f64>,
    /// The last pass came with a warning.
    pub warning: bool,
    /// In a row, as far as they decide something.
    pub passes: u32,
    pub fails: u32,
    pub unknowns: u32,
    /// Failures in a row that bring it down, and passes that bring it up.
    pub fall: u32,
    pub rise: u32,
    pub interval_seconds: f64,
    pub timeout_seconds: f64,
    /// RFC 3339; `null` while it runs, or is not being run.
    pub next_run: Option<String>,
    /// The ladder, a word for each rung.
    pub heal: Vec<String>,
    /// The rung that comes next, from 1; one more than there are when none is left.
    pub next_rung: u32,
    /// RFC 3339: nothing is tried before.
    pub quarantined_until: Option<String>,
    /// Only says what it would do.
    pub observes: bool,
    /// Nobody has declared it.
    pub builtin: bool,
    /// The last results, newest first.
    pub results: Vec<ResultView>,
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultView {
    /// RFC 3339.
    pub at: String,
    pub verdict: String,
    pub detail: String,
    pub took_seconds: f64,
}

/// Body of `POST /v1/checks/run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunBody {
    /// `web/http` for one check, `web` for all of a program, `host` for those of the host.
    pub names: Vec<String>,
    /// A result that is at most so old will do, such as `10s`; absent wants a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
}

/// Answer to `POST /v1/checks/run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    pub schema: u32,
    pub results: Vec<RanView>,
}

/// What one check that was run on demand found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RanView {
    pub target: String,
    pub check: String,
    /// `null` when it could not be run.
    pub result: Option<ResultView>,
    /// Why it could not be run.
    pub refused: Option<String>,
}

/// Body of `POST /v1/heal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealBody {
    pub names: Vec<String>,
    /// The rung of the ladder to begin with, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `POST /v1/heal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealView {
    pub schema: u32,
    pub results: Vec<HealedView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealedView {
    pub name: String,
    pub accepted: bool,
    /// What happens next, or why nothing does.
    pub message: String,
}

/// Body of `POST /v1/hold`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldBody {
    pub names: Vec<String>,
    /// For how long, such as `30m`; a hold always has an end.
    #[serde(rename = "for")]
    pub time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /v1/release`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBody {
    #[serde(default)]
    pub names: Vec<String>,
    /// Ends the panic of the host: healing goes on one by one.
    #[serde(default)]
    pub panic: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `POST /v1/hold` and `POST /v1/release`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldView {
    pub schema: u32,
    /// Whom it concerns.
    pub names: Vec<String>,
}

/// `GET /v1/why`: why everything, or `?name=…`, is as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhysView {
    pub schema: u32,
    /// `normal`, `degraded`, `emergency`.
    pub mode: String,
    /// What the mode follows from.
    pub mode_reasons: Vec<String>,
    pub whys: Vec<WhyView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyView {
    /// `web:0`, or `host`.
    pub name: String,
    /// `null` for the host.
    pub process: Option<ProcessView>,
    pub health: String,
    /// Why it is, or is not, being healed; goes on from the name. `null` while nothing is down.
    pub standing: Option<String>,
    pub hold: Option<HeldView>,
    /// What it requires that is not well.
    pub waits_for: Vec<RequiredView>,
    pub checks: Vec<CheckView>,
    /// The incident in progress, or the last one.
    pub incident: Option<ToldView>,
}

/// Maintenance: no remedy, no alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldView {
    /// RFC 3339.
    pub until: String,
    pub by: String,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequiredView {
    pub name: String,
    pub state: String,
}

/// The story of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToldView {
    pub id: u64,
    /// It is not over.
    pub open: bool,
    pub story: Vec<StoryView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoryView {
    /// RFC 3339.
    pub at: String,
    /// `failed`, `cause`, `began`, `verified`, `closed`, …
    pub what: String,
    /// Goes on from the name.
    pub sentence: String,
}
