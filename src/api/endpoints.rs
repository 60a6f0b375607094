//! The answer to each route: read the request, ask the engine, show what it says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::access::Role;
use super::audit::{Denials, UserNames};
use super::input::{self, ActOptions, Parameters};
use super::problem::Fault;
use super::routes::{Change, Endpoint, ROUTES};
use super::server::ApiSettings;
use super::show::{act_view, add_usage, outcome_name, process_view, reload_view, status_view};
use super::view::{LogLevelBody, ProgramView, SCHEMA, ShutdownView, UpgradeView, VersionView};
use super::{
    configuration, events, generations, healing, history, logs, metrics, openmetrics, readiness,
    statistics,
};
use crate::engine::{Act, Handle, Outcome, Verb};
use crate::os::peer::PeerCredentials;

/// The description of this interface, OpenAPI 3.1.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// How long the engine's loop may take to answer `/healthz`.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// What every endpoint needs.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) handle: Handle,
    pub(super) settings: ApiSettings,
    pub(super) shutdown: CancellationToken,
    pub(super) requests: Arc<Semaphore>,
    pub(super) max_requests: usize,
    pub(super) users: UserNames,
    pub(super) denials: Denials,
}

impl Api {
    pub(super) fn role_of(&self, peer: &PeerCredentials) -> Option<Role> {
        Role::of(peer, &self.settings.access.get(), self.settings.own_uid)
    }
}

type Answer = Result<Response, Fault>;

/// Answers a request that its peer may make.
pub(super) async fn answer(
    api: &Api,
    endpoint: Endpoint,
    peer: Arc<PeerCredentials>,
    request: Request,
) -> Answer {
    let (mut parts, body) = request.into_parts();
    match endpoint {
        Endpoint::Index => index(&parts.uri),
        Endpoint::Status => status(api, &parts.uri).await,
        Endpoint::Program => program(api, &mut parts).await,
        Endpoint::ActOne(change) => act_one(api, change, peer, &mut parts, body).await,
        Endpoint::ActMany(change) => act_many(api, change, peer, &parts, body).await,
        Endpoint::Logs => {
            let query = Parameters::read(&parts.uri, logs::PARAMETERS)?;
            let names = query.names()?;
            let names = if names.is_empty() { vec!["all".to_owned()] } else { names };
            show_logs(api, names, &query).await
        }
        Endpoint::ProgramLogs => {
            // The name is in the path.
            let query = Parameters::read(&parts.uri, &logs::PARAMETERS[1..])?;
            let name = path_name(&mut parts).await?;
            show_logs(api, vec![name], &query).await
        }
        Endpoint::Events => show_events(api, &parts),
        Endpoint::Reload => reload(api, peer, &parts.uri, body).await,
        Endpoint::Checks => healing::checks(api, &parts.uri).await,
        Endpoint::RunChecks => healing::run(api, peer, &parts.uri, body).await,
        Endpoint::Why => healing::why(api, &parts.uri).await,
        Endpoint::Heal => healing::heal(api, peer, &parts.uri, body).await,
        Endpoint::Hold => healing::hold(api, peer, &parts.uri, body).await,
        Endpoint::Release => healing::release(api, peer, &parts.uri, body).await,
        Endpoint::Plan => generations::plan(api, &parts.uri).await,
        Endpoint::Apply => generations::apply(api, peer, &parts.uri, body).await,
        Endpoint::Generations => generations::list(api, &parts.uri).await,
        Endpoint::Audit => history::audit(api, &parts.uri).await,
        Endpoint::Incidents => history::incidents(api, &parts.uri).await,
        Endpoint::Incident => {
            let id = path_part(&mut parts, "id").await?;
            history::incident(api, &parts.uri, &id).await
        }
        Endpoint::Statistics => statistics::statistics(api, &parts.uri).await,
        Endpoint::CheckResults => {
            let target = path_part(&mut parts, "target").await?;
            let check = path_part(&mut parts, "check").await?;
            statistics::results(api, &parts.uri, target, check).await
        }
        Endpoint::Shutdown => shutdown(api, peer, &parts.uri, body).await,
        Endpoint::Upgrade => upgrade(api, peer, &parts.uri, body).await,
        Endpoint::GetLogLevel => {
            Parameters::read(&parts.uri, &[])?;
            json(&LogLevelBody { level: (api.settings.log_level)() })
        }
        Endpoint::PutLogLevel => put_log_level(api, peer, &parts.uri, body).await,
        Endpoint::Config => {
            let names = Parameters::read(&parts.uri, &["name"])?.names()?;
            json(&configuration::running(&api.handle, &names).await?)
        }
        Endpoint::Version => version(api, &parts.uri),
        Endpoint::OpenApi => Ok(with_type(OPENAPI, "application/json")),
        Endpoint::Health => health(api).await,
        Endpoint::Ready => ready(api).await,
        Endpoint::Metrics => {
            Parameters::read(&parts.uri, &[])?;
            let page = metrics::page(&api.handle, api.settings.version).await?;
            Ok(with_type(page, openmetrics::CONTENT_TYPE))
        }
    }
}

