//! Nothing that can be written into a file, or put in its place, panics or hangs the loader.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::load_tests::uncommented_example;
use super::source::MAX_FILES;
use super::*;

/// The example with every option in use and without comments, and every broken file.
fn corpus() -> &'static [String] {
    static CORPUS: OnceLock<Vec<String>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
        let mut files: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort_unstable();
        let texts = files.iter().map(|path| fs::read_to_string(path).unwrap());
        std::iter::once(dense_example()).chain(texts).collect()
    })
}

fn dense_example() -> String {
    let text = uncommented_example();
    let kept = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    kept.flat_map(|line| [line, "\n"]).collect()
}

fn env(name: &str) -> Option<String> {
    (name == "HOME" || name == "WORD").then(|| "/nowhere".to_owned())
}

/// Loads a text, one as root and the next as somebody else, and draws what is wrong.
fn survives(text: &str) {
    let sources = [Source { path: "/nowhere/mend.toml".into(), text: text.to_owned() }];
    let is_root = text.len().is_multiple_of(2);
    match load_as(&sources, &env, if is_root { 0 } else { 4242 }) {
        Ok(loaded) => drop(loaded.render_warnings(false)),
        Err(report) => {
            assert!(report.mistakes() > 0, "it was refused without a mistake");
            report.render(is_root);
        }
    }
}

/// Cuts a text where a person would: words, numbers, quoted strings, signs, line ends.
fn tokens(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 0,
        ' ' => 1,
        _ => 2,
    };
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, c) in text.char_indices() {
        if before.is_some_and(|before| before != kind(c) || kind(c) == 2) {
            tokens.push(&text[start..at]);
            start = at;
        }
        before = Some(kind(c));
    }
    tokens.push(&text[start..]);
    tokens
}

/// Tokens that mean something to TOML or to the loader.
const STRANGE: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\r\n",
    "\u{feff}",
    "\0",
    "${",
    "}",
    "${A:-",
    "${A:?",
    "$${",
    "true",
    "-1",
    "0x",
    "1e999",
    "nan",
    "99999999999999999999",
    "1979-05-27T07:32:00Z",
    "\\u0000",
    "\\U00110000",
    "é",
    "\u{202e}",
    "program",
    "include",
    "defaults",
    "supervisor",
    "environment",
    "signal:",
    "**",
    "[!",
    "~",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic_the_loader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mend.toml");
        fs::write(&file, &bytes).unwrap();
        if let Err(report) = load(&file, &env) {
            prop_assert!(report.mistakes() > 0);
            report.render(true);
        }
    }

    #[test]
    fn no_text_of_strange_tokens_panics_the_loader(
        picks in proptest::collection::vec(proptest::sample::select(STRANGE), 0..60),
        gaps in proptest::collection::vec(proptest::sample::select(&["", " ", "\n", "a", "1"][..]), 60),
    ) {
        let text: String = picks.iter().zip(gaps).flat_map(|(pick, gap)| [*pick, gap]).collect();
        survives(&text);
    }

    #[test]
    fn no_mutation_of_a_file_panics_the_loader(
        file in 0..1000_usize,
        edits in proptest::collection::vec((any::<u16>(), 0..4_u8, any::<u16>()), 1..6),
    ) {
        let text = &corpus()[file % corpus().len()];
        let mut tokens: Vec<&str> = tokens(text);
        for (at, edit, other) in edits {
            let count = tokens.len();
            let (at, other) = (usize::from(at) % count, usize::from(other));
            match edit {
                0 if count > 1 => drop(tokens.remove(at)),
                1 => tokens.insert(at, tokens[other % count]),
                2 => tokens.swap(at, other % count),
                _ => tokens[at] = STRANGE[other % STRANGE.len()],
            }
        }
        survives(&tokens.concat());
    }
}

#[test]
fn no_truncation_of_the_example_panics_the_loader() {
    let example = &corpus()[0];
    // Each table alone at each byte, the whole at each line: every cut of both would take long.
    let starts = example.match_indices("\n[").map(|(at, _)| at + 1);
    let bounds: Vec<usize> = [0].into_iter().chain(starts).chain([example.len()]).collect();
    for table in bounds.windows(2).map(|pair| &example[pair[0]..pair[1]]) {
        for end in (0..table.len()).filter(|end| table.is_char_boundary(*end)) {
            survives(&table[..end]);
        }
    }
    for (end, _) in example.match_indices('\n') {
        survives(&example[..end]);
    }
}

#[test]
fn no_depth_panics_the_loader() {
    const DEEP: usize = 20_000;
    for (open, middle, close) in [
        ("[", "1", "]"),
        ("{ a = ", "1", " }"),
        ("a.", "a = 1", ""),
        ("[a]\n[[b]]\n", "", ""),
        ("\"\"\"\n", "", "\"\"\"\n"),
        ("${A:-", "", "}"),
    ] {
        let nested = format!("{}{middle}{}", open.repeat(DEEP), close.repeat(DEEP));
        survives(&nested);
        survives(&format!("include = {nested}"));
        survives(&format!("[program.web]\ncommand = \"{nested}\""));
        survives(&format!("[program.web]\nenvironment = {nested}"));
        survives(&format!("[{nested}]"));
        survives(&format!("program.web.environment.{nested}"));
    }
}

