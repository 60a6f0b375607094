//! When a program is started, restarted and stopped.

use std::time::Duration;

use super::model::{Backoff, Breaker, Lifecycle, Logs, RestartPolicy, Spawn, Stop, StopStep};
use super::read::{Context, Place};
use super::ready::readiness;
use super::tree::{Node, Table};
use crate::name::ProgramName;

const SIGTERM: i32 = libc::SIGTERM;
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
const DEFAULT_PRIORITY: i32 = 999;
/// Most signals in one stop sequence.
const MAX_STOP_STEPS: usize = 16;

/// How one program depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Requires,
    Wants,
    After,
    RestartWith,
}

impl Edge {
    /// Returns the key that the edge is written under.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Requires => "requires",
            Self::Wants => "wants",
            Self::After => "after",
            Self::RestartWith => "restart_with",
        }
    }
}

/// One written dependency.
pub(super) struct Dependency {
    pub edge: Edge,
    pub on: ProgramName,
    pub place: Place,
}

/// Reads the part of a program that the core decides by; `spawn` and `logs` are its others.
pub(super) fn lifecycle(
    cx: &Context<'_>,
    table: &Table<'_>,
    spawn: &Spawn,
    logs: &Logs,
) -> (Lifecycle, Vec<Dependency>) {
    let get = |key: &str| table.get(cx, key);
    let policies = [
        ("always", RestartPolicy::Always),
        ("on-failure", RestartPolicy::OnFailure),
        ("never", RestartPolicy::Never),
    ];
    let mut dependencies = Vec::new();
    let mut edges = |edge: Edge| -> Vec<ProgramName> {
        let found = get(edge.key()).map(|node| program_names(cx, &node)).unwrap_or_default();
        let names = found.iter().map(|(name, _)| name.clone()).collect();
        dependencies.extend(found.into_iter().map(|(on, place)| Dependency { edge, on, place }));
        names
    };
    let requires = edges(Edge::Requires);
    let wants = edges(Edge::Wants);
    let after = edges(Edge::After);
    let restart_with = edges(Edge::RestartWith);
    let readiness = readiness(cx, table, spawn, logs);
    let range = i64::from(i32::MIN)..=i64::from(i32::MAX);
    let priority = get("priority").and_then(|node| cx.integer(&node, range));
    let codes = |key: &str| get(key).map(|node| exit_codes(cx, &node));
    let (success, permanent) = (codes("success_exit_codes"), codes("permanent_exit_codes"));
    let success = success.unwrap_or_else(|| vec![0]);
    let permanent = permanent.unwrap_or_default();
    if let (Some(code), Some(node)) =
        (permanent.iter().find(|code| success.contains(code)), get("permanent_exit_codes"))
    {
        let message =
            format!("exit code {code} is a success and permanent: the program goes to FATAL");
        let help = "keep it in one of `success_exit_codes` and `permanent_exit_codes`";
        cx.warning(&node.place(), "contradictory-exit-code", message, help);
    }
    let lifecycle = Lifecycle {
        autostart: get("autostart").and_then(|node| cx.boolean(&node)).unwrap_or(true),
        priority: priority.and_then(|n| i32::try_from(n).ok()).unwrap_or(DEFAULT_PRIORITY),
        requires,
        wants,
        after,
        restart_with,
        start_period: start_period(cx, table),
        ready: readiness.ready,
        start_timeout: readiness.start_timeout,
        watchdog: readiness.watchdog,
        restart: get("restart")
            .and_then(|node| cx.choice(&node, &policies))
            .unwrap_or(RestartPolicy::Always),
        success_exit_codes: success,
        permanent_exit_codes: permanent,
        backoff: backoff(cx, &table.sub(cx, "backoff")),
        breaker: breaker(cx, &table.sub(cx, "breaker")),
        stop: stop(cx, table),
        reload_signal: get("reload_signal").and_then(|node| cx.signal(&node)),
    };
    (lifecycle, dependencies)
}

/// Reads a list of programs' names, each with its place; one that comes twice counts once.
pub(super) fn program_names(cx: &Context<'_>, node: &Node<'_>) -> Vec<(ProgramName, Place)> {
    let mut names: Vec<(ProgramName, Place)> = Vec::new();
    for (text, item) in cx.strings(node).unwrap_or_default() {
        match text.parse::<ProgramName>() {
            Ok(name) if names.iter().any(|(known, _)| *known == name) => {
                let message = format!("`{name}` is listed twice in `{}`", node.key);
                cx.warning(&item.place(), "listed-twice", message, "remove one");
            }
            Ok(name) => names.push((name, item.place())),
            Err(error) => {
                cx.error(&item.place(), "bad-name", error.to_string(), "name a program");
            }
        }
    }
    names
}

/// Reads `start_period` or its other name `startsecs`, never both of one table.
fn start_period(cx: &Context<'_>, table: &Table<'_>) -> Duration {
    for layer in &table.layers {
        let one = Table { layers: vec![layer.clone()], ..table.clone() };
        let node = match (one.get(cx, "start_period"), one.get(cx, "startsecs")) {
            (Some(node), Some(other)) => {
                let message = "`startsecs` is another name of `start_period`".to_owned();
                let label = (&node.place(), "also given here".to_owned());
                cx.error_with(&other.place(), "conflicting-keys", message, "keep one", label);
                node
            }
            (Some(node), None) | (None, Some(node)) => node,
            (None, None) => continue,
        };
        if let Some(duration) = cx.duration(&node) {
            return duration;
        }
    }
    Duration::from_secs(1)
}

fn exit_codes(cx: &Context<'_>, node: &Node<'_>) -> Vec<i32> {
    let items = cx.list(node).unwrap_or_default();
    let code = |item: &Node<'_>| cx.integer(item, 0..=255).and_then(|n| i32::try_from(n).ok());
    items.iter().filter_map(code).collect()
}

