//! The rules by which evidence becomes a cause, in the order of precedence among equals.

use super::cause::{Cause, Confidence, Finding};
use super::evidence::{
    DiskSpace, Evidence, ExecErrorKind, Intent, ProbeFailure, ProcessState, Usage,
};
use crate::config::CheckKind;
use crate::core::{Exit, text};

use Confidence::{Certain, Guess, Likely};

/// A rule speaks, or has nothing to say.
pub(super) type Rule = fn(&Evidence) -> Option<Finding>;

pub(super) const RULES: &[Rule] = &[
    intended,
    never_executed,
    frozen,
    blocked,
    out_of_memory,
    forbidden_system_call,
    crashed,
    cpu_limit,
    dependency_down,
    port_taken,
    disk_full,
    certificate,
    said_in_the_output,
    out_of_connections,
    exhausted,
    log_storm,
    silent,
    wedged,
    not_listening,
    slow,
    failed_before_its_end,
    killed,
    over_limit,
    wrong_answer,
    ended,
    host_overloaded,
];

/// What programs print when they fail, in lower case.
const SAYINGS: &[(&str, Cause, Confidence)] = &[
    ("no space left on device", Cause::DiskFull, Likely),
    ("disk quota exceeded", Cause::DiskFull, Likely),
    ("address already in use", Cause::PortTaken, Likely),
    ("eaddrinuse", Cause::PortTaken, Likely),
    ("error while loading shared libraries", Cause::LibraryMissing, Certain),
    ("command not found", Cause::CommandMissing, Likely),
    (": not found", Cause::CommandMissing, Guess),
    ("too many open files", Cause::OutOfDescriptors, Likely),
    ("emfile", Cause::OutOfDescriptors, Likely),
    ("cannot fork", Cause::OutOfTasks, Likely),
    ("fork: resource temporarily unavailable", Cause::OutOfTasks, Likely),
    ("can't start new thread", Cause::OutOfTasks, Likely),
    ("memoryerror", Cause::OutOfMemory, Likely),
    ("cannot allocate memory", Cause::OutOfMemory, Likely),
    ("out of memory", Cause::OutOfMemory, Likely),
    ("too many clients", Cause::OutOfConnections, Likely),
    ("remaining connection slots are reserved", Cause::OutOfConnections, Likely),
    ("max number of clients reached", Cause::OutOfConnections, Likely),
    ("worker_connections are not enough", Cause::OutOfConnections, Likely),
    ("certificate has expired", Cause::CertificateExpired, Likely),
    ("fatal config file error", Cause::ConfigurationBroken, Likely),
    ("bad directive", Cause::ConfigurationBroken, Likely),
    ("unknown directive", Cause::ConfigurationBroken, Likely),
    ("invalid configuration", Cause::ConfigurationBroken, Likely),
    ("configuration file contains errors", Cause::ConfigurationBroken, Likely),
    ("unrecognized configuration parameter", Cause::ConfigurationBroken, Likely),
    ("configuration error", Cause::ConfigurationBroken, Likely),
    ("config error", Cause::ConfigurationBroken, Likely),
    ("syntax error", Cause::ConfigurationBroken, Guess),
    ("[emerg]", Cause::ConfigurationBroken, Guess),
    ("permission denied", Cause::NotAllowed, Guess),
    ("operation not permitted", Cause::NotAllowed, Guess),
];

/// What a saying means, as a phrase that goes on from the program's name.
const PHRASES: &[(Cause, &str)] = &[
    (Cause::DiskFull, "has no disk space left"),
    (Cause::PortTaken, "cannot have its port, somebody else holds it"),
    (Cause::LibraryMissing, "misses a library"),
    (Cause::CommandMissing, "misses a command"),
    (Cause::OutOfDescriptors, "has no file descriptor left"),
    (Cause::OutOfTasks, "cannot start another process or thread"),
    (Cause::OutOfMemory, "has no memory left"),
    (Cause::OutOfConnections, "has no connection left"),
    (Cause::CertificateExpired, "has met an expired certificate"),
    (Cause::ConfigurationBroken, "does not accept its configuration"),
    (Cause::NotAllowed, "is not allowed something it needs"),
];

