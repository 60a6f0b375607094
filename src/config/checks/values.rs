//! The kinds that compare a value with its bounds: memory, time, files, disks, load, output.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::time::Duration;

use super::super::look::{
    Amount, Bounds, CpuLook, DiskLook, FdsLook, HeartbeatLook, LoadLook, LoadSpan, LogLook,
    MemoryLook, PressureLook, PressureOf, PressureShare, PressureSpan, SilenceLook,
};
use super::super::read::Context;
use super::super::ready::pattern;
use super::super::tree::{Node, Table};
use super::super::units::parse_size;
use super::{Subject, inside};

/// The most that a share of one thing can be.
const WHOLE: f64 = 100.0;
/// The most that a process can use of one CPU: as many CPUs as a machine may ever have.
const MOST_CPU: f64 = 1_000_000.0;
const MOST_LOAD: f64 = 10_000.0;
const MOST_LINES: i64 = 1_000_000;

/// What is free of a disk when nothing is said.
pub(super) const DISK_WARN: f64 = 10.0;
const DISK_FAIL: f64 = 5.0;
/// Over how long something is averaged or counted when nothing is said.
const USUAL_SPAN: Duration = Duration::from_secs(60);

pub(in crate::config) const LOAD_SPANS: [(&str, LoadSpan); 3] =
    [("1m", LoadSpan::One), ("5m", LoadSpan::Five), ("15m", LoadSpan::Fifteen)];
pub(in crate::config) const PRESSURES: [(&str, PressureOf); 3] =
    [("cpu", PressureOf::Cpu), ("memory", PressureOf::Memory), ("io", PressureOf::Io)];
pub(in crate::config) const SHARES: [(&str, PressureShare); 2] =
    [("some", PressureShare::Some), ("full", PressureShare::Full)];
pub(in crate::config) const PRESSURE_SPANS: [(&str, PressureSpan); 3] = [
    ("10s", PressureSpan::Ten),
    ("60s", PressureSpan::Sixty),
    ("300s", PressureSpan::ThreeHundred),
];

/// Which way a value gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worse {
    More,
    Less,
}

