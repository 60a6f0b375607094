//! The pump with real FIFOs, files and threads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::place::Place;
use super::{Channel, Cursor, Notice, Pump, Stream};
use crate::config::{Compression, Logs, Sink};
use crate::name::RunId;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn logs(max_size_bytes: u64) -> Logs {
    Logs {
        sink: Sink::File,
        merge_stderr: true,
        max_size_bytes,
        max_age: None,
        keep: 1_000_000,
        max_total_bytes: None,
        compress: Compression::None,
        full_disk_block: Duration::from_secs(30),
    }
}

/// A pump, a directory and FIFOs in it, which the bench holds open as the keeper does.
pub(super) struct Bench {
    pub(super) directory: TempDir,
    pub(super) pump: Option<Pump>,
    notices: UnboundedReceiver<Notice>,
    runs: u64,
}

pub(super) struct Pipe {
    pub(super) run: RunId,
    pub(super) write: File,
    pub(super) held: OwnedFd,
}

impl Bench {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (sender, notices) = unbounded_channel();
        let pump = Some(Pump::start(sender).unwrap());
        Self { directory, pump, notices, runs: 0 }
    }

    pub(super) fn pump(&self) -> &Pump {
        self.pump.as_ref().unwrap()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.path().join("logs/web/0.stdout.log")
    }

    pub(super) fn attach(&mut self, logs: &Logs) -> Pipe {
        self.attach_at(self.log(), logs)
    }

    pub(super) fn attach_at(&mut self, log: PathBuf, logs: &Logs) -> Pipe {
        self.attach_marked(log, logs, None)
    }

    fn attach_marked(&mut self, log: PathBuf, logs: &Logs, mark: Option<PathBuf>) -> Pipe {
        self.runs += 1;
        let run = RunId(self.runs);
        let path = self.directory.path().join(format!("fifo{}", self.runs));
        let (held, write) = fifo(&path);
        let fifo = held.try_clone().unwrap();
        let process = "web".parse().unwrap();
        let (channel, logs, owner) = (Channel::Stdout, logs.clone(), None);
        self.pump().attach(Stream { run, process, channel, fifo, log, logs, owner, mark });
        Pipe { run, write, held }
    }

    pub(super) fn notice(&mut self) -> Notice {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(notice) = self.notices.try_recv() {
                return notice;
            }
            assert!(Instant::now() < deadline, "no notice came");
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(super) fn finish(&mut self, run: RunId) {
        self.pump().finish(run);
        assert_eq!(self.notice(), Notice::Ended { run });
    }

    /// Returns all text of the log, segment after segment.
    pub(super) fn text(&self) -> Vec<u8> {
        text(&self.log())
    }

    pub(super) fn wait_for_text(&self, expected: &[u8]) {
        wait_until("the text in the log", || self.text() == expected);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.stop();
        }
    }
}

#[track_caller]
pub(super) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Makes a FIFO; returns its reading end and a writing end like a child's, `O_RDWR`.
fn fifo(path: &Path) -> (OwnedFd, File) {
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let read = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    let write = OpenOptions::new().read(true).write(true).open(path).unwrap();
    (read.into(), write)
}

pub(super) fn text(log: &Path) -> Vec<u8> {
    let place = Place::new(log);
    let mut text = Vec::new();
    for (seq, parts) in place.segments().unwrap() {
        if parts.zstd {
            let file = File::open(place.compressed(seq)).unwrap();
            zstd::stream::copy_decode(file, &mut text).unwrap();
        } else {
            text.extend(fs::read(place.closed(seq)).unwrap());
        }
    }
    text.extend(fs::read(log).unwrap_or_default());
    text
}

pub(super) fn numbered_lines(count: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..count {
        writeln!(text, "line {number:08} of a program that counts").unwrap();
    }
    text
}

#[test]
fn every_byte_arrives_once_and_in_order_over_many_rotations() {
    let mut bench = Bench::new();
    let settings = Logs { compress: Compression::Zstd, ..logs(4 << 20) };
    let mut pipe = bench.attach(&settings);
    let text = numbered_lines(1_400_000);
    assert!(text.len() >= 50 << 20);
    for chunk in text.chunks(60_000) {
        pipe.write.write_all(chunk).unwrap();
    }
    bench.finish(pipe.run);
    bench.pump.take().unwrap().stop();
    assert!(bench.text() == text, "the log differs from what was printed");
    let place = Place::new(&bench.log());
    assert!(place.segments().unwrap().len() >= 10);
    for (seq, parts) in place.segments().unwrap() {
        assert!(parts.index, "segment {seq} has no index");
        if parts.plain {
            let segment = fs::read(place.closed(seq)).unwrap();
            assert!(segment.ends_with(b"\n") && segment.len() < (4 << 20) + 64);
        }
    }
}

