//! Resource limits of a run: what `setrlimit` is given, see getrlimit(2).

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Limits;

/// `(resource, soft, hard)`.
pub type Rlimit = (u32, u64, u64);

/// Returns whether some of the limits can only be kept by a control group.
pub fn need_cgroup(limits: &Limits) -> bool {
    limits.memory_bytes.is_some() || limits.cpu_percent.is_some() || limits.tasks.is_some()
}

/// Turns limits into calls, and says which wishes exceed what this daemon may give.
///
/// `nofile` is what the daemon found at its start: it raises its own limit, a run gets the
/// original one unless it declares another.
pub fn rlimits(limits: &Limits, nofile: (u64, u64)) -> (Vec<Rlimit>, Vec<String>) {
    let wishes = [
        (Resource::RLIMIT_NPROC, "nproc", limits.nproc),
        (Resource::RLIMIT_CORE, "core", limits.core_bytes),
        (Resource::RLIMIT_FSIZE, "fsize", limits.fsize_bytes),
        (Resource::RLIMIT_STACK, "stack", limits.stack_bytes),
        (Resource::RLIMIT_AS, "as", limits.address_space_bytes),
        (Resource::RLIMIT_MEMLOCK, "memlock", limits.memlock_bytes),
        (Resource::RLIMIT_CPU, "cpu_time", limits.cpu_seconds),
    ];
    let mut calls = Vec::new();
    let mut warnings = Vec::new();
    for (resource, name, wish) in wishes {
        let Some(wish) = wish else { continue };
        let hard = getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard);
        let value = clamp(name, wish, hard, &mut warnings);
        calls.push((resource as u32, value, value));
    }
    let (soft, hard) = match limits.nofile {
        Some(wish) => {
            let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(nofile.1, |(_, hard)| hard);
            let value = clamp("nofile", wish, hard, &mut warnings);
            (value, value)
        }
        None => nofile,
    };
    calls.push((Resource::RLIMIT_NOFILE as u32, soft, hard));
    (calls, warnings)
}

fn clamp(name: &str, wish: u64, hard: u64, warnings: &mut Vec<String>) -> u64 {
    // CAP_SYS_RESOURCE may raise a hard limit; trying costs nothing and is undone at once.
    if wish <= hard || may_raise_limits() {
        return wish;
    }
    warnings.push(format!(
        "`limits.{name}` is {hard} instead of {wish}: raising it needs CAP_SYS_RESOURCE"
    ));
    hard
}

fn may_raise_limits() -> bool {
    // Bit 24 of the effective capabilities, see capabilities(7).
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|capabilities| capabilities & CAP_SYS_RESOURCE != 0)
}

/// Returns this process's own limit on open files, soft and hard.
pub fn nofile() -> (u64, u64) {
    getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX))
}

/// Raises this process's own limit on open files to `wanted` or the hard limit, and returns soft
/// and hard as they were.
pub fn raise_nofile(wanted: u64) -> (u64, u64) {
    let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let target = wanted.min(before.1);
    if target > before.0 {
        // Refused only where nothing is lost by keeping what there is.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, target, before.1);
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_the_open_files_limit_that_the_daemon_found() {
        let (calls, warnings) = rlimits(&Limits::default(), (1024, 4096));
        assert_eq!(calls, [(Resource::RLIMIT_NOFILE as u32, 1024, 4096)]);
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn declared_limits_are_soft_and_hard_at_once() {
        let limits = Limits { core_bytes: Some(0), nofile: Some(64), ..Limits::default() };
        let (calls, _) = rlimits(&limits, (1024, 4096));
        assert!(calls.contains(&(Resource::RLIMIT_CORE as u32, 0, 0)));
        assert!(calls.contains(&(Resource::RLIMIT_NOFILE as u32, 64, 64)));
    }
}
