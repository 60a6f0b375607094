//! `ready`, `start_timeout` and `watchdog`: when a start has worked and when a run has hung.

use std::time::Duration;

use super::command::words;
use super::diagnostic::{nearest, quote};
use super::model::{Logs, Sink, Spawn};
use super::read::Context;
use super::readiness::{HttpTarget, Probe, Probing, Ready, parse_address, parse_url};
use super::tree::{Node, Table};

/// How long a start may take when nothing is said.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one probe may take when nothing is said.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a command.
const EXEC_TIMEOUT: Duration = Duration::from_secs(10);
/// The kinds of readiness that are written as a table.
const KINDS: [&str; 5] = ["tcp", "http", "log", "after", "exec"];
/// What says more about one of them.
const MODIFIERS: [&str; 3] = ["status", "interval", "timeout"];
/// Descriptors that a program can be given for its readiness.
const DESCRIPTORS: std::ops::RangeInclusive<i32> = 3..=19;

/// What a program has written about its readiness.
pub(super) struct Readiness {
    pub(super) ready: Option<Ready>,
    pub(super) start_timeout: Duration,
    pub(super) watchdog: Option<Duration>,
}

/// Reads the three keys; `spawn` and `logs` are the program's own.
pub(super) fn readiness(
    cx: &Context<'_>,
    table: &Table<'_>,
    spawn: &Spawn,
    logs: &Logs,
) -> Readiness {
    let node = table.get(cx, "ready");
    let ready = node.as_ref().and_then(|node| ready(cx, node, spawn));
    let timeout = table.get(cx, "start_timeout");
    let start_timeout = timeout.as_ref().and_then(|node| cx.some_duration(node));
    if let (Some(node), Some(Ready::Log(_)), Sink::None) = (&node, &ready, logs.sink) {
        let message =
            "`ready` waits for output, which `logs.sink = \"none\"` throws away".to_owned();
        let help = "use another sink or another kind of readiness";
        cx.error(&node.place(), "conflicting-keys", message, help);
    }
    if let (Some(Ready::After(after)), Some(limit)) = (&ready, start_timeout)
        && *after >= limit
        && let (Some(node), Some(timeout)) = (&node, &timeout)
    {
        let message = "`ready.after` is not shorter than `start_timeout`".to_owned();
        let label = (&timeout.place(), "no start may take longer than this".to_owned());
        cx.error_with(&node.place(), "impossible-timing", message, "make it shorter", label);
    }
    Readiness {
        ready,
        start_timeout: start_timeout.unwrap_or(START_TIMEOUT),
        watchdog: table.get(cx, "watchdog").and_then(|node| cx.some_duration(&node)),
    }
}

fn ready(cx: &Context<'_>, node: &Node<'_>, spawn: &Spawn) -> Option<Ready> {
    if node.is_string() {
        return word(cx, node);
    }
    let Some(layer) = node.table() else {
        cx.wrong_type(node, "a string or a table");
        return None;
    };
    let prefix = node.key.clone();
    let table = Table { prefix, ..Table::new(node.section, vec![layer.clone()]) };
    table.check_keys(cx);
    let given: Vec<Node<'_>> = KINDS.iter().filter_map(|kind| table.get(cx, kind)).collect();
    let [kind] = given.as_slice() else {
        if let Some(second) = given.get(1) {
            let message = "`ready` waits for one thing, not for several".to_owned();
            let label = (&given[0].place(), "also given here".to_owned());
            let help = "keep one; `exec` can run a script that asks for more";
            cx.error_with(&second.place(), "conflicting-keys", message, help, label);
        } else if layer.table.iter().all(|(key, _)| MODIFIERS.contains(&&**key.get_ref())) {
            let message = "`ready` does not say what to wait for".to_owned();
            let help = format!("give one of {}", KINDS.join(", "));
            cx.error(&node.place(), "missing-key", message, &help);
        }
        return None;
    };
    let name = kind.key.rsplit('.').next().unwrap_or_default();
    let is_probe = matches!(name, "tcp" | "http" | "exec");
    let misplaced = [("status", name == "http"), ("interval", is_probe), ("timeout", is_probe)];
    for (key, _) in misplaced.into_iter().filter(|(_, fits)| !fits) {
        if let Some(node) = table.get(cx, key) {
            let message = format!("`{}` has no meaning together with `{}`", node.key, kind.key);
            cx.error(&node.place(), "conflicting-keys", message, "remove it");
        }
    }
    match name {
        "log" => pattern(cx, kind).map(Ready::Log),
        "after" => cx.some_duration(kind).map(Ready::After),
        _ => probing(cx, &table, name, kind, spawn).map(Ready::Probe),
    }
}

