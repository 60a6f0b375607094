//! What the members of a control group use, and up to which limit.
//!
//! Every figure is missing where its controller is, and in a group that is gone.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Memory that cannot be taken back without swapping, and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Without the file pages that have not been used for long: the kernel drops those first.
    pub used_bytes: u64,
    /// `None`: there is no limit.
    pub limit_bytes: Option<u64>,
}

/// Processes and threads, and their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tasks {
    pub used: u64,
    pub limit: Option<u64>,
}

/// Returns the memory that the group uses; its limit is the lowest of its own and its parents'.
pub fn memory(group: &Path) -> Option<Memory> {
    let current: u64 = number(&group.join("memory.current"))?;
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let inactive = value(&statistics, "inactive_file").unwrap_or(0);
    let limits = group.ancestors().map(|group| group.join("memory.max"));
    let limit_bytes = limits.map_while(|file| limit(&file)).flatten().min();
    Some(Memory { used_bytes: current.saturating_sub(inactive), limit_bytes })
}

/// Returns the processor time that the group has used since it was made.
pub fn cpu(group: &Path) -> Option<Duration> {
    let statistics = fs::read_to_string(group.join("cpu.stat")).ok()?;
    value(&statistics, "usage_usec").map(Duration::from_micros)
}

/// Returns how many processors the group may use, as a share: 0.5 is half of one.
pub fn cpu_limit(group: &Path) -> Option<f64> {
    parse_cpu_limit(&fs::read_to_string(group.join("cpu.max")).ok()?)
}

/// Returns the processes and threads of the group.
pub fn tasks(group: &Path) -> Option<Tasks> {
    let used = number(&group.join("pids.current"))?;
    Some(Tasks { used, limit: limit(&group.join("pids.max")).flatten() })
}

/// Returns how often the kernel has killed in the group for want of memory.
pub fn oom_kills(group: &Path) -> Option<u64> {
    value(&fs::read_to_string(group.join("memory.events")).ok()?, "oom_kill")
}

/// Returns how often it has done so on the whole host since boot.
pub fn oom_kills_of_host() -> Option<u64> {
    value(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Reads a limit: `Some(None)` for `max`, `None` without the file.
fn limit(file: &Path) -> Option<Option<u64>> {
    let text = fs::read_to_string(file).ok()?;
    Some(text.trim().parse().ok())
}

/// Finds `name 123` among the lines.
fn value(text: &str, name: &str) -> Option<u64> {
    let line = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(line)
}

/// Reads `50000 100000` or `max 100000`.
fn parse_cpu_limit(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u32, u32) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A directory with the files of a group in it.
    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        directory
    }

    #[test]
    fn memory_counts_without_cold_file_pages_and_against_the_lowest_limit() {
        let directory = group(&[
            ("memory.max", "4096\n"),
            ("web/memory.max", "max\n"),
            ("web/memory.current", "3000\n"),
            ("web/memory.stat", "anon 1\ninactive_file 1000\nactive_file 7\n"),
        ]);
        let expected = Memory { used_bytes: 2000, limit_bytes: Some(4096) };
        assert_eq!(memory(&directory.path().join("web")), Some(expected));
        assert_eq!(memory(directory.path()), None, "the parent has no figures");
    }

    #[test]
    fn processor_time_tasks_and_kills_are_read_and_may_all_be_missing() {
        let directory = group(&[
            ("cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
            ("cpu.max", "50000 100000\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n"),
        ]);
        let path = directory.path();
        assert_eq!(cpu(path), Some(Duration::from_millis(1500)));
        assert_eq!(cpu_limit(path), Some(0.5));
        assert_eq!(tasks(path), Some(Tasks { used: 3, limit: None }));
        assert_eq!(oom_kills(path), Some(1));
        let empty = group(&[]);
        let path = empty.path();
        assert!(cpu(path).is_none() && cpu_limit(path).is_none() && tasks(path).is_none());
        assert!(oom_kills(path).is_none());
    }

    #[test]
    fn the_host_counts_its_kills() {
        assert!(oom_kills_of_host().is_some(), "there is no `oom_kill` in /proc/vmstat");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(max|oom_kill|usage_usec|[0-9 \n-]){0,20}") {
            let _ = (parse_cpu_limit(&text), value(&text, "oom_kill"));
        }
    }
}
