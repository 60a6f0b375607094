//! How long output may wait in its pipe before it is moved.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Quiet streams wait this long for company.
const COALESCE: Duration = Duration::from_millis(20);
/// The rate is measured over this time, or over one full pipe if that is sooner.
pub(super) const WINDOW: Duration = Duration::from_millis(50);
/// Shorter delays are none: sleeping would cost throughput then.
const SHORTEST: Duration = Duration::from_millis(1);

/// The rate of one stream, and the delay that fills at most a quarter of its pipe.
#[derive(Debug)]
pub(super) struct Pace {
    capacity_bytes: u64,
    begin: Instant,
    bytes: u64,
    pub(super) delay: Duration,
}

impl Pace {
    pub(super) fn new(pipe: impl AsFd, now: Instant) -> Self {
        let capacity = crate::os::splice::pipe_size(pipe).unwrap_or(4096);
        Self { capacity_bytes: capacity as u64, begin: now, bytes: 0, delay: COALESCE }
    }

    pub(super) fn on_moved(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        let elapsed = now.duration_since(self.begin);
        if elapsed < WINDOW && self.bytes < self.capacity_bytes {
            return;
        }
        let quarter = self.capacity_bytes as f64 / 4.0;
        let delay = elapsed.as_secs_f64() * quarter / self.bytes.max(1) as f64;
        let delay = Duration::from_secs_f64(delay.min(COALESCE.as_secs_f64()));
        self.delay = if delay < SHORTEST { Duration::ZERO } else { delay };
        (self.begin, self.bytes) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_never_lets_a_steady_stream_fill_its_pipe() {
        let begin = Instant::now();
        for (bytes_per_millisecond, expected) in [(10, 20), (4096, 4), (200_000, 0)] {
            let mut pace = Pace { capacity_bytes: 65_536, begin, bytes: 0, delay: COALESCE };
            for millisecond in 1..=60 {
                pace.on_moved(bytes_per_millisecond, begin + Duration::from_millis(millisecond));
            }
            assert_eq!(pace.delay.as_millis(), expected, "{bytes_per_millisecond} bytes/ms");
        }
    }

    #[test]
    fn a_busy_stream_that_has_paused_is_quiet_again() {
        let begin = Instant::now();
        let mut pace = Pace { capacity_bytes: 65_536, begin, bytes: 0, delay: COALESCE };
        pace.on_moved(65_536, begin + Duration::from_micros(100));
        assert_eq!(pace.delay, Duration::ZERO);
        pace.on_moved(10, begin + Duration::from_secs(1));
        assert_eq!(pace.delay, COALESCE);
    }
}
