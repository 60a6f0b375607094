//! The health of one target in the eyes of one check: verdicts in, changes of health out.
//!
//! ```text
//!            pass               fail              fall failures
//! Starting ───────► Up ◄────────────► Suspect ──────────────────► Down
//!                   ▲      pass                  rise passes      │ ▲
//!                   ├─────────────────────────────────────────────┤ │ not verified
//!                   └──────────── Verifying ◄──── Healing ◄───────┘ │
//!                    rise passes      └─────────────────────────────┘
//! ```
//!
//! Only a conclusive verdict moves anything. `Unknown` means that the probe itself could not
//! look: it moves no streak, and six in a row say that the check is broken. That a target is
//! flapping or its check broken lies over the phase and does not replace it.

use std::time::Duration;

use crate::config::{Check, FailRule};
use crate::core::rate::{Window, WindowLimit};
use crate::time::Instant;

/// Unknown verdicts in a row after which the check itself is called broken.
pub const BROKEN_AFTER: u32 = 6;
/// So many changes between up and down within this time are flapping.
pub const FLAPPING: WindowLimit = WindowLimit { count: 6, length: Duration::from_secs(900) };
/// How many times as many passes a flapping target needs.
const FLAPPING_RISE: u32 = 2;
/// How many times as long a flapping target's cool-down is.
const FLAPPING_COOLDOWN: u32 = 4;

/// What one run of a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Pass,
    /// Works, but something deserves a look; counts as a pass.
    Warn,
    Fail,
    Timeout,
    /// The probe could not look; says nothing about the target.
    Unknown,
}

/// Where a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is nothing to look at: the process does not run.
    None,
    /// Failures do not count before `until`, unless a pass comes first.
    Starting {
        until: Instant,
    },
    Up,
    /// Failed, but not often enough.
    Suspect,
    Down,
    /// A remedy is being carried out.
    Healing,
    /// A remedy has been carried out and is believed when `rise` passes come before `until`.
    /// Failures do not count before `grace`, unless a pass comes first.
    Verifying {
        until: Instant,
        grace: Instant,
    },
}

/// What people see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    None,
    Starting,
    Up,
    Suspect,
    Down,
    Healing,
    Verifying,
    Flapping,
    Held,
    Broken,
}

/// A change that others must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The first pass after a start.
    Started,
    WentDown,
    /// Up again, without a remedy of this check in progress.
    CameUp,
    Verified,
    NotVerified,
    /// The check itself is broken.
    Broken,
    Mended,
    FlappingBegan,
    FlappingEnded,
}

/// The last verdicts as bits, the newest lowest; set where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recent(pub u64);

/// All that is remembered of one check's verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub phase: Phase,
    pub since: Instant,
    /// In a row, as far as they decide something.
    pub passes: u32,
    pub fails: u32,
    pub unknowns: u32,
    /// Kept for a rule of the form `k of n` only.
    pub recent: Recent,
    /// The last pass came with a warning.
    pub warning: bool,
    /// The last conclusive verdict since the last start or remedy was a failure that counts.
    pub failing: bool,
    /// The changes between up and down.
    pub changes: Window,
    pub flapping: bool,
}

impl Recent {
    fn push(&mut self, check: &Check, failed: bool) {
        match check.fail_if {
            FailRule::InARow(_) => {}
            FailRule::Among { .. } => self.0 = self.0 << 1 | u64::from(failed),
        }
    }

    fn failures(self, of: u32) -> u32 {
        let of = of.clamp(1, FailRule::MAX_OF);
        (self.0 & (u64::MAX >> (FailRule::MAX_OF - of))).count_ones()
    }
}

