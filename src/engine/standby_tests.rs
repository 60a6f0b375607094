//! Every order of the steps of an upgrade, and of any two deaths among keeper, old brain and new
//! brain, played on a model of the processes. The old brain's part is decided by the real
//! [`Sight::step`]; what the others do is told here in the words of their modules.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Old,
    New,
    /// The first brain of the next keeper.
    Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Brain {
    NotYet,
    /// Before the keeper's list has come (`daemon::brain::run`).
    Starting,
    /// Waits for the lock (`keeper::wait_for_brain_lock`).
    Waiting,
    TakingOver,
    Serving,
    /// Has withdrawn and watches the keeper.
    Resting,
    /// The keeper is gone; the lock was tried, or was not.
    Deciding(Option<bool>),
    /// Has the lock and a door, and hands over (`engine::successor`).
    Going,
    /// Has a door alone.
    Offering,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Heir {
    NotYet,
    /// Has the keeper's lock and has not signed it.
    Born {
        from: Option<Who>,
        sent: bool,
    },
    Receiving {
        from: Who,
        /// All of it is in the socket, whatever becomes of the brain.
        sent: bool,
    },
    /// `keeper::orphan::take_over`; something was cut off before.
    TakingOver {
        cut: bool,
    },
    /// Has all that this brain had, and starts its own.
    Running(Option<Who>),
    Serving,
}

/// The earliest kind is played alone: a timer fires only where nothing else can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pace {
    Prompt,
    /// A second at most.
    Short,
    Long,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    keeper: bool,
    old: Brain,
    new: Brain,
    heir: Heir,
    lock: Option<Who>,
    door: Option<Who>,
    deaths: u8,
}

const START: World = World {
    keeper: true,
    old: Brain::Serving,
    new: Brain::NotYet,
    heir: Heir::NotYet,
    lock: Some(Who::Old),
    door: None,
    deaths: 0,
};

impl World {
    fn brain(&mut self, who: Who) -> &mut Brain {
        if who == Who::Old { &mut self.old } else { &mut self.new }
    }

    fn is_alive(mut self, who: Who) -> bool {
        !matches!(self.brain(who), Brain::NotYet | Brain::Gone)
    }

    fn is_followed(self) -> bool {
        !matches!(self.heir, Heir::NotYet | Heir::Born { .. })
    }

    fn with(mut self, who: Who, brain: Brain) -> Self {
        *self.brain(who) = brain;
        self
    }

    /// A death, or an end: the kernel closes what the brain had open.
    fn without(self, who: Who) -> Self {
        let mut next = self.with(who, Brain::Gone);
        next.lock = next.lock.filter(|holder| *holder != who);
        next
    }

    fn going(self, who: Who) -> Self {
        Self { door: Some(who), lock: Some(who), ..self.with(who, Brain::Going) }
    }

    fn served(self) -> bool {
        let by_new = self.keeper && (self.new == Brain::Serving || self.old == Brain::Serving);
        by_new || self.heir == Heir::Serving
    }

    /// A keeper can be started: the one before is dead and no other has its lock.
    fn wants_heir(self) -> bool {
        !self.keeper && self.heir == Heir::NotYet
    }

    fn deaths(self) -> Vec<(&'static str, Self)> {
        let next = Self { deaths: self.deaths + 1, ..self };
        let mut all = Vec::new();
        if self.deaths == 2 {
            return all;
        }
        if self.keeper {
            all.push(("the keeper is killed", Self { keeper: false, ..next }));
        }
        if self.is_alive(Who::Old) {
            all.push(("the old brain is killed", next.without(Who::Old)));
        }
        if self.is_alive(Who::New) {
            all.push(("the new brain is killed", next.without(Who::New)));
        }
        all
    }

