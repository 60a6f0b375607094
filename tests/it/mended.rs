//! Real services, broken on purpose and healed without a hand: what each failure is taken for, what
//! is done about it first, how it ends, and in which words that is told.
//!
//! Each case prints how long it took to be noticed and to be over; nothing is asserted of that.

mod connections;
mod deaths;
mod hopeless;
mod services;
mod work;

use std::fs;

use jiff::Timestamp;
use mendd::api::view::{IncidentView, IncidentsView, StoryView};

use crate::harness::{Daemon, Setup, wait_for};
use crate::healing::{unpressed, wait_health, why};

/// One thing that goes wrong with a program.
pub(crate) struct Case<'a> {
    daemon: &'a Daemon,
    program: &'a str,
    what: &'static str,
    began: Timestamp,
}

/// What became of it.
pub(crate) struct Told {
    pub(crate) incident: IncidentView,
    pub(crate) story: Vec<StoryView>,
    /// What `mendctl why` says.
    pub(crate) text: String,
}

/// Starts a daemon and waits until the checks of these programs say that they are well.
#[track_caller]
pub(crate) fn well(setup: Setup, names: &[&str]) -> Daemon {
    // Checks that nobody has declared wait for a minute until an incident is over.
    let daemon = unpressed(setup).supervisor("default_checks = false").start();
    names.iter().for_each(|name| wait_health(&daemon, name, "up"));
    daemon
}

/// Puts a text into a file of the test in one step.
pub(crate) fn put(daemon: &Daemon, name: &str, text: &str) {
    let fresh = daemon.file(&format!("{name}.new"));
    fs::write(&fresh, text).expect("a file in the test's directory");
    fs::rename(&fresh, daemon.file(name)).expect("it can be replaced");
}

impl<'a> Case<'a> {
    /// To be called right before the harm is done.
    pub(crate) fn begin(daemon: &'a Daemon, program: &'a str, what: &'static str) -> Self {
        Self { daemon, program, what, began: Timestamp::now() }
    }

    /// The newest incident of the program.
    fn incident(&self) -> Result<IncidentView, String> {
        let path = format!("/v1/incidents?program={}", self.program);
        let answer = self.daemon.http("GET", &path, None);
        let list: IncidentsView =
            serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {answer:?}"))?;
        list.incidents.into_iter().next().ok_or_else(|| "no incident".to_owned())
    }

    /// Waits until it is over.
    #[track_caller]
    pub(crate) fn over(&self) -> Told {
        let told = self.until("to be over", |told| told.incident.closed.is_some());
        wait_health(self.daemon, self.program, "up");
        told
    }

    /// Waits until as much is known of it as is wanted.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, reached: impl Fn(&Told) -> bool) -> Told {
        let told = wait_for(&format!("`{}` ({}) {what}", self.program, self.what), || {
            let incident = self.incident()?;
            let told = why(self.daemon, self.program).incident.ok_or("no story")?;
            let text = self.daemon.ctl_ok(&["why", self.program]).out;
            let told = Told { incident, story: told.story, text };
            if reached(&told) { Ok(told) } else { Err(told.text) }
        });
        self.measure(&told.incident);
        told
    }

    fn measure(&self, incident: &IncidentView) {
        let after = |at: &str| {
            let at: Timestamp = at.parse().expect("a time");
            at.duration_since(self.began).as_millis()
        };
        let detected = after(&incident.opened);
        let recovered = incident.recovered.as_deref().map(after);
        let recovered = recovered.map_or("not".to_owned(), |after| after.to_string());
        let cause = incident.cause.as_ref().map_or("none", |cause| cause.word.as_str());
        let by = incident.healed_by.as_deref().unwrap_or("nothing");
        eprintln!(
            "measured: {}, cause {cause}, healed by {by}, detected {detected} ms, \
             recovered {recovered} ms",
            self.what
        );
    }
}

impl Told {
    /// The remedies that were begun, in their order.
    pub(crate) fn remedies(&self) -> Vec<&str> {
        let began = self.story.iter().filter(|entry| entry.what == "began");
        began.map(|entry| entry.sentence.split('`').nth(1).unwrap_or_default()).collect()
    }

    /// It was taken for this, and these remedies in turn healed it, as a check has proved.
    #[track_caller]
    pub(crate) fn assert_healed(&self, cause: &str, remedies: &[&str], words: &[&str]) {
        self.assert_taken_for(cause, words);
        assert_eq!(self.remedies(), remedies, "{}", self.text);
        assert_eq!(self.incident.closing.as_deref(), Some("healed"), "{}", self.text);
        assert_eq!(self.incident.healed_by.as_deref(), remedies.last().copied());
        assert!(self.story.iter().any(|entry| entry.what == "verified"), "{}", self.text);
    }

    /// It was taken for this, and no remedy was needed.
    #[track_caller]
    pub(crate) fn assert_came_back(&self, cause: &str, words: &[&str]) {
        self.assert_taken_for(cause, words);
        assert_eq!(self.remedies(), [""; 0], "{}", self.text);
        assert_eq!(self.incident.closing.as_deref(), Some("by-itself"), "{}", self.text);
    }

    #[track_caller]
    pub(crate) fn assert_taken_for(&self, cause: &str, words: &[&str]) {
        let found = self.incident.cause.as_ref();
        assert_eq!(found.map(|it| it.word.as_str()), Some(cause), "{found:#?}\n{}", self.text);
        for words in words {
            assert!(self.text.contains(words), "no {words:?} in {}", self.text);
        }
    }
}
