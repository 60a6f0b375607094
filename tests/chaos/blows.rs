//! What is done to Mend, and which of it may cost anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use crate::lab::{Lab, Role, Under, patience};

/// One blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blow {
    BrainKilled,
    BrainFrozen,
    BrainFrozenThenKilled,
    KeeperKilled,
    KeeperFrozen,
    KeeperFrozenThenKilled,
    BothKilled,
    /// In place, to a copy of the executable at another path.
    Upgraded,
}

impl Blow {
    /// Freezes and upgrades kill nobody; both at once count as one.
    fn is_kill(self) -> bool {
        match self {
            Self::BrainKilled
            | Self::BrainFrozenThenKilled
            | Self::KeeperKilled
            | Self::KeeperFrozenThenKilled
            | Self::BothKilled => true,
            Self::BrainFrozen | Self::KeeperFrozen | Self::Upgraded => false,
        }
    }

    /// An upgrade ends the brain as well, in order.
    fn is_of_brain(self) -> bool {
        matches!(
            self,
            Self::BrainKilled | Self::BrainFrozen | Self::BrainFrozenThenKilled | Self::Upgraded
        )
    }
}

/// A span of civil time, in seconds, in which nobody may have held anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    /// Both were killed at once, not one before the other's death was healed.
    pub(crate) by_one_blow: bool,
    pub(crate) from: f64,
    pub(crate) until: f64,
}

/// Deals blows and keeps the account.
pub(crate) struct Fists {
    random: fastrand::Rng,
    under: Under,
    /// The brain alone is hit.
    only_brains: bool,
    /// Longest pause before a blow.
    pause_millis: u64,
    /// Blows since keeper and brain were last seen to serve.
    open: Vec<Blow>,
    opened: f64,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) counts: BTreeMap<Blow, u32>,
    /// Groups of blows that came before the one before was healed and hit both sides.
    pub(crate) compound: u32,
    /// Where the upgrade that is open goes to, and the pids that it found.
    upgrade: Option<(PathBuf, Option<u32>)>,
    /// Upgrades that nothing disturbed; each has replaced keeper and brain.
    pub(crate) upgrades_done: u32,
    /// Starts by hand that only one side's death made necessary; must stay 0.
    pub(crate) needless_hands: u32,
    pub(crate) slowest: Duration,
}

