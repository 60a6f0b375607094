//! Cheap readers of `/proc`. Every answer may be stale at once: a process that vanishes while
//! it is read is simply not there.

use std::fs;
use std::io::Read;

/// What `/proc/PID/stat` says, as far as it is needed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub pid: u32,
    /// The command name, at most 15 bytes.
    pub comm: String,
    /// `R`, `S`, `D`, `T`, `Z`, …
    pub state: char,
    pub ppid: u32,
    pub pgid: u32,
    pub sid: u32,
    /// Clock ticks (10 ms as a rule) since boot.
    pub starttime: u64,
    /// Wait status of a zombie; `None` where the kernel hides it.
    pub exit_code: Option<i32>,
}

impl Stat {
    /// Tells whether the process has ended and only waits to be reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Parses the line of `/proc/PID/stat`; the command may contain any byte, `)` and spaces too.
pub fn parse_stat(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
    let comm = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Field n of proc(5) is at n - 3: the first two are already taken.
    let field = |number: usize| fields.get(number - 3).copied();
    let state = field(3)?.chars().next()?;
    // A session or group of another pid namespace is shown as 0 or -1.
    let id =
        |number: usize| field(number)?.parse::<i64>().ok().map(|id| u32::try_from(id).unwrap_or(0));
    Some(Stat {
        pid,
        comm,
        state,
        ppid: id(4)?,
        pgid: id(5)?,
        sid: id(6)?,
        starttime: field(22)?.parse().ok()?,
        exit_code: field(52)
            .and_then(|code| code.parse().ok())
            .filter(|_| matches!(state, 'Z' | 'X' | 'x')),
    })
}

fn read(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    fs::File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Returns what is known of `pid` now, `None` when it does not exist.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read(&format!("/proc/{pid}/stat"))?)
}

/// Returns the processor time that a process has used, and those of its children that it has
/// waited for, in seconds.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    parse_ticks(&read(&format!("/proc/{pid}/stat"))?).map(seconds)
}

/// Returns the seconds of so many clock ticks, as `/proc` counts them.
#[expect(clippy::cast_precision_loss, reason = "52 bits of ticks are a million years")]
pub fn seconds(ticks: u64) -> f64 {
    // USER_HZ is part of the kernel's promise to programs and the same on all machines.
    const TICKS_PER_SECOND: f64 = 100.0;
    ticks as f64 / TICKS_PER_SECOND
}

/// Adds up `utime`, `stime`, `cutime` and `cstime`.
fn parse_ticks(line: &[u8]) -> Option<u64> {
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let fields = rest.split_ascii_whitespace().skip(14 - 3).take(4);
    let ticks: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    (ticks.len() == 4).then(|| ticks.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks)))
}

/// Returns whether a process is in the middle of `execve`: it has memory, but its new
/// environment is not in place (field 51 of its stat line, `env_end`, is zero).
///
/// Only for processes of the same user, or as root: for others the field is always zero.
pub fn is_executing(pid: u32) -> bool {
    let Ok(line) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // What follows the command, whose name may contain anything, begins with field 3.
    let Some((_, rest)) = line.rsplit_once(')') else { return false };
    let field = |number: usize| rest.split_whitespace().nth(number - 3);
    let is_kernel_thread = field(4) == Some("2") || pid == 2;
    !is_kernel_thread && field(51) == Some("0")
}

/// Returns every pid there is, in no promised order.
pub fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the state of every process; one pass, so forks during it may be missed.
pub fn all_stats() -> Vec<Stat> {
    all_pids().into_iter().filter_map(stat).collect()
}

/// Returns the children of all threads of `pid`, zombies included.
///
/// Kernels without `CONFIG_PROC_CHILDREN` cost a scan of all of `/proc`.
pub fn children(pid: u32) -> Vec<u32> {
    match children_of_threads(pid) {
        Some(children) => children,
        None => {
            all_stats().into_iter().filter(|stat| stat.ppid == pid).map(|stat| stat.pid).collect()
        }
    }
}

/// `None` when the kernel does not offer the file.
fn children_of_threads(pid: u32) -> Option<Vec<u32>> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Some(Vec::new()) };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(line) => {
                found.extend(line.split_ascii_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            Err(_) if thread.path().join("stat").exists() => return None,
            Err(_) => {} // The thread is gone.
        }
    }
    Some(found)
}

/// Returns the value of a variable in the environment that `pid` was executed with.
///
/// `None` as well when the process may not be read or has overwritten its environment.
pub fn environment_value(pid: u32, name: &str) -> Option<String> {
    value_in(&environment(pid)?, name)
}

/// Returns the raw environment of `pid`: `NAME=value` entries, each ended by a zero byte.
pub fn environment(pid: u32) -> Option<Vec<u8>> {
    read(&format!("/proc/{pid}/environ"))
}

/// Finds a variable in what [`environment`] returned.
pub fn value_in(environment: &[u8], name: &str) -> Option<String> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Returns the run that the marker `MEND_RUN` in the environment of `pid` names.
pub fn run_marker(pid: u32) -> Option<u64> {
    environment_value(pid, "MEND_RUN")?.parse().ok()
}

/// Returns the command name, at most 15 bytes.
pub fn comm(pid: u32) -> Option<String> {
    let name = read(&format!("/proc/{pid}/comm"))?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// Returns the arguments, empty for a zombie or a kernel thread.
pub fn cmdline(pid: u32) -> Option<Vec<String>> {
    let bytes = read(&format!("/proc/{pid}/cmdline"))?;
    let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    if text.is_empty() {
        return Some(Vec::new());
    }
    Some(
        text.split(|byte| *byte == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect(),
    )
}

/// Returns the identity of this boot, `None` without `/proc`.
pub fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_command_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = b"7 (a) Z (b c) S 1 2 3 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.pid, stat.comm.as_str(), stat.state), (7, "a) Z (b c", 'S'));
        assert_eq!((stat.ppid, stat.pgid, stat.sid, stat.starttime), (1, 2, 3, 4711));
    }

    #[test]
    fn the_time_of_a_process_is_its_own_and_that_of_its_children() {
        let line = b"7 (a) 1 (b) S 1 2 3 0 -1 4 0 0 0 0 150 20 7 3 20 0 1 0 4711 0 0";
        assert_eq!(parse_ticks(line).map(seconds), Some(1.8));
        assert_eq!(parse_ticks(&line[..40]), None);
        assert!(cpu_seconds(std::process::id()).is_some());
    }

    #[test]
    fn a_torn_line_is_no_process() {
        let whole = b"7 (x) S 1 2 3 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711";
        for length in 0..whole.len() - 4 {
            assert_eq!(parse_stat(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_living_child_is_found_with_its_marker_and_a_dead_one_with_its_status() {
        let own = std::process::id();
        let mut child =
            Command::new("sleep").arg("600").env("MEND_RUN", "4242424242").spawn().unwrap();
        assert!(children(own).contains(&child.id()));
        assert!(all_pids().contains(&child.id()));
        assert_eq!(stat(child.id()).unwrap().ppid, own);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // The environment is empty for a moment while the program is being executed.
        while run_marker(child.id()) != Some(4_242_424_242) {
            assert!(std::time::Instant::now() < deadline, "the marker does not show");
            std::thread::yield_now();
        }
        assert_eq!(comm(child.id()).unwrap(), "sleep");
        assert_eq!(cmdline(child.id()).unwrap(), ["sleep", "600"]);
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !stat(child.id()).unwrap().is_dead() {
            assert!(std::time::Instant::now() < deadline, "the child does not die");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(stat(child.id()), None);
        assert!(boot_id().is_some_and(|id| id.len() == 36));
    }
}
