//! The server against clients that are many, slow, greedy or mad, and its streams.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::bench::{Bench, Reply, happening, request, wait_until};
use super::{Caps, event_view};

#[test]
fn garbage_is_answered_with_400_and_the_server_lives() {
    let bench = Bench::start();
    let mut random = fastrand::Rng::with_seed(7);
    let garbage: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1 << 20).collect();
    let mut stream = bench.connect();
    // The server may close before it has read everything.
    let _ = stream.write_all(&garbage);
    let mut answer = Vec::new();
    let mut buffer = [0; 1_024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(Reply::read(&answer).status, 400, "{}", String::from_utf8_lossy(&answer));
    assert_eq!(bench.call("GET", "/healthz", "").status, 200);
}

#[test]
fn headers_and_bodies_have_a_limit() {
    let bench = Bench::start();
    let mut stream = bench.connect();
    let head = format!("GET / HTTP/1.1\r\nHost: mend\r\nX-Big: {}\r\n\r\n", "x".repeat(20_000));
    let _ = stream.write_all(head.as_bytes());
    let mut answer = [0; 64];
    let count = stream.read(&mut answer).unwrap();
    assert_eq!(Reply::read(&answer[..count]).status, 431);

    let mut stream = bench.connect();
    let head = "POST /v1/start HTTP/1.1\r\nHost: mend\r\nContent-Length: 2000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(&vec![b' '; 2_000_000]);
    let count = stream.read(&mut answer).unwrap();
    assert_eq!(Reply::read(&answer[..count]).status, 413);
    assert_eq!(bench.call("GET", "/healthz", "").status, 200);
}

#[test]
fn half_a_request_is_dropped_in_time_and_holds_nobody_up() {
    let header_timeout = Duration::from_millis(300);
    let bench = Bench::with(Caps { header_timeout, ..Caps::default() });
    let mut half = bench.connect();
    half.write_all(b"GET /v1/status HTTP/1.1\r\nHost: me").unwrap();
    assert_eq!(bench.call("GET", "/v1/status", "").status, 200);
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).unwrap();
    assert!(matches!(Reply::read(&answer).status, 0 | 408), "{answer:?}");
}

#[test]
fn a_connection_at_rest_stays_however_long_it_rests() {
    let header_timeout = Duration::from_millis(100);
    let bench = Bench::with(Caps { header_timeout, ..Caps::default() });
    let mut fresh = bench.open("GET", "/v1/version", "");
    fresh.until("\"keeper_pid\":10}");
    fresh.seen.clear();
    // Longer than a head may take; nothing tells of a connection that is left alone.
    std::thread::sleep(header_timeout * 5);
    fresh.stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: mend\r\n\r\n").unwrap();
    fresh.until("\"keeper_pid\":10}");
    fresh.stream.write_all(b"GET /v1/ver").unwrap();
    assert_eq!(fresh.stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_connection_serves_many_requests() {
    let bench = Bench::start();
    let mut reader = bench.open("GET", "/v1/version", "");
    for _ in 0..3 {
        reader.until("\"keeper_pid\":10}");
        reader.seen.clear();
        reader.stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: mend\r\n\r\n").unwrap();
    }
    reader.until("\"keeper_pid\":10}");
}

#[test]
fn two_thousand_idle_connections_lock_nobody_out() {
    let wanted = 2_000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let needed = wanted + 1_024;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(needed), hard).unwrap();
    }
    let bench = Bench::with(Caps { connections: 64, ..Caps::default() });
    let idle: Vec<_> = (0..wanted.min(hard.saturating_sub(512))).map(|_| bench.connect()).collect();
    assert_eq!(bench.call("GET", "/v1/status", "").status, 200);
    // The oldest made room and know it.
    for mut stream in idle.into_iter().take(100) {
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }
}

#[test]
fn a_long_act_holds_nobody_up_and_is_left_alone_when_its_client_goes() {
    let bench = Bench::start();
    let slow = bench.open("POST", "/v1/programs/slow/stop?wait=1h", "Content-Length: 0\r\n");
    wait_until("the act", || !bench.known.acts.lock().unwrap().is_empty());
    assert_eq!(bench.call("GET", "/v1/status", "").status, 200);
    assert_eq!(bench.known.abandoned.load(Ordering::Relaxed), 0);
    drop(slow);
    wait_until("the request to be dropped", || bench.known.abandoned.load(Ordering::Relaxed) == 1);
    assert_eq!(bench.call("POST", "/v1/programs/web/stop", "").status, 200);
}

#[test]
fn events_come_with_ids_as_they_happen() {
    let bench = Bench::start();
    let mut reader = bench.open("GET", "/v1/events", "");
    let head = reader.until("retry: 1000\n");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    bench.happen(41);
    bench.happen(42);
    let text = reader.until("id: 42\n");
    assert!(!text.contains("event: gap"), "{text}");
    let data = serde_json::to_string(&event_view(&happening(41))).unwrap();
    assert!(text.contains(&format!("id: 41\nevent: state\ndata: {data}\n\n")), "{text}");
}

