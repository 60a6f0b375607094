//! `/v1/events`: server-sent events with ids, resume, and an honest gap where some are lost.
//!
//! A client that reads too slowly never slows the engine down: it lags behind the broadcast
//! and the stream is filled up again from the events that are still kept.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::server::Streaming;
use super::show::event_view;
use super::times::rfc3339;
use super::view::EventView;
use crate::engine::{Handle, Happening};

/// How long a client should wait before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// How often a quiet stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Frames that may wait for a slow reader.
const FRAMES_IN_FLIGHT: usize = 64;

/// Answers with the events after `after` that are kept, then with the live ones, until the
/// client leaves or the daemon stops.
pub(super) fn respond(handle: Handle, after: Option<u64>, shutdown: CancellationToken) -> Response {
    let (sender, receiver) = mpsc::channel(FRAMES_IN_FLIGHT);
    // Subscribed before anything is read back, so that nothing falls in between.
    let live = handle.events();
    tokio::spawn(async move {
        let mut feed = Feed { handle, sender: sender.clone(), last: after, is_trusted: false };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sender.closed() => {}
            _ = feed.run(live, after.is_some()) => {}
        }
    });
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.extensions_mut().insert(Streaming);
    response
}

/// The stream is over: the client or the engine is gone.
struct Over;

struct Feed {
    handle: Handle,
    sender: mpsc::Sender<Result<Bytes, Infallible>>,
    /// The id of the last event that the client has.
    last: Option<u64>,
    /// Whether `last` comes from us. A client may resume with an id of another daemon; then
    /// the live events, whatever their ids, must not be taken for old ones.
    is_trusted: bool,
}

impl Feed {
    async fn run(
        &mut self,
        mut live: broadcast::Receiver<Arc<Happening>>,
        resume: bool,
    ) -> Result<(), Over> {
        self.send(format!("retry: {}\n: connected\n\n", RECONNECT.as_millis())).await?;
        if resume {
            self.catch_up().await?;
        }
        let start = tokio::time::Instant::now() + KEEP_ALIVE;
        let mut keep_alive = tokio::time::interval_at(start, KEEP_ALIVE);
        loop {
            tokio::select! {
                received = live.recv() => match received {
                    Ok(happening) => self.tell(&happening).await?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        self.on_lag(&mut live, missed).await?;
                    }
                    Err(broadcast::error::RecvError::Closed) => return Err(Over),
                },
                _ = keep_alive.tick() => self.send(": alive\n\n".to_owned()).await?,
            }
        }
    }

    /// Reads again what the broadcast dropped. Before the first event the place is found by
    /// counting back from the next one.
    async fn on_lag(
        &mut self,
        live: &mut broadcast::Receiver<Arc<Happening>>,
        missed: u64,
    ) -> Result<(), Over> {
        if self.last.is_none()
            && let Ok(next) = live.try_recv()
        {
            self.last = Some(next.id.saturating_sub(missed.saturating_add(1)));
            self.is_trusted = true;
            self.catch_up().await?;
            return self.tell(&next).await;
        }
        self.catch_up().await
    }

    /// Sends what is kept after the last event that the client has.
    async fn catch_up(&mut self) -> Result<(), Over> {
        let Some(last) = self.last else { return Ok(()) };
        for happening in self.handle.events_after(last).await.map_err(|_| Over)? {
            self.tell(&happening).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, happening: &Happening) -> Result<(), Over> {
        if let Some(last) = self.last {
            if self.is_trusted && happening.id <= last {
                return Ok(());
            }
            if last.checked_add(1) != Some(happening.id) {
                self.send(frame(&gap(last, happening))).await?;
            }
        }
        self.last = Some(happening.id);
        self.is_trusted = true;
        self.send(frame(&event_view(happening))).await
    }

    async fn send(&self, text: String) -> Result<(), Over> {
        self.sender.send(Ok(text.into())).await.map_err(|_| Over)
    }
}

/// Says that the events between `last` and `next` are no longer kept.
///
/// It carries the id before `next`, so that a client which resumes from it misses nothing more.
fn gap(last: u64, next: &Happening) -> EventView {
    EventView {
        id: next.id.saturating_sub(1),
        at: rfc3339(next.at),
        kind: "gap".to_owned(),
        data: json!({ "after": last, "next": next.id }),
    }
}

/// JSON has no line breaks, so one `data:` line is enough.
fn frame(event: &EventView) -> String {
    let data = serde_json::to_string(event).expect("strings and numbers become JSON");
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind)
}
