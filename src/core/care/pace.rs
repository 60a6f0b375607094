//! When each check runs: one ordered list of deadlines for all of them, and a cap on how many
//! run at once.
//!
//! - The first run comes at a random point of the interval, each further one an interval ± 10 %
//!   after the *end* of the last, so that checks spread and stay spread.
//! - Deadlines lie on a grid of 50 ms, so that many checks share one wake-up.
//! - No check runs twice at once. A result that comes for an earlier ticket is dropped.
//! - Time spent waiting for a place is not the probe's. Who waits longer than an interval is
//!   overdue, which is an unknown verdict, and waits on.
//! - A run that never ends is called off, and overdue too.
//!
//! Each event costs O(log n).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::bulkhead::{Bulkhead, BulkheadStatistics, Entry as Entrance};
use crate::time::Instant;

/// The grid on which deadlines lie.
const GRID: Duration = Duration::from_millis(50);
/// How much longer than its time limit a run may take until it is called off.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// The share of the interval by which runs are spread, to either side.
const JITTER: f64 = 0.1;

/// What a run costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    /// A few system calls of the daemon's own.
    Native,
    /// A process.
    Exec,
}

/// How many checks may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    pub native: usize,
    pub exec: usize,
}

/// What is to be done about a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order<K> {
    Run {
        key: K,
        pool: Pool,
        ticket: u64,
    },
    /// Stop this run; its result will be dropped.
    Cancel {
        key: K,
        ticket: u64,
    },
    /// It did not get to run, or not to its end.
    Overdue {
        key: K,
    },
}

/// When all checks run.
#[derive(Debug)]
pub struct Pace<K> {
    entries: BTreeMap<K, Entry>,
    timers: BTreeSet<(Instant, K)>,
    native: Bulkhead<K>,
    exec: Bulkhead<K>,
    next_ticket: u64,
    overdue: u64,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Entry {
    pool: Pool,
    interval: Duration,
    timeout: Duration,
    stage: Stage,
    /// When something is due: the run, the overdue time in the queue, the end of patience.
    wake: Instant,
    /// The end of the last run, or the moment from which the first interval counts.
    base: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Queued,
    Running { ticket: u64 },
}

impl<K: Ord + Clone> Pace<K> {
    /// Makes an empty schedule. `first_ticket` is higher than any that an earlier brain gave.
    pub fn new(places: Places, first_ticket: u64, seed: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            timers: BTreeSet::new(),
            native: Bulkhead::new(places.native, usize::MAX),
            exec: Bulkhead::new(places.exec, usize::MAX),
            next_ticket: first_ticket,
            overdue: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Returns when [`Pace::on_time`] has something to do.
    pub fn next_time(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns when the check runs next, while it does not run.
    pub fn next_run(&self, key: &K) -> Option<Instant> {
        let entry = self.entries.get(key).filter(|entry| entry.stage == Stage::Idle)?;
        Some(entry.wake)
    }

    /// Returns the ticket of the run that is under way.
    pub fn ticket(&self, key: &K) -> Option<u64> {
        match self.entries.get(key)?.stage {
            Stage::Running { ticket } => Some(ticket),
            Stage::Idle | Stage::Queued => None,
        }
    }

    /// Returns what the pools have seen, native first, and how many runs were overdue.
    pub fn statistics(&self) -> (BulkheadStatistics, BulkheadStatistics, u64) {
        (self.native.statistics(), self.exec.statistics(), self.overdue)
    }

    /// Changes how many run at once; more than that go on to their ends.
    pub fn set_places(&mut self, places: Places) {
        self.native.set_places(places.native);
        self.exec.set_places(places.exec);
    }

    /// Takes a check in; its first run comes at a random point of the interval.
    pub fn insert(
        &mut self,
        now: Instant,
        key: K,
        pool: Pool,
        interval: Duration,
        timeout: Duration,
    ) {
        if self.contains(&key) {
            return;
        }
        let wake = on_grid(now + interval.mul_f64(self.random.f64()), interval);
        let entry = Entry { pool, interval, timeout, stage: Stage::Idle, wake, base: now };
        self.timers.insert((wake, key.clone()));
        self.entries.insert(key, entry);
    }

    /// Takes a check out and calls off its run.
    pub fn remove(&mut self, now: Instant, key: &K) -> Vec<Order<K>> {
        let Some(entry) = self.entries.remove(key) else { return Vec::new() };
        self.timers.remove(&(entry.wake, key.clone()));
        let mut orders = Vec::new();
        if let Stage::Running { ticket } = entry.stage {
            orders.push(Order::Cancel { key: key.clone(), ticket });
        }
        if entry.stage != Stage::Idle {
            self.leave(now, entry.pool, key, &mut orders);
        }
        orders
    }

    /// Changes the pace. A shorter interval counts from the end of the last run; a longer one
    /// takes effect after the next.
    pub fn set_interval(&mut self, key: &K, interval: Duration) {
        let random = self.random.f64();
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.interval != interval)
        else {
            return;
        };
        let sooner = interval < entry.interval && entry.stage == Stage::Idle;
        entry.interval = interval;
        let wake = on_grid(entry.base + spread(interval, random), interval);
        if sooner && wake < entry.wake {
            self.wake_at(key, wake);
        }
    }

    pub fn set_timeout(&mut self, key: &K, timeout: Duration) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.timeout = timeout;
        }
    }