    fn steps(self) -> Vec<(Pace, &'static str, Self)> {
        let mut all = Vec::new();
        if self.keeper {
            self.keeper_steps(&mut all);
        }
        self.old_steps(&mut all);
        self.new_steps(&mut all);
        for who in [Who::Old, Who::New] {
            if *{ self }.brain(who) == Brain::Going {
                self.going_steps(who, &mut all);
            }
        }
        self.heir_steps(&mut all);
        all
    }

    fn going_steps(self, who: Who, all: &mut Vec<(Pace, &'static str, Self)>) {
        let heir = |heir| Self { heir, ..self };
        match self.heir {
            _ if self.wants_heir() => {
                let next = heir(Heir::Born { from: Some(who), sent: false });
                all.push((Pace::Prompt, "a brain starts a keeper", next));
            }
            Heir::Born { from: Some(from), sent: false } if from == who => {
                let next = heir(Heir::Born { from: Some(from), sent: true });
                all.push((Pace::Prompt, "a brain fills the socket", next));
            }
            Heir::Receiving { from, sent: false } if from == who => {
                let next = heir(Heir::Receiving { from, sent: true });
                all.push((Pace::Prompt, "a brain fills the socket", next));
            }
            Heir::NotYet
            | Heir::Born { .. }
            | Heir::Receiving { .. }
            | Heir::TakingOver { .. }
            | Heir::Running(_)
            | Heir::Serving => {}
        }
    }

    fn keeper_steps(self, all: &mut Vec<(Pace, &'static str, Self)>) {
        let has_room = matches!(self.old, Brain::Resting | Brain::Gone);
        if has_room && matches!(self.new, Brain::NotYet | Brain::Gone) {
            all.push((Pace::Prompt, "a brain is started", self.with(Who::New, Brain::Starting)));
        }
        if self.new == Brain::Serving && self.is_alive(Who::Old) {
            all.push((Pace::Prompt, "the old brain is dismissed", self.without(Who::Old)));
        }
    }

    fn old_steps(self, all: &mut Vec<(Pace, &'static str, Self)>) {
        let old = |brain| self.with(Who::Old, brain);
        match self.old {
            Brain::Serving => {
                let resting = Self { lock: None, door: Some(Who::Old), ..old(Brain::Resting) };
                all.push((Pace::Prompt, "the old brain withdraws", resting));
                if !self.keeper {
                    all.push((Pace::Prompt, "the old brain is orphaned", self.going(Who::Old)));
                }
            }
            Brain::Resting if !self.keeper => {
                all.push((Pace::Prompt, "the old brain notices", old(Brain::Deciding(None))));
            }
            Brain::Deciding(None) => {
                let mut next = old(Brain::Deciding(Some(self.lock.is_none())));
                next.lock.get_or_insert(Who::Old);
                all.push((Pace::Prompt, "the old brain tries the lock", next));
            }
            Brain::Deciding(Some(has_lock)) => {
                let sight = |waited| Sight {
                    has_lock,
                    door: match self.door {
                        None => DoorOwner::Nobody,
                        Some(Who::Old) => DoorOwner::This,
                        Some(Who::New | Who::Next) => DoorOwner::Another,
                    },
                    is_followed: self.is_followed(),
                    waited,
                };
                let (now, late) = (sight(Duration::ZERO).step(), sight(Duration::MAX).step());
                let pace = if now == Step::Wait { Pace::Long } else { Pace::Prompt };
                let offering = Self { lock: None, door: Some(Who::Old), ..old(Brain::Offering) };
                match late {
                    Step::GoOn => all.push((pace, "the old brain goes on", self.going(Who::Old))),
                    Step::Offer => all.push((pace, "the old brain offers", offering)),
                    Step::Leave => all.push((pace, "the old brain leaves", self.without(Who::Old))),
                    Step::Evict => {
                        let victim = self.lock.unwrap_or(Who::Next);
                        all.push((pace, "the old brain evicts", self.without(victim)));
                    }
                    Step::Wait => {}
                }
                if !has_lock && now == Step::Wait && (self.lock.is_none() || late == Step::Wait) {
                    let pace = if self.lock.is_none() { Pace::Prompt } else { Pace::Long };
                    all.push((pace, "the old brain looks again", old(Brain::Deciding(None))));
                }
            }
            Brain::Offering => {
                all.push((Pace::Short, "nobody takes the offer", self.without(Who::Old)));
            }
            Brain::NotYet
            | Brain::Starting
            | Brain::Waiting
            | Brain::TakingOver
            | Brain::Resting
            | Brain::Going
            | Brain::Gone => {}
        }
    }

    fn new_steps(self, all: &mut Vec<(Pace, &'static str, Self)>) {
        let new = |brain| self.with(Who::New, brain);
        match self.new {
            Brain::Starting => {
                let other = self.lock.is_some() || self.door.is_some_and(|who| self.is_alive(who));
                if self.keeper || !other {
                    all.push((Pace::Prompt, "the new brain has a list", new(Brain::Waiting)));
                } else if self.wants_heir() {
                    let heir = Heir::Born { from: None, sent: false };
                    let next = Self { heir, ..self.without(Who::New) };
                    all.push((Pace::Prompt, "the new brain replaces the keeper", next));
                } else if self.is_followed() {
                    all.push((Pace::Prompt, "the new brain leaves", self.without(Who::New)));
                }
            }
            Brain::Waiting if !self.keeper && self.is_followed() => {
                all.push((Pace::Prompt, "the new brain leaves", self.without(Who::New)));
            }
            Brain::Waiting => match self.lock {
                None => {
                    let next = Self { lock: Some(Who::New), ..new(Brain::TakingOver) };
                    all.push((Pace::Prompt, "the new brain has the lock", next));
                }
                Some(holder) => {
                    all.push((Pace::Long, "the new brain evicts", self.without(holder)));
                }
            },
            Brain::TakingOver if self.keeper => {
                all.push((Pace::Prompt, "the new brain serves", new(Brain::Serving)));
            }
            Brain::TakingOver | Brain::Serving if !self.keeper => {
                all.push((Pace::Prompt, "the new brain is orphaned", self.going(Who::New)));
            }
            Brain::NotYet
            | Brain::TakingOver
            | Brain::Serving
            | Brain::Resting
            | Brain::Deciding(_)
            | Brain::Going
            | Brain::Offering
            | Brain::Gone => {}
        }
    }

    fn heir_steps(self, all: &mut Vec<(Pace, &'static str, Self)>) {
        let heir = |heir| Self { heir, ..self };
        let gives = |who| matches!(*{ self }.brain(who), Brain::Going | Brain::Offering);
        match self.heir {
            Heir::Born { from, sent } => {
                let alone = Heir::TakingOver { cut: false };
                let next = from.map_or(alone, |from| Heir::Receiving { from, sent });
                all.push((Pace::Prompt, "the next keeper signs", heir(next)));
            }
            Heir::Receiving { from, sent: true } => {
                all.push((Pace::Prompt, "a brain gives", heir(Heir::Running(Some(from)))));
            }
            Heir::Receiving { from, .. } if gives(from) => {}
            Heir::Receiving { .. } => {
                all.push((Pace::Prompt, "the giver is dead", heir(Heir::TakingOver { cut: true })));
            }
            Heir::TakingOver { cut } => match self.door.filter(|who| self.is_alive(*who)) {
                Some(who) if gives(who) => {
                    all.push((Pace::Prompt, "a door gives", heir(Heir::Running(Some(who)))));
                }
                Some(_) => {
                    let next = heir(Heir::Running(None));
                    all.push((Pace::Long, "a door is silent", next));
                }
                None if self.lock.is_some() => {
                    let next = self.lock.map_or(self, |holder| self.without(holder));
                    let next = Self { heir: Heir::Running(None), ..next };
                    all.push((Pace::Long, "the next keeper evicts", next));
                }
                None => {
                    let pace = if cut { Pace::Short } else { Pace::Prompt };
                    all.push((pace, "no brain is left", heir(Heir::Running(None))));
                }
            },
            Heir::Running(source) => {
                let going = source.filter(|who| gives(*who));
                if let Some(who) = going {
                    let mut next = self.without(who);
                    // Offered without the lock, the door is left.
                    next.door = next.door.filter(|_| self.lock != Some(who));
                    next.heir = Heir::Running(None);
                    all.push((Pace::Prompt, "the giver is let go", next));
                } else if self.lock.is_none() {
                    let next = Self { lock: Some(Who::Next), ..heir(Heir::Serving) };
                    all.push((Pace::Prompt, "the next brain serves", next));
                } else if let Some(holder) = self.lock.filter(|holder| gives(*holder)) {
                    let mut next = self.without(holder);
                    next.door = next.door.filter(|owner| *owner != holder);
                    all.push((Pace::Short, "the next brain relieves another", next));
                } else if let Some(holder) = self.lock {
                    all.push((Pace::Long, "the next brain evicts", self.without(holder)));
                }
            }
            Heir::NotYet | Heir::Serving => {}
        }
    }

    /// Says what is wrong with this state, given what can happen next without another death.
    fn fault(self, steps: &[(Pace, &'static str, Self)]) -> Option<&'static str> {
        let parts = [self.keeper, self.is_alive(Who::Old), self.is_alive(Who::New)];
        let lives = parts.contains(&true) || self.heir != Heir::NotYet;
        let at_rest = steps.iter().all(|(pace, ..)| *pace == Pace::Long);
        if at_rest && lives && !self.served() {
            return Some("somebody lives and nobody will serve, or only after a long wait");
        }
        if steps.is_empty() && self.served() && self.keeper != self.is_alive(Who::New) {
            return Some("a brain is left over");
        }
        if self.heir == Heir::Serving && steps.is_empty() && self.is_alive(Who::Old) {
            return Some("the old brain is left over");
        }
        None
    }
}

/// Plays every order; returns how each state came about.
fn play() -> BTreeMap<World, Option<(World, &'static str)>> {
    let mut came = BTreeMap::from([(START, None)]);
    let mut open = vec![START];
    while let Some(world) = open.pop() {
        let steps = world.steps();
        let first = steps.iter().map(|(pace, ..)| *pace).min();
        let due = steps.iter().filter(|(pace, ..)| Some(*pace) == first);
        let next = due.map(|(_, what, next)| (*what, *next)).chain(world.deaths());
        for (what, next) in next {
            came.entry(next).or_insert_with(|| {
                open.push(next);
                Some((world, what))
            });
        }
    }
    came
}

fn story(came: &BTreeMap<World, Option<(World, &'static str)>>, end: World) -> String {
    let mut lines = vec![format!("{end:?}")];
    let mut at = end;
    while let Some(Some((before, what))) = came.get(&at) {
        lines.push((*what).to_owned());
        at = *before;
    }
    lines.reverse();
    lines.join("\n")
}

#[test]
fn whoever_is_left_of_an_upgrade_ends_up_serving_whatever_two_die() {
    let came = play();
    for world in came.keys() {
        let steps = world.steps();
        if let Some(fault) = world.fault(&steps) {
            panic!("{fault}:\n{}", story(&came, *world));
        }
    }
    // The model has a life of its own: these are reached, or it would show nothing.
    let words: BTreeSet<_> = came.values().flatten().map(|(_, what)| *what).collect();
    for word in
        ["the old brain goes on", "the old brain offers", "the new brain replaces the keeper"]
    {
        assert!(words.contains(word), "never: {word}");
    }
    assert!(came.len() > 200, "{} states", came.len());
}

#[test]
fn no_keeper_begins_without_what_a_living_old_brain_holds() {
    let came = play();
    for (world, how) in &came {
        let Some((before, what)) = how else { continue };
        let began = matches!(what, &"no brain is left" | &"a door is silent");
        if began && before.is_alive(Who::Old) {
            panic!("it begins alone:\n{}", story(&came, *world));
        }
    }
}
