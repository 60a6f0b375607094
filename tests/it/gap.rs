//! systemd's descriptor store, in a real systemd: what ends while keeper and brain are both dead
//! keeps its last words and its exit status.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::proc;

/// What `tests/systemd/boot` exits with where no systemd can be booted.
const CANNOT: i32 = 77;

#[test]
fn what_ends_while_no_part_of_mend_lives_is_known_to_the_next_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/systemd");
    let units = tempfile::tempdir().expect("a directory for the units");
    fs::copy(root.join("systemd/mendd.service"), units.path().join("mendd.service"))
        .expect("the unit is in the repository");
    let drop_in = units.path().join("mendd.service.d");
    fs::create_dir(&drop_in).expect("a directory for the drop-in");
    // Long enough for the programs to end while nobody is there.
    fs::write(drop_in.join("test.conf"), "[Service]\nRestartSec=2\n").expect("a drop-in");
    let mendd = Path::new(env!("CARGO_BIN_EXE_mendd"));
    let mut boot = Command::new(here.join("boot"));
    boot.arg("-u").arg(units.path());
    // They may be on another filesystem than the root, which an overlay of it does not show.
    for dir in [mendd.parent().expect("a binary is in a directory"), &root.join("tests")] {
        boot.arg("-b").arg(dir);
    }
    boot.arg("--").arg("env");
    if !proc::keeps_exit_status_in_pidfds() {
        boot.arg("MEND_TEST_NO_INFO_EXIT=1");
    }
    boot.arg(here.join("gap")).arg(mendd).arg(env!("CARGO_BIN_EXE_mendctl"));
    let output = boot.output().expect("bash runs");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(CANNOT) {
        return proc::skip(err.trim());
    }
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("all steps passed"), "{out}\n{err}");
}
