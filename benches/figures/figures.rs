//! The figures themselves: how each is brought about and timed.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::Bench;
use crate::daemon::{Daemon, reap};
use crate::machine;
use crate::probe::{Floor, Records, WRITER_DONE};
use crate::report::Budget::{AtMost, ShareOfFloor, TimesFloor};
use crate::report::Figure;

const MANY: usize = 1000;
const SOME: usize = 100;
const KILLED: usize = 500;
const CRASHES: usize = 60;
/// Lives of daemon and floor, in turn, for each number of programs.
const ROUNDS: usize = 3;
const REQUESTS: usize = 200;
const CAPTURE_MIB: u32 = 1024;

fn millis(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e6
}

/// `count` programs that each run one child and write nothing.
fn quiet(bench: &Bench, records: &Records, count: usize) -> Vec<(String, String)> {
    let (probe, file) = (bench.probe.display(), records.path.display());
    let program = |n| {
        let command = format!("command = [\"{probe}\", \"child\", \"{file}\", \"{n}\"]\n");
        (format!("s{n:04}"), command)
    };
    (0..count).map(program).collect()
}

fn records(bench: &Bench, name: &str) -> Records {
    Records::new(bench.dir.join(name))
}

fn floor(bench: &Bench, records: &Records, count: usize) -> Floor {
    let file = records.path.to_str().expect("the directory's name is UTF-8");
    Floor::start(&bench.probe, &["floor", file, &count.to_string()])
}

fn daemon(bench: &Bench, records: &Records, count: usize) -> Daemon {
    Daemon::start(&bench.fresh_dir(), &quiet(bench, records, count))
}

/// Kills the newest run and returns how long its successor took to come to `main()`, ms.
fn crash_once(records: &mut Records) -> f64 {
    let last = records.starts.last().expect("a child has started").pid;
    let seen = records.starts.len();
    // Longer than the delay after which a crash counts as the first again.
    thread::sleep(Duration::from_millis(25));
    let killed = machine::now();
    machine::signal(last, Signal::SIGKILL);
    millis(killed, records.wait(seen + 1))
}

/// SIGKILL of a program until `main()` of its next run.
pub(crate) fn crash(bench: &Bench) -> Vec<Figure> {
    let mut ours = records(bench, "ours");
    let mut bare = records(bench, "bare");
    let daemon = daemon(bench, &ours, 1);
    let _floor = floor(bench, &bare, 1);
    daemon.wait_running(1);
    ours.wait(1);
    bare.wait(1);
    let (mut ours_ms, mut bare_ms) = (Vec::new(), Vec::new());
    for _ in 0..CRASHES {
        bare_ms.push(crash_once(&mut bare));
        ours_ms.push(crash_once(&mut ours));
    }
    vec![
        Figure::new("crash → next run's main()", "ms", ours_ms)
            .floor(bare_ms)
            .budget(TimesFloor(1.5)),
    ]
}

/// What one life of a supervisor gave, ms.
#[derive(Default)]
struct Lives {
    start: Vec<f64>,
    mass: Vec<f64>,
    stop: Vec<f64>,
}

impl Lives {
    fn started(&mut self, begin: u64, records: &mut Records, count: usize) {
        self.start.push(millis(begin, records.wait(count)));
    }

    /// Kills half a thousand at once and waits until as many have started again.
    fn mass(&mut self, records: &mut Records) {
        let pids = records.pids();
        let seen = records.starts.len();
        let begin = machine::now();
        for pid in pids.iter().take(KILLED) {
            machine::signal(*pid, Signal::SIGKILL);
        }
        self.mass.push(millis(begin, records.wait(seen + KILLED)));
    }

    /// Calls `stop` and waits until no child is left.
    fn stop(&mut self, records: &Records, stop: impl FnOnce()) {
        let mut left = records.pids();
        let begin = machine::now();
        stop();
        machine::wait_for("children to be gone", Duration::from_micros(500), || {
            left.retain(|pid| machine::is_there(*pid));
            left.is_empty().then_some(())
        });
        self.stop.push(millis(begin, machine::now()));
    }
}

