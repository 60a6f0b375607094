//! The accept loop and what guards it: limits on time, size and number.
//!
//! Runs on a single-threaded runtime. A panic in a request ends its connection alone.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::access::{Role, SharedAccess};
use super::audit::{Denials, UserNames};
use super::connections::{Connections, Mark, Slot};
use super::endpoints::Api;
use super::logs::LogSource;
use super::patience::{Answering, Observed, Patience};
use super::routes::router;
use crate::engine::Handle;
use crate::engine::history::History;
use crate::os::peer::{PeerCredentials, peer_credentials};
use crate::time::{Instant, Wall};

/// Largest request line and headers together.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// How long answers under way may take to finish once the server is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// Pause after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At most one warning about failing `accept`s in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// What the server has to know beside the engine.
pub struct ApiSettings {
    /// Who may do what; the integrator keeps a clone and sets it at each reload.
    pub access: SharedAccess,
    /// The daemon's own user, who may do everything.
    pub own_uid: u32,
    pub version: &'static str,
    pub brain_pid: u32,
    pub keeper_pid: u32,
    /// Where `/v1/logs` gets its lines.
    pub logs: Arc<dyn LogSource>,
    /// Where requests are recorded, and where the history is read.
    pub history: History,
    /// Reads one moment on both clocks.
    pub clock: fn() -> (Instant, Wall),
    /// Returns the level of the daemon's own log.
    pub log_level: Box<dyn Fn() -> String + Send + Sync>,
    pub caps: Caps,
}

impl std::fmt::Debug for ApiSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiSettings")
            .field("own_uid", &self.own_uid)
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

/// How many of what are served at once, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Beyond it the connection that is missed least makes room.
    pub connections: usize,
    /// Requests being answered; beyond it everyone but an administrator gets 503.
    pub requests: usize,
    /// How long a client may take for its request line and headers from their first byte on. A
    /// connection at rest stays until its place is needed.
    pub header_timeout: Duration,
}

impl Default for Caps {
    fn default() -> Self {
        Self { connections: 1_024, requests: 256, header_timeout: Duration::from_secs(10) }
    }
}

/// Marks an answer that goes on for as long as the client likes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streaming;

/// Serves the control API until `shutdown` is cancelled.
///
/// Then streams end at once and answers under way get half a second. A listener that comes
/// through `fresh` takes the place of the one before; connections stay.
///
/// # Errors
///
/// When a listener cannot be used by the runtime; a failing `accept` is retried for ever.
pub async fn serve(
    listener: UnixListener,
    mut fresh: UnboundedReceiver<UnixListener>,
    handle: Handle,
    settings: ApiSettings,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut listener = on_runtime(listener)?;
    let caps = settings.caps;
    let api = Arc::new(Api {
        handle,
        settings,
        shutdown: shutdown.clone(),
        requests: Arc::new(Semaphore::new(caps.requests)),
        max_requests: caps.requests,
        users: UserNames::default(),
        denials: Denials::default(),
    });
    let server = Server {
        router: router(Arc::clone(&api)),
        api,
        connections: Connections::default(),
        tasks: TaskTracker::new(),
        caps,
    };
    let mut warned: Option<tokio::time::Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(fresh) = fresh.recv() => {
                listener = on_runtime(fresh)?;
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => server.admit(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let has_room = server.connections.evict();
                if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
                    warned = Some(tokio::time::Instant::now());
                    tracing::warn!(
                        %error,
                        connections = server.connections.count(),
                        closed_one = has_room,
                        "cannot accept a control connection, trying again"
                    );
                }
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    server.tasks.close();
    // Each connection keeps to the same grace; the second one covers a late start.
    if tokio::time::timeout(SHUTDOWN_GRACE * 2, server.tasks.wait()).await.is_err() {
        tracing::warn!(connections = server.connections.count(), "control connections left open");
    }
    Ok(())
}

fn on_runtime(listener: UnixListener) -> io::Result<tokio::net::UnixListener> {
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

struct Server {
    api: Arc<Api>,
    router: Router,
    connections: Connections,
    tasks: TaskTracker,
    caps: Caps,
}

impl Server {
    /// Takes a new connection in, at the cost of another one when the house is full.
    fn admit(&self, stream: UnixStream) {
        let peer = match peer_credentials(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "cannot tell who connected to the control socket");
                return;
            }
        };
        let role = self.api.role_of(&peer);
        if self.connections.count() >= self.caps.connections
            && !self.connections.evict()
            && role < Some(Role::Admin)
        {
            tracing::warn!(uid = peer.uid, "control connection refused: all are busy");
            return;
        }
        let slot = self.connections.enter(role.is_none());
        let connection = run(
            stream,
            slot,
            Arc::new(peer),
            self.router.clone(),
            self.caps.header_timeout,
            self.api.shutdown.clone(),
        );
        self.tasks.spawn(connection);
    }
}

/// Serves one connection until either side ends it.
async fn run(
    stream: UnixStream,
    slot: Slot,
    peer: Arc<PeerCredentials>,
    router: Router,
    header_timeout: Duration,
    shutdown: CancellationToken,
) {
    let patience = Patience::new();
    let service = service_fn(|request| respond(&router, &slot, &patience, &peer, request));
    let stream = Observed::new(stream, patience.clone());
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // Its clock runs while a connection rests; `patience` has one that does not.
            .header_read_timeout(None)
            .max_header_size(MAX_HEADER_BYTES)
            .keep_alive(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    // A broken connection is the client's affair: whatever mattered is in the audit.
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, uid = peer.uid, "control connection ended");
            }
        }
        () = patience.exhausted(header_timeout) => {
            tracing::debug!(uid = peer.uid, "control connection closed: half a request");
        }
        () = slot.evicted() => {
            tracing::debug!(uid = peer.uid, "control connection closed to make room");
        }
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(SHUTDOWN_GRACE, connection).await;
        }
    }
}

async fn respond(
    router: &Router,
    slot: &Slot,
    patience: &Patience,
    peer: &Arc<PeerCredentials>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mark = slot.begin();
    let answering = patience.answer();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Arc::clone(peer));
    let response = router.clone().call(request).await?;
    if response.extensions().get::<Streaming>().is_some() {
        mark.stream();
    }
    Ok(response.map(|body| Body::new(Marked { body, _mark: mark, _answering: answering })))
}

/// A body that keeps its connection marked until it is sent or given up.
struct Marked {
    body: Body,
    _mark: Mark,
    _answering: Answering,
}

impl HttpBody for Marked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
