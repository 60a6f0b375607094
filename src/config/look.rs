//! What a check asks: the address, the command or the threshold behind a verdict.
//!
//! The core knows nothing of this; a probe gets one [`Look`] and answers with a verdict. Where a
//! value has [`Bounds`], at least one of them is there, and `warn` comes before `fail`. A regular
//! expression is a valid one. Paths are absolute.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::model::Identity;
use super::model_check::{Check, CheckKind};
use super::readiness::{Address, HttpTarget};

/// A check with what its probe asks; `look.kind()` is `check.kind`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredCheck {
    pub check: Check,
    pub look: Look,
    /// Nobody has written it: it is there by default, and only warns.
    pub is_builtin: bool,
}

/// What one kind of check looks at, of one process of a program or of the host.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    Exec(ExecLook),
    Tcp(TcpLook),
    Http(HttpLook),
    Redis(RedisLook),
    Postgres(PostgresLook),
    Memory(MemoryLook),
    Cpu(CpuLook),
    Fds(FdsLook),
    Disk(DiskLook),
    Load(LoadLook),
    Pressure(PressureLook),
    /// Needs no probe: the supervisor knows.
    Process,
    Log(LogLook),
    Silence(SilenceLook),
    Heartbeat(HeartbeatLook),
    Certificate(CertificateLook),
}

/// Where a value stops being good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds<T> {
    pub warn: Option<T>,
    pub fail: Option<T>,
}

/// Where a value lies between [`Bounds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Good,
    Warn,
    Fail,
}

/// Bytes, or a share of what there is in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Bytes(u64),
    Percent(f64),
}

/// A text that is never shown; [`Hidden::reveal`] is the only way to it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hidden(String);

/// Where a password comes from. A variable or file is read anew for each probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    Written(Hidden),
    /// A variable of the program's environment, for the host of the daemon's.
    Variable(String),
    /// The file's first line.
    File(PathBuf),
}

/// What a client connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(Address),
    Unix(PathBuf),
}

/// How a server proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `false` takes any certificate.
    pub verify: bool,
    /// Certificates to trust in PEM; `None` takes those of the system.
    pub ca: Option<PathBuf>,
    /// The name that the certificate must be for, and that is asked for (SNI).
    pub server_name: String,
}

/// A command with the exit codes of a Nagios plugin: 0 passes, 1 warns, 2 fails, 3 is unknown;
/// any other fails, but 126 and 127, with which a shell says that there was no such command, and
/// a signal are unknown too. A first line of nothing but `drain`, `maint` or `down#reason` says
/// more than the code.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecLook {
    /// Never empty. Runs with the program's directory, environment and limits.
    pub argv: Vec<String>,
    /// `None` runs it as the program is run, for the host as the daemon.
    pub user: Option<Identity>,
    /// A regular expression that the output must match, else it fails.
    pub output: Option<String>,
}

/// Something accepts a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpLook {
    pub endpoint: Endpoint,
    /// Sent after the connection is there.
    pub send: Option<String>,
    /// A regular expression that what comes back must match within the time limit.
    pub expect: Option<String>,
    /// Until the connection is there, or what is expected.
    pub latency: Option<Bounds<Duration>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMethod {
    Get,
    Head,
}

/// A request is answered well. Redirections are not followed.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpLook {
    /// With `unix` its address is only the name that is asked for.
    pub target: HttpTarget,
    /// The socket to connect to in place of the target's address.
    pub unix: Option<PathBuf>,
    /// `Some` for https.
    pub tls: Option<Tls>,
    pub method: HttpMethod,
    /// Sent beside the usual ones; names in lower case, both parts valid.
    pub headers: BTreeMap<String, Hidden>,
    /// A regular expression that the beginning of the body must match.
    pub body: Option<String>,
    /// Regular expressions that headers of the answer must match; names in lower case.
    pub answer_headers: BTreeMap<String, String>,
    /// Until the whole answer is there.
    pub latency: Option<Bounds<Duration>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisRole {
    Master,
    Replica,
}

/// `PING` is answered, after AUTH where there is a password.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisLook {
    pub endpoint: Endpoint,
    pub user: Option<String>,
    pub password: Option<Password>,
    /// What `ROLE` must say.
    pub role: Option<RedisRole>,
    pub latency: Option<Bounds<Duration>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresServer {
    Tcp(Address),
    /// The socket `.s.PGSQL.PORT` in a directory.
    Unix {
        directory: PathBuf,
        port: u16,
    },
}

