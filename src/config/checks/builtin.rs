//! The checks that are there without being written: they warn, and heal nothing.

use std::sync::Arc;
use std::time::Duration;

use super::super::look::{Amount, Bounds, DeclaredCheck, DiskLook, Look, MemoryLook};
use super::super::model::{Program, Supervisor};
use super::super::model_check::{Check, Impact};
use super::values::DISK_WARN;

/// What nobody has asked for costs next to nothing.
const INTERVAL: Duration = Duration::from_secs(60);
/// Memory in use of the host, in percent.
const MEMORY_WARN: f64 = 90.0;

fn builtin(name: &str, look: Look) -> DeclaredCheck {
    let name = name.parse().expect("a constant name");
    let mut check = Check::new(name, look.kind());
    check.interval = INTERVAL;
    DeclaredCheck { check, look, is_builtin: true }
}

/// Adds what is looked at of the host, unless something declared looks at the same.
pub(in crate::config) fn of_host(checks: &mut Vec<Arc<DeclaredCheck>>, supervisor: &Supervisor) {
    let memory = Bounds { warn: Some(Amount::Percent(MEMORY_WARN)), fail: None };
    let disk = |path: &std::path::Path| {
        let free = Bounds { warn: Some(Amount::Percent(DISK_WARN)), fail: None };
        let free_inodes = Some(Bounds { warn: Some(DISK_WARN), fail: None });
        Look::Disk(DiskLook { path: path.to_path_buf(), free, free_inodes })
    };
    for (name, look) in [
        ("memory", Look::Memory(MemoryLook { used: memory })),
        ("disk-state", disk(&supervisor.state_dir)),
        ("disk-log", disk(&supervisor.log_dir)),
        ("disk-runtime", disk(&supervisor.runtime_dir)),
    ] {
        add(checks, builtin(name, look));
    }
}

/// Adds that a critical program runs, unless something declared looks at the same. That others
/// have failed counts for the host all the same, and is told in their incidents.
pub(in crate::config) fn of_program(program: &mut Program) {
    if program.impact != Impact::Critical {
        return;
    }
    let mut process = builtin("process", Look::Process);
    process.check.impact = program.impact;
    process.check.start_timeout = program.lifecycle.start_timeout;
    add(&mut program.checks, process);
}

fn add(checks: &mut Vec<Arc<DeclaredCheck>>, one: DeclaredCheck) {
    let same = |look: &Look| match (look, &one.look) {
        (Look::Disk(other), Look::Disk(this)) => other.path == this.path,
        (other, this) => other.kind() == this.kind(),
    };
    let is_there =
        |other: &Arc<DeclaredCheck>| other.check.name == one.check.name || same(&other.look);
    if !checks.iter().any(is_there) {
        checks.push(Arc::new(one));
    }
}