#[test]
fn no_number_panics_the_loader() {
    let numbers = [
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "1e308",
        "1e309",
        "-0.0",
        "0x7fffffffffffffff",
        "0o777",
        "0b1",
        "+nan",
        "1_0",
        "007",
        "'1e400s'",
        "'9999999999999999999999w'",
        "'0.0000000000000000000000001s'",
        "'18446744073709551615'",
        "'18446744073709551615TiB'",
        "'-1'",
        "'RTMIN+2147483647'",
        "'1%'",
        "'99999999999999%'",
    ];
    for key in keys::KEYS {
        for number in numbers {
            let header = match key.section {
                Section::Top => "",
                Section::Supervisor => "[supervisor]",
                Section::Program => "[program.web]",
                Section::Group => "[group.site]",
                Section::Check => "[[program.web.check]]",
            };
            survives(&format!("{header}\n{} = {number}", key.name));
            if key.section == Section::Check {
                survives(&format!("[check.disk]\n{} = {number}", key.name));
            }
        }
    }
}

/// Loads a main file that includes `include`, from a directory that `prepare` fills, and returns
/// the codes.
fn codes(include: &str, prepare: impl FnOnce(&Path)) -> BTreeSet<&'static str> {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let main = dir.path().join("main.toml");
    fs::write(&main, format!("include = ['{include}']")).unwrap();
    match load(&main, &env) {
        Ok(_) => BTreeSet::new(),
        Err(report) => {
            report.render(false);
            report.diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
        }
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_never_waited_for() {
    let fifo: fn(&Path) = |dir: &Path| {
        nix::unistd::mkfifo(&dir.join("x.toml"), nix::sys::stat::Mode::from_bits_truncate(0o600))
            .unwrap();
    };
    let socket: fn(&Path) = |dir: &Path| drop(UnixListener::bind(dir.join("x.toml")).unwrap());
    let directory = |dir: &Path| fs::create_dir(dir.join("x.toml")).unwrap();
    let endless: fn(&Path) = |dir: &Path| symlink("/dev/zero", dir.join("x.toml")).unwrap();
    let tty: fn(&Path) = |dir: &Path| symlink("/dev/tty", dir.join("x.toml")).unwrap();
    let nowhere = |dir: &Path| symlink("nothing", dir.join("x.toml")).unwrap();
    let itself = |dir: &Path| symlink("x.toml", dir.join("x.toml")).unwrap();
    let without_circle = |mut codes: BTreeSet<&'static str>| {
        // `*.toml` matches the main file too, and that is a circle of its own.
        codes.remove("include-cycle");
        codes
    };
    for pattern in ["x.toml", "*.toml"] {
        let glob = pattern.contains('*');
        for prepare in [fifo, socket, endless, tty] {
            assert_eq!(without_circle(codes(pattern, prepare)), ["file-unreadable"].into());
        }
        let expected = if glob { [].into() } else { ["file-is-directory"].into() };
        assert_eq!(without_circle(codes(pattern, directory)), expected);
        assert!(!codes(pattern, nowhere).is_empty() || glob);
        assert!(!codes(pattern, itself).is_empty() || glob);
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let found = codes("x.toml", |dir| {
        fs::write(dir.join("x.toml"), "").unwrap();
        fs::set_permissions(dir.join("x.toml"), fs::Permissions::from_mode(0o000)).unwrap();
    });
    assert_eq!(found, ["file-unreadable"].into());
}

#[test]
fn circles_of_files_and_links_end() {
    let circle = |dir: &Path| {
        fs::write(dir.join("a.toml"), "include = ['b.toml']").unwrap();
        fs::write(dir.join("b.toml"), "include = ['./a.toml', 'main.toml', 'b.toml']").unwrap();
    };
    assert_eq!(codes("a.toml", circle), ["include-cycle"].into());
    let links = |dir: &Path| {
        fs::create_dir(dir.join("conf")).unwrap();
        fs::write(dir.join("conf/a.toml"), "").unwrap();
        symlink("..", dir.join("conf/up")).unwrap();
        symlink(".", dir.join("conf/here")).unwrap();
    };
    assert_eq!(codes("conf/**/*.toml", links), [].into());
}

#[test]
fn a_long_chain_of_includes_ends_with_a_word() {
    let chain = |dir: &Path| {
        for n in 0..5_000 {
            let text = format!("include = ['{}.toml']", n + 1);
            fs::write(dir.join(format!("{n}.toml")), text).unwrap();
        }
    };
    assert_eq!(codes("0.toml", chain), ["include-too-deep"].into());
}

#[test]
fn too_many_files_end_with_a_word() {
    let many = |dir: &Path| {
        for n in 0..=MAX_FILES {
            fs::write(dir.join(format!("{n}.conf")), "").unwrap();
        }
    };
    assert_eq!(codes("*.conf", many), ["too-many-files"].into());
}

#[test]
fn names_that_are_not_utf8_and_line_ends_of_windows_are_understood() {
    let found = codes("*.conf", |dir| {
        let name = std::ffi::OsStr::from_bytes(b"\xff\xfe.conf");
        fs::write(dir.join(name), "[program.web]\r\ncommand = 'sleep 1'\r\n").unwrap();
    });
    assert_eq!(found, [].into());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mend.toml");
    fs::write(&file, "\u{feff}[program.web]\r\ncommand = 'sleep 1'\r\nnicee = 1\r\n").unwrap();
    let report = load(&file, &env).unwrap_err();
    assert_eq!(report.diagnostics.len(), 1, "{report}");
    assert!(report.render(false).contains(":3:1"), "{report}");
}

#[test]
fn a_huge_file_is_read_in_full_or_not_at_all() {
    let mut text = String::new();
    while text.len() < 256 << 10 {
        let n = text.len();
        text.push_str(&format!("[program.p{n}]\ncommand = ['sleep', '1']\nnicee = 1\n"));
    }
    let sources = [Source { path: "/nowhere/mend.toml".into(), text }];
    let report = load_as(&sources, &env, 0).unwrap_err();
    assert!(report.mistakes() > 3_500);
    assert!(report.render(false).len() < 1 << 20);
}
