//! How much processor time is in use, on the average of some time.
//!
//! The kernel counts time and not shares, so earlier readings are needed: they are in a
//! [`Past`], which its owner keeps from one look to the next. Until the readings reach back far
//! enough there is nothing to judge, and the check passes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use super::finding::{Finding, Unit, measured};
use super::memory::members;
use super::{Subject, words};
use crate::config::CpuLook;
use crate::core::text;
use crate::os::{clock, group_usage, proc, usage};
use crate::time::Instant;

/// Into so many parts the time of an average is cut; at most two readings are kept of each.
const PARTS: u32 = 60;

/// Earlier readings of one check of one target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    of: Option<Whom>,
    /// The oldest first.
    readings: VecDeque<Reading>,
}

/// Whose time it is: another run is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    Host,
    Group(PathBuf),
    /// Its pid, and since when it lives.
    Tree(u32, u64),
}

/// Processor time used up to a moment. Of the host: as a share of all its processors' time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    at: Instant,
    seconds: f64,
}

pub(super) async fn look(look: &CpuLook, subject: &Subject, past: &mut Past) -> Finding {
    let whose = subject.clone();
    match super::blocking(move || read(&whose)).await {
        Ok((whom, seconds)) => {
            past.add(whom, Reading { at: clock::now(), seconds }, look.lasting);
            judge(look, subject, past)
        }
        Err(finding) => finding,
    }
}

fn read(subject: &Subject) -> Result<(Whom, f64), Finding> {
    let process = match subject {
        Subject::Host => {
            let cpu = usage::host_cpu().map_err(|error| {
                let why = words::error(&error);
                Finding::unknown(format!("the processor time of the host is not known: {why}"))
            })?;
            return Ok((Whom::Host, proc::seconds(cpu.busy) / f64::from(cpu.processors)));
        }
        Subject::Process(process) => process,
    };
    if let Some(group) = &process.group
        && let Some(time) = group_usage::cpu(group)
    {
        return Ok((Whom::Group(group.clone()), time.as_secs_f64()));
    }
    let born = proc::stat(process.pid).map_or(0, |stat| stat.starttime);
    let time: f64 = members(process)?.into_iter().filter_map(proc::cpu_seconds).sum();
    Ok((Whom::Tree(process.pid, born), time))
}

impl Past {
    fn add(&mut self, whom: Whom, reading: Reading, lasting: Duration) {
        if self.of.as_ref() != Some(&whom) {
            *self = Self { of: Some(whom), readings: VecDeque::new() };
        }
        let step = lasting / PARTS;
        // The last but one decides: the newest is always kept, those between only if they are
        // far enough apart.
        let before = self.readings.len().checked_sub(2).and_then(|index| self.readings.get(index));
        if before.is_some_and(|before| reading.at.since(before.at) < step) {
            self.readings.pop_back();
        }
        self.readings.push_back(reading);
        // Of those that are older than the time, the newest is where the average begins.
        while self.readings.get(1).is_some_and(|next| reading.at.since(next.at) >= lasting) {
            self.readings.pop_front();
        }
    }

    /// Returns over which time and how much of it was used, in percent.
    fn average(&self) -> Option<(Duration, f64)> {
        let (first, last) = (self.readings.front()?, self.readings.back()?);
        let time = last.at.since(first.at);
        let used = (last.seconds - first.seconds).max(0.0);
        (!time.is_zero()).then(|| (time, used * 100.0 / time.as_secs_f64()))
    }
}

