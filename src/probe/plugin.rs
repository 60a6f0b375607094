//! What a check's command says by its exit code and its first line.
//!
//! The codes are those of Nagios plugins. What follows a `|` are figures of performance, of which
//! the first is kept. A first line of nothing but the words of HAProxy's agent check says more
//! than the code: `drain` and `maint` are wishes to be left alone and warn, `down#reason` fails,
//! `75%` is a figure.

use super::finding::{Sample, Unit};
use super::words;
use crate::core::care::Verdict;

/// A command's judgement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    pub(super) verdict: Verdict,
    /// Its first line without figures; empty when it said nothing.
    pub(super) text: String,
    pub(super) sample: Option<Sample>,
}

/// A state that an agent names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Up,
    Drain,
    Maintenance,
    Down,
}

/// Reads what a command that exited with this code has printed.
pub(super) fn read(code: i32, output: &[u8]) -> Said {
    let by_code = verdict(code);
    let line = words::first_line(output).unwrap_or_default();
    if let Some(agent) = agent(&line) {
        let verdict = match agent.state {
            // The probe says that it does not know, whatever it prints.
            _ if by_code == Verdict::Unknown => by_code,
            None | Some(State::Up) => by_code,
            Some(State::Drain | State::Maintenance) => Verdict::Warn,
            Some(State::Down) => Verdict::Fail,
        };
        return Said { verdict, text: agent.text, sample: agent.sample };
    }
    let (text, figures) = line.split_once('|').unwrap_or((&line, ""));
    Said { verdict: by_code, text: text.trim().to_owned(), sample: figure(figures) }
}

fn verdict(code: i32) -> Verdict {
    match code {
        0 => Verdict::Pass,
        1 => Verdict::Warn,
        // A shell that has not found the command, or may not execute it, has asked nobody.
        3 | 126 | 127 => Verdict::Unknown,
        _ => Verdict::Fail,
    }
}

struct Agent {
    state: Option<State>,
    text: String,
    sample: Option<Sample>,
}

/// Reads a line of an agent; `None` for any other.
fn agent(line: &str) -> Option<Agent> {
    let (words, reason) = match line.split_once('#') {
        Some((words, reason)) => (words, Some(reason.trim())),
        None => (line, None),
    };
    let mut agent = Agent { state: None, text: String::new(), sample: None };
    let mut has_any = false;
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        has_any = true;
        if let Some(percent) = word.strip_suffix('%') {
            let value = percent.parse().ok().filter(|value: &f64| value.is_finite())?;
            agent.sample = Some(Sample { value, unit: Unit::Percent });
        } else if !word.starts_with("maxconn:") {
            // Of several the worst counts.
            agent.state = agent.state.max(Some(state(word)?));
        }
    }
    if !has_any {
        return None;
    }
    agent.text = match (agent.state, reason.filter(|reason| !reason.is_empty())) {
        (Some(State::Drain), None) => "wants no new work (drain)".to_owned(),
        (Some(State::Maintenance), None) => "is in maintenance".to_owned(),
        (Some(State::Drain), Some(why)) => format!("wants no new work (drain): {why}"),
        (Some(State::Maintenance), Some(why)) => format!("is in maintenance: {why}"),
        (Some(State::Down), Some(why)) => format!("says that it is down: {why}"),
        (Some(State::Down), None) => "says that it is down".to_owned(),
        (Some(State::Up) | None, _) => line.to_owned(),
    };
    Some(agent)
}

fn state(word: &str) -> Option<State> {
    match word.to_ascii_lowercase().as_str() {
        "up" | "ready" => Some(State::Up),
        "drain" => Some(State::Drain),
        "maint" => Some(State::Maintenance),
        "down" | "fail" | "failed" | "stopped" => Some(State::Down),
        _ => None,
    }
}

