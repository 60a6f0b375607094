//! What a run is listened to through, beside its output: its notification socket and the pipe of
//! its readiness.
//!
//! The keeper holds them as it holds the output, under a number that no run has: it need not know
//! what they are, and neither need its wire nor its table.

use crate::name::RunId;

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extra {
    /// The socket that `NOTIFY_SOCKET` names.
    Notify,
    /// The reading end of the pipe that `ready = "fd:N"` gives.
    Ready,
}

/// Higher than the number of any run: a thousand starts a second reach it in 146 million years.
const NOTIFY: u64 = 1 << 62;
const READY: u64 = 1 << 61;

impl Extra {
    /// Returns the number under which the keeper holds it for `run`.
    pub(super) fn key(self, run: RunId) -> RunId {
        let bit = match self {
            Self::Notify => NOTIFY,
            Self::Ready => READY,
        };
        RunId(run.0 | bit)
    }

    /// Takes apart what [`key`](Self::key) put together; `None` for a run itself.
    pub(super) fn of_key(key: RunId) -> Option<(RunId, Self)> {
        match (key.0 & NOTIFY != 0, key.0 & READY != 0) {
            (true, false) => Some((RunId(key.0 & !NOTIFY), Self::Notify)),
            (false, true) => Some((RunId(key.0 & !READY), Self::Ready)),
            (false, false) | (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_back_to_its_run_and_no_run_is_a_key() {
        for extra in [Extra::Notify, Extra::Ready] {
            assert_eq!(Extra::of_key(extra.key(RunId(7))), Some((RunId(7), extra)));
        }
        assert_eq!(Extra::of_key(RunId(7)), None);
        assert_eq!(Extra::of_key(RunId(u64::MAX)), None);
    }
}
