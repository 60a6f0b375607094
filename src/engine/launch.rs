//! The spawner: one thread that brings runs to life, so that an `execve` on a slow disk does
//! not hold up the loop.
//!
//! One thread, because the descriptors that a spawn reserves are one set per process: an
//! executable or an environment file on a file system that hangs keeps other *starts* waiting
//! until it answers. Everything else goes on, what is queued is started then, in order.
//!
//! The order of steps is what makes a SIGKILL at any moment harmless: FIFOs and the locked record
//! exist, and the keeper holds the read ends, before the child is cloned; the child completes the
//! record before it executes.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, mkfifo};
use tokio::sync::mpsc::UnboundedSender;

use super::commands::Order;
use super::environment::{self, Environment};
use super::extra::Extra;
use super::keeper_link::KeeperSender;
use crate::capture::Channel;
use crate::config::{Program, Sink, Stdin};
use crate::core::SpawnFailure;
use crate::core::care::evidence::ExecFailure;
use crate::keeper::wire::ToKeeper;
use crate::name::{ProcessName, RunId};
use crate::os::cgroup::Cgroups;
use crate::os::explain::{Stage, explain_exec};
use crate::os::pidfd::PidFd;
use crate::os::spawn::{Parent, Plan, SpawnError, Spawner};
use crate::os::{limits, notify_socket, process};
use crate::probe::evidence::exec_failure;
use crate::store::runs::{RunFiles, RunHeader};

/// Pipe size for root, who is exempt from the per-user limit; see pipe(7).
const PIPE_BYTES_ROOT: i32 = 1 << 20;

/// Pipe size for others: 256 of them fit into the default `pipe-user-pages-soft`.
const PIPE_BYTES_USER: i32 = 256 << 10;

/// What the spawner is asked to bring to life.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) run: RunId,
    pub(super) process: ProcessName,
    pub(super) program: Arc<Program>,
    /// What is removed before, as nothing of the run before lives any more.
    pub(super) stale_files: Vec<PathBuf>,
}

impl Job {
    pub(super) fn new(run: RunId, process: ProcessName, program: Arc<Program>) -> Self {
        Self { run, process, program, stale_files: Vec::new() }
    }
}

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Task {
    Start(Job),
    Command(Order),
}

/// What came of a [`Job`].
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) run: RunId,
    pub(super) process: ProcessName,
    pub(super) result: Result<Born, SpawnFailure>,
    /// Why the program could not be executed, if that was it.
    pub(super) exec: Option<ExecFailure>,
}

/// Why a run did not come to life.
struct Unborn {
    failure: SpawnFailure,
    exec: Option<ExecFailure>,
}

impl From<SpawnFailure> for Unborn {
    fn from(failure: SpawnFailure) -> Self {
        Self { failure, exec: None }
    }
}

/// A run that executes its program.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) pid: u32,
    pub(super) pidfd: PidFd,
    /// The read ends of its output.
    pub(super) pipes: Vec<(Channel, OwnedFd)>,
    pub(super) extras: Vec<(Extra, OwnedFd)>,
    pub(super) cgroup: Option<PathBuf>,
    /// What could not be done although the run is worth having without it.
    pub(super) warnings: Vec<String>,
}

/// What every launch needs and none changes.
pub(super) struct Workshop {
    pub(super) files: RunFiles,
    pub(super) keeper: KeeperSender,
    pub(super) cgroups: Option<Arc<Cgroups>>,
    /// Distinguishes the runs of this daemon from those of another on the machine.
    pub(super) instance: String,
    /// `RLIMIT_NOFILE` as the daemon found it.
    pub(super) nofile: (u64, u64),
    /// How many commands were started, for the names of their control groups.
    pub(super) commands: u64,
}

/// The way to the spawner.
#[derive(Debug)]
pub(super) struct Jobs {
    sender: Option<Arc<Sender<Task>>>,
    /// What the thread has not begun with.
    waiting: Receiver<Task>,
}

impl Jobs {
    /// Hands a job in; returns whether the thread is there to do it.
    pub(super) fn send(&self, job: Job) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.send(Task::Start(job)).is_ok())
    }

    /// Returns a way to the thread that does not keep it from ending.
    pub(super) fn door(&self) -> Weak<Sender<Task>> {
        self.sender.as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    /// Ends the thread after the job that is under way; the others never begin.
    pub(super) fn close(&mut self) {
        self.sender = None;
        while self.waiting.try_recv().is_ok() {}
    }
}

