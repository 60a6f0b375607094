//! What the operator wrote, checked: TOML files in, [`Config`] or all mistakes at once out.
//!
//! Nothing here stops at the first mistake, and a configuration with any error never comes out.
//! Relative paths start at the directory of the file they are written in. `${VAR}` is expanded
//! in parsed strings (see `interpolate`), and `MEND_SUPERVISOR_…` variables override the scalars
//! of `[supervisor]`. The texts that were read are part of the result, so that a restarted brain
//! loads exactly what was active.

mod model;
mod model_check;
mod readiness;

mod look;

pub mod keys;
pub mod kinds;
pub mod paths;
pub mod schema;
pub mod show;
mod show_checks;
pub mod units;

pub mod explain;

mod diagnostic;
mod interpolate;
mod read;
mod secrets;
mod source;

pub mod globbing;
mod tree;

mod supervisor;

mod command;
mod identity;
mod lifecycle;
mod logs;
mod program;
mod ready;
mod watch;

mod checks;

mod relations;

mod changes;
mod changes_checks;

#[cfg(test)]
mod broken_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod load_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

pub use changes::{Effect, KeyChange, program_changes, setting_changes};
pub use diagnostic::{Diagnostic, Note, Report, Severity, Source, nearest, render};
pub use look::*;
pub use model::*;
pub use model_check::*;
pub use paths::{DefaultPaths, Env, default_config_path, default_paths, default_socket_candidates};
pub use readiness::{Address, HttpTarget, Probe, Probing, Ready};
pub(crate) use secrets::{hidden_words, without_secrets};
pub use source::MAX_FILE_BYTES;
pub use supervisor::parse_log_filter;
pub use units::{
    UnitError, format_duration, parse_duration, parse_signal, parse_size, signal_name,
};
pub use watch::WATCH_IGNORE;

use crate::name::{CheckName, GroupName, NameError, ProgramName};
use keys::Section;
use read::{Context, Place};
use relations::Drafts;
use tree::{Layer, Node, Table, unknown_key};

/// A configuration that may be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Diagnostic>,
    /// What was read, the main file first; [`load_sources`] makes the same of it.
    pub sources: Vec<Source>,
}

impl Loaded {
    /// Draws the warnings with the source text they are about; empty when there are none.
    pub fn render_warnings(&self, colour: bool) -> String {
        render(&self.warnings, &self.sources, colour)
    }
}

/// Reads a configuration file and everything it includes.
///
/// # Errors
///
/// Every mistake in every file at once, with the warnings.
pub fn load(path: &Path, env: Env<'_>) -> Result<Loaded, Report> {
    let (sources, mut diagnostics) = source::read_all(path, env);
    if sources.is_empty() {
        return Err(Report { diagnostics, sources });
    }
    match load_sources(&sources, env) {
        Ok(loaded) if diagnostics.is_empty() => Ok(loaded),
        Ok(loaded) => {
            diagnostics.extend(loaded.warnings);
            Err(Report { diagnostics, sources })
        }
        Err(report) => {
            for diagnostic in report.diagnostics {
                if !diagnostics.contains(&diagnostic) {
                    diagnostics.push(diagnostic);
                }
            }
            Err(Report { diagnostics, sources })
        }
    }
}

/// Loads files that were read before, the main one first; `include` is not followed again.
///
/// # Errors
///
/// Every mistake in every file at once, with the warnings.
pub fn load_sources(sources: &[Source], env: Env<'_>) -> Result<Loaded, Report> {
    load_as(sources, env, nix::unistd::geteuid().as_raw())
}

/// Loads what was accepted before, by a brain that comes back and has no time to lose: whether the
/// commands, directories and files that it names are there was looked at then.
///
/// # Errors
///
/// As for [`load_sources`].
pub fn load_accepted(sources: &[Source], env: Env<'_>) -> Result<Loaded, Report> {
    load_in(Context::new(env, sources, nix::unistd::geteuid().as_raw()).without_looking())
}

/// Loads as a daemon of user `uid` would.
fn load_as(sources: &[Source], env: Env<'_>, uid: u32) -> Result<Loaded, Report> {
    load_in(Context::new(env, sources, uid))
}

fn load_in(cx: Context<'_>) -> Result<Loaded, Report> {
    let sources = cx.sources;
    let mut broken = BTreeSet::new();
    let mut documents: Vec<Spanned<DeTable<'_>>> = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            // One slip makes the parser stumble on; what follows in its line is noise.
            if !broken.insert((source.path.as_path(), line_start(source, span.start))) {
                continue;
            }
            let place = Place::File { index, span };
            let (code, help) = if error.message().contains("duplicate") {
                ("duplicate-key", "keep one")
            } else {
                ("syntax", "")
            };
            cx.error(&place, code, error.message().to_owned(), help);
        }
        documents.push(table);
    }
    let config = build(&cx, &documents);
    let mut diagnostics = cx.finish();
    diagnostics.retain(|diagnostic| !follows_from_syntax(diagnostic, sources, &broken));
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(Report { diagnostics, sources: sources.to_vec() });
    }
    Ok(Loaded { config, warnings: diagnostics, sources: sources.to_vec() })
}

