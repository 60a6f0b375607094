//! `kill -9` at any moment loses nothing: Mend's parts are killed and frozen at random moments
//! while programs write, end and are commanded; then everything is counted.
//!
//! `MEND_CHAOS_SEED` replays a life (the order of blows, not the kernel's timing),
//! `MEND_CHAOS_KILLS` and `MEND_CHAOS_PROGRAMS` choose the length; freezes and upgrades come on top
//! of the kills. `MEND_TEST_FULL=1` plays the long form of the first life: 1,000 and 200.
//! `MEND_CHAOS_PAUSE` is the longest pause before a blow, in milliseconds (300).

#[path = "../it/http.rs"]
#[allow(dead_code, reason = "shared with the integration tests")]
mod http;
#[path = "../it/proc.rs"]
#[allow(dead_code, reason = "shared with the integration tests")]
mod proc;
#[path = "../it/waiting.rs"]
mod waiting;

mod lab;

mod blows;

mod operator;

mod verdict;

mod life;

mod windows;
