//! Commands that are run on a program's behalf, as its user and in its surroundings: probes.
//!
//! The spawner's thread brings them to life between the runs, as children of the brain.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Weak;

use crossbeam_channel::Sender;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::oneshot;

use super::environment;
use super::launch::{Job, Task, Workshop, c_string, c_strings, leaf_name, open_null};
use crate::core::SpawnFailure;
use crate::os::cgroup::{Cgroups, Leaf};
use crate::os::explain::explain_exec;
use crate::os::limits;
use crate::os::pidfd::PidFd;
use crate::os::spawn::{Parent, Plan, SpawnError, Spawner};
use crate::probe::{Command, Commands};

/// In the name of every control group of a command, and of no run: no name has a `+`.
const COMMAND_MARK: &str = "+command-";

/// The mark as it is in the name of a directory.
const COMMAND_MARK_ESCAPED: &str = "%2bcommand-";

/// One command that is wanted.
#[derive(Debug)]
pub(super) struct Order {
    /// Whose surroundings it gets.
    of: Job,
    argv: Vec<String>,
    /// Beside that: what is set, and what is not.
    variables: Vec<(String, Option<String>)>,
    reply: oneshot::Sender<Result<Command, String>>,
}

/// Runs commands in the surroundings of one run.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) of: Job,
    pub(super) door: Weak<Sender<Task>>,
    /// What the environment has beside that of the run, or has not.
    pub(super) variables: Vec<(String, Option<String>)>,
}

impl Commands for Surroundings {
    fn launch(&self, argv: &[String]) -> oneshot::Receiver<Result<Command, String>> {
        let (reply, answer) = oneshot::channel();
        if let Some(door) = self.door.upgrade() {
            // A thread that has died answers by dropping the order.
            let order = Order {
                of: self.of.clone(),
                argv: argv.to_vec(),
                variables: self.variables.clone(),
                reply,
            };
            let _ = door.send(Task::Command(order));
        }
        answer
    }
}

impl Workshop {
    /// Starts a command, unless nobody waits for it any more.
    pub(super) fn serve(&mut self, spawner: &mut Spawner, order: Order) {
        if order.reply.is_closed() {
            return;
        }
        let result = self.command(spawner, &order).map_err(|failure| failure.message);
        // A command that nobody waits for any more is killed when its answer is dropped.
        let _ = order.reply.send(result);
    }

    fn command(&mut self, spawner: &mut Spawner, order: &Order) -> Result<Command, SpawnFailure> {
        let failure = |what: &str, error: std::io::Error| SpawnFailure {
            message: format!("{what}: {error}"),
            transient: true,
        };
        let spawn = &order.of.program.spawn;
        let mut environment = environment::build(&order.of, &self.instance)?;
        for (name, value) in &order.variables {
            match value {
                Some(value) => environment.set(name, value),
                None => environment.unset(name),
            }
        }
        let path = environment::find_executable(&order.argv[0], &environment, spawn)?;
        self.commands += 1;
        let name = format!("{}{COMMAND_MARK}{}", leaf_name(&order.of), self.commands);
        // Without a group of its own its session must do.
        let leaf = self.cgroups.as_ref().and_then(|cgroups| cgroups.leaf(&name).ok());
        let null = open_null().map_err(|error| failure("cannot open /dev/null", error))?;
        let (output, given) = pipe().map_err(|error| failure("cannot make a pipe", error))?;
        let (limits, _) = limits::rlimits(&spawn.limits, self.nofile);
        let plan = Plan {
            path: c_string(path.as_os_str().as_encoded_bytes())?,
            argv: c_strings(order.argv.iter().map(String::as_str))?,
            envp: environment.to_c_strings()?,
            stdin: null.as_fd(),
            stdout: given.as_fd(),
            stderr: given.as_fd(),
            record: None,
            cgroup: leaf.as_ref().map(Leaf::fd),
            directory: spawn
                .directory
                .as_ref()
                .map(|path| c_string(path.as_os_str().as_encoded_bytes()))
                .transpose()?,
            umask: spawn.umask,
            nice: None,
            oom_score_adj: None,
            limits,
            identity: spawn.user.as_ref().map(|user| (user.groups.clone(), user.gid, user.uid)),
            no_new_privs: spawn.no_new_privs,
            extra: None,
            watchdog_pid: false,
            parent: Parent::Own,
        };
        let spawned = spawner.spawn(&plan).map_err(|SpawnError { errno, stage }| {
            if let Some(leaf) = &leaf {
                let _ = leaf.remove();
            }
            explain_exec(errno, stage, &path, spawn)
        })?;
        let pidfd = PidFd::from_owned(spawned.pidfd);
        Ok(Command::new(spawned.pid, pidfd, output, leaf))
    }
}

/// Kills what commands of an earlier brain have left: they had no time to be killed with it.
pub(super) fn clear_left_over(cgroups: &Cgroups) {
    for path in cgroups.existing_leaves().into_iter().filter(|path| is_command(path)) {
        if let Ok(leaf) = Leaf::reopen(&path) {
            let _ = leaf.kill();
            let _ = leaf.remove();
        }
    }
}

/// Whether a control group is that of a command.
fn is_command(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(COMMAND_MARK_ESCAPED))
}

/// Makes a pipe of which our end, the first, does not block.
fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_called_like_a_command_is_not_taken_for_one() {
        let leaf = |name: &str| Path::new("/sys/fs/cgroup/mend").join(name);
        assert!(is_command(&leaf("web.7%2bcommand-1")));
        for name in ["web.command-worker.7", "command-1.7", "web.7", "a.command-.1"] {
            assert!(!is_command(&leaf(name)), "{name}");
        }
        let named: Result<crate::name::ProgramName, _> = "web+command-1".parse();
        assert!(named.is_err(), "a name may contain the mark");
    }
}