#[test]
fn closed_segments_are_compressed_and_only_as_many_are_kept_as_declared() {
    let mut bench = Bench::new();
    let settings = Logs { compress: Compression::Zstd, keep: 2, ..logs(1000) };
    let mut pipe = bench.attach(&settings);
    for line in numbered_lines(200).split_inclusive(|byte| *byte == b'\n') {
        pipe.write.write_all(line).unwrap();
    }
    bench.finish(pipe.run);
    let place = Place::new(&bench.log());
    wait_until("two compressed segments", || {
        let segments = place.segments().unwrap();
        segments.len() == 2 && segments.values().all(|parts| parts.zstd && !parts.plain)
    });
    assert!(numbered_lines(200).ends_with(&bench.text()));
}

#[test]
fn a_line_that_is_far_too_long_is_cut_and_loses_nothing() {
    let mut bench = Bench::new();
    let mut pipe = bench.attach(&logs(100_000));
    let mut text = vec![b'x'; 3 << 20];
    text.extend_from_slice(b"\nend\n");
    pipe.write.write_all(&text).unwrap();
    bench.finish(pipe.run);
    assert!(bench.text() == text);
    assert!(!Place::new(&bench.log()).segments().unwrap().is_empty());
}

#[test]
fn after_an_outside_truncation_the_log_goes_on_without_a_hole() {
    let mut bench = Bench::new();
    let mut pipe = bench.attach(&logs(1 << 20));
    pipe.write.write_all(b"before\n").unwrap();
    bench.wait_for_text(b"before\n");
    OpenOptions::new().write(true).truncate(true).open(bench.log()).unwrap();
    pipe.write.write_all(b"after\n").unwrap();
    bench.wait_for_text(b"after\n");
}

#[test]
fn a_removed_directory_is_made_again() {
    let mut bench = Bench::new();
    let mut pipe = bench.attach(&logs(1 << 20));
    pipe.write.write_all(b"before\n").unwrap();
    bench.wait_for_text(b"before\n");
    fs::remove_dir_all(bench.log().parent().unwrap()).unwrap();
    pipe.write.write_all(b"after\n").unwrap();
    bench.wait_for_text(b"after\n");
}

#[test]
fn after_reopen_a_moved_log_is_left_alone() {
    let mut bench = Bench::new();
    let mut pipe = bench.attach(&logs(1 << 20));
    pipe.write.write_all(b"before\n").unwrap();
    bench.wait_for_text(b"before\n");
    let moved = bench.directory.path().join("moved");
    fs::rename(bench.log(), &moved).unwrap();
    bench.pump().reopen();
    pipe.write.write_all(b"after\n").unwrap();
    bench.wait_for_text(b"after\n");
    assert_eq!(fs::read(moved).unwrap(), b"before\n");
}

#[test]
fn the_output_of_the_next_run_follows_that_of_the_last() {
    let mut bench = Bench::new();
    let mut expected = Vec::new();
    for run in 0..20 {
        let mut pipe = bench.attach(&logs(64));
        let line = format!("this is what run {run} prints\n").into_bytes();
        pipe.write.write_all(&line).unwrap();
        expected.extend(line);
        bench.pump().finish(pipe.run);
    }
    for run in 1..=20 {
        assert_eq!(bench.notice(), Notice::Ended { run: RunId(run) });
    }
    assert_eq!(bench.text(), expected);
}

#[test]
fn a_segment_is_closed_when_it_is_too_old() {
    let mut bench = Bench::new();
    let settings = Logs { max_age: Some(Duration::from_millis(100)), ..logs(1 << 20) };
    let mut pipe = bench.attach(&settings);
    pipe.write.write_all(b"old\n").unwrap();
    let place = Place::new(&bench.log());
    wait_until("a rotation", || place.segments().unwrap().len() == 1);
    assert_eq!(fs::read(place.closed(1)).unwrap(), b"old\n");
}

fn pump_cpu_ticks() -> u64 {
    let mut ticks = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        if let Some((_, rest)) = stat.split_once("(mend-pump) ") {
            let fields: Vec<&str> = rest.split(' ').collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks
}

/// Returns how often the pumps of this process have gone to sleep, as the kernel counts.
fn pump_sleeps() -> u64 {
    let mut sleeps = 0;
    for task in pump_tasks() {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        sleeps += line.map_or(0, |line| line[25..].trim().parse::<u64>().unwrap());
    }
    sleeps
}

fn pump_tasks() -> Vec<PathBuf> {
    let is_pump = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "mend-pump")
    };
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
    tasks.filter(is_pump).collect()
}

