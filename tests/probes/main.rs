//! Probes of real servers and processes, which each test starts in a directory of its own.
//!
//! Waits are conditions with a deadline. When a test ends, nothing that it started is alive.
#![expect(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "helpers of tests are tests: they panic, and they are not fast"
)]

mod bench;
mod server;

mod exec;
mod http;
mod postgres;
mod redis;
mod resources;
mod tcp;
mod tls;

mod evidence;
