//! What checks become, what wins over what, and what is there without being written.

use std::time::Duration;

use crate::config::*;

const SECOND: Duration = Duration::from_secs(1);

fn env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/root".to_owned()),
        "PORT" => Some("8080".to_owned()),
        "WORDS" => Some("two words".to_owned()),
        _ => None,
    }
}

#[track_caller]
fn config(text: &str) -> Config {
    let source = Source { path: "/etc/mend/m.toml".into(), text: text.to_owned() };
    match load_as(&[source], &env, 0) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{report}"),
    }
}

/// The checks of a program `web` with these keys, those by default left out.
#[track_caller]
fn checks(text: &str) -> Vec<DeclaredCheck> {
    let config = config(&format!("[program.web]\ncommand = ['sleep', '1']\n{text}"));
    let checks = &config.programs[&"web".parse().unwrap()].checks;
    checks.iter().filter(|check| !check.is_builtin).map(|check| (**check).clone()).collect()
}

#[track_caller]
fn only(keys: &str) -> DeclaredCheck {
    let [check] = checks(&format!("[[program.web.check]]\n{keys}")).try_into().unwrap();
    check
}

fn names(checks: &[std::sync::Arc<DeclaredCheck>]) -> Vec<String> {
    checks.iter().map(|check| check.check.name.to_string()).collect()
}

#[test]
fn a_check_without_options_gets_the_documented_defaults() {
    let DeclaredCheck { check, look, is_builtin } = only("tcp = '127.0.0.1:${PORT}'");
    assert_eq!(check, Check::new("tcp".parse().unwrap(), CheckKind::Tcp));
    assert_eq!((check.interval, check.timeout), (10 * SECOND, 5 * SECOND));
    assert_eq!((check.fail_if, check.rise), (FailRule::InARow(3), 2));
    assert!(!is_builtin);
    assert_eq!(look.to_string(), "tcp 127.0.0.1:8080");
    let exec = only("exec = 'true'").check;
    assert_eq!((exec.interval, exec.timeout), (30 * SECOND, 10 * SECOND));
}

#[test]
fn a_short_interval_shortens_the_time_limit_that_is_not_written() {
    let check = only("tcp = 'h:1'\ninterval = '4s'").check;
    assert_eq!((check.interval, check.timeout), (4 * SECOND, 2 * SECOND));
}

#[test]
fn what_the_program_says_holds_for_its_checks() {
    let text = "severity = 'critical'\nstart_timeout = '5m'\n\
                [[program.web.check]]\ntcp = 'h:1'\n\
                [[program.web.check]]\nname = 'b'\ntcp = 'h:1'\nseverity = 'minor'\n";
    let found = checks(text);
    assert_eq!(found[0].check.impact, Impact::Critical);
    assert_eq!(found[0].check.start_timeout, 300 * SECOND);
    assert_eq!(found[1].check.impact, Impact::Minor);
}

#[test]
fn every_remedy_can_be_written_in_each_of_its_forms() {
    let heal = |text: &str| {
        let program = "reload_signal = 'HUP'\nstart_timeout = '20s'\nstop = { grace = '30s' }\n\
                       [program.other]\ncommand = ['sleep', '1']\nautostart = false\n";
        let text = format!("{program}[[program.web.check]]\nprocess = true\nheal = [{text}]");
        let [check]: [DeclaredCheck; 1] = checks(&text).try_into().unwrap();
        let [rung]: [Rung; 1] = check.check.heal.try_into().unwrap();
        rung
    };
    let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for (text, remedy, seconds) in [
        ("'confirm'", Remedy::Confirm, 60),
        ("'reload'", Remedy::Reload, 10),
        ("'signal:USR1'", Remedy::Signal { signal: libc::SIGUSR1 }, 10),
        ("{ signal = 'USR1' }", Remedy::Signal { signal: libc::SIGUSR1 }, 10),
        ("'restart'", Remedy::Restart, 60),
        ("{ remedy = 'clean-restart', timeout = '3s' }", Remedy::CleanRestart, 3),
        ("'restart-group'", Remedy::RestartGroup, 300),
        ("'run:fix a ${WORDS}'", Remedy::Run { argv: argv(&["fix", "a", "two words"]) }, 60),
        ("{ run = ['fix', '$x'] }", Remedy::Run { argv: argv(&["fix", "$x"]) }, 60),
        ("'fallback:other'", Remedy::Fallback { program: "other".parse().unwrap() }, 60),
        ("{ fallback = 'other' }", Remedy::Fallback { program: "other".parse().unwrap() }, 60),
        (
            "{ steps = [{ run = 'a b', undo = 'c' }, { run = ['d'] }] }",
            Remedy::Steps(vec![
                RemedyStep { argv: argv(&["a", "b"]), undo: Some(argv(&["c"])) },
                RemedyStep { argv: argv(&["d"]), undo: None },
            ]),
            60,
        ),
        ("'rollback'", Remedy::Rollback, 300),
        ("'shed'", Remedy::Shed, 10),
        ("'alert'", Remedy::Alert, 10),
        ("'quarantine'", Remedy::Quarantine, 10),
    ] {
        let timeout = seconds * SECOND;
        assert_eq!(heal(text), Rung { remedy, timeout }, "{text}");
    }
}

