//! The routes of the configuration as a transaction: plan, apply, generations.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Uri;
use axum::response::Response;
use tokio::sync::broadcast::error::RecvError;

use super::endpoints::{Api, json};
use super::input::{self, Parameters};
use super::problem::Fault;
use super::times::rfc3339;
use super::view::{
    ApplyView, GenerationView, GenerationsView, KeyChangeView, PlanView, ProgramChangeView, SCHEMA,
};
use crate::config::{Effect, KeyChange};
use crate::core::{Fate, Plan, ProgramChange};
use crate::engine::{
    ApplyRequest, ApplyTarget, Compared, Generation, GenerationOutcome, Happening, How, Planned,
};
use crate::os::peer::PeerCredentials;

/// Answers with what the files, or a generation, would change.
pub(super) async fn plan(api: &Api, uri: &Uri) -> Result<Response, Fault> {
    let query = Parameters::read(uri, &["from", "to"])?;
    let number = |name: &str| {
        let read = |text: &str| {
            let why = || Fault::parameter(name, format!("`{text}` is no number of a generation"));
            text.parse::<u64>().map_err(|_| why())
        };
        query.get(name).map(read).transpose()
    };
    let between = if query.get("to") == Some("previous") && query.get("from").is_none() {
        Compared::Previous
    } else {
        match (number("from")?, number("to")?) {
            (None, None) => Compared::Files,
            (None, Some(to)) => Compared::Generation(to),
            (Some(from), Some(to)) => Compared::Generations(from, to),
            (Some(_), None) => {
                return Err(Fault::parameter("from", "it needs a `to` to compare with"));
            }
        }
    };
    let Planned { plan, fingerprint, warnings, given_up } = api.handle.plan(between).await?;
    let mut view = plan_view(&plan, warnings);
    view.fingerprint = Some(fingerprint).filter(|_| between == Compared::Files);
    view.given_up = given_up;
    json(&view)
}

/// Begins an apply; with `wait` answers when it has ended.
pub(super) async fn apply(
    api: &Api,
    peer: Arc<PeerCredentials>,
    uri: &Uri,
    body: Body,
) -> Result<Response, Fault> {
    let query = Parameters::read(uri, &["wait"])?;
    let wait = query.get("wait").map(input::read_wait).transpose()?;
    let body = input::read_apply_body(body).await?;
    let target = match (body.back, body.generation) {
        (true, Some(_)) => {
            let why = "name a generation or go back to the previous one, not both";
            return Err(Fault::parameter("generation", why));
        }
        (true, None) => ApplyTarget::Previous,
        (false, Some(number)) => ApplyTarget::Generation(number),
        (false, None) => ApplyTarget::Files,
    };
    let patience = body.timeout.as_deref().map(read_timeout).transpose()?;
    let reason = body.reason.as_deref().map(input::read_reason).transpose()?;
    let what = match target {
        ApplyTarget::Files => "apply the configuration".to_owned(),
        ApplyTarget::Previous => "go back to the previous generation".to_owned(),
        ApplyTarget::Generation(number) => format!("go back to generation {number}"),
    };
    let (audit, by) = api.audit(&peer, what, reason).await;
    let (roll_back, fingerprint) = (!body.no_rollback, body.fingerprint);
    let request = ApplyRequest { by, target, patience, roll_back, fingerprint };
    // Heard from before it begins, so that its end is not missed.
    let events = api.handle.events();
    let begun = match api.handle.apply(request).await {
        Ok(begun) => begun,
        Err(refusal) => {
            let fault = Fault::from(refusal);
            audit.finish(format!("refused: {}", fault.detail()));
            return Err(fault);
        }
    };
    audit.finish(format!("generation {}: {}", begun.generation, begun.plan.summary()));
    let result = match wait.filter(|_| begun.begun) {
        Some(wait) => ended(api, events, begun.generation, wait).await,
        None => None,
    };
    json(&ApplyView {
        schema: SCHEMA,
        generation: begun.generation,
        begun: begun.begun,
        event: begun.event,
        plan: plan_view(&begun.plan, begun.warnings),
        result,
    })
}

