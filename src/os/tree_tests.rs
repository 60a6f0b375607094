//! Sweeps of real trees that try to get away.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::Signal;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::os::cgroup::Cgroups;
use crate::os::proc;

const PATIENCE: Duration = Duration::from_secs(20);

/// A sweeper with this test's process as keeper, and a run id nobody else uses.
struct Bench {
    sweeper: Sweeper,
    gone: UnboundedReceiver<RunId>,
    run: RunId,
    cgroups: Option<Cgroups>,
}

impl Bench {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let (sender, gone) = unbounded_channel();
        let sweeper = Sweeper::start(std::process::id(), sender).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let run = RunId(u64::from(std::process::id()) * 1_000 + number);
        Self { sweeper, gone, run, cgroups: None }
    }

    fn with_cgroups() -> Option<Self> {
        let mut bench = Self::new();
        match Cgroups::probe(&format!("tree-{}", bench.run)) {
            Ok(cgroups) => bench.cgroups = Some(cgroups),
            Err(reason) => {
                eprintln!("skipped: {reason}");
                return None;
            }
        }
        Some(bench)
    }

    fn leaf(&self) -> Option<PathBuf> {
        let cgroups = self.cgroups.as_ref()?;
        Some(cgroups.leaf(&self.run.to_string()).unwrap().path().to_path_buf())
    }

    /// Runs a script as the main process of the run, in a session of its own.
    fn main(&self, script: &str) -> Child {
        let join = self
            .leaf()
            .map(|leaf| format!("echo $$ > {}/cgroup.procs; ", leaf.display()))
            .unwrap_or_default();
        Command::new("setsid")
            .args(["sh", "-c", &format!("{join}{script}")])
            .env("MEND_RUN", self.run.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Everybody alive who carries the run's marker.
    fn alive(&self) -> Vec<u32> {
        let marked = proc::all_pids().into_iter().filter(|pid| {
            proc::run_marker(*pid) == Some(self.run.0)
                && proc::stat(*pid).is_some_and(|stat| !stat.is_dead())
        });
        marked.collect()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, reached: impl Fn(&[u32]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let alive = self.alive();
            if reached(&alive) {
                return;
            }
            assert!(Instant::now() < deadline, "waited for {what}; alive: {alive:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn sweep(&self, main_pid: u32, signal: i32) {
        self.sweep_as(main_pid, signal, false);
    }

    fn sweep_as(&self, main_pid: u32, signal: i32, adopted_elsewhere: bool) {
        let cgroup = self.leaf();
        self.sweeper.sweep(SweepJob { run: self.run, main_pid, cgroup, signal, adopted_elsewhere });
    }

    #[track_caller]
    fn wait_gone(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.gone.try_recv() {
                Ok(run) => {
                    assert_eq!(run, self.run);
                    break;
                }
                Err(_) => assert!(Instant::now() < deadline, "not gone; alive: {:?}", self.alive()),
            }
            thread::sleep(Duration::from_millis(1));
        }
        // `setsid` of a script that is being executed has no marker to be seen by for a moment.
        assert_eq!(self.alive(), [] as [u32; 0], "alive after gone");
    }

    #[track_caller]
    fn end(mut self) {
        assert!(self.gone.try_recv().is_err(), "a second answer");
        assert_eq!(self.alive(), [] as [u32; 0]);
        if let Some(cgroups) = &self.cgroups {
            assert_eq!(cgroups.existing_leaves(), [] as [PathBuf; 0], "a leaf is left");
            cgroup::remove_tree(cgroups.base()).unwrap();
        }
    }

    fn end_main(main: &mut Child) -> u32 {
        main.kill().unwrap();
        main.wait().unwrap();
        main.id()
    }
}

const ESCAPEES: &str = "(setsid sleep 600 &) ; (setsid sleep 600 &) ; sleep 600 & exec sleep 600";
const STUBBORN: &str = "trap '' TERM; (setsid sleep 600 &) ; sleep 600 & exec sleep 600";

fn escapees_are_swept(mut bench: Bench) {
    let mut main = bench.main(ESCAPEES);
    bench.wait_for("four sleepers", |alive| alive.len() == 4);
    let pid = Bench::end_main(&mut main);
    bench.sweep(pid, libc::SIGTERM);
    bench.wait_gone();
    bench.end();
}

#[test]
fn escapees_of_a_dead_run_are_found_without_a_cgroup() {
    escapees_are_swept(Bench::new());
}

#[test]
fn escapees_of_a_dead_run_are_found_in_their_cgroup() {
    if let Some(bench) = Bench::with_cgroups() {
        escapees_are_swept(bench);
    }
}

fn a_suspended_rest_takes_sigterm(mut bench: Bench) {
    // In a session of its own: the kernel wakes those whose group loses its last relative.
    let mut main = bench.main("setsid sleep 600 & exec sleep 600");
    let leads = |pid: &&u32| proc::stat(**pid).is_some_and(|stat| stat.sid == **pid);
    bench.wait_for("two sleepers", |alive| alive.iter().filter(leads).count() == 2);
    let rest = bench.alive().into_iter().find(|pid| *pid != main.id()).unwrap();
    PidFd::open(rest).unwrap().signal(libc::SIGSTOP).unwrap();
    bench.wait_for("suspension", |_| proc::stat(rest).is_some_and(|stat| stat.state == 'T'));
    let pid = Bench::end_main(&mut main);
    bench.sweep(pid, libc::SIGTERM);
    bench.wait_gone();
    bench.end();
}

#[test]
fn what_is_left_and_suspended_takes_sigterm_without_a_cgroup() {
    a_suspended_rest_takes_sigterm(Bench::new());
}

#[test]
fn what_is_left_and_suspended_takes_sigterm_in_a_cgroup() {
    if let Some(bench) = Bench::with_cgroups() {
        a_suspended_rest_takes_sigterm(bench);
    }
}

fn stubborn_ones_wait_for_sigkill(mut bench: Bench) {
    let mut main = bench.main(STUBBORN);
    bench.wait_for("three sleepers", |alive| alive.len() == 3);
    let pid = Bench::end_main(&mut main);
    bench.sweep(pid, libc::SIGTERM);
    // A second run through the same queue shows that the first job has been looked at.
    let other = RunId(bench.run.0 + 500_000_000_000);
    let nobody = SweepJob {
        run: other,
        main_pid: 0,
        cgroup: None,
        signal: libc::SIGTERM,
        adopted_elsewhere: false,
    };
    bench.sweeper.sweep(nobody);
    assert_eq!(bench.gone.blocking_recv(), Some(other));
    assert_eq!(bench.alive().len(), 2, "SIGTERM was ignored by both");
    assert!(bench.gone.try_recv().is_err());
    bench.sweep(pid, libc::SIGKILL);
    bench.wait_gone();
    bench.end();
}

#[test]
fn a_later_sigkill_replaces_an_ignored_sigterm_without_a_cgroup() {
    stubborn_ones_wait_for_sigkill(Bench::new());
}

#[test]
fn a_later_sigkill_replaces_an_ignored_sigterm_in_a_cgroup() {
    if let Some(bench) = Bench::with_cgroups() {
        stubborn_ones_wait_for_sigkill(bench);
    }
}

fn hopping_chains_are_caught(mut bench: Bench) {
    let directory = tempfile::tempdir().unwrap();
    let hopper = directory.path().join("hop.sh");
    std::fs::write(&hopper, "sleep 0.01\nsetsid sh \"$0\" &\n").unwrap();
    let script = format!("for i in 1 2 3; do setsid sh {} & done; sleep 600", hopper.display());
    let mut main = bench.main(&script);
    // The main process, its `sleep` and one of a chain: others may be in the middle of execve,
    // where no marker can be read.
    bench.wait_for("chains", |alive| alive.len() > 2);
    let pid = Bench::end_main(&mut main);
    bench.sweep(pid, libc::SIGKILL);
    bench.wait_gone();
    bench.end();
}

#[test]
fn chains_that_hop_pids_and_sessions_are_caught_in_a_cgroup() {
    if let Some(bench) = Bench::with_cgroups() {
        hopping_chains_are_caught(bench);
    }
}

fn kill_takes_the_main_process_too(mut bench: Bench) {
    let mut main = bench.main(STUBBORN);
    bench.wait_for("three sleepers", |alive| alive.len() == 3);
    bench.sweeper.track(bench.run, main.id());
    bench.sweeper.kill_tree(KillJob {
        run: bench.run,
        main_pid: main.id(),
        main: PidFd::open(main.id()).unwrap(),
        cgroup: bench.leaf(),
    });
    main.wait().unwrap();
    bench.wait_for("nobody", <[u32]>::is_empty);
    assert!(bench.gone.try_recv().is_err(), "a kill is not answered");
    bench.sweep(main.id(), libc::SIGKILL);
    bench.wait_gone();
    bench.end();
}

#[test]
fn a_kill_takes_the_main_process_too_without_a_cgroup() {
    kill_takes_the_main_process_too(Bench::new());
}

#[test]
fn a_kill_takes_the_main_process_too_in_a_cgroup() {
    if let Some(bench) = Bench::with_cgroups() {
        kill_takes_the_main_process_too(bench);
    }
}

#[test]
fn a_run_with_nothing_left_is_gone_at_once_and_its_empty_leaf_too() {
    let mut bench = Bench::new();
    bench.sweep(999_999_999, libc::SIGTERM);
    bench.wait_gone();
    bench.end();
    if let Some(bench) = Bench::with_cgroups() {
        let leaf = bench.leaf().unwrap();
        assert!(already_empty(&leaf));
        assert!(!leaf.exists());
        bench.end();
    }
}

#[test]
fn an_orphan_that_went_elsewhere_is_found_by_its_marker() {
    let mut bench = Bench::new();
    // Its keeper is somebody else: a sweeper whose keeper has no children at all.
    let (sender, gone) = unbounded_channel();
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    bench.sweeper = Sweeper::start(stranger.id(), sender).unwrap();
    bench.gone = gone;
    let mut main = bench.main(ESCAPEES);
    bench.wait_for("four sleepers", |alive| alive.len() == 4);
    let pid = Bench::end_main(&mut main);
    bench.sweep_as(pid, libc::SIGTERM, true);
    bench.wait_gone();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    bench.end();
}

#[test]
fn a_sweep_leaves_the_living_runs_of_others_alone() {
    let mut bench = Bench::new();
    let other = Bench::new();
    let mut neighbour = other.main(ESCAPEES);
    other.wait_for("four neighbours", |alive| alive.len() == 4);
    bench.sweeper.track(other.run, neighbour.id());
    let mut main = bench.main(ESCAPEES);
    bench.wait_for("four sleepers", |alive| alive.len() == 4);
    let pid = Bench::end_main(&mut main);
    bench.sweep(pid, libc::SIGKILL);
    bench.wait_gone();
    assert_eq!(other.alive().len(), 4);
    bench.end();
    let mut other = other;
    let pid = Bench::end_main(&mut neighbour);
    other.sweep(pid, libc::SIGKILL);
    other.wait_gone();
    other.end();
}

/// The number of the ended main process belongs to the leader of another session by now.
#[test]
fn who_got_the_pid_of_an_ended_main_process_is_not_touched() {
    let mut bench = Bench::new();
    let mut stranger = Command::new("setsid")
        .args(["sh", "-c", "sleep 600 & wait"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = stranger.id();
    let session = || proc::all_stats().into_iter().filter(|s| s.sid == pid && !s.is_dead()).count();
    let deadline = Instant::now() + PATIENCE;
    while session() < 2 {
        assert!(Instant::now() < deadline, "the session has {}", session());
        thread::sleep(Duration::from_millis(1));
    }
    for adopted_elsewhere in [false, true] {
        bench.sweep_as(pid, libc::SIGKILL, adopted_elsewhere);
        bench.wait_gone();
        assert_eq!(session(), 2, "adopted elsewhere: {adopted_elsewhere}");
    }
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)
        .unwrap();
    stranger.wait().unwrap();
    bench.end();
}

#[test]
fn a_thousand_stops_at_once_are_each_answered_once() {
    let mut bench = Bench::new();
    let runs: BTreeSet<RunId> =
        (1..=1_000).map(|n| RunId(bench.run.0 + n * 1_000_000_000)).collect();
    let mut main = bench.main(ESCAPEES);
    bench.wait_for("four sleepers", |alive| alive.len() == 4);
    let pid = Bench::end_main(&mut main);
    for run in &runs {
        bench.sweeper.sweep(SweepJob {
            run: *run,
            main_pid: 0,
            cgroup: None,
            signal: libc::SIGKILL,
            adopted_elsewhere: run.0 % 2 == 0,
        });
    }
    bench.sweep(pid, libc::SIGKILL);
    let mut answered = BTreeSet::new();
    let started = Instant::now();
    while answered.len() < runs.len() + 1 {
        let run = bench.gone.blocking_recv().unwrap();
        assert!(answered.insert(run), "{run} was answered twice");
        assert!(started.elapsed() < PATIENCE, "{} answers", answered.len());
    }
    assert!(answered.remove(&bench.run));
    assert_eq!(answered, runs);
    bench.end();
}
