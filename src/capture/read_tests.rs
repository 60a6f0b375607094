//! Reading logs back, while pumps write them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::unbounded_channel;

use super::place::Place;
use super::pump_tests::{Bench, logs, numbered_lines, wait_until};
use super::sinks::{Journal, Outlet, Sink, Watched};
use super::tidy::tidy;
use super::{Channel, Cursor, LogLine, LogReader, MergedReader};
use crate::config::{Compression, Logs};
use crate::name::RunId;
use crate::time::Wall;

fn texts(lines: &[LogLine]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8(line.bytes.clone()).unwrap()).collect()
}

fn all(reader: &mut LogReader) -> Vec<LogLine> {
    let mut lines = Vec::new();
    loop {
        let more = reader.next_lines(100).unwrap();
        if more.is_empty() {
            return lines;
        }
        lines.extend(more);
    }
}

fn open(path: &Path) -> LogReader {
    LogReader::open(path, Channel::Stdout).unwrap()
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Wall(i64::try_from(since.as_millis()).unwrap())
}

/// A log of `count` numbered lines in many segments, the older ones compressed.
fn segmented(bench: &mut Bench, count: u64) -> Vec<String> {
    let mut pipe = bench.attach(&logs(1000));
    pipe.write.write_all(&numbered_lines(count)).unwrap();
    bench.finish(pipe.run);
    let place = Place::new(&bench.log());
    let compressed = Logs { compress: Compression::Zstd, ..logs(1000) };
    // The pump's own tidying of the rotations may still be under way and get in between.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while let Err(error) = tidy(&place, &compressed, &AtomicBool::new(false)) {
        assert!(std::time::Instant::now() < deadline, "cannot compress: {error}");
    }
    let mut pipe = bench.attach(&logs(1000));
    pipe.write.write_all(b"second run\n").unwrap();
    bench.finish(pipe.run);
    let segments = place.segments().unwrap();
    assert!(segments.len() > 2 && segments.values().any(|parts| parts.zstd));
    let text = String::from_utf8(bench.text()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn tail_gives_exactly_the_last_lines_over_all_segments() {
    let mut bench = Bench::new();
    let expected = segmented(&mut bench, 150);
    for wanted in [0, 1, 2, 24, 25, 26, 27, 60, 150, 151, 152, 10_000] {
        let mut reader = open(&bench.log());
        reader.tail(wanted as u64).unwrap();
        let found = texts(&all(&mut reader));
        assert_eq!(found, expected[expected.len().saturating_sub(wanted)..], "tail of {wanted}");
    }
}

#[test]
fn a_cursor_continues_at_the_next_line_wherever_it_was_taken() {
    let mut bench = Bench::new();
    let expected = segmented(&mut bench, 100);
    let mut reader = open(&bench.log());
    for (number, line) in expected.iter().enumerate() {
        let cursor: Cursor = reader.cursor().to_string().parse().unwrap();
        let mut other = open(&bench.log());
        other.seek(cursor).unwrap();
        assert_eq!(texts(&all(&mut other)), expected[number..]);
        assert_eq!(texts(&reader.next_lines(1).unwrap()), std::slice::from_ref(line));
    }
    assert!("x:1".parse::<Cursor>().is_err());
}

#[test]
fn since_begins_at_the_first_line_that_arrived_then() {
    let mut bench = Bench::new();
    let early = segmented(&mut bench, 100);
    thread::sleep(Duration::from_millis(30));
    let middle = now();
    let mut pipe = bench.attach(&logs(1 << 20));
    pipe.write.write_all(b"late 1\nlate 2\nunfinished").unwrap();
    bench.finish(pipe.run);
    let mut reader = open(&bench.log());
    reader.since(middle).unwrap();
    let lines = all(&mut reader);
    assert_eq!(texts(&lines), ["late 1", "late 2"]);
    assert!(lines.iter().all(|line| line.at.is_some_and(|at| at >= middle)));
    assert_eq!(reader.flush_partial().unwrap().bytes, b"unfinished");
    assert_eq!(reader.flush_partial(), None);
    reader.since(Wall(0)).unwrap();
    assert_eq!(all(&mut reader).len(), early.len() + 2);
    reader.since(Wall(now().0 + 60_000)).unwrap();
    assert_eq!(all(&mut reader), []);
}

#[test]
fn without_an_index_only_the_times_are_missing() {
    let mut bench = Bench::new();
    let expected = segmented(&mut bench, 100);
    for entry in fs::read_dir(bench.log().parent().unwrap()).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "idx") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let lines = all(&mut open(&bench.log()));
    assert_eq!(texts(&lines), expected);
    assert!(lines.iter().all(|line| line.at.is_none()));
}

