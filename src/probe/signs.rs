//! Signs of life that a process gives by itself: its output and its heartbeat.
//!
//! These checks ask nobody. What they judge comes from their supervisor, as part of a
//! [`ProcessSubject`](super::ProcessSubject): how long ago the last output was, or the start
//! where there was none; how long ago the last `WATCHDOG=1` was, or the start; how many lines
//! have matched, as counted by a [`MatchCounter`] that has seen every line of the run.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use regex::bytes::Regex;

use super::finding::{Finding, Unit, measured};
use super::{file, words};
use crate::config::{HeartbeatLook, LogLook, SilenceLook};
use crate::core::text;
use crate::time::Instant;

/// Counts the lines of output that match a pattern within a time.
///
/// It remembers no more matches than its check's bounds ask for, so a storm of them costs
/// nothing but the look at each line.
#[derive(Debug)]
pub struct MatchCounter {
    pattern: Regex,
    within: Duration,
    most: usize,
    /// When the newest lines matched, the oldest first.
    matches: VecDeque<Instant>,
}

impl MatchCounter {
    /// Makes a counter for one run of a process.
    ///
    /// # Errors
    ///
    /// When the pattern is not a regular expression, which no checked configuration has.
    pub fn new(look: &LogLook) -> Result<Self, regex::Error> {
        let most = look.count.warn.unwrap_or(0).max(look.count.fail.unwrap_or(0));
        Ok(Self {
            pattern: Regex::new(&look.pattern)?,
            within: look.within,
            most: usize::try_from(most).unwrap_or(usize::MAX).max(1),
            matches: VecDeque::new(),
        })
    }

    /// Looks at a line without its end, which was written at this time; times do not go back.
    pub fn see(&mut self, line: &[u8], at: Instant) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !self.pattern.is_match(line) {
            return;
        }
        if self.matches.len() >= self.most {
            self.matches.pop_front();
        }
        self.matches.push_back(at);
    }

    /// Returns how many lines have matched of late, at most as many as matter.
    pub fn count(&mut self, now: Instant) -> u32 {
        while self.matches.front().is_some_and(|at| now.since(*at) > self.within) {
            self.matches.pop_front();
        }
        u32::try_from(self.matches.len()).unwrap_or(u32::MAX)
    }
}

pub(super) fn look_log(look: &LogLook, count: u32) -> Finding {
    let LogLook { pattern, count: bounds, within } = look;
    let most = bounds.warn.max(bounds.fail).unwrap_or(0);
    // More than that are not counted.
    let shown =
        if count >= most && count > 0 { format!("{count} or more") } else { count.to_string() };
    let time = text::duration(*within);
    let sentence = format!("{shown} lines of the last {time} match `{}`", words::shown(pattern));
    let what = format!("the number of lines that match `{}` within {time}", words::shown(pattern));
    let level = bounds.of_most(count);
    let finding = measured(level, bounds, sentence, &what, shown, |bound| bound.to_string());
    finding.with_sample(f64::from(count), Unit::Count)
}

pub(super) fn look_silence(look: &SilenceLook, quiet_for: Duration) -> Finding {
    let level = look.longest.of_most(quiet_for);
    let time = text::duration(quiet_for);
    let sentence = format!("no output for {time}");
    let what = "the time without output";
    let finding = measured(level, &look.longest, sentence, what, time, text::duration);
    finding.with_sample(quiet_for.as_secs_f64(), Unit::Seconds)
}

/// Looks at the heartbeat: a file's, or how long ago the notification socket heard it.
pub(super) async fn look_heartbeat(
    look: &HeartbeatLook,
    watchdog_age: Option<Duration>,
) -> Finding {
    let age = match (&look.file, watchdog_age) {
        (Some(path), _) => match file::age(path).await {
            Ok(Ok(age)) => age,
            Ok(Err(error)) => return no_heartbeat(&path.display().to_string(), &error),
            Err(finding) => return finding,
        },
        (None, Some(age)) => age,
        (None, None) => {
            return Finding::unknown("the host has no notification socket of its own");
        }
    };
    judge_heartbeat(look, age)
}

