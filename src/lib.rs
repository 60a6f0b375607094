//! Mend: a process supervisor with self-healing that survives its own death.
//!
//! Two programs are built from this library: the daemon `mendd` and the client `mendctl`.
//! Imports point downwards only:
//!
//! ```text
//! bin → daemon → engine, api, client → core → config → name, time
//!                engine's hands: os, keeper, capture, probe, store
//! ```
//!
//! `core` decides and never does; `engine` does and never decides; `os` has the only system
//! calls and the only `unsafe`; `api::view` and `store` have the only serialised types.

pub mod name;
pub mod time;

pub mod config;

pub mod core;

pub mod os;

pub mod keeper;

pub mod capture;

pub mod store;

pub mod probe;

pub mod engine;

pub mod api;

pub mod client;

pub mod daemon;
