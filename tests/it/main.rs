//! The installed programs with real processes, through the operator's doors.
//!
//! Each test has its own daemon, directory and socket, and may run beside any other. Waits are
//! conditions with a deadline ([`harness::PATIENCE`], scaled by `MEND_TEST_PATIENCE`). When a
//! test ends, nothing that it started is alive; the harness checks that.
//!
//! `MEND_TEST_FULL=1` plays the long forms: 1 GiB of output, ten minutes of the real stack.

mod harness;
mod http;
mod proc;
mod waiting;

mod lifecycle;
mod spawn;
mod state;
mod stopping;

mod bundle;
mod graph;
mod healing;
mod healing_crash;
mod mended;
mod metrics;
mod notify;
mod readiness;

mod output;

mod access;
mod apply;
mod apply_crash;
mod asking;
mod config_files;
mod control;
mod enable;
mod history;
mod layers;
mod reload;
mod remedies;
mod watch;

mod bad_input;

mod harden;
mod keeper;
mod many;
mod pin;
mod review;
mod upgrade;

mod container;
mod gap;
mod stack;
mod systemd;
