//! The unit file under a real systemd, booted in throw-away namespaces.

use std::ffi::OsStr;

use crate::harness::run_under_systemd;

#[test]
fn the_unit_survives_kills_hangs_and_restarts_and_a_stop_leaves_nothing() {
    let child = OsStr::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bin/child"));
    run_under_systemd("WatchdogSec=2", &[], "survive", &[child]);
}
