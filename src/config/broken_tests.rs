//! Broken configurations in `tests/data/config` and what an operator is told about each.
//!
//! `UPDATE=1 cargo test broken` writes the expectations anew.

use std::fs;
use std::path::{Path, PathBuf};

use super::diagnostic::Source;
use super::load_as;

fn env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/root".to_owned()),
        "WORD" => Some("word".to_owned()),
        _ => None,
    }
}

/// Splits a file into the sources it stands for, at lines of `#=== path`.
fn sources(path: &Path) -> Vec<Source> {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap();
    let mut sources = vec![Source { path: name.into(), text: String::new() }];
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("#=== ") {
            Some(path) => {
                sources.push(Source { path: path.trim().into(), text: String::new() });
            }
            None => sources.last_mut().unwrap().text.push_str(line),
        }
    }
    sources
}

#[test]
fn every_broken_file_is_refused_with_the_expected_words() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 60, "only {} broken files", files.len());
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let Err(report) = load_as(&sources(&file), &env, 0) else {
            wrong.push(format!("{name} was accepted"));
            continue;
        };
        let rendered = report.render(false);
        let expectation = file.with_extension("txt");
        if update {
            fs::write(&expectation, &rendered).unwrap();
        } else if fs::read_to_string(&expectation).unwrap_or_default() != rendered {
            wrong.push(format!("{name} is reported differently:\n{rendered}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
