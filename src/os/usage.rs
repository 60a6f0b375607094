//! What processes, trees of them and the host use of the machine now.
//!
//! Nothing is sampled in between: who wants a rate takes two looks.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::os::proc;

/// Most processes of one tree that are looked at.
const MAX_TREE: usize = 10_000;

/// Memory and processor time of one process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Resident set size in bytes.
    pub memory_bytes: u64,
    /// User and system time since its start, in seconds.
    pub cpu_seconds: f64,
}

/// Open file descriptors of one process, or open files of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    pub used: u64,
    /// `None`: there is no limit.
    pub limit: Option<u64>,
}

/// The memory of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    pub total_bytes: u64,
    /// What programs can have without swapping.
    pub available_bytes: u64,
}

/// How long the processors of the host have worked since boot, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostCpu {
    pub busy: u64,
    pub total: u64,
    pub processors: u32,
}

/// Asks for some processes; one that is gone is missing from the answer.
pub fn usage(pids: &[u32]) -> Vec<(u32, Usage)> {
    let Ok(mut system) = System::new() else { return Vec::new() };
    let wanted: Vec<Pid> = pids.iter().map(|pid| Pid::from_u32(*pid)).collect();
    let kind = ProcessRefreshKind::nothing().with_memory().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&wanted), true, kind);
    pids.iter()
        .filter_map(|pid| {
            let process = system.process(Pid::from_u32(*pid))?;
            let cpu_seconds = std::time::Duration::from_millis(process.accumulated_cpu_time());
            let usage =
                Usage { memory_bytes: process.memory(), cpu_seconds: cpu_seconds.as_secs_f64() };
            Some((*pid, usage))
        })
        .collect()
}

/// Returns a process and what descends from it, as far as it can be followed: what has lost its
/// parent is not found. Empty when the process is gone.
pub fn tree(main: u32) -> Vec<u32> {
    if proc::stat(main).is_none_or(|stat| stat.is_dead()) {
        return Vec::new();
    }
    let mut found = BTreeSet::from([main]);
    let mut unseen = vec![main];
    while let Some(pid) = unseen.pop()
        && found.len() < MAX_TREE
    {
        // A process that was adopted meanwhile is not counted twice.
        unseen.extend(proc::children(pid).into_iter().filter(|child| found.insert(*child)));
    }
    found.into_iter().collect()
}

/// Returns the memory of processes that belong together: the private pages of each, and of what
/// they share the largest part once.
///
/// The sum of their resident sets would count a buffer that ten processes share ten times.
pub fn memory(pids: &[u32]) -> u64 {
    let found = pids
        .iter()
        .filter_map(|pid| Some(resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)));
    let (private, shared) = found.fold((0_u64, 0_u64), |(private, shared), (anonymous, common)| {
        (private.saturating_add(anonymous), shared.max(common))
    });
    private.saturating_add(shared)
}

/// Counts the open descriptors of a process.
///
/// # Errors
///
/// [`io::ErrorKind::NotFound`] when it is gone, [`io::ErrorKind::PermissionDenied`] when it
/// belongs to another user.
pub fn descriptors(pid: u32) -> io::Result<Descriptors> {
    let directory = format!("/proc/{pid}/fd");
    // Since Linux 6.2 the size of the directory is their number.
    let used = match fs::metadata(&directory)?.len() {
        0 => fs::read_dir(&directory)?.count() as u64,
        number => number,
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    Ok(Descriptors { used, limit: soft_limit(&limits, "Max open files") })
}

/// Returns the soft limit of a process on its processor time, in seconds.
pub fn cpu_time_limit(pid: u32) -> Option<u64> {
    soft_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?, "Max cpu time")
}