    /// Makes the next run due at once. One that runs or waits already is not run twice.
    pub fn run_now(&mut self, now: Instant, key: &K) {
        if self.entries.get(key).is_some_and(|entry| entry.stage == Stage::Idle) {
            self.wake_at(key, now);
        }
    }

    /// Does all that is due.
    pub fn on_time(&mut self, now: Instant) -> Vec<Order<K>> {
        let mut orders = Vec::new();
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            let Some(entry) = self.entries.get(&key) else {
                self.timers.remove(&(at, key));
                continue;
            };
            let (pool, interval) = (entry.pool, entry.interval);
            match entry.stage {
                Stage::Idle => {
                    if now.since(at) > interval {
                        self.overdue += 1;
                        orders.push(Order::Overdue { key: key.clone() });
                    }
                    match self.pool(pool).enter(now, key.clone()) {
                        Entrance::Admitted => self.begin(now, &key, &mut orders),
                        Entrance::Queued | Entrance::Rejected => {
                            self.set(&key, Stage::Queued, now + interval);
                        }
                    }
                }
                Stage::Queued => {
                    self.overdue += 1;
                    orders.push(Order::Overdue { key: key.clone() });
                    self.wake_at(&key, now + interval);
                }
                Stage::Running { ticket } => {
                    self.overdue += 1;
                    orders.push(Order::Cancel { key: key.clone(), ticket });
                    orders.push(Order::Overdue { key: key.clone() });
                    self.end(now, &key, &mut orders);
                }
            }
        }
        orders
    }

    /// Ends a run; `None` when it is not the one that is under way.
    pub fn on_result(&mut self, now: Instant, key: &K, ticket: u64) -> Option<Vec<Order<K>>> {
        if self.ticket(key) != Some(ticket) {
            return None;
        }
        let mut orders = Vec::new();
        self.end(now, key, &mut orders);
        Some(orders)
    }

    fn begin(&mut self, now: Instant, key: &K, orders: &mut Vec<Order<K>>) {
        let Some(entry) = self.entries.get(key) else { return };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (pool, patience) = (entry.pool, entry.timeout + LOST_AFTER);
        self.set(key, Stage::Running { ticket }, on_grid(now + patience, patience));
        orders.push(Order::Run { key: key.clone(), pool, ticket });
    }

    fn end(&mut self, now: Instant, key: &K, orders: &mut Vec<Order<K>>) {
        let random = self.random.f64();
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.base = now;
        let (pool, interval) = (entry.pool, entry.interval);
        self.set(key, Stage::Idle, on_grid(now + spread(interval, random), interval));
        self.leave(now, pool, key, orders);
    }

    fn leave(&mut self, now: Instant, pool: Pool, key: &K, orders: &mut Vec<Order<K>>) {
        for next in self.pool(pool).leave(now, key) {
            self.begin(now, &next, orders);
        }
    }

    fn pool(&mut self, pool: Pool) -> &mut Bulkhead<K> {
        match pool {
            Pool::Native => &mut self.native,
            Pool::Exec => &mut self.exec,
        }
    }

    fn wake_at(&mut self, key: &K, at: Instant) {
        if let Some(stage) = self.entries.get(key).map(|entry| entry.stage) {
            self.set(key, stage, at);
        }
    }

    /// Enters a stage and says when it is over.
    fn set(&mut self, key: &K, stage: Stage, wake: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.stage = stage;
        let mut timer = (std::mem::replace(&mut entry.wake, wake), key.clone());
        self.timers.remove(&timer);
        timer.0 = wake;
        self.timers.insert(timer);
    }
}

