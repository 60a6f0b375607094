//! The one table of routes: what there is, who may use it, and which endpoint answers.
//!
//! The router, the permission check, the list at `/` and the test of the OpenAPI document all
//! read this table, so a route cannot exist in one of them alone.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};

use super::access::Role;
use super::endpoints::{self, Api};
use super::problem::Fault;
use crate::os::peer::PeerCredentials;

/// What answers a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Index,
    Status,
    Program,
    /// Acts on the program of the path, options in the query.
    ActOne(Change),
    /// Acts on the names of the body.
    ActMany(Change),
    Logs,
    ProgramLogs,
    Events,
    Reload,
    Checks,
    RunChecks,
    Heal,
    Hold,
    Release,
    Why,
    Plan,
    Apply,
    Generations,
    Audit,
    Incidents,
    Incident,
    Statistics,
    CheckResults,
    Shutdown,
    Upgrade,
    GetLogLevel,
    PutLogLevel,
    Config,
    Version,
    OpenApi,
    Health,
    Ready,
    Metrics,
}

/// A verb of the paths; `signal` gets its number from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Start,
    Stop,
    Restart,
    Signal,
    Reload,
    Enable,
    Disable,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) role: Role,
    pub(super) endpoint: Endpoint,
    pub(super) summary: &'static str,
}

const fn get(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route { method: Method::GET, path, role: Role::Observe, endpoint, summary }
}

const fn post(path: &'static str, role: Role, endpoint: Endpoint, summary: &'static str) -> Route {
    Route { method: Method::POST, path, role, endpoint, summary }
}

const fn one(path: &'static str, change: Change, summary: &'static str) -> Route {
    post(path, Role::Operate, Endpoint::ActOne(change), summary)
}

const fn many(path: &'static str, change: Change, summary: &'static str) -> Route {
    post(path, Role::Operate, Endpoint::ActMany(change), summary)
}

/// Every route. `HEAD` is answered wherever `GET` is.
pub(super) static ROUTES: [Route; 45] = [
    get("/", Endpoint::Index, "this list"),
    get("/healthz", Endpoint::Health, "200 while the daemon's loop answers"),
    get("/readyz", Endpoint::Ready, "200 while all enabled programs run and are ready"),
    get("/metrics", Endpoint::Metrics, "numbers for a monitor, in the format of OpenMetrics"),
    get("/v1/openapi.json", Endpoint::OpenApi, "the description of this interface"),
    get("/v1/version", Endpoint::Version, "versions and pids of the daemon"),
    get("/v1/status", Endpoint::Status, "status of all programs, or of ?name=…&name=…"),
    get("/v1/programs/{name}", Endpoint::Program, "status of one program's processes"),
    one("/v1/programs/{name}/start", Change::Start, "start; ?wait=10s&reason=…"),
    one("/v1/programs/{name}/stop", Change::Stop, "stop; ?wait=10s&reason=…"),
    one("/v1/programs/{name}/restart", Change::Restart, "restart; ?wait=10s&reason=…"),
    one("/v1/programs/{name}/signal", Change::Signal, "send ?signal=HUP"),
    one("/v1/programs/{name}/reload", Change::Reload, "send the program's reload signal"),
    one("/v1/programs/{name}/enable", Change::Enable, "start by itself again; ?now=1&reason=…"),
    one("/v1/programs/{name}/disable", Change::Disable, "not start by itself; ?now=1&reason=…"),
    get("/v1/programs/{name}/logs", Endpoint::ProgramLogs, "output of one program; ?follow=1"),
    many("/v1/start", Change::Start, "start the programs of the body"),
    many("/v1/stop", Change::Stop, "stop the programs of the body"),
    many("/v1/restart", Change::Restart, "restart the programs of the body"),
    many("/v1/signal", Change::Signal, "send a signal to the programs of the body"),
    many("/v1/reload-programs", Change::Reload, "send the reload signals of the body's programs"),
    many("/v1/enable", Change::Enable, "let the programs of the body start by themselves"),
    many("/v1/disable", Change::Disable, "let the programs of the body not start by themselves"),
    get("/v1/logs", Endpoint::Logs, "output of all programs, or of ?name=…; ?follow=1"),
    get("/v1/events", Endpoint::Events, "server-sent events; resume by Last-Event-ID or ?after=ID"),
    get("/v1/checks", Endpoint::Checks, "how all checks stand, or those of ?name=web/http"),
    post("/v1/checks/run", Role::Operate, Endpoint::RunChecks, "run the checks of the body now"),
    get(
        "/v1/checks/{target}/{check}/results",
        Endpoint::CheckResults,
        "what a check has found; ?since=1d&limit=100",
    ),
    get("/v1/why", Endpoint::Why, "why all programs, or ?name=…, are as they are"),
    post("/v1/heal", Role::Operate, Endpoint::Heal, "heal what is down of the body's programs"),
    post(
        "/v1/hold",
        Role::Operate,
        Endpoint::Hold,
        "heal nothing of the body's programs for a time",
    ),
    post("/v1/release", Role::Operate, Endpoint::Release, "end the hold of the body's programs"),
    post("/v1/reload", Role::Admin, Endpoint::Reload, "read and apply the configuration again"),
    Route {
        method: Method::GET,
        path: "/v1/plan",
        // Mistakes are shown with the lines of the files, which not everybody may read.
        role: Role::Admin,
        endpoint: Endpoint::Plan,
        summary: "what the changed files, or generation ?to=…, would change",
    },
    post("/v1/apply", Role::Admin, Endpoint::Apply, "apply the files, with roll-back; ?wait=5m"),
    get(
        "/v1/generations",
        Endpoint::Generations,
        "the configurations before, and who applied them",
    ),
    get("/v1/audit", Endpoint::Audit, "who asked for what; ?since=1h&user=…&limit=100"),
    get("/v1/incidents", Endpoint::Incidents, "what went wrong; ?program=…&since=1d&open=1"),
    get("/v1/incidents/{id}", Endpoint::Incident, "one incident with its story"),
    get("/v1/statistics", Endpoint::Statistics, "what healing has achieved; ?program=…&since=30d"),
    post("/v1/shutdown", Role::Admin, Endpoint::Shutdown, "stop everything, then end the daemon"),
    post("/v1/upgrade", Role::Admin, Endpoint::Upgrade, "become another mendd in place"),
    get("/v1/config", Endpoint::Config, "what runs, key by key, or that of ?name=…; no secrets"),
    get("/v1/log-level", Endpoint::GetLogLevel, "level of the daemon's own log"),
    Route {
        method: Method::PUT,
        path: "/v1/log-level",
        role: Role::Admin,
        endpoint: Endpoint::PutLogLevel,
        summary: "change the level of the daemon's own log",
    },
];