fn read_timeout(text: &str) -> Result<Duration, Fault> {
    let timeout = input::read_wait(text).map_err(|_| {
        let why = format!("`{text}` is no duration up to 24h, such as `90s` or `5m`");
        Fault::parameter("timeout", why)
    })?;
    if timeout.is_zero() {
        return Err(Fault::parameter("timeout", "nothing is done in no time"));
    }
    Ok(timeout)
}

/// Waits for the end of an apply; `None` when it takes longer.
async fn ended(
    api: &Api,
    mut events: tokio::sync::broadcast::Receiver<Arc<Happening>>,
    number: u64,
    wait: Duration,
) -> Option<GenerationView> {
    let end = async {
        loop {
            let history = api.handle.history().await.ok()?;
            let found = history.generations.iter().find(|it| it.number == number)?;
            let under_way = history.applying == Some(number);
            if !under_way {
                return Some(generation_view(found));
            }
            match events.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    };
    tokio::time::timeout(wait, end).await.ok().flatten()
}

/// Answers with the generations that are kept.
pub(super) async fn list(api: &Api, uri: &Uri) -> Result<Response, Fault> {
    Parameters::read(uri, &[])?;
    let history = api.handle.history().await?;
    json(&GenerationsView {
        schema: SCHEMA,
        current: history.current,
        applying: history.applying,
        generations: history.generations.iter().map(generation_view).collect(),
    })
}

/// Shows a plan.
pub(super) fn plan_view(plan: &Plan, warnings: Vec<String>) -> PlanView {
    PlanView {
        schema: SCHEMA,
        changes: !plan.is_empty(),
        summary: plan.summary(),
        fingerprint: None,
        programs: plan.programs.iter().map(program_view).collect(),
        settings: plan.settings.iter().map(key_view).collect(),
        warnings,
        given_up: None,
    }
}

fn program_view(program: &ProgramChange) -> ProgramChangeView {
    let (action, because) = match &program.fate {
        Fate::Start => ("start", None),
        Fate::Stop => ("stop", None),
        Fate::Restart => ("restart", None),
        Fate::RestartInTurn => ("restart-in-turn", None),
        Fate::RestartWith(other) => ("restart", Some(other.to_string())),
        Fate::Update => ("update", None),
    };
    ProgramChangeView {
        name: program.name.to_string(),
        action: action.to_owned(),
        because,
        keys: program.keys.iter().map(key_view).collect(),
    }
}

fn key_view(change: &KeyChange) -> KeyChangeView {
    let effect = match change.effect {
        Effect::InPlace => "in-place",
        Effect::Restart => "restart",
        Effect::DaemonRestart => "daemon-restart",
    };
    KeyChangeView {
        key: change.key.clone(),
        old: change.old.clone(),
        new: change.new.clone(),
        effect: effect.to_owned(),
    }
}

/// Shows one generation.
pub(super) fn generation_view(generation: &Generation) -> GenerationView {
    let how = match generation.how {
        How::Start => "start",
        How::Reload => "reload",
        How::Apply => "apply",
        How::Rollback => "rollback",
    };
    let outcome = match generation.outcome {
        GenerationOutcome::Applying => "applying",
        GenerationOutcome::Applied => "applied",
        GenerationOutcome::Kept => "kept",
        GenerationOutcome::RolledBack => "rolled-back",
        GenerationOutcome::Interrupted => "interrupted",
        GenerationOutcome::Rejected => "rejected",
    };
    GenerationView {
        number: generation.number,
        at: rfc3339(generation.at),
        by: generation.by.name.clone(),
        uid: generation.by.uid,
        reason: generation.by.reason.clone(),
        how: how.to_owned(),
        outcome: outcome.to_owned(),
        changes: generation.changes.clone(),
        why: generation.why.clone(),
        copy_of: generation.copy_of,
    }
}
