//! Asks one question and returns the report.

use std::time::{Duration, Instant};

use mendd::config::{Check, CheckRole, DeclaredCheck, Look};
use mendd::core::care::evidence::ProbeFailure;
use mendd::probe::{self, Asker, Command, Commands, Past, Report, Subject, Verdict};
use tokio::sync::oneshot;

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for a server that is well to answer, even on a busy machine, when it must not.
pub(crate) const SHORT: Duration = Duration::from_secs(1);

/// Starts no commands.
pub(crate) struct Nobody;

impl Commands for Nobody {
    fn launch(&self, _: &[String]) -> oneshot::Receiver<Result<Command, String>> {
        oneshot::channel().1
    }
}

/// A question with everything that it needs; the host is asked about where nothing is said.
pub(crate) struct Question {
    pub(crate) look: Look,
    pub(crate) timeout: Duration,
    pub(crate) role: CheckRole,
    pub(crate) subject: Subject,
}

impl Question {
    pub(crate) fn new(look: Look) -> Self {
        Self { look, timeout: PATIENCE, role: CheckRole::Live, subject: Subject::Host }
    }

    pub(crate) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(crate) fn about(self, subject: Subject) -> Self {
        Self { subject, ..self }
    }

    pub(crate) fn ask(&self) -> Report {
        self.ask_with(&Nobody, &mut Past::default())
    }

    pub(crate) fn ask_with(&self, commands: &dyn Commands, past: &mut Past) -> Report {
        run(async { self.ask_now(commands, past).await })
    }

    pub(crate) async fn ask_now(&self, commands: &dyn Commands, past: &mut Past) -> Report {
        let name = "look".parse().expect("a name of a check");
        let check = Check::new(name, self.look.kind());
        let check = Check { timeout: self.timeout, role: self.role, ..check };
        let declared = DeclaredCheck { check, look: self.look.clone(), is_builtin: false };
        let variable = |name: &str| (name == "PROBE_PASSWORD").then(|| "from variable".to_owned());
        let asker = Asker { subject: &self.subject, commands, variable: &variable };
        probe::look(&declared, &asker, past).await
    }
}

pub(crate) fn ask(look: Look) -> Report {
    Question::new(look).ask()
}

/// Runs on a runtime like that of the daemon.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(4).build().expect("a runtime").block_on(work)
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<(), T>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(()) => return,
            Err(last) => assert!(Instant::now() < deadline, "waited for {what}; last: {last:?}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until this passes.
#[track_caller]
pub(crate) fn wait_for_pass(look: &Look) {
    let question = Question::new(look.clone()).within(Duration::from_secs(5));
    wait_until("a good answer", || {
        let report = question.ask();
        if report.verdict == Verdict::Pass { Ok(()) } else { Err(report) }
    });
}

#[track_caller]
pub(crate) fn assert_report(report: &Report, verdict: Verdict, words: &str) {
    assert_eq!(report.verdict, verdict, "{report:?}");
    assert!(report.sentence.contains(words), "{words:?} is not in {:?}", report.sentence);
}

#[track_caller]
pub(crate) fn assert_failure(report: &Report, failure: ProbeFailure) {
    assert_eq!(report.failure, Some(failure), "{report:?}");
}