/// Starts the thread; it ends when what is returned is closed or dropped.
pub(super) fn start(
    mut spawner: Spawner,
    mut workshop: Workshop,
    done: UnboundedSender<Launched>,
) -> io::Result<Jobs> {
    let (sender, receiver): (Sender<Task>, Receiver<Task>) = unbounded();
    let jobs = Jobs { sender: Some(Arc::new(sender)), waiting: receiver.clone() };
    thread::Builder::new().name("mend-spawn".into()).stack_size(256 * 1024).spawn(move || {
        process::block_all_signals();
        for task in receiver {
            let job = match task {
                Task::Start(job) => job,
                Task::Command(order) => {
                    workshop.serve(&mut spawner, order);
                    continue;
                }
            };
            let (result, exec) = match workshop.launch(&mut spawner, &job) {
                Ok(born) => (Ok(born), None),
                Err(Unborn { failure, exec }) => (Err(failure), exec),
            };
            let launched = Launched { run: job.run, process: job.process, result, exec };
            if done.send(launched).is_err() {
                return;
            }
        }
    })?;
    Ok(jobs)
}

/// The ends of a run's output.
struct Output {
    pipes: Vec<(Channel, OwnedFd)>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Workshop {
    fn launch(&self, spawner: &mut Spawner, job: &Job) -> Result<Born, Unborn> {
        let result = self.try_launch(spawner, job);
        if result.is_err() {
            // The run never existed: nobody may find traces of it.
            for run in [job.run, Extra::Notify.key(job.run), Extra::Ready.key(job.run)] {
                let _ = self.keeper.send(&ToKeeper::Drop { run }, &[]);
            }
            self.files.remove(job.run);
            if let Some(cgroups) = &self.cgroups
                && let Ok(leaf) = cgroups.leaf(&leaf_name(job))
            {
                let _ = leaf.remove();
            }
        }
        result
    }

    fn try_launch(&self, spawner: &mut Spawner, job: &Job) -> Result<Born, Unborn> {
        let spawn = &job.program.spawn;
        let mut environment = environment::build(job, &self.instance)?;
        let path = environment::find_executable(&spawn.argv[0], &environment, spawn)
            .map_err(|failure| not_found(failure, &spawn.argv[0], &environment))?;
        let mut warnings = remove_stale(&job.stale_files);
        if self.files.ensure().map_err(|e| failure("cannot make the run's directory", &e))? {
            warnings.push(
                "the runtime directory was deleted; what ran before would not be found after a \
                 crash: restart the daemon when it suits"
                    .into(),
            );
        }
        let leaf = self.cgroups.as_ref().and_then(|cgroups| {
            let made = cgroups.leaf(&leaf_name(job));
            made.inspect_err(|error| {
                warnings.push(format!("runs without a control group of its own: {error}"));
            })
            .ok()
        });
        let limits_wanted = &spawn.limits;
        match &leaf {
            Some(leaf) => warnings.extend(leaf.set_limits(limits_wanted)),
            None if limits::need_cgroup(limits_wanted) => warnings.push(
                "limits on memory, cpu and tasks need cgroup v2, which is not available".into(),
            ),
            None => {}
        }
        let output = self.make_output(job)?;
        let stdin = open_stdin(&spawn.stdin)?;
        let ears = self.make_ears(job, &mut environment)?;
        let record = self
            .files
            .create_record(
                job.run,
                &RunHeader {
                    process: job.process.to_string(),
                    cgroup: leaf.as_ref().map(|leaf| leaf.path().to_path_buf()),
                    merged: job.program.logs.merge_stderr,
                    notify: ears.name.clone(),
                    spawn_hash: hash_of(spawn),
                },
            )
            .map_err(|error| failure("cannot write the run's record", &error))?;
        let (limits, clamped) = limits::rlimits(limits_wanted, self.nofile);
        warnings.extend(clamped);
        let plan = Plan {
            path: c_string(path.as_os_str().as_encoded_bytes())?,
            argv: c_strings(spawn.argv.iter().map(String::as_str))?,
            envp: environment.to_c_strings()?,
            stdin: stdin.as_fd(),
            stdout: output.stdout.as_fd(),
            stderr: output.stderr.as_fd(),
            record: Some(record.as_fd()),
            cgroup: leaf.as_ref().map(crate::os::cgroup::Leaf::fd),
            directory: spawn
                .directory
                .as_ref()
                .map(|path| c_string(path.as_os_str().as_encoded_bytes()))
                .transpose()?,
            umask: spawn.umask,
            nice: spawn.nice,
            oom_score_adj: oom_score(spawn.oom_score_adj)?,
            limits,
            identity: spawn.user.as_ref().map(|user| (user.groups.clone(), user.gid, user.uid)),
            no_new_privs: spawn.no_new_privs,
            extra: ears.given.as_ref().map(AsFd::as_fd).zip(spawn.ready_fd),
            watchdog_pid: spawn.watchdog.is_some(),
            parent: Parent::Keeper,
        };
        let spawned = spawner.spawn(&plan).map_err(|SpawnError { errno, stage }| Unborn {
            failure: explain_exec(errno, stage, &path, spawn),
            exec: (stage == Stage::Exec).then(|| exec_failure(errno, &path)),
        })?;
        for (stage, error) in &spawned.refused {
            warnings.push(refusal(*stage, error, spawn));
        }
        let born = ToKeeper::Born { run: job.run, pid: spawned.pid };
        // A keeper that is gone is noticed by the engine; the record on disk knows the run.
        let _ = self.keeper.send(&born, &[spawned.pidfd.as_raw_fd()]);
        Ok(Born {
            pid: spawned.pid,
            pidfd: PidFd::from_owned(spawned.pidfd),
            pipes: output.pipes,
            extras: ears.extras,
            cgroup: leaf.map(|leaf| leaf.path().to_path_buf()),
            warnings,
        })
    }

    /// Makes the FIFOs and lets the keeper hold their read ends.
    fn make_output(&self, job: &Job) -> Result<Output, SpawnFailure> {
        if job.program.logs.sink == Sink::None {
            let null = open_null().map_err(|error| failure("cannot open /dev/null", &error))?;
            let stderr =
                null.try_clone().map_err(|error| failure("cannot open /dev/null", &error))?;
            return Ok(Output { pipes: Vec::new(), stdout: null, stderr });
        }
        let owner = job.program.spawn.user.as_ref().map(|user| (user.uid, user.gid));
        let make = |path: &Path| {
            make_fifo(path, owner, Some(output_pipe_bytes())).map_err(|error| {
                failure(&format!("cannot make the output pipe `{}`", path.display()), &error)
            })
        };
        let (read, stdout) = make(&self.files.stdout(job.run))?;
        let mut pipes = vec![(Channel::Stdout, read)];
        let stderr = if job.program.logs.merge_stderr {
            // A second open file description: O_NONBLOCK on one must not hit the other.
            open_fifo(&self.files.stdout(job.run), OFlag::O_RDWR)
                .map_err(|error| failure("cannot open the output pipe", &error))?
        } else {
            let (read, stderr) = make(&self.files.stderr(job.run))?;
            pipes.push((Channel::Stderr, read));
            stderr
        };
        let fds: Vec<_> = pipes.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        let _ = self.keeper.send(&ToKeeper::Hold { run: job.run }, &fds);
        Ok(Output { pipes, stdout, stderr })
    }
}

/// What a run is listened to through, and its own ends of that.
#[derive(Default)]
struct OwnEars {
    extras: Vec<(Extra, OwnedFd)>,
    /// The name of its notification socket.
    name: Option<String>,
    /// The end of its readiness pipe that it is given.
    given: Option<OwnedFd>,
}

impl Workshop {
    /// Makes what the run says of itself through, and lets the keeper hold our ends.
    fn make_ears(&self, job: &Job, environment: &mut Environment) -> Result<OwnEars, SpawnFailure> {
        let spawn = &job.program.spawn;
        let mut ears = OwnEars::default();
        if spawn.notify {
            // Nobody can take the name before, as nobody can guess it.
            let chance = fastrand::u64(..);
            let name = format!("mend/{}/{}/{chance:016x}", self.instance, job.run);
            let socket = notify_socket::open(&name)
                .map_err(|error| failure("cannot make the notification socket", &error))?;
            environment.set("NOTIFY_SOCKET", &format!("@{name}"));
            ears.extras.push((Extra::Notify, socket));
            ears.name = Some(name);
        }
        if let Some(watchdog) = spawn.watchdog {
            environment.set("WATCHDOG_USEC", &watchdog.as_micros().to_string());
        }
        if spawn.ready_fd.is_some() {
            let path = self.files.ready(job.run);
            let owner = spawn.user.as_ref().map(|user| (user.uid, user.gid));
            let (read, write) = make_fifo(&path, owner, None).map_err(|error| {
                failure(&format!("cannot make the readiness pipe `{}`", path.display()), &error)
            })?;
            ears.extras.push((Extra::Ready, read));
            ears.given = Some(write);
        }
        for (extra, fd) in &ears.extras {
            let message = ToKeeper::Hold { run: extra.key(job.run) };
            let _ = self.keeper.send(&message, &[fd.as_raw_fd()]);
        }
        Ok(ears)
    }
}

/// Tells one way of spawning from another, within one version of the daemon.
fn hash_of(spawn: &crate::config::Spawn) -> u64 {
    u64::from(crc32fast::hash(format!("{spawn:?}").as_bytes()))
}

pub(super) fn leaf_name(job: &Job) -> String {
    format!("{}.{}", job.process, job.run)
}

/// Says whether a command that cannot be found is there, and may only not be executed.
fn not_found(failure: SpawnFailure, command: &str, environment: &Environment) -> Unborn {
    let search = environment.path();
    let is_there = search.split(':').any(|place| Path::new(place).join(command).exists());
    let errno = if is_there { libc::EACCES } else { libc::ENOENT };
    Unborn { failure, exec: Some(exec_failure(errno, Path::new(command))) }
}

/// Removes files and sockets that the run before has left; returns what could not be removed.
fn remove_stale(files: &[PathBuf]) -> Vec<String> {
    let remove = |path: &PathBuf| match std::fs::remove_file(path) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("cannot remove the stale `{}`: {error}", path.display())),
    };
    files.iter().filter_map(remove).collect()
}