fn spread(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * random - 1.0))
}

/// Rounds up to the grid, which is finer for what comes more often than each second.
fn on_grid(at: Instant, interval: Duration) -> Instant {
    let grid = u64::try_from(GRID.min(interval / 20).as_nanos()).unwrap_or(u64::MAX).max(1);
    Instant::from_nanos(at.as_nanos().div_ceil(grid).saturating_mul(grid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places = Places { native: 64, exec: 2 };
    const TEN: Duration = Duration::from_secs(10);
    const FIVE: Duration = Duration::from_secs(5);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// A schedule whose runs take no time; returns the times of all runs until `until`.
    fn play(pace: &mut Pace<u32>, until: Instant) -> Vec<(Instant, u32)> {
        let mut runs = Vec::new();
        while let Some(now) = pace.next_time().filter(|at| *at < until) {
            for order in pace.on_time(now) {
                if let Order::Run { key, ticket, .. } = order {
                    runs.push((now, key));
                    pace.on_result(now, &key, ticket).expect("it was the one under way");
                }
            }
        }
        runs
    }

    fn ticket(orders: &[Order<u32>], wanted: u32) -> u64 {
        let found = orders.iter().find_map(|order| match order {
            Order::Run { key, ticket, .. } if *key == wanted => Some(*ticket),
            Order::Run { .. } | Order::Cancel { .. } | Order::Overdue { .. } => None,
        });
        found.expect("it runs")
    }

    #[test]
    fn first_runs_are_spread_over_the_interval_and_further_ones_keep_their_distance() {
        let mut pace = Pace::new(PLACES, 1, 1);
        (0..1000).for_each(|key| pace.insert(at(0), key, Pool::Native, TEN, FIVE));
        let runs = play(&mut pace, at(60_000));
        for second in 0..10 {
            let first =
                runs.iter().take(1000).filter(|(at, _)| at.as_nanos() / 1_000_000_000 == second);
            assert!((60..140).contains(&first.count()), "second {second} is crowded or empty");
        }
        let of_one: Vec<Instant> =
            runs.iter().filter(|(_, k)| *k == 7).map(|(at, _)| *at).collect();
        for pair in of_one.windows(2) {
            let gap = pair[1].since(pair[0]).as_millis();
            assert!((9_000..=11_050).contains(&gap), "a gap of {gap} ms");
        }
    }

    #[test]
    fn ten_thousand_checks_share_their_wake_ups() {
        let mut pace = Pace::new(Places { native: 10_000, exec: 1 }, 1, 1);
        (0..10_000).for_each(|key| pace.insert(at(0), key, Pool::Native, TEN, FIVE));
        let runs = play(&mut pace, at(100_000));
        let mut wakes: Vec<Instant> = runs.iter().map(|(at, _)| *at).collect();
        wakes.dedup();
        assert!((95_000..105_000).contains(&runs.len()), "{} runs", runs.len());
        assert!(wakes.len() <= 2_000, "{} wake-ups", wakes.len());
    }

    #[test]
    fn no_more_run_at_once_than_there_are_places_and_the_others_follow() {
        let mut pace = Pace::new(PLACES, 1, 1);
        (0..5).for_each(|key| pace.insert(at(0), key, Pool::Exec, TEN, FIVE));
        (0..5).for_each(|key| pace.run_now(at(0), &key));
        let orders = pace.on_time(at(0));
        assert_eq!(orders.len(), 2);
        let next = pace.on_result(at(700), &0, ticket(&orders, 0)).unwrap();
        assert!(matches!(next[..], [Order::Run { key: 2, .. }]));
        let (_, exec, _) = pace.statistics();
        assert_eq!((exec.running, exec.queued, exec.longest_wait.as_millis()), (2, 2, 700));
    }

    #[test]
    fn a_check_never_overlaps_itself_and_a_late_result_is_dropped() {
        let mut pace = Pace::new(PLACES, 1, 1);
        pace.insert(at(0), 1, Pool::Native, TEN, FIVE);
        pace.run_now(at(0), &1);
        let first = ticket(&pace.on_time(at(0)), 1);
        pace.run_now(at(1), &1);
        assert!(pace.on_time(at(14_000)).is_empty() && pace.ticket(&1) == Some(first));
        let orders = pace.on_time(at(15_100));
        assert_eq!(orders, [Order::Cancel { key: 1, ticket: first }, Order::Overdue { key: 1 }]);
        assert_eq!(pace.on_result(at(15_200), &1, first), None);
        let now = pace.next_time().unwrap();
        assert!(ticket(&pace.on_time(now), 1) > first);
    }

    #[test]
    fn who_waits_longer_than_an_interval_is_overdue_and_waits_on() {
        let mut pace = Pace::new(Places { native: 1, exec: 1 }, 1, 1);
        for (key, timeout) in [(1, Duration::from_secs(60)), (2, FIVE)] {
            pace.insert(at(0), key, Pool::Native, TEN, timeout);
            pace.run_now(at(0), &key);
        }
        let first = ticket(&pace.on_time(at(0)), 1);
        assert!(pace.on_time(at(9_999)).is_empty());
        assert_eq!(pace.on_time(at(10_000)), [Order::Overdue { key: 2 }]);
        assert_eq!(pace.on_time(at(20_000)), [Order::Overdue { key: 2 }]);
        let next = pace.on_result(at(21_000), &1, first).unwrap();
        assert!(matches!(next[..], [Order::Run { key: 2, .. }]));
    }

    #[test]
    fn a_machine_that_slept_finds_its_checks_overdue_and_runs_each_once() {
        let mut pace = Pace::new(PLACES, 1, 1);
        pace.insert(at(0), 1, Pool::Native, TEN, FIVE);
        let orders = pace.on_time(at(3_600_000));
        assert!(matches!(orders[..], [Order::Overdue { key: 1 }, Order::Run { key: 1, .. }]));
    }

    #[test]
    fn a_shorter_interval_counts_from_the_last_run_and_a_longer_one_after_the_next() {
        let mut pace = Pace::new(PLACES, 1, 1);
        pace.insert(at(0), 1, Pool::Native, TEN, FIVE);
        pace.run_now(at(0), &1);
        let first = ticket(&pace.on_time(at(0)), 1);
        pace.on_result(at(0), &1, first).unwrap();
        pace.set_interval(&1, Duration::from_secs(2));
        let soon = pace.next_run(&1).unwrap();
        assert!((1_800..=2_250).contains(&(soon.as_nanos() / 1_000_000)));
        pace.set_interval(&1, TEN);
        assert_eq!(pace.next_run(&1), Some(soon));
    }

    #[test]
    fn a_check_that_is_taken_out_frees_its_place() {
        let mut pace = Pace::new(Places { native: 1, exec: 1 }, 1, 1);
        for key in 1..=3 {
            pace.insert(at(0), key, Pool::Native, TEN, FIVE);
            pace.run_now(at(0), &key);
        }
        let first = ticket(&pace.on_time(at(0)), 1);
        assert!(pace.remove(at(1), &2).is_empty());
        let orders = pace.remove(at(1), &1);
        assert_eq!(orders[0], Order::Cancel { key: 1, ticket: first });
        assert!(matches!(orders[1], Order::Run { key: 3, .. }));
        assert!(pace.remove(at(1), &1).is_empty());
    }
}
