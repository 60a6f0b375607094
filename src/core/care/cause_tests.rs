//! The cases that operators meet, each with the cause it must be given and the first rung.

use std::time::Duration;

use super::cause::{Cause, Confidence, find};
use super::evidence::*;
use super::gate::Pressure;
use super::health::Verdict;
use crate::config::{CheckKind, Remedy, Rung};
use crate::core::Exit;

use Confidence::{Certain, Guess, Likely};

fn ladder() -> Vec<Rung> {
    let remedies = [
        Remedy::Confirm,
        Remedy::Reload,
        Remedy::Signal { signal: 18 },
        Remedy::Restart,
        Remedy::CleanRestart,
        Remedy::Run { argv: vec!["clean-up".to_owned()] },
        Remedy::Rollback,
        Remedy::Quarantine,
    ];
    remedies.into_iter().map(|remedy| Rung { remedy, timeout: Duration::from_secs(30) }).collect()
}

#[test]
fn every_cause_has_a_word_that_leads_back_to_it() {
    for (place, cause) in Cause::ALL.into_iter().enumerate() {
        assert_eq!(cause as usize, place, "{cause:?}: `Cause::ALL` is in another order");
        assert_eq!(Cause::of_word(cause.word()), Some(cause));
    }
    assert_eq!(Cause::ALL.last(), Some(&Cause::Unknown), "the last of them is missing");
    assert_eq!(Cause::of_word("mischief"), None);
}

fn killed(signal: i32) -> Evidence {
    Evidence { exit: Some(Exit::Signal { signal, core_dumped: false }), ..Evidence::default() }
}

fn exited(code: i32, lines: &[&str]) -> Evidence {
    let output = lines.iter().map(|line| (*line).to_owned()).collect();
    Evidence { exit: Some(Exit::Code(code)), output, ..Evidence::default() }
}

fn probe(kind: CheckKind, failure: ProbeFailure) -> Evidence {
    let check = CheckDetail { kind, verdict: Verdict::Fail, failure: Some(failure) };
    Evidence { check: Some(check), process: Some(ProcessState::Normal), ..Evidence::default() }
}

fn exec(kind: ExecErrorKind) -> Evidence {
    let exec = ExecFailure { kind, command: "/usr/bin/web".to_owned() };
    Evidence { exec: Some(exec), ..Evidence::default() }
}

fn port(is_leftover: bool) -> Option<PortHolder> {
    Some(PortHolder { port: 8000, pid: 77, command: "nc -l 8000".to_owned(), is_leftover })
}

fn full_disk() -> Vec<DiskSpace> {
    let path = "/var".to_owned();
    vec![DiskSpace { path, free_bytes: 4096, size_bytes: 1 << 30, free_inodes: Some(9) }]
}

fn dependency() -> Vec<DependencyHealth> {
    let name = "db".to_owned();
    vec![DependencyHealth { name, is_healthy: false, state: "down".to_owned() }]
}

fn usage(used: u64, limit: u64) -> Option<Usage> {
    Some(Usage { used, limit: Some(limit) })
}

