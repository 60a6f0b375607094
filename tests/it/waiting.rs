//! Waiting for what a daemon says, for the integration tests and for those that break it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use mendd::api::view::{ProcessView, StatusView};

use crate::http;

/// Polls until `probe` gives a value; `what` and the last complaint go into the panic.
#[track_caller]
pub(crate) fn wait_within<T>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => {
                panic!("waited {patience:?} for {what}; last: {last}")
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Returns the status, `Err` when the daemon does not answer just now.
pub(crate) fn status_at(socket: &Path, patience: Duration) -> Result<StatusView, String> {
    let answer = http::request(socket, "GET", "/v1/status", None, patience)
        .map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("{answer:?}"));
    }
    serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {answer:?}"))
}

/// Returns one process of a status.
pub(crate) fn find<'a>(status: &'a StatusView, name: &str) -> Result<&'a ProcessView, String> {
    let found = status.programs.iter().find(|process| process.name == name);
    found.ok_or_else(|| format!("no process `{name}` in: {}", summary(status)))
}

/// Returns one process if it satisfies a condition.
pub(crate) fn found(
    status: &StatusView,
    name: &str,
    condition: impl Fn(&ProcessView) -> bool,
) -> Result<ProcessView, String> {
    let process = find(status, name)?;
    if condition(process) { Ok(process.clone()) } else { Err(format!("{process:#?}")) }
}

/// One line per process, at most thirty.
pub(crate) fn summary(status: &StatusView) -> String {
    let mut text = format!("{:?}\n", status.daemon);
    for process in status.programs.iter().take(30) {
        text.push_str(&format!("{} {} {}\n", process.name, process.state, process.reason));
    }
    text
}