pub(super) fn json(value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| Fault::internal(error.to_string()))?;
    let mut response = with_type(body, "application/json");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn with_type(body: impl Into<Body>, content_type: &'static str) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn path_name(parts: &mut Parts) -> Result<String, Fault> {
    path_part(parts, "name").await
}

async fn path_part(parts: &mut Parts, part: &str) -> Result<String, Fault> {
    let Path(mut parameters) = Path::<BTreeMap<String, String>>::from_request_parts(parts, &())
        .await
        .map_err(|error| Fault::parameter(part, error))?;
    parameters
        .remove(part)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Fault::parameter(part, "it may not be empty"))
}

fn index(uri: &Uri) -> Answer {
    Parameters::read(uri, &[])?;
    let mut text = format!("mendd {}\n\n", env!("CARGO_PKG_VERSION"));
    for route in &ROUTES {
        let (method, path, role) = (route.method.as_str(), route.path, route.role);
        writeln!(text, "{method:<5} {path:<30} {role:<8} {}", route.summary)
            .expect("a String takes all text");
    }
    Ok(with_type(text, "text/plain; charset=utf-8"))
}

/// Most processes for which `/proc` is read to answer one request.
const MAX_WITH_USAGE: usize = 32;

async fn status(api: &Api, uri: &Uri) -> Answer {
    let names = Parameters::read(uri, &["name"])?.names()?;
    let by_name = !names.is_empty();
    let mut view = status_view(&api.handle.status(names).await?);
    if by_name && view.programs.len() <= MAX_WITH_USAGE {
        add_usage(&mut view.programs);
    }
    json(&view)
}

async fn program(api: &Api, parts: &mut Parts) -> Answer {
    Parameters::read(&parts.uri, &[])?;
    let name = path_name(parts).await?;
    let status = api.handle.status(vec![name.clone()]).await?;
    let mut processes: Vec<_> =
        status.processes.iter().map(|it| process_view(it, status.now)).collect();
    if processes.len() <= MAX_WITH_USAGE {
        add_usage(&mut processes);
    }
    json(&ProgramView { schema: SCHEMA, name, processes })
}

async fn act_one(
    api: &Api,
    change: Change,
    peer: Arc<PeerCredentials>,
    parts: &mut Parts,
    body: Body,
) -> Answer {
    let known: &[&str] = match change {
        Change::Signal => &["wait", "reason", "signal"],
        Change::Enable | Change::Disable => &["wait", "reason", "now"],
        Change::Start | Change::Stop | Change::Restart | Change::Reload => &["wait", "reason"],
    };
    let query = Parameters::read(&parts.uri, known)?;
    let mut options =
        ActOptions::read(query.get("wait"), query.get("signal"), query.get("reason"))?;
    options.now = query.flag("now")?;
    options.key = input::read_key(&parts.headers)?;
    let name = path_name(parts).await?;
    input::no_body(body).await?;
    act(api, change, vec![name], options, peer).await
}

async fn act_many(
    api: &Api,
    change: Change,
    peer: Arc<PeerCredentials>,
    parts: &Parts,
    body: Body,
) -> Answer {
    Parameters::read(&parts.uri, &[])?;
    let body = input::read_act_body(body).await?;
    let mut options =
        ActOptions::read(body.wait.as_deref(), body.signal.as_deref(), body.reason.as_deref())?;
    options.now = body.now.unwrap_or(false);
    options.key = input::read_key(&parts.headers)?;
    act(api, change, body.names, options, peer).await
}