const EX_CONFIG: i32 = 78;
const SIGXCPU: i32 = 24;
const SIGKILL: i32 = 9;
const SIGSYS: i32 = 31;
/// The signals of a fault in the program itself: ILL, TRAP, ABRT, BUS, FPE, SEGV.
const FAULTS: [i32; 6] = [4, 5, 6, 7, 8, 11];
/// So many lines a second, and so many times as many as usual, are a storm.
const STORM: (f64, f64) = (1000.0, 10.0);

fn finding(
    cause: Cause,
    confidence: Confidence,
    facts: &[&str],
    sentence: String,
) -> Option<Finding> {
    let facts = facts.iter().map(|fact| (*fact).to_owned()).collect();
    Some(Finding { cause, confidence, facts, sentence })
}

fn failure(evidence: &Evidence) -> Option<&ProbeFailure> {
    evidence.check.as_ref().and_then(|check| check.failure.as_ref())
}

fn last_exit(evidence: &Evidence) -> String {
    evidence.exit.map_or_else(String::new, text::exit)
}

/// Whether the run is over, or never was: its own state explains nothing any more.
fn is_over(evidence: &Evidence) -> bool {
    evidence.exit.is_some() || evidence.exec.is_some()
}

fn signal(evidence: &Evidence) -> Option<i32> {
    match evidence.exit {
        Some(Exit::Signal { signal, .. }) => Some(signal),
        Some(Exit::Code(_) | Exit::Unknown) | None => None,
    }
}

fn intended(evidence: &Evidence) -> Option<Finding> {
    let exit = evidence.exit?;
    if evidence.intent != Some(Intent::Operator) {
        return None;
    }
    let who = "an operator asked for it";
    finding(Cause::Intended, Certain, &[who, &text::exit(exit)], format!("ended because {who}"))
}

fn never_executed(evidence: &Evidence) -> Option<Finding> {
    let exec = evidence.exec.as_ref()?;
    let command = &exec.command;
    let (cause, what) = match exec.kind {
        ExecErrorKind::Missing => {
            (Cause::CommandMissing, format!("cannot start: `{command}` does not exist"))
        }
        ExecErrorKind::MissingInterpreter => (
            Cause::LibraryMissing,
            format!(
                "cannot start: the interpreter or loader that `{command}` names does not exist"
            ),
        ),
        ExecErrorKind::NotAllowed => {
            (Cause::NotAllowed, format!("cannot start: `{command}` may not be executed"))
        }
        ExecErrorKind::NotExecutable => (
            Cause::CommandMissing,
            format!("cannot start: `{command}` is not a program for this machine"),
        ),
        ExecErrorKind::DiskFull => (Cause::DiskFull, "cannot start: no space is left".to_owned()),
        ExecErrorKind::Resources => {
            (Cause::OutOfTasks, "cannot start: the host has no process or memory left".to_owned())
        }
    };
    finding(cause, Certain, &["the spawn failed"], what)
}

fn frozen(evidence: &Evidence) -> Option<Finding> {
    if is_over(evidence) {
        return None;
    }
    match evidence.process? {
        ProcessState::Stopped => finding(
            Cause::Frozen,
            Certain,
            &["its state is T (stopped)"],
            "was stopped by a signal (SIGSTOP or SIGTSTP) and not continued".to_owned(),
        ),
        ProcessState::Traced => finding(
            Cause::Frozen,
            Certain,
            &["its state is t (traced)"],
            "is held by a debugger".to_owned(),
        ),
        ProcessState::Normal | ProcessState::Uninterruptible | ProcessState::Zombie => None,
    }
}

fn blocked(evidence: &Evidence) -> Option<Finding> {
    let stuck = evidence.process == Some(ProcessState::Uninterruptible) && !is_over(evidence);
    let sentence = "is stuck in the kernel (state D), where no signal reaches it; a disk or a \
                    network file system does not answer";
    stuck.then(|| finding(Cause::Blocked, Likely, &["its state is D"], sentence.to_owned()))?
}

