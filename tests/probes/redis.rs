//! Redis servers that are well, wedged, full, locked, of another role, gone.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use mendd::config::{Address, Endpoint, Hidden, Look, Password, RedisLook, RedisRole};
use mendd::core::care::evidence::ProbeFailure;
use mendd::probe::Verdict;
use nix::sys::signal::Signal;

use crate::bench::{
    Question, SHORT, ask, assert_failure, assert_report, wait_for_pass, wait_until,
};
use crate::server::{Server, directory, free_address, installed, listener};

fn look(endpoint: Endpoint) -> RedisLook {
    RedisLook { endpoint, user: None, password: None, role: None, latency: None }
}

fn start(directory: &Path, address: &Address, more: &[&str]) -> Option<Server> {
    let redis = installed("redis-server")?;
    let mut command = Command::new(redis);
    command.args(["--bind", "127.0.0.1", "--port", &address.port.to_string(), "--save", ""]);
    command.arg("--dir").arg(directory).arg("--unixsocket").arg(directory.join("redis.sock"));
    Some(Server::start(command.args(more).stdout(Stdio::null())))
}

#[test]
fn a_redis_is_seen_through_its_life() {
    let directory = directory();
    let address = free_address();
    let Some(server) = start(directory.path(), &address, &["--maxclients", "1"]) else { return };
    let tcp = Look::Redis(look(Endpoint::Tcp(address.clone())));
    wait_for_pass(&tcp);
    let report = ask(tcp.clone());
    assert_report(&report, Verdict::Pass, &format!("redis at {address} answers PING"));
    let unix = Endpoint::Unix(directory.path().join("redis.sock"));
    let wait = || match ask(Look::Redis(look(unix.clone()))) {
        good if good.verdict == Verdict::Pass => Ok(()),
        other => Err(other),
    };
    // The connection before is not yet given up.
    wait_until("its Unix socket", wait);

    let mut only = None;
    wait_until("the only connection", || {
        let mut connection = TcpStream::connect((address.host.as_str(), address.port)).unwrap();
        connection.set_read_timeout(Some(SHORT)).unwrap();
        let mut said = String::new();
        // One that is accepted hears nothing.
        match connection.read_to_string(&mut said) {
            Ok(_) => Err(said),
            Err(_) => {
                only = Some(connection);
                Ok(())
            }
        }
    });
    let report = ask(tcp.clone());
    assert_report(&report, Verdict::Fail, "max number of clients reached");
    assert_failure(&report, ProbeFailure::TooManyConnections);
    drop(only);
    wait_for_pass(&tcp);

    server.signal(Signal::SIGSTOP);
    let report = Question::new(tcp.clone()).within(SHORT).ask();
    assert_report(&report, Verdict::Timeout, "accepted the connection and did not answer");
    assert_failure(&report, ProbeFailure::AnswerTimeout);
    server.signal(Signal::SIGCONT);
    wait_for_pass(&tcp);

    server.end();
    let report = ask(tcp);
    assert_report(&report, Verdict::Fail, &format!("connect to {address} refused"));
    assert_failure(&report, ProbeFailure::Refused);
}

#[test]
fn a_password_is_needed_wrong_or_right_from_wherever_it_comes() {
    let directory = directory();
    let address = free_address();
    let more = ["--requirepass", "from variable"];
    let Some(_server) = start(directory.path(), &address, &more) else { return };
    let endpoint = Endpoint::Tcp(address);
    let with = |password: Password| {
        Look::Redis(RedisLook { password: Some(password), ..look(endpoint.clone()) })
    };
    wait_for_pass(&with(Password::Variable("PROBE_PASSWORD".into())));
    let report = ask(Look::Redis(look(endpoint.clone())));
    assert_report(&report, Verdict::Unknown, "NOAUTH");
    let written = |text: &str| with(Password::Written(Hidden::new(text.into())));
    assert_eq!(ask(written("from variable")).verdict, Verdict::Pass);
    let wrong = ask(written("s3cret"));
    assert_report(&wrong, Verdict::Unknown, "WRONGPASS");
    assert!(!format!("{wrong:?}").contains("s3cret"), "{wrong:?}");
    let file = directory.path().join("password");
    std::fs::write(&file, "from variable\nanything\n").unwrap();
    assert_eq!(ask(with(Password::File(file))).verdict, Verdict::Pass);
    let missing = with(Password::File(directory.path().join("missing")));
    assert_report(&ask(missing), Verdict::Unknown, "no such file or directory");
    let unset = ask(with(Password::Variable("MISSING".into())));
    assert_report(&unset, Verdict::Unknown, "the variable `MISSING` of the password is not set");
    let user = RedisLook {
        user: Some("default".into()),
        password: Some(Password::Variable("PROBE_PASSWORD".into())),
        ..look(endpoint)
    };
    assert_eq!(ask(Look::Redis(user)).verdict, Verdict::Pass);
}

#[test]
fn a_master_and_its_replica_know_what_they_are() {
    let (home, other_home) = (directory(), directory());
    let (address, other) = (free_address(), free_address());
    let Some(master) = start(home.path(), &address, &["--repl-diskless-sync-delay", "0"]) else {
        return;
    };
    let port = address.port.to_string();
    let more = ["--replicaof", "127.0.0.1", &port];
    let Some(_replica) = start(other_home.path(), &other, &more) else { return };
    let of = |address: &Address, role| {
        Look::Redis(RedisLook { role: Some(role), ..look(Endpoint::Tcp(address.clone())) })
    };
    wait_for_pass(&of(&address, RedisRole::Master));
    wait_for_pass(&of(&other, RedisRole::Replica));
    let report = ask(of(&address, RedisRole::Replica));
    assert_report(&report, Verdict::Fail, "is a master and should be a replica");
    assert_failure(&report, ProbeFailure::WrongAnswer { answer: "master".into() });
    assert_eq!(ask(of(&other, RedisRole::Master)).verdict, Verdict::Fail);
    master.end();
    wait_until("a replica that misses its master", || {
        let report = ask(of(&other, RedisRole::Replica));
        let is_right = report.verdict == Verdict::Warn && report.sentence.contains("has no link");
        if is_right { Ok(()) } else { Err(report) }
    });
}

#[test]
fn another_protocol_is_no_redis() {
    let (listener, address) = listener();
    std::thread::spawn(move || {
        use std::io::Write;
        let (mut client, _) = listener.accept().unwrap();
        client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = client.read(&mut [0; 512]);
    });
    let report = ask(Look::Redis(look(Endpoint::Tcp(address))));
    assert_report(&report, Verdict::Fail, "does not speak as Redis: \"HTTP/1.1 400 Bad Request\"");
}
