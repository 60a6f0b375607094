//! Mistakes as values, and the one renderer that draws them.
//!
//! A [`Diagnostic`] never stops the loader: everything that is wrong is collected and shown at
//! once, each with its place, a stable code and a way out.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// Diagnostics drawn in full; a file with more mistakes than this is not a configuration.
const MAX_RENDERED: usize = 500;
/// Longest stretch of source shown below one diagnostic.
const MAX_LINES: usize = 6;
/// Longest source line shown; longer ones are cut around the mistake.
const MAX_LINE_BYTES: usize = 400;

/// A configuration file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// What a diagnostic prevents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is used; the operator should know.
    Warning,
}

/// One mistake in what the operator wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable and in kebab-case, e.g. `unknown-program`.
    pub code: &'static str,
    pub severity: Severity,
    /// The file, or the name of the environment variable that holds the mistake.
    pub file: PathBuf,
    /// Byte range in the file; `None` when the whole file or a variable is meant.
    pub span: Option<Range<usize>>,
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    pub notes: Vec<Note>,
}

/// A further fact about a mistake, with its place where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub message: String,
    pub place: Option<(PathBuf, Range<usize>)>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In the order of files and places; never without an error.
    pub diagnostics: Vec<Diagnostic>,
    pub sources: Vec<Source>,
}

impl Report {
    /// Draws every diagnostic with the source text it is about.
    pub fn render(&self, colour: bool) -> String {
        render(&self.diagnostics, &self.sources, colour)
    }

    /// Returns the number of errors, warnings not counted.
    pub fn mistakes(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// Whether nothing is known about what is written, because the main file could not be read.
    /// One that was read and cannot be understood at all is a mistake like any other.
    pub fn is_unreadable(&self) -> bool {
        let is_content =
            |found: &Diagnostic| matches!(found.code, "file-not-utf8" | "file-too-large");
        self.sources.is_empty() && !self.diagnostics.iter().any(is_content)
    }
}

impl Diagnostic {
    /// Returns line and column, counted from 1, where it has a place in one of these files.
    pub fn line_and_column(&self, sources: &[Source]) -> Option<(usize, usize)> {
        let text = &sources.iter().find(|source| source.path == self.file)?.text;
        let before = text.get(..self.span.as_ref()?.start)?;
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.matches('\n').count() + 1;
        Some((line, before[line_start..].chars().count() + 1))
    }
}

impl Report {
    /// Returns place (`FILE:LINE:COLUMN`) and message of the first mistake.
    pub fn first_mistake(&self) -> Option<(String, &str)> {
        let first = self.diagnostics.iter().find(|it| it.severity == Severity::Error)?;
        let file = first.file.display();
        let place = match first.line_and_column(&self.sources) {
            Some((line, column)) => format!("{file}:{line}:{column}"),
            None => file.to_string(),
        };
        Some((place, &first.message))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// Draws diagnostics, one paragraph each, with the text of `sources` that they are about.
pub fn render(diagnostics: &[Diagnostic], sources: &[Source], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let sources: Vec<Lined<'_>> = sources.iter().map(Lined::new).collect();
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(MAX_RENDERED) {
        if !out.is_empty() {
            out.push_str("\n\n");
        }
        out.push_str(&renderer.render(&[group(diagnostic, &sources)]));
    }
    if let Some(more) = diagnostics.len().checked_sub(MAX_RENDERED).filter(|n| *n > 0) {
        out.push_str(&format!("\n\n… and {more} more"));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// A file with the places of its line ends, so that the last line costs no more than the first.
struct Lined<'a> {
    source: &'a Source,
    ends: Vec<usize>,
}

impl<'a> Lined<'a> {
    fn new(source: &'a Source) -> Self {
        Self { source, ends: source.text.match_indices('\n').map(|(at, _)| at).collect() }
    }
}

fn group<'a>(diagnostic: &'a Diagnostic, sources: &[Lined<'a>]) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group =
        Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    let excerpt =
        diagnostic.span.as_ref().and_then(|span| Excerpt::new(sources, &diagnostic.file, span));
    let path = diagnostic.file.display().to_string();
    group = match excerpt {
        Some(excerpt) => group.element(excerpt.snippet(path, AnnotationKind::Primary, None)),
        None => group.element(Origin::path(path)),
    };
    for note in &diagnostic.notes {
        let place = note.place.as_ref().and_then(|(file, span)| {
            Some((file.display().to_string(), Excerpt::new(sources, file, span)?))
        });
        group = match place {
            Some((path, excerpt)) => {
                let label = Some(note.message.as_str());
                group.element(excerpt.snippet(path, AnnotationKind::Context, label))
            }
            None => group.element(Level::NOTE.message(note.message.as_str())),
        };
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The lines around a span, so that drawing costs the same in a small and a huge file.
struct Excerpt<'a> {
    text: &'a str,
    first_line: usize,
    span: Range<usize>,
}

impl<'a> Excerpt<'a> {
    fn new(sources: &[Lined<'a>], file: &Path, span: &Range<usize>) -> Option<Self> {
        let lined = sources.iter().find(|lined| lined.source.path == file)?;
        let text = lined.source.text.as_str();
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let mut from = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let first_line = lined.ends.partition_point(|end| *end < from) + 1;
        if start - from > MAX_LINE_BYTES {
            from = floor(text, start - MAX_LINE_BYTES / 2);
        }
        let stop = text[start..]
            .match_indices('\n')
            .map(|(at, _)| start + at)
            .enumerate()
            .find(|(line, at)| *at >= end || *line + 1 >= MAX_LINES)
            .map_or(text.len(), |(_, at)| at);
        let stop = floor(text, stop.min(start + MAX_LINES * MAX_LINE_BYTES));
        let end = end.min(stop).max(start);
        Some(Self { text: &text[from..stop], first_line, span: start - from..end - from })
    }

    fn snippet(
        self,
        path: String,
        kind: AnnotationKind,
        label: Option<&'a str>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        Snippet::source(self.text)
            .line_start(self.first_line)
            .path(path)
            .annotation(kind.span(self.span).label(label))
    }
}

/// Returns the largest character boundary that is not after `at`.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}

/// Puts a text that an operator wrote into a message: in backticks, escaped, not too long.
pub(super) fn quote(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut shown: String = text
        .chars()
        .take(MAX_CHARS)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// Returns the candidate that a mistyped `name` was most likely meant to be.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 200 {
        return None;
    }
    let name = name.to_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
