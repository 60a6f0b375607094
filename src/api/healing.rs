//! The routes of checks and healing, and what the engine says about them as the wire shows it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Uri;
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::audit::Audit;
use super::endpoints::{Api, json};
use super::input::{self, Parameters};
use super::problem::Fault;
use super::show::process_view;
use super::times::{Clock, rfc3339};
use super::view::{
    CheckView, ChecksView, HealBody, HealView, HealedView, HeldView, HoldBody, HoldView, RanView,
    ReleaseBody, RequiredView, ResultView, RunBody, RunView, SCHEMA, StoryView, ToldView, WhyView,
    WhysView,
};
use crate::config::{CheckRole, HealMode};
use crate::core::care::{Answer, IncidentId, Sample};
use crate::engine::history::{History, Incident, IncidentQuery, Step, Unread};
use crate::engine::{CheckStatus, Why, Whys, shown_target};
use crate::os::peer::PeerCredentials;

/// Stories that are told at once.
const MAX_STORIES: usize = 50;
/// Longest hold: what is on hold for longer is better disabled.
const MAX_HOLD: Duration = Duration::from_secs(90 * 86_400);

type Shown = Result<Response, Fault>;

pub(super) async fn checks(api: &Api, uri: &Uri) -> Shown {
    let names = Parameters::read(uri, &["name"])?.names()?;
    let checks = api.handle.checks(names).await?;
    let clock = Clock { now: checks.now.0, wall: checks.now.1 };
    let checks = checks.checks.iter().map(|check| check_view(check, clock)).collect();
    json(&ChecksView { schema: SCHEMA, checks })
}

pub(super) async fn why(api: &Api, uri: &Uri) -> Shown {
    let names = Parameters::read(uri, &["name"])?.names()?;
    let by_name = !names.is_empty();
    let whys = api.handle.why(names).await?;
    let mut view = whys_view(&whys);
    let open = |why: &Why| why.incident.is_some();
    let wanted = view.whys.iter_mut().zip(&whys.whys).filter(|(_, why)| by_name || open(why));
    for (view, why) in wanted.take(MAX_STORIES) {
        // What is not known of the past is no reason not to tell the present.
        view.incident = story(&api.settings.history, why).await.unwrap_or_default();
    }
    json(&view)
}

/// Returns the story of a target's incident in progress, or of its last one.
async fn story(history: &History, why: &Why) -> Result<Option<ToldView>, Unread> {
    let id = match why.incident {
        Some(id) => Some(id),
        None => last_incident(history, why).await?,
    };
    let Some(id) = id else { return Ok(None) };
    Ok(history.story(id).await?.found.map(|(incident, steps)| told_view(&incident, steps)))
}

async fn last_incident(history: &History, why: &Why) -> Result<Option<IncidentId>, Unread> {
    let program = Some(why.name.clone());
    let query = IncidentQuery { program, limit: 1, ..IncidentQuery::default() };
    let found = history.incidents(query).await?.found;
    Ok(found.first().map(|incident| incident.id))
}

pub(super) async fn run(api: &Api, peer: Arc<PeerCredentials>, uri: &Uri, body: Body) -> Shown {
    Parameters::read(uri, &[])?;
    let body: RunBody = read(body).await?;
    named(&body.names)?;
    let age = body.max_age.as_deref().map(input::parse_duration).transpose();
    let age = age.map_err(|why| Fault::parameter("max_age", why))?.unwrap_or_default();
    let what = format!("run checks {}", body.names.join(" "));
    let (audit, _) = api.audit(&peer, what, None).await;
    match api.handle.run_checks(body.names, age).await {
        Ok(answers) => {
            audit.finish(format!("{} checks", answers.len()));
            let clock = clock(api);
            let results = answers.into_iter().map(|(check, answer)| {
                let (result, refused) = match answer {
                    Answer::Result(sample) => (Some(result_view(&sample, clock)), None),
                    Answer::Refused(why) | Answer::Accepted(why) => (None, Some(why)),
                };
                let (target, check) = (shown_target(&check.target), check.check.to_string());
                RanView { target, check, result, refused }
            });
            json(&RunView { schema: SCHEMA, results: results.collect() })
        }
        Err(refusal) => {
            audit.finish(format!("refused: {refusal}"));
            Err(refusal.into())
        }
    }
}