#[test]
fn defaults_lie_below_every_check_and_leave_out_what_cannot_be_done() {
    let config = config(
        "[defaults.check]\nfall = 7\ncooldown = '9s'\nheal = ['reload', 'restart', 'alert']\n\
         [program.web]\ncommand = ['sleep', '1']\n\
         [[program.web.check]]\ntcp = 'h:1'\nfail_if = '2 of 3'\n\
         [[program.web.check]]\nname = 'ready'\nrole = 'ready'\ntcp = 'h:1'\n\
         [[program.web.check]]\nname = 'none'\ntcp = 'h:1'\nheal = []\n\
         [check.root]\ndisk = '/'\n",
    );
    let checks = &config.programs[&"web".parse().unwrap()].checks;
    let words = |check: &DeclaredCheck| {
        check.check.heal.iter().map(|rung| rung.remedy.word()).collect::<Vec<_>>()
    };
    assert_eq!(checks[0].check.fail_if, FailRule::Among { failures: 2, of: 3 });
    assert_eq!(checks[0].check.cooldown, 9 * SECOND);
    assert_eq!(words(&checks[0]), ["restart", "alert"]);
    assert_eq!((words(&checks[1]).len(), words(&checks[2]).len()), (0, 0));
    assert_eq!(checks[1].check.fail_if, FailRule::InARow(7));
    assert_eq!(words(&config.checks[0]), ["alert"]);
}

#[test]
fn checks_of_all_programs_give_way_to_one_of_the_same_name() {
    let config = config(
        "[[defaults.program.check]]\nmemory = '90%'\n\
         [[defaults.program.check]]\nfds = '90%'\n\
         [program.a]\ncommand = ['sleep', '1']\n\
         [[program.a.check]]\nname = 'fds'\ntcp = 'h:1'\n\
         [program.b]\ncommand = ['sleep', '1']\n",
    );
    let of = |name: &str| &config.programs[&name.parse().unwrap()].checks;
    assert_eq!(names(of("a")), ["fds", "memory"]);
    assert_eq!(of("a")[0].check.kind, CheckKind::Tcp);
    assert_eq!(names(of("b")), ["memory", "fds"]);
}

#[test]
fn memory_disks_and_programs_are_looked_at_without_being_written() {
    let base = "[supervisor]\nsocket = '/run/m/s'\nstate_dir = '/v'\nlog_dir = '/v'\n\
                [program.a]\ncommand = ['sleep', '1']\nseverity = 'critical'\n";
    let found = config(base);
    // One look at a directory is enough.
    assert_eq!(names(&found.checks), ["memory", "disk-state", "disk-runtime"]);
    let process = &found.programs[&"a".parse().unwrap()].checks[0];
    assert_eq!((&process.look, process.check.impact), (&Look::Process, Impact::Critical));
    let normal = config(&base.replace("critical", "normal"));
    assert!(normal.programs[&"a".parse().unwrap()].checks.is_empty());
    for check in found.checks.iter().chain([process]) {
        assert!(check.is_builtin && check.check.heal.is_empty(), "{check:?}");
        if let Look::Memory(look) = &check.look {
            assert_eq!(look.used.fail, None, "it does not only warn");
        }
        if let Look::Disk(look) = &check.look {
            assert_eq!(look.free.fail, None, "it does not only warn");
        }
    }
    let declared = config(&format!(
        "{base}[[program.a.check]]\nname = 'alive'\nprocess = true\n\
         [check.ram]\nmemory = '1GiB'\n[check.disk-runtime]\ndisk = '/other'\n\
         [check.state]\ndisk = '/v'\n"
    ));
    assert_eq!(names(&declared.checks), ["disk-runtime", "ram", "state"]);
    assert_eq!(names(&declared.programs[&"a".parse().unwrap()].checks), ["alive"]);
    let off = config(&base.replace("[program.a]", "default_checks = false\n[program.a]"));
    assert!(off.checks.is_empty() && off.programs[&"a".parse().unwrap()].checks.is_empty());
}