fn judge(look: &CpuLook, subject: &Subject, past: &Past) -> Finding {
    let (what, of) = match subject {
        Subject::Host => ("processor time of the host", "of all its CPUs"),
        Subject::Process(_) => ("processor time", "of a CPU"),
    };
    let Some((time, percent)) = past.average() else {
        return Finding::pass(format!("{what} is known from the next look on"));
    };
    let shown = words::percent(percent);
    let sentence = format!("{what} {shown} {of} over {}", text::duration(time));
    // Checks do not run on the dot.
    let finding = if time.saturating_mul(10) < look.lasting.saturating_mul(9) {
        Finding::pass(sentence)
    } else {
        let level = look.percent.of_most(percent);
        measured(level, &look.percent, sentence, what, shown, words::percent)
    };
    finding.with_sample(percent, Unit::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bounds;
    use crate::core::care::Verdict;

    const LASTING: Duration = Duration::from_secs(60);
    const LOOK: CpuLook =
        CpuLook { percent: Bounds { warn: Some(50.0), fail: Some(90.0) }, lasting: LASTING };

    /// Adds a reading every ten seconds that uses this share of them; returns the last verdict.
    fn run(past: &mut Past, from: u64, shares: &[f64]) -> Vec<Verdict> {
        let mut seconds = past.readings.back().map_or(0.0, |reading| reading.seconds);
        let mut verdicts = Vec::new();
        for (index, share) in shares.iter().enumerate() {
            seconds += share * 10.0;
            let at = Instant::from_nanos((from + index as u64 * 10) * 1_000_000_000);
            past.add(Whom::Host, Reading { at, seconds }, LASTING);
            verdicts.push(judge(&LOOK, &Subject::Host, past).verdict);
        }
        verdicts
    }

    #[test]
    fn nothing_is_judged_before_the_average_has_its_time() {
        use Verdict::{Fail, Pass};
        let mut past = Past::default();
        let verdicts = run(&mut past, 100, &[1.0; 8]);
        assert_eq!(verdicts, [Pass, Pass, Pass, Pass, Pass, Pass, Fail, Fail]);
    }

    #[test]
    fn a_short_burst_is_averaged_away_and_a_long_one_is_not() {
        let mut past = Past::default();
        run(&mut past, 100, &[0.0; 10]);
        let burst = run(&mut past, 200, &[1.0, 1.0, 0.0, 0.0]);
        assert_eq!(burst, [Verdict::Pass; 4]);
        let long = run(&mut past, 240, &[1.0; 8]);
        assert_eq!(long.last(), Some(&Verdict::Fail));
        let average = past.average().unwrap();
        assert_eq!((average.0, average.1.round()), (LASTING, 100.0));
    }

    #[test]
    fn rare_looks_compare_with_the_one_before_and_many_are_thinned_out() {
        let mut past = Past::default();
        let at = |second: u64| Instant::from_nanos(second * 1_000_000_000);
        past.add(Whom::Host, Reading { at: at(0), seconds: 0.0 }, LASTING);
        past.add(Whom::Host, Reading { at: at(300), seconds: 290.0 }, LASTING);
        let finding = judge(&LOOK, &Subject::Host, &past);
        assert_eq!(finding.verdict, Verdict::Fail);
        let sentence = "processor time of the host 97 % of all its CPUs over 5 min (limit 90 %)";
        assert_eq!(finding.sentence, sentence);
        for tenth in 0..6_000_u64 {
            let reading =
                Reading { at: Instant::from_nanos((4_000 + tenth) * 100_000_000), seconds: 300.0 };
            past.add(Whom::Host, reading, LASTING);
        }
        assert!(past.readings.len() <= 2 * PARTS as usize + 2, "{} readings", past.readings.len());
        assert!(past.average().unwrap().0 >= LASTING);
    }

    #[test]
    fn another_run_begins_anew() {
        let mut past = Past::default();
        let reading = |second: u64, seconds| Reading {
            at: Instant::from_nanos(second * 1_000_000_000),
            seconds,
        };
        past.add(Whom::Tree(7, 1), reading(0, 900.0), LASTING);
        past.add(Whom::Tree(7, 2), reading(100, 1.0), LASTING);
        assert_eq!((past.readings.len(), past.average()), (1, None));
    }

    #[test]
    fn the_time_of_this_process_and_of_the_host_can_be_read() {
        assert!(read(&Subject::Host).unwrap().1 > 0.0);
        let own = super::super::ProcessSubject::new(std::process::id());
        assert!(matches!(read(&Subject::Process(own)), Ok((Whom::Tree(..), _))));
    }
}