/// Reads a kind of readiness that is written as a word.
fn word(cx: &Context<'_>, node: &Node<'_>) -> Option<Ready> {
    let text = cx.string(node)?;
    if text == "notify" {
        return Some(Ready::Notify);
    }
    if let Some(number) = text.strip_prefix("fd:") {
        let number = number.parse::<i32>().ok().filter(|number| DESCRIPTORS.contains(number));
        if number.is_none() {
            let (first, last) = (DESCRIPTORS.start(), DESCRIPTORS.end());
            let message = format!("`ready` must name a descriptor from {first} to {last}");
            cx.error(&node.place(), "out-of-range", message, "for example `ready = \"fd:3\"`");
        }
        return number.map(Ready::Descriptor);
    }
    let message = format!("`ready` cannot be {}", quote(&text));
    let help = match nearest(&text, ["notify", "fd:3"]) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            "use \"notify\", \"fd:3\" or a table such as { tcp = \"127.0.0.1:5432\" }".to_owned()
        }
    };
    cx.error(&node.place(), "unknown-value", message, &help);
    None
}

/// Reads a regular expression that does not match everything.
pub(super) fn pattern(cx: &Context<'_>, node: &Node<'_>) -> Option<String> {
    let text = cx.string(node)?;
    if text.is_empty() {
        return cx.bad(node, "is empty and would match every line");
    }
    match regex::bytes::Regex::new(&text) {
        Ok(_) => Some(text),
        Err(regex::Error::CompiledTooBig(_)) => cx.bad(node, "is too large a regular expression"),
        Err(error) => {
            // The last line says what is wrong, those before it draw the pattern again.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            cx.bad(node, format!("must be a regular expression: {reason}"))
        }
    }
}

fn probing(
    cx: &Context<'_>,
    table: &Table<'_>,
    name: &str,
    kind: &Node<'_>,
    spawn: &Spawn,
) -> Option<Probing> {
    let interval = table.get(cx, "interval");
    let timeout = table.get(cx, "timeout");
    let every = interval.as_ref().and_then(|node| cx.some_duration(node));
    let limit = timeout.as_ref().and_then(|node| cx.some_duration(node));
    if let (Some(every), Some(limit)) = (every, limit)
        && limit >= every
        && let (Some(interval), Some(timeout)) = (&interval, &timeout)
    {
        let message = format!("`{}` is not shorter than `{}`", timeout.key, interval.key);
        let label = (&interval.place(), "the next probe would be due by then".to_owned());
        let help = "make the timeout shorter or the interval longer";
        cx.error_with(&timeout.place(), "impossible-timing", message, help, label);
    }
    let probe = match name {
        "tcp" => Probe::Tcp(parsed(cx, kind, "an address", parse_address)?),
        "http" => {
            let (address, path) = parsed(cx, kind, "a URL", parse_url)?;
            let statuses = table.get(cx, "status").map(|node| statuses(cx, &node));
            Probe::Http(HttpTarget { address, path, statuses: statuses.unwrap_or_default() })
        }
        _ => Probe::Exec(words(cx, kind, Some(spawn))?),
    };
    let usual = if matches!(probe, Probe::Exec(_)) { EXEC_TIMEOUT } else { PROBE_TIMEOUT };
    let timeout = limit.unwrap_or_else(|| every.map_or(usual, |every| usual.min(every)));
    Some(Probing { probe, interval: every, timeout })
}

/// Reads a text by `parse`, of which it is said what it must be.
pub(super) fn parsed<T, E: std::fmt::Display>(
    cx: &Context<'_>,
    node: &Node<'_>,
    what: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<T> {
    match parse(&cx.string(node)?) {
        Ok(value) => Some(value),
        Err(error) => cx.bad(node, format!("must be {what}: {error}")),
    }
}

/// Reads one status or a list of them.
pub(super) fn statuses(cx: &Context<'_>, node: &Node<'_>) -> Vec<u16> {
    let status =
        |node: &Node<'_>| cx.integer(node, 100..=599).and_then(|number| u16::try_from(number).ok());
    if node.is_integer() || node.is_string() {
        return status(node).into_iter().collect();
    }
    cx.list(node).unwrap_or_default().iter().filter_map(status).collect()
}
