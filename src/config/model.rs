//! The checked configuration: every value is valid, every default is filled in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::look::DeclaredCheck;
use super::model_check::{Impact, ModeRules};
use super::readiness::Ready;
use crate::name::{GroupName, ProgramName};

/// A whole, consistent configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub supervisor: Supervisor,
    pub programs: BTreeMap<ProgramName, Arc<Program>>,
    pub groups: BTreeMap<GroupName, Group>,
    /// What is looked at of the host itself, `[check.NAME]`.
    pub checks: Vec<Arc<DeclaredCheck>>,
    /// When the whole host counts as degraded, and what is stopped then.
    pub mode: ModeRules,
    /// Run as the daemon whenever the mode has changed; never empty.
    pub on_mode_change: Option<Vec<String>>,
    /// Every file that was read, the main one first.
    pub files: Vec<PathBuf>,
    /// The globs of `include`, absolute: a file that matches one would be read as well.
    pub include_globs: Vec<String>,
}

/// The daemon's own settings, `[supervisor]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Supervisor {
    pub socket: PathBuf,
    /// The parent of `socket`: run records, FIFOs, lock. Meant to be on tmpfs.
    pub runtime_dir: PathBuf,
    pub state_dir: PathBuf,
    pub log_dir: PathBuf,
    pub log: DaemonLog,
    pub access: Access,
    /// Added to every program's environment.
    pub environment: BTreeMap<String, String>,
    /// Soft `RLIMIT_NOFILE` that the daemon asks for itself (never handed to programs).
    pub nofile: u64,
    /// The checks that nobody has written are there.
    pub default_checks: bool,
    /// Longest time that `shutdown` may take before what is left is killed.
    pub shutdown_timeout: Duration,
    /// A changed file that is good is applied by itself, with roll-back.
    pub auto_apply: bool,
    pub history: HistoryLimits,
}

/// How much of the history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Age of incidents, requests and results of checks.
    pub keep: Duration,
    /// Age of measured numbers.
    pub samples_keep: Duration,
    /// Bytes of all of it together.
    pub max_size: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(30 * 86_400),
            samples_keep: Duration::from_secs(86_400),
            max_size: 256 << 20,
        }
    }
}

/// The daemon's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonLog {
    /// A `tracing` filter such as `info` or `mendd::capture=debug`.
    pub level: String,
    pub format: LogFormat,
    /// `None` writes to standard error.
    pub file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

/// Who may do what, beside root and the daemon's own user, who may do everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    pub observe: Principals,
    pub operate: Principals,
    pub admin: Principals,
}

/// Users and groups, resolved to numbers at load.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principals {
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
}

/// A declared command, `[program.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    pub name: ProgramName,
    /// The group it is shown under: that of a `[group.…]` that lists it, else its own name.
    pub group: GroupName,
    /// `None` means one process called like the program; `Some(n)` n processes `name:0`…
    pub replicas: Option<u32>,
    pub spawn: Spawn,
    pub lifecycle: Lifecycle,
    pub logs: Logs,
    /// Files whose change renews it. A change of this never restarts a process.
    pub watch: Option<Watch>,
    /// What is looked at of each of its processes. A change of it never restarts a process.
    pub checks: Vec<Arc<DeclaredCheck>>,
    /// What it means for the whole host when it is down (`severity`).
    pub impact: Impact,
    /// What a clean restart removes while nothing of it runs: files and sockets, never
    /// directories; absolute.
    pub stale_files: Vec<PathBuf>,
}

/// How a process is brought to life. A change of any of it needs a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Spawn {
    /// Never empty. With `shell = true` it is `/bin/sh -c TEXT`.
    pub argv: Vec<String>,
    pub user: Option<Identity>,
    /// `None` keeps the daemon's working directory.
    pub directory: Option<PathBuf>,
    pub umask: u32,
    /// `false` starts from an empty environment but for PATH, HOME, USER, LOGNAME and SHELL.
    pub inherit_environment: bool,
    pub environment: BTreeMap<String, String>,
    /// Read at each spawn; a missing optional file is skipped.
    pub environment_files: Vec<EnvironmentFile>,
    pub nice: Option<i32>,
    /// -1000 to 1000; the default 0 undoes what the daemon itself inherited.
    pub oom_score_adj: i32,
    pub limits: Limits,
    pub stdin: Stdin,
    pub no_new_privs: bool,
    /// Gets `NOTIFY_SOCKET`, for its readiness or its watchdog.
    pub notify: bool,
    /// Gets `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub watchdog: Option<Duration>,
    /// Inherits under this number what it writes its line of readiness to.
    pub ready_fd: Option<i32>,
}

/// A user and its groups, resolved at load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    pub shell: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentFile {
    pub path: PathBuf,
    /// Written with a leading `-`: may be missing.
    pub optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdin {
    /// `/dev/null`.
    Null,
    File(PathBuf),
}

