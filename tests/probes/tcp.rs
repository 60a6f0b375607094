//! Connections that are accepted, refused, wedged, closed, and what is said over them.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use mendd::config::{Bounds, Endpoint, Look, TcpLook};
use mendd::core::care::evidence::ProbeFailure;
use mendd::probe::Verdict;

use crate::bench::{Question, SHORT, ask, assert_failure, assert_report};
use crate::server::{directory, free_address, listener, unix};

fn look(endpoint: Endpoint) -> TcpLook {
    TcpLook { endpoint, send: None, expect: None, latency: None }
}

#[test]
fn a_connection_is_accepted_or_refused() {
    let (listener, address) = listener();
    let endpoint = Endpoint::Tcp(address.clone());
    let report = ask(Look::Tcp(look(endpoint.clone())));
    assert_report(&report, Verdict::Pass, &format!("{address} accepts connections"));
    drop(listener);
    let report = ask(Look::Tcp(look(endpoint)));
    assert_report(&report, Verdict::Fail, &format!("connect to {address} refused"));
    assert_failure(&report, ProbeFailure::Refused);
}

#[test]
fn a_unix_socket_is_accepted_missing_or_deaf() {
    let directory = directory();
    let path = directory.path().join("socket");
    let tcp = || Look::Tcp(look(unix(path.clone())));
    let report = ask(tcp());
    assert_report(&report, Verdict::Fail, "nobody listens on unix:");
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(ask(tcp()).verdict, Verdict::Pass);
    fill(&path);
    let full = ask(tcp());
    assert_eq!(full.verdict, Verdict::Timeout, "{full:?}");
    assert_failure(&full, ProbeFailure::ConnectTimeout);
    drop(listener);
    let report = ask(tcp());
    assert_failure(&report, ProbeFailure::Refused);
}

/// Connects until there is no room for more: who has hung up still waits to be accepted.
fn fill(path: &std::path::Path) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let address = UnixAddr::new(path).unwrap();
    for _ in 0..1_000_000 {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        if connect(socket.as_raw_fd(), &address).is_err() {
            return;
        }
    }
    panic!("the queue never fills");
}

/// Accepts one connection, reads what is sent, answers in pieces, hangs up.
fn answer(listener: std::net::TcpListener, pieces: &'static [&'static str]) {
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut asked = [0; 5];
        client.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"PING\n");
        for piece in pieces {
            // Whoever asked may have enough before the end.
            let _ = client.write_all(piece.as_bytes());
            thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn what_is_sent_is_answered_as_expected_or_not() {
    let ping = |expect: &str, endpoint| TcpLook {
        send: Some("PING\n".into()),
        expect: Some(expect.into()),
        ..look(endpoint)
    };
    let (server, address) = listener();
    answer(server, &["PO", "NG 7\n", "more"]);
    let report = ask(Look::Tcp(ping("^PONG \\d", Endpoint::Tcp(address))));
    assert_report(&report, Verdict::Pass, "answers \"PONG 7");

    let (server, address) = listener();
    answer(server, &["busy\n"]);
    let report = ask(Look::Tcp(ping("^PONG", Endpoint::Tcp(address))));
    assert_report(&report, Verdict::Fail, "answers \"busy\", which does not match `^PONG`");
    assert_failure(&report, ProbeFailure::WrongAnswer { answer: "busy".into() });
    assert_eq!(report.output, b"busy\n");

    let (server, address) = listener();
    answer(server, &[]);
    let report = ask(Look::Tcp(ping("^PONG", Endpoint::Tcp(address))));
    assert_failure(&report, ProbeFailure::Closed);
}

#[test]
fn who_accepts_and_never_answers_is_told_from_who_does_not_accept() {
    let (_listener, address) = listener();
    let expecting = TcpLook { expect: Some("x".into()), ..look(Endpoint::Tcp(address.clone())) };
    let report = Question::new(Look::Tcp(expecting)).within(SHORT).ask();
    let words = "accepted the connection and did not answer within 1 s";
    assert_report(&report, Verdict::Timeout, words);
    assert_failure(&report, ProbeFailure::AnswerTimeout);
}

#[test]
fn an_endless_answer_is_read_no_further_than_it_is_kept() {
    let (listener, address) = listener();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        while client.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let expecting = TcpLook { expect: Some("y".into()), ..look(Endpoint::Tcp(address)) };
    let report = ask(Look::Tcp(expecting));
    assert_eq!((report.verdict, report.output.len()), (Verdict::Fail, 4096));
}

#[test]
fn a_connection_that_takes_too_long_is_slow() {
    let (_listener, address) = listener();
    let latency = Bounds { warn: Some(Duration::ZERO), fail: None };
    let slow = TcpLook { latency: Some(latency), ..look(Endpoint::Tcp(address)) };
    let report = ask(Look::Tcp(slow));
    assert_report(&report, Verdict::Warn, "less than 0 ms is expected");
}

#[test]
fn without_descriptors_nobody_is_asked() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_listener, address) = listener();
    let question = Question::new(Look::Tcp(look(Endpoint::Tcp(address))));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let report = crate::bench::run(async {
        // Those of the runtime are open by now.
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        let report = question.ask_now(&crate::bench::Nobody, &mut Default::default()).await;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        report
    });
    assert_report(&report, Verdict::Unknown, "too many open files");
    assert_eq!(question.ask().verdict, Verdict::Pass);
}

#[test]
fn a_name_without_an_address_says_nothing_of_the_target() {
    let address = mendd::config::Address { host: "nothing.invalid".into(), port: 80 };
    let report = ask(Look::Tcp(look(Endpoint::Tcp(address))));
    assert_report(&report, Verdict::Unknown, "the name `nothing.invalid`");
    assert_eq!(report.failure, None);
    let address = mendd::config::Address { host: "localhost".into(), ..free_address() };
    let report = ask(Look::Tcp(look(Endpoint::Tcp(address))));
    assert_failure(&report, ProbeFailure::Refused);
}