impl Health {
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::None,
            since: now,
            passes: 0,
            fails: 0,
            unknowns: 0,
            recent: Recent::default(),
            warning: false,
            failing: false,
            changes: Window::default(),
            flapping: false,
        }
    }

    /// Takes a verdict, returns what changed.
    pub fn on_verdict(&mut self, now: Instant, check: &Check, verdict: Verdict) -> Vec<Edge> {
        let mut edges = Vec::new();
        if self.phase == Phase::None {
            return edges;
        }
        if verdict == Verdict::Unknown {
            if self.unknowns < BROKEN_AFTER {
                self.unknowns += 1;
                edges.extend(self.is_broken().then_some(Edge::Broken));
            }
            return edges;
        }
        if self.is_broken() {
            edges.push(Edge::Mended);
        }
        self.unknowns = 0;
        match verdict {
            Verdict::Pass => self.on_pass(now, check, false, &mut edges),
            Verdict::Warn => self.on_pass(now, check, true, &mut edges),
            Verdict::Fail | Verdict::Timeout => self.on_failure(now, check, &mut edges),
            Verdict::Unknown => {}
        }
        edges
    }

    fn on_pass(&mut self, now: Instant, check: &Check, warning: bool, edges: &mut Vec<Edge>) {
        self.failing = false;
        self.warning = warning;
        self.fails = 0;
        self.recent.push(check, false);
        match self.phase {
            Phase::None | Phase::Up => {}
            // Counts only if the remedy turns out not to have been carried out.
            Phase::Healing => self.passes = (self.passes + 1).min(self.rise(check)),
            Phase::Starting { .. } => {
                self.enter(now, Phase::Up);
                edges.push(Edge::Started);
            }
            Phase::Suspect => self.phase_only(now, Phase::Up),
            Phase::Down => {
                self.passes += 1;
                if self.passes >= self.rise(check) {
                    self.enter(now, Phase::Up);
                    edges.push(Edge::CameUp);
                    self.count_change(now, edges);
                }
            }
            Phase::Verifying { until, grace } => {
                self.passes += 1;
                self.phase = Phase::Verifying { until, grace: grace.min(now) };
                if self.passes >= self.rise(check) {
                    self.enter(now, Phase::Up);
                    edges.push(Edge::Verified);
                    self.count_change(now, edges);
                }
            }
        }
    }

    fn on_failure(&mut self, now: Instant, check: &Check, edges: &mut Vec<Edge>) {
        let counts = match self.phase {
            Phase::None | Phase::Healing => false,
            Phase::Starting { until } => now >= until,
            Phase::Verifying { grace, .. } => now >= grace,
            Phase::Up | Phase::Suspect | Phase::Down => true,
        };
        if self.phase == Phase::Healing {
            self.passes = 0;
        }
        if !counts {
            return;
        }
        self.failing = true;
        self.passes = 0;
        self.fails = (self.fails + 1).min(check.fall());
        self.recent.push(check, true);
        match self.phase {
            Phase::None | Phase::Healing | Phase::Down => {}
            Phase::Starting { .. } | Phase::Up | Phase::Suspect => {
                let over = match check.fail_if {
                    FailRule::InARow(fall) => self.fails >= fall.max(1),
                    FailRule::Among { failures, of } => self.recent.failures(of) >= failures,
                };
                if over {
                    self.phase_only(now, Phase::Down);
                    edges.push(Edge::WentDown);
                    self.count_change(now, edges);
                } else if self.phase != Phase::Suspect {
                    self.phase_only(now, Phase::Suspect);
                }
            }
            Phase::Verifying { .. } => {
                if self.fails >= check.fall() {
                    self.phase_only(now, Phase::Down);
                    edges.push(Edge::NotVerified);
                }
            }
        }
    }

    /// Does what is due by time alone.
    pub fn on_time(&mut self, now: Instant) -> Vec<Edge> {
        let mut edges = Vec::new();
        if let Phase::Verifying { until, .. } = self.phase
            && until <= now
        {
            self.phase_only(now, Phase::Down);
            edges.push(Edge::NotVerified);
        }
        if self.flapping && self.flapping_until().is_none_or(|until| until <= now) {
            self.flapping = false;
            edges.push(Edge::FlappingEnded);
        }
        edges
    }

    /// Returns when [`Health::on_time`] has something to do.
    pub fn next_time(&self) -> Option<Instant> {
        let verified = match self.phase {
            Phase::Verifying { until, .. } => Some(until),
            Phase::None | Phase::Starting { .. } | Phase::Up => None,
            Phase::Suspect | Phase::Down | Phase::Healing => None,
        };
        let quiet = if self.flapping { self.flapping_until() } else { None };
        verified.into_iter().chain(quiet).min()
    }

    fn flapping_until(&self) -> Option<Instant> {
        self.changes.times.back().map(|at| *at + FLAPPING.length)
    }

    /// A new run of the process exists; a remedy in progress goes on.
    pub fn on_process_started(&mut self, now: Instant, until: Instant) {
        match self.phase {
            Phase::Healing | Phase::Verifying { .. } => {}
            Phase::None | Phase::Starting { .. } | Phase::Up | Phase::Suspect | Phase::Down => {
                self.enter(now, Phase::Starting { until });
            }
        }
    }

    /// There is something to look at from now on.
    pub fn begin_if_none(&mut self, now: Instant, until: Instant) {
        if self.phase == Phase::None {
            self.on_process_started(now, until);
        }
    }

    /// The program asked for more time to start.
    pub fn on_more_time(&mut self, until: Instant) {
        match &mut self.phase {
            Phase::Starting { until: end } => *end = until.max(*end),
            Phase::Verifying { until: end, grace } if *grace < until => {
                *end = *end + until.since(*grace);
                *grace = until;
            }
            Phase::Verifying { .. } | Phase::None | Phase::Up => {}
            Phase::Suspect | Phase::Down | Phase::Healing => {}
        }
    }

    /// The process does not run; a remedy in progress goes on.
    pub fn on_process_gone(&mut self, now: Instant) {
        match self.phase {
            Phase::None | Phase::Healing | Phase::Verifying { .. } => {}
            Phase::Starting { .. } | Phase::Up | Phase::Suspect | Phase::Down => self.clear(now),
        }
    }

    /// Nobody wants the process to run: there is nothing to look at.
    pub fn clear(&mut self, now: Instant) {
        if self.phase != Phase::None {
            self.enter(now, Phase::None);
            self.unknowns = 0;
        }
    }

    /// A remedy begins; what was seen before it no longer speaks for another one.
    pub fn begin_healing(&mut self, now: Instant) {
        self.enter(now, Phase::Healing);
    }

    /// The remedy has been carried out.
    pub fn begin_verifying(&mut self, now: Instant, check: &Check, replaced: bool) {
        let step = check.suspect_interval() + check.timeout;
        let passes = step.saturating_mul(self.rise(check) + 1);
        let grace = if replaced { check.start_timeout } else { Duration::ZERO };
        let most = check.start_timeout.saturating_mul(2).max(passes);
        let until = now + (grace + passes).min(most);
        self.enter(now, Phase::Verifying { until, grace: now + grace });
    }

    /// The remedy could not be carried out: what was seen meanwhile counts after all.
    pub fn give_up(&mut self, now: Instant, check: &Check) -> Vec<Edge> {
        let mut edges = Vec::new();
        match self.phase {
            Phase::Healing if self.passes >= self.rise(check) => {
                self.enter(now, Phase::Up);
                edges.push(Edge::CameUp);
                self.count_change(now, &mut edges);
            }
            Phase::Healing | Phase::Verifying { .. } => self.phase_only(now, Phase::Down),
            Phase::None | Phase::Starting { .. } | Phase::Up | Phase::Suspect | Phase::Down => {}
        }
        edges
    }

    /// Whether it is known, by a probe that could look, that the target fails.
    pub fn is_certain(&self) -> bool {
        self.phase == Phase::Down && self.failing && self.unknowns == 0
    }

    /// Whether a pass would change nothing while it is up.
    pub fn is_quiet(&self) -> bool {
        self.fails == 0
            && self.unknowns == 0
            && self.recent.0 == 0
            && !self.warning
            && !self.failing
    }

    pub fn is_broken(&self) -> bool {
        self.unknowns >= BROKEN_AFTER
    }

    /// Whether the target is not to be relied on: down, or on its way from there.
    pub fn is_failed(&self) -> bool {
        match self.phase {
            Phase::Down | Phase::Healing | Phase::Verifying { .. } => true,
            Phase::None | Phase::Starting { .. } | Phase::Up | Phase::Suspect => false,
        }
    }

    /// Returns how many passes in a row end a failure.
    pub fn rise(&self, check: &Check) -> u32 {
        check.rise.max(1) * if self.flapping { FLAPPING_RISE } else { 1 }
    }

    /// Returns the least time between two remedies.
    pub fn cooldown(&self, check: &Check) -> Duration {
        check.cooldown * if self.flapping { FLAPPING_COOLDOWN } else { 1 }
    }

    /// Returns the pause until the next run of the probe; `more` tells whether remedies remain.
    pub fn interval(&self, check: &Check, more: bool) -> Duration {
        match self.phase {
            Phase::None | Phase::Up => check.interval,
            Phase::Starting { .. } => check.interval.min(Duration::from_secs(1)),
            Phase::Suspect | Phase::Healing | Phase::Verifying { .. } => check.suspect_interval(),
            Phase::Down if self.passes > 0 => check.suspect_interval(),
            Phase::Down if more => check.interval,
            Phase::Down => check.down_interval(),
        }
    }

    /// Returns what people see.
    pub fn state(&self, held: bool) -> HealthState {
        match self.phase {
            _ if held => HealthState::Held,
            Phase::None => HealthState::None,
            Phase::Healing => HealthState::Healing,
            Phase::Verifying { .. } => HealthState::Verifying,
            _ if self.is_broken() => HealthState::Broken,
            Phase::Starting { .. } => HealthState::Starting,
            _ if self.flapping => HealthState::Flapping,
            Phase::Up => HealthState::Up,
            Phase::Suspect => HealthState::Suspect,
            Phase::Down => HealthState::Down,
        }
    }

    /// Enters a phase that begins a new count.
    fn enter(&mut self, now: Instant, phase: Phase) {
        self.passes = 0;
        self.fails = 0;
        self.failing = false;
        self.recent = Recent::default();
        self.phase_only(now, phase);
    }

    fn phase_only(&mut self, now: Instant, phase: Phase) {
        self.phase = phase;
        self.since = now;
    }

    fn count_change(&mut self, now: Instant, edges: &mut Vec<Edge>) {
        self.changes.note(now, &FLAPPING);
        if !self.flapping && self.changes.times.len() >= FLAPPING.count {
            self.flapping = true;
            edges.push(Edge::FlappingBegan);
        }
    }
}

impl Verdict {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }
}

impl HealthState {
    /// Returns how much it says about a target that other checks see in other states.
    pub(super) fn weight(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Up => 1,
            Self::Starting => 2,
            Self::Broken => 3,
            Self::Suspect => 4,
            Self::Flapping => 5,
            Self::Down => 6,
            Self::Verifying => 7,
            Self::Healing => 8,
            Self::Held => 9,
        }
    }

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Healing => "healing",
            Self::Verifying => "verifying",
            Self::Flapping => "flapping",
            Self::Held => "held",
            Self::Broken => "broken",
        }
    }
}
