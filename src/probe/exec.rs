//! What does a command say?
//!
//! It has a session, and where there are control groups one of its own; whatever it leaves
//! behind is killed at its end, and all of it when the probe is dropped before.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::finding::Finding;
use super::progress::{Progress, Stage};
use super::{MAX_OUTPUT_BYTES, Verdict, plugin, words};
use crate::config::ExecLook;
use crate::core::care::evidence::ProbeFailure;
use crate::core::text;
use crate::os::cgroup::Leaf;
use crate::os::pidfd::PidFd;
use crate::os::process::signal_group;
use crate::os::readable::readable;

/// Brings commands to life as the program that is asked about would be.
pub trait Commands: Send + Sync {
    /// Answers when it executes, or with a sentence on why it cannot.
    fn launch(&self, argv: &[String]) -> oneshot::Receiver<Result<Command, String>>;
}

/// A command that executes: a child of this process, which leads a session. Everything of it is
/// killed when this is dropped.
#[derive(Debug)]
pub struct Command {
    pid: u32,
    pidfd: PidFd,
    /// The reading end of its standard output and error, not blocking.
    output: OwnedFd,
    cgroup: Option<Leaf>,
    is_reaped: bool,
}

/// Asks for readiness: only code 0 is good.
pub(super) async fn ask(argv: &[String], commands: &dyn Commands, progress: &Progress) -> Finding {
    match execute(argv, commands, progress).await {
        Ok((status, output)) => ready(status, output),
        Err(finding) => finding,
    }
}

pub(super) async fn look(look: &ExecLook, commands: &dyn Commands, progress: &Progress) -> Finding {
    let pattern = look.output.as_deref().map(super::pattern).transpose();
    let pattern = match pattern {
        Ok(pattern) => pattern,
        Err(finding) => return finding,
    };
    let (status, output) = match execute(&look.argv, commands, progress).await {
        Ok(ended) => ended,
        Err(finding) => return finding,
    };
    let finding = judge(status, output);
    match pattern {
        Some(pattern) if is_good(&finding) && !pattern.is_match(&finding.output) => {
            let line = words::first_line(&finding.output).unwrap_or_default();
            let sentence = match line.is_empty() {
                true => format!("printed nothing, and `{pattern}` is expected"),
                false => format!("printed \"{line}\", which does not match `{pattern}`"),
            };
            Finding::wrong(line, sentence).with_output(finding.output)
        }
        Some(_) | None => finding,
    }
}

fn is_good(finding: &Finding) -> bool {
    match finding.verdict {
        Verdict::Pass | Verdict::Warn => true,
        Verdict::Fail | Verdict::Timeout | Verdict::Unknown => false,
    }
}

/// Runs a command to its end.
async fn execute(
    argv: &[String],
    commands: &dyn Commands,
    progress: &Progress,
) -> Result<(WaitStatus, Vec<u8>), Finding> {
    let command = match commands.launch(argv).await {
        Ok(Ok(command)) => command,
        Ok(Err(why)) => return Err(Finding::unknown(why)),
        Err(_gone) => return Err(Finding::unknown("nobody starts commands any more")),
    };
    progress.enter(Stage::Asking);
    let unseen = |error| Finding::unknown(format!("the command cannot be watched: {error}"));
    run(command).await.map_err(unseen)
}

/// Judges by the conventions of Nagios plugins.
fn judge(status: WaitStatus, output: Vec<u8>) -> Finding {
    #[expect(clippy::wildcard_enum_match_arm, reason = "waitid was asked for ends alone")]
    let code = match status {
        WaitStatus::Exited(_, code) => code,
        // A probe that crashes has not asked to the end.
        WaitStatus::Signaled(_, signal, _) => {
            let how = format!("the command was killed by {}", text::signal(signal as i32));
            return Finding::unknown(how).with_output(output);
        }
        other => return Finding::unknown(format!("ended as {other:?}")).with_output(output),
    };
    let said = plugin::read(code, &output);
    let sentence = match (code, said.text.as_str()) {
        (_, "") => format!("exited with code {code}"),
        (0, text) => text.to_owned(),
        (_, text) => format!("exited with code {code}: {text}"),
    };
    let failure = ProbeFailure::ExitCode { code, output: said.text };
    let failure = (said.verdict == Verdict::Fail).then_some(failure);
    Finding { failure, sample: said.sample, output, ..Finding::new(said.verdict, sentence) }
}