/// A query is answered, whatever the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresLook {
    pub server: PostgresServer,
    pub user: String,
    pub database: String,
    pub password: Option<Password>,
    /// `SELECT 1` unless something else is asked.
    pub query: String,
    /// From connecting to the answer.
    pub latency: Option<Bounds<Duration>>,
}

/// Memory in use. Of a process: with all that it has started, in percent of `limits.memory`, or
/// of the host's memory where there is no limit. Of the host: what is not available.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryLook {
    pub used: Bounds<Amount>,
}

/// Processor time in use on the average of the last `lasting`. Of a process: in percent of one
/// CPU, with all that it has started. Of the host: in percent of all its CPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuLook {
    pub percent: Bounds<f64>,
    pub lasting: Duration,
}

/// Open files in percent of their limit. Of a process: the one of its processes that is closest
/// to its own limit. Of the host: of all that the kernel allows.
#[derive(Debug, Clone, PartialEq)]
pub struct FdsLook {
    pub percent: Bounds<f64>,
}

/// What is free on the file system of a path, for the user that needs no privilege. Less is worse.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskLook {
    /// It, or the closest directory above it that exists.
    pub path: PathBuf,
    pub free: Bounds<Amount>,
    /// In percent; skipped on file systems that have no fixed number of inodes.
    pub free_inodes: Option<Bounds<f64>>,
}

/// Over how long the kernel's load average is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadSpan {
    One,
    Five,
    Fifteen,
}

/// The host's load average divided by the number of its CPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadLook {
    pub per_cpu: Bounds<f64>,
    pub span: LoadSpan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PressureOf {
    Cpu,
    Memory,
    Io,
}

/// Whether some or all tasks had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PressureShare {
    Some,
    Full,
}

/// Over how long the kernel's pressure average is, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PressureSpan {
    Ten,
    Sixty,
    ThreeHundred,
}

/// Share of time in which tasks waited for something, of a process's cgroup or of the host.
#[derive(Debug, Clone, PartialEq)]
pub struct PressureLook {
    pub of: PressureOf,
    pub share: PressureShare,
    pub span: PressureSpan,
    pub percent: Bounds<f64>,
}

/// How many lines of output within a time match a pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLook {
    /// A regular expression.
    pub pattern: String,
    /// This many or more.
    pub count: Bounds<u32>,
    pub within: Duration,
}

/// How long ago the last output of a process was, or its start.
#[derive(Debug, Clone, PartialEq)]
pub struct SilenceLook {
    pub longest: Bounds<Duration>,
}

/// A sign of life is not older than `within`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeartbeatLook {
    /// It is the time at which this file was last written; `None` is `WATCHDOG=1` on the
    /// notification socket.
    pub file: Option<PathBuf>,
    pub within: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateOf {
    /// What a server shows when it is asked for this name (SNI).
    Server { address: Address, server_name: String },
    /// The first certificate of a file in PEM.
    File(PathBuf),
}

/// Days until a certificate is no longer valid. Fewer are worse; trust is not looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateLook {
    pub of: CertificateOf,
    pub days_left: Bounds<u32>,
}

impl Look {
    pub fn kind(&self) -> CheckKind {
        match self {
            Self::Exec(_) => CheckKind::Exec,
            Self::Tcp(_) => CheckKind::Tcp,
            Self::Http(_) => CheckKind::Http,
            Self::Redis(_) => CheckKind::Redis,
            Self::Postgres(_) => CheckKind::Postgres,
            Self::Memory(_) => CheckKind::Memory,
            Self::Cpu(_) => CheckKind::Cpu,
            Self::Fds(_) => CheckKind::Fds,
            Self::Disk(_) => CheckKind::Disk,
            Self::Load(_) => CheckKind::Load,
            Self::Pressure(_) => CheckKind::Pressure,
            Self::Process => CheckKind::Process,
            Self::Log(_) => CheckKind::Log,
            Self::Silence(_) => CheckKind::Silence,
            Self::Heartbeat(_) => CheckKind::Heartbeat,
            Self::Certificate(_) => CheckKind::Certificate,
        }
    }
}

impl<T: PartialOrd + Copy> Bounds<T> {
    /// Judges a value of which more is worse: a bound that is reached counts.
    pub fn of_most(&self, value: T) -> Level {
        self.level(|bound| value >= bound)
    }

    /// Judges a value of which less is worse: a bound that is reached counts.
    pub fn of_least(&self, value: T) -> Level {
        self.level(|bound| value <= bound)
    }

    fn level(&self, is_reached: impl Fn(T) -> bool) -> Level {
        if self.fail.is_some_and(&is_reached) {
            Level::Fail
        } else if self.warn.is_some_and(&is_reached) {
            Level::Warn
        } else {
            Level::Good
        }
    }
}