/// Counts the open files of the host.
///
/// # Errors
///
/// When `/proc` is missing or makes no sense.
pub fn host_descriptors() -> io::Result<Descriptors> {
    let text = fs::read_to_string("/proc/sys/fs/file-nr")?;
    parse_file_number(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Returns the memory of the host, `None` when nothing is known.
pub fn host_memory() -> Option<HostMemory> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let (total_bytes, available_bytes) = (system.total_memory(), system.available_memory());
    (total_bytes > 0).then_some(HostMemory { total_bytes, available_bytes })
}

/// Returns how long the host's processors have worked.
///
/// # Errors
///
/// When `/proc` is missing or makes no sense.
pub fn host_cpu() -> io::Result<HostCpu> {
    parse_cpu(&fs::read_to_string("/proc/stat")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Returns how many tasks ran or waited on average over 1, 5 and 15 minutes.
///
/// # Errors
///
/// When `/proc` is missing or makes no sense.
pub fn load() -> io::Result<[f64; 3]> {
    parse_load(&fs::read_to_string("/proc/loadavg")?)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads the private and the shared resident bytes from `/proc/PID/status`.
fn resident(status: &str) -> (u64, u64) {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    (field("RssAnon:").unwrap_or(0), field("RssShmem:").unwrap_or(0))
}

/// Reads the soft limit in a line such as `Max open files   1024   524288   files`.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Reads `1184 0 9223372036854775807`: allocated, unused, the most there may be.
fn parse_file_number(text: &str) -> Option<Descriptors> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (allocated, unused) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let most = numbers.next()?.ok()?;
    // The kernel's own "no limit" is the largest signed number.
    let limit = (most < i64::MAX as u64).then_some(most);
    Some(Descriptors { used: allocated.saturating_sub(unused), limit })
}

/// Reads `/proc/stat`: waiting for disks is idleness; guests are in their hosts' time already.
fn parse_cpu(text: &str) -> Option<HostCpu> {
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> =
        all.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let total = ticks.iter().fold(0_u64, |sum, ticks| sum.saturating_add(*ticks));
    let idle = ticks.get(3)?.saturating_add(ticks.get(4).copied().unwrap_or(0));
    let single = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let processors = u32::try_from(text.lines().filter(single).count()).ok()?.max(1);
    Some(HostCpu { busy: total.saturating_sub(idle), total, processors })
}

fn parse_load(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<f64>().ok());
    let mut next = || numbers.next().flatten().filter(|load| load.is_finite());
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_process_that_lives_uses_memory_and_one_that_does_not_is_left_out() {
        let own = std::process::id();
        let found = usage(&[own, u32::MAX >> 1]);
        assert_eq!(found.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [own]);
        assert!(found[0].1.memory_bytes > 100_000, "{found:?}");
    }

    #[test]
    fn a_tree_is_a_process_with_its_children_and_a_dead_one_has_none() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(tree(std::process::id()).contains(&child.id()));
        assert_eq!(tree(child.id()), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(tree(child.id()), Vec::<u32>::new());
    }

    #[test]
    fn memory_and_descriptors_of_this_process_grow_with_what_it_does() {
        let own = [std::process::id()];
        let before = memory(&own);
        let filled = vec![1_u8; 64 << 20];
        assert!(memory(&own) >= before + (60 << 20), "{before} before, {} after", memory(&own));
        drop(filled);
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let found = descriptors(own[0]).unwrap();
        assert!(found.used >= 50 && found.limit.is_some(), "{found:?}");
        drop(files);
        let gone = descriptors(u32::MAX >> 1).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_host_has_memory_processors_files_and_a_load() {
        let memory = host_memory().unwrap();
        assert!(memory.total_bytes > memory.available_bytes && memory.available_bytes > 0);
        let cpu = host_cpu().unwrap();
        assert!(cpu.total >= cpu.busy && cpu.processors > 0, "{cpu:?}");
        assert!(host_descriptors().unwrap().used > 0);
        assert!(load().unwrap().iter().all(|load| *load >= 0.0));
    }

    #[test]
    fn the_files_of_the_kernel_are_read_as_they_are_documented() {
        let status = "Name:\tweb\nRssAnon:\t    1024 kB\nRssFile:\t 9 kB\nRssShmem:\t      16 kB\n";
        assert_eq!(resident(status), (1 << 20, 16 << 10));
        let limits = "Max cpu time              unlimited            unlimited            seconds\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024));
        assert_eq!(soft_limit(limits, "Max cpu time"), None);
        let cpu = parse_cpu("cpu  10 1 5 70 10 1 1 2 50 0\ncpu0 1\ncpu1 1\nctxt 5\n").unwrap();
        assert_eq!(cpu, HostCpu { busy: 20, total: 100, processors: 2 });
        assert_eq!(parse_load("0.50 1.25 2.00 1/200 4711\n"), Some([0.5, 1.25, 2.0]));
        let files = parse_file_number("1184\t4\t9223372036854775807\n").unwrap();
        assert_eq!(files, Descriptors { used: 1180, limit: None });
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(cpu|cpu0|RssAnon:|kB|Max open files|[0-9. \n-]){0,30}") {
            let _ = (resident(&text), soft_limit(&text, "Max open files"), parse_cpu(&text));
            let _ = (parse_load(&text), parse_file_number(&text));
        }
    }
}
