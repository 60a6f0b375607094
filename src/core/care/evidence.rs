//! What was seen at the moment of a failure, as plain data.
//!
//! The engine fills in what it could find out; everything may be missing. Nothing in here is a
//! judgement: that is [`cause`](super::cause)'s work.

use std::time::Duration;

use super::gate::Pressure;
use super::health::Verdict;
use crate::config::CheckKind;
use crate::core::Exit;

/// Everything that is known about a failure.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    /// How the run ended, if it has.
    pub exit: Option<Exit>,
    /// What we ourselves had done to the run before it ended.
    pub intent: Option<Intent>,
    /// How long the run has lived.
    pub age: Option<Duration>,
    /// The error of the spawn, when no program was ever executed.
    pub exec: Option<ExecFailure>,
    /// How often the kernel killed in its cgroup for want of memory, since the run began.
    pub oom_kills: u64,
    /// The kernel's log names the process as killed for want of memory on the whole host.
    pub host_oom: bool,
    /// How often the kernel killed on the whole host for want of memory, since the run began.
    pub host_oom_kills: u64,
    pub memory_bytes: Option<Usage>,
    /// The kernel's line on a segmentation fault or another trap.
    pub fault: Option<String>,
    /// The kernel's log says that a forbidden system call ended it.
    pub seccomp: bool,
    pub cpu_seconds: Option<Usage>,
    pub descriptors: Option<Usage>,
    pub tasks: Option<Usage>,
    /// The last lines of output, the newest last.
    pub output: Vec<String>,
    /// Lines a second now, and before.
    pub output_rate: Option<OutputRate>,
    pub silent_for: Option<Duration>,
    /// Who listens on the port that the program or its check uses, if it is not the program.
    pub port: Option<PortHolder>,
    /// The file systems that it writes to.
    pub disks: Vec<DiskSpace>,
    pub pressure: Option<Pressure>,
    /// What it requires, and how that is.
    pub dependencies: Vec<DependencyHealth>,
    pub check: Option<CheckDetail>,
    pub certificate: Option<Certificate>,
    pub process: Option<ProcessState>,
    /// Since when a changed configuration of Mend or of the program is in effect.
    pub configuration_age: Option<Duration>,
    /// What could not be found out, and why: sentences for people.
    pub gaps: Vec<String>,
}

/// Something we did ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// Stopped or restarted it because an operator asked for it.
    Operator,
    /// Ended it because it had failed, such as by not being ready in time.
    Failing(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecFailure {
    pub kind: ExecErrorKind,
    pub command: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecErrorKind {
    /// ENOENT, and there is no such file.
    Missing,
    /// ENOENT, but the file is there: what its first line or its ELF header names is not.
    MissingInterpreter,
    /// EACCES, EPERM.
    NotAllowed,
    /// ENOEXEC.
    NotExecutable,
    /// ENOSPC or EDQUOT on the way there.
    DiskFull,
    /// EAGAIN, ENOMEM and the like.
    Resources,
}

/// How much of something is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub used: u64,
    /// `None`: there is no limit.
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutputRate {
    pub lines_per_second: f64,
    pub usual: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    pub port: u16,
    pub pid: u32,
    pub command: String,
    /// It belongs to an earlier run of the same program.
    pub is_leftover: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpace {
    pub path: String,
    pub free_bytes: u64,
    pub size_bytes: u64,
    /// `None` where the file system has no such limit.
    pub free_inodes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyHealth {
    pub name: String,
    pub is_healthy: bool,
    /// `FATAL`, `down`, …
    pub state: String,
}

/// What the check saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckDetail {
    pub kind: CheckKind,
    pub verdict: Verdict,
    pub failure: Option<ProbeFailure>,
}

/// How a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// Nobody listens.
    Refused,
    /// The connection was not accepted in time.
    ConnectTimeout,
    /// It was accepted, and no answer came in time.
    AnswerTimeout,
    /// It was accepted, and closed without an answer.
    Closed,
    /// An answer came, too late.
    Slow {
        took: Duration,
        limit: Duration,
    },
    /// The service says that it has no connection left.
    TooManyConnections,
    /// The certificate is not valid at this time.
    CertificateInvalid,
    WrongAnswer {
        answer: String,
    },
    /// A measured value is over (or under) its limit.
    Threshold {
        what: String,
        value: String,
        limit: String,
    },
    ExitCode {
        code: i32,
        output: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub subject: String,
    /// Negative when it has expired.
    pub seconds_left: i64,
}

/// What `/proc` says the main process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// Running or sleeping as usual.
    Normal,
    /// In the kernel, where no signal reaches it (`D`).
    Uninterruptible,
    /// Stopped by a signal (`T`).
    Stopped,
    /// Stopped by a debugger (`t`).
    Traced,
    Zombie,
}

impl Usage {
    /// Whether at least 95 % of the limit is used.
    pub fn is_exhausted(self) -> bool {
        self.limit
            .is_some_and(|limit| limit > 0 && u128::from(self.used) * 100 >= u128::from(limit) * 95)
    }
}

impl DiskSpace {
    /// Whether less than 1 MiB, or less than 0.5 %, or no inode is left.
    pub fn is_full(&self) -> bool {
        let tenths = u128::from(self.free_bytes) * 1000 < u128::from(self.size_bytes) * 5;
        self.free_bytes < 1 << 20 || tenths || self.free_inodes == Some(0)
    }
}