/// Reads the first figure: `'label'=value[unit];warn;crit;min;max`.
fn figure(figures: &str) -> Option<Sample> {
    // A label in quotes may contain anything, blanks and `=` too.
    let rest = figures.trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => quoted.split_once("'=")?.1,
        None => rest.split_once('=')?.1,
    };
    let value = value.split(|c: char| c == ';' || c.is_whitespace()).next()?;
    let end = value.find(|c: char| !(c.is_ascii_digit() || "+-.,eE".contains(c)));
    let (number, unit) = value.split_at(end.unwrap_or(value.len()));
    let number: f64 = number.replace(',', ".").parse().ok()?;
    let (unit, factor) = match unit {
        "s" => (Unit::Seconds, 1.0),
        "ms" => (Unit::Seconds, 1e-3),
        "us" => (Unit::Seconds, 1e-6),
        "%" => (Unit::Percent, 1.0),
        "B" => (Unit::Bytes, 1.0),
        "KB" => (Unit::Bytes, 1024.0),
        "MB" => (Unit::Bytes, 1024.0 * 1024.0),
        "GB" => (Unit::Bytes, 1024.0 * 1024.0 * 1024.0),
        "TB" => (Unit::Bytes, 1024.0 * 1024.0 * 1024.0 * 1024.0),
        _ => (Unit::Count, 1.0),
    };
    let value = number * factor;
    value.is_finite().then_some(Sample { value, unit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(code: i32, output: &str) -> (Verdict, String) {
        let said = read(code, output.as_bytes());
        (said.verdict, said.text)
    }

    #[test]
    fn exit_codes_mean_what_nagios_plugins_mean_by_them() {
        use Verdict::{Fail, Pass, Unknown, Warn};
        let codes = [(0, Pass), (1, Warn), (2, Fail), (3, Unknown), (4, Fail), (22, Fail)];
        for (code, verdict) in codes.into_iter().chain([(126, Unknown), (127, Unknown)]) {
            assert_eq!(
                said(code, "DISK - all is said\nmore"),
                (verdict, "DISK - all is said".into())
            );
        }
        assert_eq!(said(2, ""), (Fail, String::new()));
    }

    #[test]
    fn words_of_an_agent_say_more_than_the_code() {
        let expected: [(i32, &str, Verdict, &str); 9] = [
            (2, "drain", Verdict::Warn, "wants no new work (drain)"),
            (0, "MAINT#new kernel", Verdict::Warn, "is in maintenance: new kernel"),
            (0, "down#disk # 3 is gone", Verdict::Fail, "says that it is down: disk # 3 is gone"),
            (0, "up, drain", Verdict::Warn, "wants no new work (drain)"),
            (0, "stopped", Verdict::Fail, "says that it is down"),
            (0, "ready up", Verdict::Pass, "ready up"),
            (2, "up", Verdict::Fail, "up"),
            (3, "down", Verdict::Unknown, "says that it is down"),
            (0, "down the rabbit hole", Verdict::Pass, "down the rabbit hole"),
        ];
        for (code, line, verdict, text) in expected {
            assert_eq!(said(code, line), (verdict, text.to_owned()), "{line}");
        }
        let half = read(0, b"75% maxconn:20\n");
        let sample = Some(Sample { value: 75.0, unit: Unit::Percent });
        assert_eq!((half.verdict, half.sample), (Verdict::Pass, sample));
    }

    #[test]
    fn the_first_figure_is_kept_and_all_are_left_out_of_the_text() {
        let cases = [
            ("PING OK - 3 ms|rta=3.5ms;100;200;0; pl=0%", Some((0.0035, Unit::Seconds))),
            ("OK|'a = b'=2GB;;;", Some((2_147_483_648.0, Unit::Bytes))),
            ("OK | users=3", Some((3.0, Unit::Count))),
            ("OK | load=0,5", Some((0.5, Unit::Count))),
            ("OK | users=U", None),
            ("OK", None),
        ];
        for (line, expected) in cases {
            let sample = read(0, line.as_bytes()).sample;
            let found = sample.map(|Sample { value, unit }| (value, unit));
            assert_eq!(found, expected, "{line}");
            assert!(!read(0, line.as_bytes()).text.contains('|'), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_output_panics(code in any::<i32>(), bytes in proptest::collection::vec(any::<u8>(), 0..100),
                text in "[a-z0-9'=;|#%, .\n-]{0,60}") {
            read(code, &bytes);
            read(code, text.as_bytes());
        }
    }
}
