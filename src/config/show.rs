//! The configuration as it takes effect: every key, its value, and where the value comes from.
//!
//! Written as TOML with the origins as comments, it is a configuration again, with all files
//! joined, variables filled in and defaults applied. What looks like a secret is hidden.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::globbing::is_glob;
use super::identity::identity;
use super::keys::{KEYS, Key, Section};
use super::kinds::Kind;
use super::model::Config;
use super::read::{Context, Place};
use super::readiness::{Probe, Probing, Ready};
use super::secrets::{HIDDEN, is_secret_name, without_secrets};
use super::show_checks::is_builtin;
use super::tree::{Layer, Node, Table, Written};
use super::{Env, Sections, Source, load_accepted};

/// One key as it takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `supervisor`, `program.web`, `program.web/http` for a check of it, `group.site`,
    /// `check.disk`.
    pub table: String,
    /// Dotted below the table.
    pub key: String,
    /// As TOML; `None` where the default is no value but the absence of one.
    pub value: Option<String>,
    pub origin: Origin,
    /// The value, or a part of it, is not shown.
    pub hidden: bool,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File {
        file: PathBuf,
        line: usize,
    },
    /// `[defaults.program]`, or for the environment `[supervisor]`.
    Above {
        header: String,
        file: PathBuf,
        line: usize,
    },
    /// An environment variable of this name.
    Variable(String),
    /// What the documentation says.
    Default(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Above { header, file, line } => {
                write!(f, "{header}, {}:{line}", file.display())
            }
            Self::Variable(name) => f.write_str(name),
            Self::Default(_) => f.write_str("default"),
        }
    }
}

/// Returns every key of a configuration that was loaded from `sources`; with `secrets` nothing
/// is hidden. Empty when they do not load.
pub fn show(sources: &[Source], env: Env<'_>, secrets: bool) -> Vec<Shown> {
    let Ok(loaded) = load_accepted(sources, env) else { return Vec::new() };
    let cx = Context::new(env, sources, nix::unistd::geteuid().as_raw());
    let documents: Vec<Spanned<DeTable<'_>>> =
        sources.iter().map(|source| DeTable::parse_recoverable(&source.text).0).collect();
    let found = Sections::collect(&cx, &documents);
    let mut view = View { cx: &cx, config: &loaded.config, secrets, shown: Vec::new() };
    let mut supervisor = found
        .supervisor
        .map_or_else(|| Table::new(Section::Supervisor, Vec::new()), |(_, table)| table);
    supervisor.variables = Some("MEND_SUPERVISOR".to_owned());
    view.table("supervisor", &supervisor, None);
    let defaults = found.defaults.map(|(_, table)| table.layers).unwrap_or_default();
    let of_checks = found.check_defaults.map(|(_, table)| table.layers).unwrap_or_default();
    for (name, (_, mut table)) in found.programs {
        table.layers.extend(defaults.iter().cloned());
        view.program(name.as_str(), &table, &supervisor);
        view.checks_of(&name, &table, &of_checks);
    }
    for (name, (_, table)) in &found.groups {
        view.table(&format!("group.{name}"), table, None);
    }
    view.checks_of_host(&found.checks, &of_checks);
    view.shown
}

/// Keeps the tables that `names` select: `supervisor`, a program, a group, or a glob of these.
///
/// # Errors
///
/// The first name that selects nothing, with the nearest one there is.
pub fn select(shown: Vec<Shown>, names: &[String]) -> Result<Vec<Shown>, (String, Option<String>)> {
    // The checks of a program belong to it.
    let whole = |table: &str| table.split_once('/').map_or(table, |(whole, _)| whole).to_owned();
    let name_of = |table: &str| {
        let whole = whole(table);
        whole.split_once('.').map_or(whole.as_str(), |(_, name)| name).to_owned()
    };
    let fits = |name: &str, table: &str| {
        let pattern = glob::Pattern::new(name).ok();
        table == name
            || whole(table) == name
            || pattern.is_some_and(|pattern| pattern.matches(&name_of(table)))
    };
    for name in names {
        if !shown.iter().any(|one| fits(name, &one.table)) {
            let known: Vec<String> = shown.iter().map(|one| name_of(&one.table)).collect();
            let near = super::nearest(name, known.iter().map(String::as_str));
            return Err((name.clone(), near.map(str::to_owned)));
        }
    }
    let is_chosen =
        |one: &Shown| names.is_empty() || names.iter().any(|name| fits(name, &one.table));
    Ok(shown.into_iter().filter(is_chosen).collect())
}

