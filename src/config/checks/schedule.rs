//! How often a check runs, when its verdicts count and how much they matter.

use std::time::Duration;

use super::super::keys::Section;
use super::super::model_check::{Check, CheckKind, CheckRole, FailRule, HealMode, Impact};
use super::super::read::Context;
use super::super::tree::{Node, Table};
use super::super::units::format_duration;
use super::{Listed, Subject};

/// Shortest interval; what has to be noticed sooner has a better sign than a probe.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Most verdicts in a row that are waited for.
const MAX_IN_A_ROW: i64 = 100;

pub(in crate::config) const ROLES: [(&str, CheckRole); 3] =
    [("start", CheckRole::Start), ("live", CheckRole::Live), ("ready", CheckRole::Ready)];
pub(in crate::config) const IMPACTS: [(&str, Impact); 3] =
    [("minor", Impact::Minor), ("normal", Impact::Normal), ("critical", Impact::Critical)];
pub(in crate::config) const MODES: [(&str, HealMode); 2] =
    [("act", HealMode::Act), ("observe", HealMode::Observe)];

/// Reads everything of a check but its ladder; what is missing or wrong gets its default.
pub(super) fn schedule(
    cx: &Context<'_>,
    subject: Subject<'_>,
    listed: &Listed<'_>,
    kind: CheckKind,
) -> Check {
    let Listed { name, own, whole, .. } = listed;
    let mut check = Check::new(name.clone(), kind);
    check.impact = subject.impact();
    if let Some(program) = subject.program {
        check.start_timeout = program.lifecycle.start_timeout;
    }
    if kind == CheckKind::Process {
        for node in ["interval", "timeout"].iter().filter_map(|key| own.get(cx, key)) {
            let message = format!("`{}` has no meaning for `process`: nothing is run", node.key);
            cx.error(&node.place(), "conflicting-keys", message, "remove it");
        }
    } else {
        times(cx, whole, &mut check);
    }
    let written = values(cx, whole);
    // What a check is for is never the same for all.
    let role = own.get(cx, "role").and_then(|node| cx.choice(&node, &ROLES));
    check.role = role.unwrap_or(check.role);
    check.impact = written.impact.unwrap_or(check.impact);
    check.fail_if = fail_rule(cx, whole).unwrap_or(check.fail_if);
    check.rise = written.rise.unwrap_or(check.rise);
    check.start_timeout = written.start_timeout.unwrap_or(check.start_timeout);
    check.mode = written.mode.unwrap_or(check.mode);
    check.cooldown = written.cooldown.unwrap_or(check.cooldown);
    check.stable = written.stable.unwrap_or(check.stable);
    check
}

/// Notes the mistakes of values that stand alone.
pub(super) fn check_values(cx: &Context<'_>, table: &Table<'_>) {
    values(cx, table);
    fail_rule(cx, table);
    let both = ["interval", "timeout"].iter().all(|key| table.get(cx, key).is_some());
    let name = "defaults".parse().expect("a constant name");
    let mut any = Check::new(name, CheckKind::Tcp);
    if both {
        times(cx, table, &mut any);
    } else {
        interval(cx, table);
        table.get(cx, "timeout").and_then(|node| cx.some_duration(&node));
    }
}

/// What stands for itself, if it is written.
struct Values {
    impact: Option<Impact>,
    rise: Option<u32>,
    start_timeout: Option<Duration>,
    mode: Option<HealMode>,
    cooldown: Option<Duration>,
    stable: Option<Duration>,
}

fn values(cx: &Context<'_>, table: &Table<'_>) -> Values {
    let get = |key: &str| table.get(cx, key);
    let time = |key: &str| get(key).and_then(|node| cx.some_duration(&node));
    Values {
        impact: get("severity").and_then(|node| cx.choice(&node, &IMPACTS)),
        rise: get("rise").and_then(|node| in_a_row(cx, &node)),
        start_timeout: time("start_timeout"),
        mode: get("mode").and_then(|node| cx.choice(&node, &MODES)),
        cooldown: time("cooldown"),
        stable: time("stable"),
    }
}

fn in_a_row(cx: &Context<'_>, node: &Node<'_>) -> Option<u32> {
    cx.integer(node, 1..=MAX_IN_A_ROW).and_then(|number| u32::try_from(number).ok())
}

fn interval(cx: &Context<'_>, table: &Table<'_>) -> Option<Duration> {
    let node = table.get(cx, "interval")?;
    match cx.some_duration(&node)? {
        short if short < MIN_INTERVAL => {
            let message = format!("`interval` must be at least {}", format_duration(MIN_INTERVAL));
            cx.error(&node.place(), "out-of-range", message, &node.example());
            None
        }
        interval => Some(interval),
    }
}

/// Reads the interval and the time limit, which must be shorter.
fn times(cx: &Context<'_>, table: &Table<'_>, check: &mut Check) {
    let usual = check.interval;
    check.interval = interval(cx, table).unwrap_or(usual);
    let node = table.get(cx, "timeout");
    let given = node.as_ref().and_then(|node| cx.some_duration(node));
    match (node, given) {
        (Some(node), Some(timeout)) if timeout >= check.interval => {
            let help = "make the timeout shorter or the interval longer";
            match table.get(cx, "interval") {
                Some(interval) => {
                    let message = "`timeout` is not shorter than `interval`".to_owned();
                    let label = (&interval.place(), "the next run would be due by then".to_owned());
                    cx.error_with(&node.place(), "impossible-timing", message, help, label);
                }
                None => {
                    let usual = format_duration(usual);
                    let message = format!("`timeout` is not shorter than `interval`, {usual}");
                    cx.error(&node.place(), "impossible-timing", message, help);
                }
            }
        }
        (_, Some(timeout)) => check.timeout = timeout,
        (_, None) if check.timeout >= check.interval => check.timeout = check.interval / 2,
        (_, None) => {}
    }
}

/// Reads `fall` or `fail_if` of the strongest table that has one of them.
fn fail_rule(cx: &Context<'_>, table: &Table<'_>) -> Option<FailRule> {
    for layer in &table.layers {
        let one = Table::new(Section::Check, vec![layer.clone()]);
        match (one.get(cx, "fall"), one.get(cx, "fail_if")) {
            (Some(fall), Some(among)) => {
                let message = "`fall` and `fail_if` both say when it is down".to_owned();
                let label = (&fall.place(), "also given here".to_owned());
                cx.error_with(&among.place(), "conflicting-keys", message, "keep one", label);
                return None;
            }
            (Some(node), None) => return in_a_row(cx, &node).map(FailRule::InARow),
            (None, Some(node)) => return among(cx, &node),
            (None, None) => {}
        }
    }
    None
}

/// Reads `"3 of 5"`.
fn among(cx: &Context<'_>, node: &Node<'_>) -> Option<FailRule> {
    let text = cx.string(node)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| word.parse::<u32>().ok();
    let [failures, "of", of] = words.as_slice() else {
        return cx.bad(node, "must be written as \"3 of 5\"");
    };
    match (number(failures), number(of)) {
        (Some(failures), Some(of)) if (1..=FailRule::MAX_OF).contains(&of) => {
            if (1..=of).contains(&failures) {
                Some(FailRule::Among { failures, of })
            } else {
                cx.bad(node, format!("must count from 1 to {of} failures of {of}"))
            }
        }
        (Some(_), Some(_)) => {
            cx.bad(node, format!("can look at 1 to {} verdicts", FailRule::MAX_OF))
        }
        _ => cx.bad(node, "must be written as \"3 of 5\""),
    }
}
