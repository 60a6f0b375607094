//! What is shown is what takes effect, with where it comes from and without secrets.

use super::*;
use crate::config::load_as;
use crate::config::load_tests::uncommented_example;

const EXAMPLE: &str = include_str!("../../supervisor.example.toml");

fn env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/root".to_owned()),
        "N" => Some("3".to_owned()),
        "WORDS" => Some("a 'b".to_owned()),
        "MEND_SUPERVISOR_NOFILE" => Some("777".to_owned()),
        "MEND_SUPERVISOR_LOG_LEVEL" => Some("debug".to_owned()),
        _ => None,
    }
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.to_owned() }
}

#[track_caller]
fn assert_means_the_same(sources: &[Source]) {
    let before = load_as(sources, &env, 0).unwrap_or_else(|report| panic!("{report}")).config;
    let text = toml(&show(sources, &env, true));
    let again = load_as(&[source("/elsewhere/mend.toml", &text)], &|_| None, 0)
        .unwrap_or_else(|report| panic!("{report}"))
        .config;
    assert_eq!(again.supervisor, before.supervisor);
    assert_eq!(again.programs, before.programs, "{text}");
    assert_eq!(again.groups, before.groups);
    assert_eq!(again.checks, before.checks, "{text}");
    assert_eq!((again.mode, again.on_mode_change), (before.mode, before.on_mode_change));
}

