//! What a probe found: a verdict, a sentence for people, and facts for the search for a cause.

use std::time::Duration;

use crate::config::{Bounds, Level};
use crate::core::care::Verdict;
use crate::core::care::evidence::{Certificate, ProbeFailure};
use crate::core::text;

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub verdict: Verdict,
    /// What was seen, with its figures: `connect to 127.0.0.1:6379 refused`.
    pub sentence: String,
    /// How it failed, where that is one of the ways that causes are told by.
    pub failure: Option<ProbeFailure>,
    /// What was measured, beside the time that it took.
    pub sample: Option<Sample>,
    /// The certificate that was shown, when it was looked at or was the trouble.
    pub certificate: Option<Certificate>,
    /// The first bytes that a command printed, or of an answer that was not good.
    pub output: Vec<u8>,
    pub took: Duration,
}

/// One measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub value: f64,
    pub unit: Unit,
}

/// What a sample counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Percent,
    Seconds,
    Days,
    /// Things of any kind.
    Count,
}

/// What was found, without the time that it took.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) sentence: String,
    pub(super) failure: Option<ProbeFailure>,
    pub(super) sample: Option<Sample>,
    pub(super) certificate: Option<Certificate>,
    pub(super) output: Vec<u8>,
}

impl Finding {
    pub(super) fn new(verdict: Verdict, sentence: impl Into<String>) -> Self {
        Self {
            verdict,
            sentence: sentence.into(),
            failure: None,
            sample: None,
            certificate: None,
            output: Vec::new(),
        }
    }

    pub(super) fn pass(sentence: impl Into<String>) -> Self {
        Self::new(Verdict::Pass, sentence)
    }

    pub(super) fn unknown(sentence: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, sentence)
    }

    pub(super) fn fail(failure: ProbeFailure, sentence: impl Into<String>) -> Self {
        Self { failure: Some(failure), ..Self::new(Verdict::Fail, sentence) }
    }

    pub(super) fn timeout(failure: ProbeFailure, sentence: impl Into<String>) -> Self {
        Self { failure: Some(failure), ..Self::new(Verdict::Timeout, sentence) }
    }

    /// An answer came, and it is the wrong one.
    pub(super) fn wrong(answer: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self::fail(ProbeFailure::WrongAnswer { answer: answer.into() }, sentence)
    }

    pub(super) fn with_output(self, output: Vec<u8>) -> Self {
        Self { output, ..self }
    }

    pub(super) fn with_sample(self, value: f64, unit: Unit) -> Self {
        Self { sample: Some(Sample { value, unit }), ..self }
    }

    pub(super) fn with_certificate(self, certificate: Option<Certificate>) -> Self {
        Self { certificate, ..self }
    }

    /// Takes a good answer for a worse one when it came too late.
    pub(super) fn within(self, took: Duration, bounds: Option<&Bounds<Duration>>) -> Self {
        let Some(bounds) = bounds.filter(|_| self.verdict == Verdict::Pass) else { return self };
        let level = bounds.of_most(took);
        let limit = match level {
            Level::Good => return self,
            Level::Warn => bounds.warn,
            Level::Fail => bounds.fail,
        };
        let limit = limit.unwrap_or_default();
        let (slow, most) = (text::duration(took), text::duration(limit));
        Self {
            verdict: verdict(level),
            sentence: format!("{} after {slow}, less than {most} is expected", self.sentence),
            failure: (level == Level::Fail).then_some(ProbeFailure::Slow { took, limit }),
            ..self
        }
    }

    pub(super) fn took(self, took: Duration) -> Report {
        let Self { verdict, sentence, failure, sample, certificate, output } = self;
        Report { verdict, sentence, failure, sample, certificate, output, took }
    }
}

/// What a level means as a verdict.
pub(super) fn verdict(level: Level) -> Verdict {
    match level {
        Level::Good => Verdict::Pass,
        Level::Warn => Verdict::Warn,
        Level::Fail => Verdict::Fail,
    }
}

/// Judges a measured value: `sentence` says it with its figures, `what` and `value` name it
/// alone, `limit` writes a bound.
pub(super) fn measured<T: Copy>(
    level: Level,
    bounds: &Bounds<T>,
    sentence: String,
    what: &str,
    value: String,
    limit: impl Fn(T) -> String,
) -> Finding {
    let reached = match level {
        Level::Good => None,
        Level::Warn => bounds.warn,
        Level::Fail => bounds.fail,
    };
    let sentence = match reached {
        Some(bound) => format!("{sentence} (limit {})", limit(bound)),
        None => sentence,
    };
    let failure = reached.filter(|_| level == Level::Fail).map(|bound| ProbeFailure::Threshold {
        what: what.to_owned(),
        value,
        limit: limit(bound),
    });
    Finding { failure, ..Finding::new(verdict(level), sentence) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds<Duration> =
        Bounds { warn: Some(Duration::from_millis(100)), fail: Some(Duration::from_millis(500)) };

    #[test]
    fn a_good_answer_that_comes_late_warns_and_then_fails() {
        let at = |millis| {
            Finding::pass("answered 200 OK").within(Duration::from_millis(millis), Some(&BOUNDS))
        };
        assert_eq!(at(99), Finding::pass("answered 200 OK"));
        let late = at(100);
        assert_eq!((late.verdict, late.failure), (Verdict::Warn, None));
        assert_eq!(late.sentence, "answered 200 OK after 100 ms, less than 100 ms is expected");
        let (took, limit) = (Duration::from_millis(700), Duration::from_millis(500));
        let slow = at(700);
        assert_eq!(slow.verdict, Verdict::Fail);
        assert_eq!(slow.failure, Some(ProbeFailure::Slow { took, limit }));
    }

    #[test]
    fn a_bad_answer_is_not_called_slow() {
        let bad = Finding::wrong("500", "answered 500");
        assert_eq!(bad.clone().within(Duration::from_secs(9), Some(&BOUNDS)), bad);
    }

    #[test]
    fn a_measured_value_names_the_limit_that_it_has_reached() {
        let bounds = Bounds { warn: Some(80), fail: Some(90) };
        let at = |value: u32| {
            let level = bounds.of_most(value);
            let sentence = format!("memory {value} %");
            measured(level, &bounds, sentence, "memory", format!("{value} %"), |b| format!("{b} %"))
        };
        assert_eq!(at(79), Finding::pass("memory 79 %"));
        assert_eq!(at(80), Finding::new(Verdict::Warn, "memory 80 % (limit 80 %)"));
        let threshold = ProbeFailure::Threshold {
            what: "memory".into(),
            value: "95 %".into(),
            limit: "90 %".into(),
        };
        assert_eq!(at(95), Finding::fail(threshold, "memory 95 % (limit 90 %)"));
    }
}
