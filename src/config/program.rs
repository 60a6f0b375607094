//! `[program.NAME]`: what is run, as whom, where and within which limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::checks::{self, Standby, Subject};
use super::command::command;
use super::globbing::is_glob;
use super::identity::identity;
use super::lifecycle::{Dependency, lifecycle};
use super::logs::logs;
use super::model::{EnvironmentFile, Identity, Limits, Program, Spawn, Stdin, Supervisor};
use super::model_check::Impact;
use super::read::{Context, Place};
use super::readiness::Ready;
use super::tree::{Layer, Node, Table};
use super::watch::watch;
use crate::name::{GroupName, ProgramName};

/// Most processes of one program.
pub(super) const MAX_REPLICAS: i64 = 10_000;

/// A program with what the checks across programs need.
pub(super) struct Draft {
    pub program: Program,
    /// Where its name is written.
    pub place: Place,
    pub dependencies: Vec<Dependency>,
    /// What its checks start when it cannot be healed.
    pub standbys: Vec<Standby>,
}

/// What lies above every program.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'s> {
    pub supervisor: &'s Supervisor,
    /// `[defaults.check]`.
    pub checks: &'s [Layer<'s>],
}

/// Reads one program; what is missing or wrong gets its default.
///
/// `place` is `None` for the defaults alone, which need no command.
pub(super) fn program(
    cx: &Context<'_>,
    name: &ProgramName,
    place: Option<&Place>,
    table: &Table<'_>,
    surroundings: Surroundings<'_>,
) -> Option<Draft> {
    table.check_keys(cx);
    let mut spawn = spawn(cx, name, place, table, &surroundings.supervisor.environment);
    let logs = logs(cx, table);
    let (lifecycle, dependencies) = lifecycle(cx, table, &spawn, &logs);
    spawn.notify = lifecycle.ready == Some(Ready::Notify) || lifecycle.watchdog.is_some();
    spawn.watchdog = lifecycle.watchdog;
    spawn.ready_fd = match lifecycle.ready {
        Some(Ready::Descriptor(number)) => Some(number),
        Some(Ready::Notify | Ready::After(_) | Ready::Log(_) | Ready::Probe(_)) | None => None,
    };
    let home = home(cx, spawn.user.as_ref());
    let watch = watch(cx, table, lifecycle.reload_signal, home.as_deref(), surroundings.supervisor);
    let replicas = table.get(cx, "replicas").and_then(|node| cx.integer(&node, 1..=MAX_REPLICAS));
    let impact = table.get(cx, "severity").and_then(|node| cx.choice(&node, &checks::IMPACTS));
    let stale_files = table.get(cx, "stale_files");
    let mut program = Program {
        group: own_group(name)?,
        name: name.clone(),
        replicas: replicas.and_then(|n| u32::try_from(n).ok()),
        spawn,
        lifecycle,
        logs,
        watch,
        checks: Vec::new(),
        impact: impact.unwrap_or(Impact::Normal),
        stale_files: stale_files
            .map(|node| self::stale_files(cx, &node, home.as_deref()))
            .unwrap_or_default(),
    };
    // Checks of the defaults are read with each program that has them.
    let place = place?;
    let subject = Subject { program: Some(&program), home: home.as_deref() };
    let (found, standbys) = checks::of_program(cx, table, surroundings.checks, subject);
    program.checks = found;
    if surroundings.supervisor.default_checks {
        checks::builtin_of_program(&mut program);
    }
    Some(Draft { program, place: place.clone(), dependencies, standbys })
}

/// Reads the files that a clean restart removes.
fn stale_files(cx: &Context<'_>, node: &Node<'_>, home: Option<&Path>) -> Vec<PathBuf> {
    let items = if node.is_string() {
        cx.string(node).map(|text| vec![(text, node.clone())])
    } else {
        cx.strings(node)
    };
    let file = |(text, node): (String, Node<'_>)| {
        let path = cx.resolve(&node, &text, home)?;
        if is_glob(&text) {
            return cx.bad(&node, "must name each file: a pattern could remove too much");
        }
        if path.file_name().is_none() || text.ends_with('/') || (cx.looks && path.is_dir()) {
            return cx.bad(&node, "must be files or sockets, and no directories");
        }
        Some(path)
    };
    items.unwrap_or_default().into_iter().filter_map(file).collect()
}