async fn act(
    api: &Api,
    change: Change,
    names: Vec<String>,
    options: ActOptions,
    peer: Arc<PeerCredentials>,
) -> Answer {
    if options.now && !matches!(change, Change::Enable | Change::Disable) {
        return Err(Fault::parameter("now", "only `enable` and `disable` take it"));
    }
    let now = options.now;
    let (verb, word) = match (change, options.signal) {
        (Change::Signal, None) => {
            return Err(Fault::parameter("signal", "it is missing; write for example `HUP`"));
        }
        (Change::Signal, Some(signal)) => (Verb::Signal(signal), "signal"),
        (_, Some(_)) => {
            return Err(Fault::parameter("signal", "only `signal` takes a signal"));
        }
        (Change::Start, None) => (Verb::Start, "start"),
        (Change::Stop, None) => (Verb::Stop, "stop"),
        (Change::Restart, None) => (Verb::Restart, "restart"),
        (Change::Reload, None) => (Verb::Reload, "reload"),
        (Change::Enable, None) => (Verb::Enable { now }, "enable"),
        (Change::Disable, None) => (Verb::Disable { now }, "disable"),
    };
    let (audit, by) = api.audit(&peer, format!("{word} {}", names.join(" ")), options.reason).await;
    let (wait, key) = (options.wait, options.key);
    let outcome = api.handle.act(Act { verb, names, by, wait, key }).await;
    match outcome {
        Ok(outcomes) => {
            audit.finish(summary(&outcomes));
            // The clocks are read after the answer: an act may have taken minutes.
            json(&act_view(&outcomes, (api.settings.clock)()))
        }
        Err(refusal) => {
            let fault = Fault::from(refusal);
            audit.finish(format!("refused: {}", fault.detail()));
            Err(fault)
        }
    }
}

