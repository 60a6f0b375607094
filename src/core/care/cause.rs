//! From evidence to a cause: a closed list, each with its confidence, the facts it rests on, a
//! sentence for people, and where on the ladder it makes sense to begin.
//!
//! Each rule looks at the whole evidence and may speak or not. The most confident one wins, of
//! equals the first. No rule ever guesses what the evidence does not show: without any, the
//! cause is [`Cause::Unknown`], and the ladder begins at its foot.

use super::evidence::Evidence;
use crate::config::{Remedy, Rung};

/// Why something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Somebody wanted it so.
    Intended,
    DependencyDown,
    CommandMissing,
    NotAllowed,
    LibraryMissing,
    ConfigurationBroken,
    PortTaken,
    DiskFull,
    OutOfMemory,
    OutOfDescriptors,
    OutOfTasks,
    OutOfConnections,
    CertificateExpired,
    ForbiddenSystemCall,
    CpuLimit,
    Crashed,
    /// By a signal from outside of Mend.
    Killed,
    /// Stopped by SIGSTOP or a debugger.
    Frozen,
    /// Stuck in the kernel.
    Blocked,
    /// Accepts and does not answer.
    Wedged,
    /// Runs, but nobody listens.
    NotListening,
    Slow,
    Silent,
    LogStorm,
    HostOverloaded,
    WrongAnswer,
    OverLimit,
    ExitedWithError,
    Ended,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    Guess,
    Likely,
    Certain,
}

/// A cause and why it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub cause: Cause,
    pub confidence: Confidence,
    /// What it rests on, each a short phrase.
    pub facts: Vec<String>,
    /// A phrase that goes on from the program's name: `was killed by SIGKILL from outside`.
    pub sentence: String,
}

/// How much a remedy changes; a cause asks for at least so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nothing is touched.
    Look,
    /// The process stays.
    Process,
    /// The process is replaced.
    Run,
    /// With all that it left behind.
    Tree,
    /// Things around it are changed.
    Surroundings,
    /// Another version, or another program, takes its place.
    Version,
    /// A person.
    Human,
}

