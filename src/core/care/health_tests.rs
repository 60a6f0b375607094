//! The rules of health, each with the verdicts that show it.

use std::time::Duration;

use super::health::*;
use crate::config::{Check, CheckKind, FailRule};
use crate::time::Instant;
use Verdict::{Fail, Pass, Timeout, Unknown, Warn};

/// A check and its health; each verdict comes a second after the last.
struct Bench {
    check: Check,
    health: Health,
    now: Instant,
}

impl Bench {
    /// Up since a moment ago.
    fn up() -> Self {
        let mut bench = Self::starting();
        assert_eq!(bench.sees(&[Pass]), [Edge::Started]);
        bench
    }

    fn starting() -> Self {
        let now = Instant::from_nanos(1_000_000_000_000);
        let check = Check::new("http".parse().unwrap(), CheckKind::Http);
        let mut health = Health::new(now);
        health.on_process_started(now, now + check.start_timeout);
        Self { check, health, now }
    }

    fn down() -> Self {
        let mut bench = Self::up();
        assert_eq!(bench.sees(&[Fail, Fail, Fail]), [Edge::WentDown]);
        bench
    }

    fn sees(&mut self, verdicts: &[Verdict]) -> Vec<Edge> {
        let mut edges = Vec::new();
        for verdict in verdicts {
            self.now = self.now + Duration::from_secs(1);
            edges.extend(self.health.on_verdict(self.now, &self.check, *verdict));
        }
        edges
    }

    fn state(&self) -> HealthState {
        self.health.state(false)
    }

    fn wait(&mut self, seconds: u64) -> Vec<Edge> {
        self.now = self.now + Duration::from_secs(seconds);
        self.health.on_time(self.now)
    }
}

#[test]
fn three_failures_in_a_row_are_down_and_one_pass_before_is_up_again() {
    let mut bench = Bench::up();
    assert_eq!(bench.sees(&[Fail, Timeout]), []);
    assert_eq!(bench.state(), HealthState::Suspect);
    assert_eq!(bench.sees(&[Pass]), []);
    assert_eq!(bench.state(), HealthState::Up);
    assert_eq!(bench.sees(&[Fail, Timeout, Fail]), [Edge::WentDown]);
    assert!(bench.health.is_certain());
}

#[test]
fn two_passes_in_a_row_end_a_failure_and_a_failure_between_starts_the_count_again() {
    let mut bench = Bench::down();
    assert_eq!(bench.sees(&[Pass, Fail, Pass]), []);
    assert_eq!(bench.state(), HealthState::Down);
    assert_eq!(bench.sees(&[Warn]), [Edge::CameUp]);
    assert!(bench.health.warning);
}

#[test]
fn k_of_n_counts_failures_that_passes_lie_between() {
    let mut bench = Bench::up();
    bench.check.fail_if = FailRule::Among { failures: 3, of: 5 };
    assert_eq!(bench.sees(&[Fail, Pass, Fail, Pass]), []);
    assert_eq!(bench.sees(&[Fail]), [Edge::WentDown]);
    assert_eq!(bench.sees(&[Pass, Pass]), [Edge::CameUp]);
    assert_eq!(bench.sees(&[Fail, Pass, Pass, Pass, Fail, Fail]), []);
    assert_eq!(bench.sees(&[Pass, Fail]), [Edge::WentDown]);
}

#[test]
fn an_unknown_verdict_moves_no_streak_and_six_in_a_row_are_a_broken_check() {
    let mut bench = Bench::up();
    bench.sees(&[Fail, Fail]);
    assert_eq!(bench.sees(&[Unknown; 5]), []);
    assert_eq!((bench.health.fails, bench.state()), (2, HealthState::Suspect));
    assert_eq!(bench.sees(&[Unknown; 3]), [Edge::Broken]);
    assert_eq!(bench.state(), HealthState::Broken);
    assert_eq!(bench.sees(&[Fail]), [Edge::Mended, Edge::WentDown]);
}

#[test]
fn what_is_down_is_not_certain_while_the_probe_cannot_look() {
    let mut bench = Bench::down();
    bench.sees(&[Unknown]);
    assert!(!bench.health.is_certain());
    bench.sees(&[Fail]);
    assert!(bench.health.is_certain());
    bench.sees(&[Pass]);
    assert!(!bench.health.is_certain());
}

