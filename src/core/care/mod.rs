//! Health checks that heal: when to look, what a verdict means, why something fails, what to do
//! about it, and when to leave it alone.
//!
//! [`Care`] joins small machines, each of which can be understood alone: [`pace`] runs the
//! checks, [`gate`] excuses timeouts of a busy host, [`health`] makes states of verdicts,
//! [`cause`] makes a cause of [`evidence`], [`ladder`] says which remedy comes next, [`brakes`]
//! when it may, [`transaction`] carries out one of several steps, [`mode`] looks at the whole.
//! What is remembered is plain data ([`TargetFacts`], [`HostFacts`]), so that the next brain
//! goes on where this one died.
//!
//! A remedy never begins on an unknown verdict, on what is well, on hold or stopped, while
//! something required is the cause, twice at once, within a cool-down, beyond a budget, or in a
//! panic. What is down and not being healed always has a [`Standing`] that says why, and either
//! a time at which it is looked at again or an alert that told people.

mod event;

mod healer;

mod incoming;

mod commands;

mod attend;

mod course;

mod incident;

mod host;

mod restore;

mod patient;

mod story;

pub mod pace;

pub mod gate;

pub mod health;

pub mod evidence;

pub mod cause;
mod cause_rules;

pub mod ladder;

pub mod brakes;

pub mod transaction;

pub mod mode;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod care_tests;
#[cfg(test)]
mod cause_tests;
#[cfg(test)]
mod health_tests;

pub use event::*;
pub use healer::{Care, HostFacts};
pub use health::{HealthState, Verdict};
pub use patient::{CheckFacts, Course, Incident, Standing, TargetFacts, may_act};
pub use restore::CareRestore;
pub use story::{Closing, Story};