/// Finds the cause.
pub fn find(evidence: &Evidence) -> Finding {
    let mut best: Option<Finding> = None;
    for finding in super::cause_rules::RULES.iter().filter_map(|rule| rule(evidence)) {
        if best.as_ref().is_none_or(|best| finding.confidence > best.confidence) {
            best = Some(finding);
        }
    }
    best.unwrap_or_else(|| Finding {
        cause: Cause::Unknown,
        confidence: Confidence::Guess,
        facts: Vec::new(),
        sentence: "fails for a reason that nothing collected explains".to_owned(),
    })
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::Intended,
        Self::DependencyDown,
        Self::CommandMissing,
        Self::NotAllowed,
        Self::LibraryMissing,
        Self::ConfigurationBroken,
        Self::PortTaken,
        Self::DiskFull,
        Self::OutOfMemory,
        Self::OutOfDescriptors,
        Self::OutOfTasks,
        Self::OutOfConnections,
        Self::CertificateExpired,
        Self::ForbiddenSystemCall,
        Self::CpuLimit,
        Self::Crashed,
        Self::Killed,
        Self::Frozen,
        Self::Blocked,
        Self::Wedged,
        Self::NotListening,
        Self::Slow,
        Self::Silent,
        Self::LogStorm,
        Self::HostOverloaded,
        Self::WrongAnswer,
        Self::OverLimit,
        Self::ExitedWithError,
        Self::Ended,
        Self::Unknown,
    ];

    /// Returns the cause that this is the word for.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::DependencyDown => "dependency-down",
            Self::CommandMissing => "command-missing",
            Self::NotAllowed => "not-allowed",
            Self::LibraryMissing => "library-missing",
            Self::ConfigurationBroken => "configuration-broken",
            Self::PortTaken => "port-taken",
            Self::DiskFull => "disk-full",
            Self::OutOfMemory => "out-of-memory",
            Self::OutOfDescriptors => "out-of-descriptors",
            Self::OutOfTasks => "out-of-tasks",
            Self::OutOfConnections => "out-of-connections",
            Self::CertificateExpired => "certificate-expired",
            Self::ForbiddenSystemCall => "forbidden-system-call",
            Self::CpuLimit => "cpu-limit",
            Self::Crashed => "crashed",
            Self::Killed => "killed",
            Self::Frozen => "frozen",
            Self::Blocked => "blocked",
            Self::Wedged => "wedged",
            Self::NotListening => "not-listening",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::LogStorm => "log-storm",
            Self::HostOverloaded => "host-overloaded",
            Self::WrongAnswer => "wrong-answer",
            Self::OverLimit => "over-limit",
            Self::ExitedWithError => "exited-with-error",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it says no more than that something went wrong.
    fn is_vague(self) -> bool {
        match self {
            Self::ExitedWithError | Self::Ended | Self::Unknown | Self::WrongAnswer => true,
            Self::NotListening => true,
            Self::Intended | Self::DependencyDown | Self::CommandMissing | Self::NotAllowed => {
                false
            }
            Self::LibraryMissing | Self::ConfigurationBroken | Self::PortTaken => false,
            Self::DiskFull | Self::OutOfMemory | Self::OutOfDescriptors | Self::OutOfTasks => false,
            Self::OutOfConnections | Self::CertificateExpired | Self::ForbiddenSystemCall => false,
            Self::CpuLimit | Self::Crashed | Self::Killed | Self::Frozen | Self::Blocked => false,
            Self::Wedged | Self::Slow | Self::Silent | Self::LogStorm | Self::OverLimit => false,
            Self::HostOverloaded => false,
        }
    }

    /// Returns the least that can help.
    pub fn reach(self) -> Reach {
        match self {
            Self::Intended | Self::DependencyDown | Self::HostOverloaded => Reach::Look,
            Self::Slow | Self::WrongAnswer | Self::OverLimit | Self::Unknown => Reach::Look,
            Self::CertificateExpired | Self::LogStorm => Reach::Process,
            Self::OutOfMemory | Self::OutOfDescriptors | Self::OutOfTasks => Reach::Run,
            Self::OutOfConnections | Self::ForbiddenSystemCall | Self::CpuLimit => Reach::Run,
            Self::Crashed | Self::Killed | Self::Frozen | Self::Wedged => Reach::Run,
            Self::NotListening | Self::Silent | Self::ExitedWithError | Self::Ended => Reach::Run,
            Self::PortTaken => Reach::Tree,
            Self::DiskFull => Reach::Surroundings,
            Self::CommandMissing | Self::NotAllowed | Self::LibraryMissing => Reach::Version,
            Self::ConfigurationBroken => Reach::Version,
            Self::Blocked => Reach::Human,
        }
    }
}

impl Finding {
    /// Whether it still explains an incident about which something else was found later: not
    /// every try of the same start shows as much of what is wrong as the one before.
    pub(super) fn outlasts(&self, later: &Self) -> bool {
        let is_guess = |it: &Self| it.confidence == Confidence::Guess;
        !self.cause.is_vague() && !is_guess(self) && (later.cause.is_vague() || is_guess(later))
    }

    /// Returns on which rung of the ladder to begin; the length of the ladder when none helps.
    ///
    /// A guess skips nothing.
    pub fn first_rung(&self, ladder: &[Rung]) -> usize {
        if self.confidence == Confidence::Guess {
            return 0;
        }
        let wakes = |rung: &Rung| matches!(rung.remedy, Remedy::Signal { signal: SIGCONT });
        if self.cause == Cause::Frozen
            && let Some(index) = ladder.iter().position(wakes)
        {
            return index;
        }
        let wanted = self.cause.reach();
        ladder.iter().position(|rung| reach(&rung.remedy) >= wanted).unwrap_or(ladder.len())
    }
}

const SIGCONT: i32 = 18;

fn reach(remedy: &Remedy) -> Reach {
    match remedy {
        Remedy::Confirm => Reach::Look,
        Remedy::Reload | Remedy::Signal { .. } => Reach::Process,
        Remedy::Restart => Reach::Run,
        Remedy::CleanRestart | Remedy::RestartGroup => Reach::Tree,
        // What a command of the operator's changes is his to know; it may be just the thing.
        Remedy::Run { .. } | Remedy::Steps(_) | Remedy::Shed => Reach::Surroundings,
        Remedy::Fallback { .. } | Remedy::Rollback => Reach::Version,
        Remedy::Alert | Remedy::Quarantine => Reach::Human,
    }
}
