//! The typed layer between TOML and the model: each read gives a value or notes a mistake.
//!
//! A read never fails loudly: it returns `None` after the mistake has been noted, and the caller
//! goes on with the default, so that every mistake is found in one pass.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::diagnostic::{Diagnostic, Note, Severity, Source, nearest, quote};
use super::identity::Accounts;
use super::interpolate::{expand, raw_range};
use super::paths::Env;
use super::tree::{Node, Written};
use super::units::{self, UnitError};

/// What every part of the loader needs: the world, and where mistakes go.
pub(super) struct Context<'e> {
    pub env: Env<'e>,
    pub sources: &'e [Source],
    /// The effective user of the daemon.
    pub uid: u32,
    pub accounts: Accounts,
    /// Whether what is named is there now is worth a warning.
    pub looks: bool,
    noted: RefCell<Vec<Diagnostic>>,
    seen: RefCell<BTreeSet<(&'static str, PathBuf, usize, String)>>,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File { index: usize, span: Range<usize> },
    Variable(String),
}

impl<'e> Context<'e> {
    pub(super) fn new(env: Env<'e>, sources: &'e [Source], uid: u32) -> Self {
        Self {
            env,
            sources,
            uid,
            accounts: Accounts::default(),
            looks: true,
            noted: RefCell::default(),
            seen: RefCell::default(),
        }
    }

    pub(super) fn without_looking(self) -> Self {
        Self { looks: false, ..self }
    }

    /// Notes a mistake; the same one at the same place is noted once.
    pub(super) fn note(&self, diagnostic: Diagnostic) {
        let start = diagnostic.span.as_ref().map_or(0, |span| span.start);
        let key = (diagnostic.code, diagnostic.file.clone(), start, diagnostic.message.clone());
        if self.seen.borrow_mut().insert(key) {
            self.noted.borrow_mut().push(diagnostic);
        }
    }

    pub(super) fn error(&self, place: &Place, code: &'static str, message: String, help: &str) {
        self.note(self.diagnostic(place, Severity::Error, code, message, help));
    }

    pub(super) fn warning(&self, place: &Place, code: &'static str, message: String, help: &str) {
        self.note(self.diagnostic(place, Severity::Warning, code, message, help));
    }

    /// Notes a mistake that has a second place, such as the earlier of two definitions.
    pub(super) fn error_with(
        &self,
        place: &Place,
        code: &'static str,
        message: String,
        help: &str,
        (other, label): (&Place, String),
    ) {
        let mut diagnostic = self.diagnostic(place, Severity::Error, code, message, help);
        let (file, span) = self.file_and_span(other);
        diagnostic.notes.push(Note { message: label, place: span.map(|span| (file, span)) });
        self.note(diagnostic);
    }

    fn diagnostic(
        &self,
        place: &Place,
        severity: Severity,
        code: &'static str,
        message: String,
        help: &str,
    ) -> Diagnostic {
        let (file, span) = self.file_and_span(place);
        let help = (!help.is_empty()).then(|| help.to_owned());
        Diagnostic { code, severity, file, span, message, help, notes: Vec::new() }
    }

    fn file_and_span(&self, place: &Place) -> (PathBuf, Option<Range<usize>>) {
        match place {
            Place::File { index, span } => (self.sources[*index].path.clone(), Some(span.clone())),
            Place::Variable(name) => (PathBuf::from(format!("${name}")), None),
        }
    }

