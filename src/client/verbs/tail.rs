//! An answer that goes on for ever, taken up again where it broke, and the pauses between tries.

use std::time::Duration;

use hyper::body::Bytes;

use crate::client::failure::Failure;
use crate::client::http::{Client, Stream};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The pauses between tries to reach the daemon again: each twice as long, up to a limit.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    /// Lets the next pause pass. One that is cancelled does not count.
    pub(super) async fn next(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// What came over a connection.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// The daemon has said all.
    End,
    /// The daemon is gone, perhaps not for long.
    Broken(Failure),
}

/// The connection of a view that goes on over restarts and upgrades of the daemon.
pub(super) struct Tail {
    client: Client,
    stream: Option<Stream>,
    pauses: Pauses,
}

impl Tail {
    /// Connects; the daemon has to be there for the first time.
    pub(super) async fn open(client: &Client, path: &str) -> Result<Self, Failure> {
        let stream = client.stream(path, None).await?;
        Ok(Self { stream: Some(stream), ..Self::lost(client) })
    }

    /// Begins as if the connection had just been lost.
    pub(super) fn lost(client: &Client) -> Self {
        Self { client: client.clone(), stream: None, pauses: Pauses::new() }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.stream.is_none()
    }

    /// Waits for what comes next; after anything but bytes the connection is lost. May be cancelled
    /// without losing anything.
    ///
    /// # Errors
    ///
    /// What no new connection would help against.
    pub(super) async fn piece(&mut self) -> Result<Piece, Failure> {
        let Some(stream) = &mut self.stream else { return Ok(Piece::End) };
        let last = match stream.piece().await {
            Ok(Some(bytes)) => return Ok(Piece::Bytes(bytes)),
            Ok(None) => Piece::End,
            Err(error) if error.is_transient() => Piece::Broken(error),
            Err(error) => return Err(error),
        };
        self.stream = None;
        self.pauses = Pauses::new();
        Ok(last)
    }

    /// Connects again as soon as the daemon can be reached, to go on after an event.
    ///
    /// # Errors
    ///
    /// What waiting would not help against.
    pub(super) async fn reconnect(
        &mut self,
        path: &str,
        last_event: Option<&str>,
    ) -> Result<(), Failure> {
        loop {
            match self.client.stream(path, last_event).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(error) if error.is_transient() => self.pauses.next().await,
                Err(error) => return Err(error),
            }
        }
    }
}