/// Counts the results: `2 done, 1 failed`.
fn summary(outcomes: &[Outcome]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for outcome in outcomes {
        let name = outcome_name(outcome.result);
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") }
}

async fn show_logs(api: &Api, names: Vec<String>, query: &Parameters) -> Answer {
    let (query, format) = logs::read_query(query)?;
    let places = api.handle.log_places(names).await?;
    let lines = api
        .settings
        .logs
        .open(places, query)
        .await
        .map_err(|error| Fault::internal(format!("cannot read the logs: {error}")))?;
    Ok(logs::respond(lines, format, api.shutdown.clone()))
}

fn show_events(api: &Api, parts: &Parts) -> Answer {
    let query = Parameters::read(&parts.uri, &["after"])?;
    let header = parts.headers.get("last-event-id");
    // A browser that reconnects repeats the old query; the header is newer.
    let (name, text) = match header {
        Some(value) => ("Last-Event-ID", Some(value.to_str().unwrap_or("\u{fffd}"))),
        None => ("after", query.get("after")),
    };
    let after = text
        .map(|text| {
            let why = || Fault::parameter(name, format!("`{text}` is no event id"));
            text.parse::<u64>().map_err(|_| why())
        })
        .transpose()?;
    Ok(events::respond(api.handle.clone(), after, api.shutdown.clone()))
}

/// Reads what the requests about the daemon itself have in common: a reason, no body.
async fn daemon_request(uri: &Uri, body: Body) -> Result<Option<String>, Fault> {
    let query = Parameters::read(uri, &["reason"])?;
    let reason = query.get("reason").map(input::read_reason).transpose()?;
    input::no_body(body).await?;
    Ok(reason)
}

async fn reload(api: &Api, peer: Arc<PeerCredentials>, uri: &Uri, body: Body) -> Answer {
    let reason = daemon_request(uri, body).await?;
    let (audit, by) = api.audit(&peer, "reload the configuration".to_owned(), reason).await;
    match api.handle.reload(by).await {
        Ok(reloaded) => {
            audit.finish(format!(
                "{} added, {} removed, {} restarted, {} updated",
                reloaded.added.len(),
                reloaded.removed.len(),
                reloaded.restarted.len(),
                reloaded.updated.len()
            ));
            json(&reload_view(reloaded))
        }
        Err(refusal) => {
            audit.finish(format!("refused: {refusal}"));
            Err(refusal.into())
        }
    }
}

async fn shutdown(api: &Api, peer: Arc<PeerCredentials>, uri: &Uri, body: Body) -> Answer {
    let reason = daemon_request(uri, body).await?;
    let (audit, by) = api.audit(&peer, "shutdown".to_owned(), reason).await;
    match api.handle.shutdown(by).await {
        Ok(()) => {
            audit.finish("everything is stopped");
            json(&ShutdownView { schema: SCHEMA, stopped: true })
        }
        Err(refusal) => {
            audit.finish(format!("refused: {refusal}"));
            Err(refusal.into())
        }
    }
}

async fn upgrade(api: &Api, peer: Arc<PeerCredentials>, uri: &Uri, body: Body) -> Answer {
    Parameters::read(uri, &[])?;
    let body = input::read_upgrade_body(body).await?;
    let patience = body
        .patience
        .as_deref()
        .map(|text| input::parse_duration(text).map_err(|why| Fault::parameter("patience", why)))
        .transpose()?;
    let reason = body.reason.as_deref().map(input::read_reason).transpose()?;
    if body.binary.is_some() && ![0, api.settings.own_uid].contains(&peer.uid) {
        // Whoever chooses the executable is the daemon's user in all but name.
        let text = "only root and the daemon's own user may name an executable";
        return Err(Fault::parameter("binary", text));
    }
    let binary = body.binary.map(std::path::PathBuf::from);
    let what =
        binary.as_ref().map_or("upgrade".to_owned(), |it| format!("upgrade {}", it.display()));
    let (audit, by) = api.audit(&peer, what, reason).await;
    match api.handle.upgrade(by, binary, patience).await {
        Ok(begun) => {
            audit.finish(format!("becoming {}", begun.version));
            json(&UpgradeView {
                schema: SCHEMA,
                from: api.settings.version.to_owned(),
                to: begun.version,
                event: begun.event,
            })
        }
        Err(refusal) => {
            audit.finish(format!("refused: {refusal}"));
            Err(refusal.into())
        }
    }
}

async fn put_log_level(api: &Api, peer: Arc<PeerCredentials>, uri: &Uri, body: Body) -> Answer {
    Parameters::read(uri, &[])?;
    let level = input::read_log_level_body(body).await?.level;
    let (audit, by) = api.audit(&peer, format!("log level {level}"), None).await;
    match api.handle.log_level(level, by).await {
        Ok(before) => {
            audit.finish(format!("was {before}"));
            json(&LogLevelBody { level: before })
        }
        Err(refusal) => {
            audit.finish(format!("refused: {refusal}"));
            Err(refusal.into())
        }
    }
}

fn version(api: &Api, uri: &Uri) -> Answer {
    Parameters::read(uri, &[])?;
    json(&VersionView {
        schema: SCHEMA,
        name: "mendd".to_owned(),
        version: api.settings.version.to_owned(),
        api: "v1".to_owned(),
        pid: api.settings.brain_pid,
        keeper_pid: api.settings.keeper_pid,
    })
}

/// Goes once through the engine's loop with a question that costs nothing.
async fn health(api: &Api) -> Answer {
    match tokio::time::timeout(HEALTH_TIMEOUT, api.handle.events_after(u64::MAX)).await {
        Ok(Ok(_)) => Ok(with_type("ok\n", "text/plain; charset=utf-8")),
        Ok(Err(refusal)) => Err(refusal.into()),
        Err(_) => Err(Fault::not_ready("the daemon's loop does not answer")),
    }
}

async fn ready(api: &Api) -> Answer {
    match tokio::time::timeout(HEALTH_TIMEOUT, api.handle.status(Vec::new())).await {
        Ok(Ok(status)) => match readiness::obstacles(&status) {
            None => Ok(with_type("ready\n", "text/plain; charset=utf-8")),
            Some(why) => Err(Fault::not_ready(&why)),
        },
        Ok(Err(refusal)) => Err(refusal.into()),
        Err(_) => Err(Fault::not_ready("the daemon's loop does not answer")),
    }
}