pub(super) async fn heal(api: &Api, peer: Arc<PeerCredentials>, uri: &Uri, body: Body) -> Shown {
    Parameters::read(uri, &[])?;
    let body: HealBody = read(body).await?;
    named(&body.names)?;
    let rung = match body.rung {
        Some(0) => return Err(Fault::parameter("rung", "the first rung is number 1")),
        Some(number) => Some(usize::try_from(number - 1).unwrap_or(usize::MAX)),
        None => None,
    };
    let reason = body.reason.as_deref().map(input::read_reason).transpose()?;
    let what = format!("heal {}", body.names.join(" "));
    let (audit, by) = api.audit(&peer, what, reason).await;
    match api.handle.heal(body.names, rung, by).await {
        Ok(answers) => {
            audit.finish(format!("{} asked", answers.len()));
            let results = answers.into_iter().map(|(name, answer)| {
                let accepted = matches!(answer, Answer::Accepted(_));
                let message = match answer {
                    Answer::Accepted(text) | Answer::Refused(text) => text,
                    Answer::Result(sample) => sample.detail,
                };
                HealedView { name, accepted, message }
            });
            json(&HealView { schema: SCHEMA, results: results.collect() })
        }
        Err(refusal) => {
            audit.finish(format!("refused: {refusal}"));
            Err(refusal.into())
        }
    }
}

pub(super) async fn hold(api: &Api, peer: Arc<PeerCredentials>, uri: &Uri, body: Body) -> Shown {
    Parameters::read(uri, &[])?;
    let body: HoldBody = read(body).await?;
    named(&body.names)?;
    let wrong = |why: String| Fault::parameter("for", why);
    let time = input::parse_duration(&body.time).map_err(wrong)?;
    if time.is_zero() || time > MAX_HOLD {
        return Err(wrong("from 1s to 90d; what rests for longer is better disabled".to_owned()));
    }
    let reason = body.reason.as_deref().map(input::read_reason).transpose()?;
    let what = format!("hold {} for {}", body.names.join(" "), body.time);
    let (audit, by) = api.audit(&peer, what, reason).await;
    answer(audit, api.handle.hold(body.names, time, by).await)
}

pub(super) async fn release(api: &Api, peer: Arc<PeerCredentials>, uri: &Uri, body: Body) -> Shown {
    Parameters::read(uri, &[])?;
    let body: ReleaseBody = read(body).await?;
    let reason = body.reason.as_deref().map(input::read_reason).transpose()?;
    if body.panic {
        let (audit, by) = api.audit(&peer, "end the panic".to_owned(), reason.clone()).await;
        let ended = api.handle.end_panic(by).await.map(|()| vec!["host".to_owned()]);
        if body.names.is_empty() || ended.is_err() {
            return answer(audit, ended);
        }
        audit.finish("done");
    }
    named(&body.names)?;
    let what = format!("release {}", body.names.join(" "));
    let (audit, by) = api.audit(&peer, what, reason).await;
    answer(audit, api.handle.release(body.names, by).await)
}

fn answer(audit: Audit, result: Result<Vec<String>, crate::engine::Refusal>) -> Shown {
    match result {
        Ok(names) => {
            audit.finish(names.join(" "));
            json(&HoldView { schema: SCHEMA, names })
        }
        Err(refusal) => {
            audit.finish(format!("refused: {refusal}"));
            Err(refusal.into())
        }
    }
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    let bytes = input::read_body(body).await?;
    serde_json::from_slice(&bytes).map_err(|error| Fault::body(&error))
}

fn named(names: &[String]) -> Result<(), Fault> {
    if names.is_empty() {
        return Err(Fault::parameter("names", "it names nothing; write [\"all\"] for everything"));
    }
    input::check_names("names", names)
}

fn clock(api: &Api) -> Clock {
    let (now, wall) = (api.settings.clock)();
    Clock { now, wall }
}

