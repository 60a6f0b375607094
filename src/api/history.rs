//! The routes of the history: who asked for what, and what went wrong.

use axum::http::Uri;
use axum::response::Response;

use super::endpoints::{Api, json};
use super::input::{self, Parameters, wall_now};
use super::problem::Fault;
use super::times::rfc3339;
use super::view::{
    AuditEntryView, AuditView, CauseView, IncidentStepView, IncidentStoryView, IncidentView,
    IncidentsView, SCHEMA,
};
use crate::core::care::IncidentId;
use crate::engine::history::{Asked, AskedQuery, Incident, IncidentQuery, Step, Unread};

/// Entries that are returned when the request does not say how many.
const LIMIT: usize = 100;

/// Most entries that are returned at once.
const MAX_LIMIT: usize = 10_000;

/// Answers with who asked for what, newest first.
pub(super) async fn audit(api: &Api, uri: &Uri) -> Result<Response, Fault> {
    let query = Parameters::read(uri, &["since", "until", "user", "limit"])?;
    let wanted = AskedQuery {
        since: time(&query, "since")?,
        until: time(&query, "until")?,
        user: query.get("user").map(str::to_owned),
        limit: limit(&query)?,
    };
    let found = api.settings.history.asked(wanted).await?;
    json(&AuditView {
        schema: SCHEMA,
        requests: found.found.into_iter().map(asked_view).collect(),
        trouble: found.trouble,
    })
}

/// Answers with incidents, newest first.
pub(super) async fn incidents(api: &Api, uri: &Uri) -> Result<Response, Fault> {
    let query = Parameters::read(uri, &["program", "since", "until", "open", "limit"])?;
    let wanted = IncidentQuery {
        since: time(&query, "since")?,
        until: time(&query, "until")?,
        program: query.get("program").map(str::to_owned),
        open: query.flag("open")?,
        limit: limit(&query)?,
    };
    let found = api.settings.history.incidents(wanted).await?;
    json(&IncidentsView {
        schema: SCHEMA,
        incidents: found.found.into_iter().map(incident_view).collect(),
        trouble: found.trouble,
    })
}

/// Answers with one incident and its story.
pub(super) async fn incident(api: &Api, uri: &Uri, id: &str) -> Result<Response, Fault> {
    Parameters::read(uri, &[])?;
    let number = id
        .parse::<u64>()
        .map_err(|_| Fault::parameter("id", format!("`{id}` is no number of an incident")))?;
    let found = api.settings.history.story(IncidentId(number)).await?;
    let (incident, steps) = found.found.ok_or_else(|| Fault::no_incident(number))?;
    json(&IncidentStoryView {
        schema: SCHEMA,
        incident: incident_view(incident),
        steps: steps.into_iter().map(step_view).collect(),
        trouble: found.trouble,
    })
}

pub(super) fn time(query: &Parameters, name: &str) -> Result<Option<crate::time::Wall>, Fault> {
    query.get(name).map(|text| input::parse_time(name, text, wall_now())).transpose()
}

pub(super) fn limit(query: &Parameters) -> Result<usize, Fault> {
    let Some(text) = query.get("limit") else { return Ok(LIMIT) };
    text.parse()
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| Fault::parameter("limit", format!("a number from 1 to {MAX_LIMIT}")))
}

impl From<Unread> for Fault {
    fn from(unread: Unread) -> Self {
        Self::no_history(unread.to_string())
    }
}

pub(super) fn asked_view(asked: Asked) -> AuditEntryView {
    let Asked { at, uid, user, pid, executable, request, reason, outcome } = asked;
    AuditEntryView { at: rfc3339(at), user, uid, pid, executable, request, reason, outcome }
}

pub(super) fn incident_view(incident: Incident) -> IncidentView {
    let recovered = incident.recovered;
    IncidentView {
        id: incident.id.0,
        target: incident.target,
        program: incident.program,
        opened: rfc3339(incident.opened),
        opening: incident.opening,
        check: incident.check,
        cause: incident.cause.map(|cause| CauseView {
            word: cause.word,
            confidence: cause.confidence,
            sentence: cause.sentence,
            facts: cause.facts,
        }),
        remedies: incident.remedies,
        healed_by: incident.healed_by,
        recovered: recovered.map(rfc3339),
        recovery_seconds: recovered.map(|at| at.since(incident.opened).as_secs_f64()),
        closed: incident.closed.map(rfc3339),
        closing: incident.closing,
    }
}

pub(super) fn step_view(step: Step) -> IncidentStepView {
    IncidentStepView { at: rfc3339(step.at), kind: step.kind, sentence: step.sentence }
}