/// Returns where the line of byte `at` starts.
fn line_start(source: &Source, at: usize) -> usize {
    let at = source.text.floor_char_boundary(at);
    source.text[..at].rfind('\n').map_or(0, |end| end + 1)
}

/// Tells whether a mistake may come from nothing but a syntax error: it is in the same line, or
/// about something that the syntax error has hidden.
fn follows_from_syntax(
    diagnostic: &Diagnostic,
    sources: &[Source],
    broken: &BTreeSet<(&Path, usize)>,
) -> bool {
    let file = diagnostic.file.as_path();
    let here = broken.iter().any(|(path, _)| *path == file);
    let same_line = || {
        let source = sources.iter().find(|source| source.path == file);
        let start = source.zip(diagnostic.span.as_ref()).map(|(s, span)| line_start(s, span.start));
        start.is_some_and(|start| broken.contains(&(file, start)))
    };
    match diagnostic.code {
        "syntax" | "duplicate-key" => false,
        "unknown-program" => !broken.is_empty(),
        "missing-command" | "missing-key" if here => true,
        "unknown-key" if here && diagnostic.message.ends_with("at the top level") => true,
        _ => here && same_line(),
    }
}

fn build(cx: &Context<'_>, documents: &[Spanned<DeTable<'_>>]) -> Config {
    let found = Sections::collect(cx, documents);
    let none = || Table::new(Section::Supervisor, Vec::new());
    let table = found.supervisor.map_or_else(none, |(_, table)| table);
    let mode = supervisor::mode(cx, table.clone());
    let supervisor = supervisor::supervisor(cx, table);
    let of_checks = found.check_defaults.map(|(_, table)| table);
    if let Some(table) = &of_checks {
        checks::check_defaults(cx, table);
    }
    let of_checks = of_checks.map(|table| table.layers).unwrap_or_default();
    let surroundings = program::Surroundings { supervisor: &supervisor, checks: &of_checks };
    let defaults = found.defaults.map(|(_, table)| table.layers).unwrap_or_default();
    if !defaults.is_empty() {
        // Read once alone, so that mistakes are found without any program.
        let name = "defaults".parse::<ProgramName>().expect("a constant name");
        let table = Table::new(Section::Program, defaults.clone());
        program::program(cx, &name, None, &table, surroundings);
    }
    let mut drafts = Drafts::new();
    for (name, (place, mut table)) in found.programs {
        table.layers.extend(defaults.iter().cloned());
        if let Some(draft) = program::program(cx, &name, Some(&place), &table, surroundings) {
            drafts.insert(name, draft);
        }
    }
    relations::check_dependencies(cx, &drafts);
    relations::check_endings(cx, &drafts);
    relations::check_standbys(cx, &drafts);
    relations::check_shutdown(cx, &supervisor, &drafts);
    let groups = relations::groups(cx, &found.groups, &mut drafts);
    let mut of_host = checks::of_host(cx, &found.checks, &of_checks);
    if supervisor.default_checks {
        checks::builtin_of_host(&mut of_host, &supervisor);
    }
    Config {
        supervisor,
        programs: drafts.into_iter().map(|(name, draft)| (name, Arc::new(draft.program))).collect(),
        groups,
        checks: of_host,
        mode: mode.rules,
        on_mode_change: mode.on_change,
        include_globs: found.globs,
        files: cx.sources.iter().map(|source| source.path.clone()).collect(),
    }
}