fn failure(what: &str, error: &io::Error) -> SpawnFailure {
    SpawnFailure { message: format!("{what}: {error}"), transient: true }
}

pub(super) fn c_string(bytes: &[u8]) -> Result<CString, SpawnFailure> {
    CString::new(bytes).map_err(|_| SpawnFailure {
        message: "the command or its environment contains a NUL byte".into(),
        transient: false,
    })
}

pub(super) fn c_strings<'a>(
    texts: impl Iterator<Item = &'a str>,
) -> Result<Vec<CString>, SpawnFailure> {
    texts.map(|text| c_string(text.as_bytes())).collect()
}

/// Returns the text for `/proc/self/oom_score_adj`, `None` when the daemon has that score.
fn oom_score(wanted: i32) -> Result<Option<CString>, SpawnFailure> {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if own.trim().parse() == Ok(wanted) {
        return Ok(None);
    }
    c_string(wanted.to_string().as_bytes()).map(Some)
}

fn refusal(stage: Stage, error: &io::Error, spawn: &crate::config::Spawn) -> String {
    let wish = if stage == Stage::Nice {
        format!("nice = {}", spawn.nice.unwrap_or(0))
    } else {
        format!("oom_score_adj = {}", spawn.oom_score_adj)
    };
    format!("`{wish}` could not be set: {error}")
}

