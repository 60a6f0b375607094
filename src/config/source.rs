//! Reading the files: the main one, then what it includes, in order.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Severity, Source};
use super::globbing::{Expanded, expand, is_glob};
use super::keys::Section;
use super::paths::Env;
use super::read::Context;
use super::tree::Node;

/// Largest file that is taken for a configuration, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// Most files of one configuration.
pub(super) const MAX_FILES: usize = 4096;
/// Deepest chain of files that include each other.
const MAX_DEPTH: usize = 32;

/// Reads the main file and everything it includes.
///
/// Each file comes once, after the one that includes it. What cannot be read is a diagnostic and
/// is left out; the rest is still read.
pub(super) fn read_all(main: &Path, env: Env<'_>) -> (Vec<Source>, Vec<Diagnostic>) {
    let mut reading =
        Reading { env, sources: Vec::new(), diagnostics: Vec::new(), known: BTreeSet::new() };
    let main = normal(main);
    match read_file(&main) {
        Ok(text) => reading.add(Source { path: main, text }, &mut Vec::new()),
        Err((code, message)) => {
            let way_out = way_out(code)
                .unwrap_or("name the file: `mendd --config FILE`, `mendctl config check FILE`");
            let help = Some(way_out.to_owned());
            let (severity, span, notes) = (Severity::Error, None, Vec::new());
            let file = main;
            reading.diagnostics.push(Diagnostic {
                code,
                severity,
                file,
                span,
                message,
                help,
                notes,
            });
        }
    }
    (reading.sources, reading.diagnostics)
}

struct Reading<'e> {
    env: Env<'e>,
    sources: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
    known: BTreeSet<PathBuf>,
}

impl Reading<'_> {
    /// Adds one file and all that it includes; `stack` holds the files that led to it.
    fn add(&mut self, source: Source, stack: &mut Vec<PathBuf>) {
        self.known.insert(source.path.clone());
        stack.push(source.path.clone());
        let one = std::slice::from_ref(&source);
        let cx = Context::new(self.env, one, 0);
        let (table, _) = DeTable::parse_recoverable(&source.text);
        let mut found = Vec::new();
        let mut room = MAX_FILES.saturating_sub(self.sources.len());
        if let Some(value) = table.get_ref().get("include") {
            let node = Node::toml_node(Section::Top, "include".to_owned(), 0, value);
            for (text, item) in cx.strings(&node).unwrap_or_default() {
                if stack.len() > MAX_DEPTH {
                    let message = format!("files include each other more than {MAX_DEPTH} deep");
                    let help = "include them from one file, by a pattern such as `conf.d/*.toml`";
                    cx.error(&item.place(), "include-too-deep", message, help);
                    break;
                }
                let more = self.include(&cx, &item, &text, stack, room);
                room -= more.len();
                found.extend(more);
            }
        }
        self.diagnostics.extend(cx.finish());
        self.sources.push(source);
        for source in found {
            if self.sources.len() < MAX_FILES && !self.known.contains(&source.path) {
                self.add(source, stack);
            }
        }
        stack.pop();
    }

    /// Reads the files of one entry of `include`, sorted.
    fn include(
        &self,
        cx: &Context<'_>,
        item: &Node<'_>,
        text: &str,
        stack: &[PathBuf],
        room: usize,
    ) -> Vec<Source> {
        let Some(path) = cx.resolve(item, text, None) else {
            return Vec::new();
        };
        let paths = if is_glob(text) {
            match expand(&absolute_glob(cx, item, text)) {
                Ok(found) => matches(cx, item, found),
                Err(error) => {
                    let message = format!("the pattern is not valid: {}", error.msg);
                    cx.error(&item.place(), "bad-glob", message, "for example `conf.d/*.toml`");
                    Vec::new()
                }
            }
        } else {
            vec![path]
        };
        let mut sources = Vec::new();
        for path in paths {
            if sources.len() >= room {
                let message = format!("more than {MAX_FILES} files make up the configuration");
                let help = "include fewer, or join them";
                cx.error(&item.place(), "too-many-files", message, help);
                break;
            }
            let path = normal(&path);
            if let Some(at) = stack.iter().position(|earlier| *earlier == path) {
                let circle: Vec<String> = stack[at..]
                    .iter()
                    .chain([&path])
                    .map(|path| path.display().to_string())
                    .collect();
                let message = format!("files include each other: {}", circle.join(" → "));
                cx.error(&item.place(), "include-cycle", message, "remove one of the includes");
                continue;
            }
            match read_file(&path) {
                Ok(text) => sources.push(Source { path, text }),
                Err((code, message)) => {
                    let files = format!(
                        "include the files in it: \"{}/*.toml\"",
                        text.trim_end_matches('/')
                    );
                    let help = match way_out(code) {
                        Some(way_out) => way_out,
                        None if path.is_dir() => &files,
                        None => "a pattern such as \"conf.d/*.toml\" may match nothing",
                    };
                    cx.error(&item.place(), code, message, help);
                }
            }
        }
        sources
    }
}

