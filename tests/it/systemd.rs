//! The unit file under a real systemd, booted in throw-away namespaces.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::proc;

/// What `tests/systemd/boot` exits with where no systemd can be booted.
const CANNOT: i32 = 77;

#[test]
fn the_unit_survives_kills_hangs_and_restarts_and_a_stop_leaves_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/systemd");
    let units = tempfile::tempdir().expect("a directory for the units");
    fs::copy(root.join("systemd/mendd.service"), units.path().join("mendd.service"))
        .expect("the unit is in the repository");
    let drop_in = units.path().join("mendd.service.d");
    fs::create_dir(&drop_in).expect("a directory for the drop-in");
    fs::write(drop_in.join("test.conf"), "[Service]\nWatchdogSec=2\n").expect("a drop-in");
    let mendd = Path::new(env!("CARGO_BIN_EXE_mendd"));
    let mut boot = Command::new(here.join("boot"));
    boot.arg("-u").arg(units.path());
    // They may be on another filesystem than the root, which an overlay of it does not show.
    for dir in [mendd.parent().expect("a binary is in a directory"), &root.join("tests")] {
        boot.arg("-b").arg(dir);
    }
    boot.arg("--").arg(here.join("survive")).arg(mendd);
    boot.arg(env!("CARGO_BIN_EXE_mendctl")).arg(root.join("tests/data/bin/child"));
    let output = boot.output().expect("bash runs");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(CANNOT) {
        return proc::skip(err.trim());
    }
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("all steps passed"), "{out}\n{err}");
}
