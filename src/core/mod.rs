//! Decides and never does: pure machines, an event and the time in, actions out.
//!
//! Nothing in here asks a clock, touches a file or a process, iterates a hash map or draws a
//! random number that does not come from the seed. Deadlines are data in the state that needs
//! them, so leaving the state cancels them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod event;

mod happening;

mod supervisor;

mod commands;

mod configure;

mod plan;

mod mix;

mod apply;

mod switches;

mod renewal;

mod mending;

pub mod filewatch;

mod restore;

mod status;

mod snapshot;

mod program;

mod stopping;

mod readiness;

mod order;

pub mod exit;

pub mod backoff;

pub mod breaker;

pub mod rate;

pub mod bulkhead;

pub mod text;

pub mod care;

#[cfg(test)]
pub(crate) mod bench;
#[cfg(test)]
mod mending_tests;
#[cfg(test)]
mod readiness_tests;
#[cfg(test)]
mod supervisor_tests;
#[cfg(test)]
mod switches_tests;

pub use apply::{Apply, ApplyOrder, ApplyStage, ApplyStep, Progress};
pub use event::*;
pub use happening::{Happening, HappeningKind};
pub use mending::Mending;
pub use mix::Mix;
pub use plan::{Fate, Plan, ProgramChange, Programs};
pub(crate) use restore::placeholder;
pub use restore::{Found, FoundRun, Restore};
pub use snapshot::{Born, Failing, Remains, Said, Snapshot, State, StopPhase};
pub use supervisor::Supervisor;
pub use switches::Switch;