fn no_heartbeat(path: &str, error: &io::Error) -> Finding {
    match error.kind() == io::ErrorKind::NotFound {
        true => Finding::new(
            super::Verdict::Fail,
            format!("the file of its heartbeat, `{path}`, does not exist"),
        ),
        false => Finding::unknown(format!("cannot look at `{path}`: {}", words::error(error))),
    }
}

fn judge_heartbeat(look: &HeartbeatLook, age: Duration) -> Finding {
    let (time, within) = (text::duration(age), text::duration(look.within));
    let sign = match &look.file {
        Some(path) => format!("`{}` was written", path.display()),
        None => "`WATCHDOG=1` came".to_owned(),
    };
    let finding = match age > look.within {
        false => Finding::pass(format!("{sign} {time} ago")),
        true => Finding::new(
            super::Verdict::Fail,
            format!("{sign} {time} ago, and {within} are allowed"),
        ),
    };
    finding.with_sample(age.as_secs_f64(), Unit::Seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bounds;
    use crate::core::care::Verdict;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn log() -> LogLook {
        LogLook {
            pattern: "^ERROR\\b".into(),
            count: Bounds { warn: Some(2), fail: Some(4) },
            within: Duration::from_secs(60),
        }
    }

    #[test]
    fn only_matching_lines_of_late_count_and_no_more_than_matter() {
        let mut counter = MatchCounter::new(&log()).unwrap();
        for second in 0..100 {
            counter.see(b"ERROR disk\r", at(second));
            counter.see(b"an ERROR", at(second));
        }
        assert_eq!((counter.count(at(100)), counter.matches.len()), (4, 4));
        assert_eq!(counter.count(at(158)), 2);
        assert_eq!(counter.count(at(200)), 0);
    }

    #[test]
    fn a_rate_of_lines_warns_and_fails() {
        let verdict = |count| look_log(&log(), count).verdict;
        let expected = [Verdict::Pass, Verdict::Warn, Verdict::Warn, Verdict::Fail];
        assert_eq!([1, 2, 3, 4].map(verdict), expected);
        let sentence = look_log(&log(), 4).sentence;
        assert_eq!(sentence, "4 or more lines of the last 1 min match `^ERROR\\b` (limit 4)");
        assert_eq!(look_log(&log(), 0).sentence, "0 lines of the last 1 min match `^ERROR\\b`");
    }

    #[test]
    fn silence_is_judged_by_how_long_it_lasts() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let look = SilenceLook { longest: Bounds { warn: None, fail: Some(minutes(10)) } };
        assert_eq!(look_silence(&look, minutes(9)).verdict, Verdict::Pass);
        let silent = look_silence(&look, minutes(12));
        assert_eq!(silent.verdict, Verdict::Fail);
        assert_eq!(silent.sentence, "no output for 12 min (limit 10 min)");
    }

    #[test]
    fn a_heartbeat_is_a_file_that_is_written_or_a_message() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alive");
        let within = Duration::from_secs(30);
        let look = HeartbeatLook { file: Some(path.clone()), within };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |look: &HeartbeatLook, age| runtime.block_on(look_heartbeat(look, age));
        let missing = ask(&look, None);
        assert_eq!(missing.verdict, Verdict::Fail);
        assert!(missing.sentence.contains("does not exist"), "{}", missing.sentence);
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(ask(&look, None).verdict, Verdict::Pass);
        let old = std::time::SystemTime::now() - Duration::from_secs(3_600);
        file.set_modified(old).unwrap();
        let late = ask(&look, None);
        assert_eq!(late.verdict, Verdict::Fail);
        assert!(late.sentence.ends_with("1 h ago, and 30 s are allowed"), "{}", late.sentence);
        // A clock that was set back does not make it old.
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(3_600)).unwrap();
        assert_eq!(ask(&look, None).verdict, Verdict::Pass);
        let socket = HeartbeatLook { file: None, within };
        assert_eq!(ask(&socket, Some(Duration::from_secs(31))).verdict, Verdict::Fail);
        assert_eq!(ask(&socket, Some(within)).verdict, Verdict::Pass);
        assert_eq!(ask(&socket, None).verdict, Verdict::Unknown);
    }
}