fn uncommented() -> String {
    let text = uncommented_example();
    let lines = text.lines().filter(|line| !line.starts_with("include"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn what_is_shown_is_a_configuration_that_means_the_same() {
    assert_means_the_same(&[source("/etc/mend/mend.toml", EXAMPLE)]);
    assert_means_the_same(&[source("/etc/mend/mend.toml", &uncommented())]);
    let main = "
        [supervisor]
        environment = { TZ = 'UTC', B = 'above' }
        [defaults.program]
        environment = { A = 'default', B = 'default' }
        stop = { sequence = [{ signal = 'INT', grace = 1 }, { signal = 'TERM' }] }
        startsecs = 3
        directory = 'sub'
        [program.web]
        command = 'echo x${WORDS}y \"$HOME\" $${N}'
        replicas = '${N}'
        environment = { B = 'own', PORT = 80, 'od d' = '$${x}' }
        limits = { nofile = '${N}00', core = 0x10 }
        watch = ['~/a', 'src/**/*.py', '/x/[ab]']
        watch_ignore = ['build/*', '*.log']
        [program.shell]
        command = 'echo \"${WORDS}\" $HOME; sleep 1'
        shell = true
        stop = { signal = 'QUIT' }
        stdin = 'input'
        environment_file = ['-rel.env', '/abs.env']
        [program.'a.b']
        command = ['sleep', '1']
        start_period = '2s'
        ready = 'notify'
        watchdog = '30s'
        [program.probed]
        command = ['sleep', '1']
        ready = { exec = 'probe ${WORDS} \"x y\"', interval = '30s', timeout = '${N}s' }
        [program.asked]
        command = ['sleep', '1']
        restart_with = ['web']
        ready = { http = 'http://h:80/${N}', status = [200, 204] }
        severity = 'critical'
        stale_files = 'run/asked.pid'
        [defaults.check]
        fall = '${N}'
        heal = ['reload', 'run:echo ${WORDS} x']
        [[defaults.program.check]]
        name = 'inherited'
        memory = '1GiB'
        [[program.asked.check]]
        exec = 'probe ${WORDS}'
        [[program.asked.check]]
        name = 'inherited'
        tcp = { address = 'unix:run/s', send = \"PING\\r\\n\", expect = '[+]PONG', latency = '1s' }
        fail_if = '${N} of 5'
        [[program.asked.check]]
        process = true
        heal = []
        [check.'a.b']
        postgres = 'postgres://me:p%40@h:5433/db?sslmode=disable'
        [check.socket]
        postgres = 'unix:/run/postgresql/.s.PGSQL.5433'
        interval = '1h'
        [check.memory]
        memory = { warn = '70.5%', fail = '${N}GiB' }
        heal = ['shed']
        [check.redis]
        redis = 'redis://u:pw@[::1]'
        [supervisor.mode]
        enter = '${N}s'
        shed_degraded = 900
        on_change = 'echo ${WORDS} now'
    ";
    let more = "[group.site]\nprograms = ['web']\n";
    assert_means_the_same(&[
        source("/etc/mend/mend.toml", main),
        source("/etc/mend/conf.d/more.toml", more),
    ]);
}

#[test]
fn every_value_has_its_origin() {
    let main = "[supervisor]\nnofile = 99\nenvironment = { TZ = 'UTC' }\n\
                [defaults.program]\nnice = 3\nenvironment = { A = 'a' }\n\
                [program.web]\ncommand = ['sleep', '1']\n";
    let shown = show(&[source("/m.toml", main)], &env, false);
    let origin = |table: &str, key: &str| {
        let one = shown.iter().find(|one| one.table == table && one.key == key);
        one.map(|one| (one.value.clone().unwrap_or_default(), one.origin.to_string()))
    };
    let expect = |value: &str, origin: &str| Some((value.to_owned(), origin.to_owned()));
    assert_eq!(origin("supervisor", "nofile"), expect("777", "MEND_SUPERVISOR_NOFILE"));
    assert_eq!(origin("supervisor", "log.level"), expect("\"debug\"", "MEND_SUPERVISOR_LOG_LEVEL"));
    assert_eq!(origin("supervisor", "shutdown_timeout"), expect("\"90s\"", "default"));
    assert_eq!(origin("program.web", "command"), expect("[\"sleep\", \"1\"]", "/m.toml:8"));
    assert_eq!(origin("program.web", "nice"), expect("3", "[defaults.program], /m.toml:5"));
    assert_eq!(
        origin("program.web", "environment.A"),
        expect("\"a\"", "[defaults.program], /m.toml:6")
    );
    assert_eq!(
        origin("program.web", "environment.TZ"),
        expect("\"UTC\"", "[supervisor], /m.toml:3")
    );
    assert_eq!(origin("program.web", "restart"), expect("\"always\"", "default"));
    assert_eq!(origin("program.web", "user"), expect("", "default"));
    let text = toml(&shown);
    assert!(text.contains("# user: the daemon's own  (default)\n"), "{text}");
}

#[test]
fn secrets_are_hidden_unless_they_are_asked_for() {
    let main = "[program.web]\ncommand = ['run', '--token=abc', 'http://u:pw@h/']\n\
                environment = { API_KEY = 'k1', DATABASE_URL = 'pg://me:s3cret@db/x', PORT = '80' }\n";
    let sources = [source("/m.toml", main)];
    let text = toml(&show(&sources, &env, false));
    for secret in ["abc", "pw", "k1", "s3cret"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(text.contains("environment.DATABASE_URL = \"pg://me:***@db/x\""), "{text}");
    assert!(text.contains("environment.PORT = \"80\""), "{text}");
    assert_eq!(load_as(&[source("/m.toml", &text)], &env, 0).map(|_| ()), Ok(()));
    let text = toml(&show(&sources, &env, true));
    assert!(text.contains("\"k1\"") && text.contains("me:s3cret@"), "{text}");
}

#[test]
fn the_checks_of_a_program_are_selected_with_it_and_defaults_are_marked() {
    let main = "[defaults.program]\n[[defaults.program.check]]\nname = 'fds'\nfds = '90%'\n\
                [defaults.check]\nfall = 5\n\
                [program.web]\ncommand = ['sleep', '1']\nseverity = 'critical'\n\
                [[program.web.check]]\nhttp = 'http://h/'\ninterval = '20s'\n\
                [program.db]\ncommand = ['sleep', '1']\n\
                [check.web]\ndisk = '/'\n";
    let shown = show(&[source("/m.toml", main)], &env, false);
    let web = select(shown.clone(), &["program.web".to_owned()]).unwrap();
    let text = toml(&web);
    for line in [
        "[[program.web.check]]\nname = \"http\"  # default\n",
        "interval = \"20s\"  # /m.toml:12\n",
        "fall = 5  # [defaults.check], /m.toml:6\n",
        "name = \"fds\"  # [defaults.program], /m.toml:3\n",
        "#[[program.web.check]]\n#name = \"process\"  # default\n#process = true  # default\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("[program.db]") && !text.contains("[check.web]"), "{text}");
    assert_eq!(select(shown.clone(), &["check.web".to_owned()]).unwrap().len(), 12);
    let tables = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = select(shown.clone(), &names).unwrap();
        let mut tables: Vec<String> = found.into_iter().map(|one| one.table).collect();
        tables.dedup();
        tables
    };
    assert_eq!(tables(&["d?"]), ["program.db", "program.db/fds"]);
    assert!(toml(&shown).contains("#[check.disk-state]\n#disk = { path = "), "{}", toml(&shown));
}

#[test]
fn no_secret_of_a_check_is_shown() {
    let main = "[program.web]\ncommand = ['sleep', '1']\n\
        [[program.web.check]]\nredis = 'redis://me:s3cret@h'\n\
        heal = ['run:fix --token=s3cret', { run = ['fix', '--password', 's3cret'] }]\n\
        [[program.web.check]]\npostgres = { address = 'h:1', password = 's3cret' }\n\
        [[program.web.check]]\ntcp = { address = 'h:1', send = 'AUTH s3cret' }\n\
        [[program.web.check]]\nhttp = { url = 'http://h/?token=s3cret', \
        headers = { Authorization = 'Bearer s3cret', Accept = 'text/plain' } }\n";
    let sources = [source("/m.toml", main)];
    let text = toml(&show(&sources, &env, false));
    assert!(!text.contains("s3cret") && text.contains("text/plain"), "{text}");
    assert_eq!(load_as(&[source("/m.toml", &text)], &env, 0).map(|_| ()), Ok(()));
    assert_eq!(toml(&show(&sources, &env, true)).matches("s3cret").count(), 7);
    let config = load_as(&sources, &env, 0).unwrap().config;
    let checks = &config.programs[&"web".parse().unwrap()].checks;
    let looks: Vec<String> = checks.iter().map(|check| check.look.to_string()).collect();
    assert!(!looks.concat().contains("s3cret"), "{looks:?}");
}
