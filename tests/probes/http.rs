//! Requests that are answered well, wrongly, late or never.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use mendd::config::{Address, Bounds, Hidden, HttpLook, HttpMethod, HttpTarget, Look};
use mendd::core::care::evidence::ProbeFailure;
use mendd::probe::Verdict;

use crate::bench::{PATIENCE, Question, SHORT, ask, assert_failure, assert_report, wait_for_pass};
use crate::server::{Server, directory, free_address, installed, listener};

pub(crate) fn look(address: Address) -> HttpLook {
    HttpLook {
        target: HttpTarget { address, path: "/healthz".into(), statuses: vec![] },
        unix: None,
        tls: None,
        method: HttpMethod::Get,
        headers: BTreeMap::new(),
        body: None,
        answer_headers: BTreeMap::new(),
        latency: None,
    }
}

/// Answers one request after a time, in two parts; returns what was asked.
fn answer(
    listener: TcpListener,
    pause: Duration,
    parts: [&'static str; 2],
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            asked.push(byte[0]);
        }
        for part in parts {
            thread::sleep(pause);
            // Whoever asked may have enough before the end.
            let _ = client.write_all(part.as_bytes());
        }
        String::from_utf8(asked).unwrap()
    })
}

fn answered(
    look: impl FnOnce(Address) -> HttpLook,
    parts: [&'static str; 2],
) -> (mendd::probe::Report, String) {
    let (server, address) = listener();
    let asked = answer(server, Duration::ZERO, parts);
    let report = ask(Look::Http(look(address)));
    (report, asked.join().unwrap())
}

#[test]
fn the_request_is_the_one_that_is_declared() {
    let headers = BTreeMap::from([
        ("authorization".to_owned(), Hidden::new("Bearer x".into())),
        ("host".to_owned(), Hidden::new("example.org".into())),
    ]);
    let declared = |address| HttpLook { headers, method: HttpMethod::Head, ..look(address) };
    let (report, asked) = answered(declared, ["HTTP/1.1 204 No Content\r\n", "\r\n"]);
    assert_report(&report, Verdict::Pass, "answered 204 No Content");
    assert!(asked.starts_with("HEAD /healthz HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer x\r\n"), "{asked}");
    assert!(asked.contains("host: example.org\r\n"), "{asked}");
}

#[test]
fn a_wrong_status_fails_with_what_the_body_says() {
    let bad = ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "<x>\nno database\n"];
    let (report, _) = answered(look, bad);
    assert_report(&report, Verdict::Fail, "answered 503 Service Unavailable: no database");
    let answer = "503 Service Unavailable: no database".to_owned();
    assert_failure(&report, ProbeFailure::WrongAnswer { answer });
    let expecting = |address| {
        let mut look = look(address);
        look.target.statuses = vec![503];
        look
    };
    assert_eq!(answered(expecting, bad).0.verdict, Verdict::Pass);
}

#[test]
fn the_beginning_of_the_body_and_headers_must_match() {
    let body = |pattern: &'static str| {
        move |address| HttpLook { body: Some(pattern.into()), ..look(address) }
    };
    let good = ["HTTP/1.1 200 OK\r\nX-State: ready\r\n\r\n{\"status\":", "\"up\"}"];
    assert_eq!(answered(body("\"status\":\"up\""), good).0.verdict, Verdict::Pass);
    let (report, _) = answered(body("down"), good);
    assert_report(
        &report,
        Verdict::Fail,
        "answered 200 OK with \"{\"status\":\"up\"}\", which does",
    );
    let header = |name: &'static str, pattern: &'static str| {
        move |address| {
            let answer_headers = BTreeMap::from([(name.to_owned(), pattern.to_owned())]);
            HttpLook { answer_headers, ..look(address) }
        }
    };
    assert_eq!(answered(header("x-state", "^ready$"), good).0.verdict, Verdict::Pass);
    let (report, _) = answered(header("x-state", "^up$"), good);
    assert_report(&report, Verdict::Fail, "header `x-state: ready`, which does not match");
    let (report, _) = answered(header("x-other", "."), good);
    assert_report(&report, Verdict::Fail, "answered without the header `x-other`");
    let broken = ["HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", "short"];
    let (report, _) = answered(body("long"), broken);
    assert_report(&report, Verdict::Fail, "answered 200 OK, and then broke off");
}

#[test]
fn what_is_no_http_or_hangs_up_is_named() {
    let (report, _) = answered(look, ["SSH-2.0-OpenSSH\r\n", ""]);
    assert_report(&report, Verdict::Fail, "does not answer in HTTP");
    let (report, _) = answered(look, ["", ""]);
    assert_failure(&report, ProbeFailure::Closed);
    let report = ask(Look::Http(look(free_address())));
    assert_failure(&report, ProbeFailure::Refused);
}

#[test]
fn an_answer_that_comes_late_is_slow_and_one_that_never_comes_is_none() {
    let (server, address) = listener();
    let limit = Duration::from_millis(20);
    let asked = answer(server, limit, ["HTTP/1.1 200 OK\r\n\r\n", "late"]);
    let latency = Some(Bounds { warn: None, fail: Some(limit) });
    let report = ask(Look::Http(HttpLook { latency, ..look(address) }));
    asked.join().unwrap();
    assert_report(&report, Verdict::Fail, "answered 200 OK after ");
    let Some(ProbeFailure::Slow { took, limit: named }) = report.failure else {
        panic!("{report:?}")
    };
    // Both parts count.
    assert!(named == limit && took >= limit * 2, "{took:?}");

    let (_silent, address) = listener();
    let report = Question::new(Look::Http(look(address))).within(SHORT).ask();
    assert_report(&report, Verdict::Timeout, "accepted the connection and did not answer");
    assert_failure(&report, ProbeFailure::AnswerTimeout);
}

#[test]
fn nginx_answers_over_its_sockets_and_not_while_it_is_stopped() {
    let Some(nginx) = installed("nginx") else { return };
    let directory = directory();
    let at = directory.path().display();
    let address = free_address();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/1; proxy_temp_path {at}/2;\n\
         fastcgi_temp_path {at}/3; uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n\
         server {{ listen {address}; listen unix:{at}/socket;\n\
         location /healthz {{ return 200 'all is well'; }} }} }}\n"
    );
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let server = Server::start(
        Command::new(nginx)
            .arg("-p")
            .arg(directory.path())
            .arg("-e")
            .arg("/dev/null")
            .arg("-c")
            .arg(&file),
    );
    let tcp = Look::Http(HttpLook { body: Some("^all is well$".into()), ..look(address.clone()) });
    wait_for_pass(&tcp);
    let unix = Some(directory.path().join("socket"));
    let other = Address { host: "example.org".into(), port: 80 };
    let unix = Look::Http(HttpLook { unix, ..look(other) });
    assert_report(&ask(unix.clone()), Verdict::Pass, "answered 200 OK");
    let mut missing = look(address);
    missing.target.path = "/missing".into();
    assert_report(&ask(Look::Http(missing)), Verdict::Fail, "answered 404 Not Found");
    server.signal(nix::sys::signal::Signal::SIGSTOP);
    for stopped in [&tcp, &unix] {
        let report = Question::new(stopped.clone()).within(SHORT).ask();
        assert_failure(&report, ProbeFailure::AnswerTimeout);
    }
    server.signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(Question::new(tcp.clone()).within(PATIENCE).ask().verdict, Verdict::Pass);
    server.end();
    assert_failure(&ask(tcp), ProbeFailure::Refused);
}
