//! What wins over what, from the files to the environment of a real process; and what the client
//! says about a configuration.

use std::fs;
use std::process::Command;

use mendd::api::view::ConfigView;
use serde_json::Value;

use crate::harness::{Daemon, Setup, run, wait_for};

/// A program that tells its environment.
const TELL: &str = "command = ['sh', '-c', 'env > {dir}/env.$MEND_PROCESS.new; \
                    mv {dir}/env.$MEND_PROCESS.new {dir}/env.$MEND_PROCESS; exec sleep 100000']\n\
                    start_period = 0\n";

/// Returns one variable of what the program has told.
#[track_caller]
fn told(daemon: &Daemon, process: &str, variable: &str) -> Option<String> {
    let file = daemon.file(&format!("env.{process}"));
    let text = wait_for("the program to tell", || {
        fs::read_to_string(&file).map_err(|error| error.to_string())
    });
    let prefix = format!("{variable}=");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
}

#[test]
fn the_environment_of_a_program_has_its_layers_in_order() {
    let text = format!(
        "[defaults.program]\nenvironment = {{ C = 'defaults', D = 'defaults', E = 'defaults' }}\n\
         environment_file = ['{{dir}}/one.env', '{{dir}}/two.env', '-{{dir}}/none.env']\n\
         [program.app]\nenvironment = {{ D = 'own', G = '${{A:-unset}}', H = '${{NO_SUCH:-${{A}}}}' }}\n\
         {TELL}[program.bare]\ninherit_environment = false\nenvironment_file = []\n{TELL}"
    );
    let setup = Setup::new(&text)
        .supervisor("environment = { B = 'supervisor', C = 'supervisor', D = 'supervisor' }")
        .environment("A", "daemon")
        .environment("B", "daemon")
        .environment("F1", "daemon");
    fs::write(setup.dir().join("one.env"), "F1=one\nF2=one\nE=file\n").expect("a file");
    fs::write(setup.dir().join("two.env"), "# later files win\nF2=\"two\"\n").expect("a file");
    let daemon = setup.start();
    for (variable, value) in [
        ("A", "daemon"),
        ("B", "supervisor"),
        ("C", "defaults"),
        ("D", "own"),
        ("E", "defaults"),
        ("F1", "one"),
        ("F2", "two"),
        ("G", "daemon"),
        ("H", "daemon"),
    ] {
        assert_eq!(told(&daemon, "app", variable).as_deref(), Some(value), "{variable}");
    }
    assert_eq!(told(&daemon, "bare", "A"), None);
    assert_eq!(told(&daemon, "bare", "F1"), None);
    assert_eq!(told(&daemon, "bare", "C").as_deref(), Some("defaults"));
}

#[test]
fn files_are_joined_and_variables_outrank_them_and_the_daemon_tells_what_came_of_it() {
    let setup = Setup::new("[defaults.program]\nnice = 1\npriority = 7\n")
        .preamble("include = ['conf.d/*.toml', '${EXTRA:-none.d}/*.toml']\n")
        .supervisor("nofile = 4096\nlog = { level = 'info' }")
        .environment("MEND_SUPERVISOR_NOFILE", "5000")
        .environment("MEND_SUPERVISOR_LOG_LEVEL", "debug")
        .environment("SECONDS", "100000");
    for (file, text) in [
        ("conf.d/b.toml", "[program.b]\ncommand = 'sleep ${SECONDS:?say how long}'\nnice = 2\n"),
        (
            "conf.d/a.toml",
            "[program.a]\ncommand = ['sleep', '100000']\nrequires = ['b']\n\
                           environment = { API_TOKEN = 'hush', URL = 'pg://me:hush@db/x' }\n",
        ),
        ("conf.d/ignored.txt", "not TOML at all"),
    ] {
        let path = setup.dir().join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    let daemon = setup.start();
    daemon.pid("a");
    let ran = daemon.ctl_ok(&["config", "show", "running", "--json"]);
    let view: ConfigView = serde_json::from_str(&ran.out).expect("a ConfigView");
    assert!(!ran.out.contains("hush"), "{}", ran.out);
    let value = |table: &str, key: &str| {
        let found = view.values.iter().find(|value| value.table == table && value.key == key);
        let found = found.unwrap_or_else(|| panic!("no {table} {key}"));
        (found.value.clone(), found.from.clone(), found.words.clone().unwrap_or_default())
    };
    let from = |value: Value, from: &str, words: &str| (value, from.to_owned(), words.to_owned());
    assert_eq!(
        value("supervisor", "nofile"),
        from(5000.into(), "variable", "MEND_SUPERVISOR_NOFILE")
    );
    assert_eq!(
        value("supervisor", "log.level"),
        from("debug".into(), "variable", "MEND_SUPERVISOR_LOG_LEVEL")
    );
    assert_eq!(value("program.a", "nice"), from(1.into(), "above", "[defaults.program]"));
    assert_eq!(value("program.b", "nice"), from(2.into(), "file", ""));
    assert_eq!(value("program.b", "command").0, serde_json::json!(["sleep", "100000"]));
    assert_eq!(value("program.a", "environment.API_TOKEN").0, "***");
    assert_eq!(value("program.a", "environment.URL").0, "pg://me:***@db/x");
    assert_eq!(value("program.b", "restart").1, "default");
    let text = daemon.ctl_ok(&["config", "show", "running", "b"]).out;
    assert!(text.starts_with("[program.b]\n") && !text.contains("program.a"), "{text}");
    assert!(text.contains("nice = 2  # ") && text.contains("conf.d/b.toml:3\n"), "{text}");
    let ran = daemon.ctl(&["config", "show", "running", "bb"]);
    assert_eq!(ran.code, 4, "{ran:#?}");
    // What runs is shown, not what the files have become.
    fs::write(daemon.file("conf.d/b.toml"), "[program.b]\ncommand = ['sleep', '1']\n").expect("it");
    let text = daemon.ctl_ok(&["config", "show", "running", "b"]).out;
    assert!(text.contains("nice = 2"), "{text}");
}

fn mendctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mendctl"));
    command.args(args).env("NO_COLOR", "1").env("MEND_SOCKET", "/nowhere/mend.sock");
    command
}

