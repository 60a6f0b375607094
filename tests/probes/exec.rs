//! Commands: what they say, that they are killed whole, and that their output has an end.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mendd::config::{ExecLook, Look};
use mendd::core::care::evidence::ProbeFailure;
use mendd::os::cgroup::Leaf;
use mendd::os::pidfd::PidFd;
use mendd::probe::{Command, Commands, MAX_OUTPUT_BYTES, Past, Report, Unit, Verdict};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::oneshot;

use crate::bench::{Question, assert_failure, assert_report, wait_until};
use crate::server::{directory, skip};

/// Starts commands as children of the test.
#[derive(Default)]
struct Starter {
    /// The control group that a command gets, which it enters by itself.
    group: Option<PathBuf>,
}

impl Commands for Starter {
    fn launch(&self, argv: &[String]) -> oneshot::Receiver<Result<Command, String>> {
        let (sender, answer) = oneshot::channel();
        let _ = sender.send(self.start(argv));
        answer
    }
}

impl Starter {
    fn start(&self, argv: &[String]) -> Result<Command, String> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| e.to_string())?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| e.to_string())?;
        let mut command = std::process::Command::new(&argv[0]);
        command.args(&argv[1..]).process_group(0).stdin(Stdio::null());
        command.stdout(write.try_clone().unwrap()).stderr(write);
        let child = command.spawn().map_err(|error| format!("cannot execute: {error}"))?;
        let pidfd = PidFd::open(child.id()).map_err(|error| error.to_string())?;
        let leaf = self.group.as_deref().map(|group| Leaf::reopen(group).unwrap());
        Ok(Command::new(child.id(), pidfd, read, leaf))
    }
}

fn shell(script: &str) -> Question {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Question::new(Look::Exec(ExecLook { argv, user: None, output: None }))
}

fn said(script: &str) -> Report {
    shell(script).ask_with(&Starter::default(), &mut Past::default())
}

#[test]
fn a_plugin_says_it_by_its_code_its_line_and_its_figures() {
    let good = said("echo 'DISK OK - 3 GB free | free=3GB;1;0'");
    assert_report(&good, Verdict::Pass, "DISK OK - 3 GB free");
    let sample = good.sample.unwrap();
    assert_eq!((sample.value, sample.unit), (3_221_225_472.0, Unit::Bytes));
    assert_report(&said("echo so-so; exit 1"), Verdict::Warn, "exited with code 1: so-so");
    let bad = said("echo broken >&2; exit 2");
    assert_report(&bad, Verdict::Fail, "exited with code 2: broken");
    assert_failure(&bad, ProbeFailure::ExitCode { code: 2, output: "broken".into() });
    assert_report(&said("exit 3"), Verdict::Unknown, "exited with code 3");
    assert_report(&said("exit 22"), Verdict::Fail, "exited with code 22");
    assert_report(&said("no-such-command-anywhere"), Verdict::Unknown, "exited with code 127");
    assert_report(&said("kill -SEGV $$"), Verdict::Unknown, "the command was killed by SIGSEGV");
    assert_report(&said("echo drain; exit 2"), Verdict::Warn, "wants no new work");
    assert_report(&said("echo 'down#no disk'"), Verdict::Fail, "says that it is down: no disk");
}

#[test]
fn a_command_that_cannot_be_started_says_nothing_of_the_target() {
    let argv = vec!["/no/such/command".to_owned()];
    let question = Question::new(Look::Exec(ExecLook { argv, user: None, output: None }));
    let report = question.ask_with(&Starter::default(), &mut Past::default());
    assert_report(&report, Verdict::Unknown, "cannot execute");
}

#[test]
fn output_must_match_if_that_is_declared_and_only_its_beginning_is_kept() {
    let printing = |script: &str, pattern: &str| {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let look = ExecLook { argv, user: None, output: Some(pattern.to_owned()) };
        Question::new(Look::Exec(look)).ask_with(&Starter::default(), &mut Past::default())
    };
    assert_eq!(printing("echo state: up", "state: (up|idle)").verdict, Verdict::Pass);
    let report = printing("echo state: stuck", "state: (up|idle)");
    assert_report(&report, Verdict::Fail, "printed \"state: stuck\", which does not match");
    let report = printing("true", "up");
    assert_report(&report, Verdict::Fail, "printed nothing, and `up` is expected");
    let long = said("head -c 300000 /dev/zero | tr '\\0' x");
    assert_eq!((long.verdict, long.output.len()), (Verdict::Pass, MAX_OUTPUT_BYTES));
}

/// Waits until a file has a pid in it, and returns it.
fn pid_in(file: &Path) -> u32 {
    let mut found = None;
    wait_until("a pid", || {
        found = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        found.map(drop).ok_or("none")
    });
    found.expect("it was waited for")
}

fn is_alive(pid: u32) -> bool {
    mendd::os::proc::stat(pid).is_some_and(|stat| !stat.is_dead())
}

#[test]
fn what_is_late_is_killed_with_what_it_has_started() {
    let directory = directory();
    let file = directory.path().join("pid");
    let script = format!("sleep 6000 & echo $! >{0}.new; mv {0}.new {0}; wait", file.display());
    let mut past = Past::default();
    // A busy machine may need longer to get that far.
    for seconds in [1, 4, 16, 64] {
        let question = shell(&script).within(Duration::from_secs(seconds));
        let report = question.ask_with(&Starter::default(), &mut past);
        assert_report(&report, Verdict::Timeout, "did not end within ");
        assert!(report.sentence.ends_with("and was killed"), "{report:?}");
        if file.exists() {
            break;
        }
    }
    let child = pid_in(&file);
    wait_until("the end of the child", || if is_alive(child) { Err(child) } else { Ok(()) });

    // The same when nobody wants to know any more.
    fs::remove_file(&file).unwrap();
    let question = shell(&script);
    crate::bench::run(async {
        let starter = Starter::default();
        let asking = question.ask_now(&starter, &mut past);
        let started = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            report = asking => panic!("it ended: {report:?}"),
            () = started => {}
        }
    });
    let child = pid_in(&file);
    wait_until("the end of the child", || if is_alive(child) { Err(child) } else { Ok(()) });
}

#[test]
fn in_a_control_group_not_even_a_new_session_escapes() {
    let name = format!("mend-probes-exec-{}", std::process::id());
    let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let place = places.into_iter().find(|place| place.join("cgroup.controllers").exists());
    let group = place.map(|place| place.join(&name));
    let Some(group) = group.filter(|group| fs::create_dir(group).is_ok()) else {
        return skip("no control group of version 2 can be made");
    };
    let directory = directory();
    let file = directory.path().join("pid");
    let script = format!(
        "echo $$ >{group}/cgroup.procs && setsid sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 6000' & \
         while [ ! -e {0} ]; do sleep 0.01; done; exit 0",
        file.display(),
        group = group.display(),
    );
    // The shell that stays is in the group as well.
    let script = format!("echo $$ >{}/cgroup.procs; {script}", group.display());
    let starter = Starter { group: Some(group.clone()) };
    let report = shell(&script).ask_with(&starter, &mut Past::default());
    assert_eq!(report.verdict, Verdict::Pass, "{report:?}");
    let escaped = pid_in(&file);
    wait_until("the end of what escaped", || if is_alive(escaped) { Err(escaped) } else { Ok(()) });
    // A look removes its group if it can; a process that is dying keeps it for a moment.
    let removed = || if group.exists() { fs::remove_dir(&group) } else { Ok(()) };
    wait_until("an empty group", removed);
}
