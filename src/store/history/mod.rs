//! The history: incidents and their stories, who asked for what, results of checks, measured
//! numbers, what remedies achieved. Kept in `mend.db`, an SQLite file in the state directory.
//!
//! Nothing here stops supervision. What cannot be written stays with the caller, who tries again;
//! a damaged file is moved aside and a new one begun; one of a newer version is not touched. What
//! is too old or too much is removed a little at a time, after a write. Nothing here has a thread
//! or a timer: see the engine's `history`.

mod rows;

mod told;

mod store;

mod file;

mod fault;

mod schema;

mod names;
mod streaks;
mod write;

mod read;

mod keep;

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod trouble_tests;

pub use fault::Fault;
pub use file::Word;
pub use rows::*;
pub use store::{Found, Store};
