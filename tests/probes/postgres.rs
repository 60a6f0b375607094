//! PostgreSQL servers that are well, locked, full, wedged, stopping, gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mendd::config::{Address, Hidden, Look, Password, PostgresLook, PostgresServer};
use mendd::core::care::evidence::ProbeFailure;
use mendd::probe::Verdict;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::bench::{
    Question, SHORT, ask, assert_failure, assert_report, wait_for_pass, wait_until,
};
use crate::server::{Server, directory, free_address, listener, postgres_programs};

/// A server that lets `open` in without a password and the others with one.
struct Database {
    directory: TempDir,
    address: Address,
    server: Option<Server>,
}

impl Database {
    fn start() -> Option<Self> {
        let programs = postgres_programs()?;
        let directory = directory();
        let address = free_address();
        let home = directory.path();
        fs::set_permissions(home, fs::Permissions::from_mode(0o777)).unwrap();
        let data = home.join("data");
        let made = as_ordinary_user(&programs.join("initdb"))
            .args(["-U", "open", "--no-sync", "--no-instructions", "-A", "trust", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb");
        let rules = "local all open trust\nhost all open all trust\nhost all scram all scram-sha-256\n\
                     host all hashed all md5\nhost all plain all password\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let users = "CREATE ROLE scram LOGIN PASSWORD 'ä s3cret';\n\
                     SET password_encryption = md5;\nCREATE ROLE hashed LOGIN PASSWORD 's3cret';\n\
                     CREATE ROLE plain LOGIN PASSWORD 's3cret';\n";
        let mut single = as_ordinary_user(&programs.join("postgres"))
            .args(["--single", "-j", "-D"])
            .arg(&data)
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = single.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, users.replace(";\n", ";\n\n").as_bytes()).unwrap();
        drop(input);
        assert!(single.wait().unwrap().success(), "the users");
        let mut command = as_ordinary_user(&programs.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(home);
        command.args(["-h", "127.0.0.1", "-p", &address.port.to_string()]);
        for setting in ["max_connections=4", "superuser_reserved_connections=0", "fsync=off"] {
            command.args(["-c", setting]);
        }
        // Background workers of replication count as connections.
        command.args(["-c", "max_wal_senders=0", "-c", "shared_buffers=1MB"]);
        let server = Some(Server::start(command.stdout(Stdio::null()).stderr(Stdio::null())));
        Some(Self { directory, address, server })
    }

    fn look(&self) -> PostgresLook {
        PostgresLook {
            server: PostgresServer::Tcp(self.address.clone()),
            user: "open".into(),
            database: "postgres".into(),
            password: None,
            query: "SELECT 1".into(),
            latency: None,
        }
    }

    fn asks(&self, query: &str) -> Look {
        Look::Postgres(PostgresLook { query: query.into(), ..self.look() })
    }

    fn login(&self, user: &str, password: Option<&str>) -> Look {
        let password = password.map(|text| Password::Written(Hidden::new(text.to_owned())));
        Look::Postgres(PostgresLook { user: user.into(), password, ..self.look() })
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Killed, it would leave its shared memory behind.
        if let Some(server) = self.server.take() {
            server.end_with(Signal::SIGQUIT);
        }
    }
}

/// PostgreSQL refuses to run as root.
fn as_ordinary_user(program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"]);
    command.arg(program).current_dir("/");
    command
}

#[test]
fn every_kind_of_login_is_known_and_a_wrong_one_says_nothing_of_the_server() {
    let Some(database) = Database::start() else { return };
    wait_for_pass(&database.login("open", None));
    let report = ask(database.login("open", None));
    let words = format!("postgres at {} answers `SELECT 1`", database.address);
    assert_report(&report, Verdict::Pass, &words);
    for (user, password) in [("scram", "ä s3cret"), ("hashed", "s3cret"), ("plain", "s3cret")] {
        let report = ask(database.login(user, Some(password)));
        assert_eq!(report.verdict, Verdict::Pass, "{user}: {report:?}");
        let report = ask(database.login(user, Some("another")));
        assert_report(&report, Verdict::Unknown, "(28P01)");
        let report = ask(database.login(user, None));
        assert_report(&report, Verdict::Unknown, "wants a password, and the check has none");
    }
    assert_report(&ask(database.login("nobody", None)), Verdict::Unknown, "(28000)");
    let directory = PathBuf::from(database.directory.path());
    let unix = PostgresServer::Unix { directory, port: database.address.port };
    let report = ask(Look::Postgres(PostgresLook { server: unix, ..database.look() }));
    assert_eq!(report.verdict, Verdict::Pass, "{report:?}");
    let missing = PostgresLook { database: "missing".into(), ..database.look() };
    let report = ask(Look::Postgres(missing));
    assert_report(&report, Verdict::Fail, "database \"missing\" does not exist (3D000)");
}

#[test]
fn answers_and_errors_of_queries_are_told_apart() {
    let Some(database) = Database::start() else { return };
    wait_for_pass(&database.asks("SELECT 1"));
    for query in ["", "SELECT generate_series(1, 100000)", "SELECT 1; SELECT 2"] {
        assert_eq!(ask(database.asks(query)).verdict, Verdict::Pass, "{query}");
    }
    assert_report(&ask(database.asks("SELEKT")), Verdict::Fail, "(42601)");
    assert_report(&ask(database.asks("SELECT 1/0")), Verdict::Fail, "division by zero (22012)");
    let report = ask(database.asks("COPY pg_class FROM STDIN"));
    assert_eq!(report.verdict, Verdict::Unknown, "{report:?}");
    assert_eq!(ask(database.asks("SELECT '\0'")).verdict, Verdict::Unknown);
}

#[test]
fn a_query_that_is_given_up_does_not_go_on_in_the_server() {
    let Some(database) = Database::start() else { return };
    wait_for_pass(&database.asks("SELECT 1"));
    let running = "SELECT 1 / (count(*) = 0)::int FROM pg_stat_activity \
                   WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    let slow = Question::new(database.asks("SELECT pg_sleep(6000)")).within(SHORT);
    let look = Question::new(database.asks(running));
    crate::bench::run(async {
        let mut past = Default::default();
        let report = slow.ask_now(&crate::bench::Nobody, &mut past).await;
        assert_report(&report, Verdict::Timeout, "did not ");
        assert_failure(&report, ProbeFailure::AnswerTimeout);
        let deadline = std::time::Instant::now() + crate::bench::PATIENCE;
        loop {
            let report = look.ask_now(&crate::bench::Nobody, &mut past).await;
            if report.verdict == Verdict::Pass {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "it goes on: {report:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_server_without_connections_stopped_stopping_or_gone_is_named() {
    let Some(mut database) = Database::start() else { return };
    let look = database.asks("SELECT 1");
    wait_for_pass(&look);
    let sleepers: Vec<_> =
        (0..4).map(|_| sleeper(database.asks("SELECT pg_sleep(6000)"))).collect();
    wait_until("too many connections", || {
        let report = ask(look.clone());
        if report.verdict == Verdict::Fail { Ok(()) } else { Err(report) }
    });
    let report = ask(look.clone());
    assert_report(&report, Verdict::Fail, "too many clients already (53300)");
    assert_failure(&report, ProbeFailure::TooManyConnections);

    // A smart shutdown waits for its clients.
    database.server().signal(Signal::SIGTERM);
    wait_until("a server that is shutting down", || {
        let report = ask(look.clone());
        let is_right = report.sentence.contains("shutting down");
        if is_right && report.verdict == Verdict::Fail { Ok(()) } else { Err(report) }
    });
    database.server().signal_group(Signal::SIGSTOP);
    let report = Question::new(look.clone()).within(SHORT).ask();
    assert_failure(&report, ProbeFailure::AnswerTimeout);
    database.server().signal_group(Signal::SIGCONT);
    database.server.take().expect("it runs").end_with(Signal::SIGQUIT);
    let report = ask(look);
    assert_failure(&report, ProbeFailure::Refused);
    for (stop, thread) in sleepers {
        stop.send(()).unwrap();
        thread.join().unwrap();
    }
}

/// Holds a connection, and takes another one when it is refused, until it is told to stop.
fn sleeper(look: Look) -> (tokio::sync::oneshot::Sender<()>, std::thread::JoinHandle<()>) {
    let question = Question::new(look).within(Duration::from_secs(600));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let hold = async move {
        loop {
            let report = question.ask_now(&crate::bench::Nobody, &mut Default::default()).await;
            assert_ne!(report.verdict, Verdict::Pass, "it cannot have slept so long");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let work = async {
        tokio::select! {
            () = hold => {}
            _ = stopped => {}
        }
    };
    (stop, std::thread::spawn(move || crate::bench::run(work)))
}

#[test]
fn another_protocol_is_no_postgres_however_long_it_says_its_message_is() {
    for text in ["HTTP/1.1 400 Bad Request\r\n\r\n", "R\0\0\0\x08\0\0\0\x63"] {
        let (listener, address) = listener();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(text.as_bytes()).unwrap();
            let _ = client.read(&mut [0; 512]);
        });
        let look = PostgresLook {
            server: PostgresServer::Tcp(address),
            user: "open".into(),
            database: "postgres".into(),
            password: None,
            query: "SELECT 1".into(),
            latency: None,
        };
        let report = ask(Look::Postgres(look));
        assert_report(&report, Verdict::Fail, "does not speak as PostgreSQL does");
    }
}
