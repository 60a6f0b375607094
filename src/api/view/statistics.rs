//! What the history says in numbers.

use serde::{Deserialize, Serialize};

/// `GET /v1/statistics`: what healing has achieved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatisticsView {
    pub schema: u32,
    /// RFC 3339: since when something is known, or was asked for; `null` when nothing is known.
    pub since: Option<String>,
    /// RFC 3339: the time of the answer.
    pub until: Option<String>,
    /// That began within this time.
    pub incidents: u64,
    pub open: u64,
    pub healed: u64,
    pub by_itself: u64,
    /// From the beginning of an incident until its target was well again, on average.
    pub mean_recovery_seconds: Option<f64>,
    /// Those that something befell, the most afflicted first.
    pub targets: Vec<TargetStatisticsView>,
    pub remedies: Vec<RemedyStatisticsView>,
    /// Why this may not be all: the file cannot be read.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetStatisticsView {
    /// `web:0`, or `host`.
    pub target: String,
    pub incidents: u64,
    pub open: u64,
    pub mean_recovery_seconds: Option<f64>,
    /// How long it was not well: from the beginning of each incident until it was well again.
    pub down_seconds: f64,
    /// The other part of the time, from 0 to 1.
    pub availability: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemedyStatisticsView {
    /// `restart`.
    pub remedy: String,
    /// Carried out, and proved by the checks.
    pub verified: u64,
    /// Carried out without effect.
    pub not_verified: u64,
    pub not_done: u64,
    pub abandoned: u64,
    /// The verified ones among those that nobody abandoned, from 0 to 1.
    pub success: Option<f64>,
    /// From its beginning to the proof, on average.
    pub mean_seconds: Option<f64>,
}

/// `GET /v1/checks/{target}/{check}/results`: what a check has found, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckHistoryView {
    pub schema: u32,
    pub results: Vec<CheckStreakView>,
    pub trouble: Option<String>,
}

/// Results that say the same, one after the other, of an hour at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckStreakView {
    pub target: String,
    pub check: String,
    pub verdict: String,
    /// The newest one's line.
    pub detail: String,
    /// RFC 3339.
    pub first: String,
    pub last: String,
    pub runs: u64,
    pub took_least_seconds: f64,
    pub took_mean_seconds: f64,
    pub took_most_seconds: f64,
}
