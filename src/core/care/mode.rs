//! The mode of the whole host, and what is stopped so that the important things live.
//!
//! A critical thing down is an emergency, a normal one leaves the host degraded, a minor one
//! changes nothing. Each level has to hold for a time before it counts, and to be over for a
//! longer one before it no longer does. What is shed follows from the mode alone, so it comes
//! back by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Target;
use crate::config::{Impact, ModeRules};
use crate::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mode {
    #[default]
    Normal,
    Degraded,
    Emergency,
}

impl Mode {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Degraded => "DEGRADED",
            Self::Emergency => "EMERGENCY",
        }
    }

    /// Returns what the mode would be at once if something of this weight were down.
    pub fn of(impact: Impact) -> Self {
        match impact {
            Impact::Minor => Self::Normal,
            Impact::Normal => Self::Degraded,
            Impact::Critical => Self::Emergency,
        }
    }
}

/// A condition that has to last before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lasting {
    pub on: bool,
    /// Since when the condition is not what `on` says.
    pub differs_since: Option<Instant>,
}

impl Lasting {
    fn update(&mut self, now: Instant, rules: &ModeRules, is: bool) {
        if is == self.on {
            self.differs_since = None;
            return;
        }
        let since = *self.differs_since.get_or_insert(now);
        let wait = if is { rules.enter } else { rules.leave };
        if now.since(since) >= wait {
            *self = Self { on: is, differs_since: None };
        }
    }

    fn next_time(&self, rules: &ModeRules) -> Option<Instant> {
        let wait = if self.on { rules.leave } else { rules.enter };
        self.differs_since.map(|since| since + wait)
    }
}

/// What the mode remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModeState {
    pub degraded: Lasting,
    pub emergency: Lasting,
}

impl ModeState {
    pub fn mode(&self) -> Mode {
        match (self.emergency.on, self.degraded.on) {
            (true, _) => Mode::Emergency,
            (false, true) => Mode::Degraded,
            (false, false) => Mode::Normal,
        }
    }

    /// Takes what the mode would be at once; returns the change if there is one.
    pub fn update(&mut self, now: Instant, rules: &ModeRules, is: Mode) -> Option<(Mode, Mode)> {
        let before = self.mode();
        self.degraded.update(now, rules, is >= Mode::Degraded);
        self.emergency.update(now, rules, is >= Mode::Emergency);
        let after = self.mode();
        (before != after).then_some((before, after))
    }

    /// Returns when [`ModeState::update`] has something to do.
    pub fn next_time(&self, rules: &ModeRules) -> Option<Instant> {
        let times = [self.degraded.next_time(rules), self.emergency.next_time(rules)];
        times.into_iter().flatten().min()
    }
}

/// What shedding needs to know of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// It runs and could be stopped, or is stopped already for this reason.
    pub may_go: bool,
    pub priority: i32,
    pub impact: Impact,
    pub requires: Vec<Target>,
}

/// Returns what is to be stopped: everything of at least this priority number that is not
/// critical and that nothing which stays requires.
pub fn shed(loads: &BTreeMap<Target, Load>, from_priority: i32) -> BTreeSet<Target> {
    let may = |load: &Load| {
        load.may_go && load.priority >= from_priority && load.impact != Impact::Critical
    };
    let mut going: BTreeSet<Target> = loads
        .iter()
        .filter(|(target, load)| **target != Target::Host && may(load))
        .map(|(target, _)| target.clone())
        .collect();
    loop {
        let needed: Vec<Target> = loads
            .iter()
            .filter(|(target, _)| !going.contains(*target))
            .flat_map(|(_, load)| &load.requires)
            .filter(|required| going.contains(*required))
            .cloned()
            .collect();
        if needed.is_empty() {
            return going;
        }
        needed.iter().for_each(|target| {
            going.remove(target);
        });
    }
}

/// Returns the priority number from which programs are stopped in a mode.
pub fn shed_from(mode: Mode, rules: &ModeRules) -> Option<i32> {
    match mode {
        Mode::Normal => None,
        Mode::Degraded => rules.shed_degraded,
        Mode::Emergency => rules.shed_emergency.into_iter().chain(rules.shed_degraded).min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn target(name: &str) -> Target {
        Target::Process(name.parse().unwrap())
    }

    #[test]
    fn a_mode_has_to_last_before_it_counts_and_to_be_over_before_it_does_not() {
        let rules = ModeRules::default();
        let mut state = ModeState::default();
        assert_eq!(state.update(at(0), &rules, Mode::Emergency), None);
        assert_eq!(state.next_time(&rules), Some(at(10)));
        assert_eq!(state.update(at(5), &rules, Mode::Normal), None);
        assert_eq!(state.next_time(&rules), None);
        assert_eq!(state.update(at(20), &rules, Mode::Degraded), None);
        assert_eq!(state.update(at(25), &rules, Mode::Emergency), None);
        let change = |from, to| Some((from, to));
        assert_eq!(
            state.update(at(30), &rules, Mode::Emergency),
            change(Mode::Normal, Mode::Degraded)
        );
        assert_eq!(
            state.update(at(35), &rules, Mode::Emergency),
            change(Mode::Degraded, Mode::Emergency)
        );
        assert_eq!(state.update(at(100), &rules, Mode::Normal), None);
        assert_eq!(state.update(at(150), &rules, Mode::Degraded), None);
        assert_eq!(
            state.update(at(160), &rules, Mode::Normal),
            change(Mode::Emergency, Mode::Degraded)
        );
        assert_eq!(
            state.update(at(220), &rules, Mode::Normal),
            change(Mode::Degraded, Mode::Normal)
        );
    }

    #[test]
    fn what_something_that_stays_requires_is_not_shed_nor_what_is_critical() {
        let load = |priority, impact, requires: &[&str]| Load {
            may_go: true,
            priority,
            impact,
            requires: requires.iter().map(|name| target(name)).collect(),
        };
        let loads = BTreeMap::from([
            (target("db"), load(900, Impact::Normal, &[])),
            (target("pool"), load(900, Impact::Normal, &["db"])),
            (target("web"), load(10, Impact::Normal, &["pool"])),
            (target("report"), load(950, Impact::Minor, &["db"])),
            (target("pay"), load(950, Impact::Critical, &[])),
            (Target::Host, load(999, Impact::Minor, &[])),
        ]);
        assert_eq!(shed(&loads, 900), BTreeSet::from([target("report")]));
        assert!(shed(&loads, 951).is_empty());
        let mut coming_up = loads;
        coming_up.insert(
            target("audit"),
            Load { may_go: false, ..load(999, Impact::Minor, &["report"]) },
        );
        assert!(shed(&coming_up, 900).is_empty());
    }

    #[test]
    fn an_emergency_sheds_at_least_what_a_degraded_host_does() {
        let rules = ModeRules {
            enter: Duration::ZERO,
            leave: Duration::ZERO,
            shed_degraded: Some(500),
            shed_emergency: None,
        };
        assert_eq!(shed_from(Mode::Normal, &rules), None);
        assert_eq!(shed_from(Mode::Emergency, &rules), Some(500));
        let harder = ModeRules { shed_emergency: Some(100), ..rules };
        assert_eq!(shed_from(Mode::Emergency, &harder), Some(100));
    }
}
