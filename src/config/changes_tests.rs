//! Which change takes effect how, and that no secret is in what is said about it.

use super::*;
use crate::config::{Loaded, Source, load_sources};

fn config(text: &str) -> Config {
    let source = Source { path: "/x/m.toml".into(), text: text.to_owned() };
    let Loaded { config, .. } =
        load_sources(&[source], &|name| (name == "HOME").then(|| "/root".to_owned())).unwrap();
    config
}

fn changes(old: &str, new: &str) -> Vec<(String, Effect)> {
    let head = "[program.p]\ncommand = ['sleep', '1']\n";
    let (old, new) = (config(&format!("{head}{old}")), config(&format!("{head}{new}")));
    let name = "p".parse().unwrap();
    program_changes(&old.programs[&name], &new.programs[&name])
        .into_iter()
        .map(|change| (change.key, change.effect))
        .collect()
}

#[test]
fn no_password_of_a_command_is_shown() {
    let argv = ["x", "--password", "s3cret", "--token=abc", "postgres://me:s3cret@db/", "-v"];
    let shown = words(&argv.map(str::to_owned));
    assert_eq!(shown, "x --password *** '--token=***' postgres://me:***@db/ -v");
}

#[test]
fn every_key_of_the_lifecycle_and_the_logs_changes_in_place() {
    for line in [
        "autostart = false",
        "priority = 3",
        "start_period = 3",
        "restart = 'never'",
        "success_exit_codes = [4]",
        "permanent_exit_codes = [4]",
        "backoff = { initial = '7s' }",
        "backoff = { jitter = 0.5 }",
        "breaker = { failures = 9 }",
        "breaker = { window = '7s' }",
        "stop = { signal = 'INT' }",
        "stop = { grace = '77s' }",
        "reload_signal = 'HUP'",
        "logs = { keep = 3 }",
        "logs = { max_size = '1MiB' }",
        "logs = { sink = 'none' }",
        "logs = { compress = 'none' }",
    ] {
        let found = changes("", line);
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert_eq!(found[0].1, Effect::InPlace, "{line}");
    }
}

#[test]
fn whatever_makes_two_spawns_differ_is_named_as_a_restart() {
    for line in [
        "nice = 3",
        "umask = '077'",
        "directory = '/tmp'",
        "environment = { A = 'b' }",
        "environment_file = '-/x'",
        "inherit_environment = false",
        "oom_score_adj = 3",
        "limits = { nofile = 77 }",
        "stdin = '/dev/zero'",
        "no_new_privs = true",
    ] {
        let found = changes("", line);
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert_eq!(found[0].1, Effect::Restart, "{line}");
    }
    assert_eq!(changes("", "replicas = 2"), [("replicas".to_owned(), Effect::Restart)]);
    let more = changes("replicas = 1", "replicas = 2");
    assert_eq!(more, [("replicas".to_owned(), Effect::InPlace)]);
}

#[test]
fn a_changed_variable_is_named_and_its_values_are_not() {
    let text = |value: &str| format!("[program.p]\ncommand = ['x']\nenvironment = {value}\n");
    let old = config(&text("{ TOKEN = 'sesame', SAME = '1', GONE = '2' }"));
    let new = config(&text("{ TOKEN = 'changed', SAME = '1', NEW = '3' }"));
    let name = "p".parse().unwrap();
    let found = program_changes(&old.programs[&name], &new.programs[&name]);
    let shown = format!("{found:?}");
    assert!(!shown.contains("sesame") && !shown.contains("changed"), "{shown}");
    let keys: Vec<&str> = found.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["environment.GONE", "environment.NEW", "environment.TOKEN"]);
    assert_eq!((found[0].new.as_ref(), found[1].old.as_ref()), (None, None));
}