fn out_of_memory(evidence: &Evidence) -> Option<Finding> {
    let killed = signal(evidence) == Some(SIGKILL);
    if evidence.host_oom && killed {
        let sentence = "was killed by the kernel because the host ran out of memory".to_owned();
        return finding(Cause::OutOfMemory, Certain, &["the kernel's log names it"], sentence);
    }
    if evidence.oom_kills == 0 && evidence.host_oom_kills > 0 && killed && evidence.intent.is_none()
    {
        let counter = format!("the host's oom_kill went up by {}", evidence.host_oom_kills);
        let sentence = "was killed when the kernel had no memory left, as it seems".to_owned();
        let facts = [counter.as_str(), "it died of SIGKILL, which Mend did not send"];
        return finding(Cause::OutOfMemory, Likely, &facts, sentence);
    }
    if evidence.oom_kills == 0 {
        return None;
    }
    let counter = format!("oom_kill went up by {}", evidence.oom_kills);
    let limit = evidence.memory_bytes.and_then(|usage| usage.limit);
    let of = limit.map_or_else(String::new, |limit| format!(" of {} MiB", limit >> 20));
    if killed {
        let sentence =
            format!("was killed by the kernel because it needed more than its memory limit{of}");
        return finding(Cause::OutOfMemory, Certain, &[&counter, "it died of SIGKILL"], sentence);
    }
    let sentence =
        format!("lost a process of its tree because it needed more than its memory limit{of}");
    finding(Cause::OutOfMemory, Likely, &[&counter], sentence)
}

fn forbidden_system_call(evidence: &Evidence) -> Option<Finding> {
    let ended = signal(evidence).is_some_and(|signal| signal == SIGSYS || signal == SIGKILL);
    let sentence = "was killed because it made a system call that its seccomp filter forbids";
    let rule =
        |facts: &[&str]| finding(Cause::ForbiddenSystemCall, Certain, facts, sentence.to_owned());
    match signal(evidence) {
        Some(SIGSYS) => rule(&["it died of SIGSYS"]),
        Some(_) if ended && evidence.seccomp => rule(&["the kernel's log says seccomp"]),
        Some(_) | None => None,
    }
}

fn crashed(evidence: &Evidence) -> Option<Finding> {
    // A run whose watchdog is not fed is ended with SIGABRT.
    let is_ours = evidence.intent.is_some();
    let signal = signal(evidence).filter(|signal| FAULTS.contains(signal) && !is_ours)?;
    let name = text::signal(signal);
    let sentence = format!("crashed with {name}");
    match &evidence.fault {
        Some(line) => finding(Cause::Crashed, Certain, &[&last_exit(evidence), line], sentence),
        None => finding(Cause::Crashed, Certain, &[&last_exit(evidence)], sentence),
    }
}

fn cpu_limit(evidence: &Evidence) -> Option<Finding> {
    let used_up = evidence.cpu_seconds.is_some_and(Usage::is_exhausted);
    let sentence = "used up its limit of CPU time".to_owned();
    match signal(evidence)? {
        SIGXCPU => finding(Cause::CpuLimit, Certain, &["it died of SIGXCPU"], sentence),
        SIGKILL if used_up && evidence.oom_kills == 0 => {
            finding(Cause::CpuLimit, Likely, &["it died at its limit of CPU time"], sentence)
        }
        _ => None,
    }
}

fn dependency_down(evidence: &Evidence) -> Option<Finding> {
    let down = evidence.dependencies.iter().find(|dependency| !dependency.is_healthy)?;
    let fact = format!("`{}` is {}", down.name, down.state);
    let sentence = format!("fails because `{}`, which it requires, is {}", down.name, down.state);
    let confidence = if is_over(evidence) { Likely } else { Certain };
    finding(Cause::DependencyDown, confidence, &[&fact], sentence)
}

fn port_taken(evidence: &Evidence) -> Option<Finding> {
    let holder = evidence.port.as_ref()?;
    let said = said(evidence, Cause::PortTaken);
    if said.is_none() && signal(evidence).is_some() {
        // Nobody dies of a signal for want of a port: what holds it is left over from this run, or
        // is the next one already.
        return None;
    }
    let fact = format!("pid {} (`{}`) listens on port {}", holder.pid, holder.command, holder.port);
    let sentence = match holder.is_leftover {
        true => format!(
            "cannot have port {}: a process of an earlier run (pid {}) still holds it",
            holder.port, holder.pid
        ),
        false => format!(
            "cannot have port {}: `{}` (pid {}) holds it",
            holder.port, holder.command, holder.pid
        ),
    };
    match said {
        Some(line) => finding(Cause::PortTaken, Certain, &[&fact, &line], sentence),
        None => finding(Cause::PortTaken, Likely, &[&fact], sentence),
    }
}

