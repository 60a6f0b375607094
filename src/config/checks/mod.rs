//! `[[program.NAME.check]]` and `[check.NAME]`: what is looked at, how often, and what follows.
//!
//! A check has exactly one kind, which is a key of its table. Below every check lies
//! `[defaults.check]`, which has no kind. Checks of `[defaults.program]` are those of every
//! program that has none of the same name.

mod builtin;

mod schedule;

mod heal;

mod clients;
mod urls;

mod values;

mod written;

#[cfg(test)]
mod checks_tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::keys::Section;
use super::look::{DeclaredCheck, Look};
use super::model::{Program, Sink, Spawn};
use super::model_check::{Check, CheckKind, Impact};
use super::read::{Context, Place};
use super::tree::{Layer, Node, Table};
use super::units::format_duration;
use crate::name::CheckName;

pub(super) use builtin::{of_host as builtin_of_host, of_program as builtin_of_program};
pub(super) use heal::Standby;
pub(super) use schedule::IMPACTS;
pub(super) use written::written;

/// Whose checks are read.
#[derive(Clone, Copy)]
pub(super) struct Subject<'p> {
    /// `None` is the host.
    pub(super) program: Option<&'p Program>,
    /// What `~` stands for.
    pub(super) home: Option<&'p Path>,
}

impl<'p> Subject<'p> {
    fn spawn(&self) -> Option<&'p Spawn> {
        self.program.map(|program| &program.spawn)
    }

    fn impact(&self) -> Impact {
        self.program.map_or(Impact::Normal, |program| program.impact)
    }

    /// Returns a check's name as it is put into a sentence.
    fn called(&self, check: &CheckName) -> String {
        match self.program {
            Some(program) => format!("check `{check}` of `{}`", program.name),
            None => format!("check `{check}` of the host"),
        }
    }
}

/// A check as it is written.
pub(super) struct Listed<'t> {
    pub(super) name: CheckName,
    pub(super) place: Place,
    /// Its own table.
    pub(super) own: Table<'t>,
    /// Its own table, with `[defaults.check]` below.
    pub(super) whole: Table<'t>,
    /// It is in `[defaults.program]`.
    pub(super) is_inherited: bool,
}

/// Returns the checks of a program in the order in which they are written, its own first.
pub(super) fn listed<'t>(
    cx: &Context<'_>,
    table: &Table<'t>,
    defaults: &[Layer<'t>],
) -> Vec<Listed<'t>> {
    let mut found: Vec<Listed<'t>> = Vec::new();
    for (depth, layer) in table.layers.iter().enumerate() {
        let one = Table { layers: vec![layer.clone()], ..table.clone() };
        let Some(node) = one.get(cx, "check") else { continue };
        if node.table().is_some() {
            let message = "the checks of a program are a list of tables".to_owned();
            let help = "write `[[program.NAME.check]]`, with two brackets, for each of them";
            cx.error(&node.place(), "wrong-type", message, help);
            continue;
        }
        let stronger = found.len();
        for item in cx.list(&node).unwrap_or_default() {
            let Some(layer) = item.table() else {
                cx.wrong_type(&item, "a list of tables");
                continue;
            };
            let own = Table::new(Section::Check, vec![layer.clone()]);
            let place = own.get(cx, "name").map_or(item.place(), |node| node.place());
            let Some(name) = name_of(cx, &own, &place) else { continue };
            if let Some(first) = found[stronger..].iter().find(|other| other.name == name) {
                let message = format!("two checks of one program are called `{name}`");
                let label = (&first.place, "first here".to_owned());
                let help = "give each its own `name`";
                cx.error_with(&place, "duplicate-name", message, help, label);
                continue;
            }
            if found[..stronger].iter().any(|other| other.name == name) {
                continue;
            }
            let layers = std::iter::once(layer).chain(defaults.iter().cloned()).collect();
            let whole = Table::new(Section::Check, layers);
            found.push(Listed { name, place, own, whole, is_inherited: depth > 0 });
        }
    }
    found
}

/// Reads the name of a program's check; without one it is called like its kind.
fn name_of(cx: &Context<'_>, own: &Table<'_>, place: &Place) -> Option<CheckName> {
    let text = match own.get(cx, "name") {
        Some(node) => cx.string(&node)?,
        None => match CheckKind::ALL.iter().find(|kind| own.get(cx, kind.word()).is_some()) {
            Some(kind) => kind.word().to_owned(),
            None => {
                own.check_keys(cx);
                missing_kind(cx, own, place, "a check");
                return None;
            }
        },
    };
    match text.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let error: crate::name::NameError = error;
            cx.error(place, "bad-name", error.to_string(), "rename the check");
            None
        }
    }
}

