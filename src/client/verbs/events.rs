//! The daemon's event stream, resumed where it broke.

use std::time::Duration;

use crate::api::view::EventView;
use crate::client::failure::Failure;
use crate::client::http::{Client, Stream};
use crate::client::lines::Sse;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

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
    client: Client,
    stream: Option<Stream>,
    sse: Sse,
    last_id: Option<u64>,
    pause: Duration,
}

impl Events {
    /// Connects; the daemon has to be there for the first time.
    pub(crate) async fn open(client: &Client) -> Result<Self, Failure> {
        let stream = client.stream("/v1/events", None).await?;
        Ok(Self {
            client: client.clone(),
            stream: Some(stream),
            sse: Sse::default(),
            last_id: None,
            pause: FIRST_PAUSE,
        })
    }

    /// Yields the events after this one, as soon as the daemon can be reached.
    pub(crate) fn after(client: &Client, id: u64) -> Self {
        Self {
            client: client.clone(),
            stream: None,
            sse: Sse::default(),
            last_id: Some(id),
            pause: FIRST_PAUSE,
        }
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
            let Some(stream) = &mut self.stream else {
                self.reconnect().await?;
                return Ok(Step::Again);
            };
            match stream.piece().await {
                Ok(Some(bytes)) => self.sse.push(&bytes),
                Ok(None) => return Ok(self.lost()),
                Err(error) if error.is_transient() => return Ok(self.lost()),
                Err(error) => return Err(error),
            }
        }
    }

    fn lost(&mut self) -> Step {
        self.stream = None;
        self.sse = Sse::default();
        self.pause = FIRST_PAUSE;
        Step::Lost
    }

    async fn reconnect(&mut self) -> Result<(), Failure> {
        let last = self.last_id.map(|id| id.to_string());
        loop {
            match self.client.stream("/v1/events", last.as_deref()).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