/// Reads a pair of a first and a largest duration.
///
/// Only what is written can be in conflict: a default gives way to what the operator wrote.
fn rising(
    cx: &Context<'_>,
    table: &Table<'_>,
    (first_key, first_default): (&str, Duration),
    (max_key, max_default): (&str, Duration),
) -> (Duration, Duration) {
    let first = table.get(cx, first_key);
    let max = table.get(cx, max_key);
    let first_value = first.as_ref().and_then(|node| cx.some_duration(node));
    let max_value = max.as_ref().and_then(|node| cx.some_duration(node));
    match (first_value, max_value) {
        (Some(low), Some(high)) if high < low => {
            if let (Some(first), Some(max)) = (&first, &max) {
                let message = format!("`{}` is smaller than `{}`", max.key, first.key);
                let label = (&first.place(), format!("`{}` is given here", first.key));
                let help = format!("make `{}` at least as large", max.key);
                cx.error_with(&max.place(), "max-below-first", message, &help, label);
            }
            (low, low)
        }
        (Some(low), Some(high)) => (low, high),
        (Some(low), None) => (low, max_default.max(low)),
        (None, Some(high)) => (first_default.min(high), high),
        (None, None) => (first_default, max_default),
    }
}

fn backoff(cx: &Context<'_>, table: &Table<'_>) -> Backoff {
    let initial = ("initial", Duration::from_millis(500));
    let (initial, max) = rising(cx, table, initial, ("max", Duration::from_secs(60)));
    let number = |key: &str, range: std::ops::RangeInclusive<f64>, what: &str| {
        let node = table.get(cx, key)?;
        let number = cx.number(&node)?;
        if range.contains(&number) { Some(number) } else { cx.bad(&node, what) }
    };
    Backoff {
        initial,
        max,
        factor: number("factor", 1.0..=1000.0, "must be between 1 and 1000").unwrap_or(2.0),
        jitter: number("jitter", 0.0..=1.0, "must be between 0 and 1").unwrap_or(0.25),
        reset_after: table
            .get(cx, "reset_after")
            .and_then(|node| cx.duration(&node))
            .unwrap_or(Duration::from_secs(60)),
    }
}

fn breaker(cx: &Context<'_>, table: &Table<'_>) -> Breaker {
    let failures = table.get(cx, "failures").and_then(|node| cx.integer(&node, 1..=1_000_000));
    let open = ("open", Duration::from_secs(300));
    let (open, max_open) = rising(cx, table, open, ("max_open", Duration::from_secs(3600)));
    Breaker {
        failures: failures.and_then(|n| u32::try_from(n).ok()).unwrap_or(5),
        window: table
            .get(cx, "window")
            .and_then(|node| cx.some_duration(&node))
            .unwrap_or(Duration::from_secs(120)),
        open,
        max_open,
    }
}

/// Reads `stop`: the strongest layer that has it decides between a sequence and one signal.
fn stop(cx: &Context<'_>, program: &Table<'_>) -> Stop {
    let mut table = program.sub(cx, "stop");
    let has = |table: &Table<'_>, key: &str| table.layers.iter().any(|l| l.table.contains_key(key));
    let first = table.layers.iter().position(|layer| layer.table.contains_key("sequence"));
    let single = table
        .layers
        .iter()
        .position(|layer| layer.table.contains_key("signal") || layer.table.contains_key("grace"));
    if let (Some(sequence), Some(single)) = (first, single) {
        if sequence == single {
            let one = Table { layers: vec![table.layers[sequence].clone()], ..table.clone() };
            if let Some(node) = one.get(cx, "sequence") {
                let message = "`stop` has both a sequence and a single signal or grace".to_owned();
                let help = "keep `sequence`, or `signal` and `grace`";
                cx.error(&node.place(), "conflicting-keys", message, help);
            }
        }
        if single < sequence {
            table.layers.truncate(sequence);
        }
    }
    let one = || StopStep {
        signal: table.get(cx, "signal").and_then(|node| cx.signal(&node)).unwrap_or(SIGTERM),
        grace: table.get(cx, "grace").and_then(|node| cx.duration(&node)).unwrap_or(DEFAULT_GRACE),
    };
    let mut steps = Vec::new();
    if has(&table, "sequence") {
        steps = table.get(cx, "sequence").map(|node| sequence(cx, &node)).unwrap_or_default();
    }
    if steps.is_empty() {
        steps.push(one());
    }
    Stop { steps }
}

fn sequence(cx: &Context<'_>, node: &Node<'_>) -> Vec<StopStep> {
    let Some(items) = cx.list(node) else {
        return Vec::new();
    };
    if items.is_empty() || items.len() > MAX_STOP_STEPS {
        let _: Option<()> = cx.bad(node, format!("needs 1 to {MAX_STOP_STEPS} steps"));
        return Vec::new();
    }
    let step = |item: &Node<'_>| {
        let Some(layer) = item.table() else {
            cx.wrong_type(item, "a list of tables with signal and grace");
            return None;
        };
        let prefix = node.key.clone();
        let table = Table { prefix, ..Table::new(node.section, vec![layer]) };
        table.check_keys(cx);
        let Some(signal) = table.get(cx, "signal") else {
            let message = "a step of `stop.sequence` needs a signal".to_owned();
            cx.error(&item.place(), "missing-key", message, "for example `signal = \"INT\"`");
            return None;
        };
        let grace = table.get(cx, "grace").and_then(|node| cx.duration(&node));
        Some(StopStep { signal: cx.signal(&signal)?, grace: grace.unwrap_or(DEFAULT_GRACE) })
    };
    items.iter().filter_map(step).collect()
}
