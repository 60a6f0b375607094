//! A daemon for tests: the routes of the API over a real socket, with answers set by the test.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::api::view::{DaemonView, ProcessView, SCHEMA, StatusView};

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: String,
    pub(crate) body: String,
    pub(crate) last_event_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

impl Seen {
    /// Whether the path, without the query, is this one.
    pub(crate) fn is(&self, path: &str) -> bool {
        self.uri.split('?').next() == Some(path)
    }
}

/// What to answer.
pub(crate) enum Reply {
    Json(u16, String),
    /// These bytes, then the end.
    Text(String),
    /// The connection breaks in the middle of the answer.
    Broken,
    /// Accepts and never answers.
    Silence,
}

type Respond = dyn Fn(&Seen) -> Reply + Send + Sync;

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    respond: Arc<Respond>,
}

/// Listens until it is dropped.
pub(crate) struct FakeDaemon {
    pub(crate) socket: PathBuf,
    shared: Shared,
    server: JoinHandle<()>,
    _directory: TempDir,
}

impl FakeDaemon {
    pub(crate) fn start(respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("mend.sock");
        let shared = Shared { seen: Arc::default(), respond: Arc::new(respond) };
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            axum::serve(listener, app).await.unwrap();
        });
        Self { socket, shared, server, _directory: directory }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Ends the daemon and leaves the socket behind, as a crash does.
    pub(crate) async fn crash(&mut self) {
        self.server.abort();
        let _aborted = (&mut self.server).await;
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (last_event_id, idempotency_key) = (header("last-event-id"), header("idempotency-key"));
    let body = String::from_utf8(body.to_vec()).unwrap();
    let seen = Seen { method, uri: uri.to_string(), body, last_event_id, idempotency_key };
    shared.seen.lock().unwrap().push(seen.clone());
    match (shared.respond)(&seen) {
        Reply::Json(status, text) => {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Reply::Text(text) => text.into_response(),
        Reply::Broken => {
            let broken = std::io::Error::other("broken on purpose");
            Body::from_stream(tokio_stream::once(Err::<Bytes, _>(broken))).into_response()
        }
        Reply::Silence => std::future::pending().await,
    }
}

/// Returns a process that entered its state at 10:30.
pub(crate) fn process(name: &str, state: &str, pid: Option<u32>) -> ProcessView {
    let program = name.split(':').next().unwrap_or(name).to_owned();
    ProcessView {
        name: name.to_owned(),
        group: program.clone(),
        program,
        state: state.to_owned(),
        statecode: 0,
        goal: "up".to_owned(),
        goal_by: None,
        goal_reason: None,
        enabled: true,
        enabled_by: None,
        enabled_reason: None,
        enabled_at: None,
        pid,
        run: None,
        health: "none".to_owned(),
        incident: None,
        restarts: 0,
        exit: None,
        description: String::new(),
        since: "2026-11-23T10:30:00Z".to_owned(),
        started: None,
        uptime_seconds: None,
        retry_at: None,
        retry_in_seconds: None,
        failures: 0,
        failures_limit: 0,
        breaker: "closed".to_owned(),
        reason: String::new(),
        waiting_for: Vec::new(),
        command: Vec::new(),
        memory_bytes: pid.map(|_| 3 << 20),
        ready: None,
        gives_up_at: None,
        status_text: None,
        cpu_seconds: pid.map(|_| 1.25),
    }
}

pub(crate) fn status(programs: Vec<ProcessView>) -> StatusView {
    StatusView {
        schema: SCHEMA,
        mode: "normal".to_owned(),
        daemon: DaemonView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: 2,
            keeper_pid: 1,
            started: "2026-11-23T10:00:00Z".to_owned(),
            config: "/etc/mend/supervisor.toml".to_owned(),
            warnings: Vec::new(),
        },
        programs,
        sessions: Vec::new(),
    }
}
