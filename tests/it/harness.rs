//! What every test needs: patience, commands run to their end, a daemon of its own.

mod daemon;
mod logs;
mod mount;
mod setup;
mod systemd;

pub(crate) use crate::waiting::find;
pub(crate) use daemon::Daemon;
pub(crate) use mount::Mount;
pub(crate) use setup::Setup;
pub(crate) use systemd::run_under_systemd;

use std::env;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::waiting::wait_within;

/// How long a condition may take to come true; `MEND_TEST_PATIENCE=3` makes it three times 20 s.
pub(crate) static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let factor = env::var("MEND_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(20).mul_f64(factor.unwrap_or(1.0))
});

/// Returns `true` when the long forms were asked for.
pub(crate) fn is_full() -> bool {
    env::var("MEND_TEST_FULL").is_ok_and(|value| value == "1")
}

/// Polls until `probe` gives a value; `what` and the last complaint go into the panic.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, probe: impl FnMut() -> Result<T, String>) -> T {
    wait_within(*PATIENCE, what, probe)
}

/// What a command that has ended left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code, 128 + signal for one that was killed.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command to its end; one that takes longer than the patience is killed and fails.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    let mut out = tempfile::tempfile().expect("a temporary file for stdout");
    let mut err = tempfile::tempfile().expect("a temporary file for stderr");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("a second handle"))
        .stderr(err.try_clone().expect("a second handle"))
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let status = wait_with_deadline(&mut child);
    let code = status.map(|s| s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0)));
    let ran = Ran { code: code.unwrap_or(-1), out: text_of(&mut out), err: text_of(&mut err) };
    assert!(status.is_some(), "{command:?} did not end within {:?}: {ran:#?}", *PATIENCE);
    ran
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("our own file is readable");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns `None`, with the child killed, when it outlived the patience.
fn wait_with_deadline(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + *PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Polls until `probe` is true; gives up at once on `Err`, and after the patience.
fn wait_or(mut probe: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let deadline = Instant::now() + *PATIENCE;
    while !probe()? {
        if Instant::now() >= deadline {
            return Err(format!("not within {:?}", *PATIENCE));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The last 8,000 characters of a text.
fn tail(text: &str) -> String {
    let start = text.char_indices().rev().nth(8000).map_or(0, |(index, _)| index);
    text[start..].to_owned()
}
