//! `command` and `shell`: how the argument vector is made.
//!
//! A string is split like a shell would split it, and a variable's value always stays within its
//! word, whatever it contains.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::diagnostic::quote;
use super::model::Spawn;
use super::read::{Context, Place};
use super::tree::{Node, Table};
use crate::name::ProgramName;

/// Where a command is looked for when nothing sets PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Words that mean something to a shell only.
const SHELL_WORDS: &[&str] = &["|", "||", "&&", "&", ";", ">", ">>", "<", "2>&1", "2>", "&>"];

/// Reads the argument vector; it is empty only after a mistake was noted.
///
/// `place` is the program's, or `None` for the defaults, which need no command.
pub(super) fn command(
    cx: &Context<'_>,
    name: &ProgramName,
    place: Option<&Place>,
    table: &Table<'_>,
    spawn: &Spawn,
) -> Vec<String> {
    let shell = table.get(cx, "shell").and_then(|node| cx.boolean(&node)).unwrap_or(false);
    let Some(node) = table.get(cx, "command") else {
        if let Some(place) = place {
            let message = format!("program `{name}` has no command");
            let help = "add `command = [\"…\"]`, a list or a string";
            cx.error(place, "missing-command", message, help);
        }
        return Vec::new();
    };
    let argv = if shell { shell_command(cx, &node) } else { list_or_string(cx, &node) };
    let Some(argv): Option<Vec<String>> = argv else {
        return Vec::new();
    };
    match argv.first().map(|first| first.trim().is_empty()) {
        None | Some(true) => {
            let message = format!("the command of {} is empty", subject(name, place));
            let help = "name the program to run, for example `command = [\"sleep\", \"60\"]`";
            cx.error(&node.place(), "empty-command", message, help);
        }
        Some(false) if cx.looks => warn_if_missing(cx, &node, &argv[0], Some(spawn)),
        Some(false) => {}
    }
    argv
}

/// Reads another command of a program, such as the one that tells whether it is ready.
///
/// Without a program it is run as the daemon is.
pub(super) fn words(
    cx: &Context<'_>,
    node: &Node<'_>,
    spawn: Option<&Spawn>,
) -> Option<Vec<String>> {
    checked(cx, node, list_or_string(cx, node)?, spawn)
}

/// Reads a command that is written in a string after `prefix`.
pub(super) fn words_after(
    cx: &Context<'_>,
    node: &Node<'_>,
    prefix: &str,
    spawn: Option<&Spawn>,
) -> Option<Vec<String>> {
    checked(cx, node, split(cx, node, prefix)?, spawn)
}

fn checked(
    cx: &Context<'_>,
    node: &Node<'_>,
    argv: Vec<String>,
    spawn: Option<&Spawn>,
) -> Option<Vec<String>> {
    if argv.first().is_none_or(|first| first.trim().is_empty()) {
        let message = format!("the command of `{}` is empty", node.key);
        cx.error(&node.place(), "empty-command", message, &node.example());
        return None;
    }
    if cx.looks {
        warn_if_missing(cx, node, &argv[0], spawn);
    }
    Some(argv)
}

fn list_or_string(cx: &Context<'_>, node: &Node<'_>) -> Option<Vec<String>> {
    if node.is_string() {
        return split(cx, node, "");
    }
    cx.strings(node).map(|items| items.into_iter().map(|(text, _)| text).collect())
}

fn subject(name: &ProgramName, place: Option<&Place>) -> String {
    match place {
        Some(_) => format!("program `{name}`"),
        None => "`[defaults.program]`".to_owned(),
    }
}

fn shell_command(cx: &Context<'_>, node: &Node<'_>) -> Option<Vec<String>> {
    if !node.is_string() {
        let message = "with `shell = true` the command must be a string".to_owned();
        let help = "write one string, or remove `shell`";
        cx.error(&node.place(), "wrong-type", message, help);
        return None;
    }
    let text = cx.string(node)?;
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), text])
}

/// Splits a string into words; a value stands as a mark until the words are known.
fn split(cx: &Context<'_>, node: &Node<'_>, prefix: &str) -> Option<Vec<String>> {
    const OPEN: char = '\u{fdd0}';
    const CLOSE: char = '\u{fdd1}';
    let mut values = Vec::new();
    let text = cx.wrapped(node, &mut |value| {
        values.push(value);
        format!("{OPEN}{}{CLOSE}", values.len() - 1)
    })?;
    let text = text.strip_prefix(prefix).unwrap_or(&text);
    let Some(words) = shlex::split(text) else {
        let message = "the command has a quote or a backslash without an end".to_owned();
        cx.error(&node.place(), "unclosed-quote", message, "close it, or write a list");
        return None;
    };
    let shellish = words.iter().find(|word| SHELL_WORDS.contains(&word.as_str()));
    if let Some(word) = shellish {
        let message = format!("{} is handed to the command as an argument", quote(word));
        let help = "add `shell = true` when a shell should interpret it";
        cx.warning(&node.place(), "shell-syntax", message, help);
    }
    let fill = |word: &String| {
        let mut parts = word.split(OPEN);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (index, rest) = part.split_once(CLOSE).unwrap_or((part, ""));
            let value = index.parse::<usize>().ok().and_then(|index| values.get(index));
            out.push_str(value.map_or("", String::as_str));
            out.push_str(rest);
        }
        out
    };
    Some(words.iter().map(fill).collect())
}

/// Warns when what would be executed is not there now; it may be by the time of the start.
fn warn_if_missing(cx: &Context<'_>, node: &Node<'_>, program: &str, spawn: Option<&Spawn>) {
    if program.contains('/') {
        let directory = spawn.and_then(|spawn| spawn.directory.clone());
        let path = directory.unwrap_or_else(|| PathBuf::from(".")).join(program);
        if !path.exists() {
            let message = format!("command {} does not exist", quote(program));
            cx.warning(
                &node.place(),
                "missing-command-file",
                message,
                "install it before the start",
            );
        } else if !is_executable(&path) {
            let message = format!("command {} is not executable", quote(program));
            cx.warning(&node.place(), "missing-command-file", message, "make it executable");
        }
        return;
    }
    let path = match spawn {
        Some(spawn)
            if !spawn.environment_files.is_empty() && !spawn.environment.contains_key("PATH") =>
        {
            return;
        }
        Some(spawn) => search_path(cx, spawn.inherit_environment, &spawn.environment),
        None => search_path(cx, true, &BTreeMap::new()),
    };
    let found = path
        .split(':')
        .filter(|dir| !dir.is_empty())
        .any(|dir| is_executable(&Path::new(dir).join(program)));
    if !found {
        let message = format!("command {} is in no directory of PATH", quote(program));
        let help = format!("install it, or write its whole path; PATH is {path}");
        cx.warning(&node.place(), "missing-command-file", message, &help);
    }
}

fn search_path(cx: &Context<'_>, inherit: bool, variables: &BTreeMap<String, String>) -> String {
    let own = variables.get("PATH").cloned();
    let inherited = || (cx.env)("PATH").filter(|_| inherit);
    own.or_else(inherited).unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
