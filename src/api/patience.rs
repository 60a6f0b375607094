//! How long a client may take for a request that it has begun, while a connection at rest may
//! rest for as long as there is room.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first byte of a request.
    Resting,
    /// The rest of its line and headers.
    Head { since: Instant },
    /// Nothing: a request is being answered.
    Answering,
}

/// One connection's clock, shared by the stream and the service.
#[derive(Debug, Clone)]
pub(super) struct Patience(watch::Sender<Phase>);

impl Patience {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Phase::Resting))
    }

    fn bytes_came(&self) {
        self.0.send_if_modified(|phase| {
            let begins = *phase == Phase::Resting;
            if begins {
                *phase = Phase::Head { since: Instant::now() };
            }
            begins
        });
    }

    /// The head is complete; until the returned value is dropped, nobody is waited for.
    pub(super) fn answer(&self) -> Answering {
        self.0.send_replace(Phase::Answering);
        Answering(self.clone())
    }

    /// Returns when a client has taken longer than `limit` for a head that it has begun.
    pub(super) async fn exhausted(&self, limit: Duration) {
        let mut phases = self.0.subscribe();
        loop {
            let phase = *phases.borrow_and_update();
            let deadline = match phase {
                Phase::Head { since } => Some(since + limit),
                Phase::Resting | Phase::Answering => None,
            };
            let late = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Cannot fail: the sender is `self`.
                _ = phases.changed() => {}
                () = late => return,
            }
        }
    }
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answering(Patience);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.send_replace(Phase::Resting);
    }
}

/// A stream that tells when bytes come.
#[derive(Debug)]
pub(super) struct Observed<S> {
    stream: S,
    patience: Patience,
}

impl<S> Observed<S> {
    pub(super) fn new(stream: S, patience: Patience) -> Self {
        Self { stream, patience }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.patience.bytes_came();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