/// Returns the group of a program that no `[group.…]` lists; the two kinds of name are alike.
fn own_group(name: &ProgramName) -> Option<GroupName> {
    name.as_str().parse().ok()
}

/// Returns what `~` stands for in the paths of a program.
fn home(cx: &Context<'_>, user: Option<&Identity>) -> Option<PathBuf> {
    match user {
        Some(identity) => Some(identity.home.clone()),
        None => (cx.env)("HOME").map(PathBuf::from),
    }
}

fn spawn(
    cx: &Context<'_>,
    name: &ProgramName,
    place: Option<&Place>,
    table: &Table<'_>,
    inherited: &BTreeMap<String, String>,
) -> Spawn {
    let user = identity(cx, table);
    let home = home(cx, user.as_ref());
    let home = home.as_deref();
    let get = |key: &str| table.get(cx, key);
    let flag = |key: &str| get(key).and_then(|node| cx.boolean(&node));
    let small = |key: &str, range| {
        get(key).and_then(|node| cx.integer(&node, range)).and_then(|n| i32::try_from(n).ok())
    };
    let directory = get("directory").and_then(|node| {
        let path = cx.path(&node, home)?;
        if cx.looks && !path.is_dir() {
            let message = format!("directory `{}` does not exist", path.display());
            cx.warning(&node.place(), "missing-directory", message, "create it before the start");
        }
        Some(path)
    });
    let mut variables = inherited.clone();
    variables.extend(environment(cx, table));
    let mut spawn = Spawn {
        argv: Vec::new(),
        user,
        directory,
        umask: get("umask").and_then(|node| umask(cx, &node)).unwrap_or(0o022),
        inherit_environment: flag("inherit_environment").unwrap_or(true),
        environment: variables,
        environment_files: get("environment_file")
            .map(|node| environment_files(cx, &node, home))
            .unwrap_or_default(),
        nice: small("nice", -20..=19),
        oom_score_adj: small("oom_score_adj", -1000..=1000).unwrap_or(0),
        limits: limits(cx, &table.sub(cx, "limits")),
        stdin: get("stdin")
            .and_then(|node| match cx.string(&node)?.as_str() {
                "null" => Some(Stdin::Null),
                text => {
                    let path = cx.resolve(&node, text, home)?;
                    if !path.exists() {
                        let message = format!("`{}` does not exist", path.display());
                        let help = "create it before the start, or use \"null\"";
                        cx.warning(&node.place(), "missing-file", message, help);
                    }
                    Some(Stdin::File(path))
                }
            })
            .unwrap_or(Stdin::Null),
        no_new_privs: flag("no_new_privs").unwrap_or(false),
        notify: false,
        watchdog: None,
        ready_fd: None,
    };
    spawn.argv = command(cx, name, place, table, &spawn);
    spawn
}

/// Reads the table `environment`, the layers merged.
pub(super) fn environment(cx: &Context<'_>, table: &Table<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for node in table.written("environment").iter().rev() {
        let Some(layer) = node.table() else {
            cx.wrong_type(node, "a table");
            continue;
        };
        for (key, value) in layer.table.iter() {
            let name: &str = key.get_ref();
            let place = Place::File { index: layer.file, span: key.span() };
            if name.is_empty() || name.contains(['=', '\0']) {
                let message = "the name of a variable may not be empty or contain `=` or NUL";
                cx.error(&place, "bad-variable-name", message.to_owned(), "rename it");
                continue;
            }
            let key = format!("environment.{name}");
            let item = Node::toml_node(table.section, key, layer.file, value);
            let text = if item.is_integer() {
                cx.integer(&item, i64::MIN..=i64::MAX).map(|number| number.to_string())
            } else {
                cx.string(&item)
            };
            if let Some(text) = text {
                variables.insert(name.to_owned(), text);
            }
        }
    }
    variables
}