fn ready(status: WaitStatus, output: Vec<u8>) -> Finding {
    #[expect(clippy::wildcard_enum_match_arm, reason = "waitid was asked for ends alone")]
    let (verdict, how) = match status {
        WaitStatus::Exited(_, 0) => (Verdict::Pass, "exited with code 0".to_owned()),
        WaitStatus::Exited(_, code) => (Verdict::Fail, format!("exited with code {code}")),
        WaitStatus::Signaled(_, signal, _) => {
            (Verdict::Fail, format!("killed by {}", text::signal(signal as i32)))
        }
        other => (Verdict::Unknown, format!("ended as {other:?}")),
    };
    let sentence = match words::last_line(&output) {
        Some(line) if verdict != Verdict::Pass => format!("{how}: {line}"),
        Some(_) | None => how,
    };
    Finding::new(verdict, sentence).with_output(output)
}

async fn run(mut command: Command) -> io::Result<(WaitStatus, Vec<u8>)> {
    let output = readable(command.output.try_clone()?)?;
    let ended = readable(command.pidfd.as_fd().try_clone_to_owned()?)?;
    let mut kept = Vec::new();
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            ready = output.readable(), if is_open => {
                ready?.clear_ready();
                is_open = drain(&output, &mut kept)?;
            }
            ready = ended.readable() => {
                ready?.clear_ready();
                break;
            }
        }
    }
    if is_open {
        drain(&output, &mut kept)?;
    }
    Ok((command.finish()?, kept))
}

/// Reads what is there and keeps the beginning; `false` means that there will be no more.
fn drain(output: &AsyncFd<OwnedFd>, kept: &mut Vec<u8>) -> io::Result<bool> {
    let mut file = std::fs::File::from(output.get_ref().try_clone()?);
    let mut buffer = [0; MAX_OUTPUT_BYTES];
    // A command that prints without end is not read for ever in one go.
    for _ in 0..16 {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(bytes) => {
                let room = MAX_OUTPUT_BYTES - kept.len();
                kept.extend_from_slice(&buffer[..bytes.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Room was made, so a command that has more writes it, and that is told again.
    Ok(true)
}

impl Command {
    /// Takes over a command that has just been started; `output` must not block.
    pub fn new(pid: u32, pidfd: PidFd, output: OwnedFd, cgroup: Option<Leaf>) -> Self {
        Self { pid, pidfd, output, cgroup, is_reaped: false }
    }

    /// Takes the status of a command that has ended; what it has left behind is killed.
    fn finish(&mut self) -> io::Result<WaitStatus> {
        // Before its status is taken, or its group might be somebody else's by now.
        self.kill();
        let status = reap(&self.pidfd)?;
        self.is_reaped = true;
        Ok(status)
    }

    /// Kills the main process, its group and its control group.
    fn kill(&self) {
        // What is gone already is what is wanted.
        let _ = signal_group(self.pidfd.as_fd(), self.pid, libc::SIGKILL);
        if let Some(leaf) = &self.cgroup {
            let _ = leaf.kill();
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if self.is_reaped {
            return remove(self.cgroup.as_ref());
        }
        self.kill();
        let leaf = self.cgroup.take();
        let Ok(pidfd) = self.pidfd.as_fd().try_clone_to_owned().map(PidFd::from_owned) else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            // Nobody there waits for it.
            Ok(runtime) => drop(runtime.spawn_blocking(move || bury(&pidfd, leaf.as_ref()))),
            // The thread that starts programs must not wait for one that is stuck in the kernel.
            Err(_no_runtime) => {
                let _ = std::thread::Builder::new()
                    .name("mend-bury".to_owned())
                    .stack_size(64 * 1024)
                    .spawn(move || bury(&pidfd, leaf.as_ref()));
            }
        }
    }
}

/// Takes the status of a command that was killed.
fn bury(pidfd: &PidFd, leaf: Option<&Leaf>) {
    let _ = reap(pidfd);
    remove(leaf);
}

fn reap(pidfd: &PidFd) -> io::Result<WaitStatus> {
    loop {
        match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::__WALL) {
            Err(nix::errno::Errno::EINTR) => {}
            status => return Ok(status?),
        }
    }
}

fn remove(leaf: Option<&Leaf>) {
    if let Some(leaf) = leaf {
        // A process that is dying keeps it for a moment; then it stays, empty.
        let _ = leaf.remove();
    }
}
