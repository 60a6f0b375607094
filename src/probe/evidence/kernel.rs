//! What lines of the kernel's log say of one process; pure.

use std::time::Duration;

use crate::os::kmsg::Record;

/// A thread that crashes is named by its own number: then its name and the moment must do.
const SAME_MOMENT: Duration = Duration::from_secs(5);

/// What the kernel has said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Words {
    /// The line on a segmentation fault or another trap.
    pub(super) fault: Option<String>,
    /// It was killed because the host had no memory left.
    pub(super) host_oom: bool,
    /// How often it was killed because a control group had none left.
    pub(super) group_oom_kills: u64,
    /// It was ended for a forbidden system call.
    pub(super) seccomp: bool,
}

/// Whether a line may be about the end of a process.
pub(super) fn matters(line: &str) -> bool {
    ["]: segfault at ", "traps: ", "Killed process ", "type=1326 "]
        .iter()
        .any(|mark| line.contains(mark))
}

/// Whether the kernel's log uses the same numbers for processes as `/proc` does here.
pub(super) fn numbers_are_ours() -> bool {
    // The inode of the first namespace of all is fixed in the kernel.
    const FIRST: &str = "pid:[4026531836]";
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == FIRST)
}

/// Finds what is about the process `pid`, called `command`, which failed at this time since boot.
pub(super) fn interpret(
    records: &[Record],
    pid: Option<u32>,
    command: Option<&str>,
    failed: Duration,
) -> Words {
    let mut words = Words::default();
    for Record { at, text } in records {
        if let Some((name, number)) = trapped(text) {
            let same = Some(number) == pid;
            let near = *at + SAME_MOMENT >= failed && *at <= failed + SAME_MOMENT;
            if same || (near && command == Some(name)) {
                words.fault = Some(text.clone());
            }
        } else if let Some((number, in_group)) = killed(text) {
            if Some(number) == pid {
                words.host_oom |= !in_group;
                words.group_oom_kills += u64::from(in_group);
            }
        } else if text.contains("type=1326 ") {
            words.seccomp |= pid.is_some() && audited(text) == pid;
        }
    }
    words
}

/// Reads `web[4711]: segfault at …` and `traps: web[4711] general protection …`.
fn trapped(line: &str) -> Option<(&str, u32)> {
    let line = line.trim_start();
    let named = |head: &'_ str| {
        let (name, number) = head.rsplit_once('[')?;
        Some((name.len(), number.parse().ok()?))
    };
    let (rest, mark) = match line.strip_prefix("traps: ") {
        Some(rest) => (rest, "] "),
        None => (line, "]: segfault at "),
    };
    // A name may contain brackets.
    let mut ends = rest.match_indices(mark).map(|(end, _)| end);
    let (name, number) = ends.find_map(|end| named(&rest[..end]))?;
    Some((&rest[..name], number))
}

/// Reads `Out of memory: Killed process 4711 (web) …`; whether it was for a group's limit.
fn killed(line: &str) -> Option<(u32, bool)> {
    let (why, rest) = line.split_once("Killed process ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((rest[..digits].parse().ok()?, why.contains("cgroup")))
}

/// Reads `… pid=4711 comm="web" …`; what the process itself has named comes later.
fn audited(line: &str) -> Option<u32> {
    line.split(' ').find_map(|field| field.strip_prefix("pid="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAILED: Duration = Duration::from_secs(100);

    fn interpreted(lines: &[&str]) -> Words {
        let record = |line: &&str| Record { at: FAILED, text: (*line).to_owned() };
        let records: Vec<Record> = lines.iter().map(record).collect();
        assert!(records.iter().all(|record| matters(&record.text)), "{lines:?}");
        interpret(&records, Some(4711), Some("web"), FAILED)
    }

    #[test]
    fn faults_are_found_by_number_or_by_name_and_moment() {
        let line = "web[4711]: segfault at 0 ip 000055d0 sp 00007ffd error 4 in web[55d0+1000]";
        assert_eq!(interpreted(&[line]).fault.as_deref(), Some(line));
        let trap = "traps: we[b] x[4711] general protection fault ip:7f sp:7f error:0 in libc";
        assert_eq!(interpreted(&[trap]).fault.as_deref(), Some(trap));
        let thread = "web[4720]: segfault at 0 ip 1 sp 2 error 4";
        assert_eq!(interpreted(&[thread]).fault.as_deref(), Some(thread));
        let other = "db[4720]: segfault at 0 ip 1 sp 2 error 4";
        assert_eq!(interpreted(&[other]), Words::default());
        let early = Record { at: Duration::from_secs(50), text: thread.to_owned() };
        assert_eq!(interpret(&[early], Some(4711), Some("web"), FAILED), Words::default());
    }

    #[test]
    fn kills_for_memory_are_the_hosts_or_a_groups() {
        let host = "Out of memory: Killed process 4711 (web) total-vm:1kB, anon-rss:1kB";
        assert!(interpreted(&[host]).host_oom);
        let group = "Memory cgroup out of memory: Killed process 4711 (web) total-vm:1kB";
        assert_eq!(interpreted(&[group, group]), Words { group_oom_kills: 2, ..Words::default() });
        let other = "Out of memory: Killed process 47110 (web) total-vm:1kB";
        assert_eq!(interpreted(&[other]), Words::default());
    }

    #[test]
    fn a_forbidden_system_call_is_found_in_the_audit() {
        let line = "audit: type=1326 audit(1700000000.1:2): auid=0 uid=0 gid=0 ses=1 pid=4711 \
                    comm=\"web\" exe=\"/bin/web\" sig=31 arch=c000003e syscall=41";
        assert!(interpreted(&[line]).seccomp);
        assert!(!interpreted(&[&line.replace("4711", "4712")]).seccomp);
        let unknown = [Record { at: FAILED, text: line.replace("pid=4711 ", "") }];
        assert!(!interpret(&unknown, None, None, FAILED).seccomp);
    }

    proptest! {
        #[test]
        fn no_line_panics(text in "(traps: |web|\\[|\\]|: segfault at |Killed process |type=1326 |pid=|[0-9 ]|ä){0,12}") {
            let records = [Record { at: FAILED, text }];
            interpret(&records, Some(1), Some("web"), FAILED);
        }
    }
}
