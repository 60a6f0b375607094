//! How fast a program prints, now and before, for who has to explain a failure of it.
//!
//! A bounded number of lines is read at each place, so that a flood is called one without being
//! read: the rate is at least what is said.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::capture::{Channel, LogReader};
use crate::core::care::evidence::OutputRate;
use crate::os::clock;
use crate::time::{Instant, Wall};

/// What counts as now.
const NOW: Duration = Duration::from_secs(5);
/// What counts as before, from so long ago until so long ago.
const BEFORE: (Duration, Duration) = (Duration::from_secs(660), Duration::from_secs(60));
/// Most lines that are read of each time.
const MAX_LINES: usize = 20_000;
const BATCH_LINES: usize = 500;
/// The index of a log knows times no better than this.
const SHORTEST: Duration = Duration::from_millis(100);

/// Reads how fast a run that began at this time prints. What was usual of a run that is young is
/// not known: `of_any_age` takes it for nothing, else there is no rate.
pub(super) async fn rate(
    logs: Vec<(PathBuf, Channel)>,
    begun: Instant,
    of_any_age: bool,
) -> Option<OutputRate> {
    let (now, age) = (clock::wall(), clock::now().since(begun));
    if logs.is_empty() || (age <= BEFORE.1 && !of_any_age) {
        return None;
    }
    let read = move || {
        let sum = |from: Duration, until: Duration| -> Option<f64> {
            let from = ago(now, from.min(age));
            let rates =
                logs.iter().map(|(log, channel)| flow(log, *channel, from, ago(now, until)));
            rates.sum::<io::Result<f64>>().ok()
        };
        let usual = if age > BEFORE.1 { sum(BEFORE.0, BEFORE.1)? } else { 0.0 };
        Some(OutputRate { lines_per_second: sum(NOW, Duration::ZERO)?, usual })
    };
    tokio::task::spawn_blocking(read).await.ok()?
}

fn ago(now: Wall, time: Duration) -> Wall {
    Wall(now.0.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}

/// Returns the lines a second that a log has of this time.
fn flow(log: &std::path::Path, channel: Channel, from: Wall, until: Wall) -> io::Result<f64> {
    let mut reader = LogReader::open(log, channel)?;
    reader.since(from)?;
    let (mut lines, mut last) = (0_u32, from);
    while (lines as usize) < MAX_LINES {
        let more = reader.next_lines(BATCH_LINES)?;
        let is_within = |at: Option<Wall>| at.is_none_or(|at| at <= until);
        let within = more.iter().take_while(|line| is_within(line.at)).count();
        lines += u32::try_from(within).unwrap_or(u32::MAX);
        last = more.iter().take(within).filter_map(|line| line.at).fold(last, Wall::max);
        if within < BATCH_LINES {
            last = until;
            break;
        }
    }
    Ok(f64::from(lines) / last.since(from).max(SHORTEST).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_over_the_time_that_they_are_of() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let now = clock::wall();
        std::fs::write(&log, "line\n".repeat(50)).unwrap();
        let rate = |from, until| flow(&log, Channel::Stdout, from, until).unwrap();
        let slow = rate(ago(now, NOW), Wall(now.0 + 5_000));
        assert!((slow - 5.0).abs() < 0.1, "{slow}");
        assert!(rate(Wall(now.0 + 60_000), Wall(now.0 + 61_000)) < 0.1);
        std::fs::write(&log, "line\n".repeat(100_000)).unwrap();
        assert!(rate(ago(now, NOW), ago(now, Duration::ZERO)) > 1000.0);
    }
}
