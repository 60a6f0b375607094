//! `watch`: the files whose change renews a program.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use glob::Pattern;

use super::diagnostic::quote;
use super::globbing::is_glob;
use super::model::{OnWatch, Supervisor, Watch, WatchTarget};
use super::read::Context;
use super::tree::{Node, Table};
use super::units::parse_signal;

const DEFAULT_DEBOUNCE: Duration = Duration::from_millis(500);
/// Longest debounce; a change that takes effect hours later is a surprise.
const MAX_DEBOUNCE: Duration = Duration::from_secs(3600);

/// What editors, version control and interpreters leave beside the files that are meant.
pub const WATCH_IGNORE: &[&str] = &[
    "*~",
    ".*.sw?",
    ".*.swpx",
    "4913",
    ".#*",
    "#*#",
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    "node_modules",
];

/// Reads `watch` and what belongs to it; `None` where nothing is watched.
pub(super) fn watch(
    cx: &Context<'_>,
    table: &Table<'_>,
    reload_signal: Option<i32>,
    home: Option<&Path>,
    supervisor: &Supervisor,
) -> Option<Watch> {
    let ignore = table.get(cx, "watch_ignore").map(|node| ignored(cx, &node)).unwrap_or_default();
    let debounce = table.get(cx, "watch_debounce").and_then(|node| debounce(cx, &node));
    let act = table.get(cx, "on_watch").and_then(|node| on_watch(cx, &node, reload_signal));
    let node = table.get(cx, "watch")?;
    let items = if node.is_string() {
        cx.string(&node).map(|text| vec![(text, node.clone())])
    } else {
        cx.strings(&node)
    };
    let ignore: Vec<String> =
        WATCH_IGNORE.iter().map(|name| (*name).to_owned()).chain(ignore).collect();
    let mut targets = Vec::new();
    for (text, item) in items.unwrap_or_default() {
        if let Some(target) = target(cx, &text, &item, home) {
            check_extent(cx, &item, &target, &ignore, supervisor);
            targets.push(target);
        }
    }
    if targets.is_empty() {
        return None;
    }
    let usual = reload_signal.map_or(OnWatch::Restart, OnWatch::Signal);
    Some(Watch {
        targets,
        ignore,
        debounce: debounce.unwrap_or(DEFAULT_DEBOUNCE),
        act: act.unwrap_or(usual),
    })
}

/// Reads one file, directory or glob; it becomes absolute.
fn target(
    cx: &Context<'_>,
    text: &str,
    item: &Node<'_>,
    home: Option<&Path>,
) -> Option<WatchTarget> {
    let path = clean(&cx.resolve(item, text, home)?);
    if !is_glob(text) {
        return Some(WatchTarget::Path(path));
    }
    // Only what the operator wrote is a pattern, not the directory that it starts from.
    let written = clean(Path::new(text)).components().filter(is_name).count();
    let parts: Vec<String> = path
        .components()
        .filter(is_name)
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let literal = parts.len().saturating_sub(written);
    let wild = parts.iter().skip(literal).position(|part| is_glob(part)).unwrap_or(0);
    let (before, after) = parts.split_at((literal + wild).min(parts.len()));
    let root = Path::new("/").join(before.iter().collect::<PathBuf>());
    for part in after {
        check_pattern(cx, item, part)?;
    }
    Some(WatchTarget::Glob { root, parts: after.to_vec() })
}

fn is_name(part: &Component<'_>) -> bool {
    matches!(part, Component::Normal(_))
}

/// Takes `.` and `..` away, so that what is watched can be compared with paths.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => clean.push(part),
        }
    }
    clean
}