fn disk_full(evidence: &Evidence) -> Option<Finding> {
    let disk = evidence.disks.iter().find(|disk| disk.is_full())?;
    let DiskSpace { path, free_bytes, free_inodes, .. } = disk;
    let (fact, what) = match free_inodes {
        Some(0) => (format!("no inode is free at {path}"), "has no inodes left"),
        Some(_) | None => (format!("{free_bytes} bytes are free at {path}"), "is full"),
    };
    let sentence = format!("fails because the disk at {path} {what}");
    match said(evidence, Cause::DiskFull) {
        Some(line) => finding(Cause::DiskFull, Certain, &[&fact, &line], sentence),
        None => finding(Cause::DiskFull, Likely, &[&fact], sentence),
    }
}

fn certificate(evidence: &Evidence) -> Option<Finding> {
    let refused = matches!(failure(evidence), Some(ProbeFailure::CertificateInvalid));
    match &evidence.certificate {
        Some(certificate) if certificate.seconds_left <= 0 => {
            let ago = text::duration(std::time::Duration::from_secs(
                certificate.seconds_left.unsigned_abs(),
            ));
            let fact = format!("`{}` expired {ago} ago", certificate.subject);
            let sentence =
                format!("uses the certificate `{}`, which expired {ago} ago", certificate.subject);
            finding(Cause::CertificateExpired, Certain, &[&fact], sentence)
        }
        Some(certificate)
            if evidence.check.as_ref().is_some_and(|c| c.kind == CheckKind::Certificate) =>
        {
            let left = text::duration(std::time::Duration::from_secs(
                certificate.seconds_left.unsigned_abs(),
            ));
            let fact = format!("`{}` expires in {left}", certificate.subject);
            let sentence =
                format!("uses the certificate `{}`, which expires in {left}", certificate.subject);
            finding(Cause::CertificateExpired, Certain, &[&fact], sentence)
        }
        Some(_) | None if refused => finding(
            Cause::CertificateExpired,
            Likely,
            &["the probe refused its certificate"],
            "offers a certificate that is not valid now".to_owned(),
        ),
        Some(_) | None => None,
    }
}

/// Finds the newest line that speaks for this cause.
fn said(evidence: &Evidence, cause: Cause) -> Option<String> {
    let patterns: Vec<&str> =
        SAYINGS.iter().filter(|(_, of, _)| *of == cause).map(|(pattern, ..)| *pattern).collect();
    let speaks = |line: &&String| {
        let line = line.to_lowercase();
        patterns.iter().any(|pattern| line.contains(pattern))
    };
    evidence.output.iter().rev().find(speaks).map(|line| format!("it printed: {}", line.trim()))
}

fn said_in_the_output(evidence: &Evidence) -> Option<Finding> {
    if let Some(Exit::Code(EX_CONFIG)) = evidence.exit {
        let fact = "it exited with code 78 (EX_CONFIG)";
        let sentence = "says that its configuration is broken (exit code 78)".to_owned();
        return finding(Cause::ConfigurationBroken, Certain, &[fact], sentence);
    }
    let mut best: Option<(Cause, Confidence, String)> = None;
    for line in evidence.output.iter().rev() {
        let lower = line.to_lowercase();
        for (pattern, cause, confidence) in SAYINGS {
            let better = best.as_ref().is_none_or(|(_, best, _)| confidence > best);
            if better && lower.contains(pattern) {
                best = Some((*cause, *confidence, line.trim().to_owned()));
            }
        }
    }
    let (cause, confidence, line) = best?;
    // A program that lives and prints an error may mean a client's; one that died means itself.
    let confidence = if is_over(evidence) { confidence } else { confidence.min(Guess) };
    let recent = evidence.configuration_age.is_some_and(|age| age.as_secs() < 600);
    let changed = cause == Cause::ConfigurationBroken && recent && is_over(evidence);
    let confidence = if changed { Certain } else { confidence };
    let phrase = PHRASES.iter().find(|(of, _)| *of == cause).map_or("failed", |(_, phrase)| phrase);
    let sentence = format!("{phrase}: it printed \"{line}\"");
    finding(cause, confidence, &[&format!("it printed: {line}"), &last_exit(evidence)], sentence)
}

