//! What a good configuration becomes, what wins over what, and that nothing panics.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Section};
use super::*;

const EXAMPLE: &str = include_str!("../../supervisor.example.toml");

fn no_env(_: &str) -> Option<String> {
    None
}

fn source(text: &str) -> Vec<Source> {
    vec![Source { path: "/etc/mend/a.toml".into(), text: text.to_owned() }]
}

#[track_caller]
fn config(text: &str, env: Env<'_>) -> Config {
    match load_as(&source(text), env, 0) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{report}"),
    }
}

#[track_caller]
fn only(text: &str, env: Env<'_>) -> Arc<Program> {
    config(text, env).programs.into_values().next().unwrap()
}

fn codes(result: Result<Loaded, Report>) -> Vec<&'static str> {
    result.unwrap_err().diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn the_example_has_no_mistakes_and_no_warnings() {
    for uid in [0, nix::unistd::geteuid().as_raw()] {
        let loaded = load_as(&source(EXAMPLE), &no_env, uid).unwrap_or_else(|r| panic!("{r}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.render_warnings(false));
    }
}

/// Collects `logs.keep` and the like below a table.
fn leaves(table: &DeTable<'_>, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table.iter() {
        let name = match prefix {
            "" => key.get_ref().to_string(),
            _ => format!("{prefix}.{}", key.get_ref()),
        };
        out.push(name.clone());
        let items = match value.get_ref().as_array() {
            Some(array) => array.iter().filter_map(|item| item.get_ref().as_table()).collect(),
            None => value.get_ref().as_table().into_iter().collect::<Vec<_>>(),
        };
        for inner in items {
            leaves(inner, &name, out);
        }
    }
}

/// Returns the example with every option that it only mentions in use.
pub(super) fn uncommented_example() -> String {
    let option = |line: &'static str| {
        let rest = line.strip_prefix('#')?;
        rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[').then_some(rest)
    };
    let lines = EXAMPLE.lines().map(|line| option(line).unwrap_or(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn the_example_shows_every_key_and_each_commented_option_is_valid() {
    let uncommented = uncommented_example();
    if let Err(report) = load_as(&source(&uncommented), &no_env, 0) {
        panic!("{report}");
    }
    let (table, errors) = DeTable::parse_recoverable(&uncommented);
    assert!(errors.is_empty(), "{errors:?}");
    let mut shown = vec![];
    let mut take = |section, value: Option<&DeValue<'_>>| {
        let mut names = vec![];
        if let Some(table) = value.and_then(DeValue::as_table) {
            leaves(table, "", &mut names);
        }
        shown.extend(names.into_iter().map(|name| (section, name)));
    };
    let top = table.get_ref();
    take(Section::Supervisor, top.get("supervisor").map(|v| v.get_ref()));
    let defaults = top.get("defaults").unwrap().get_ref().as_table().unwrap();
    take(Section::Program, defaults.get("program").map(|v| v.get_ref()));
    for (kind, section) in
        [("program", Section::Program), ("group", Section::Group), ("check", Section::Check)]
    {
        for (_, value) in top.get(kind).unwrap().get_ref().as_table().unwrap().iter() {
            take(section, Some(value.get_ref()));
            let checks = value.get_ref().as_table().and_then(|table| table.get("check"));
            for check in checks.and_then(|list| list.get_ref().as_array()).into_iter().flatten() {
                take(Section::Check, Some(check.get_ref()));
            }
        }
    }
    if top.contains_key("include") {
        shown.push((Section::Top, "include".to_owned()));
    }
    for key in KEYS {
        let found = shown.iter().any(|(section, name)| *section == key.section && name == key.name);
        assert!(found, "the example does not show {} {}", key.section.header(), key.name);
    }
}

#[test]
fn a_program_without_options_gets_the_documented_defaults() {
    let program = only("[program.web]\ncommand = \"sleep 60\"", &no_env);
    assert_eq!(program.spawn.argv, ["sleep", "60"]);
    assert_eq!(program.replicas, None);
    assert_eq!(program.group.as_str(), "web");
    assert_eq!(program.spawn.umask, 0o022);
    let lifecycle = &program.lifecycle;
    assert_eq!((lifecycle.priority, lifecycle.autostart), (999, true));
    assert_eq!(lifecycle.restart, RestartPolicy::Always);
    assert_eq!(lifecycle.start_period, Duration::from_secs(1));
    assert_eq!(
        lifecycle.backoff,
        Backoff {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(60),
            factor: 2.0,
            jitter: 0.25,
            reset_after: Duration::from_secs(60),
        }
    );
    assert_eq!(
        lifecycle.breaker,
        Breaker {
            failures: 5,
            window: Duration::from_secs(120),
            open: Duration::from_secs(300),
            max_open: Duration::from_secs(3600),
        }
    );
    let step = StopStep { signal: libc::SIGTERM, grace: Duration::from_secs(10) };
    assert_eq!(lifecycle.stop.steps, [step]);
    assert_eq!((program.logs.max_size_bytes, program.logs.keep), (10 << 20, 10));
}

#[test]
fn a_program_wins_over_the_defaults_key_by_key() {
    let text = r#"
        [defaults.program]
        command = ["sleep", "1"]
        nice = 3
        environment = { A = "default", B = "default" }
        backoff = { initial = "2s", max = "9s" }
        stop = { sequence = [{ signal = "INT" }, { signal = "TERM" }] }
        [program.web]
        environment = { B = "own" }
        backoff = { max = "8s" }
        stop = { signal = "QUIT" }
    "#;
    let program = only(text, &no_env);
    assert_eq!(program.spawn.argv, ["sleep", "1"]);
    assert_eq!(program.spawn.nice, Some(3));
    assert_eq!(program.spawn.environment["A"], "default");
    assert_eq!(program.spawn.environment["B"], "own");
    assert_eq!(program.lifecycle.backoff.initial, Duration::from_secs(2));
    assert_eq!(program.lifecycle.backoff.max, Duration::from_secs(8));
    let step = StopStep { signal: libc::SIGQUIT, grace: Duration::from_secs(10) };
    assert_eq!(program.lifecycle.stop.steps, [step]);
}

#[test]
fn variables_override_the_scalars_of_the_supervisor() {
    let env = |name: &str| match name {
        "MEND_SUPERVISOR_SOCKET" => Some("/x/y.sock".to_owned()),
        "MEND_SUPERVISOR_NOFILE" => Some("777".to_owned()),
        "MEND_SUPERVISOR_LOG_LEVEL" => Some("debug".to_owned()),
        _ => None,
    };
    let supervisor = config("[supervisor]\nsocket = \"/a.sock\"\nnofile = 99", &env).supervisor;
    assert_eq!(supervisor.socket, Path::new("/x/y.sock"));
    assert_eq!(supervisor.runtime_dir, Path::new("/x"));
    assert_eq!(supervisor.nofile, 777);
    assert_eq!(supervisor.log.level, "debug");
    let bad = |name: &str| (name == "MEND_SUPERVISOR_NOFILE").then(|| "many".to_owned());
    let report = load_as(&source(""), &bad, 0).unwrap_err();
    assert_eq!(report.diagnostics[0].file, Path::new("$MEND_SUPERVISOR_NOFILE"));
}

#[test]
fn a_value_stays_one_word_of_the_command_whatever_it_holds() {
    let env = |name: &str| (name == "V").then(|| "a 'b; rm -rf".to_owned());
    let program = only("[program.web]\ncommand = 'sleep x${V}y \"${W:-c d}\" $HOME $${V}'", &env);
    assert_eq!(program.spawn.argv, ["sleep", "xa 'b; rm -rfy", "c d", "$HOME", "${V}"]);
}

#[test]
fn a_shell_command_keeps_the_dollars_of_the_shell() {
    let text = "[program.web]\ncommand = 'echo $HOME $1 ${V:-x}'\nshell = true";
    assert_eq!(only(text, &no_env).spawn.argv, ["/bin/sh", "-c", "echo $HOME $1 x"]);
}

#[test]
fn relative_paths_start_at_their_file_and_numbers_may_come_from_variables() {
    let env = |name: &str| (name == "N").then(|| "3".to_owned());
    let text = "[program.web]\ncommand = 'sleep 1'\ndirectory = 'sub'\nreplicas = '${N}'";
    let program = only(text, &env);
    assert_eq!(program.spawn.directory.as_deref(), Some(Path::new("/etc/mend/sub")));
    assert_eq!(program.replicas, Some(3));
}

#[test]
fn a_daemon_that_is_not_root_runs_nothing_as_somebody_else() {
    let text = "[program.web]\ncommand = 'sleep 1'\nuser = 'root'";
    assert_eq!(codes(load_as(&source(text), &no_env, 4242)), ["not-root"]);
    let identity = only(text, &no_env).spawn.user.clone().unwrap();
    assert_eq!((identity.uid, identity.gid), (0, 0));
}

#[test]
fn includes_are_read_in_order_and_not_again_from_their_texts() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("main.toml");
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    fs::write(&main, "include = ['conf.d/*.toml', 'none.d/*.toml']").unwrap();
    for name in ["b", "a"] {
        let text = format!("[program.{name}]\ncommand = 'sleep 1'");
        fs::write(dir.path().join(format!("conf.d/{name}.toml")), text).unwrap();
    }
    let loaded = load(&main, &no_env).unwrap();
    let names: Vec<_> =
        loaded.config.files.iter().map(|file| file.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["main.toml", "a.toml", "b.toml"]);
    drop(dir);
    let again = load_sources(&loaded.sources, &no_env).unwrap();
    assert_eq!(again.config, loaded.config);
}

#[test]
fn files_that_cannot_be_read_are_named_with_the_other_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("main.toml");
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("bad.toml", b"a = \xff");
    write("loop.toml", b"include = ['main.toml']");
    fs::File::create(dir.path().join("huge.toml")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    let text = "include = ['none.toml', 'bad.toml', 'huge.toml', 'conf.d', 'loop.toml']\nx = 1";
    write("main.toml", text.as_bytes());
    let mut found = codes(load(&main, &no_env));
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "file-is-directory",
            "file-not-found",
            "file-not-utf8",
            "file-too-large",
            "include-cycle",
            "unknown-key",
        ]
    );
    assert_eq!(codes(load(&dir.path().join("none"), &no_env)), ["file-not-found"]);
    assert_eq!(codes(load(dir.path(), &no_env)), ["file-is-directory"]);
}

