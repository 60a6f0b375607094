//! Memory, processor time, open files and disks of real processes and of this host.

use std::process::{Command, Stdio};
use std::time::Duration;

use mendd::config::{
    Amount, Bounds, CpuLook, DiskLook, FdsLook, HeartbeatLook, LoadLook, LoadSpan, LogLook, Look,
    MemoryLook, PressureLook, PressureOf, PressureShare, PressureSpan, SilenceLook,
};
use mendd::core::care::evidence::ProbeFailure;
use mendd::probe::{Past, ProcessSubject, Report, Subject, Unit, Verdict};

use crate::bench::{Nobody, Question, ask, assert_report, wait_until};
use crate::server::{Server, skip};

fn shell(script: &str) -> Server {
    Server::start(Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::null()))
}

fn about(server: &Server) -> Subject {
    Subject::Process(ProcessSubject::new(server.pid()))
}

fn memory(fail: Amount) -> Look {
    Look::Memory(MemoryLook { used: Bounds { warn: None, fail: Some(fail) } })
}

#[test]
fn memory_of_a_process_is_that_of_its_whole_tree() {
    // `tail` keeps what it is given until there is no more.
    let server = shell("{ head -c 96M /dev/zero; exec sleep 6000; } | tail");
    let question = Question::new(memory(Amount::Bytes(64 << 20))).about(about(&server));
    let mut last = None;
    wait_until("its memory to grow", || {
        let report = question.ask();
        let is_over = report.verdict == Verdict::Fail && report.sample.unwrap().value > 90e6;
        last = Some(report.clone());
        if is_over { Ok(()) } else { Err(report) }
    });
    let report = last.expect("it was asked");
    assert_report(&report, Verdict::Fail, "(limit 64 MiB)");
    assert!(matches!(report.failure, Some(ProbeFailure::Threshold { .. })), "{report:?}");
    // In percent of its own limit.
    let mut subject = ProcessSubject::new(server.pid());
    subject.memory_limit = Some(100 << 20);
    let question = Question::new(memory(Amount::Percent(80.0))).about(Subject::Process(subject));
    assert_report(&question.ask(), Verdict::Fail, " of 100 MiB, ");
    let question = Question::new(memory(Amount::Percent(99.9))).about(about(&server));
    assert_eq!(question.ask().verdict, Verdict::Pass);
    let gone = about(&server);
    server.end();
    let question = Question::new(memory(Amount::Bytes(1))).about(gone);
    assert_report(&question.ask(), Verdict::Unknown, "is gone");
}

#[test]
fn memory_of_the_host_is_what_is_not_available() {
    let report = ask(memory(Amount::Bytes(1)));
    assert_report(&report, Verdict::Fail, "memory of the host ");
    assert_eq!(ask(memory(Amount::Percent(100.0))).verdict, Verdict::Pass);
}

#[test]
fn a_process_that_turns_in_a_circle_uses_its_processor_and_one_that_sleeps_does_not() {
    let lasting = Duration::from_millis(500);
    let percent = Bounds { warn: None, fail: Some(5.0) };
    let look = Look::Cpu(CpuLook { percent, lasting });
    let judged = |script: &str| -> Report {
        let server = shell(script);
        let question = Question::new(look.clone()).about(about(&server));
        let mut past = Past::default();
        let first = question.ask_with(&Nobody, &mut past);
        assert_report(&first, Verdict::Pass, "is known from the next look on");
        std::thread::sleep(lasting);
        question.ask_with(&Nobody, &mut past)
    };
    let busy = judged("while :; do :; done");
    assert_report(&busy, Verdict::Fail, " of a CPU over ");
    assert_eq!(busy.sample.unwrap().unit, Unit::Percent);
    assert_eq!(judged("sleep 6000").verdict, Verdict::Pass);
    let host = Question::new(look.clone()).ask();
    assert_report(&host, Verdict::Pass, "processor time of the host");
}

#[test]
fn the_process_that_is_closest_to_its_own_limit_counts() {
    let script = "ulimit -n 12; exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null 7</dev/null \
                  8</dev/null; sleep 6000 & wait";
    let server = shell(script);
    let percent = Bounds { warn: None, fail: Some(70.0) };
    let question = Question::new(Look::Fds(FdsLook { percent })).about(about(&server));
    wait_until("its files to be open", || {
        let report = question.ask();
        let is_full = report.verdict == Verdict::Fail && report.sentence.contains(" of 12, ");
        if is_full { Ok(()) } else { Err(report) }
    });
    let host = ask(Look::Fds(FdsLook { percent }));
    assert_report(&host, Verdict::Pass, "open files of the host");
}

#[test]
fn the_host_tells_its_load_pressure_and_room() {
    let none = Bounds { warn: None, fail: Some(1e9) };
    let load = ask(Look::Load(LoadLook { per_cpu: none, span: LoadSpan::One }));
    assert_report(&load, Verdict::Pass, " over 1 min, ");
    let pressure = Look::Pressure(PressureLook {
        of: PressureOf::Io,
        share: PressureShare::Some,
        span: PressureSpan::ThreeHundred,
        percent: none,
    });
    match ask(pressure.clone()) {
        report if report.verdict == Verdict::Unknown => skip(&report.sentence),
        report => assert_report(&report, Verdict::Pass, "some tasks waited for disks "),
    }
    let process = Subject::Process(ProcessSubject::new(std::process::id()));
    let report = Question::new(pressure).about(process).ask();
    assert_report(&report, Verdict::Unknown, "the process has none of its own");
    let disk = |fail| {
        Look::Disk(DiskLook {
            path: "/tmp/no/such/directory".into(),
            free: Bounds { warn: None, fail: Some(fail) },
            free_inodes: None,
        })
    };
    assert_report(&ask(disk(Amount::Bytes(1))), Verdict::Pass, " free, ");
    assert_report(&ask(disk(Amount::Percent(100.0))), Verdict::Fail, "(limit 100 %)");
}

#[test]
fn signs_of_life_are_judged_by_what_the_supervisor_knows() {
    let minute = Duration::from_secs(60);
    let mut subject = ProcessSubject::new(1);
    subject.quiet_for = minute * 11;
    subject.watchdog_age = minute;
    subject.matches = 3;
    let subject = Subject::Process(subject);
    let silence = Bounds { warn: None, fail: Some(minute * 10) };
    let silence = Look::Silence(SilenceLook { longest: silence });
    let report = Question::new(silence.clone()).about(subject.clone()).ask();
    assert_report(&report, Verdict::Fail, "no output for 11 min (limit 10 min)");
    let heartbeat = Look::Heartbeat(HeartbeatLook { file: None, within: minute / 2 });
    let report = Question::new(heartbeat).about(subject.clone()).ask();
    assert_report(&report, Verdict::Fail, "`WATCHDOG=1` came 1 min ago, and 30 s are allowed");
    let count = Bounds { warn: Some(3), fail: None };
    let log = Look::Log(LogLook { pattern: "ERROR".into(), count, within: minute });
    let report = Question::new(log).about(subject).ask();
    assert_report(&report, Verdict::Warn, "3 or more lines of the last 1 min match `ERROR`");
    assert_eq!(ask(silence).verdict, Verdict::Unknown);
}