fn out_of_connections(evidence: &Evidence) -> Option<Finding> {
    let full = matches!(failure(evidence), Some(ProbeFailure::TooManyConnections));
    let sentence = "has no connection left: it refuses new clients".to_owned();
    if full {
        return finding(Cause::OutOfConnections, Certain, &["it told the probe so"], sentence);
    }
    // What cannot tell its clients closes the door on them, and tells its log.
    let closes = matches!(failure(evidence), Some(ProbeFailure::Closed)) && !is_over(evidence);
    let said = closes.then(|| said(evidence, Cause::OutOfConnections))??;
    let facts = ["it closed the probe's connection", &said];
    finding(Cause::OutOfConnections, Likely, &facts, format!("{sentence}; {said}"))
}

fn exhausted(evidence: &Evidence) -> Option<Finding> {
    let of = |usage: Usage| format!("{} of {}", usage.used, usage.limit.unwrap_or_default());
    let full = |usage: Option<Usage>| usage.filter(|usage| usage.is_exhausted());
    if let Some(usage) = full(evidence.descriptors) {
        let fact = format!("{} file descriptors are in use", of(usage));
        let sentence = format!("has no file descriptor left: {} are in use", of(usage));
        return finding(Cause::OutOfDescriptors, Certain, &[&fact], sentence);
    }
    if let Some(usage) = full(evidence.tasks) {
        let fact = format!("{} tasks are in use", of(usage));
        let sentence = format!("cannot start another process or thread: {} are in use", of(usage));
        return finding(Cause::OutOfTasks, Certain, &[&fact], sentence);
    }
    let usage = full(evidence.memory_bytes).filter(|_| !is_over(evidence))?;
    let percent = usage.used.saturating_mul(100) / usage.limit.unwrap_or(1).max(1);
    let fact = format!("{percent} % of its memory limit is in use");
    finding(Cause::OutOfMemory, Likely, &[&fact], format!("is about to run out of memory: {fact}"))
}

fn log_storm(evidence: &Evidence) -> Option<Finding> {
    let rate = evidence.output_rate?;
    let storm = rate.lines_per_second >= STORM.0 && rate.lines_per_second >= STORM.1 * rate.usual;
    let fact = format!("{:.0} lines a second, {:.0} before", rate.lines_per_second, rate.usual);
    let by_check = evidence.check.as_ref().is_some_and(|check| check.kind == CheckKind::Log);
    let confidence = if by_check { Certain } else { Likely };
    let sentence = format!("floods its log: {fact}");
    (storm && !is_over(evidence))
        .then(|| finding(Cause::LogStorm, confidence, &[&fact], sentence))?
}

fn silent(evidence: &Evidence) -> Option<Finding> {
    let quiet = evidence.silent_for.filter(|_| !is_over(evidence))?;
    let kind = evidence.check.as_ref()?.kind;
    let fact = format!("no output for {}", text::duration(quiet));
    if kind == CheckKind::Silence {
        let sentence = format!("works no more, as it seems: {fact}");
        return finding(Cause::Silent, Certain, &[&fact], sentence);
    }
    let sentence = format!("gave no sign of life in time, and {fact}");
    let facts = ["its heartbeat is overdue", &fact];
    (kind == CheckKind::Heartbeat).then(|| finding(Cause::Silent, Certain, &facts, sentence))?
}

fn wedged(evidence: &Evidence) -> Option<Finding> {
    if is_over(evidence) {
        return None;
    }
    match failure(evidence)? {
        ProbeFailure::AnswerTimeout => finding(
            Cause::Wedged,
            Certain,
            &["a connection was accepted", "no answer came"],
            "accepts connections and does not answer".to_owned(),
        ),
        ProbeFailure::Closed => finding(
            Cause::Wedged,
            Likely,
            &["a connection was accepted", "it was closed without an answer"],
            "accepts connections and closes them without an answer".to_owned(),
        ),
        ProbeFailure::ConnectTimeout => finding(
            Cause::Wedged,
            Likely,
            &["no connection was accepted in time"],
            "listens and does not accept connections".to_owned(),
        ),
        ProbeFailure::Refused | ProbeFailure::Slow { .. } | ProbeFailure::TooManyConnections => {
            None
        }
        ProbeFailure::CertificateInvalid | ProbeFailure::WrongAnswer { .. } => None,
        ProbeFailure::Threshold { .. } | ProbeFailure::ExitCode { .. } => None,
    }
}