#[test]
fn each_case_gets_its_cause_its_confidence_and_its_first_rung() {
    let seconds = Duration::from_secs;
    let answer_timeout = || probe(CheckKind::Redis, ProbeFailure::AnswerTimeout);
    let slow = ProbeFailure::Slow { took: seconds(4), limit: seconds(1) };
    let storm = OutputRate { lines_per_second: 25_000.0, usual: 3.0 };
    let silence = CheckDetail { kind: CheckKind::Silence, verdict: Verdict::Fail, failure: None };
    let expired = Certificate { subject: "example.org".to_owned(), seconds_left: -7200 };
    let high = Pressure { cpu_some: 95.0, ..Pressure::default() };
    let cases: Vec<(&str, Evidence, Cause, Confidence, &str)> = vec![
        ("killed", killed(9), Cause::Killed, Likely, "restart"),
        (
            "killed, and a worker of it still listens",
            Evidence { port: port(false), ..killed(9) },
            Cause::Killed,
            Likely,
            "restart",
        ),
        (
            "stopped by us",
            Evidence { intent: Some(Intent::Operator), ..killed(15) },
            Cause::Intended,
            Certain,
            "confirm",
        ),
        (
            "ended by us because it had failed",
            Evidence { intent: Some(Intent::Failing("no WATCHDOG=1 for 5 s".into())), ..killed(6) },
            Cause::Wedged,
            Likely,
            "restart",
        ),
        (
            "SIGSTOPped",
            Evidence { process: Some(ProcessState::Stopped), ..answer_timeout() },
            Cause::Frozen,
            Certain,
            "signal",
        ),
        (
            "in a debugger",
            Evidence { process: Some(ProcessState::Traced), ..answer_timeout() },
            Cause::Frozen,
            Certain,
            "signal",
        ),
        (
            "stuck in the kernel",
            Evidence { process: Some(ProcessState::Uninterruptible), ..Evidence::default() },
            Cause::Blocked,
            Likely,
            "quarantine",
        ),
        (
            "out of connections, told to the probe",
            probe(CheckKind::Postgres, ProbeFailure::TooManyConnections),
            Cause::OutOfConnections,
            Certain,
            "restart",
        ),
        (
            "out of connections, told to the log alone",
            Evidence {
                output: vec!["[alert] 9#9: 8 worker_connections are not enough".into()],
                ..probe(CheckKind::Http, ProbeFailure::Closed)
            },
            Cause::OutOfConnections,
            Likely,
            "restart",
        ),
        (
            "out of connections, at the end",
            exited(1, &["FATAL:  sorry, too many clients already"]),
            Cause::OutOfConnections,
            Likely,
            "restart",
        ),
        (
            "out of memory in its cgroup",
            Evidence { oom_kills: 1, memory_bytes: usage(64 << 20, 64 << 20), ..killed(9) },
            Cause::OutOfMemory,
            Certain,
            "restart",
        ),
        (
            "a child out of memory",
            Evidence { oom_kills: 2, ..probe(CheckKind::Http, ProbeFailure::Refused) },
            Cause::OutOfMemory,
            Likely,
            "restart",
        ),
        (
            "out of memory on the host",
            Evidence { host_oom: true, ..killed(9) },
            Cause::OutOfMemory,
            Certain,
            "restart",
        ),
        (
            "out of memory somewhere on the host",
            Evidence { host_oom_kills: 1, ..killed(9) },
            Cause::OutOfMemory,
            Likely,
            "restart",
        ),
        (
            "about to run out of memory",
            Evidence { memory_bytes: usage(99, 100), ..Evidence::default() },
            Cause::OutOfMemory,
            Likely,
            "restart",
        ),
        (
            "disk full, seen and said",
            Evidence { disks: full_disk(), ..exited(1, &["write: No space left on device"]) },
            Cause::DiskFull,
            Certain,
            "run",
        ),
        (
            "disk full, seen",
            Evidence {
                disks: full_disk(),
                ..probe(CheckKind::Http, ProbeFailure::WrongAnswer { answer: "500".into() })
            },
            Cause::DiskFull,
            Likely,
            "run",
        ),
        (
            "port taken by another",
            Evidence { port: port(false), ..exited(1, &["bind: Address already in use"]) },
            Cause::PortTaken,
            Certain,
            "clean-restart",
        ),
        (
            "port taken by a leftover",
            Evidence { port: port(true), ..exited(1, &[]) },
            Cause::PortTaken,
            Likely,
            "clean-restart",
        ),
        (
            "port taken, holder unknown",
            exited(1, &["Could not bind: EADDRINUSE"]),
            Cause::PortTaken,
            Likely,
            "clean-restart",
        ),
        (
            "config broken, by its words",
            exited(1, &["nginx: [emerg] unknown directive \"lisen\" in nginx.conf:3"]),
            Cause::ConfigurationBroken,
            Likely,
            "rollback",
        ),
        (
            "config broken, by its code",
            exited(78, &[]),
            Cause::ConfigurationBroken,
            Certain,
            "rollback",
        ),
        (
            "config broken a moment ago",
            Evidence {
                configuration_age: Some(seconds(5)),
                ..exited(1, &["*** FATAL CONFIG FILE ERROR ***"])
            },
            Cause::ConfigurationBroken,
            Certain,
            "rollback",
        ),
        (
            "dependency down",
            Evidence { dependencies: dependency(), ..answer_timeout() },
            Cause::DependencyDown,
            Certain,
            "confirm",
        ),
        (
            "dependency down, and it ended",
            Evidence { dependencies: dependency(), ..exited(1, &["cannot connect"]) },
            Cause::DependencyDown,
            Likely,
            "confirm",
        ),
        ("wedged", answer_timeout(), Cause::Wedged, Certain, "restart"),
        (
            "closes at once",
            probe(CheckKind::Tcp, ProbeFailure::Closed),
            Cause::Wedged,
            Likely,
            "restart",
        ),
        (
            "accepts nothing",
            probe(CheckKind::Tcp, ProbeFailure::ConnectTimeout),
            Cause::Wedged,
            Likely,
            "restart",
        ),
        (
            "does not listen",
            probe(CheckKind::Tcp, ProbeFailure::Refused),
            Cause::NotListening,
            Likely,
            "restart",
        ),
        ("slow", probe(CheckKind::Http, slow), Cause::Slow, Likely, "confirm"),
        (
            "certificate expired",
            Evidence {
                certificate: Some(expired),
                ..probe(CheckKind::Http, ProbeFailure::CertificateInvalid)
            },
            Cause::CertificateExpired,
            Certain,
            "reload",
        ),
        (
            "certificate refused",
            probe(CheckKind::Http, ProbeFailure::CertificateInvalid),
            Cause::CertificateExpired,
            Likely,
            "reload",
        ),
        (
            "log storm",
            Evidence { output_rate: Some(storm), ..Evidence::default() },
            Cause::LogStorm,
            Likely,
            "reload",
        ),
        (
            "silent worker",
            Evidence {
                silent_for: Some(seconds(660)),
                check: Some(silence),
                ..Evidence::default()
            },
            Cause::Silent,
            Certain,
            "restart",
        ),
        (
            "segmentation fault",
            Evidence { fault: Some("web[7]: segfault at 0".into()), ..killed(11) },
            Cause::Crashed,
            Certain,
            "restart",
        ),
        ("forbidden system call", killed(31), Cause::ForbiddenSystemCall, Certain, "restart"),
        (
            "forbidden, by the kernel's log",
            Evidence { seccomp: true, ..killed(9) },
            Cause::ForbiddenSystemCall,
            Certain,
            "restart",
        ),
        ("CPU limit", killed(24), Cause::CpuLimit, Certain, "restart"),
        (
            "CPU limit, hard",
            Evidence { cpu_seconds: usage(97, 100), ..killed(9) },
            Cause::CpuLimit,
            Likely,
            "restart",
        ),
        (
            "out of descriptors",
            Evidence { descriptors: usage(1020, 1024), ..answer_timeout() },
            Cause::OutOfDescriptors,
            Certain,
            "restart",
        ),
        (
            "out of tasks",
            Evidence { tasks: usage(200, 200), ..Evidence::default() },
            Cause::OutOfTasks,
            Certain,
            "restart",
        ),
        (
            "command missing",
            exec(ExecErrorKind::Missing),
            Cause::CommandMissing,
            Certain,
            "rollback",
        ),
        (
            "interpreter missing",
            exec(ExecErrorKind::MissingInterpreter),
            Cause::LibraryMissing,
            Certain,
            "rollback",
        ),
        (
            "library missing",
            exited(127, &["web: error while loading shared libraries: libfoo.so.1"]),
            Cause::LibraryMissing,
            Certain,
            "rollback",
        ),
        ("not allowed", exec(ExecErrorKind::NotAllowed), Cause::NotAllowed, Certain, "rollback"),
        (
            "over a threshold",
            probe(
                CheckKind::Load,
                ProbeFailure::Threshold {
                    what: "load".into(),
                    value: "9".into(),
                    limit: "4".into(),
                },
            ),
            Cause::OverLimit,
            Likely,
            "confirm",
        ),
        (
            "wrong answer",
            probe(CheckKind::Http, ProbeFailure::WrongAnswer { answer: "503".into() }),
            Cause::WrongAnswer,
            Likely,
            "confirm",
        ),
        (
            "busy host",
            Evidence { pressure: Some(high), ..Evidence::default() },
            Cause::HostOverloaded,
            Likely,
            "confirm",
        ),
        (
            "exited with an error",
            exited(3, &["something odd"]),
            Cause::ExitedWithError,
            Likely,
            "restart",
        ),
        ("ended", exited(0, &[]), Cause::Ended, Likely, "restart"),
        (
            "unseen end",
            Evidence { exit: Some(Exit::Unknown), ..Evidence::default() },
            Cause::Unknown,
            Guess,
            "confirm",
        ),
        ("nothing known", Evidence::default(), Cause::Unknown, Guess, "confirm"),
    ];
    let ladder = ladder();
    for (case, evidence, cause, confidence, rung) in cases {
        let found = find(&evidence);
        let first = ladder[found.first_rung(&ladder)].remedy.word();
        assert_eq!(
            (found.cause, found.confidence, first),
            (cause, confidence, rung),
            "{case}: {found:?}"
        );
        assert!(
            !found.sentence.is_empty()
                && (found.cause == Cause::Unknown || !found.facts.is_empty()),
            "{case}"
        );
    }
}

#[test]
fn what_a_living_program_prints_is_only_a_guess() {
    let mut evidence = exited(1, &["client 7: No space left on device"]);
    assert_eq!(find(&evidence).confidence, Likely);
    evidence.exit = None;
    assert_eq!((find(&evidence).cause, find(&evidence).confidence), (Cause::DiskFull, Guess));
}

#[test]
fn a_sentence_names_who_holds_the_port_and_which_limit_was_too_small() {
    let taken = Evidence { port: port(false), ..exited(1, &["Address already in use"]) };
    assert_eq!(find(&taken).sentence, "cannot have port 8000: `nc -l 8000` (pid 77) holds it");
    let oom = Evidence { oom_kills: 1, memory_bytes: usage(1, 64 << 20), ..killed(9) };
    let expected =
        "was killed by the kernel because it needed more than its memory limit of 64 MiB";
    assert_eq!(find(&oom).sentence, expected);
}

#[test]
fn a_cause_that_no_rung_helps_against_leads_past_the_end() {
    let short = &ladder()[..4];
    assert_eq!(find(&exec(ExecErrorKind::Missing)).first_rung(short), short.len());
}