#[test]
fn servers_are_found_in_each_way_of_writing_them() {
    let redis = |text: &str| {
        let Look::Redis(look) = only(&format!("redis = {text}")).look else {
            panic!("it is redis")
        };
        look
    };
    let look = redis("'redis://me:p%40ss@localhost'");
    assert_eq!(look.endpoint.to_string(), "localhost:6379");
    assert_eq!(look.user.as_deref(), Some("me"));
    assert_eq!(look.password, Some(Password::Written(Hidden::new("p@ss".to_owned()))));
    let look = redis("{ address = 'unix:run/r', password_env = 'P', role = 'replica' }");
    assert_eq!(look.endpoint, Endpoint::Unix("/etc/mend/run/r".into()));
    assert_eq!(look.password, Some(Password::Variable("P".to_owned())));
    assert_eq!(look.role, Some(RedisRole::Replica));

    let postgres = |text: &str| {
        let Look::Postgres(look) = only(&format!("postgres = {text}")).look else {
            panic!("it is postgres")
        };
        look
    };
    let look = postgres("'postgres://me@h/db?sslmode=prefer'");
    assert_eq!(look.server.to_string(), "h:5432");
    assert_eq!((look.user.as_str(), look.database.as_str()), ("me", "db"));
    let look = postgres("'unix:/run/postgresql'");
    let directory = "/run/postgresql".into();
    assert_eq!(look.server, PostgresServer::Unix { directory, port: 5432 });
    assert_eq!((look.database.as_str(), look.query.as_str()), ("postgres", "SELECT 1"));
    let look = postgres("'postgresql:///db?host=/x'");
    assert_eq!(look.server.to_string(), "/x/.s.PGSQL.5432");

    let http = |text: &str| {
        let Look::Http(look) = only(&format!("http = {text}")).look else { panic!("it is http") };
        look
    };
    let look = http("{ url = 'https://h/x', verify = false, unix = '~/s', latency = '1s' }");
    assert_eq!((look.target.address.port, look.unix), (443, Some("/root/s".into())));
    assert_eq!(look.tls.map(|tls| (tls.verify, tls.server_name)), Some((false, "h".to_owned())));
    assert_eq!(look.latency, Some(Bounds { warn: None, fail: Some(SECOND) }));
    let look =
        http("{ url = 'http://h/', headers = { X-A = ' b ' }, answer_headers = { C = 'd' } }");
    assert_eq!(look.headers["x-a"].reveal(), "b");
    assert_eq!(look.answer_headers["c"], "d");
    assert_eq!(look.tls, None);
}

#[test]
fn a_single_value_is_where_it_fails() {
    let Look::Memory(look) = only("memory = '512MiB'").look else { panic!("it is memory") };
    assert_eq!(look.used, Bounds { warn: None, fail: Some(Amount::Bytes(512 << 20)) });
    let Look::Cpu(look) = only("cpu = { warn = '150.5%', for = '5m' }").look else {
        panic!("it is cpu")
    };
    assert_eq!(look.percent, Bounds { warn: Some(150.5), fail: None });
    assert_eq!(look.lasting, 300 * SECOND);
    let Look::Silence(look) = only("silence = '10m'").look else { panic!("it is silence") };
    assert_eq!(look.longest.fail, Some(600 * SECOND));
    let Look::Disk(look) = only("disk = { path = 'd', free = '1GiB' }").look else {
        panic!("it is a disk")
    };
    assert_eq!((look.path, look.free.fail), ("/etc/mend/d".into(), Some(Amount::Bytes(1 << 30))));
    assert_eq!(look.free_inodes, Some(Bounds { warn: Some(10.0), fail: Some(5.0) }));
    let Look::Log(look) = only("log = 'panic'").look else { panic!("it is a log") };
    assert_eq!((look.count.fail, look.within), (Some(1), 60 * SECOND));
}

#[test]
fn a_heartbeat_needs_a_socket_that_the_program_has_or_a_file() {
    let beat = "[[program.web.check]]\nheartbeat = '30s'\n";
    let check = checks(&format!("ready = 'notify'\n{beat}")).remove(0);
    assert_eq!(check.look, Look::Heartbeat(HeartbeatLook { file: None, within: 30 * SECOND }));
    let Look::Heartbeat(look) = only("heartbeat = { file = 'alive', within = '5s' }").look else {
        panic!("it is a heartbeat")
    };
    assert_eq!(look.file, Some("/etc/mend/alive".into()));
}

#[test]
fn the_mode_of_the_host_is_read_with_its_defaults() {
    assert_eq!(config("").mode, ModeRules::default());
    let config = config(
        "[supervisor.mode]\nenter = '1s'\nshed_degraded = 900\nshed_emergency = 500\n\
         on_change = 'say ${WORDS}'\n",
    );
    let ModeRules { enter, leave, shed_degraded, shed_emergency } = config.mode;
    assert_eq!((enter, leave), (SECOND, 60 * SECOND));
    assert_eq!((shed_degraded, shed_emergency), (Some(900), Some(500)));
    let argv = ["say", "two words"].map(str::to_owned).to_vec();
    assert_eq!(config.on_mode_change, Some(argv));
}
