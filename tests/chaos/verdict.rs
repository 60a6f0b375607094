//! The account at the end: what the programs say they did against what Mend kept and told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use mendd::api::view::{ExitView, ProcessView};

use crate::blows::Gap;
use crate::operator::Told;

/// One run as its program tells it.
#[derive(Debug, Clone)]
struct Truth {
    program: String,
    started: f64,
    /// Lines whose write has returned.
    written: u64,
    /// When it last wrote, at least.
    last_seen: f64,
    /// How it meant to end, and when; `None` for one that was killed.
    end: Option<(String, f64)>,
}

/// What a gap excuses.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Runs that ended in a gap and lost the end of their output.
    pub(crate) tails: u64,
    pub(crate) unknown: u64,
}

/// What was counted. All but `runs`, `lines`, `statuses` and what is `in_gaps` must be 0.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) runs: usize,
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    pub(crate) statuses: usize,
    /// What was lost while both were dead.
    pub(crate) of_both: Losses,
    /// What was lost while one was killed before the death of the other was healed.
    pub(crate) of_compound: Losses,
    /// Runs that ended and were not told in an event: a brain died between doing and telling.
    pub(crate) untold: u64,
    pub(crate) faults: Vec<String>,
}

impl Verdict {
    fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    fn losses(&mut self, gap: Gap) -> &mut Losses {
        if gap.by_one_blow { &mut self.of_both } else { &mut self.of_compound }
    }
}

/// Compares everything below `dir` with the events and the last status.
pub(crate) fn judge(
    dir: &Path,
    gaps: &[Gap],
    killed: &BTreeSet<String>,
    told: &Told,
    last: &[ProcessView],
) -> Verdict {
    let mut verdict = Verdict::default();
    let truths = read_truths(&dir.join("data"), &mut verdict);
    let mut of_program: BTreeMap<&str, Vec<(u64, &Truth)>> = BTreeMap::new();
    for (run, truth) in &truths {
        of_program.entry(&truth.program).or_default().push((*run, truth));
    }
    for (program, runs) in &of_program {
        let may_be_killed = killed.contains(*program);
        judge_log(dir, program, runs, gaps, &mut verdict);
        for (index, (run, truth)) in runs.iter().enumerate() {
            let until = runs.get(index + 1).map_or(f64::MAX, |(_, next)| next.started);
            let gap = gap_of(truth, until, gaps);
            let sentences = told.get(run).map(|(_, said)| said.as_slice()).unwrap_or_default();
            judge_told(*run, truth, sentences, may_be_killed, gap, &mut verdict);
        }
        let process = last.iter().find(|process| process.name == *program);
        // A run that was killed before its program could open its books is in nobody's ledger.
        let newest = told.iter().rev().find(|(_, (name, _))| name == program).map(|(run, _)| *run);
        if let (Some((run, truth)), Some(exit)) =
            (runs.last(), process.and_then(|process| process.exit.as_ref()))
            && newest == Some(*run)
        {
            let gap = gap_of(truth, f64::MAX, gaps);
            judge_status(*run, truth, &words_of(exit), may_be_killed, gap, &mut verdict);
        }
    }
    verdict.runs = truths.len();
    verdict
}

/// The gap in which the run may have ended while nobody held its output and its status.
fn gap_of(truth: &Truth, next_start: f64, gaps: &[Gap]) -> Option<Gap> {
    let (from, until) = match &truth.end {
        // It says so just before it ends.
        Some((_, at)) => (*at - 0.1, *at + 0.5),
        None => (truth.last_seen - 0.1, next_start),
    };
    gaps.iter().find(|gap| from <= gap.until && gap.from <= until).copied()
}

fn read_truths(data: &Path, verdict: &mut Verdict) -> BTreeMap<u64, Truth> {
    let mut truths: BTreeMap<u64, Truth> = BTreeMap::new();
    for entry in fs::read_dir(data).expect("the programs' files").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(program) = name.strip_suffix(".ledger") else { continue };
        let text = fs::read_to_string(entry.path()).expect("a ledger");
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let run: u64 = words[1].parse().expect("a run number");
            match words.as_slice() {
                ["start", _, pid, at] => {
                    let count = data.join(format!("{program}.{run}.count"));
                    let started = at.parse().expect("a time");
                    let truth = Truth {
                        program: program.to_owned(),
                        started,
                        written: read_count(&count),
                        last_seen: modified(&count).max(started),
                        end: None,
                    };
                    if truths.insert(run, truth).is_some() {
                        verdict.fault(format!("{program}: run {run} was started twice ({pid})"));
                    }
                }
                ["end", _, lines, status @ .., at] => {
                    let truth = truths.get_mut(&run).expect("a run starts before it ends");
                    truth.written = lines.parse().expect("a number");
                    truth.end = Some((status.join(" "), at.parse().expect("a time")));
                }
                other => panic!("not in a ledger: {other:?}"),
            }
        }
    }
    truths
}

