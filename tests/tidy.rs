//! Rules about the code itself that no compiler checks: layers, documentation, size, promises.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, in lines; near it, look for the second idea.
const MAX_LINES: usize = 600;

/// The modules of the library from the bottom up; one may use those of lower ranks.
///
/// `api` stands above `engine` because it asks through the engine's front door, `client` above
/// `api` because it reads the same views, `daemon` above all because it joins them.
const LAYERS: [&[&str]; 9] = [
    &["name", "time"],
    &["config"],
    &["core"],
    &["os"],
    &["keeper", "capture", "probe", "store"],
    &["engine"],
    &["api"],
    &["client"],
    &["daemon"],
];

struct Source {
    path: PathBuf,
    /// The top-level module that the file belongs to: `core` for `src/core/program.rs`.
    module: String,
    text: String,
}

impl Source {
    /// The lines before the file's unit tests that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.lines().position(|line| line.trim() == "#[cfg(test)]");
        let lines = self.text.lines().enumerate().take(tests.unwrap_or(usize::MAX));
        lines
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.starts_with("//"))
    }

    fn is_test(&self) -> bool {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        stem == "tests" || stem.ends_with("_tests")
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// Every Rust file under a directory of the package.
fn sources(directory: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut directories = vec![root.join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the package").flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                let path = path.strip_prefix(root).expect("it is below the root").to_owned();
                let module = path.iter().nth(1).unwrap_or_default().to_string_lossy();
                let module = module.trim_end_matches(".rs").to_owned();
                found.push(Source { path, module, text });
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {directory}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[track_caller]
fn assert_none(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

/// The top-level modules of the library that a line of code names as `crate::module`.
fn uses(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in line.split("crate::").skip(1) {
        let inner =
            part.strip_prefix('{').map_or(part, |list| list.split('}').next().unwrap_or(list));
        let many = part.starts_with('{');
        for item in inner.split(',').take(if many { usize::MAX } else { 1 }) {
            let name: String =
                item.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            names.push(name);
        }
    }
    names
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn imports_point_downwards_only() {
    let mut offences = Vec::new();
    for source in sources("src") {
        let Some(own) = rank(&source.module) else { continue };
        for (number, line) in source.code().filter(|_| !source.is_test()) {
            for name in uses(line) {
                let Some(other) = rank(&name) else { continue };
                if name != source.module && other >= own {
                    offences.push(format!(
                        "{}: `{}` uses `{name}`",
                        source.at(number),
                        source.module
                    ));
                }
            }
        }
    }
    assert_none("imports point downwards only (see src/lib.rs)", offences);
}

#[test]
fn every_module_of_the_library_has_its_place_in_the_layers() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))
        .expect("the library");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let unplaced: Vec<String> = modules.filter(|m| rank(m).is_none()).map(str::to_owned).collect();
    assert_none("modules that tests/tidy.rs does not place", unplaced);
}

#[test]
fn the_core_touches_no_clock_no_file_no_process_and_no_chance() {
    const FORBIDDEN: [&str; 14] = [
        "std::fs",
        "std::net",
        "std::process",
        "std::thread",
        "std::env",
        "std::io",
        "std::time::Instant",
        "SystemTime",
        "HashMap",
        "HashSet",
        "tokio",
        "libc::",
        "nix::",
        "fastrand::u64(", // the global generator; one with a seed is a value
    ];
    let mut offences = Vec::new();
    for source in sources("src/core") {
        for (number, line) in source.code().filter(|_| !source.is_test()) {
            for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                offences.push(format!("{}: {word}", source.at(number)));
            }
        }
    }
    assert_none("what the core may not mention", offences);
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = ["src", "tests"].into_iter().flat_map(sources).filter(|source| {
        let first = source.text.lines().find(|line| !line.starts_with("#!"));
        !first.unwrap_or_default().starts_with("//! ")
    });
    let offences = silent.map(|source| source.path.display().to_string()).collect();
    assert_none("files that do not open with `//!`", offences);
}

#[test]
fn no_file_is_longer_than_one_idea() {
    let offences = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert_none("files that are too long", offences);
}

#[test]
fn only_the_view_and_the_store_promise_a_serialised_form() {
    let mut offences = Vec::new();
    for source in sources("src") {
        let is_view =
            source.path.ends_with("src/api/view.rs") || source.path.starts_with("src/api/view");
        let allowed = source.module == "store" || is_view;
        for (number, line) in source.code().filter(|_| !allowed && !source.is_test()) {
            if line.contains("derive(") && line.contains("Serialize") {
                offences.push(source.at(number));
            }
        }
    }
    assert_none("types that derive Serialize outside of api/view and store", offences);
}

#[test]
fn unsafe_code_is_in_os_alone() {
    let mut offences = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        let allowed = source.path.starts_with("src/os") || source.path.ends_with("tests/tidy.rs");
        for (number, line) in source.text.lines().enumerate() {
            let code = line.trim();
            let found = code.contains("unsafe {")
                || code.contains("unsafe fn")
                || code.contains("unsafe impl")
                || code.contains("allow(unsafe_code");
            if found && !allowed && !code.starts_with("//") {
                offences.push(source.at(number + 1));
            }
        }
    }
    assert_none("unsafe code outside of os", offences);
}

#[test]
fn nothing_is_left_unfinished() {
    const MARKS: [&str; 5] = ["TODO", "FIXME", "XXX", "unimplemented!", "todo!("];
    let mut offences = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        if source.path.ends_with("tests/tidy.rs") {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            if let Some(mark) = MARKS.iter().find(|mark| line.contains(**mark)) {
                offences.push(format!("{}: {mark}", source.at(number + 1)));
            }
        }
    }
    assert_none("marks of unfinished work", offences);
}

#[test]
fn the_helpers_of_this_file_see_what_they_should() {
    assert_eq!(uses("use crate::config::Program;"), ["config"]);
    assert_eq!(uses("use crate::{core::Event, name::RunId};"), ["core", "name"]);
    assert_eq!(uses("pub(in crate::engine) fn f(x: crate::time::Instant)"), ["engine", "time"]);
    assert!(uses("use std::fmt;").is_empty());
    assert!(rank("core") > rank("config") && rank("core") < rank("engine"));
}
