//! How far a probe has come: what its time limit means depends on it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What a probe waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Something of this machine: a command's start, a file.
    Begun,
    /// The addresses of a name.
    Resolving,
    /// That somebody accepts a connection.
    Connecting,
    /// That somebody who accepted it answers.
    Asking,
    /// The rest of an answer.
    Answering,
}

/// The stage of one probe, and its time.
#[derive(Debug)]
pub(super) struct Progress {
    stage: AtomicU8,
    deadline: Instant,
}

impl Progress {
    pub(super) fn new(timeout: Duration) -> Self {
        // A limit beyond all calendars is none.
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now + Duration::from_secs(86_400));
        Self { stage: AtomicU8::new(Stage::Begun as u8), deadline }
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn stage(&self) -> Stage {
        let number = self.stage.load(Ordering::Relaxed);
        let all = [Stage::Begun, Stage::Resolving, Stage::Connecting, Stage::Asking];
        all.into_iter().find(|stage| *stage as u8 == number).unwrap_or(Stage::Answering)
    }

    /// Returns the time that is left.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_remembered() {
        let progress = Progress::new(Duration::MAX);
        assert_eq!(progress.stage(), Stage::Begun);
        let others = [Stage::Resolving, Stage::Connecting, Stage::Asking, Stage::Answering];
        for stage in others {
            progress.enter(stage);
            assert_eq!(progress.stage(), stage);
        }
        assert!(progress.left() > Duration::from_secs(80_000));
    }
}
