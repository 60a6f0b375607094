//! A `mendd` as an operator runs it: a configuration, a process, requests on its socket.

use std::fs;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine;

/// A crash is answered at once, however often: what is measured is the way there, not policy.
const POLICY: &str = "start_period = 0\nbackoff = { initial = \"1ms\", max = \"1ms\", \
                      reset_after = \"1ms\" }\nbreaker = { failures = 1000000 }\n";

/// A running daemon. Dropping it kills it.
pub(crate) struct Daemon {
    dir: PathBuf,
    process: Child,
}

impl Daemon {
    /// Starts a daemon in a fresh directory and returns without waiting for anything.
    pub(crate) fn start(dir: &Path, programs: &[(String, String)]) -> Self {
        Self::start_with(dir, programs, "")
    }

    /// As [`Daemon::start`], with more lines in `[supervisor]`.
    pub(crate) fn start_with(dir: &Path, programs: &[(String, String)], lines: &str) -> Self {
        // The configuration has a directory of its own: the daemon watches that for changes.
        fs::create_dir_all(dir.join("etc")).expect("the directory is writable");
        let at = dir.display();
        let mut text = format!(
            "[supervisor]\nsocket = \"{at}/run/mend.sock\"\nstate_dir = \"{at}/state\"\n\
             log_dir = \"{at}/logs\"\n{lines}"
        );
        for (name, lines) in programs {
            text.push_str(&format!("[program.{name}]\n{lines}{POLICY}"));
        }
        fs::write(dir.join("etc/mend.toml"), text).expect("the directory is writable");
        let log = File::create(dir.join("daemon.log")).expect("the directory is writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mendd"));
        command.arg("--config").arg(dir.join("etc/mend.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS"] {
            command.env_remove(name);
        }
        let process = command.spawn().expect("mendd was built with the benchmark");
        Self { dir: dir.to_owned(), process }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("run/mend.sock")
    }

    pub(crate) fn log(&self, program: &str) -> PathBuf {
        self.dir.join("logs").join(program).join("0.stdout.log")
    }

    pub(crate) fn connect(&self) -> io::Result<Connection> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    fn status(&self) -> Option<Value> {
        serde_json::from_slice(self.connect().ok()?.get("/v1/status").ok()?).ok()
    }

    /// Waits until `count` processes run, and returns the pids of keeper and brain.
    #[track_caller]
    pub(crate) fn wait_running(&self, count: usize) -> (u32, u32) {
        machine::wait_for("all programs to run", Duration::from_millis(5), || {
            let status = self.status()?;
            let programs = status["programs"].as_array()?;
            let running = programs.iter().filter(|process| process["state"] == "RUNNING").count();
            (running == count).then(|| pids(&status["daemon"]))?
        })
    }

    /// Waits until another brain (and with `keeper` another keeper) answers a status in which
    /// `count` processes run, and returns its pids.
    #[track_caller]
    pub(crate) fn wait_for_next(
        &self,
        before: (u32, u32),
        keeper: bool,
        count: usize,
    ) -> (u32, u32) {
        machine::wait_for("the next brain", Duration::from_micros(500), || {
            let status = self.status()?;
            let next = pids(&status["daemon"])?;
            if next.1 == before.1 || (keeper && next.0 == before.0) {
                return None;
            }
            let programs = status["programs"].as_array()?;
            let running = programs.iter().filter(|process| process["state"] == "RUNNING").count();
            assert_eq!(running, count, "a brain answers before it has taken over");
            Some(next)
        })
    }

    /// Ends the daemon with SIGTERM to its keeper, and returns when both are gone.
    pub(crate) fn stop(&mut self, keeper: u32) {
        machine::signal(keeper, Signal::SIGTERM);
        machine::wait_for("the daemon to end", Duration::from_micros(500), || {
            reap();
            (!machine::is_there(keeper)).then_some(())
        });
    }

    pub(crate) fn kill_keeper(&self, keeper: u32) {
        machine::signal(keeper, Signal::SIGKILL);
        reap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        machine::kill_all_of(Path::new(env!("CARGO_BIN_EXE_mendd")));
        reap();
        let _ = fs::remove_dir_all(&self.dir); // It may be memory, and a GiB of logs.
    }
}

/// Takes the statuses of all children that have ended; this process is a subreaper.
pub(crate) fn reap() {
    while waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG))
        .is_ok_and(|status| status.pid().is_some())
    {}
}

fn pids(daemon: &Value) -> Option<(u32, u32)> {
    let pid = |key: &str| daemon[key].as_u64().and_then(|pid| u32::try_from(pid).ok());
    Some((pid("keeper_pid")?, pid("pid")?))
}

/// One kept connection to the API.
pub(crate) struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Asks and returns the body of the answer.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<&[u8]> {
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: mend\r\n\r\n")?;
        self.buffer.clear();
        let mut chunk = vec![0; 64 << 10];
        loop {
            let length = self.stream.read(&mut chunk)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..length]);
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| io::Error::other(format!("an answer without a length: {head}")))?;
            if self.buffer.len() >= end + 4 + length {
                return Ok(&self.buffer[end + 4..end + 4 + length]);
            }
        }
    }
}