fn result_view(sample: &Sample, clock: Clock) -> ResultView {
    ResultView {
        at: clock.rfc3339(sample.at),
        verdict: sample.verdict.word().to_owned(),
        detail: sample.detail.clone(),
        took_seconds: millis(sample.took),
    }
}

/// Returns seconds, rounded to whole milliseconds.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn check_view(status: &CheckStatus, clock: Clock) -> CheckView {
    let check = &status.declared.check;
    let last = status.samples.last().map(|sample| result_view(sample, clock));
    let next_rung = u32::try_from(status.rung).unwrap_or(u32::MAX).saturating_add(1);
    CheckView {
        target: shown_target(&status.id.target),
        check: status.id.check.to_string(),
        kind: check.kind.word().to_owned(),
        asks: status.declared.look.to_string(),
        role: match check.role {
            CheckRole::Start => "start".to_owned(),
            CheckRole::Live => "live".to_owned(),
            CheckRole::Ready => "ready".to_owned(),
        },
        state: status.state.word().to_owned(),
        since: clock.rfc3339(status.since),
        verdict: last.as_ref().map(|last| last.verdict.clone()),
        detail: last.as_ref().map(|last| last.detail.clone()),
        at: last.as_ref().map(|last| last.at.clone()),
        took_seconds: last.as_ref().map(|last| last.took_seconds),
        warning: status.warning,
        passes: status.passes,
        fails: status.fails,
        unknowns: status.unknowns,
        fall: check.fall(),
        rise: check.rise,
        interval_seconds: millis(check.interval),
        timeout_seconds: millis(check.timeout),
        next_run: status.next_run.map(|at| clock.rfc3339(at)),
        heal: check.heal.iter().map(|rung| rung.remedy.word().to_owned()).collect(),
        next_rung,
        quarantined_until: status.quarantined_until.map(|at| clock.rfc3339(at)),
        observes: check.mode == HealMode::Observe,
        builtin: status.declared.is_builtin,
        results: status.samples.iter().rev().map(|it| result_view(it, clock)).collect(),
    }
}

fn whys_view(whys: &Whys) -> WhysView {
    WhysView {
        schema: SCHEMA,
        mode: whys.mode.to_lowercase(),
        mode_reasons: whys.mode_reasons.clone(),
        whys: whys.whys.iter().map(|why| why_view(why, whys)).collect(),
    }
}

fn why_view(why: &Why, whys: &Whys) -> WhyView {
    let clock = Clock { now: whys.now.0, wall: whys.now.1 };
    let required = |(name, state): &(String, String)| RequiredView {
        name: name.clone(),
        state: state.clone(),
    };
    WhyView {
        name: why.name.clone(),
        process: why.process.as_ref().map(|status| process_view(status, whys.now)),
        health: why.health.word().to_owned(),
        standing: why.standing.clone(),
        hold: why.hold.as_ref().map(|hold| HeldView {
            until: clock.rfc3339(hold.until),
            by: hold.by.name.clone(),
            reason: hold.by.reason.clone(),
        }),
        waits_for: why.waits_for.iter().map(required).collect(),
        checks: why.checks.iter().map(|check| check_view(check, clock)).collect(),
        incident: None,
    }
}

fn told_view(incident: &Incident, steps: Vec<Step>) -> ToldView {
    let story = steps.into_iter().map(|step| StoryView {
        at: rfc3339(step.at),
        what: step.kind,
        sentence: step.sentence,
    });
    ToldView { id: incident.id.0, open: incident.closed.is_none(), story: story.collect() }
}

#[cfg(test)]
pub(super) mod samples {
    //! One of each, for the test of the interface's description.

    use super::super::healing_bench::{checks, whys};
    use super::*;

    pub(in crate::api) fn check() -> CheckView {
        let checks = checks();
        check_view(&checks.checks[0], Clock { now: checks.now.0, wall: checks.now.1 })
    }

    pub(in crate::api) fn why() -> WhysView {
        let mut view = whys_view(&whys());
        let text = || "x".to_owned();
        let story = vec![StoryView { at: text(), what: text(), sentence: text() }];
        view.whys[0].incident = Some(ToldView { id: 1, open: true, story });
        view
    }
}
