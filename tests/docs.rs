//! The README is held to the program: its tables, its configurations, its commands and its paths.
//!
//! `MEND_DOCS=write cargo test --test docs` writes the printed tables into it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mendd::client::exit::Exit;
use mendd::config::{self, Source};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("there is a README")
}

/// The fenced blocks of one kind: line of the opening fence, and text.
fn blocks(text: &str, kind: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, bool, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((index + 1, info == kind, String::new())),
            (Some(_), Some(_)) => {
                let (at, wanted, body) = open.take().expect("it is open");
                if wanted {
                    found.push((at, body));
                }
            }
            (Some((.., body)), None) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is never closed");
    found
}

/// Compares the part between `<!-- NAME -->` and `<!-- /NAME -->` with what the program prints.
#[track_caller]
fn assert_printed(name: &str, printed: &str) {
    let text = readme();
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&open).expect("the opening mark is there") + open.len();
    let end = text.find(&close).expect("the closing mark is there");
    let expected = format!("\n{}\n\n", printed.trim_end());
    if std::env::var("MEND_DOCS").is_ok_and(|value| value == "write") {
        let written = format!("{}{expected}{}", &text[..start], &text[end..]);
        fs::write(root().join("README.md"), written).expect("the README can be written");
    } else {
        let help = "run `MEND_DOCS=write cargo test --test docs`";
        assert_eq!(&text[start..end], expected, "`{name}` has drifted; {help}");
    }
}

#[test]
fn the_tables_of_the_readme_are_the_ones_that_the_program_prints() {
    assert_printed("keys", &config::keys::markdown_table());
    let mut codes = String::from("| Code | Meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        codes.push_str(&format!("| {} | {} |\n", exit.code(), exit.meaning()));
    }
    assert_printed("exit codes", &codes);
}

#[test]
fn every_configuration_in_the_readme_loads() {
    let blocks = blocks(&readme(), "toml");
    assert!(blocks.len() >= 3, "the README has lost its configurations");
    for (line, text) in blocks {
        let source = Source { path: PathBuf::from("README.md"), text };
        let environment = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        if let Err(report) = config::load_sources(&[source], &environment) {
            panic!("the block at line {line}:\n{}", report.render(false));
        }
    }
}

#[test]
fn every_command_in_the_readme_exists() {
    let text = readme();
    let mut verbs = BTreeSet::new();
    for after in text.split("mendctl ").skip(1) {
        let mut words = after.split([' ', '\n', '`', ')', ';', '|', ',']);
        let Some(mut word) = words.next() else { continue };
        if word == "--socket" {
            word = words.nth(1).unwrap_or_default();
        }
        // `mendctl 0.1.0` is output, `mendctl` in a sentence is followed by no verb of its own.
        if word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        {
            verbs.insert(word);
        }
    }
    // In a sentence, not in a command.
    for prose in ["reports", "shows", "waits", "target"] {
        verbs.remove(prose);
    }
    assert!(verbs.len() >= 12, "the README has lost its commands: {verbs:?}");
    for verb in verbs {
        // clap's own `help` has no `--help`.
        let words: &[&str] = if verb == "help" { &["help"] } else { &[verb, "--help"] };
        let shown = Command::new(env!("CARGO_BIN_EXE_mendctl")).args(words).output();
        let shown = shown.expect("mendctl runs");
        assert!(shown.status.success(), "the README says `mendctl {verb}`");
    }
}

#[test]
fn the_readme_lists_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_mendctl")).arg("--help").output();
    let help = String::from_utf8(help.expect("mendctl runs").stdout).expect("help is UTF-8");
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let text = readme();
    for line in list.expect("the help lists the commands").lines() {
        let verb = line.split_whitespace().next().unwrap_or_default();
        assert!(
            verb == "help" || text.contains(&format!("| `mendctl {verb}` |")),
            "the README's table lacks `mendctl {verb}`"
        );
    }
}

#[test]
fn every_request_in_the_readme_has_a_route() {
    let openapi = fs::read_to_string(root().join("src/api/openapi.json")).expect("it is there");
    let openapi: serde_json::Value = serde_json::from_str(&openapi).expect("it is JSON");
    let paths = openapi["paths"].as_object().expect("it has paths");
    let text = readme();
    let mut seen = 0;
    for after in text.split("http://mend/").skip(1) {
        let path = after.split([' ', '\n', '\'', '`', '?']).next().unwrap_or_default();
        let path = format!("/{path}");
        let parts: Vec<&str> = path.split('/').collect();
        let known = paths.keys().any(|route| {
            let route: Vec<&str> = route.split('/').collect();
            route.len() == parts.len()
                && route.iter().zip(&parts).all(|(r, p)| r == p || r.starts_with('{'))
        });
        assert!(known, "no route is `{path}`");
        seen += 1;
    }
    assert!(seen >= 8, "the README has lost its requests");
}

#[test]
fn every_path_and_module_in_the_readme_exists() {
    let text = readme();
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let mut seen = 0;
    for name in &quoted {
        let is_path =
            ["src/", "tests/", "benches/", "systemd/", ".ci/"].iter().any(|d| name.starts_with(d));
        if is_path && !name.contains([' ', '\n']) {
            assert!(root().join(name).exists(), "there is no `{name}`");
            seen += 1;
        }
        if let Some((module, rest)) = name.split_once("::")
            && rest.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            let stem = root().join("src").join(module).join(rest);
            let found = stem.with_extension("rs").exists() || stem.is_dir();
            assert!(found, "there is no module `{name}`");
            seen += 1;
        }
    }
    assert!(seen >= 20, "the README has lost its code map");
    for module in fs::read_dir(root().join("src")).expect("there are sources").flatten() {
        let name = module.file_name();
        let name = name.to_string_lossy();
        let mentioned = quoted.iter().any(|quoted| {
            quoted.trim_end_matches('/') == format!("src/{}", name.trim_end_matches('/'))
        });
        let is_entry = name == "lib.rs" || name == "bin";
        assert!(mentioned || is_entry, "the code map lacks `src/{name}`");
    }
}

#[test]
fn every_link_within_the_readme_leads_to_a_heading() {
    let text = readme();
    let headings: BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .collect();
    let mut seen = 0;
    for after in text.split("](#").skip(1) {
        let anchor = after.split(')').next().unwrap_or_default();
        assert!(headings.contains(anchor), "no heading is `#{anchor}`");
        seen += 1;
    }
    assert!(seen > 0, "the README has lost its contents");
}