/// Returns a glob of `include` with the directory of its file before it.
pub(super) fn absolute_glob(cx: &Context<'_>, item: &Node<'_>, text: &str) -> String {
    if text.starts_with('/') {
        return text.to_owned();
    }
    let base = glob::Pattern::escape(&cx.base(&item.place()).to_string_lossy());
    format!("{base}/{text}")
}

/// Returns what a pattern matches, directories left out; what cannot be searched is noted.
fn matches(cx: &Context<'_>, item: &Node<'_>, found: Expanded) -> Vec<PathBuf> {
    for (directory, error) in found.unreadable {
        let message = format!("cannot search `{}`: {}", directory.display(), reason(&error));
        cx.error(&item.place(), "file-unreadable", message, "make it readable");
    }
    if found.too_many {
        let message = "the pattern leads into too many directories".to_owned();
        let help = "name the directory, for example `conf.d/*.toml`";
        cx.error(&item.place(), "too-many-files", message, help);
    }
    found.paths.into_iter().filter(|path| !path.is_dir()).collect()
}

/// Removes `.` and `..` where the file system agrees, so that a file has one name.
fn normal(path: &Path) -> PathBuf {
    let has_dots = path
        .components()
        .any(|part| matches!(part, std::path::Component::ParentDir | std::path::Component::CurDir));
    match path.canonicalize() {
        Ok(real) if has_dots => real,
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
    }
}

/// Returns what to do about a file whose content, and not its place, is what is wrong with it.
fn way_out(code: &str) -> Option<&'static str> {
    match code {
        "file-not-utf8" => {
            Some("save it as UTF-8, or convert it: `iconv -f ISO-8859-1 -t UTF-8 FILE`")
        }
        "file-too-large" => Some("split it with `include`, if it really is a configuration"),
        _ => None,
    }
}

/// Reads one file as UTF-8, or says why not with a code.
fn read_file(path: &Path) -> Result<String, (&'static str, String)> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let code = if missing { "file-not-found" } else { "file-unreadable" };
        (code, format!("cannot read `{shown}`: {}", reason(&error)))
    };
    // Asking first spares devices an open that may do something.
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        return Err(("file-is-directory", format!("`{shown}` is a directory, not a file")));
    }
    if !meta.is_file() {
        return Err(("file-unreadable", format!("`{shown}` is not a regular file")));
    }
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(("file-unreadable", format!("`{shown}` is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES >> 20;
        return Err(("file-too-large", format!("`{shown}` is larger than {limit} MiB")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let (before, rest) = error.as_bytes().split_at(at);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let byte = rest.first().copied().unwrap_or_default();
        let place = format!("byte 0x{byte:02x} at offset {at}, in line {line}");
        ("file-not-utf8", format!("`{shown}` is not UTF-8: {place}"))
    })
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
