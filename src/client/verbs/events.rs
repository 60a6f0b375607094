//! The daemon's event stream, resumed where it broke.

use super::tail::{Piece, Tail};
use crate::api::view::EventView;
use crate::client::failure::Failure;
use crate::client::http::Client;
use crate::client::lines::Sse;

const PATH: &str = "/v1/events";

/// One step of the stream.
#[derive(Debug)]
pub(crate) enum Step {
    Event {
        event: EventView,
        raw: String,
    },
    /// The connection is gone; the next step comes when it is back.
    Lost,
    /// The connection is back.
    Again,
}

/// Yields every event once, over restarts and upgrades of the daemon.
pub(crate) struct Events {
    tail: Tail,
    sse: Sse,
    last_id: Option<u64>,
}

impl Events {
    /// Connects; the daemon has to be there for the first time.
    pub(crate) async fn open(client: &Client) -> Result<Self, Failure> {
        let tail = Tail::open(client, PATH).await?;
        Ok(Self { tail, sse: Sse::default(), last_id: None })
    }

    /// Yields the events after this one, as soon as the daemon can be reached.
    pub(crate) fn after(client: &Client, id: u64) -> Self {
        Self { tail: Tail::lost(client), sse: Sse::default(), last_id: Some(id) }
    }

    /// Waits for the next step. May be cancelled without losing one.
    pub(crate) async fn next(&mut self) -> Result<Step, Failure> {
        loop {
            while let Some(found) = self.sse.next_event() {
                let Ok(event) = serde_json::from_str::<EventView>(&found.data) else {
                    continue; // A kind of event that this version does not know.
                };
                // After a gap the ids may come from another daemon and begin anew.
                let is_gap = event.kind == "gap";
                if !is_gap && self.last_id.is_some_and(|last| event.id <= last) {
                    continue;
                }
                self.last_id = Some(event.id);
                return Ok(Step::Event { event, raw: found.data });
            }
            if self.tail.is_lost() {
                let last = self.last_id.map(|id| id.to_string());
                self.tail.reconnect(PATH, last.as_deref()).await?;
                return Ok(Step::Again);
            }
            match self.tail.piece().await? {
                Piece::Bytes(bytes) => self.sse.push(&bytes),
                Piece::End | Piece::Broken(_) => {
                    self.sse = Sse::default();
                    return Ok(Step::Lost);
                }
            }
        }
    }
}