fn read_count(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn modified(path: &Path) -> f64 {
    let time = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0.0, |since| since.as_secs_f64())
}

/// All segments of a program's log, oldest first.
pub(crate) fn log_bytes(dir: &Path, program: &str) -> Vec<u8> {
    let place = dir.join("logs").join(program);
    let mut closed: Vec<PathBuf> = fs::read_dir(&place)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.strip_prefix("0.stdout.")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                && name.ends_with(".log")
        })
        .collect();
    closed.sort();
    closed.push(place.join("0.stdout.log"));
    closed.iter().flat_map(|path| fs::read(path).unwrap_or_default()).collect()
}

/// Whether what follows the two numbers is exactly what the program wrote.
fn is_whole(line: &str, number: u64) -> bool {
    const MOST: &str = match str::from_utf8(&[b'x'; 120]) {
        Ok(text) => text,
        Err(_) => "",
    };
    let rest = line.splitn(3, ' ').nth(2).and_then(|rest| rest.strip_suffix('\n'));
    rest == Some(&MOST[..filling(number)])
}

/// Whether some run has written this line: a number cut off in front of another is a number too.
fn is_line(text: &str, known: &BTreeSet<u64>) -> bool {
    let mut numbers = text.splitn(3, ' ').map(|word| word.parse().ok());
    let run = numbers.next().flatten();
    let number = numbers.next().flatten();
    run.is_some_and(|run| known.contains(&run)) && number.is_some_and(|n| is_whole(text, n))
}

fn judge_log(
    dir: &Path,
    program: &str,
    runs: &[(u64, &Truth)],
    gaps: &[Gap],
    verdict: &mut Verdict,
) {
    let bytes = log_bytes(dir, program);
    let known = runs.iter().map(|(run, _)| *run).collect();
    let seen = read_log(program, &known, &bytes, verdict);
    for (index, (run, truth)) in runs.iter().enumerate() {
        let kept = seen.get(run).copied().unwrap_or_default();
        let killed_in_write = truth.end.is_none() && kept.lines == truth.written + 1;
        if !kept.torn && (kept.lines == truth.written || killed_in_write) {
            continue;
        }
        let until = runs.get(index + 1).map_or(f64::MAX, |(_, next)| next.started);
        match gap_of(truth, until, gaps) {
            // What was in the pipe is gone; the cut need not be at the end of a line.
            Some(gap) if kept.lines <= truth.written => verdict.losses(gap).tails += 1,
            _ => verdict.fault(format!("{program} run {run}: {kept:?}; it says {truth:?}")),
        }
    }
    for run in seen.keys().filter(|run| !runs.iter().any(|(known, _)| known == *run)) {
        verdict.fault(format!("{program}: lines of run {run}, which nobody was"));
    }
}

/// What a log has of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    /// Whole lines.
    lines: u64,
    /// A part of the next line follows them.
    torn: bool,
}

/// Returns the line that a run writes, with its end.
fn expected(run: u64, number: u64) -> String {
    format!("{run} {number} {}\n", "x".repeat(filling(number)))
}

fn filling(number: u64) -> usize {
    usize::try_from(20 + number * 7 % 100).expect("small")
}

/// Splits off the beginning of a line of an earlier run, before the first line of `run`.
fn split_torn<'a>(
    text: &'a str,
    known: &BTreeSet<u64>,
    seen: &BTreeMap<u64, Kept>,
) -> Option<(u64, &'a str)> {
    let (run, kept) = seen.iter().next_back()?;
    let cut = expected(*run, kept.lines + 1);
    let same = cut.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    let is_next = |rest: &str| {
        let next = rest.split(' ').next().and_then(|word| word.parse::<u64>().ok());
        rest.is_empty()
            || next.is_some_and(|next| {
                next > *run && known.contains(&next) && rest == expected(next, 1)
            })
    };
    (1..=same.min(cut.len() - 1))
        .rev()
        .map(|at| &text[at..])
        .find(|rest| is_next(rest))
        .map(|rest| (*run, rest))
}

/// Reads a log line by line; returns what it has of each run.
fn read_log(
    program: &str,
    known: &BTreeSet<u64>,
    bytes: &[u8],
    verdict: &mut Verdict,
) -> BTreeMap<u64, Kept> {
    let mut seen: BTreeMap<u64, Kept> = BTreeMap::new();
    verdict.bytes += bytes.len() as u64;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        verdict.lines += 1;
        let mut text = str::from_utf8(line).unwrap_or("not UTF-8");
        if !is_line(text, known)
            && let Some((run, rest)) = split_torn(text, known, &seen)
        {
            seen.entry(run).or_default().torn = true;
            text = rest;
            if text.is_empty() {
                continue;
            }
        }
        let mut words = text.splitn(3, ' ').map(str::parse);
        let (Some(Ok(run)), Some(Ok(number))) = (words.next(), words.next()) else {
            verdict.fault(format!("{program}: torn line {text:?}"));
            continue;
        };
        if !is_whole(text, number) {
            verdict.fault(format!("{program} run {run}: line {number} is {text:?}"));
        }
        if seen.keys().next_back().is_some_and(|newest| *newest > run) {
            verdict.fault(format!("{program} run {run}: line {number} after those of a later run"));
        }
        let kept = Kept { lines: number, torn: false };
        let before = seen.insert(run, kept).unwrap_or_default().lines;
        if number <= before {
            verdict
                .fault(format!("{program} run {run}: line {number} after line {before}: doubled"));
        } else if number > before + 1 {
            verdict.fault(format!("{program} run {run}: line {number} after line {before}: lost"));
        }
    }
    seen
}