#[test]
fn a_default_socket_that_is_too_long_is_refused() {
    let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| format!("/{}", "x".repeat(100)));
    assert_eq!(codes(load_as(&source(""), &env, 4242)), ["socket-path-too-long"]);
}

fn survives(text: &str) {
    if let Err(report) = load_as(&source(text), &no_env, 4242) {
        assert!(report.mistakes() > 0);
        report.render(false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_panics_the_loader(text in "\\PC{0,200}|[\\[\\]\"'=a-z.{}$#\n ]{0,200}") {
        survives(&text);
    }

    #[test]
    fn no_damaged_example_panics_the_loader(
        at in 0..EXAMPLE.len(),
        cut in 0_usize..40,
        insert in "[\\[\\]\"'=a-z.{}$#\n0-9\\\\é]{0,10}",
    ) {
        let from = EXAMPLE.floor_char_boundary(at);
        let to = EXAMPLE.floor_char_boundary((at + cut).min(EXAMPLE.len())).max(from);
        survives(&format!("{}{insert}{}", &EXAMPLE[..from], &EXAMPLE[to..]));
    }
}

#[test]
fn a_chain_of_many_programs_loads_without_deep_recursion() {
    let mut text = String::new();
    for n in 0..5_000 {
        text.push_str(&format!("[program.p{n}]\ncommand = ['sleep', '1']\nuser = 'root'\n"));
        if n > 0 {
            text.push_str(&format!("requires = ['p{}']\n", n - 1));
        }
    }
    assert_eq!(config(&text, &no_env).programs.len(), 5_000);
}