/// Writes keys as TOML, each with its origin.
pub fn toml(shown: &[Shown]) -> String {
    let mut out = String::new();
    let (mut table, mut mark) = ("", "");
    for one in shown {
        if one.table != table {
            table = &one.table;
            let gap = if out.is_empty() { "" } else { "\n" };
            // What nobody has written is there as long as nobody writes it.
            mark = if is_builtin(one, shown) { "#" } else { "" };
            out.push_str(&format!("{gap}{mark}{}\n", header(table)));
        }
        let (key, origin) = (&one.key, &one.origin);
        match (&one.value, origin) {
            (Some(value), _) => out.push_str(&format!("{mark}{key} = {value}  # {origin}\n")),
            (None, Origin::Default(words)) if words.is_empty() => {
                out.push_str(&format!("# {key} is not set\n"))
            }
            (None, Origin::Default(words)) => {
                out.push_str(&format!("# {key}: {words}  (default)\n"));
            }
            (None, Origin::File { .. } | Origin::Above { .. } | Origin::Variable(_)) => {}
        }
    }
    out
}

/// Writes a header, its name quoted where TOML wants it.
fn header(table: &str) -> String {
    let (whole, of_check) = match table.split_once('/') {
        Some((whole, _)) => (whole, true),
        None => (table, false),
    };
    let name = match whole.split_once('.') {
        Some((kind, name)) if name.contains('.') => format!("{kind}.{}", quoted(name)),
        Some(_) | None => whole.to_owned(),
    };
    if of_check { format!("[[{name}.check]]") } else { format!("[{name}]") }
}

pub(super) struct View<'v, 'e> {
    pub(super) cx: &'v Context<'e>,
    pub(super) config: &'v Config,
    pub(super) secrets: bool,
    pub(super) shown: Vec<Shown>,
}

/// A written value and the layer that it is in.
pub(super) struct Found<'t> {
    pub(super) node: Node<'t>,
    layer: usize,
}

impl View<'_, '_> {
    fn program(&mut self, name: &str, table: &Table<'_>, supervisor: &Table<'_>) {
        let home = identity(self.cx, table).map(|identity| identity.home);
        let header = format!("program.{name}");
        self.table(&header, table, home.as_deref());
        // The environment has a value for each variable, from three places.
        let mut seen: Vec<String> = Vec::new();
        let layers = [(table, None), (supervisor, Some("[supervisor]"))];
        for (table, above) in layers {
            for (index, layer) in table.layers.iter().enumerate() {
                let above = above.or((index > 0).then_some("[defaults.program]"));
                let one = Table { layers: vec![layer.clone()], ..table.clone() };
                for node in one.written("environment") {
                    self.variables(&header, &node, above, &mut seen);
                }
            }
        }
    }

    fn variables(
        &mut self,
        table: &str,
        node: &Node<'_>,
        above: Option<&'static str>,
        seen: &mut Vec<String>,
    ) {
        let Some(Layer { file, table: values }) = node.table() else { return };
        for (key, value) in values.iter() {
            let name = key.get_ref().to_string();
            if seen.contains(&name) {
                continue;
            }
            let item = Node::toml_node(node.section, format!("environment.{name}"), file, value);
            let origin = self.origin(&item, above);
            let mut value = match item.is_integer() {
                true => self.raw(&Kind::Integer, &item),
                false => self.raw(&Kind::Text, &item),
            };
            let mut hidden = false;
            if is_secret_name(&name) && !self.secrets {
                (value, hidden) = (Some(quoted(HIDDEN)), true);
            } else if let Some(shown) = value.as_deref().and_then(|text| self.hide(text)) {
                (value, hidden) = (Some(shown), true);
            }
            let key = format!("environment.{}", bare_or_quoted(&name));
            seen.push(name);
            self.shown.push(Shown { table: table.to_owned(), key, value, origin, hidden });
        }
    }

