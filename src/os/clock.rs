//! The machine's clocks, asked only outside the core.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::time::{Instant, Wall};

/// Returns the monotonic time; see clock_gettime(2), `CLOCK_MONOTONIC`.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .expect("every kernel has CLOCK_MONOTONIC");
    Instant::default() + time
}

/// Returns civil time.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Returns the instant at which tokio's clock shows what the monotonic clock shows at `at`.
pub fn to_tokio(at: Instant) -> tokio::time::Instant {
    tokio::time::Instant::now() + at.since(now())
}