/// Reads every check of a program, and the standbys that they name.
pub(super) fn of_program(
    cx: &Context<'_>,
    table: &Table<'_>,
    defaults: &[Layer<'_>],
    subject: Subject<'_>,
) -> (Vec<Arc<DeclaredCheck>>, Vec<Standby>) {
    let mut standbys = Vec::new();
    let checks = listed(cx, table, defaults)
        .iter()
        .filter_map(|listed| check(cx, subject, listed, &mut standbys))
        .map(Arc::new)
        .collect();
    (checks, standbys)
}

/// Reads every `[check.NAME]`.
pub(super) fn of_host(
    cx: &Context<'_>,
    tables: &BTreeMap<CheckName, (Place, Table<'_>)>,
    defaults: &[Layer<'_>],
) -> Vec<Arc<DeclaredCheck>> {
    let home = (cx.env)("HOME").map(std::path::PathBuf::from);
    let subject = Subject { program: None, home: home.as_deref() };
    let mut checks = Vec::new();
    for (name, (place, own)) in tables {
        if let Some(node) = own.get(cx, "name") {
            let message = "the name of this check is in its header already".to_owned();
            cx.error(&node.place(), "conflicting-keys", message, "remove it");
        }
        let listed = host_listed(name, place, own, defaults);
        checks.extend(check(cx, subject, &listed, &mut Vec::new()).map(Arc::new));
    }
    checks
}

/// Puts `[defaults.check]` below a check of the host.
pub(super) fn host_listed<'t>(
    name: &CheckName,
    place: &Place,
    own: &Table<'t>,
    defaults: &[Layer<'t>],
) -> Listed<'t> {
    let layers = own.layers.iter().chain(defaults).cloned().collect();
    let whole = Table::new(Section::Check, layers);
    let (name, place) = (name.clone(), place.clone());
    Listed { name, place, own: own.clone(), whole, is_inherited: false }
}

/// Notes the mistakes of `[defaults.check]` itself, so that they are found without any check.
pub(super) fn check_defaults(cx: &Context<'_>, table: &Table<'_>) {
    table.check_keys(cx);
    let own = CheckKind::ALL.iter().map(|kind| kind.word()).chain(["name", "role"]);
    for key in own {
        if let Some(node) = table.get(cx, key) {
            let message = format!("`{key}` cannot be the same for every check");
            cx.error(&node.place(), "conflicting-keys", message, "write it in each check");
        }
    }
    schedule::check_values(cx, table);
}

fn check(
    cx: &Context<'_>,
    subject: Subject<'_>,
    listed: &Listed<'_>,
    standbys: &mut Vec<Standby>,
) -> Option<DeclaredCheck> {
    let Listed { name, place, own, whole, .. } = listed;
    own.check_keys(cx);
    let called = subject.called(name);
    let given: Vec<(CheckKind, Node<'_>)> =
        CheckKind::ALL.iter().filter_map(|kind| Some((*kind, own.get(cx, kind.word())?))).collect();
    let [(kind, node)] = given.as_slice() else {
        match given.get(1) {
            Some((_, second)) => {
                let message = format!("{called} looks at one thing, not at several");
                let label = (&given[0].1.place(), "also given here".to_owned());
                let help = "make a check of each";
                cx.error_with(&second.place(), "conflicting-keys", message, help, label);
            }
            None => missing_kind(cx, own, place, &called),
        }
        return None;
    };
    let mut check = schedule::schedule(cx, subject, listed, *kind);
    let (heal, named) = heal::ladder(cx, subject, own, whole, check.role);
    check.heal = heal;
    standbys.extend(named);
    check_place(cx, subject, *kind, node, &called)?;
    let look = look(cx, subject, *kind, node)?;
    check_latency(cx, &check, &look, node);
    Some(DeclaredCheck { check, look, is_builtin: false })
}

fn missing_kind(cx: &Context<'_>, own: &Table<'_>, place: &Place, called: &str) {
    // A mistyped kind has been noted already.
    let is_known = |name: &str| super::keys::is_child(Section::Check, "", name);
    if own.layers.iter().any(|layer| layer.table.iter().any(|(key, _)| !is_known(key.get_ref()))) {
        return;
    }
    let words: Vec<&str> = CheckKind::ALL.iter().map(|kind| kind.word()).collect();
    let message = format!("{called} does not say what to look at");
    let help = format!("give one of {}", words.join(", "));
    cx.error(place, "missing-key", message, &help);
}

/// Refuses what can only be asked of a program, or only of the host.
fn check_place(
    cx: &Context<'_>,
    subject: Subject<'_>,
    kind: CheckKind,
    node: &Node<'_>,
    called: &str,
) -> Option<()> {
    let (word, refuse) = (kind.word(), |message: String, code, help: &str| {
        cx.error(&node.place(), code, message, help);
        None
    });
    let Some(program) = subject.program else {
        return match kind {
            CheckKind::Process | CheckKind::Log | CheckKind::Silence => refuse(
                format!("`{word}` is looked at of a program, and {called} has none"),
                "misplaced-check",
                "move it to a `[[program.NAME.check]]`",
            ),
            CheckKind::Exec | CheckKind::Tcp | CheckKind::Http | CheckKind::Redis => Some(()),
            CheckKind::Postgres | CheckKind::Memory | CheckKind::Cpu | CheckKind::Fds => Some(()),
            CheckKind::Disk | CheckKind::Load | CheckKind::Pressure => Some(()),
            CheckKind::Heartbeat | CheckKind::Certificate => Some(()),
        };
    };
    match kind {
        CheckKind::Load => refuse(
            format!("`{word}` is the whole host's, and {called} is about a program"),
            "misplaced-check",
            "move it to a `[check.NAME]`, or look at `cpu`",
        ),
        CheckKind::Log | CheckKind::Silence if program.logs.sink == Sink::None => refuse(
            format!("{called} looks at output, which `logs.sink = \"none\"` throws away"),
            "conflicting-keys",
            "use another sink or another kind of check",
        ),
        CheckKind::Exec | CheckKind::Tcp | CheckKind::Http | CheckKind::Redis => Some(()),
        CheckKind::Postgres | CheckKind::Memory | CheckKind::Cpu | CheckKind::Fds => Some(()),
        CheckKind::Disk | CheckKind::Pressure | CheckKind::Process | CheckKind::Log => Some(()),
        CheckKind::Silence | CheckKind::Heartbeat | CheckKind::Certificate => Some(()),
    }
}

fn look(cx: &Context<'_>, subject: Subject<'_>, kind: CheckKind, node: &Node<'_>) -> Option<Look> {
    match kind {
        CheckKind::Exec => clients::exec(cx, subject, node).map(Look::Exec),
        CheckKind::Tcp => clients::tcp(cx, subject, node).map(Look::Tcp),
        CheckKind::Http => clients::http(cx, subject, node).map(Look::Http),
        CheckKind::Redis => clients::redis(cx, subject, node).map(Look::Redis),
        CheckKind::Postgres => clients::postgres(cx, subject, node).map(Look::Postgres),
        CheckKind::Certificate => clients::certificate(cx, subject, node).map(Look::Certificate),
        CheckKind::Memory => values::memory(cx, node).map(Look::Memory),
        CheckKind::Cpu => values::cpu(cx, subject, node).map(Look::Cpu),
        CheckKind::Fds => values::fds(cx, node).map(Look::Fds),
        CheckKind::Disk => values::disk(cx, subject, node).map(Look::Disk),
        CheckKind::Load => values::load(cx, node).map(Look::Load),
        CheckKind::Pressure => values::pressure(cx, node).map(Look::Pressure),
        CheckKind::Process => match cx.boolean(node)? {
            true => Some(Look::Process),
            false => cx.bad(node, "can only be true"),
        },
        CheckKind::Log => values::log(cx, node).map(Look::Log),
        CheckKind::Silence => values::silence(cx, node).map(Look::Silence),
        CheckKind::Heartbeat => values::heartbeat(cx, subject, node).map(Look::Heartbeat),
    }
}

/// Refuses a latency that no answer can reach, because the time limit ends it before.
fn check_latency(cx: &Context<'_>, check: &Check, look: &Look, node: &Node<'_>) {
    let latency = match look {
        Look::Tcp(look) => look.latency,
        Look::Http(look) => look.latency,
        Look::Redis(look) => look.latency,
        Look::Postgres(look) => look.latency,
        Look::Exec(_) | Look::Memory(_) | Look::Cpu(_) | Look::Fds(_) | Look::Disk(_) => None,
        Look::Load(_) | Look::Pressure(_) | Look::Process | Look::Log(_) => None,
        Look::Silence(_) | Look::Heartbeat(_) | Look::Certificate(_) => None,
    };
    let bounds = latency.map(|bounds| [bounds.warn, bounds.fail]).unwrap_or_default();
    let longest: Option<Duration> = bounds.into_iter().flatten().max();
    if longest.is_some_and(|longest| longest >= check.timeout) {
        let limit = format_duration(check.timeout);
        let message = format!("`{}.latency` is not shorter than `timeout`, {limit}", node.key);
        let help = "make it shorter, or the timeout longer";
        cx.error(&node.place(), "impossible-timing", message, help);
    }
}

/// Returns the table that is written for a kind, its keys checked; `None` for anything else.
fn inside<'t>(cx: &Context<'_>, node: &Node<'t>) -> Option<Table<'t>> {
    let layer = node.table()?;
    let table = Table { prefix: node.key.clone(), ..Table::new(node.section, vec![layer]) };
    table.check_keys(cx);
    Some(table)
}