/// Warns about what covers the whole machine, or files that the daemon itself writes.
fn check_extent(
    cx: &Context<'_>,
    item: &Node<'_>,
    target: &WatchTarget,
    ignore: &[String],
    supervisor: &Supervisor,
) {
    let (root, all, deep) = match target {
        WatchTarget::Path(path) => (path, true, true),
        WatchTarget::Glob { root, parts } => {
            let all = parts.last().is_some_and(|last| matches!(last.as_str(), "*" | "**"));
            (root, all, parts.iter().any(|part| part == "**"))
        }
    };
    if deep && root == Path::new("/") {
        let message = "every directory of the machine would be watched".to_owned();
        let help = "name the program's own files, for example \"src/**/*.py\"";
        return cx.warning(&item.place(), "watches-everything", message, help);
    }
    let covers = |directory: &Path| match directory.strip_prefix(root) {
        Ok(below) => deep || below.components().count() == 0,
        Err(_) => false,
    };
    let dirs = [
        ("logs", &supervisor.log_dir),
        ("state", &supervisor.state_dir),
        ("socket and records", &supervisor.runtime_dir),
    ];
    let own = dirs.into_iter().find(|(_, directory)| covers(directory));
    if let Some((what, directory)) = own.filter(|(_, dir)| all && !is_ignored(dir, root, ignore)) {
        let message = format!(
            "mendd keeps its {what} in `{}`, which is watched: its own writing would renew the \
             program again and again",
            directory.display()
        );
        let help = "watch only what the program reads, or add the directory to `watch_ignore`";
        cx.warning(&item.place(), "watches-own-files", message, help);
    }
}

/// Whether a directory below `root`, or one on the way to it, is left out.
fn is_ignored(directory: &Path, root: &Path, ignore: &[String]) -> bool {
    let patterns: Vec<(bool, Pattern)> = ignore
        .iter()
        .filter_map(|text| Some((text.contains('/'), Pattern::new(text).ok()?)))
        .collect();
    directory.ancestors().take_while(|place| *place != root).any(|place| {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        patterns.iter().any(|(whole, pattern)| match whole {
            true => pattern.matches_path(place),
            false => pattern.matches(&name),
        })
    })
}

fn check_pattern(cx: &Context<'_>, item: &Node<'_>, pattern: &str) -> Option<()> {
    match Pattern::new(pattern) {
        Ok(_) => Some(()),
        Err(error) => {
            let message = format!("the pattern is not valid: {}", error.msg);
            let help = "for example `src/**/*.py`; `**` is a directory of its own, `[[]` a bracket";
            cx.error(&item.place(), "bad-glob", message, help);
            None
        }
    }
}

/// Reads what is left out. A name without `/` counts at any depth, other patterns are whole
/// paths, which may begin with `**/`.
fn ignored(cx: &Context<'_>, node: &Node<'_>) -> Vec<String> {
    let one = |(text, item): (String, Node<'_>)| {
        if text.is_empty() {
            return cx.bad(&item, "has an empty pattern");
        }
        let whole = if !text.contains('/') || text.starts_with('/') || text.starts_with("**/") {
            text
        } else {
            let base = Pattern::escape(&cx.base(&item.place()).to_string_lossy());
            format!("{base}/{}", text.strip_prefix("./").unwrap_or(&text))
        };
        check_pattern(cx, &item, &whole).map(|()| whole)
    };
    cx.strings(node).unwrap_or_default().into_iter().filter_map(one).collect()
}

fn debounce(cx: &Context<'_>, node: &Node<'_>) -> Option<Duration> {
    match cx.duration(node)? {
        debounce if debounce > MAX_DEBOUNCE => cx.bad(node, "must be at most 1h"),
        Duration::ZERO => {
            let message = "every single write would be acted on, also the first of many".to_owned();
            let help = "leave it out, or allow the writer a moment: \"100ms\"";
            cx.warning(&node.place(), "no-debounce", message, help);
            Some(Duration::ZERO)
        }
        debounce => Some(debounce),
    }
}

fn on_watch(cx: &Context<'_>, node: &Node<'_>, reload_signal: Option<i32>) -> Option<OnWatch> {
    let text = cx.string(node)?;
    if let Some(name) = text.strip_prefix("signal:") {
        return match parse_signal(name) {
            Ok(signal) => Some(OnWatch::Signal(signal)),
            Err(error) => cx.bad(node, format!("must name a signal: {error}")),
        };
    }
    match text.as_str() {
        "restart" => Some(OnWatch::Restart),
        "reload" => {
            if reload_signal.is_none() {
                let message = "`on_watch = \"reload\"` needs a `reload_signal`".to_owned();
                let help = "add `reload_signal = \"HUP\"`, or use \"restart\"";
                cx.error(&node.place(), "missing-key", message, help);
            }
            reload_signal.map(OnWatch::Signal)
        }
        other => {
            let message = format!("`{}` cannot be {}", node.key, quote(other));
            let help = "use \"restart\", \"reload\" or \"signal:NAME\"";
            cx.error(&node.place(), "unknown-value", message, help);
            None
        }
    }
}
