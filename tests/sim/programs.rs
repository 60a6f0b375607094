//! Random configurations: five programs at most, with edges, replicas and every policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use mendd::config::{
    Backoff, Breaker, Compression, Impact, Lifecycle, Limits, Logs, OnWatch, Program, Ready,
    RestartPolicy, Sink, Spawn, Stdin, Stop, StopStep, Watch, WatchTarget,
};
use mendd::name::{ProcessName, ProgramName};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Makes a whole configuration. Edges lead only to earlier names, so there are no cycles.
pub(crate) fn configuration(rng: &mut Rng) -> Vec<Arc<Program>> {
    let mut programs: Vec<Arc<Program>> = Vec::new();
    for name in NAMES {
        if rng.u8(..10) > 0 {
            let earlier: Vec<ProgramName> = programs.iter().map(|p| p.name.clone()).collect();
            programs.push(Arc::new(program(rng, name, &earlier)));
        }
    }
    programs
}

/// Makes 200 programs with random edges, none of which starts by itself.
pub(crate) fn graph(rng: &mut Rng) -> Vec<Arc<Program>> {
    let mut programs: Vec<Arc<Program>> = Vec::new();
    for number in 0..200 {
        let names: Vec<ProgramName> = programs.iter().map(|p| p.name.clone()).collect();
        let mut edges = || -> Vec<ProgramName> {
            let count = rng.usize(..3).min(names.len());
            (0..count).map(|_| names[rng.usize(..names.len())].clone()).collect()
        };
        let (requires, wants, after) = (edges(), edges(), edges());
        let restart_with = edges();
        let mut program = program(rng, &format!("p{number}"), &[]);
        let lifecycle = &mut program.lifecycle;
        (lifecycle.requires, lifecycle.wants) = (requires, wants);
        (lifecycle.after, lifecycle.restart_with) = (after, restart_with);
        lifecycle.autostart = false;
        programs.push(Arc::new(program));
    }
    programs
}

/// Names all processes of these programs.
pub(crate) fn processes(programs: &[Arc<Program>]) -> Vec<ProcessName> {
    let names = |program: &Arc<Program>| -> Vec<ProcessName> {
        let name = program.name.clone();
        match program.replicas {
            None => vec![ProcessName::new(name, None)],
            Some(count) => (0..count).map(|n| ProcessName::new(name.clone(), Some(n))).collect(),
        }
    };
    programs.iter().flat_map(names).collect()
}

/// Makes a program that starts with the daemon, has this to run and counts as running after
/// `start_period`.
pub(crate) fn plain(name: &str, command: &str, start_period: Duration) -> Program {
    let mut rng = Rng::with_seed(1);
    let mut program = program(&mut rng, name, &[]);
    program.replicas = None;
    program.spawn.argv = vec![command.to_owned()];
    program.lifecycle = Lifecycle {
        autostart: true,
        priority: 0,
        start_period,
        restart: RestartPolicy::Always,
        ..program.lifecycle
    };
    program
}

fn some(rng: &mut Rng, names: &[ProgramName]) -> Vec<ProgramName> {
    names.iter().filter(|_| rng.u8(..4) == 0).cloned().collect()
}

fn millis(rng: &mut Rng, limit: u64) -> Duration {
    Duration::from_millis(rng.u64(..limit))
}

fn program(rng: &mut Rng, name: &str, earlier: &[ProgramName]) -> Program {
    let version = rng.u8(..3);
    Program {
        name: name.parse().expect("a good name"),
        group: name.parse().expect("a good name"),
        replicas: [None, None, Some(1), Some(2), Some(3)][rng.usize(..5)],
        spawn: spawn(version),
        lifecycle: lifecycle(rng, earlier),
        logs: Logs {
            sink: Sink::File,
            merge_stderr: true,
            max_size_bytes: 1,
            max_age: None,
            keep: 1,
            max_total_bytes: None,
            compress: Compression::None,
            full_disk_block: Duration::ZERO,
        },
        watch: (rng.u8(..3) > 0).then(|| watch(rng)),
        checks: Vec::new(),
        impact: Impact::Normal,
        stale_files: Vec::new(),
    }
}

fn watch(rng: &mut Rng) -> Watch {
    Watch {
        targets: vec![WatchTarget::Path("/a".into())],
        ignore: Vec::new(),
        debounce: Duration::ZERO,
        act: if rng.bool() { OnWatch::Restart } else { OnWatch::Signal(1) },
    }
}

fn lifecycle(rng: &mut Rng, earlier: &[ProgramName]) -> Lifecycle {
    let steps = (0..rng.usize(1..3))
        .map(|n| StopStep { signal: [15, 2][n], grace: millis(rng, 4000) })
        .collect();
    Lifecycle {
        autostart: rng.u8(..4) > 0,
        priority: rng.i32(0..3),
        requires: some(rng, earlier),
        wants: some(rng, earlier),
        after: some(rng, earlier),
        restart_with: some(rng, earlier),
        ready: match rng.u8(..4) {
            0 => Some(Ready::Notify),
            1 => Some(Ready::After(millis(rng, 3000))),
            _ => None,
        },
        start_timeout: Duration::from_secs(1) + millis(rng, 20_000),
        watchdog: if rng.u8(..4) == 0 {
            Some(Duration::from_secs(10) + millis(rng, 100_000))
        } else {
            None
        },
        start_period: if rng.bool() { Duration::ZERO } else { millis(rng, 3000) },
        restart: [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never]
            [rng.usize(..3)],
        success_exit_codes: vec![0],
        permanent_exit_codes: if rng.bool() { vec![] } else { vec![7] },
        backoff: Backoff {
            initial: millis(rng, 2000),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.25,
            reset_after: Duration::from_secs(20),
        },
        breaker: Breaker {
            failures: rng.u32(1..5),
            window: Duration::from_secs(60),
            open: Duration::from_secs(120),
            max_open: Duration::from_secs(600),
        },
        stop: Stop { steps },
        reload_signal: None,
    }
}

fn spawn(version: u8) -> Spawn {
    Spawn {
        argv: vec![format!("/bin/version-{version}")],
        user: None,
        directory: None,
        umask: 0o022,
        inherit_environment: true,
        environment: BTreeMap::new(),
        environment_files: Vec::new(),
        nice: None,
        oom_score_adj: 0,
        limits: Limits::default(),
        stdin: Stdin::Null,
        no_new_privs: false,
        notify: false,
        watchdog: None,
        ready_fd: None,
    }
}
