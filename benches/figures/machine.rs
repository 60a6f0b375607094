//! What the kernel tells of processes: pids, memory, switches, processor time.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns CLOCK_MONOTONIC in nanoseconds, the clock of the children's records.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock is there");
    let [seconds, nanos] = [time.tv_sec(), time.tv_nsec()].map(|n| u64::try_from(n).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

/// Polls until `probe` gives a value.
///
/// # Panics
///
/// When that takes longer than a minute.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, pause: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(pause);
    }
}

/// Sends a signal; a process that is gone is fine.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Tells whether a pid is taken, by a zombie too.
pub(crate) fn is_there(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None).is_ok())
}

/// Kills every process that executes `executable`, until several looks find none: a brain
/// whose keeper was killed starts another one, which a single look can miss.
pub(crate) fn kill_all_of(executable: &Path) {
    let mut empty_looks = 0;
    for _ in 0..100 {
        let pids = pids();
        let ours: Vec<u32> = pids
            .into_iter()
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == executable)
            })
            .collect();
        empty_looks = if ours.is_empty() { empty_looks + 1 } else { 0 };
        if empty_looks == 3 {
            return;
        }
        for pid in ours {
            signal(pid, Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Memory of one process, KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Its share of everything that it maps.
    pub(crate) pss: f64,
    /// What belongs to it alone and is no file's: this is what its end would free.
    pub(crate) private: f64,
}

pub(crate) fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(f64::NAN)
    };
    Memory { pss: field("Pss:"), private: field("Private_Dirty:") }
}

/// What the threads of some processes have done so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    pub(crate) switches: u64,
    pub(crate) cpu_nanos: u64,
}

/// Sums over all threads of `pids`; threads that have ended are forgotten.
pub(crate) fn work(pids: &[u32]) -> Work {
    let mut sum = Work::default();
    for pid in pids {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let number =
                |line: &str| line.rsplit('\t').next().and_then(|n| n.trim().parse::<u64>().ok());
            let switches = status.lines().filter(|line| line.contains("_ctxt_switches:"));
            sum.switches += switches.filter_map(number).sum::<u64>();
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanos = stat.split(' ').next().and_then(|text| text.parse::<u64>().ok());
            sum.cpu_nanos += nanos.unwrap_or(0);
        }
    }
    sum
}