#[test]
fn following_over_rotation_and_compression_misses_and_doubles_nothing() {
    let mut bench = Bench::new();
    let settings = Logs { compress: Compression::Zstd, ..logs(20_000) };
    let mut pipe = bench.attach(&settings);
    let text = numbered_lines(20_000);
    let expected = String::from_utf8(text.clone()).unwrap();
    let log = bench.log();
    let hub = bench.pump().followers();
    let writer = thread::spawn(move || {
        for chunk in text.chunks(1_111) {
            pipe.write.write_all(chunk).unwrap();
            if fastrand::u8(..) < 40 {
                thread::sleep(Duration::from_micros(300));
            }
        }
        pipe
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let found = runtime.block_on(async {
        let mut follower = hub.follow(&log);
        let mut reader = open(&log);
        let mut found: Vec<String> = Vec::new();
        let follow = async {
            while found.len() < 20_000 {
                let lines = reader.next_lines(500).unwrap();
                if lines.is_empty() {
                    follower.changed().await;
                } else {
                    found.extend(texts(&lines));
                }
                if fastrand::u8(..) < 10 {
                    // As after a restart: a new reader goes on from the old one's cursor.
                    let cursor = reader.cursor();
                    reader = open(&log);
                    reader.seek(cursor).unwrap();
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), follow).await;
        found
    });
    let pipe = writer.join().unwrap();
    bench.finish(pipe.run);
    assert_eq!(found.len(), 20_000);
    assert!(found.iter().map(String::as_str).eq(expected.lines()));
    assert!(!hub.is_any_followed());
}

#[test]
fn a_follower_hears_of_a_quiet_line_and_of_a_truncated_log() {
    let mut bench = Bench::new();
    let mut pipe = bench.attach(&logs(1 << 20));
    let mut reader = open(&bench.log());
    let mut next = |text: &str| {
        let mut lines = Vec::new();
        wait_until("the line", || {
            lines = texts(&reader.next_lines(10).unwrap());
            !lines.is_empty()
        });
        assert_eq!(lines, [text]);
    };
    pipe.write.write_all(b"first, and long\n").unwrap();
    next("first, and long");
    OpenOptions::new().write(true).truncate(true).open(bench.log()).unwrap();
    pipe.write.write_all(b"second\n").unwrap();
    next("second");
}

#[test]
fn a_line_of_more_than_a_mebibyte_comes_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.log");
    let mut text = vec![b'x'; 2_500_000];
    text.extend_from_slice(b"\nshort\n");
    fs::write(&path, text).unwrap();
    let lines = all(&mut open(&path));
    let lengths: Vec<usize> = lines.iter().map(|line| line.bytes.len()).collect();
    assert_eq!(lengths, [1 << 20, 1 << 20, 2_500_000 - (2 << 20), 5]);
}

#[test]
fn merged_logs_come_in_the_order_of_arrival() {
    let mut bench = Bench::new();
    let other = bench.directory.path().join("logs/other.log");
    let (mut a, mut b) = (bench.attach(&logs(1 << 20)), bench.attach_at(other.clone(), &logs(300)));
    let mut expected = Vec::new();
    for number in 0..10 {
        let (pipe, path) =
            if number % 3 == 0 { (&mut b, other.clone()) } else { (&mut a, bench.log()) };
        writeln!(pipe.write, "{number}").unwrap();
        expected.push(number.to_string());
        let mut reader = open(&path);
        wait_until("the line", || {
            reader.tail(1).unwrap();
            texts(&all(&mut reader)) == [number.to_string()]
        });
        thread::sleep(Duration::from_millis(8));
    }
    let mut merged = MergedReader::new(vec![open(&bench.log()), open(&other)]);
    let lines = merged.next_lines(100).unwrap();
    let found: Vec<String> = texts(&lines.iter().map(|line| line.line.clone()).collect::<Vec<_>>());
    assert_eq!(found, expected);
    assert_eq!((lines[0].source, lines[1].source), (1, 0));
}

fn watched(bench: &Bench) -> Watched {
    Watched {
        log: bench.log(),
        process: "web".parse().unwrap(),
        run: RunId(7),
        channel: Channel::Stderr,
        from: Some(Cursor { seq: 1, offset: 0 }),
    }
}

#[test]
fn the_journal_gets_each_line_as_a_datagram_with_its_fields() {
    let mut bench = Bench::new();
    let address = bench.directory.path().join("journal");
    let journal = UnixDatagram::bind(&address).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (notices, _receiver) = unbounded_channel();
    let sink = Sink::start("mend-test", Journal::at(address), notices).unwrap();
    let mut pipe = bench.attach(&logs(1 << 20));
    sink.watch(watched(&bench));
    pipe.write.write_all(b"hello\nunfinished").unwrap();
    bench.finish(pipe.run);
    sink.grew(&bench.log(), &Arc::new(AtomicBool::new(false)));
    sink.close(&bench.log());
    for text in ["hello", "unfinished"] {
        let mut datagram = [0; 4096];
        let len = journal.recv(&mut datagram).unwrap();
        let mut expected =
            b"SYSLOG_IDENTIFIER=web\nPRIORITY=3\nMEND_PROCESS=web\nMEND_RUN=7\nMESSAGE\n".to_vec();
        expected.extend((text.len() as u64).to_le_bytes());
        expected.extend(text.as_bytes());
        expected.push(b'\n');
        assert_eq!(datagram[..len], expected);
    }
    sink.stop();
}

#[test]
fn an_absent_journal_is_reported_once() {
    let mut bench = Bench::new();
    let address = bench.directory.path().join("nobody");
    let (notices, mut receiver) = unbounded_channel();
    let sink = Sink::start("mend-test", Journal::at(address), notices).unwrap();
    let mut pipe = bench.attach(&logs(1 << 20));
    sink.watch(watched(&bench));
    pipe.write.write_all(b"1\n2\n3\n").unwrap();
    bench.finish(pipe.run);
    for _ in 0..3 {
        sink.grew(&bench.log(), &Arc::new(AtomicBool::new(false)));
    }
    sink.stop();
    assert!(receiver.try_recv().is_ok());
    assert!(receiver.try_recv().is_err());
}

struct Collect(std::sync::mpsc::Sender<String>);

impl Outlet for Collect {
    fn write(&mut self, _: &Watched, line: &[u8]) -> std::io::Result<()> {
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(())
    }
}

#[test]
fn a_sink_shows_an_unfinished_line_after_a_second() {
    let mut bench = Bench::new();
    let (sender, lines) = std::sync::mpsc::channel();
    let (notices, _receiver) = unbounded_channel();
    let sink = Sink::start("mend-test", Collect(sender), notices).unwrap();
    let mut pipe = bench.attach(&logs(1 << 20));
    sink.watch(watched(&bench));
    pipe.write.write_all(b"whole\nprompt> ").unwrap();
    bench.wait_for_text(b"whole\nprompt> ");
    sink.grew(&bench.log(), &Arc::new(AtomicBool::new(false)));
    for text in ["whole", "prompt> "] {
        assert_eq!(lines.recv_timeout(Duration::from_secs(10)).unwrap(), text);
    }
    sink.stop();
}