/// Builds the router over the whole table.
pub(super) fn router(api: Arc<Api>) -> Router {
    let mut router = Router::new();
    for route in &ROUTES {
        let handler = move |State(api): State<Arc<Api>>, request: Request| async move {
            dispatch(&api, route, request).await.unwrap_or_else(Fault::into_response)
        };
        let filter = MethodFilter::try_from(route.method.clone())
            .expect("the table has standard methods only");
        router = router.route(route.path, on(filter, handler));
    }
    router
        .fallback(|request: Request| async move {
            Fault::no_route(request.uri().path()).into_response()
        })
        .method_not_allowed_fallback(wrong_method)
        .with_state(api)
}

async fn wrong_method(request: Request) -> Response {
    let template = request.extensions().get::<axum::extract::MatchedPath>().cloned();
    let template = template.as_ref().map_or(request.uri().path(), |matched| matched.as_str());
    let mut allowed: Vec<&str> = ROUTES
        .iter()
        .filter(|route| route.path == template)
        .map(|route| route.method.as_str())
        .collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    let method = request.method().as_str();
    Fault::method(method, request.uri().path(), allowed.join(", ")).into_response()
}

async fn dispatch(
    api: &Arc<Api>,
    route: &'static Route,
    request: Request,
) -> Result<Response, Fault> {
    let peer = request
        .extensions()
        .get::<Arc<PeerCredentials>>()
        .cloned()
        .ok_or_else(|| Fault::internal("the connection has no credentials".to_owned()))?;
    let role = api.role_of(&peer);
    if role < Some(route.role) {
        let uid = peer.uid;
        if route.role > Role::Observe {
            api.note_denied(&peer, route.path, route.role.name()).await;
        }
        return Err(Fault::denied(&format!("uid {uid}"), role, route.role));
    }
    // Administrators are never turned away: they are the ones who can end the crowd.
    let permit = api.requests.clone().try_acquire_owned();
    if permit.is_err() && role < Some(Role::Admin) {
        return Err(Fault::busy(api.max_requests));
    }
    endpoints::answer(api, route.endpoint, peer, request).await
}