/// Starts, mass crashes and stops, the daemon's and the floor's lives in turn.
pub(crate) fn lives(bench: &Bench) -> Vec<Figure> {
    let [(some, bare_some), (many, bare_many)] = [SOME, MANY].map(|count| {
        let (mut ours, mut bare) = (Lives::default(), Lives::default());
        for _ in 0..ROUNDS {
            let mut kept = records(bench, "bare");
            let begin = machine::now();
            let mut floor = floor(bench, &kept, count);
            bare.started(begin, &mut kept, count);
            if count == MANY {
                bare.mass(&mut kept);
            }
            bare.stop(&kept, || floor.stop());

            let mut kept = records(bench, "ours");
            let mut daemon = one_life(bench, &mut ours, &mut kept, count);
            let (keeper, _) = daemon.wait_running(count);
            if count == MANY {
                ours.mass(&mut kept);
                daemon.wait_running(count);
            }
            ours.stop(&kept, || daemon.stop(keeper));
        }
        (ours, bare)
    });
    vec![
        Figure::new("start 100 programs", "ms", some.start)
            .floor(bare_some.start)
            .budget(TimesFloor(1.5)),
        Figure::new("start 1,000 programs", "ms", many.start)
            .floor(bare_many.start)
            .budget(TimesFloor(1.5)),
        Figure::new("500 of 1,000 killed → all running", "ms", many.mass)
            .floor(bare_many.mass)
            .budget(TimesFloor(1.5)),
        Figure::new("stop 1,000, daemon gone", "ms", many.stop)
            .budget(AtMost(300.0 + bare_many.stop.iter().copied().fold(0.0, f64::max)))
            .floor(bare_many.stop),
    ]
}

fn one_life(bench: &Bench, lives: &mut Lives, kept: &mut Records, count: usize) -> Daemon {
    let programs = quiet(bench, kept, count);
    let begin = machine::now();
    let daemon = Daemon::start(&bench.fresh_dir(), &programs);
    lives.started(begin, kept, count);
    daemon
}

/// Memory of keeper and brain beside quiet programs.
pub(crate) fn memory(bench: &Bench) -> Vec<Figure> {
    // Pages of a file that was just built count as dirty until they are on the disk.
    if let Ok(file) = fs::File::open(env!("CARGO_BIN_EXE_mendd")) {
        let _ = file.sync_all();
    }
    let measured = [0, SOME, MANY].map(|count| {
        let mut kept = records(bench, "ours");
        let daemon = daemon(bench, &kept, count);
        kept.wait(count);
        let (keeper, brain) = daemon.wait_running(count);
        thread::sleep(Duration::from_secs(2));
        (machine::memory(keeper), machine::memory(brain))
    });
    let [none, some, many] = measured;
    let pss = |(keeper, brain): (machine::Memory, machine::Memory)| keeper.pss + brain.pss;
    let each = (pss(many) - pss(none)) / MANY as f64;
    let kib = |name, value| Figure::new(name, "KiB", vec![value]);
    vec![
        kib("keeper + brain PSS, 0 programs", pss(none)).budget(AtMost(8192.0)),
        kib("keeper + brain PSS, 100 programs", pss(some)),
        kib("keeper + brain PSS, 1,000 programs", pss(many)),
        kib("PSS per quiet program", each).budget(AtMost(8.0)),
        kib("keeper private, 0 programs", none.0.private).budget(AtMost(200.0)),
        kib("keeper private, 1,000 programs", many.0.private).budget(AtMost(200.0)),
        kib("brain private, 0 programs", none.1.private),
        kib("brain private, 1,000 programs", many.1.private),
    ]
}

