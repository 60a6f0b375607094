//! Does and never decides: one loop, one owner of the core, an arm per action.
//!
//! The order in which things are done is what a SIGKILL at any moment is measured against:
//! decisions are written down before they are carried out, a run's record exists before its
//! process, its output is drained before it is forgotten.

mod handle;

mod brain;

mod core_loop;

mod requests;

mod select;

mod switching;

mod waiters;

mod accepted;

mod trouble;

mod reload;

mod apply;

mod generations;

mod shutdown;

mod upgrade;

mod successor;

mod estate;

mod standby;

mod held;

mod adopt;

mod run;

mod launch;

mod commands;

mod output;

mod extra;

mod ears;

mod lookouts;

mod healing;

mod counts;

mod environment;

mod keeper_link;

mod books;

mod kept;

pub mod history;

pub(crate) mod active;

mod config_watch;

mod watched;

mod print;

mod file_watch;

mod renewal;

mod systemd;

mod fdstore;

mod pins;

mod logging;

pub(crate) use adopt::{descriptors_to_adopt, has_runs};
pub(crate) use books::Papers;
pub(crate) use brain::{Brain, Ended, Setup};
pub use counts::Counts;
pub(crate) use generations::{LastGood, last_good};
pub use handle::*;
pub use healing::{CheckStatus, Checks, HealingRequest, Why, Whys, shown_target};
pub(crate) use held::Held;
pub(crate) use reload::descriptors_to_start;
pub(crate) use successor::replace_keeper;