    /// Returns everything noted, in the order of files and places.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let order: BTreeMap<&Path, usize> =
            self.sources.iter().enumerate().map(|(i, s)| (s.path.as_path(), i)).collect();
        let mut noted = self.noted.into_inner();
        noted.sort_by_key(|d| {
            let file = order.get(d.file.as_path()).copied().unwrap_or(usize::MAX);
            (d.severity, file, d.span.as_ref().map_or(0, |span| span.start))
        });
        noted
    }

    /// Returns the directory that relative paths at `place` start from.
    pub(super) fn base(&self, place: &Place) -> PathBuf {
        match place {
            Place::File { index, .. } => {
                self.sources[*index].path.parent().map(Path::to_path_buf).unwrap_or_default()
            }
            Place::Variable(_) => std::env::current_dir().unwrap_or_default(),
        }
    }

    /// Reads a string and expands its variables; tells whether there were any.
    fn expanded(
        &self,
        node: &Node<'_>,
        wrap: &mut dyn FnMut(String) -> String,
    ) -> Option<(String, bool)> {
        let (file, value) = match &node.value {
            Written::Variable { text, .. } => return Some((text.clone(), true)),
            Written::Toml { file, value } => (*file, *value),
        };
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(node, "a string");
            return None;
        };
        if text.contains('\0') {
            let help = "the kernel ends every text at a NUL";
            self.error(&node.place(), "nul-byte", "a text may not contain a NUL byte".into(), help);
            return None;
        }
        match expand(text, self.env, wrap) {
            Ok(expanded) => Some((expanded.text, expanded.replaced)),
            Err(failures) => {
                let span = value.span();
                let raw = self.sources[file].text.get(span.clone()).unwrap_or_default();
                for failure in failures {
                    let span = raw_range(raw, text, &failure.at)
                        .map_or(span.clone(), |at| span.start + at.start..span.start + at.end);
                    let place = Place::File { index: file, span };
                    self.error(&place, failure.code, failure.message, &failure.help);
                }
                None
            }
        }
    }

    pub(super) fn string(&self, node: &Node<'_>) -> Option<String> {
        self.expanded(node, &mut |value| value).map(|(text, _)| text)
    }

    /// Reads a string whose variables are replaced by what `wrap` returns for their values.
    pub(super) fn wrapped(
        &self,
        node: &Node<'_>,
        wrap: &mut dyn FnMut(String) -> String,
    ) -> Option<String> {
        self.expanded(node, wrap).map(|(text, _)| text)
    }

    /// Reads a text that stands for another type, which only an expanded string may.
    fn stand_in(&self, node: &Node<'_>, expected: &str) -> Option<String> {
        if !node.is_string() {
            self.wrong_type(node, expected);
            return None;
        }
        match self.expanded(node, &mut |value| value)? {
            (text, true) => Some(text.trim().to_owned()),
            (_, false) => {
                self.wrong_type(node, expected);
                None
            }
        }
    }

    pub(super) fn boolean(&self, node: &Node<'_>) -> Option<bool> {
        const EXPECTED: &str = "true or false";
        if let Some(value) = node.toml().and_then(DeValue::as_bool) {
            return Some(value);
        }
        match self.stand_in(node, EXPECTED)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => self.bad(node, format!("must be {EXPECTED}, not {}", quote(other))),
        }
    }

    /// Reads a whole number within `range`.
    pub(super) fn integer(&self, node: &Node<'_>, range: RangeInclusive<i64>) -> Option<i64> {
        const EXPECTED: &str = "a whole number";
        let text;
        let parsed = match node.toml().and_then(DeValue::as_integer) {
            Some(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            None => {
                text = self.stand_in(node, EXPECTED)?;
                if !text.strip_prefix('-').unwrap_or(&text).bytes().all(|b| b.is_ascii_digit()) {
                    return self.bad(node, format!("must be {EXPECTED}, not {}", quote(&text)));
                }
                text.parse().ok()
            }
        };
        match parsed.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None if *range.end() == i64::MAX => {
                self.out_of_range(node, format!("must be at least {}", range.start()))
            }
            None => self.out_of_range(
                node,
                format!("must be between {} and {}", range.start(), range.end()),
            ),
        }
    }

    /// Reads a number, whole or not; never infinite or not a number.
    pub(super) fn number(&self, node: &Node<'_>) -> Option<f64> {
        const EXPECTED: &str = "a number";
        let text = match node.toml() {
            Some(value) => match (value.as_float(), value.as_integer()) {
                (Some(float), _) => float.as_str().to_owned(),
                (_, Some(integer)) => integer.as_str().to_owned(),
                _ => self.stand_in(node, EXPECTED)?,
            },
            None => self.stand_in(node, EXPECTED)?,
        };
        match text.parse::<f64>().ok().filter(|number| number.is_finite()) {
            Some(number) => Some(number),
            None => self.bad(node, format!("must be {EXPECTED}, not {}", quote(&text))),
        }
    }

    /// Reads a quantity: a string for `parse`, or a whole number that `parse` reads too.
    fn quantity<T>(
        &self,
        node: &Node<'_>,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, UnitError>,
    ) -> Option<T> {
        let text = match node.toml().and_then(DeValue::as_integer) {
            Some(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
                match number.filter(|number| *number >= 0) {
                    Some(number) => number.to_string(),
                    None => return self.out_of_range(node, "must be at least 0".to_owned()),
                }
            }
            None if node.is_string() => self.string(node)?,
            None => {
                self.wrong_type(node, expected);
                return None;
            }
        };
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => self.bad(node, format!("must be {expected}: {error}")),
        }
    }

    pub(super) fn duration(&self, node: &Node<'_>) -> Option<Duration> {
        self.quantity(node, "a duration", units::parse_duration)
    }

    /// Reads a duration that may not be zero.
    pub(super) fn some_duration(&self, node: &Node<'_>) -> Option<Duration> {
        match self.duration(node)? {
            Duration::ZERO => self.out_of_range(node, "must be longer than zero".to_owned()),
            duration => Some(duration),
        }
    }

    pub(super) fn size(&self, node: &Node<'_>) -> Option<u64> {
        self.quantity(node, "a size", units::parse_size)
    }

    pub(super) fn signal(&self, node: &Node<'_>) -> Option<i32> {
        self.quantity(node, "a signal", units::parse_signal)
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(&self, node: &Node<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(node)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let help = match nearest(&text, choices.iter().map(|(word, _)| *word)) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => format!("use one of {}", words.join(", ")),
        };
        let message = format!("`{}` cannot be {}", node.key, quote(&text));
        self.error(&node.place(), "unknown-value", message, &help);
        None
    }

    /// Reads the elements of a list.
    pub(super) fn list<'t>(&self, node: &Node<'t>) -> Option<Vec<Node<'t>>> {
        let Written::Toml { file, value } = &node.value else {
            self.wrong_type(node, "a list");
            return None;
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(node, "a list");
            return None;
        };
        let element = |value| Node {
            section: node.section,
            key: node.key.clone(),
            value: Written::Toml { file: *file, value },
        };
        Some(array.iter().map(element).collect())
    }

    /// Reads a list of strings, each with the node it came from.
    pub(super) fn strings<'t>(&self, node: &Node<'t>) -> Option<Vec<(String, Node<'t>)>> {
        let items = self.list(node)?;
        Some(items.into_iter().filter_map(|item| Some((self.string(&item)?, item))).collect())
    }

    /// Reads a path: `~` is `home`, a relative path starts at the file it is written in.
    pub(super) fn path(&self, node: &Node<'_>, home: Option<&Path>) -> Option<PathBuf> {
        let text = self.string(node)?;
        self.resolve(node, &text, home)
    }

    pub(super) fn resolve(
        &self,
        node: &Node<'_>,
        text: &str,
        home: Option<&Path>,
    ) -> Option<PathBuf> {
        if text.is_empty() {
            return self.bad(node, "must be a path, it is empty".to_owned());
        }
        let after_tilde = text.strip_prefix('~').filter(|r| r.is_empty() || r.starts_with('/'));
        match (after_tilde, home) {
            (Some(rest), Some(home)) => {
                let rest = rest.trim_start_matches('/');
                Some(if rest.is_empty() { home.to_path_buf() } else { home.join(rest) })
            }
            (Some(_), None) => self.bad(node, "uses `~`, but HOME is not set".to_owned()),
            (None, _) => Some(self.base(&node.place()).join(text)),
        }
    }

    /// Notes a value of the right type that makes no sense; always returns `None`.
    pub(super) fn bad<T>(&self, node: &Node<'_>, what: impl Display) -> Option<T> {
        self.error(&node.place(), "bad-value", format!("`{}` {what}", node.key), &node.example());
        None
    }

    fn out_of_range<T>(&self, node: &Node<'_>, what: String) -> Option<T> {
        let message = format!("`{}` {what}", node.key);
        self.error(&node.place(), "out-of-range", message, &node.example());
        None
    }

    pub(super) fn wrong_type(&self, node: &Node<'_>, expected: &str) {
        let message = format!("`{}` must be {expected}, not {}", node.key, node.found());
        self.error(&node.place(), "wrong-type", message, &node.example());
    }
}