fn environment_files(
    cx: &Context<'_>,
    node: &Node<'_>,
    home: Option<&Path>,
) -> Vec<EnvironmentFile> {
    let items = if node.is_string() {
        cx.string(node).map(|text| vec![(text, node.clone())])
    } else {
        cx.strings(node)
    };
    let file = |(text, node): (String, Node<'_>)| {
        let (text, optional) = match text.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (text.as_str(), false),
        };
        let path = cx.resolve(&node, text, home)?;
        if cx.looks && !optional && !path.is_file() {
            let message = format!("environment file `{}` does not exist", path.display());
            let help = "create it, or write a `-` before it when it may be missing";
            cx.warning(&node.place(), "missing-environment-file", message, help);
        }
        Some(EnvironmentFile { path, optional })
    };
    items.unwrap_or_default().into_iter().filter_map(file).collect()
}

fn umask(cx: &Context<'_>, node: &Node<'_>) -> Option<u32> {
    if !node.is_string() {
        cx.wrong_type(node, "an octal string");
        return None;
    }
    let text = cx.string(node)?;
    let octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(&text, 8).ok().filter(|mask| octal && *mask <= 0o777) {
        Some(mask) if mask & 0o700 != 0 => {
            let message = format!("umask {text} keeps the program from using its own new files");
            cx.error(&node.place(), "bad-value", message, "use a mask such as \"022\" or \"077\"");
            None
        }
        Some(mask) => Some(mask),
        None => cx.bad(node, "must be an octal string between \"000\" and \"077\""),
    }
}

/// What an rlimit without a limit is, `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

fn limits(cx: &Context<'_>, table: &Table<'_>) -> Limits {
    let unlimited =
        |node: &Node<'_>| node.is_string() && cx.string(node).as_deref() == Some("unlimited");
    let size = |key: &str| {
        let node = table.get(cx, key)?;
        if unlimited(&node) { Some(UNLIMITED) } else { cx.size(&node) }
    };
    let count = |key: &str, least: i64| {
        let node = table.get(cx, key)?;
        if unlimited(&node) {
            return Some(UNLIMITED);
        }
        cx.integer(&node, least..=i64::MAX).and_then(|n| u64::try_from(n).ok())
    };
    let positive = |key: &str| {
        let node = table.get(cx, key)?;
        match cx.size(&node)? {
            0 => cx.bad(&node, "must be larger than zero"),
            bytes => Some(bytes),
        }
    };
    Limits {
        memory_bytes: positive("memory"),
        cpu_percent: table.get(cx, "cpu").and_then(|node| percent(cx, &node)),
        tasks: table
            .get(cx, "tasks")
            .and_then(|node| cx.integer(&node, 1..=1 << 22))
            .and_then(|n| u64::try_from(n).ok()),
        nofile: count("nofile", 8),
        nproc: count("nproc", 1),
        core_bytes: size("core"),
        fsize_bytes: size("fsize"),
        stack_bytes: size("stack"),
        address_space_bytes: size("as"),
        memlock_bytes: size("memlock"),
        cpu_seconds: table.get(cx, "cpu_time").and_then(|node| {
            if unlimited(&node) {
                return Some(UNLIMITED);
            }
            cx.some_duration(&node).map(|duration| duration.as_secs().max(1))
        }),
    }
}

fn percent(cx: &Context<'_>, node: &Node<'_>) -> Option<u32> {
    if !node.is_string() {
        cx.wrong_type(node, "a percentage");
        return None;
    }
    let text = cx.string(node)?;
    let number = text.strip_suffix('%').and_then(|digits| digits.trim().parse().ok());
    match number.filter(|percent| (1..=1_000_000).contains(percent)) {
        Some(percent) => Some(percent),
        None => cx.bad(node, "must be a percentage of one CPU, at least \"1%\""),
    }
}