/// Resource limits. The rlimits are soft and hard at once; `memory`, `cpu` and `tasks` need
/// cgroup v2 controllers and are skipped with a warning where there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    /// Percent of one CPU; 150 is one and a half.
    pub cpu_percent: Option<u32>,
    pub tasks: Option<u64>,
    pub nofile: Option<u64>,
    pub nproc: Option<u64>,
    pub core_bytes: Option<u64>,
    pub fsize_bytes: Option<u64>,
    pub stack_bytes: Option<u64>,
    pub address_space_bytes: Option<u64>,
    pub memlock_bytes: Option<u64>,
    pub cpu_seconds: Option<u64>,
}

/// When a process is started, restarted and stopped. The part that the core reads; a change
/// of it never restarts a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Lifecycle {
    pub autostart: bool,
    /// Lower starts first and stops last; order only, without waiting.
    pub priority: i32,
    /// Must run; this one is stopped with them and starts after they run.
    pub requires: Vec<ProgramName>,
    /// Are started too, but need not succeed.
    pub wants: Vec<ProgramName>,
    /// Order only, where both start.
    pub after: Vec<ProgramName>,
    /// Order as with `after`; and when one of them has a new run, this one gets one too.
    pub restart_with: Vec<ProgramName>,
    /// A process counts as running after this long (`start_period`, supervisord's startsecs).
    /// Without a meaning where there is a `ready`.
    pub start_period: Duration,
    /// What shows that it is ready; until then it is starting.
    pub ready: Option<Ready>,
    /// A start that is not ready after this long has failed.
    pub start_timeout: Duration,
    /// A running process says that it is alive at least this often, or is killed.
    pub watchdog: Option<Duration>,
    pub restart: RestartPolicy,
    pub success_exit_codes: Vec<i32>,
    /// Exit codes after which a restart is pointless: the process goes to FATAL.
    pub permanent_exit_codes: Vec<i32>,
    pub backoff: Backoff,
    pub breaker: Breaker,
    pub stop: Stop,
    /// The signal of `reload`; `None` means the program cannot reload.
    pub reload_signal: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    /// After a signal or an exit code that is not in `success_exit_codes`.
    OnFailure,
    Never,
}

/// Delays between restarts: `initial * factor^n`, at most `max`, each times a random number
/// in `1 ± jitter`. The first restart after a stable run has no delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
    pub factor: f64,
    pub jitter: f64,
    /// A run at least this long (and twice the last delay) makes the next failure the first.
    pub reset_after: Duration,
}

/// `failures` within `window` open the breaker for `open`; each failed half-open try doubles
/// that time up to `max_open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    pub failures: u32,
    pub window: Duration,
    pub open: Duration,
    pub max_open: Duration,
}

/// The signals of an orderly stop in turn, then SIGKILL to the whole tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Never empty.
    pub steps: Vec<StopStep>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopStep {
    pub signal: i32,
    /// Time to wait before the next step, after the last one before SIGKILL.
    pub grace: Duration,
}

/// What becomes of a process's output. A change of it never restarts a process, except that
/// `merge_stderr` takes effect at the next run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    pub sink: Sink,
    pub merge_stderr: bool,
    /// A segment is closed at the first line end after this many bytes.
    pub max_size_bytes: u64,
    /// A segment is closed at the first line end after this age.
    pub max_age: Option<Duration>,
    /// Closed segments kept beside the current one.
    pub keep: u32,
    /// All segments of one stream together.
    pub max_total_bytes: Option<u64>,
    pub compress: Compression,
    /// How long a full disk may block the process before output is dropped and counted.
    pub full_disk_block: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    File,
    /// The file, and `name | line` on the daemon's own standard output.
    Stdout,
    /// The file, and the journal.
    Journald,
    /// `/dev/null`.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Zstd,
}

/// Files that a program watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Never empty.
    pub targets: Vec<WatchTarget>,
    /// What is left out below the directories: a name at any depth, or a glob of whole paths.
    pub ignore: Vec<String>,
    /// So long must nothing change before anything is done.
    pub debounce: Duration,
    pub act: OnWatch,
}

/// One entry of `watch`, absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchTarget {
    /// A file, or a directory with everything below it.
    Path(PathBuf),
    Glob {
        /// The longest directory without wildcards.
        root: PathBuf,
        /// What follows the root, one part for each directory and the last for the file.
        parts: Vec<String>,
    },
}

/// What is done when a watched file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnWatch {
    Restart,
    /// Sends this signal to the main processes.
    Signal(i32),
}

/// A named set of programs, `[group.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: GroupName,
    pub programs: Vec<ProgramName>,
}

impl Default for Logs {
    /// The defaults of the configuration language.
    fn default() -> Self {
        Self {
            sink: Sink::File,
            merge_stderr: true,
            max_size_bytes: 10 << 20,
            max_age: None,
            keep: 10,
            max_total_bytes: None,
            compress: Compression::Zstd,
            full_disk_block: Duration::from_secs(30),
        }
    }
}