/// Re-run alone in a child process, so that no other test's pump is counted.
#[test]
fn streams_that_hung_up_or_are_quiet_cost_no_wakeup() {
    if std::env::var_os("MEND_TEST_ALONE").is_none() {
        alone("capture::pump_tests::streams_that_hung_up_or_are_quiet_cost_no_wakeup");
        return;
    }
    let mut bench = Bench::new();
    let mut hung_up = bench.attach_at(bench.directory.path().join("logs/a.log"), &logs(1 << 20));
    hung_up.write.write_all(b"last words\n").unwrap();
    let quiet = bench.attach(&logs(1 << 20));
    drop(hung_up.write);
    let log = bench.directory.path().join("logs/a.log");
    wait_until("the text", || text(&log) == b"last words\n");
    wait_until("the pump to rest", || {
        let before = pump_sleeps();
        thread::sleep(Duration::from_millis(60));
        pump_sleeps() == before
    });
    let (ticks, sleeps) = (pump_cpu_ticks(), pump_sleeps());
    thread::sleep(Duration::from_millis(700));
    assert_eq!(pump_sleeps(), sleeps, "the pump woke up for nothing");
    assert!(pump_cpu_ticks() - ticks <= 1);
    let mut again =
        OpenOptions::new().write(true).open(bench.directory.path().join("fifo1")).unwrap();
    again.write_all(b"and more\n").unwrap();
    wait_until("the text of a new writer", || text(&log) == b"last words\nand more\n");
    drop((quiet, hung_up.held));
}

#[test]
fn a_quiet_stream_is_moved_at_most_every_20_ms() {
    if std::env::var_os("MEND_TEST_ALONE").is_none() {
        alone("capture::pump_tests::a_quiet_stream_is_moved_at_most_every_20_ms");
        return;
    }
    let mut bench = Bench::new();
    let mut pipe = bench.attach(&logs(1 << 20));
    let (before, begin) = (pump_sleeps(), Instant::now());
    let mut expected = Vec::new();
    for _ in 0..400 {
        pipe.write.write_all(b"tick\n").unwrap();
        expected.extend_from_slice(b"tick\n");
        thread::sleep(Duration::from_millis(1));
    }
    bench.wait_for_text(&expected);
    let sleeps = u128::from(pump_sleeps() - before);
    let limit = 3 * begin.elapsed().as_millis() / 20 + 5;
    assert!(sleeps <= limit, "{sleeps} sleeps, at most {limit} were expected");
}