pub(super) fn open_null() -> io::Result<OwnedFd> {
    File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from)
}

fn open_stdin(stdin: &Stdin) -> Result<OwnedFd, SpawnFailure> {
    let (opened, path) = match stdin {
        Stdin::Null => (open_null(), Path::new("/dev/null")),
        Stdin::File(path) => (open_for_reading(path), path.as_path()),
    };
    opened.map_err(|error| SpawnFailure {
        message: format!("cannot open `{}` for standard input: {error}", path.display()),
        transient: false,
    })
}

/// Opens without waiting for the writer of a FIFO, which would keep every other start waiting;
/// the program itself then reads as usual.
fn open_for_reading(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file.into())
}

fn open_fifo(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    open(path, flags | OFlag::O_CLOEXEC, Mode::empty()).map_err(io::Error::from)
}

/// Makes a FIFO and opens it: the read end for us, `O_RDWR` for the child, so that the child
/// never meets SIGPIPE, whoever is gone; see facts on FIFOs in fifo(7).
fn make_fifo(
    path: &Path,
    owner: Option<(u32, u32)>,
    bytes: Option<i32>,
) -> io::Result<(OwnedFd, OwnedFd)> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    if let Some((uid, gid)) = owner {
        // `/dev/stdout` of the child opens the FIFO by path, as the child's user.
        chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    let read = open_fifo(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    let write = open_fifo(path, OFlag::O_RDWR)?;
    if let Some(bytes) = bytes {
        // A smaller pipe only means that a busy child waits sooner while we are away.
        let _ = fcntl(&read, FcntlArg::F_SETPIPE_SZ(bytes));
    }
    Ok((read, write))
}

fn output_pipe_bytes() -> i32 {
    let root = process::effective_uid() == 0;
    if root { PIPE_BYTES_ROOT } else { PIPE_BYTES_USER }
}
