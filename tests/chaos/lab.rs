//! A daemon that is only found from outside: by `/proc` and by its socket, as it may be dead,
//! frozen or another one at any moment.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use mendd::api::view::{ProcessView, StatusView};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::http;
use crate::proc;
use crate::waiting::{found, status_at, wait_within};

const MENDD: &str = env!("CARGO_BIN_EXE_mendd");
pub(crate) const MENDCTL: &str = env!("CARGO_BIN_EXE_mendctl");
const BIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bin");

/// How long anything may take; `MEND_TEST_PATIENCE=3` makes it three times as long.
pub(crate) fn patience() -> Duration {
    let factor = env::var("MEND_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(30).mul_f64(factor.unwrap_or(1.0))
}

/// Polls until `probe` gives a value; the last complaint goes into the panic.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, probe: impl FnMut() -> Result<T, String>) -> T {
    wait_within(patience(), what, probe)
}

/// Asks for something; what comes of it is not waited for. Returns whether it was accepted.
pub(crate) fn act(socket: &Path, verb: &str, name: &str, signal: Option<&str>) -> bool {
    let signal = signal.map_or(String::new(), |signal| format!(",\"signal\":\"{signal}\""));
    let body = format!("{{\"names\":[\"{name}\"]{signal}}}");
    let wait = Duration::from_secs(2);
    http::request(socket, "POST", &format!("/v1/{verb}"), Some(&body), wait)
        .is_ok_and(|answer| answer.status == 200)
}

/// Which of the two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Keeper,
    Brain,
}

/// How the daemon is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    /// As who runs the test.
    Self_,
    /// As an ordinary user, `nobody`; needs root.
    Nobody,
    /// As PID 1 of a PID namespace; needs root.
    Init,
}

/// The directory of one test, and whatever of Mend is alive in it.
pub(crate) struct Lab {
    directory: TempDir,
    id: String,
    under: Under,
    started: Vec<Child>,
}

