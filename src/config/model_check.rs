//! The checked form of a check and of its ladder: what the core decides by.
//!
//! What a probe asks (an address, a command, a threshold) belongs to the probe and not to this
//! module: the core only knows its kind, its pace and what its verdicts lead to.

use std::time::Duration;

use crate::name::{CheckName, ProgramName};

/// A scheduled probe and what follows from its verdicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub name: CheckName,
    pub kind: CheckKind,
    pub role: CheckRole,
    /// What it means for the whole host when this check is down (`severity`).
    pub impact: Impact,
    /// From the end of one run to the start of the next, while all is well.
    pub interval: Duration,
    /// Shorter than `interval`; waiting for a free place does not count.
    pub timeout: Duration,
    pub fail_if: FailRule,
    /// Passes in a row that end a failure.
    pub rise: u32,
    /// How long after a start failures do not count, unless a pass came before.
    pub start_timeout: Duration,
    /// The remedies in the order in which they are tried; empty only tells.
    pub heal: Vec<Rung>,
    pub mode: HealMode,
    /// Least time between two remedies, and from a start to a remedy.
    pub cooldown: Duration,
    /// How long it must stay up until the next failure begins at the foot of the ladder again.
    pub stable: Duration,
}

/// What a probe looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckKind {
    /// A command with the exit codes of a Nagios plugin.
    Exec,
    Tcp,
    Http,
    Redis,
    Postgres,
    Memory,
    Cpu,
    /// Open file descriptors against their limit.
    Fds,
    Disk,
    Load,
    Pressure,
    /// The process itself: needs no probe, its verdicts come from starts and exits.
    Process,
    /// How often a pattern appears in the output.
    Log,
    /// No output for too long.
    Silence,
    /// A sign of life that the program gives by itself.
    Heartbeat,
    /// Days until a certificate expires.
    Certificate,
}

/// What a check is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckRole {
    /// Holds back the other checks of the program until it has passed once.
    Start,
    /// May heal.
    Live,
    /// Tells dependants and balancers whether to use the program; never heals.
    Ready,
}

/// How much it matters that something is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impact {
    Minor,
    Normal,
    Critical,
}

/// When failures mean that the program is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailRule {
    /// This many in a row (`fall`).
    InARow(u32),
    /// `failures` among the last `of` verdicts, at most [`FailRule::MAX_OF`].
    Among { failures: u32, of: u32 },
}

impl FailRule {
    /// The most verdicts that `"k of n"` may look at.
    pub const MAX_OF: u32 = 64;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealMode {
    Act,
    /// Says what it would do, and does nothing.
    Observe,
}

/// One step of a ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    pub remedy: Remedy,
    /// The remedy has failed when it is not over after this time.
    pub timeout: Duration,
}

/// One way of healing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Probes twice more before anything is touched.
    Confirm,
    Reload,
    Signal {
        signal: i32,
    },
    Restart,
    /// Kills the whole tree, removes the files declared stale, starts.
    CleanRestart,
    RestartGroup,
    Run {
        argv: Vec<String>,
    },
    /// Several commands as one transaction: when one fails, the undo commands of those before
    /// it run in reverse.
    Steps(Vec<RemedyStep>),
    /// Starts a standby, and stops it again when the program has been well for a time.
    Fallback {
        program: ProgramName,
    },
    /// Goes back to the last good configuration.
    Rollback,
    /// Stops programs of lower priority until this one is well.
    Shed,
    /// Tells people and goes on.
    Alert,
    /// Tells people and tries again only now and then.
    Quarantine,
}

/// A step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemedyStep {
    pub argv: Vec<String>,
    /// Must do no harm when the step did not come to its end. `None`: there is nothing to undo.
    pub undo: Option<Vec<String>>,
}

/// When the whole host counts as degraded, and what is stopped then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeRules {
    /// How long something must be down until the mode gets worse, and well until it gets better.
    pub enter: Duration,
    pub leave: Duration,
    /// In this mode programs whose priority number is at least this are stopped.
    pub shed_degraded: Option<i32>,
    pub shed_emergency: Option<i32>,
}

impl Default for ModeRules {
    fn default() -> Self {
        let (enter, leave) = (Duration::from_secs(10), Duration::from_secs(60));
        Self { enter, leave, shed_degraded: None, shed_emergency: None }
    }
}