impl Bounds<Amount> {
    /// Returns the bounds in bytes where there are `whole` bytes in all.
    pub fn in_bytes(&self, whole: u64) -> Bounds<u64> {
        let bytes = |amount: Amount| amount.in_bytes(whole);
        Bounds { warn: self.warn.map(bytes), fail: self.fail.map(bytes) }
    }
}

impl Amount {
    /// Returns how many bytes it is where there are `whole` bytes in all.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a byte more or less of a share makes no difference, and it saturates"
    )]
    pub fn in_bytes(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
        }
    }
}

impl PartialOrd for Amount {
    /// Bytes and a share cannot be compared before the whole is known.
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Bytes(one), Self::Bytes(other)) => one.partial_cmp(other),
            (Self::Percent(one), Self::Percent(other)) => one.partial_cmp(other),
            (Self::Bytes(_), Self::Percent(_)) | (Self::Percent(_), Self::Bytes(_)) => None,
        }
    }
}

impl Hidden {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text, which must go nowhere but to whom it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(super::secrets::HIDDEN)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { directory, port } => {
                write!(f, "{}/.s.PGSQL.{port}", directory.display())
            }
        }
    }
}

impl fmt::Display for Look {
    /// Says what is asked, without any secret: `http://127.0.0.1:8000/healthz`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(look) => {
                let command = look.argv.join(" ");
                f.write_str(&super::secrets::without_secrets(&command).unwrap_or(command))
            }
            Self::Tcp(look) => write!(f, "tcp {}", look.endpoint),
            Self::Http(look) => {
                let scheme = if look.tls.is_some() { "https" } else { "http" };
                let url = format!("{scheme}://{}{}", look.target.address, look.target.path);
                f.write_str(&super::secrets::without_secrets(&url).unwrap_or(url))?;
                match &look.unix {
                    Some(path) => write!(f, " on {}", path.display()),
                    None => Ok(()),
                }
            }
            Self::Redis(look) => write!(f, "redis {}", look.endpoint),
            Self::Postgres(look) => write!(f, "postgres {} at {}", look.database, look.server),
            Self::Memory(_) => f.write_str("memory in use"),
            Self::Cpu(look) => {
                write!(f, "processor time over {}", super::format_duration(look.lasting))
            }
            Self::Fds(_) => f.write_str("open files"),
            Self::Disk(look) => write!(f, "free space of {}", look.path.display()),
            Self::Load(_) => f.write_str("load of each CPU"),
            Self::Pressure(look) => match look.of {
                PressureOf::Cpu => f.write_str("waiting for the processor"),
                PressureOf::Memory => f.write_str("waiting for memory"),
                PressureOf::Io => f.write_str("waiting for disks"),
            },
            Self::Process => f.write_str("that it runs"),
            Self::Log(look) => write!(f, "lines that match `{}`", look.pattern),
            Self::Silence(_) => f.write_str("that it writes something"),
            Self::Heartbeat(look) => match &look.file {
                Some(file) => write!(f, "that {} is written", file.display()),
                None => f.write_str("`WATCHDOG=1` on its notification socket"),
            },
            Self::Certificate(look) => match &look.of {
                CertificateOf::Server { address, .. } => write!(f, "certificate of {address}"),
                CertificateOf::File(file) => write!(f, "certificate in {}", file.display()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_counts_from_where_it_is_reached() {
        let both = Bounds { warn: Some(80), fail: Some(90) };
        let levels = [79, 80, 89, 90].map(|value| both.of_most(value));
        assert_eq!(levels, [Level::Good, Level::Warn, Level::Warn, Level::Fail]);
        let least = Bounds { warn: Some(10), fail: Some(5) };
        let levels = [11, 10, 6, 5].map(|value| least.of_least(value));
        assert_eq!(levels, [Level::Good, Level::Warn, Level::Warn, Level::Fail]);
        let only = Bounds { warn: None, fail: Some(5) };
        assert_eq!([only.of_least(6), only.of_least(5)], [Level::Good, Level::Fail]);
    }

    #[test]
    fn a_share_is_one_of_the_whole() {
        let used = Bounds { warn: Some(Amount::Percent(50.0)), fail: Some(Amount::Bytes(900)) };
        assert_eq!(used.in_bytes(1_000), Bounds { warn: Some(500), fail: Some(900) });
    }

    #[test]
    fn what_is_hidden_is_in_no_debug_output() {
        let password = Password::Written(Hidden::new("s3cret".to_owned()));
        assert_eq!(format!("{password:?}"), "Written(***)");
    }
}
