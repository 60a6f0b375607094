//! A real systemd that boots the project's unit in throw-away namespaces.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::proc;

/// What `tests/systemd/boot` exits with where no systemd can be booted.
const CANNOT: i32 = 77;

/// Boots systemd with the unit and these lines of a drop-in for its `[Service]`, and runs a script
/// of `tests/systemd` in it with variables and arguments of its own. Skipped where that cannot be.
#[track_caller]
pub(crate) fn run_under_systemd(
    service: &str,
    variables: &[&str],
    script: &str,
    arguments: &[&OsStr],
) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/systemd");
    let units = tempfile::tempdir().expect("a directory for the units");
    fs::copy(root.join("systemd/mendd.service"), units.path().join("mendd.service"))
        .expect("the unit is in the repository");
    let drop_in = units.path().join("mendd.service.d");
    fs::create_dir(&drop_in).expect("a directory for the drop-in");
    let lines = format!("[Service]\n{service}\n");
    fs::write(drop_in.join("test.conf"), lines).expect("a drop-in");
    let mendd = Path::new(env!("CARGO_BIN_EXE_mendd"));
    let mut boot = Command::new(here.join("boot"));
    boot.arg("-u").arg(units.path());
    // They may be on another filesystem than the root, which an overlay of it does not show.
    for dir in [mendd.parent().expect("a binary is in a directory"), &root.join("tests")] {
        boot.arg("-b").arg(dir);
    }
    boot.arg("--").arg("env").args(variables).arg(here.join(script)).arg(mendd);
    boot.arg(env!("CARGO_BIN_EXE_mendctl")).args(arguments);
    let output = boot.output().expect("bash runs");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(CANNOT) {
        return proc::skip(err.trim());
    }
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("all steps passed"), "{out}\n{err}");
}
