//! The history: incidents and their stories, who asked for what, results of checks, measured
//! numbers, what remedies achieved. Kept in `mend.db`, an SQLite file in the state directory.

mod rows;

pub use rows::*;
