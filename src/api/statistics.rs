//! The routes of what the history says in numbers: statistics, and the results of one check.

use std::time::Duration;

use axum::http::Uri;
use axum::response::Response;

use super::endpoints::{Api, json};
use super::history::{limit, time};
use super::input::Parameters;
use super::problem::Fault;
use super::times::rfc3339;
use super::view::{
    CheckHistoryView, CheckStreakView, RemedyStatisticsView, SCHEMA, StatisticsView,
    TargetStatisticsView,
};
use crate::engine::history::{
    Checked, CheckedQuery, Found, RemedyStatistics, Statistics, StatisticsQuery, TargetStatistics,
};
use crate::time::Wall;

/// Answers with what healing has achieved.
pub(super) async fn statistics(api: &Api, uri: &Uri) -> Result<Response, Fault> {
    let query = Parameters::read(uri, &["program", "since"])?;
    let wanted = StatisticsQuery {
        since: time(&query, "since")?,
        program: query.get("program").map(str::to_owned),
    };
    json(&statistics_view(api.settings.history.statistics(wanted).await?))
}

/// Answers with what a check has found, newest first.
pub(super) async fn results(
    api: &Api,
    uri: &Uri,
    target: String,
    check: String,
) -> Result<Response, Fault> {
    let query = Parameters::read(uri, &["since", "until", "limit"])?;
    let wanted = CheckedQuery {
        program: Some(target.clone()),
        check: Some(check.clone()),
        since: time(&query, "since")?,
        until: time(&query, "until")?,
        limit: limit(&query)?,
    };
    let found = api.settings.history.checked(wanted).await?;
    if found.found.is_empty() {
        // A check that was removed may have a past; one that never was is a mistake.
        api.handle.checks(vec![format!("{target}/{check}")]).await?;
    }
    json(&CheckHistoryView {
        schema: SCHEMA,
        results: found.found.into_iter().map(streak_view).collect(),
        trouble: found.trouble,
    })
}

pub(super) fn statistics_view(found: Found<Statistics>) -> StatisticsView {
    let Found { found, trouble } = found;
    let period = found.period;
    StatisticsView {
        schema: SCHEMA,
        since: period.map(|(begin, _)| rfc3339(begin)),
        until: period.map(|(_, end)| rfc3339(end)),
        incidents: found.incidents,
        open: found.open,
        healed: found.healed,
        by_itself: found.by_itself,
        mean_recovery_seconds: found.mean_recovery().map(seconds),
        targets: found.targets.iter().map(|target| target_view(target, period)).collect(),
        remedies: found.remedies.iter().map(remedy_view).collect(),
        trouble,
    }
}

fn target_view(target: &TargetStatistics, period: Option<(Wall, Wall)>) -> TargetStatisticsView {
    TargetStatisticsView {
        target: target.target.clone(),
        incidents: target.incidents,
        open: target.open,
        mean_recovery_seconds: target.mean_recovery().map(seconds),
        down_seconds: seconds(target.down),
        availability: period.and_then(|period| target.availability(period)),
    }
}

fn remedy_view(remedy: &RemedyStatistics) -> RemedyStatisticsView {
    let tried = remedy.verified + remedy.not_verified + remedy.not_done;
    RemedyStatisticsView {
        remedy: remedy.what.clone(),
        verified: remedy.verified,
        not_verified: remedy.not_verified,
        not_done: remedy.not_done,
        abandoned: remedy.abandoned,
        success: (tried > 0).then(|| remedy.verified as f64 / tried as f64),
        mean_seconds: remedy.took_mean().map(seconds),
    }
}

pub(super) fn streak_view(checked: Checked) -> CheckStreakView {
    CheckStreakView {
        target: checked.target,
        check: checked.check,
        verdict: checked.verdict,
        detail: checked.detail,
        first: rfc3339(checked.first),
        last: rfc3339(checked.last),
        runs: checked.runs,
        took_least_seconds: seconds(checked.took_least),
        took_mean_seconds: seconds(checked.took_mean),
        took_most_seconds: seconds(checked.took_most),
    }
}

/// Returns seconds, rounded to whole microseconds.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1_000_000.0
}
