//! What a process uses of the machine now.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Memory and processor time of one process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Resident set size in bytes.
    pub memory_bytes: u64,
    /// User and system time since its start, in seconds.
    pub cpu_seconds: f64,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_lives_uses_memory_and_one_that_does_not_is_left_out() {
        let own = std::process::id();
        let found = usage(&[own, u32::MAX >> 1]);
        assert_eq!(found.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [own]);
        assert!(found[0].1.memory_bytes > 100_000, "{found:?}");
    }
}
