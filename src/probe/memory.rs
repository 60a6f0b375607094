//! How much memory and how many open files are in use, of a process's tree or of the host.

use super::finding::{Finding, Unit, measured};
use super::{ProcessSubject, Subject, words};
use crate::config::{Amount, Bounds, FdsLook, MemoryLook};
use crate::os::usage::{self, Descriptors};
use crate::os::{group_usage, proc};

/// Memory in use, and what it is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    used: u64,
    whole: u64,
}

pub(super) fn look(look: &MemoryLook, subject: &Subject) -> Result<Finding, Finding> {
    let unknown = || Finding::unknown("the memory of the host is not known");
    let host = usage::host_memory().ok_or_else(unknown)?;
    let used = host.total_bytes.saturating_sub(host.available_bytes);
    let memory = match subject {
        Subject::Host => Memory { used, whole: host.total_bytes },
        Subject::Process(process) => of_process(process, host.total_bytes)?,
    };
    Ok(judge(memory, &look.used, subject))
}

fn of_process(process: &ProcessSubject, host_bytes: u64) -> Result<Memory, Finding> {
    let group = process.group.as_deref().and_then(group_usage::memory);
    let group_limit = group.and_then(|group| group.limit_bytes);
    let limits = [process.memory_limit, group_limit, Some(host_bytes)];
    let whole = limits.into_iter().flatten().min().unwrap_or(host_bytes);
    match group {
        Some(group) => Ok(Memory { used: group.used_bytes, whole }),
        None => {
            let used = usage::memory(&members(process)?);
            // Every process has some, if it may be looked at.
            match used {
                0 => {
                    Err(Finding::unknown(format!("the memory of pid {} is not known", process.pid)))
                }
                used => Ok(Memory { used, whole }),
            }
        }
    }
}

/// Returns the processes that belong to a process.
pub(super) fn members(process: &ProcessSubject) -> Result<Vec<u32>, Finding> {
    let found = usage::tree(process.pid);
    match found.is_empty() {
        true => Err(Finding::unknown(format!("pid {} is gone", process.pid))),
        false => Ok(found),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sample needs no more than 52 bits")]
fn judge(memory: Memory, bounds: &Bounds<Amount>, subject: &Subject) -> Finding {
    let Memory { used, whole } = memory;
    let level = bounds.in_bytes(whole).of_most(used);
    let share = words::percent(words::share(used, whole));
    let (amount, of) = (words::bytes(used), words::bytes(whole));
    let what = match subject {
        Subject::Host => "memory of the host",
        Subject::Process(_) => "memory",
    };
    let sentence = format!("{what} {amount} of {of}, {share}");
    let value = format!("{amount} ({share})");
    let finding = measured(level, bounds, sentence, what, value, written);
    finding.with_sample(used as f64, Unit::Bytes)
}

/// Writes a bound as it is configured.
pub(super) fn written(amount: Amount) -> String {
    match amount {
        Amount::Bytes(bytes) => words::bytes(bytes),
        Amount::Percent(percent) => words::percent(percent),
    }
}

pub(super) fn look_fds(look: &FdsLook, subject: &Subject) -> Result<Finding, Finding> {
    let (found, what) = match subject {
        Subject::Host => {
            let found = usage::host_descriptors().map_err(|error| {
                let why = words::error(&error);
                Finding::unknown(format!("the open files of the host are not known: {why}"))
            });
            (found?, "open files of the host".to_owned())
        }
        Subject::Process(process) => {
            let (pid, found) = fullest(process)?;
            let name = proc::comm(pid).filter(|_| pid != process.pid);
            let of = |name: String| format!(" of `{}` (pid {pid})", words::shown(&name));
            (found, format!("open files{}", name.map_or_else(String::new, of)))
        }
    };
    Ok(judge_fds(found, &look.percent, &what))
}

/// Returns the process of a tree that is closest to its own limit.
pub(super) fn fullest(process: &ProcessSubject) -> Result<(u32, Descriptors), Finding> {
    let mut fullest: Option<(f64, u32, Descriptors)> = None;
    let mut refusal = None;
    for pid in members(process)? {
        match usage::descriptors(pid) {
            Ok(found) => {
                let share = found.limit.map_or(0.0, |limit| words::share(found.used, limit));
                if fullest.is_none_or(|(most, ..)| share > most) {
                    fullest = Some((share, pid, found));
                }
            }
            Err(error) => refusal = Some(error),
        }
    }
    match (fullest, refusal) {
        (Some((_, pid, found)), _) => Ok((pid, found)),
        (None, Some(error)) => {
            let (pid, why) = (process.pid, words::error(&error));
            Err(Finding::unknown(format!("the open files of pid {pid} are not known: {why}")))
        }
        (None, None) => Err(Finding::unknown(format!("pid {} is gone", process.pid))),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sample needs no more than 52 bits")]
fn judge_fds(found: Descriptors, bounds: &Bounds<f64>, what: &str) -> Finding {
    let Descriptors { used, limit } = found;
    let finding = match limit {
        Some(limit) => {
            let share = words::share(used, limit);
            let level = bounds.of_most(share);
            let percent = words::percent(share);
            let sentence = format!("{what} {used} of {limit}, {percent}");
            measured(level, bounds, sentence, what, percent, words::percent)
        }
        None => Finding::pass(format!("{what} {used}, without a limit")),
    };
    finding.with_sample(used as f64, Unit::Count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::care::Verdict;

    #[test]
    fn memory_is_told_with_its_limit_and_share() {
        let memory = Memory { used: 812 << 20, whole: 1 << 30 };
        let at = |warn, fail| {
            let bounds = Bounds { warn: Some(Amount::Percent(warn)), fail: Some(fail) };
            judge(memory, &bounds, &Subject::Host)
        };
        let good = at(90.0, Amount::Percent(95.0));
        assert_eq!(good.verdict, Verdict::Pass);
        assert_eq!(good.sentence, "memory of the host 812 MiB of 1 GiB, 79 %");
        assert_eq!(at(75.0, Amount::Percent(95.0)).verdict, Verdict::Warn);
        let bad = at(50.0, Amount::Bytes(800 << 20));
        assert_eq!(bad.verdict, Verdict::Fail);
        assert_eq!(bad.sentence, "memory of the host 812 MiB of 1 GiB, 79 % (limit 800 MiB)");
    }

    #[test]
    fn open_files_count_against_their_limit_if_there_is_one() {
        let bounds = Bounds { warn: Some(80.0), fail: None };
        let half = Descriptors { used: 900, limit: Some(1000) };
        let finding = judge_fds(half, &bounds, "open files");
        assert_eq!(finding.verdict, Verdict::Warn);
        assert_eq!(finding.sentence, "open files 900 of 1000, 90 % (limit 80 %)");
        let free = Descriptors { used: 900, limit: None };
        assert_eq!(judge_fds(free, &bounds, "open files").verdict, Verdict::Pass);
    }
}