impl CheckKind {
    pub const ALL: [Self; 16] = [
        Self::Exec,
        Self::Tcp,
        Self::Http,
        Self::Redis,
        Self::Postgres,
        Self::Memory,
        Self::Cpu,
        Self::Fds,
        Self::Disk,
        Self::Load,
        Self::Pressure,
        Self::Process,
        Self::Log,
        Self::Silence,
        Self::Heartbeat,
        Self::Certificate,
    ];

    /// Returns the word for it, which is its key in the table of a check.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Fds => "fds",
            Self::Disk => "disk",
            Self::Load => "load",
            Self::Pressure => "pressure",
            Self::Process => "process",
            Self::Log => "log",
            Self::Silence => "silence",
            Self::Heartbeat => "heartbeat",
            Self::Certificate => "certificate",
        }
    }

    /// Whether a run of it costs a process.
    pub fn is_exec(self) -> bool {
        match self {
            Self::Exec => true,
            Self::Tcp | Self::Http | Self::Redis | Self::Postgres => false,
            Self::Memory | Self::Cpu | Self::Fds | Self::Disk => false,
            Self::Load | Self::Pressure | Self::Process | Self::Log => false,
            Self::Silence | Self::Heartbeat | Self::Certificate => false,
        }
    }
}

impl Check {
    /// Makes a check with the defaults of its kind and no ladder.
    pub fn new(name: CheckName, kind: CheckKind) -> Self {
        let (interval, timeout) = if kind.is_exec() { (30, 10) } else { (10, 5) };
        Self {
            name,
            kind,
            role: CheckRole::Live,
            impact: Impact::Normal,
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(timeout),
            fail_if: FailRule::InARow(3),
            rise: 2,
            start_timeout: Duration::from_secs(60),
            heal: Vec::new(),
            mode: HealMode::Act,
            cooldown: Duration::from_secs(60),
            stable: Duration::from_secs(60),
        }
    }

    /// Returns the pause between runs while a failure is being looked into.
    pub fn suspect_interval(&self) -> Duration {
        (self.interval / 4).max(Duration::from_secs(1)).min(self.interval)
    }

    /// Returns the pause between runs while it is down and no remedy is to come.
    pub fn down_interval(&self) -> Duration {
        self.interval.saturating_mul(2).min(Duration::from_secs(60)).max(self.interval)
    }

    /// Returns how many failures in a row bring it down from any state.
    pub fn fall(&self) -> u32 {
        match self.fail_if {
            FailRule::InARow(fall) => fall.max(1),
            FailRule::Among { failures, .. } => failures.max(1),
        }
    }
}

impl Remedy {
    /// Returns the word for it, as it is written in `heal = […]`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Reload => "reload",
            Self::Signal { .. } => "signal",
            Self::Restart => "restart",
            Self::CleanRestart => "clean-restart",
            Self::RestartGroup => "restart-group",
            Self::Run { .. } => "run",
            Self::Steps(_) => "steps",
            Self::Fallback { .. } => "fallback",
            Self::Rollback => "rollback",
            Self::Shed => "shed",
            Self::Alert => "alert",
            Self::Quarantine => "quarantine",
        }
    }

    /// Whether the program's process is replaced by it.
    pub fn replaces_the_run(&self) -> bool {
        match self {
            Self::Restart | Self::CleanRestart | Self::RestartGroup | Self::Rollback => true,
            Self::Confirm | Self::Reload | Self::Signal { .. } | Self::Run { .. } => false,
            Self::Steps(_) | Self::Fallback { .. } | Self::Shed => false,
            Self::Alert | Self::Quarantine => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_come_faster_in_doubt_and_slower_when_down_but_within_bounds() {
        let check = |seconds| Check {
            interval: Duration::from_millis(seconds),
            ..Check::new("http".parse().unwrap(), CheckKind::Http)
        };
        let pace = |millis| {
            let check = check(millis);
            (check.suspect_interval().as_millis(), check.down_interval().as_millis())
        };
        assert_eq!(pace(10_000), (2_500, 20_000));
        assert_eq!(pace(2_000), (1_000, 4_000));
        assert_eq!(pace(500), (500, 1_000));
        assert_eq!(pace(40_000), (10_000, 60_000));
        assert_eq!(pace(300_000), (75_000, 300_000));
    }
}
