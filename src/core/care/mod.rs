//! Health checks that heal: when to look, what a verdict means, why something fails, and which
//! remedy comes next.
//!
//! Small machines, each of which can be understood alone: [`pace`] runs the checks, [`gate`]
//! excuses timeouts of a busy host, [`health`] makes states of verdicts, [`cause`] makes a cause
//! of [`evidence`], [`ladder`] says which remedy comes next, [`transaction`] carries out one of
//! several steps.

pub mod pace;

pub mod gate;

pub mod health;

pub mod evidence;

pub mod cause;
mod cause_rules;

pub mod ladder;

pub mod transaction;

#[cfg(test)]
mod cause_tests;
#[cfg(test)]
mod health_tests;