#[test]
fn a_client_that_resumes_misses_and_doubles_nothing() {
    let bench = Bench::start();
    for id in 1..=5 {
        bench.happen(id);
    }
    for (target, headers) in
        [("/v1/events?after=2", ""), ("/v1/events?after=1", "Last-Event-ID: 2\r\n")]
    {
        let mut reader = bench.open("GET", target, headers);
        let ids = ids(reader.until("id: 5\n"));
        assert_eq!(ids, [3, 4, 5]);
    }
}

#[test]
fn what_is_no_longer_kept_is_a_gap_and_is_said() {
    let bench = Bench::start();
    bench.happen(10);
    let mut reader = bench.open("GET", "/v1/events?after=3", "");
    let text = reader.until("id: 10\n");
    assert!(text.contains("id: 9\nevent: gap\n"), "{text}");
    assert!(text.contains(r#""data":{"after":3,"next":10}"#), "{text}");
}

#[test]
fn an_id_of_another_daemon_hides_no_events() {
    let bench = Bench::start();
    bench.happen(1);
    let mut reader = bench.open("GET", "/v1/events?after=900", "");
    reader.until("retry: ");
    wait_until("the subscription", || bench.listeners() > 0);
    bench.happen(2);
    let text = reader.until("id: 2\n");
    assert!(text.contains("event: gap"), "{text}");
}

#[test]
fn a_client_that_lags_reads_the_kept_events_again() {
    let bench = Bench::start();
    let mut reader = bench.open("GET", "/v1/events", "");
    reader.until("retry: ");
    wait_until("the subscription", || bench.listeners() > 0);
    // More than the broadcast holds, faster than the client reads.
    for id in 1..=5_000 {
        bench.happen(id);
    }
    let ids = ids(reader.until("id: 5000\n"));
    let expected: Vec<u64> = (1..=5_000).collect();
    assert!(ids == expected, "{} events, the first {:?}", ids.len(), ids.first());
}

#[test]
fn a_stream_ends_with_its_client() {
    let bench = Bench::start();
    let mut reader = bench.open("GET", "/v1/events", "");
    reader.until("retry: ");
    wait_until("the subscription", || bench.listeners() == 1);
    drop(reader);
    wait_until("the end of the subscription", || bench.listeners() == 0);
}

#[test]
fn the_server_ends_fast_whatever_is_open() {
    let mut bench = Bench::start();
    let mut events = bench.open("GET", "/v1/events", "");
    events.until("retry: ");
    let mut logs = bench.open("GET", "/v1/logs?follow=1", "");
    logs.until("first");
    let slow = bench.open("POST", "/v1/programs/slow/stop?wait=1h", "Content-Length: 0\r\n");
    wait_until("the act", || !bench.known.acts.lock().unwrap().is_empty());
    let mut half = bench.connect();
    half.write_all(b"GET /v1").unwrap();
    let idle = bench.connect();
    let begun = Instant::now();
    bench.stop();
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    // The streams end as streams, not as accidents.
    let mut rest = Vec::new();
    events.stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    drop((slow, half, idle));
}

#[test]
fn a_pipelined_request_is_answered_too() {
    let bench = Bench::start();
    let mut stream = bench.connect();
    let first = "GET /healthz HTTP/1.1\r\nHost: mend\r\n\r\n";
    stream.write_all(format!("{first}{}", request("GET", "/healthz", "")).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
}

#[test]
fn a_server_without_descriptors_makes_room_and_goes_on() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "api::server_tests::run_out_of_descriptors", "--ignored"])
        .env("MEND_TEST_FEW_DESCRIPTORS", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn run_out_of_descriptors() {
    if std::env::var_os("MEND_TEST_FEW_DESCRIPTORS").is_none() {
        return;
    }
    let bench = Bench::start();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64.min(hard), hard).unwrap();
    let mut clients: Vec<_> = (0..10).map(|_| bench.connect()).collect();
    // Accepted after those ten, so all of them are in.
    assert_eq!(bench.call("GET", "/healthz", "").status, 200);
    while let Ok(client) = UnixStream::connect(bench.socket()) {
        clients.push(client);
        assert!(clients.len() < 64, "descriptors never ran out");
    }
    // This one was accepted first, so it is the first to make room.
    let mut oldest = clients.remove(0);
    oldest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(oldest.read(&mut [0; 1]).unwrap(), 0);
    drop(oldest);
    assert_eq!(bench.call("GET", "/healthz", "").status, 200);
    drop(clients);
}

/// Returns the ids of the events in a stream, in order.
fn ids(text: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .map(|id| id.parse().unwrap())
        .collect()
}