    fn table(&mut self, header: &str, table: &Table<'_>, home: Option<&Path>) {
        let stop = chosen_stop(table);
        for key in KEYS.iter().filter(|key| key.section == table.section) {
            // Parts of a value that is shown as a whole.
            let is_part = key.name.starts_with("stop.sequence.") || key.name.starts_with("ready.");
            // Shown as tables of their own.
            let is_part = is_part || key.name == "check";
            let is_program = key.section == Section::Program;
            // Shown variable by variable, for a program with what comes from above.
            let is_environment = key.name == "environment" && is_program;
            // Shown under its first name.
            let is_alias = key.name == "startsecs";
            let is_out = match key.name {
                "stop.sequence" => stop == Stop::Single,
                "stop.signal" | "stop.grace" => stop == Stop::Sequence,
                _ => false,
            };
            if is_part || is_environment || is_alias || is_out {
                continue;
            }
            if key.name == "environment" {
                for node in table.written("environment") {
                    self.variables(header, &node, None, &mut Vec::new());
                }
                continue;
            }
            let shown = self.key(header, table, key, home);
            self.shown.push(shown);
        }
    }

    fn key(&self, header: &str, table: &Table<'_>, key: &Key, home: Option<&Path>) -> Shown {
        let kind = Kind::of(key.kind).unwrap_or(Kind::Text);
        let alias = (key.name == "start_period").then_some("startsecs");
        let found = [Some(key.name), alias]
            .into_iter()
            .flatten()
            .filter_map(|name| self.find(table, name))
            .min_by_key(|found| found.layer);
        let (value, origin) = match &found {
            Some(found) => {
                let above = (found.layer > 0).then_some("[defaults.program]");
                let value = self.effective(header, key, &kind, &found.node, home);
                (value, self.origin(&found.node, above))
            }
            None => (self.default(key, &kind), Origin::Default(key.default.to_owned())),
        };
        let masked = value.as_deref().and_then(|text| self.hide(text));
        Shown {
            table: header.to_owned(),
            key: key.name.to_owned(),
            hidden: masked.is_some(),
            value: masked.or(value),
            origin,
        }
    }

    fn hide(&self, text: &str) -> Option<String> {
        if self.secrets { None } else { without_secrets(text) }
    }