#[test]
fn a_check_needs_no_daemon_and_its_exit_code_tells() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let good = write("good.toml", "[program.a]\ncommand = ['sleep', '1']\n");
    let dubious = write("dubious.toml", "[program.a]\ncommand = ['/nowhere/a']\n");
    let bad = write("bad.toml", "[program.a]\ncomand = ['sleep', '1']\nnice = 'é'\n");
    let missing = dir.path().join("missing.toml").to_str().expect("UTF-8").to_owned();
    let check = |words: &[&str]| run(&mut mendctl(&[&["config", "check"], words].concat()));
    for (words, code) in [
        (&[good.as_str()][..], 0),
        (&[&good, "--strict"], 0),
        (&[&dubious], 0),
        (&[&dubious, "--strict"], 1),
        (&[&bad], 78),
        (&[&missing], 1),
        (&["--nonsense"], 2),
    ] {
        let ran = check(words);
        assert_eq!(ran.code, code, "{words:?}: {ran:#?}");
    }
    let ran = check(&[&dubious]);
    assert!(
        ran.out.contains("correct, with a warning") && ran.err.contains("/nowhere/a"),
        "{ran:#?}"
    );
    let ran = check(&[&bad]);
    assert!(ran.out.is_empty() && ran.err.contains("3 mistakes"), "{ran:#?}");
    assert!(ran.err.contains("bad.toml:2:1") && ran.err.contains("did you mean `command`?"));
    assert!(ran.err.contains("`mendctl explain "), "{ran:#?}");
    let ran = check(&[&bad, "--json"]);
    let answer: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((ran.code, &answer["valid"], &answer["mistakes"]), (78, &false.into(), &3.into()));
    let nice = answer["diagnostics"].as_array().expect("a list").iter();
    let nice = nice.clone().find(|it| it["code"] == "wrong-type").expect("the type of nice");
    assert_eq!((&nice["line"], &nice["column"]), (&3.into(), &8.into()));
    assert_eq!(nice["end"], serde_json::json!({ "line": 3, "column": 11 }));
    assert_eq!(nice["severity"], "error");
}

#[test]
fn a_file_is_shown_with_its_secrets_only_when_they_are_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mend.toml");
    let text =
        "[program.a]\ncommand = ['sleep', '${N:-60}']\nenvironment = { DB_PASSWORD = 'hush' }\n";
    fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let show = |words: &[&str]| run(&mut mendctl(&[&["config", "show"], words].concat()));
    let ran = show(&[file]);
    assert!(ran.code == 0 && !ran.out.contains("hush"), "{ran:#?}");
    assert!(ran.out.contains("environment.DB_PASSWORD = \"***\"  # "), "{ran:#?}");
    let ran = show(&[file, "a", "--show-secrets"]);
    assert!(ran.out.contains("\"hush\"") && ran.out.contains("[\"sleep\", \"60\"]"), "{ran:#?}");
    // It is a configuration again.
    let again = dir.path().join("again.toml");
    fs::write(&again, &show(&[file, "--show-secrets"]).out).expect("a file");
    let again = again.to_str().expect("UTF-8");
    assert_eq!(run(&mut mendctl(&["config", "check", again, "--strict"])).code, 0);
    assert_eq!(show(&["running", "--show-secrets"]).code, 2);
    assert_eq!(show(&["running"]).code, 69);
    assert_eq!(show(&[file, "aa"]).code, 2);
}

#[test]
fn the_schema_is_printed_and_mistakes_are_explained() {
    let ran = run(&mut mendctl(&["config", "schema"]));
    let schema: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let ran = run(&mut mendctl(&["explain", "unknown-key"]));
    assert!(ran.code == 0 && ran.out.contains("For example:"), "{ran:#?}");
    let ran = run(&mut mendctl(&["explain", "unknow-key"]));
    assert!(ran.code == 2 && ran.err.contains("did you mean `unknown-key`?"), "{ran:#?}");
    let ran = run(&mut mendctl(&["explain", "--json"]));
    let all: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert!(all["codes"].as_array().is_some_and(|codes| codes.len() > 40), "{ran:#?}");
}