/// What the daemon does while nothing happens.
pub(crate) fn idle(bench: &Bench) -> Vec<Figure> {
    let mut kept = records(bench, "ours");
    // What has a schedule wakes up by it: the checks of the host once a minute.
    let programs = quiet(bench, &kept, SOME);
    let daemon = Daemon::start_with(&bench.fresh_dir(), &programs, "default_checks = false\n");
    kept.wait(SOME);
    let (keeper, brain) = daemon.wait_running(SOME);
    // The end of the start: threads that were needed for it go away after ten seconds.
    thread::sleep(Duration::from_secs(15));
    let before = machine::work(&[keeper, brain]);
    thread::sleep(bench.idle);
    let after = machine::work(&[keeper, brain]);
    let seconds = bench.idle.as_secs_f64();
    let switches = after.switches.saturating_sub(before.switches) as f64 / seconds;
    let cpu = after.cpu_nanos.saturating_sub(before.cpu_nanos) as f64 / 1e6 / seconds;
    vec![
        Figure::new("idle, 100 programs: wake-ups", "1/s", vec![switches]).budget(AtMost(0.0)),
        Figure::new("idle, 100 programs: processor", "ms/s", vec![cpu]).budget(AtMost(0.0)),
    ]
}

/// One capture: MB/s until the last line is in the log, and processor seconds per GiB.
struct Capture {
    rate: f64,
    cpu: f64,
}

fn captured(records: &mut Records, begin: u64, log: &Path, pids: &[u32]) -> Capture {
    let end_of_log = || {
        let mut file = fs::File::open(log).ok()?;
        let mut tail = [0; 8];
        file.seek(SeekFrom::End(-8)).ok()?;
        file.read_exact(&mut tail).ok()?;
        (&tail == b"THE END\n").then(machine::now)
    };
    records.wait(1);
    assert_eq!(records.starts[0].id, WRITER_DONE, "only the writer leaves records");
    let end = machine::wait_for("the last line", Duration::from_micros(200), end_of_log);
    let cpu = machine::work(pids).cpu_nanos;
    let megabytes = f64::from(CAPTURE_MIB) * f64::from(1 << 20) / 1e6;
    let gibibytes = f64::from(CAPTURE_MIB) / 1024.0;
    Capture { rate: megabytes / millis(begin, end) * 1e3, cpu: cpu as f64 / 1e9 / gibibytes }
}

/// One program writes a GiB; the log is rotated at 10 MiB.
pub(crate) fn capture(bench: &Bench) -> Vec<Figure> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut kept = records(bench, "bare");
        let dir = bench.dir.join("spliced");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("the directory is writable");
        let file = kept.path.to_str().expect("UTF-8");
        let at = dir.to_str().expect("UTF-8");
        let begin = machine::now();
        let floor = Floor::start(&bench.probe, &["splice", file, at, &CAPTURE_MIB.to_string()]);
        bare.push(captured(&mut kept, begin, &dir.join("log"), &[floor.pid()]));
        drop(floor);
        let _ = fs::remove_dir_all(&dir);

        let mut kept = records(bench, "ours");
        let (probe, file) = (bench.probe.display(), kept.path.display());
        let lines = format!(
            "command = [\"{probe}\", \"writer\", \"{file}\", \"{CAPTURE_MIB}\"]\n\
             autostart = false\n\
             logs = {{ max_size = \"10MiB\", keep = 10, compress = \"none\" }}\n"
        );
        let daemon = Daemon::start(&bench.fresh_dir(), &[("writer".to_owned(), lines)]);
        let (keeper, brain) = daemon.wait_running(0);
        let before = machine::work(&[keeper, brain]).cpu_nanos;
        let begin = machine::now();
        let started = mendctl(&daemon, &["start", "writer"]);
        assert!(started, "the writer could not be started");
        let mut capture = captured(&mut kept, begin, &daemon.log("writer"), &[keeper, brain]);
        capture.cpu -= before as f64 / 1e9 / (f64::from(CAPTURE_MIB) / 1024.0);
        ours.push(capture);
    }
    let rates = |list: &[Capture]| list.iter().map(|capture| capture.rate).collect::<Vec<_>>();
    let cpus = |list: &[Capture]| list.iter().map(|capture| capture.cpu).collect::<Vec<_>>();
    vec![
        Figure::new("capture of 1 GiB of lines, in the log", "MB/s", rates(&ours))
            .floor(rates(&bare))
            .budget(ShareOfFloor(0.8)),
        Figure::new("capture: supervisor's processor time", "s/GiB", cpus(&ours))
            .floor(cpus(&bare))
            .budget(TimesFloor(1.1)),
    ]
}