/// The tables of all files, by what they configure.
#[derive(Default)]
struct Sections<'t> {
    supervisor: Option<(Place, Table<'t>)>,
    defaults: Option<(Place, Table<'t>)>,
    check_defaults: Option<(Place, Table<'t>)>,
    programs: BTreeMap<ProgramName, (Place, Table<'t>)>,
    groups: BTreeMap<GroupName, (Place, Table<'t>)>,
    /// Of the host.
    checks: BTreeMap<CheckName, (Place, Table<'t>)>,
    /// Of `include`.
    globs: Vec<String>,
}

/// The tables that a file may have beside the keys of the top level.
const TABLES: [&str; 5] = ["supervisor", "defaults", "program", "group", "check"];

impl<'t> Sections<'t> {
    fn collect(cx: &Context<'_>, documents: &'t [Spanned<DeTable<'t>>]) -> Self {
        let mut found = Self::default();
        for (file, document) in documents.iter().enumerate() {
            for (key, value) in document.get_ref().iter() {
                let name: &str = key.get_ref();
                let place = Place::File { index: file, span: key.span() };
                let node = |section| Node::toml_node(section, name.to_owned(), file, value);
                match name {
                    "include" => {
                        for (text, item) in cx.strings(&node(Section::Top)).unwrap_or_default() {
                            if globbing::is_glob(&text) {
                                found.globs.push(source::absolute_glob(cx, &item, &text));
                            }
                        }
                    }
                    "supervisor" => {
                        let table = whole_table(cx, Section::Supervisor, &node(Section::Top));
                        once(cx, &mut found.supervisor, place, table, "[supervisor]");
                    }
                    "defaults" => found.defaults(cx, file, &node(Section::Top)),
                    "program" => {
                        let section = Section::Program;
                        named(cx, section, file, &node(Section::Top), &mut found.programs);
                    }
                    "group" => {
                        let section = Section::Group;
                        named(cx, section, file, &node(Section::Top), &mut found.groups);
                    }
                    "check" => {
                        let section = Section::Check;
                        named(cx, section, file, &node(Section::Top), &mut found.checks);
                    }
                    _ => unknown_section(cx, &place, name),
                }
            }
        }
        found
    }

    /// Takes `[defaults.program]` and `[defaults.check]`.
    fn defaults(&mut self, cx: &Context<'_>, file: usize, node: &Node<'t>) {
        let Some(layer) = node.table() else {
            cx.wrong_type(node, "a table");
            return;
        };
        for (key, value) in layer.table.iter() {
            let name: &str = key.get_ref();
            let place = Place::File { index: file, span: key.span() };
            let (section, slot) = match name {
                "program" => (Section::Program, &mut self.defaults),
                "check" => (Section::Check, &mut self.check_defaults),
                _ => {
                    let message = format!("there are no defaults for {}", diagnostic::quote(name));
                    let help = "only `[defaults.program]` and `[defaults.check]` exist";
                    cx.error(&place, "unknown-key", message, help);
                    continue;
                }
            };
            let node = Node::toml_node(Section::Top, format!("defaults.{name}"), file, value);
            let table = whole_table(cx, section, &node);
            once(cx, slot, place, table, &format!("[defaults.{name}]"));
        }
    }
}

fn whole_table<'t>(cx: &Context<'_>, section: Section, node: &Node<'t>) -> Table<'t> {
    let layer = node.table();
    if layer.is_none() {
        cx.wrong_type(node, "a table");
    }
    Table::new(section, layer.into_iter().collect())
}

fn once<'t>(
    cx: &Context<'_>,
    slot: &mut Option<(Place, Table<'t>)>,
    place: Place,
    table: Table<'t>,
    header: &str,
) {
    match slot {
        Some((first, _)) => {
            let message = format!("`{header}` is in two files");
            let label = (&*first, "first here".to_owned());
            cx.error_with(&place, "duplicate-section", message, "keep it in one file", label);
            table.check_keys(cx);
        }
        None => *slot = Some((place, table)),
    }
}

/// Takes the tables below `program` or `group`, each under a name that no other file uses.
fn named<'t, N: FromStr<Err = NameError> + Ord>(
    cx: &Context<'_>,
    section: Section,
    file: usize,
    node: &Node<'t>,
    into: &mut BTreeMap<N, (Place, Table<'t>)>,
) {
    let Some(Layer { table, .. }) = node.table() else {
        cx.wrong_type(node, "a table");
        return;
    };
    for (key, value) in table.iter() {
        let text: &str = key.get_ref();
        let place = Place::File { index: file, span: key.span() };
        let name = match text.parse::<N>() {
            Ok(name) => name,
            Err(error) => {
                let help = format!("rename the {}", node.key);
                cx.error(&place, "bad-name", error.to_string(), &help);
                continue;
            }
        };
        if !value.get_ref().is_table() {
            let message = format!("`{}.{text}` must be a table", node.key);
            let help = format!("write `[{}.NAME]` and the keys below it", node.key);
            cx.error(&place, "wrong-type", message, &help);
            continue;
        }
        let inner = Node::toml_node(Section::Top, format!("{}.{text}", node.key), file, value);
        let table = whole_table(cx, section, &inner);
        if let Some((first, _)) = into.get(&name) {
            let message = format!("{} `{text}` is defined twice", node.key);
            let label = (first, "first here".to_owned());
            cx.error_with(&place, "duplicate-name", message, "rename or remove one", label);
            continue;
        }
        into.insert(name, (place, table));
    }
}

fn unknown_section(cx: &Context<'_>, place: &Place, name: &str) {
    match keys::stranger(Section::Top, "", name) {
        keys::Stranger::Later(_) => unknown_key(cx, place, Section::Top, "", name),
        keys::Stranger::Named(_) | keys::Stranger::Near(_) | keys::Stranger::Unknown(_) => {
            let known = TABLES.iter().copied().chain(["include"]);
            let plural = name.strip_suffix('s').filter(|one| TABLES.contains(one));
            let help = match plural.or_else(|| nearest(name, known)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "there are include, [supervisor], [defaults.program], [program.NAME], \
                     [group.NAME], [defaults.check] and [check.NAME]"
                    .to_owned(),
            };
            let message = format!("there is no key {} at the top level", diagnostic::quote(name));
            cx.error(place, "unknown-key", message, &help);
        }
    }
}