    /// Finds a dotted key: the variable that overrides it, else the strongest layer.
    pub(super) fn find<'t>(&self, table: &Table<'t>, dotted: &str) -> Option<Found<'t>> {
        if let Some(prefix) = &table.variables {
            let name = format!("{prefix}_{}", dotted.replace('.', "_").to_ascii_uppercase());
            if let Some(text) = (self.cx.env)(&name) {
                let value = Written::Variable { name, text };
                let node = Node { section: table.section, key: dotted.to_owned(), value };
                return Some(Found { node, layer: 0 });
            }
        }
        table.layers.iter().enumerate().find_map(|(layer, Layer { file, table: top })| {
            let mut parts = dotted.split('.');
            let mut value = top.get(parts.next()?)?;
            for part in parts {
                value = value.get_ref().as_table()?.get(part)?;
            }
            let node = Node::toml_node(table.section, dotted.to_owned(), *file, value);
            Some(Found { node, layer })
        })
    }

    pub(super) fn origin(&self, node: &Node<'_>, above: Option<&'static str>) -> Origin {
        match node.place() {
            Place::Variable(name) => Origin::Variable(name),
            Place::File { index, span } => {
                let source = &self.cx.sources[index];
                let at = source.text.floor_char_boundary(span.start);
                let line = source.text[..at].matches('\n').count() + 1;
                let file = source.path.clone();
                match above {
                    Some(header) => Origin::Above { header: header.to_owned(), file, line },
                    None => Origin::File { file, line },
                }
            }
        }
    }

    /// Returns the value that a written one has after variables are filled in.
    fn effective(
        &self,
        header: &str,
        key: &Key,
        kind: &Kind,
        node: &Node<'_>,
        home: Option<&Path>,
    ) -> Option<String> {
        if key.name == "command" {
            // A value in the string stays one word there, which no string could say again.
            let name = header.strip_prefix("program.")?;
            let program = self.config.programs.get(&name.parse().ok()?)?;
            let argv = &program.spawn.argv;
            return match argv.as_slice() {
                [shell, flag, text] if shell == "/bin/sh" && flag == "-c" && !is_list(node) => {
                    Some(quoted(text))
                }
                words => Some(list(words.iter().map(|word| quoted(word)))),
            };
        }
        if key.name == "mode.on_change" {
            let argv = self.config.on_mode_change.as_ref()?;
            return Some(list(argv.iter().map(|word| quoted(word))));
        }
        if let (Kind::TextOrTable, Some(table)) = (kind, node.table()) {
            return self.readiness(header, node, &table);
        }
        let home = home.map(Path::to_path_buf).or_else(|| (self.cx.env)("HOME").map(PathBuf::from));
        let path = |item: &Node<'_>| {
            let text = self.cx.string(item)?;
            Some(quoted(&self.absolute(key, item, &text, home.as_deref())?))
        };
        match kind {
            Kind::Path => path(node),
            Kind::PathOr(words) => match self.cx.string(node)?.as_str() {
                word if words.contains(&word) => Some(quoted(word)),
                _ => path(node),
            },
            Kind::OneOrMany(inner) if **inner == Kind::Path => match is_list(node) {
                true => Some(list(self.cx.list(node)?.iter().filter_map(path))),
                false => path(node),
            },
            Kind::Patterns => {
                let pattern = |item: &Node<'_>| {
                    let text = self.cx.string(item)?;
                    let is_free = !text.contains('/') || text.starts_with("**/");
                    let base = self.cx.base(&item.place()).to_string_lossy().into_owned();
                    Some(quoted(&match is_free || text.starts_with('/') {
                        true => text,
                        false => format!("{}/{text}", glob::Pattern::escape(&base)),
                    }))
                };
                Some(list(self.cx.list(node)?.iter().filter_map(pattern)))
            }
            Kind::Boolean | Kind::Integer | Kind::Number | Kind::Duration | Kind::Size => {
                self.raw(kind, node)
            }
            Kind::Text
            | Kind::TextOrTable
            | Kind::Percentage
            | Kind::Octal
            | Kind::Signal
            | Kind::Account => self.raw(kind, node),
            Kind::Words(_) | Kind::WordsOrSignal(_) | Kind::OrUnlimited(_) => self.raw(kind, node),
            Kind::List(_) | Kind::OneOrMany(_) | Kind::Programs => self.raw(kind, node),
            Kind::Variables | Kind::Tables | Kind::Amount => self.raw(kind, node),
            Kind::OrTable(_) | Kind::Checks | Kind::Remedies => self.raw(kind, node),
        }
    }

    /// Writes `ready` as a table; its command is as the loader has split it.
    fn readiness(&self, header: &str, node: &Node<'_>, layer: &Layer<'_>) -> Option<String> {
        let name = header.strip_prefix("program.")?.parse().ok()?;
        let argv = match &self.config.programs.get(&name)?.lifecycle.ready {
            Some(Ready::Probe(Probing { probe: Probe::Exec(argv), .. })) => argv.as_slice(),
            Some(_) | None => &[],
        };
        let part = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &_)| {
            let name = key.get_ref();
            let item = Node::toml_node(node.section, format!("ready.{name}"), layer.file, value);
            let text = match &**name {
                "exec" => list(argv.iter().map(|word| quoted(word))),
                "status" => self.raw(&Kind::OneOrMany(Box::new(Kind::Integer)), &item)?,
                _ => self.raw(&Kind::Text, &item)?,
            };
            Some(format!("{name} = {text}"))
        };
        let parts: Vec<String> = layer.table.iter().filter_map(part).collect();
        Some(format!("{{ {} }}", parts.join(", ")))
    }

    /// Makes a path or the start of a pattern absolute.
    fn absolute(
        &self,
        key: &Key,
        node: &Node<'_>,
        text: &str,
        home: Option<&Path>,
    ) -> Option<String> {
        let (mark, text) = match text.strip_prefix('-') {
            Some(rest) if key.name == "environment_file" => ("-", rest),
            _ => ("", text),
        };
        if is_glob(text) && !text.starts_with('~') && !text.starts_with('/') {
            let base = glob::Pattern::escape(&self.cx.base(&node.place()).to_string_lossy());
            return Some(format!("{mark}{base}/{text}"));
        }
        let path = self.cx.resolve(node, text, home)?;
        Some(format!("{mark}{}", path.display()))
    }

    /// Writes a value with its variables filled in, in the type that the key takes.
    fn raw(&self, kind: &Kind, node: &Node<'_>) -> Option<String> {
        let is_bare = matches!(kind, Kind::Boolean | Kind::Integer | Kind::Number);
        match node.toml() {
            None | Some(DeValue::String(_)) => {
                let text = self.cx.string(node)?;
                let text = text.as_str();
                let is_number = matches!(kind, Kind::OrUnlimited(of) if **of == Kind::Integer);
                let is_bare = is_bare || (is_number && text != "unlimited");
                Some(if is_bare { text.trim().to_owned() } else { quoted(text) })
            }
            Some(DeValue::Integer(number)) => {
                Some(i64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string())
            }
            Some(DeValue::Float(number)) => Some(number.as_str().to_owned()),
            Some(DeValue::Boolean(switch)) => Some(switch.to_string()),
            Some(DeValue::Datetime(date)) => Some(date.to_string()),
            Some(DeValue::Array(_)) => {
                let inner = if let Kind::List(inner) | Kind::OneOrMany(inner) = kind {
                    (**inner).clone()
                } else {
                    Kind::Text
                };
                let items = self.cx.list(node)?;
                Some(list(items.iter().filter_map(|item| self.raw(&inner, item))))
            }
            Some(DeValue::Table(table)) => {
                let place = node.place();
                let Place::File { index, .. } = place else { return None };
                let part = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                    let key: &std::borrow::Cow<'_, str> = key.get_ref();
                    let item = Node::toml_node(node.section, key.to_string(), index, value);
                    Some(format!("{} = {}", bare_or_quoted(key), self.raw(&Kind::Text, &item)?))
                };
                let parts: Vec<String> = table.iter().filter_map(part).collect();
                Some(format!("{{ {} }}", parts.join(", ")))
            }
        }
    }

    /// Writes the default of a key where it is a value.
    fn default(&self, key: &Key, kind: &Kind) -> Option<String> {
        let supervisor = &self.config.supervisor;
        let path = |path: &Path| Some(quoted(&path.display().to_string()));
        match (key.section, key.name) {
            (Section::Supervisor, "socket") => return path(&supervisor.socket),
            (Section::Supervisor, "state_dir") => return path(&supervisor.state_dir),
            (Section::Supervisor, "log_dir") => return path(&supervisor.log_dir),
            _ => {}
        }
        let words = key.default;
        match kind {
            Kind::Boolean | Kind::Integer | Kind::Number => {
                let is_value = words.parse::<f64>().is_ok() || words.parse::<bool>().is_ok();
                is_value.then(|| words.to_owned())
            }
            Kind::Duration => super::parse_duration(words).is_ok().then(|| quoted(words)),
            Kind::Size => super::parse_size(words).is_ok().then(|| quoted(words)),
            Kind::Signal => super::parse_signal(words).is_ok().then(|| quoted(words)),
            Kind::Words(list) | Kind::PathOr(list) | Kind::WordsOrSignal(list) => {
                list.contains(&words).then(|| quoted(words))
            }
            Kind::Octal => Some(quoted(words)),
            Kind::Text => (!words.is_empty()).then(|| quoted(words)),
            Kind::List(_) | Kind::OneOrMany(_) | Kind::Programs | Kind::Patterns => {
                words.starts_with('[').then(|| words.to_owned())
            }
            Kind::Path | Kind::Percentage | Kind::Account | Kind::OrUnlimited(_) => None,
            Kind::Variables | Kind::Tables | Kind::TextOrTable => None,
            Kind::Amount | Kind::OrTable(_) | Kind::Checks | Kind::Remedies => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Single,
    Sequence,
}

/// Tells which form of `stop` is in effect: that of the strongest layer which has one.
fn chosen_stop(table: &Table<'_>) -> Stop {
    let stop = |layer: &Layer<'_>, keys: &[&str]| {
        let stop = layer.table.get("stop").and_then(|value| value.get_ref().as_table());
        stop.is_some_and(|stop| keys.iter().any(|key| stop.contains_key(*key)))
    };
    let first = |keys: &[&str]| table.layers.iter().position(|layer| stop(layer, keys));
    match (first(&["sequence"]), first(&["signal", "grace"])) {
        (Some(sequence), Some(single)) if single < sequence => Stop::Single,
        (Some(_), _) => Stop::Sequence,
        (None, _) => Stop::Single,
    }
}

fn is_list(node: &Node<'_>) -> bool {
    node.toml().is_some_and(|value| value.as_array().is_some())
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

pub(super) fn bare_or_quoted(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(is_bare) { key.to_owned() } else { quoted(key) }
}

/// Writes a text as a TOML string that means the text itself, `${` included.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
