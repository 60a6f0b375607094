//! Probes of real listeners on this machine.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::config::{Address, HttpTarget};

/// Far more than any answer here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts no commands.
struct Nobody;

impl Commands for Nobody {
    fn launch(&self, _: &[String]) -> oneshot::Receiver<Result<Command, String>> {
        oneshot::channel().1
    }
}

fn ask_within(probe: &Probe, timeout: Duration) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(ask(probe, timeout, &Nobody))
}

fn listener() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Address { host: "localhost".into(), port })
}

fn http(address: Address) -> Probe {
    Probe::Http(HttpTarget { address, path: "/healthz?x=1".into(), statuses: vec![] })
}

/// Answers one request with these bytes; returns what was asked.
fn answer(listener: TcpListener, bytes: Vec<u8>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            asked.push(byte[0]);
        }
        // Whoever asked may have enough before the end.
        let _ = client.write_all(&bytes);
        String::from_utf8(asked).unwrap()
    })
}

#[test]
fn a_listener_passes_and_its_absence_is_named() {
    let (listener, address) = listener();
    let probe = Probe::Tcp(address);
    assert_eq!(ask_within(&probe, PATIENCE).verdict, Verdict::Pass);
    drop(listener);
    let report = ask_within(&probe, PATIENCE);
    assert_eq!((report.verdict, report.sentence.as_str()), (Verdict::Fail, "connection refused"));
}

#[test]
fn a_good_answer_passes_and_the_request_says_who_asks() {
    let (listener, address) = listener();
    let host = format!("host: {address}\r\n");
    let asked = answer(listener, b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
    let report = ask_within(&http(address), PATIENCE);
    let expected = (Verdict::Pass, "answered 204 No Content");
    assert_eq!((report.verdict, report.sentence.as_str()), expected);
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&host) && asked.contains("user-agent: mend/"), "{asked}");
}

#[test]
fn of_a_bad_answer_the_beginning_is_kept_however_much_follows() {
    let (listener, address) = listener();
    let mut bytes = b"HTTP/1.1 500 Internal Server Error\r\n\r\nno database\n".to_vec();
    bytes.extend(vec![b'x'; 1 << 20]);
    answer(listener, bytes);
    let report = ask_within(&http(address), PATIENCE);
    assert_eq!((report.verdict, report.output.len()), (Verdict::Fail, MAX_OUTPUT_BYTES));
    assert!(report.output.starts_with(b"no database\n"));
}

#[test]
fn what_does_not_speak_http_or_hangs_up_fails_with_a_word_on_it() {
    for (bytes, words) in [("hello\n", "did not answer in HTTP"), ("", "without an answer")] {
        let (listener, address) = listener();
        answer(listener, bytes.as_bytes().to_vec());
        let report = ask_within(&http(address), PATIENCE);
        assert_eq!(report.verdict, Verdict::Fail);
        assert!(report.sentence.contains(words), "{}", report.sentence);
    }
}

#[test]
fn silence_is_a_timeout_and_not_a_failure() {
    let (_listener, address) = listener();
    let report = ask_within(&http(address), Duration::from_millis(20));
    let expected = (Verdict::Timeout, "no answer within 20ms");
    assert_eq!((report.verdict, report.sentence.as_str()), expected);
}

#[test]
fn a_command_that_nobody_starts_says_nothing_of_the_process() {
    let report = ask_within(&Probe::Exec(vec!["true".into()]), PATIENCE);
    assert_eq!(report.verdict, Verdict::Unknown);
}

#[test]
fn looks_and_the_search_for_evidence_may_run_on_any_thread() {
    fn may_be_sent<T: Send>(_: &T) {}
    let name = "look".parse().unwrap();
    let check = crate::config::Check::new(name, crate::config::CheckKind::Process);
    let look = crate::config::Look::Process;
    let declared = DeclaredCheck { check, look, is_builtin: false };
    let asker = Asker { subject: &Subject::Host, commands: &Nobody, variable: &|_| None };
    let mut past = Past::default();
    let looking = super::look(&declared, &asker, &mut past);
    may_be_sent(&looking);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(looking).verdict, Verdict::Unknown);
    may_be_sent(&evidence::collect(Default::default(), Default::default(), PATIENCE));
}