pub(crate) fn civil_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Fists {
    pub(crate) fn new(seed: u64, under: Under, only_brains: bool) -> Self {
        let pause = if only_brains { 60 } else { 300 };
        Self {
            random: fastrand::Rng::with_seed(seed),
            under,
            only_brains,
            pause_millis: crate::life::number("MEND_CHAOS_PAUSE").unwrap_or(pause),
            open: Vec::new(),
            opened: 0.0,
            gaps: Vec::new(),
            counts: BTreeMap::new(),
            compound: 0,
            upgrade: None,
            upgrades_done: 0,
            needless_hands: 0,
            slowest: Duration::ZERO,
        }
    }

    fn choose(&mut self) -> Blow {
        let number = self.random.u32(0..100);
        let brains = match number % 10 {
            0..7 => Blow::BrainKilled,
            7..8 => Blow::BrainFrozen,
            _ => Blow::BrainFrozenThenKilled,
        };
        match number {
            _ if self.only_brains => Blow::BrainKilled,
            // Only the brain: its keeper is the namespace's init.
            90..100 if self.under == Under::Init => Blow::Upgraded,
            _ if self.under == Under::Init => brains,
            0..50 => brains,
            50..72 => Blow::KeeperKilled,
            72..76 => Blow::KeeperFrozen,
            76..84 => Blow::KeeperFrozenThenKilled,
            84..94 => Blow::BothKilled,
            _ => Blow::Upgraded,
        }
    }

    /// Deals one blow at a random moment, mostly after the last one was healed.
    #[track_caller]
    pub(crate) fn deal(&mut self, lab: &mut Lab) {
        if self.random.u32(0..100) < 75 {
            self.heal(lab);
        }
        self.nap(self.pause_millis);
        let blow = self.choose();
        if self.open.is_empty() {
            self.opened = civil_seconds();
        }
        let hit = match blow {
            Blow::BrainKilled => lab.strike(Role::Brain, Signal::SIGKILL).is_some(),
            Blow::KeeperKilled => lab.strike(Role::Keeper, Signal::SIGKILL).is_some(),
            Blow::BrainFrozen => self.freeze(lab, Role::Brain, Signal::SIGCONT),
            Blow::BrainFrozenThenKilled => self.freeze(lab, Role::Brain, Signal::SIGKILL),
            Blow::KeeperFrozen => self.freeze(lab, Role::Keeper, Signal::SIGCONT),
            Blow::KeeperFrozenThenKilled => self.freeze(lab, Role::Keeper, Signal::SIGKILL),
            Blow::BothKilled => self.kill_both(lab),
            Blow::Upgraded => self.upgrade(lab),
        };
        if hit {
            self.open.push(blow);
            *self.counts.entry(blow).or_default() += 1;
        }
    }

    /// Returns how many kills have hit.
    pub(crate) fn kills(&self) -> u64 {
        let kills = self.counts.iter().filter(|(blow, _)| blow.is_kill());
        kills.map(|(_, count)| u64::from(*count)).sum()
    }

    fn nap(&mut self, most_millis: u64) {
        thread::sleep(Duration::from_micros(self.random.u64(0..most_millis * 1000)));
    }

    fn freeze(&mut self, lab: &Lab, role: Role, then: Signal) -> bool {
        let Some(pid) = lab.strike(role, Signal::SIGSTOP) else { return false };
        self.nap(800);
        crate::proc::send(pid, then);
        true
    }

    fn kill_both(&mut self, lab: &Lab) -> bool {
        let order = if self.random.bool() {
            [Role::Keeper, Role::Brain]
        } else {
            [Role::Brain, Role::Keeper]
        };
        let freeze = self.random.bool();
        let pids: Vec<u32> = order.iter().filter_map(|role| lab.find(*role)).collect();
        if freeze {
            pids.iter().for_each(|pid| crate::proc::send(*pid, Signal::SIGSTOP));
        }
        pids.iter().for_each(|pid| crate::proc::send(*pid, Signal::SIGKILL));
        !pids.is_empty()
    }

    /// Asks for an upgrade; returns whether the switch begins.
    fn upgrade(&mut self, lab: &Lab) -> bool {
        let brain = lab.find(Role::Brain);
        let target = lab.another_mendd(self.counts.get(&Blow::Upgraded).is_some_and(|n| n % 2 > 0));
        let begun = lab.upgrade(&target);
        if begun {
            self.upgrade = Some((target, brain));
        }
        begun
    }

    /// Returns why the upgrade that is open is not over.
    fn upgrade_goes_on(&mut self, keeper: u32, brain: u32) -> Result<(), String> {
        let Some((target, before)) = &self.upgrade else { return Ok(()) };
        if *before == Some(brain) {
            return Err("the brain before the upgrade still serves".to_owned());
        }
        if self.open == [Blow::Upgraded] {
            for pid in [keeper, brain] {
                let runs = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
                if runs.as_ref() != Some(target) {
                    return Err(format!("{pid} runs {runs:?}, not {target:?}"));
                }
            }
            self.upgrades_done += 1;
        }
        self.upgrade = None;
        Ok(())
    }

    /// Waits until keeper and brain serve; starts a daemon by hand where nothing of it is left.
    #[track_caller]
    pub(crate) fn heal(&mut self, lab: &mut Lab) {
        let begun = Instant::now();
        let mut empty = 0;
        let mut hands = 0;
        let reason = loop {
            lab.reap();
            let settled =
                lab.settled().and_then(|(keeper, brain)| self.upgrade_goes_on(keeper, brain));
            match settled {
                Ok(()) => break None,
                Err(reason) if begun.elapsed() > patience() => break Some(reason),
                Err(_) => {}
            }
            let nobody = lab.find(Role::Keeper).is_none() && lab.find(Role::Brain).is_none();
            empty = if nobody { empty + 1 } else { 0 };
            if empty >= 5 {
                // Nobody is left to start anything.
                self.nap(300);
                lab.start();
                hands += 1;
                empty = -50;
            }
            thread::sleep(Duration::from_millis(5));
        };
        if let Some(reason) = reason {
            panic!("{:?} was not healed: {reason}", self.open);
        }
        if begun.elapsed() > Duration::from_secs(1) {
            eprintln!("{:?} took {:?} to heal, {hands} hands", self.open, begun.elapsed());
        }
        self.close(hands);
        self.slowest = self.slowest.max(begun.elapsed());
    }

    fn close(&mut self, hands: u32) {
        let both = self.open.contains(&Blow::BothKilled);
        let brain = self.open.iter().any(|blow| blow.is_of_brain());
        let keeper = self.open.iter().any(|blow| !blow.is_of_brain());
        // Keepers alone may die as fast as they like: the brain that holds everything goes only
        // when the next one does.
        if both || (keeper && brain) {
            let until = civil_seconds();
            self.gaps.push(Gap { by_one_blow: both, from: self.opened, until });
            self.compound += u32::from(!both);
        } else {
            self.needless_hands += hands;
        }
        self.open.clear();
    }
}