fn not_listening(evidence: &Evidence) -> Option<Finding> {
    let refused = matches!(failure(evidence), Some(ProbeFailure::Refused)) && !is_over(evidence);
    let sentence = "runs, but does not listen: the connection was refused".to_owned();
    refused
        .then(|| finding(Cause::NotListening, Likely, &["the connection was refused"], sentence))?
}

fn slow(evidence: &Evidence) -> Option<Finding> {
    let Some(ProbeFailure::Slow { took, limit }) = failure(evidence) else { return None };
    let (took, limit) = (text::duration(*took), text::duration(*limit));
    let fact = format!("an answer took {took}, {limit} are allowed");
    finding(
        Cause::Slow,
        Likely,
        &[&fact],
        format!("answers too slowly: {took}, {limit} are allowed"),
    )
}

/// The run did not do what it had to, and its end is Mend's; why, another rule may know better.
fn failed_before_its_end(evidence: &Evidence) -> Option<Finding> {
    let Some(Intent::Failing(why)) = &evidence.intent else { return None };
    let exit = text::exit(evidence.exit?);
    let facts = [why.as_str(), &exit];
    finding(Cause::Wedged, Likely, &facts, format!("was ended by Mend: {why}"))
}

fn killed(evidence: &Evidence) -> Option<Finding> {
    let signal = signal(evidence).filter(|_| evidence.intent.is_none())?;
    let name = text::signal(signal);
    let fact = format!("it died of {name}, which Mend did not send");
    finding(Cause::Killed, Likely, &[&fact], format!("was killed by {name} from outside of Mend"))
}

fn over_limit(evidence: &Evidence) -> Option<Finding> {
    let Some(ProbeFailure::Threshold { what, value, limit }) = failure(evidence) else {
        return None;
    };
    let fact = format!("{what} is {value}, the limit is {limit}");
    finding(Cause::OverLimit, Likely, &[&fact], format!("is beyond a limit: {fact}"))
}

fn wrong_answer(evidence: &Evidence) -> Option<Finding> {
    let failure = failure(evidence)?;
    if let ProbeFailure::WrongAnswer { answer } = failure {
        let fact = format!("it answered \"{answer}\"");
        return finding(
            Cause::WrongAnswer,
            Likely,
            &[&fact],
            format!("gives a wrong answer: {fact}"),
        );
    }
    let ProbeFailure::ExitCode { code, output } = failure else { return None };
    let fact = format!("the check exited with code {code}: {}", output.trim());
    let sentence = format!("fails its check, which says: {}", output.trim());
    finding(Cause::WrongAnswer, Guess, &[&fact], sentence)
}

fn ended(evidence: &Evidence) -> Option<Finding> {
    let exit = text::exit(evidence.exit?);
    match evidence.exit? {
        Exit::Code(0) => {
            finding(Cause::Ended, Likely, &[&exit], "ended by itself with success".to_owned())
        }
        Exit::Code(_) => finding(Cause::ExitedWithError, Likely, &[&exit], exit.clone()),
        Exit::Signal { .. } | Exit::Unknown => {
            finding(Cause::Unknown, Guess, &[&exit], exit.clone())
        }
    }
}

fn host_overloaded(evidence: &Evidence) -> Option<Finding> {
    let pressure = evidence.pressure.filter(|pressure| pressure.is_high())?;
    let fact = format!(
        "tasks wait {:.0} % of the time for the CPU, {:.0} % for memory, {:.0} % for disks",
        pressure.cpu_some, pressure.memory_full, pressure.io_full
    );
    let confidence = if is_over(evidence) { Guess } else { Likely };
    finding(
        Cause::HostOverloaded,
        confidence,
        &[&fact],
        format!("suffers from an overloaded host: {fact}"),
    )
}
