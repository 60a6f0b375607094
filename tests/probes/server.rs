//! Real servers of Debian, and where they live.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use mendd::config::{Address, Endpoint};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A process that ends with its test, with all of its group.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.raw(), signal).expect("it has not been waited for");
    }

    /// Signals it with all that it has started in its group.
    pub(crate) fn signal_group(&self, signal: Signal) {
        killpg(self.raw(), signal).expect("it has not been waited for");
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end_with(mut self, signal: Signal) {
        let _ = kill(self.raw(), Signal::SIGCONT);
        let _ = kill(self.raw(), signal);
        let deadline = Instant::now() + crate::bench::PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Kills it and waits for its end.
    pub(crate) fn end(mut self) {
        self.finish();
    }

    fn raw(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("pids fit into i32"))
    }

    fn finish(&mut self) {
        // Gone is as good.
        let _ = killpg(self.raw(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A directory of the test, short enough for sockets.
pub(crate) fn directory() -> TempDir {
    tempfile::Builder::new().prefix("mend-probe-").tempdir_in("/tmp").expect("a directory")
}

/// A listener of the test and its address.
pub(crate) fn listener() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, Address { host: "127.0.0.1".into(), port })
}

/// An address that nothing listened on a moment ago.
pub(crate) fn free_address() -> Address {
    listener().1
}

pub(crate) fn unix(path: PathBuf) -> Endpoint {
    Endpoint::Unix(path)
}

/// Finds a program where Debian puts it, also off an ordinary user's PATH.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/bin", "/sbin"];
    let found = places.into_iter().map(|place| Path::new(place).join(name)).find(|p| p.is_file());
    if found.is_none() {
        skip(&format!("`{name}` is not installed"));
    }
    found
}

/// The directory with PostgreSQL's programs.
pub(crate) fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|v| v.path().join("bin")).find(|bin| bin.join("initdb").is_file());
    if found.is_none() {
        skip("PostgreSQL is not installed");
    }
    found
}

/// Says why a test does nothing on this machine.
pub(crate) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}