fn mendctl(daemon: &Daemon, words: &[&str]) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mendctl"));
    command.arg("--socket").arg(daemon.socket()).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn repeat(times: usize, mut act: impl FnMut()) -> Vec<f64> {
    let once = |_| {
        let begin = machine::now();
        act();
        millis(begin, machine::now())
    };
    (0..times).map(once).collect()
}

/// Questions about the state of everything.
pub(crate) fn status(bench: &Bench) -> Vec<Figure> {
    let [(some, client, bare), (many, _, _)] = [SOME, MANY].map(|count| {
        let kept = records(bench, "ours");
        let daemon = daemon(bench, &kept, count);
        daemon.wait_running(count);
        let mut connection = daemon.connect().expect("it answered a moment ago");
        let mut ask = || {
            connection.get("/v1/status").expect("an answer");
        };
        ask();
        let requests = repeat(REQUESTS, ask);
        if count != SOME {
            return (requests, Vec::new(), Vec::new());
        }
        let client = repeat(40, || assert!(mendctl(&daemon, &["status"]), "mendctl status failed"));
        let bare = repeat(40, || {
            let ended = Command::new(&bench.probe).arg("exit").status();
            assert!(ended.is_ok_and(|status| status.success()), "the probe failed");
        });
        (requests, client, bare)
    });
    vec![
        Figure::new("status over the API, 100 programs", "ms", some).budget(AtMost(0.6)),
        Figure::new("status over the API, 1,000 programs", "ms", many).budget(AtMost(5.0)),
        Figure::new("`mendctl status`, 100 programs, whole process", "ms", client)
            .floor(bare)
            .budget(AtMost(5.0)),
    ]
}

/// SIGKILL of the brain until the next one answers for a thousand adopted children.
pub(crate) fn brain(bench: &Bench) -> Vec<Figure> {
    let took = takeovers(bench, 11, false);
    vec![Figure::new("brain killed → status of 1,000 adopted", "ms", took).budget(AtMost(100.0))]
}

/// SIGKILL of the keeper until another keeper's brain answers for all of them.
pub(crate) fn keeper(bench: &Bench) -> Vec<Figure> {
    let took = takeovers(bench, 5, true);
    vec![Figure::new("keeper killed → status of 1,000 adopted", "ms", took)]
}

fn takeovers(bench: &Bench, times: usize, of_keeper: bool) -> Vec<f64> {
    let mut kept = records(bench, "ours");
    let daemon = daemon(bench, &kept, MANY);
    kept.wait(MANY);
    let mut pids = daemon.wait_running(MANY);
    let mut took = Vec::new();
    for _ in 0..times {
        let settled = Instant::now() + Duration::from_millis(500);
        thread::sleep(settled.saturating_duration_since(Instant::now()));
        let begin = machine::now();
        if of_keeper {
            daemon.kill_keeper(pids.0);
        } else {
            machine::signal(pids.1, Signal::SIGKILL);
        }
        pids = daemon.wait_for_next(pids, of_keeper, MANY);
        took.push(millis(begin, machine::now()));
        reap();
    }
    // Nothing was started twice: every child of the beginning is the only one.
    thread::sleep(Duration::from_millis(100));
    kept.wait(MANY);
    assert_eq!(kept.starts.len(), MANY, "a takeover started something again");
    took
}