#[test]
fn settings_say_which_of_them_wait_for_the_daemon() {
    let old = config("[supervisor]\nnofile = 100\n");
    let new = config("[supervisor]\nnofile = 200\nshutdown_timeout = '3s'\nauto_apply = true\n");
    let found: Vec<_> =
        setting_changes(&old, &new).into_iter().map(|c| (c.key, c.effect)).collect();
    assert_eq!(
        found,
        [
            ("supervisor.nofile".to_owned(), Effect::DaemonRestart),
            ("supervisor.shutdown_timeout".to_owned(), Effect::InPlace),
            ("supervisor.auto_apply".to_owned(), Effect::InPlace),
        ]
    );
}

#[test]
fn whatever_changes_in_a_check_changes_in_place() {
    let check = |keys: &str| format!("[[program.p.check]]\nname = 'c'\n{keys}");
    let base = check("tcp = 'h:1'");
    let keys = |found: Vec<(String, Effect)>| {
        assert!(found.iter().all(|(_, effect)| *effect == Effect::InPlace), "{found:?}");
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(keys(changes("", &base)), ["check.c"]);
    assert_eq!(keys(changes(&base, "")), ["check.c"]);
    for (line, key) in [
        ("interval = '20s'", "check.c.interval"),
        ("timeout = '2s'", "check.c.timeout"),
        ("rise = 4", "check.c.rise"),
        ("fall = 4", "check.c.fall"),
        ("role = 'start'", "check.c.role"),
        ("severity = 'critical'", "check.c.severity"),
        ("heal = ['restart']", "check.c.heal"),
        ("mode = 'observe'", "check.c.mode"),
        ("cooldown = '7s'", "check.c.cooldown"),
        ("stable = '7s'", "check.c.stable"),
        ("start_timeout = '7s'", "check.c.start_timeout"),
    ] {
        assert_eq!(keys(changes(&base, &check(&format!("tcp = 'h:1'\n{line}")))), [key]);
    }
    assert_eq!(keys(changes(&base, &check("tcp = 'h:2'"))), ["check.c.tcp"]);
    assert_eq!(keys(changes(&base, &check("http = 'http://h/'"))), ["check.c.http", "check.c.tcp"]);
    let among = check("tcp = 'h:1'\nfail_if = '3 of 5'");
    assert_eq!(keys(changes(&base, &among)), ["check.c.fail_if", "check.c.fall"]);
    assert_eq!(keys(changes("", "severity = 'critical'")), ["severity"]);
    assert_eq!(keys(changes("", "stale_files = '/x'")), ["stale_files"]);
}

#[test]
fn a_changed_password_of_a_check_is_noted_and_not_shown() {
    let text = |password: &str| {
        config(&format!(
            "[check.r]\nredis = {{ address = 'h:1', password = '{password}' }}\n\
             [program.p]\ncommand = ['x']\n[[program.p.check]]\n\
             http = {{ url = 'http://h/', headers = {{ Authorization = '{password}' }} }}\n"
        ))
    };
    let (old, new) = (text("sesame"), text("changed"));
    let name = "p".parse().unwrap();
    let mut found = program_changes(&old.programs[&name], &new.programs[&name]);
    found.extend(setting_changes(&old, &new));
    let shown = format!("{found:?}");
    assert!(!shown.contains("sesame") && !shown.contains("changed"), "{shown}");
    let keys: Vec<&str> = found.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["check.http.http", "check.r.redis"]);
    assert!(!format!("{old:?}").contains("sesame"), "{old:?}");
}

#[test]
fn settings_of_the_host_change_in_place() {
    let old = config("");
    let new = config(
        "[supervisor]\ndefault_checks = false\nmode = { enter = '1s', shed_emergency = 3, \
         on_change = ['say', '--token', 'abc'] }\n[check.root]\ndisk = '/'\n",
    );
    let found = setting_changes(&old, &new);
    assert!(found.iter().all(|change| change.effect == Effect::InPlace), "{found:?}");
    let keys: Vec<&str> = found.iter().map(|change| change.key.as_str()).collect();
    let expected = [
        "supervisor.default_checks",
        "supervisor.mode.enter",
        "supervisor.mode.shed_emergency",
        "supervisor.mode.on_change",
        "check.root",
    ];
    assert_eq!(keys, expected);
    assert!(!format!("{found:?}").contains("abc"), "{found:?}");
}
