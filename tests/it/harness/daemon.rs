//! A running daemon: what a test asks of it and does to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use mendd::api::view::{ProcessView, StatusView};
use nix::sys::signal::Signal;

use super::setup::{spawn, spawn_as_it_is};
use super::{PATIENCE, Ran, Setup, run, tail, wait_for, wait_or, wait_with_deadline};
use crate::http::{self, Answer, Events};
use crate::proc;
use crate::waiting::{find, found, status_at, summary};

const MENDCTL: &str = env!("CARGO_BIN_EXE_mendctl");

/// A running daemon. Dropping it stops it and checks that nothing it started is alive.
pub(crate) struct Daemon {
    setup: Setup,
    /// What was executed: the keeper, or the wrapper around it.
    process: Child,
}

impl Daemon {
    pub(super) fn new(setup: Setup, process: Child) -> Self {
        Self { setup, process }
    }

    #[track_caller]
    pub(crate) fn start(programs: &str) -> Self {
        Setup::new(programs).start()
    }

    /// Starts the daemon again after it was killed as a whole.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = spawn(&self.setup, self.setup.command());
        self.wait_until_ready();
    }

    /// As [`Daemon::start_again`], on the configuration file as it is now.
    #[track_caller]
    pub(crate) fn start_again_as_it_is(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = spawn_as_it_is(&self.setup);
        self.wait_until_ready();
    }

    /// Runs another daemon on the directory of this one, to its end.
    #[track_caller]
    pub(crate) fn start_second(&self) -> Ran {
        run(&mut self.setup.command())
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) {
        let socket = self.socket();
        let process = &mut self.process;
        let ready = wait_or(|| {
            if let Some(status) = process.try_wait().expect("our own child") {
                return Err(format!("it ended: {status}"));
            }
            match http::request(&socket, "GET", "/healthz", None, Duration::from_secs(2)) {
                Ok(answer) if answer.status == 200 => Ok(true),
                Ok(_) | Err(_) => Ok(false),
            }
        });
        if let Err(reason) = ready {
            panic!("the daemon did not become ready: {reason}");
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.setup.dir()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("run/mend.sock")
    }

    /// The pid of what the test executed; without a wrapper it is the keeper.
    pub(crate) fn main_pid(&self) -> u32 {
        self.process.id()
    }

    /// Runs `mendctl` with these arguments against this daemon.
    #[track_caller]
    pub(crate) fn ctl(&self, args: &[&str]) -> Ran {
        run(&mut self.ctl_command(args))
    }

    /// Runs `mendctl` and fails unless it exits with 0.
    #[track_caller]
    pub(crate) fn ctl_ok(&self, args: &[&str]) -> Ran {
        let ran = self.ctl(args);
        assert_eq!(ran.code, 0, "mendctl {args:?}: {ran:#?}");
        ran
    }

    pub(crate) fn ctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(MENDCTL);
        command.arg("--socket").arg(self.socket()).args(args);
        command.env("NO_COLOR", "1").env_remove("MEND_SOCKET");
        command
    }

    #[track_caller]
    pub(crate) fn http(&self, method: &str, target: &str, body: Option<&str>) -> Answer {
        http::request(&self.socket(), method, target, body, *PATIENCE)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    pub(crate) fn events(&self, after: Option<u64>) -> Events {
        Events::open(&self.socket(), after, *PATIENCE).expect("the event stream opens")
    }

    /// Returns the status, `Err` when the daemon does not answer just now.
    pub(crate) fn try_status(&self) -> Result<StatusView, String> {
        status_at(&self.socket(), *PATIENCE)
    }

    /// Returns the status as soon as the daemon answers.
    #[track_caller]
    pub(crate) fn status(&self) -> StatusView {
        wait_for("the daemon to answer", || self.try_status())
    }

    #[track_caller]
    pub(crate) fn process(&self, name: &str) -> ProcessView {
        find(&self.status(), name).unwrap_or_else(|error| panic!("{error}")).clone()
    }

    /// Waits until the whole status satisfies a condition, and returns that status.
    #[track_caller]
    pub(crate) fn wait_until(
        &self,
        what: &str,
        reached: impl Fn(&StatusView) -> bool,
    ) -> StatusView {
        wait_for(what, || {
            let status = self.try_status()?;
            if reached(&status) { Ok(status) } else { Err(summary(&status)) }
        })
    }

    /// Waits until one process satisfies a condition, and returns it.
    #[track_caller]
    pub(crate) fn wait_process(
        &self,
        name: &str,
        what: &str,
        reached: impl Fn(&ProcessView) -> bool,
    ) -> ProcessView {
        wait_for(&format!("`{name}` {what}"), || found(&self.try_status()?, name, &reached))
    }

    #[track_caller]
    pub(crate) fn wait_state(&self, name: &str, state: &str) -> ProcessView {
        self.wait_process(name, &format!("to be {state}"), |process| process.state == state)
    }

    /// Waits until a process runs and returns its pid.
    #[track_caller]
    pub(crate) fn pid(&self, name: &str) -> u32 {
        let running = |process: &ProcessView| process.state == "RUNNING" && process.pid.is_some();
        self.wait_process(name, "to run", running).pid.expect("a running process has a pid")
    }

    /// Waits until a process runs under another pid than `old`, and returns the new one.
    #[track_caller]
    pub(crate) fn new_pid(&self, name: &str, old: u32) -> u32 {
        let replaced = |process: &ProcessView| {
            process.state == "RUNNING" && process.pid.is_some_and(|pid| pid != old)
        };
        self.wait_process(name, "to run again", replaced).pid.expect("a running process has a pid")
    }

    pub(crate) fn brain_pid(&self) -> u32 {
        self.status().daemon.pid
    }

    pub(crate) fn keeper_pid(&self) -> u32 {
        self.status().daemon.keeper_pid
    }

    /// Kills the brain with SIGKILL and returns when another one serves.
    #[track_caller]
    pub(crate) fn kill_brain(&self) {
        let old = self.brain_pid();
        proc::send(old, Signal::SIGKILL);
        self.wait_until("another brain", |status| status.daemon.pid != old);
    }

    /// Kills the keeper with SIGKILL and returns when another one stands.
    #[track_caller]
    pub(crate) fn kill_keeper(&self) {
        let old = self.keeper_pid();
        proc::send(old, Signal::SIGKILL);
        self.wait_until("another keeper", |status| status.daemon.keeper_pid != old);
    }

    /// Kills keeper and brain at once: both are stopped first, so that neither sees the other die.
    #[track_caller]
    pub(crate) fn kill_both(&self) {
        let daemon = self.status().daemon;
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            proc::send(daemon.keeper_pid, signal);
            proc::send(daemon.pid, signal);
        }
        wait_for("keeper and brain to be dead", || {
            let dead = !proc::is_alive(daemon.keeper_pid) && !proc::is_alive(daemon.pid);
            dead.then_some(()).ok_or_else(|| "still alive".to_owned())
        });
    }

    /// Replaces the programs in the configuration file; nothing is told to the daemon.
    pub(crate) fn write_programs(&self, programs: &str) {
        let text = self.setup.config_text(programs);
        fs::write(self.setup.config_path(), text).expect("the configuration can be replaced");
    }

    /// What the daemon itself said.
    pub(crate) fn daemon_log(&self) -> String {
        fs::read_to_string(self.file("daemon.log")).unwrap_or_default()
    }

    /// Ends the daemon as a service manager does, with SIGTERM, and returns its exit code.
    #[track_caller]
    pub(crate) fn stop(mut self) -> i32 {
        proc::send(self.main_pid(), Signal::SIGTERM);
        self.wait_exit()
    }

    /// Waits until the daemon has ended by itself; nothing that it started may be alive.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> i32 {
        let status = wait_with_deadline(&mut self.process).expect("the daemon ends in time");
        self.assert_nothing_left();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Every living process that descends from this test's daemon, itself included.
    pub(crate) fn family(&self) -> BTreeMap<u32, String> {
        proc::with_environment(&format!("MEND_TEST_ID={}", self.setup.id))
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        wait_for("everything that the daemon started to be gone", || {
            let left = self.family();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let panicking = thread::panicking();
        if panicking {
            eprintln!("--- the daemon's log\n{}", tail(&self.daemon_log()));
            if let Ok(status) = self.try_status() {
                eprintln!("--- the last status\n{}", summary(&status));
            }
        }
        if !self.family().is_empty() && !panicking {
            let _ = http::request(&self.socket(), "POST", "/v1/shutdown", None, *PATIENCE);
        }
        let left = wait_or(|| Ok(panicking || self.family().is_empty()));
        let family = self.family();
        for pid in family.keys() {
            proc::send(*pid, Signal::SIGKILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // What a daemon that was killed leaves on purpose.
        mendd::os::pin::dismantle(&self.dir().join("run/pins"));
        mendd::os::claim::remove_left_over(&self.dir().join("run"));
        let gone = wait_or(|| Ok(self.family().is_empty()));
        if !panicking {
            assert!(left.is_ok(), "alive after the shutdown: {family:#?}");
            assert!(gone.is_ok(), "alive after SIGKILL: {:#?}", self.family());
        }
    }
}
