//! Times and signals as text, the same in every answer.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::sys::signal::Signal;

use crate::time::{Instant, Wall};

/// Returns RFC 3339 in UTC with milliseconds: `2026-11-23T11:52:07.123Z`.
pub(super) fn rfc3339(at: Wall) -> String {
    format!("{:.3}", timestamp(at))
}

/// Returns supervisord's short form in local time: `Nov 23 11:52 AM`.
pub(super) fn short_local(at: Wall) -> String {
    timestamp(at).to_zoned(TimeZone::system()).strftime("%b %d %I:%M %p").to_string()
}

/// A time that no calendar reaches is shown as the epoch.
fn timestamp(at: Wall) -> Timestamp {
    Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns Python's `str(timedelta)`, as supervisord shows an uptime: `1 day, 2:03:04`.
pub(super) fn uptime(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        days => format!("{days} days, {clock}"),
    }
}

/// Turns monotonic times into civil ones by a pair that was read at the same moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: Instant,
    pub(super) wall: Wall,
}

impl Clock {
    pub(super) fn civil(&self, at: Instant) -> Wall {
        let (before, after) = (millis(self.now.since(at)), millis(at.since(self.now)));
        Wall(self.wall.0.saturating_sub(before).saturating_add(after))
    }

    pub(super) fn rfc3339(&self, at: Instant) -> String {
        rfc3339(self.civil(at))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Returns `SIGTERM` for 15; `SIGRTMIN+3` for a real-time signal; `signal 99` for no signal.
pub(super) fn signal_name(signal: i32) -> String {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    match Signal::try_from(signal) {
        Ok(known) => known.as_str().to_owned(),
        Err(_) if signal == first => "SIGRTMIN".to_owned(),
        Err(_) if (first..=last).contains(&signal) => format!("SIGRTMIN+{}", signal - first),
        Err(_) => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_reads_like_a_python_timedelta() {
        for (seconds, text) in [
            (5, "0:00:05"),
            (67, "0:01:07"),
            (86_400 + 2 * 3_600 + 3 * 60 + 4, "1 day, 2:03:04"),
            (5 * 86_400 + 7 * 3_600 + 18 * 60 + 14, "5 days, 7:18:14"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        assert_eq!(rfc3339(Wall(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Wall(1_795_434_727_120)), "2026-11-23T11:52:07.120Z");
        assert_eq!(rfc3339(Wall(i64::MAX)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_clock_places_the_past_and_the_future() {
        let clock = Clock { now: Instant::from_nanos(10_000_000_000), wall: Wall(50_000) };
        assert_eq!(clock.civil(Instant::from_nanos(7_000_000_000)), Wall(47_000));
        assert_eq!(clock.civil(Instant::from_nanos(12_500_000_000)), Wall(52_500));
    }

    #[test]
    fn signals_have_their_usual_names() {
        assert_eq!(signal_name(libc::SIGKILL), "SIGKILL");
        assert_eq!(signal_name(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
        assert_eq!(signal_name(99), "signal 99");
    }
}
