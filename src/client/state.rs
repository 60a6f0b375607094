//! How a process is shown: symbol, colour and one line of detail.

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;

use super::exit::Exit;
use super::when;
use crate::api::view::ProcessView;

/// What a state means to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Quiet,
    Busy,
    Bad,
}

/// Returns the tone of a process; a failed check spoils a running one.
pub fn tone(process: &ProcessView) -> Tone {
    match process.state.as_str() {
        "RUNNING" if is_unhealthy(process) => Tone::Busy,
        "RUNNING" => Tone::Good,
        "STOPPED" => Tone::Quiet,
        "EXITED" => match &process.exit {
            Some(exit) if exit.code == Some(0) => Tone::Quiet,
            Some(_) if process.goal == "up" => Tone::Bad,
            Some(_) | None => Tone::Quiet,
        },
        "STARTING" | "STOPPING" | "BACKOFF" => Tone::Busy,
        _ => Tone::Bad,
    }
}

/// Returns `●`, `○`, `▲` or `✗`, or a letter-like stand-in.
pub fn symbol(tone: Tone, unicode: bool) -> &'static str {
    match (tone, unicode) {
        (Tone::Good, true) => "●",
        (Tone::Quiet, true) => "○",
        (Tone::Busy, true) => "▲",
        (Tone::Bad, true) => "✗",
        (Tone::Good, false) => "*",
        (Tone::Quiet, false) => "-",
        (Tone::Busy, false) => "!",
        (Tone::Bad, false) => "x",
    }
}

pub fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Quiet => Style::new().dimmed(),
        Tone::Busy => AnsiColor::Yellow.on_default(),
        Tone::Bad => AnsiColor::Red.on_default().bold(),
    }
}

pub fn is_running(process: &ProcessView) -> bool {
    process.state == "RUNNING"
}

/// Whether checks say that a running process is not well.
pub fn is_unhealthy(process: &ProcessView) -> bool {
    matches!(process.health.as_str(), "down" | "healing" | "verifying" | "flapping" | "broken")
}

/// Returns what matters most now: when it is tried again, what it waits for, or why it is so.
pub fn detail(process: &ProcessView, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if is_running(process) && process.health != "none" && process.health != "up" {
        parts.push(process.health.clone());
    }
    parts.extend(process.incident.map(|incident| format!("incident {incident}")));
    if !process.waiting_for.is_empty() {
        parts.push(format!("waits for {}", process.waiting_for.join(", ")));
    }
    if let Some(retry) = next_try(process, now) {
        parts.push(retry);
    }
    if process.breaker != "closed" {
        parts.push(format!("breaker {}", process.breaker));
    }
    if is_running(process) {
        parts.extend(process.status_text.clone());
    } else {
        match &process.exit {
            _ if !process.reason.is_empty() => parts.push(process.reason.clone()),
            Some(exit) => parts.push(exit.text.clone()),
            None => {}
        }
    }
    parts.join("; ")
}

/// Returns `next try in 12s, 4th of 5`, while one is due.
pub fn next_try(process: &ProcessView, now: Timestamp) -> Option<String> {
    let at = process.retry_at.as_deref()?;
    let left = when::until(at, now)?;
    let mut text = format!("next try in {}", when::short(left));
    if process.failures > 0 && process.failures_limit > 0 {
        text.push_str(&format!(", failed {} of {}", process.failures, process.failures_limit));
    }
    Some(text)
}

/// Returns the exit code of `status`.
///
/// With names, everything named has to run. Without, it is enough that what is wanted runs or
/// has ended well.
pub fn verdict(processes: &[ProcessView], named: bool) -> Exit {
    let is_missing = |process: &&ProcessView| {
        !is_running(process) && (named || (process.goal == "up" && tone(process) != Tone::Quiet))
    };
    if processes.iter().any(|process| is_missing(&process)) {
        Exit::NotRunning
    } else if processes.iter().any(|process| is_running(process) && is_unhealthy(process)) {
        Exit::Unhealthy
    } else {
        Exit::Ok
    }
}