/// Says an exit view in the words of the ledgers.
fn words_of(exit: &ExitView) -> String {
    match (exit.kind.as_str(), exit.code, exit.signal) {
        ("code", Some(code), _) => format!("code {code}"),
        ("signal", _, Some(signal)) => format!("signal {signal}"),
        _ => "unknown".to_owned(),
    }
}

/// Finds the word on an exit in the sentence of an event.
fn words_in(sentence: &str) -> Option<String> {
    if let Some((_, rest)) = sentence.split_once("exited with code ") {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        return Some(format!("code {digits}"));
    }
    if let Some((_, rest)) = sentence.split_once("killed by SIG") {
        let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
        return Some(format!("signal {}", signal as i32));
    }
    sentence.contains("nobody could see its exit status").then(|| "unknown".to_owned())
}

fn judge_told(
    run: u64,
    truth: &Truth,
    sentences: &[String],
    may_be_killed: bool,
    gap: Option<Gap>,
    verdict: &mut Verdict,
) {
    let words: BTreeSet<String> =
        sentences.iter().filter_map(|sentence| words_in(sentence)).collect();
    if words.is_empty() {
        verdict.untold += 1;
    }
    if words.len() > 1 {
        verdict.fault(format!("{} run {run}: told {words:?}", truth.program));
    }
    for words in words {
        judge_status(run, truth, &words, may_be_killed, gap, verdict);
    }
}

fn judge_status(
    run: u64,
    truth: &Truth,
    said: &str,
    may_be_killed: bool,
    gap: Option<Gap>,
    verdict: &mut Verdict,
) {
    verdict.statuses += 1;
    let is_right = match &truth.end {
        Some((status, _)) => said == status || (may_be_killed && said == "signal 9"),
        // It was killed before it could say anything; SIGTERM hits before its handler stands.
        None => said == "signal 9" || said == "signal 15",
    };
    if is_right {
        return;
    }
    if said == "unknown"
        && let Some(gap) = gap
    {
        verdict.losses(gap).unknown += 1;
        return;
    }
    verdict.fault(format!("{} run {run}: told `{said}`; it says {truth:?}", truth.program));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (BTreeMap<u64, Kept>, Vec<String>) {
        let mut verdict = Verdict::default();
        let known = [3, 4, 7, 9, 97].into();
        let seen = read_log("p", &known, text.as_bytes(), &mut verdict);
        (seen, verdict.faults)
    }

    fn lines(run: u64, numbers: std::ops::RangeInclusive<u64>) -> String {
        numbers.map(|number| expected(run, number)).collect()
    }

    #[test]
    fn whole_runs_are_kept_and_without_fault() {
        let (seen, faults) = read(&(lines(7, 1..=300) + &lines(9, 1..=2)));
        assert_eq!((seen[&7].lines, seen[&9].lines, faults), (300, 2, Vec::new()));
        assert!(!seen[&7].torn && !seen[&9].torn);
    }

    #[test]
    fn every_cut_in_a_line_is_told_from_the_run_that_follows() {
        let cut = expected(9, 18);
        for at in 1..cut.len() {
            let (seen, faults) = read(&(lines(9, 1..=17) + &cut[..at] + &lines(97, 1..=3)));
            assert_eq!(faults, Vec::<String>::new(), "cut at {at}");
            assert!(seen[&9].torn && seen[&9].lines == 17 && seen[&97].lines == 3, "cut at {at}");
            let (seen, _) = read(&(lines(9, 1..=17) + &cut[..at]));
            assert!(seen[&9].torn && seen[&9].lines == 17, "cut at {at}");
        }
    }

    #[test]
    fn a_byte_that_is_lost_doubled_or_changed_is_a_fault() {
        let good = lines(3, 1..=40) + &lines(4, 1..=40);
        for at in [1, 30, 700, good.len() / 2 + 60] {
            let (before, after) = good.split_at(at);
            for bad in [
                format!("{before}{}", &after[1..]),
                format!("{before}{}{after}", &after[..1]),
                format!("{before}#{}", &after[1..]),
            ] {
                assert_ne!(read(&bad).1, Vec::<String>::new(), "at {at}");
            }
        }
    }
}