fn alone(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env("MEND_TEST_ALONE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

/// Not a test: the pump that `what_a_killed_pump_moved_is_exact` kills.
#[test]
#[ignore = "runs as the child of another test"]
fn pump_until_killed() {
    let Some(directory) = std::env::var_os("MEND_TEST_PUMP") else { return };
    let directory = PathBuf::from(directory);
    let (sender, mut notices) = unbounded_channel();
    let pump = Pump::start(sender).unwrap();
    let fifo = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(directory.join("fifo"))
        .unwrap();
    pump.attach(Stream {
        run: RunId(1),
        process: "web".parse().unwrap(),
        channel: Channel::Stdout,
        fifo: fifo.into(),
        log: directory.join("logs/web/0.stdout.log"),
        logs: Logs { compress: Compression::Zstd, ..logs(300_000) },
        owner: None,
        mark: None,
    });
    let mut line = String::new();
    BufReader::new(io::stdin()).read_line(&mut line).unwrap();
    pump.finish(RunId(1));
    assert_eq!(notices.blocking_recv(), Some(Notice::Ended { run: RunId(1) }));
    pump.stop();
}

#[test]
fn what_a_killed_pump_moved_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    let (held, mut write) = fifo(&directory.path().join("fifo"));
    let text = numbered_lines(400_000);
    let expected = text.clone();
    let writer = thread::spawn(move || {
        for chunk in text.chunks(3_000) {
            write.write_all(chunk).unwrap();
            if fastrand::u8(..) < 20 {
                thread::sleep(Duration::from_micros(500));
            }
        }
        write
    });
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "capture::pump_tests::pump_until_killed", "--include-ignored"])
            .env("MEND_TEST_PUMP", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut kills = 0;
    let deadline = Instant::now() + Duration::from_secs(3);
    while !writer.is_finished() && Instant::now() < deadline {
        let mut child = start();
        thread::sleep(Duration::from_millis(fastrand::u64(5..60)));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let mut child = start();
    let write = writer.join().unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    drop((write, held));
    let found = super::pump_tests::text(&directory.path().join("logs/web/0.stdout.log"));
    assert!(found == expected, "{} of {} bytes after {kills} kills", found.len(), expected.len());
    assert!(kills >= 5, "only {kills} kills");
}

/// A tiny file system, unmounted at the end.
struct TinyDisk(PathBuf);

impl TinyDisk {
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("size=1m")).ok()?;
        Some(Self(path.to_owned()))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_delays_output_and_loses_none_while_patience_lasts() {
    let mut bench = Bench::new();
    let Some(_disk) = TinyDisk::mount(&bench.directory.path().join("logs")) else {
        eprintln!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let ballast = bench.directory.path().join("logs/ballast");
    fs::write(&ballast, vec![0; 900_000]).unwrap();
    let mut pipe = bench.attach(&logs(1 << 30));
    let expected = numbered_lines(10_000);
    let text = expected.clone();
    let writer = thread::spawn(move || {
        pipe.write.write_all(&text).unwrap();
        pipe
    });
    assert!(matches!(bench.notice(), Notice::Trouble { .. }));
    assert!(!writer.is_finished());
    fs::remove_file(ballast).unwrap();
    assert!(matches!(bench.notice(), Notice::Recovered { .. }));
    let pipe = writer.join().unwrap();
    bench.finish(pipe.run);
    assert!(bench.text() == expected);
}

#[test]
fn a_disk_that_stays_full_costs_counted_bytes_and_a_line_says_so() {
    let mut bench = Bench::new();
    let Some(_disk) = TinyDisk::mount(&bench.directory.path().join("logs")) else {
        eprintln!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let ballast = bench.directory.path().join("logs/ballast");
    fs::write(&ballast, vec![0; 900_000]).unwrap();
    let settings = Logs { full_disk_block: Duration::from_millis(100), ..logs(1 << 30) };
    let mut pipe = bench.attach(&settings);
    let printed = numbered_lines(20_000);
    pipe.write.write_all(&printed).unwrap();
    assert!(matches!(bench.notice(), Notice::Trouble { .. }));
    fs::remove_file(ballast).unwrap();
    assert!(matches!(bench.notice(), Notice::Recovered { .. }));
    pipe.write.write_all(b"after\n").unwrap();
    bench.finish(pipe.run);
    let text = String::from_utf8(bench.text()).unwrap();
    let (before, rest) = text.split_once("-- mend: ").expect("no marker");
    let (dropped, rest) = rest.split_once(" bytes dropped while the disk was full --\n").unwrap();
    assert!(before.ends_with('\n') && text.ends_with("after\n"));
    let kept = before.len() + rest.len() - "after\n".len();
    let all = kept + dropped.parse::<usize>().unwrap();
    assert!(all == printed.len() || all == printed.len() + 1, "{all} of {}", printed.len());
}

#[test]
fn a_log_that_cannot_be_made_is_reported_and_made_later() {
    let mut bench = Bench::new();
    let obstacle = bench.directory.path().join("logs");
    File::create(&obstacle).unwrap();
    let mut pipe = bench.attach(&logs(1 << 20));
    pipe.write.write_all(b"text\n").unwrap();
    assert!(matches!(bench.notice(), Notice::Trouble { .. }));
    fs::remove_file(obstacle).unwrap();
    assert!(matches!(bench.notice(), Notice::Recovered { .. }));
    bench.wait_for_text(b"text\n");
}

#[test]
fn a_log_that_opens_late_still_says_where_a_run_begins() {
    let mut bench = Bench::new();
    let obstacle = bench.directory.path().join("logs");
    File::create(&obstacle).unwrap();
    let mark = bench.directory.path().join("1.out.mark");
    let mut pipe = bench.attach_marked(bench.log(), &logs(1 << 20), Some(mark.clone()));
    pipe.write.write_all(b"first\n").unwrap();
    assert!(matches!(bench.notice(), Notice::Trouble { .. }));
    fs::remove_file(obstacle).unwrap();
    let begins = Notice::Marked {
        run: pipe.run,
        log: bench.log(),
        channel: Channel::Stdout,
        from: Cursor { seq: 1, offset: 0 },
    };
    assert_eq!(bench.notice(), begins);
    assert!(matches!(bench.notice(), Notice::Recovered { .. }));
    assert_eq!(fs::read_to_string(mark).unwrap(), "1:0\n");
}