impl Lab {
    /// Makes the directory and writes the configuration; `{dir}`, `{data}` and `{bin}` are
    /// filled in.
    pub(crate) fn new(under: Under, programs: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::Builder::new()
            .prefix("mend-chaos-")
            .tempdir_in("/tmp")
            .expect("a directory for the test");
        let id = format!("chaos-{}-{count}", std::process::id());
        let lab = Self { directory, id, under, started: Vec::new() };
        fs::create_dir(lab.data()).expect("a directory for the programs' own files");
        lab.configure(programs);
        if under == Under::Nobody {
            for path in [lab.dir(), &lab.data()] {
                nix::unistd::chown(path, Some(65534.into()), Some(65534.into())).expect("root");
            }
        }
        fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755)).expect("ours");
        lab
    }

    pub(crate) fn configure(&self, programs: &str) {
        let text = format!(
            "[supervisor]\nsocket = \"{{dir}}/run/mend.sock\"\nstate_dir = \"{{dir}}/state\"\n\
             log_dir = \"{{dir}}/logs\"\n{programs}\n"
        );
        let dir = self.dir().to_str().expect("UTF-8");
        let text = text
            .replace("{dir}", dir)
            .replace("{data}", self.data().to_str().expect("UTF-8"))
            .replace("{bin}", BIN);
        fs::write(self.dir().join("mend.toml"), text).expect("a configuration");
    }

    pub(crate) fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// Where the programs keep their own books.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("run/mend.sock")
    }

    /// Starts a daemon as an operator does, whether or not one is there.
    pub(crate) fn start(&mut self) -> u32 {
        let wrapper: &[&str] = match self.under {
            Under::Self_ => &[],
            Under::Nobody => &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
            Under::Init => &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"],
        };
        let mut words: Vec<&str> = wrapper.to_vec();
        words.extend([MENDD, "--config"]);
        let log = |name: &str| {
            let path = self.dir().join(name);
            File::options().create(true).append(true).open(path).expect("a file for its words")
        };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(self.dir().join("mend.toml"));
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "MEND_SOCKET"]
        {
            command.env_remove(name);
        }
        let child = command
            .env("MEND_TEST_ID", &self.id)
            .stdin(Stdio::null())
            .stdout(log("daemon.out"))
            .stderr(log("daemon.log"))
            .spawn()
            .expect("mendd can be executed");
        let pid = child.id();
        self.started.push(child);
        pid
    }

    /// Reaps what was started and has ended; returns the last exit code of that `pid`.
    pub(crate) fn exit_code(&mut self, pid: u32) -> Option<i32> {
        let child = self.started.iter_mut().find(|child| child.id() == pid)?;
        child.try_wait().ok()??.code()
    }

    pub(crate) fn reap(&mut self) {
        self.started.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    }

    /// Every living process that descends from this lab's daemons, with its command line.
    pub(crate) fn family(&self) -> BTreeMap<u32, String> {
        proc::with_environment(&format!("MEND_TEST_ID={}", self.id))
    }

    /// Returns the pids of this role: none, one, or two in the moment of a change.
    pub(crate) fn find_all(&self, role: Role) -> Vec<u32> {
        let word = match role {
            Role::Keeper => " @keeper ",
            Role::Brain => " @brain ",
        };
        let family = self.family();
        let found: Vec<u32> =
            family.iter().filter(|(_, c)| c.contains(word)).map(|(pid, _)| *pid).collect();
        // Between fork and exec a process still looks like its parent.
        let is_fork = |pid: &u32| proc::parent(*pid).is_some_and(|parent| found.contains(&parent));
        found.iter().filter(|pid| !is_fork(pid)).copied().collect()
    }

    pub(crate) fn find(&self, role: Role) -> Option<u32> {
        self.find_all(role).first().copied()
    }

    /// Sends a signal to whoever has the role now; returns the pid.
    pub(crate) fn strike(&self, role: Role, signal: Signal) -> Option<u32> {
        let pid = self.find(role)?;
        proc::send(pid, signal);
        Some(pid)
    }

    /// Returns one of two further paths of the same executable, as a package manager makes them.
    pub(crate) fn another_mendd(&self, second: bool) -> PathBuf {
        let path = self.dir().join(if second { "mendd-b" } else { "mendd-a" });
        if !path.exists() {
            fs::copy(MENDD, &path).expect("a copy of mendd");
        }
        path
    }

    /// Asks for an upgrade to `binary`; returns whether the switch begins.
    pub(crate) fn upgrade(&self, binary: &Path) -> bool {
        let body = format!("{{\"binary\":{binary:?}}}");
        let wait = Duration::from_secs(10);
        http::request(&self.socket(), "POST", "/v1/upgrade", Some(&body), wait)
            .is_ok_and(|answer| answer.status == 200)
    }

    #[track_caller]
    pub(crate) fn wait_dead(&self, pid: u32) {
        wait_for(
            "death",
            || {
                if proc::is_alive(pid) { Err(format!("{pid} lives")) } else { Ok(()) }
            },
        );
    }

    /// Returns keeper and brain when both serve.
    pub(crate) fn settled(&self) -> Result<(u32, u32), String> {
        let ready =
            http::request(&self.socket(), "GET", "/healthz", None, Duration::from_millis(500));
        match ready {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Err(format!("not ready: {answer:?}")),
            Err(error) => return Err(format!("not ready: {error}")),
        }
        match (self.find_all(Role::Keeper).as_slice(), self.find_all(Role::Brain).as_slice()) {
            ([keeper], [brain]) if proc::parent(*brain) == Some(*keeper) => Ok((*keeper, *brain)),
            (keepers, brains) => Err(format!("keepers {keepers:?}, brains {brains:?}")),
        }
    }

    #[track_caller]
    pub(crate) fn wait_settled(&self) -> (u32, u32) {
        wait_for("keeper and brain that serve", || self.settled())
    }

    pub(crate) fn try_status(&self) -> Result<StatusView, String> {
        status_at(&self.socket(), patience())
    }

    pub(crate) fn process(&self, name: &str) -> Result<ProcessView, String> {
        found(&self.try_status()?, name, |_| true)
    }

    #[track_caller]
    pub(crate) fn wait_process(
        &self,
        name: &str,
        what: &str,
        reached: impl Fn(&ProcessView) -> bool,
    ) -> ProcessView {
        wait_for(&format!("`{name}` {what}"), || found(&self.try_status()?, name, &reached))
    }

    pub(crate) fn act(&self, verb: &str, name: &str, signal: Option<&str>) -> bool {
        act(&self.socket(), verb, name, signal)
    }

    /// Ends everything in order and checks that nothing is left alive.
    #[track_caller]
    pub(crate) fn shut_down(&mut self) {
        self.wait_settled();
        let answer = http::request(&self.socket(), "POST", "/v1/shutdown", None, patience());
        assert!(answer.as_ref().is_ok_and(|answer| answer.status == 200), "{answer:?}");
        wait_for("end of everything", || {
            let left = self.family();
            if left.is_empty() { Ok(()) } else { Err(format!("alive: {left:#?}")) }
        });
        self.reap();
        assert_eq!(self.duplicates(), "", "run twice");
    }

    pub(crate) fn duplicates(&self) -> String {
        fs::read_to_string(self.data().join("duplicates")).unwrap_or_default()
    }

    pub(crate) fn daemon_log(&self) -> String {
        fs::read_to_string(self.dir().join("daemon.log")).unwrap_or_default()
    }

    /// Keeps the directory of a failed test for whoever looks into it.
    fn keep(&mut self) {
        self.directory.disable_cleanup(true);
        eprintln!("--- everything is kept in {}", self.dir().display());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.daemon_log();
            let from = log.len().saturating_sub(6000);
            eprintln!("--- the daemon's log\n{}", String::from_utf8_lossy(&log.as_bytes()[from..]));
            self.keep();
        }
        for _ in 0..100 {
            let family = self.family();
            if family.is_empty() {
                break;
            }
            for pid in family.keys() {
                proc::send(*pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(20));
        }
        for child in &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
        mendd::os::claim::remove_left_over(&self.dir().join("run"));
    }
}