#[test]
fn failures_in_the_start_phase_do_not_count_until_its_end() {
    let mut bench = Bench::starting();
    assert_eq!(bench.sees(&[Fail; 58]), []);
    assert_eq!(bench.state(), HealthState::Starting);
    assert_eq!(bench.sees(&[Fail; 4]), [Edge::WentDown]);
}

#[test]
fn the_first_pass_ends_the_start_phase() {
    let mut bench = Bench::starting();
    bench.sees(&[Fail; 20]);
    assert_eq!(bench.sees(&[Pass, Fail, Fail, Fail]), [Edge::Started, Edge::WentDown]);
}

#[test]
fn a_program_may_ask_for_more_time_to_start() {
    let mut bench = Bench::starting();
    bench.health.on_more_time(bench.now + Duration::from_secs(100));
    assert_eq!(bench.sees(&[Fail; 99]), []);
    assert_eq!(bench.sees(&[Fail; 3]), [Edge::WentDown]);
}

#[test]
fn a_remedy_is_believed_after_rise_passes() {
    let mut bench = Bench::down();
    bench.health.begin_healing(bench.now);
    assert_eq!(bench.sees(&[Fail; 9]), []);
    assert_eq!(bench.state(), HealthState::Healing);
    bench.health.begin_verifying(bench.now, &bench.check, true);
    assert_eq!(bench.sees(&[Fail, Fail, Fail, Pass]), []);
    assert_eq!(bench.state(), HealthState::Verifying);
    assert_eq!(bench.sees(&[Pass]), [Edge::Verified]);
}

#[test]
fn a_remedy_that_replaced_nothing_is_disproved_by_fall_failures() {
    let mut bench = Bench::down();
    bench.health.begin_healing(bench.now);
    bench.health.begin_verifying(bench.now, &bench.check, false);
    assert_eq!(bench.sees(&[Fail, Fail]), []);
    assert_eq!(bench.sees(&[Fail]), [Edge::NotVerified]);
    assert!(bench.health.is_certain());
}

#[test]
fn a_target_that_came_back_during_a_remedy_that_failed_is_up() {
    let mut bench = Bench::down();
    bench.health.begin_healing(bench.now);
    bench.sees(&[Pass, Fail, Pass, Pass]);
    assert_eq!(bench.health.give_up(bench.now, &bench.check), [Edge::CameUp]);
    assert_eq!(bench.sees(&[Fail, Fail]), []);
    assert_eq!(bench.sees(&[Fail]), [Edge::WentDown]);
    bench.health.begin_healing(bench.now);
    assert_eq!(bench.health.give_up(bench.now, &bench.check), []);
    assert_eq!(bench.state(), HealthState::Down);
}

#[test]
fn a_remedy_that_nobody_could_verify_is_not_believed_and_not_held_against_the_program() {
    let mut bench = Bench::down();
    bench.health.begin_healing(bench.now);
    bench.health.begin_verifying(bench.now, &bench.check, true);
    bench.sees(&[Unknown; 6]);
    let until = bench.health.next_time().unwrap();
    bench.now = until;
    assert_eq!(bench.health.on_time(until), [Edge::NotVerified]);
    assert!(bench.health.phase == Phase::Down && !bench.health.is_certain());
}

#[test]
fn six_changes_in_a_quarter_of_an_hour_are_flapping_until_it_was_quiet_as_long() {
    let mut bench = Bench::up();
    let episode = [Fail, Fail, Fail, Pass, Pass];
    assert!(!bench.sees(&[episode, episode].concat()).contains(&Edge::FlappingBegan));
    assert!(bench.sees(&episode).contains(&Edge::FlappingBegan));
    assert_eq!(bench.state(), HealthState::Flapping);
    assert_eq!(bench.health.cooldown(&bench.check), Duration::from_secs(240));
    assert_eq!(bench.sees(&[Fail, Fail, Fail, Pass, Pass, Pass]), [Edge::WentDown]);
    assert_eq!(bench.sees(&[Pass]), [Edge::CameUp]);
    assert_eq!(bench.wait(899), []);
    assert_eq!(bench.wait(1), [Edge::FlappingEnded]);
    assert_eq!(bench.state(), HealthState::Up);
}

#[test]
fn what_the_operator_stopped_has_no_health() {
    let mut bench = Bench::down();
    bench.health.clear(bench.now);
    assert_eq!(bench.sees(&[Fail; 9]), []);
    assert_eq!(bench.state(), HealthState::None);
    assert_eq!(bench.health.state(true), HealthState::Held);
}