/// Reads bounds: one value is where it fails, a table may have both.
pub(super) fn bounds<T: PartialOrd + Copy>(
    cx: &Context<'_>,
    node: &Node<'_>,
    worse: Worse,
    read: &dyn Fn(&Node<'_>) -> Option<T>,
) -> Option<Bounds<T>> {
    let Some(table) = inside(cx, node) else {
        return read(node).map(|fail| Bounds { warn: None, fail: Some(fail) });
    };
    some_bounds(cx, node, &table, worse, read)
}

/// Reads the bounds in a table that must have one of them; `node` is the table.
fn some_bounds<T: PartialOrd + Copy>(
    cx: &Context<'_>,
    node: &Node<'_>,
    table: &Table<'_>,
    worse: Worse,
    read: &dyn Fn(&Node<'_>) -> Option<T>,
) -> Option<Bounds<T>> {
    if ["warn", "fail"].iter().all(|key| table.get(cx, key).is_none()) {
        let message = format!("`{}` does not say from where on it warns or fails", node.key);
        cx.error(&node.place(), "missing-key", message, "give `warn`, `fail` or both");
        return None;
    }
    warn_and_fail(cx, table, worse, read)
}

/// Reads the bounds in a table; `None` when there are none, or after a mistake.
pub(super) fn warn_and_fail<T: PartialOrd + Copy>(
    cx: &Context<'_>,
    table: &Table<'_>,
    worse: Worse,
    read: &dyn Fn(&Node<'_>) -> Option<T>,
) -> Option<Bounds<T>> {
    let (warn_node, fail_node) = (table.get(cx, "warn"), table.get(cx, "fail"));
    let warn = warn_node.as_ref().map(read);
    let fail = fail_node.as_ref().map(read);
    if let (Some(Some(warn)), Some(Some(fail))) = (warn, fail)
        && let (Some(warn_node), Some(fail_node)) = (&warn_node, &fail_node)
    {
        let (expected, way) = match worse {
            Worse::More => (Ordering::Less, "below"),
            Worse::Less => (Ordering::Greater, "above"),
        };
        // Bytes and a share cannot be compared before the whole is known.
        if warn.partial_cmp(&fail).is_some_and(|order| order != expected) {
            let message = format!("`{}` must be {way} `{}`", warn_node.key, fail_node.key);
            let label = (&fail_node.place(), "it has failed from here on".to_owned());
            let help = "a warning comes before the failure";
            cx.error_with(&warn_node.place(), "warn-beyond-fail", message, help, label);
            return None;
        }
    }
    match (warn, fail) {
        (Some(None), _) | (_, Some(None)) | (None, None) => None,
        (warn, fail) => Some(Bounds { warn: warn.flatten(), fail: fail.flatten() }),
    }
}

/// Reads a percentage above zero.
fn percent(cx: &Context<'_>, node: &Node<'_>, most: f64) -> Option<f64> {
    if !node.is_string() {
        cx.wrong_type(node, "a percentage");
        return None;
    }
    let text = cx.string(node)?;
    match parse_percent(&text) {
        Some(percent) if percent > 0.0 && percent <= most => Some(percent),
        Some(_) => cx.bad(node, format!("must be above 0% and at most {most}%")),
        None => cx.bad(node, "must be a percentage"),
    }
}

fn parse_percent(text: &str) -> Option<f64> {
    let number = text.trim().strip_suffix('%')?.trim_end();
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    number.parse().ok().filter(|percent: &f64| is_plain && percent.is_finite())
}

/// Reads a share of one thing.
pub(super) fn share(cx: &Context<'_>, node: &Node<'_>) -> Option<f64> {
    percent(cx, node, WHOLE)
}

/// Reads a size or a share.
fn amount(cx: &Context<'_>, node: &Node<'_>) -> Option<Amount> {
    if !node.is_string() && !node.is_integer() {
        cx.wrong_type(node, "a size or a percentage");
        return None;
    }
    if node.is_string() {
        let text = cx.string(node)?;
        if text.trim_end().ends_with('%') {
            return percent(cx, node, WHOLE).map(Amount::Percent);
        }
        if parse_size(&text).is_err() {
            return cx.bad(node, "must be a size or a percentage");
        }
    }
    match cx.size(node)? {
        0 => cx.bad(node, "must be larger than zero"),
        bytes => Some(Amount::Bytes(bytes)),
    }
}

fn number(cx: &Context<'_>, node: &Node<'_>) -> Option<f64> {
    match cx.number(node)? {
        number if number > 0.0 && number <= MOST_LOAD => Some(number),
        _ => cx.bad(node, format!("must be above 0 and at most {MOST_LOAD}")),
    }
}

pub(super) fn memory(cx: &Context<'_>, node: &Node<'_>) -> Option<MemoryLook> {
    let used = bounds(cx, node, Worse::More, &|node| amount(cx, node))?;
    Some(MemoryLook { used })
}

pub(super) fn cpu(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<CpuLook> {
    let most = if subject.program.is_some() { MOST_CPU } else { WHOLE };
    let read = |node: &Node<'_>| percent(cx, node, most);
    let lasting = node.table().and_then(|_| inside(cx, node)?.get(cx, "for"));
    let lasting = match lasting {
        Some(node) => cx.some_duration(&node)?,
        None => USUAL_SPAN,
    };
    Some(CpuLook { percent: bounds(cx, node, Worse::More, &read)?, lasting })
}

pub(super) fn fds(cx: &Context<'_>, node: &Node<'_>) -> Option<FdsLook> {
    Some(FdsLook { percent: bounds(cx, node, Worse::More, &|node| share(cx, node))? })
}

pub(super) fn disk(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<DiskLook> {
    let usual = Bounds { warn: Some(DISK_WARN), fail: Some(DISK_FAIL) };
    let usual_free =
        Bounds { warn: Some(Amount::Percent(DISK_WARN)), fail: Some(Amount::Percent(DISK_FAIL)) };
    let Some(table) = inside(cx, node) else {
        let path = existing_path(cx, subject, node)?;
        return Some(DiskLook { path, free: usual_free, free_inodes: Some(usual) });
    };
    let free = match table.get(cx, "free") {
        Some(node) => bounds(cx, &node, Worse::Less, &|node| amount(cx, node)),
        None => Some(usual_free),
    };
    let free_inodes = match table.get(cx, "free_inodes") {
        Some(node) => bounds(cx, &node, Worse::Less, &|node| share(cx, node)),
        None => Some(usual),
    };
    let Some(path) = table.get(cx, "path") else {
        let message = "`disk` does not say which file system".to_owned();
        cx.error(&node.place(), "missing-key", message, "add `path = \"/var\"`");
        return None;
    };
    let path = existing_path(cx, subject, &path)?;
    Some(DiskLook { path, free: free?, free_inodes: Some(free_inodes?) })
}

/// Reads the path of a file system; the one above it is looked at as long as it is not there.
fn existing_path(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<PathBuf> {
    let path = cx.path(node, subject.home)?;
    if cx.looks && !path.exists() {
        let message = format!("`{}` does not exist", path.display());
        let help = "what is above it is looked at until it does";
        cx.warning(&node.place(), "missing-directory", message, help);
    }
    Some(path)
}

pub(super) fn load(cx: &Context<'_>, node: &Node<'_>) -> Option<LoadLook> {
    let per_cpu = bounds(cx, node, Worse::More, &|node| number(cx, node));
    let span = node.table().and_then(|_| inside(cx, node)?.get(cx, "span"));
    let span = match span {
        Some(node) => cx.choice(&node, &LOAD_SPANS)?,
        None => LoadSpan::Five,
    };
    Some(LoadLook { per_cpu: per_cpu?, span })
}

pub(super) fn pressure(cx: &Context<'_>, node: &Node<'_>) -> Option<PressureLook> {
    let Some(table) = inside(cx, node) else {
        let of = cx.choice(node, &PRESSURES)?;
        return Some(usual_pressure(of));
    };
    let Some(of) = table.get(cx, "of") else {
        let message = "`pressure` does not say what is waited for".to_owned();
        cx.error(&node.place(), "missing-key", message, "add `of = \"memory\"`");
        return None;
    };
    let usual = usual_pressure(cx.choice(&of, &PRESSURES)?);
    let has_bounds = ["warn", "fail"].iter().any(|key| table.get(cx, key).is_some());
    let read = |node: &Node<'_>| share(cx, node);
    let percent = match has_bounds {
        true => warn_and_fail(cx, &table, Worse::More, &read),
        false => Some(usual.percent),
    };
    let share = table.get(cx, "share").map(|node| cx.choice(&node, &SHARES));
    let span = table.get(cx, "span").map(|node| cx.choice(&node, &PRESSURE_SPANS));
    Some(PressureLook {
        of: usual.of,
        share: share.unwrap_or(Some(usual.share))?,
        span: span.unwrap_or(Some(usual.span))?,
        percent: percent?,
    })
}

/// Returns what is too much waiting when nothing is said.
fn usual_pressure(of: PressureOf) -> PressureLook {
    let (share, fail) = match of {
        PressureOf::Cpu => (PressureShare::Some, 60.0),
        PressureOf::Memory => (PressureShare::Full, 10.0),
        PressureOf::Io => (PressureShare::Full, 40.0),
    };
    let percent = Bounds { warn: None, fail: Some(fail) };
    PressureLook { of, share, span: PressureSpan::Sixty, percent }
}

pub(super) fn log(cx: &Context<'_>, node: &Node<'_>) -> Option<LogLook> {
    let once = Bounds { warn: None, fail: Some(1) };
    let Some(table) = inside(cx, node) else {
        return Some(LogLook { pattern: pattern(cx, node)?, count: once, within: USUAL_SPAN });
    };
    let lines = |node: &Node<'_>| {
        cx.integer(node, 1..=MOST_LINES).and_then(|number| u32::try_from(number).ok())
    };
    let has_bounds = ["warn", "fail"].iter().any(|key| table.get(cx, key).is_some());
    let count = match has_bounds {
        true => warn_and_fail(cx, &table, Worse::More, &lines),
        false => Some(once),
    };
    let within = match table.get(cx, "within") {
        Some(node) => cx.some_duration(&node),
        None => Some(USUAL_SPAN),
    };
    let Some(text) = table.get(cx, "pattern") else {
        let message = "`log` does not say which lines count".to_owned();
        cx.error(&node.place(), "missing-key", message, "add `pattern = \"ERROR\"`");
        return None;
    };
    Some(LogLook { pattern: pattern(cx, &text)?, count: count?, within: within? })
}

pub(super) fn silence(cx: &Context<'_>, node: &Node<'_>) -> Option<SilenceLook> {
    let longest = bounds(cx, node, Worse::More, &|node| cx.some_duration(node))?;
    Some(SilenceLook { longest })
}

pub(super) fn heartbeat(
    cx: &Context<'_>,
    subject: Subject<'_>,
    node: &Node<'_>,
) -> Option<HeartbeatLook> {
    let (file, within) = match inside(cx, node) {
        None => (None, cx.some_duration(node)?),
        Some(table) => {
            let file = match table.get(cx, "file") {
                Some(node) => Some(cx.path(&node, subject.home)?),
                None => None,
            };
            let Some(within) = table.get(cx, "within") else {
                let message = "`heartbeat` does not say how often it beats".to_owned();
                cx.error(&node.place(), "missing-key", message, "add `within = \"30s\"`");
                return None;
            };
            (file, cx.some_duration(&within)?)
        }
    };
    let is_notified = subject.program.is_some_and(|program| program.spawn.notify);
    if file.is_none() && !is_notified {
        let (message, help) = match subject.program {
            Some(program) => (
                format!("`{}` has no NOTIFY_SOCKET to send a heartbeat to", program.name),
                "add `ready = \"notify\"` or a `watchdog` to the program, or name a `file`",
            ),
            None => ("a heartbeat of the host is a `file` that is written".to_owned(), "name it"),
        };
        cx.error(&node.place(), "missing-key", message, help);
        return None;
    }
    Some(HeartbeatLook { file, within })
}
