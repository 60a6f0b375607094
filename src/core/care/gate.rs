//! The pressure gate: while the host is too busy to answer, a timeout says nothing.
//!
//! Hard failures (a refused connection, an exit code) count as ever. An episode of pressure
//! excuses timeouts for five minutes at most: what is slow for longer is broken.

use std::time::Duration;

use crate::time::Instant;

/// Longest time for which one episode excuses timeouts.
pub const LONGEST_EXCUSE: Duration = Duration::from_secs(300);
/// After so much time without pressure the next one is a new episode.
const QUIET: Duration = Duration::from_secs(60);
/// An event loop that wakes so much too late is itself a sign of pressure.
const LAG: Duration = Duration::from_secs(1);

/// Shares of time in which tasks waited, in percent over the last ten seconds
/// (`/proc/pressure`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    pub cpu_some: f64,
    pub memory_full: f64,
    pub io_full: f64,
}

/// What the gate remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PressureGate {
    pub episode: Option<Episode>,
}

/// A stretch of time in which the host was too busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Episode {
    pub since: Instant,
    pub last_seen: Instant,
}

impl Pressure {
    pub fn is_high(self) -> bool {
        self.cpu_some > 60.0 || self.memory_full > 10.0 || self.io_full > 40.0
    }
}

impl PressureGate {
    /// Says whether a timeout that was seen together with this pressure is excused.
    pub fn excuses(&mut self, now: Instant, pressure: Pressure) -> bool {
        if pressure.is_high() {
            self.see(now);
        }
        let fresh = |episode: &Episode| now.since(episode.last_seen) < LAG;
        let recent = self.episode.filter(|episode| pressure.is_high() || fresh(episode));
        recent.is_some_and(|episode| now.since(episode.since) < LONGEST_EXCUSE)
    }

    /// Notes how much too late the event loop woke up; a suspended machine shows here too.
    pub fn on_wake(&mut self, now: Instant, due: Instant) {
        if now.since(due) > LAG {
            self.see(now);
        }
    }

    /// Whether people should see that timeouts are being excused.
    pub fn is_excusing(&self, now: Instant) -> bool {
        self.episode.is_some_and(|episode| {
            now.since(episode.last_seen) < QUIET && now.since(episode.since) < LONGEST_EXCUSE
        })
    }

    fn see(&mut self, now: Instant) {
        let episode = self.episode.filter(|episode| now.since(episode.last_seen) < QUIET);
        let since = episode.map_or(now, |episode| episode.since);
        self.episode = Some(Episode { since, last_seen: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: Pressure = Pressure { cpu_some: 90.0, memory_full: 0.0, io_full: 0.0 };
    const CALM: Pressure = Pressure { cpu_some: 60.0, memory_full: 10.0, io_full: 40.0 };

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn any_of_the_three_pressures_is_enough() {
        assert!(!CALM.is_high() && HIGH.is_high());
        assert!(Pressure { memory_full: 10.1, ..CALM }.is_high());
        assert!(Pressure { io_full: 40.1, ..CALM }.is_high());
    }

    #[test]
    fn pressure_excuses_for_five_minutes_and_again_only_after_a_quiet_minute() {
        let mut gate = PressureGate::default();
        assert!(!gate.excuses(at(0), CALM));
        for second in (0..300).step_by(30) {
            assert!(gate.excuses(at(second), HIGH), "at {second} s");
        }
        for second in (300..900).step_by(30) {
            assert!(!gate.excuses(at(second), HIGH), "at {second} s");
        }
        assert!(!gate.is_excusing(at(900)));
        assert!(gate.excuses(at(931), HIGH));
        assert!(gate.is_excusing(at(931)));
    }

    #[test]
    fn a_loop_that_wakes_too_late_excuses_what_it_reads_then() {
        let mut gate = PressureGate::default();
        gate.on_wake(at(11), at(10));
        assert!(!gate.excuses(at(11), CALM));
        gate.on_wake(at(20), at(10));
        assert!(gate.excuses(at(20), CALM));
        assert!(!gate.excuses(at(22), CALM));
    }
}
