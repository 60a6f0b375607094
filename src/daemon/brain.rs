//! The brain's life: find what is there, serve, end or hand over.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::control_socket::ControlSocket;
use super::logs::LogFiles;
use super::options::Options;
use crate::api::{self, ApiSettings, BindError, Caps, SharedAccess};
use crate::config::{Config, Loaded, Supervisor};
use crate::engine::active::Remembered;
use crate::engine::{self, Held, LastGood, Papers, Setup};
use crate::keeper::arguments::BrainArguments;
use crate::keeper::{BRAIN_LOCK, is_other_brain_there, sign_lock, wait_for_brain_lock};
use crate::os::peer::peer_credentials;
use crate::os::spawn::Spawner;
use crate::os::{clock, memory, process};

/// How long a killed brain's control socket may be there still.
const DEATH_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two looks at it.
const DEATH_PAUSE: Duration = Duration::from_millis(2);

/// Why the brain could not begin to serve.
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failure, error: error.into() }
    }
}

/// Runs a brain until the daemon ends or its keeper is lost.
pub(super) fn run(arguments: BrainArguments) -> Result<ExitCode, Failure> {
    process::set_name(c"mend-brain");
    // First of all, while the low descriptor numbers are free.
    let spawner = Spawner::new().context("cannot prepare to spawn")?;
    let socket = process::adopt_fd(arguments.socket).context("cannot talk to the keeper")?;
    let options = Options::from_words(arguments.options.clone())?;
    let keeper = socket.try_clone().context("cannot watch the keeper")?;
    let keeper_pid = peer_credentials(&keeper).context("cannot tell who the keeper is")?.pid;
    let keeper_pid = u32::try_from(keeper_pid).unwrap_or(0);
    let words = keeper_words(&arguments);
    let runtime_dir = arguments.runtime_dir.clone();
    process::reserve_descriptors(engine::descriptors_to_adopt(&runtime_dir));
    let (reader, allow) = read_past(&runtime_dir).context("cannot read what was active")?;
    // Before anything that takes time: the keeper lets an orphaned brain go when this one has all
    // that it holds.
    let mut held = Held::receive(socket.as_fd()).context("cannot talk to the keeper")?;
    if !held.is_complete() && is_other_brain_there(&runtime_dir) {
        // It was not let go, and has what did not come.
        engine::replace_keeper(&words, keeper_pid);
        return Err(anyhow::anyhow!("the keeper was killed before it could tell its runs").into());
    }
    let mut lock = take_brain_lock(&runtime_dir, keeper.as_fd(), keeper_pid, &mut held)?;
    // A daemon that starts may have to clear what was before a reboot, and is in no hurry.
    if !arguments.cold {
        let _ = allow.send(());
    }
    drop(allow);
    held.read_records(&runtime_dir);
    let (active, papers) = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let papers = papers.transpose()?;
    // Not before: two threads that allocate all the time would wait for each other.
    memory::share_one_heap();
    let mut held = Some(held);
    let ended = live(spawner, socket, &mut held, arguments, options, (active, papers), &mut lock);
    if let Err(failure) = &ended
        && process::is_hung_up(keeper.as_fd())
    {
        eprintln!("mend-brain: the keeper was killed during the takeover: {:#}", failure.error);
        match held {
            // What it has sent goes on to the next one; the rest is found on disk.
            Some(held) => runtime()?.block_on(held.hand_on(&words, keeper_pid)),
            None => engine::replace_keeper(&words, keeper_pid),
        }
    }
    drop(lock);
    ended
}

/// What the brain before was about: the active configuration, and its papers.
type Past = (Option<Remembered>, Option<std::io::Result<Papers>>);

/// Reads what was active when the brain before died, beside everything else that this one begins
/// with: of all that it does before it serves, reading a long configuration takes longest. The
/// papers follow when that is allowed, because whoever reads them must have the brain's lock.
///
/// Only a brain that serves changes the active configuration, and while this one starts none does.
fn read_past(runtime_dir: &Path) -> std::io::Result<(JoinHandle<Past>, Sender<()>)> {
    let runtime_dir = runtime_dir.to_owned();
    let (allow, allowed) = channel();
    let reader = std::thread::Builder::new().name("mend-config".to_owned()).spawn(move || {
        let active = engine::active::load(&runtime_dir);
        let papers = allowed.recv().is_ok().then(|| Papers::read(&runtime_dir));
        (active, papers)
    })?;
    Ok((reader, allow))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .thread_stack_size(512 * 1024)
        .build()
        .context("cannot start the runtime")
}

fn live(
    spawner: Spawner,
    socket: OwnedFd,
    held: &mut Option<Held>,
    arguments: BrainArguments,
    options: Options,
    (active, papers): (Option<Remembered>, Option<Papers>),
    lock: &mut File,
) -> Result<ExitCode, Failure> {
    let path = options.config_path();
    let fresh = || crate::config::load(&path, &super::launcher::variable);
    let beginning = choose(fresh, active, arguments.cold)?;
    // Reading a configuration takes several times the memory of what comes out of it.
    memory::give_back();
    // Before there are other threads.
    let config = &beginning.remembered.loaded.config;
    process::reserve_descriptors(engine::descriptors_to_start(config));
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(
        spawner,
        socket,
        held,
        arguments,
        options,
        (beginning, papers),
        lock,
    ));
    // A configuration file on a file system that hangs must not hold up the end.
    runtime.shutdown_background();
    ended
}

/// Takes the lock that exactly one brain has; an orphaned one may still be finishing.
fn take_brain_lock(
    runtime_dir: &Path,
    keeper: BorrowedFd<'_>,
    keeper_pid: u32,
    held: &mut Held,
) -> Result<File, Failure> {
    let path = runtime_dir.join(BRAIN_LOCK);
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open `{}`", path.display()))?;
    let relieve = || held.relieve_other(runtime_dir);
    wait_for_brain_lock(runtime_dir, &lock, keeper, keeper_pid, relieve)
        .with_context(|| format!("cannot lock `{}`", path.display()))?;
    sign_lock(&mut lock)?;
    Ok(lock)
}

/// The configuration to begin with, and what follows.
struct Beginning {
    remembered: Remembered,
    /// What is applied right after.
    newer: Option<Loaded>,
    /// Why it is not what the files hold.
    instead: Option<String>,
}

/// Chooses the configuration to begin with, and the one to apply right after.
///
/// A brain that comes back goes on with what was active, and with the apply that was under way:
/// edits wait to be applied. A daemon that is started applies the file, after it has taken over
/// under the old configuration, unless the file is still what an apply has given up. The file is
/// read only where it counts.
fn choose(
    fresh: impl FnOnce() -> Result<Loaded, crate::config::Report>,
    active: Option<Remembered>,
    cold: bool,
) -> Result<Beginning, Failure> {
    let good =
        |fresh: &Loaded| engine::last_good(&fresh.config.supervisor.state_dir, &fresh.sources);
    match active {
        Some(remembered) if cold && remembered.apply.is_none() => {
            let fresh = fresh().ok();
            let instead = fresh.as_ref().and_then(good).map(|good| good.text);
            // What has been running is as good as any.
            let newer = fresh.filter(|_| instead.is_none());
            Ok(Beginning { remembered, newer, instead })
        }
        Some(remembered) => Ok(Beginning { remembered, newer: None, instead: None }),
        None => {
            let fresh = fresh().map_err(|report| Failure {
                exit: Exit::Configuration,
                error: anyhow::anyhow!("{}", report.render(false)),
            })?;
            let (loaded, instead) = match good(&fresh) {
                Some(LastGood { loaded, text }) => (loaded.unwrap_or(fresh), Some(text)),
                None => (fresh, None),
            };
            let remembered = Remembered { loaded, replaced: BTreeMap::new(), apply: None };
            Ok(Beginning { remembered, newer: None, instead })
        }
    }
}

async fn serve(
    spawner: Spawner,
    socket: OwnedFd,
    held: &mut Option<Held>,
    arguments: BrainArguments,
    options: Options,
    (beginning, papers): (Beginning, Option<Papers>),
    lock: &mut File,
) -> Result<ExitCode, Failure> {
    let Beginning { remembered: Remembered { loaded, replaced, apply }, newer, instead } =
        beginning;
    let access = SharedAccess::new(loaded.config.supervisor.access.clone());
    let (looks, asked) = unbounded_channel();
    let on_reload = {
        let (access, looks) = (access.clone(), looks.clone());
        let socket = loaded.config.supervisor.socket.clone();
        move |config: &Config| {
            access.set(config.supervisor.access.clone());
            let _ = looks.send(());
            if let Err(error) = api::admit(&socket, &config.supervisor.access)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "the control socket's mode could not be changed");
            }
        }
    };
    let mut log = loaded.config.supervisor.log.clone();
    if let Some(level) = &options.log_level {
        log.level.clone_from(level);
    }
    if let Some(format) = options.log_format {
        log.format = format;
    }
    let setup = Setup {
        runtime_dir: arguments.runtime_dir.clone(),
        config_path: options.config_path(),
        papers,
        loaded,
        replaced,
        apply,
        newer,
        instead,
        log,
        nofile: arguments.nofile,
        cold: arguments.cold,
        exit_when: options.exit_when.clone(),
        on_reload: Box::new(on_reload),
    };
    // Before anything is started: a daemon that nobody could control should not begin.
    let supervisor = &setup.loaded.config.supervisor;
    let listener = match bind_after_another(supervisor).await {
        Ok(listener) => Some(listener),
        Err(error) if !engine::has_runs(&arguments.runtime_dir) => {
            return Err(Failure { exit: Exit::CannotCreate, error: error.into() });
        }
        Err(error) => {
            eprintln!("mend-brain: {error}; the programs are supervised without it");
            None
        }
    };
    let nothing = Held::default();
    let found = held.as_ref().unwrap_or(&nothing);
    let (mut brain, handle) = engine::Brain::start(spawner, socket, found, setup)?;
    // When this process is killed, the kernel gives up what it had open from the highest number
    // down, and takes tens of milliseconds for the watches on files. So the next brain gets what
    // it waits for first: what the engine has made last, the socket to the keeper, and these. All
    // lower numbers are taken while the keeper's list is there.
    let given_up_first = (lock.try_clone(), listener.as_ref().map(UnixListener::try_clone));
    // Every run is in the brain's own hands from here on.
    *held = None;
    let config = brain.config();
    let settings = ApiSettings {
        access,
        own_uid: process::effective_uid(),
        version: env!("CARGO_PKG_VERSION"),
        brain_pid: std::process::id(),
        keeper_pid: std::os::unix::process::parent_id(),
        logs: Arc::new(LogFiles { followers: brain.followers() }),
        history: brain.history(),
        clock: || (clock::now(), clock::wall()),
        log_level: brain.log_level(),
        caps: Caps::default(),
    };
    let stop = CancellationToken::new();
    let (fresh, listeners) = unbounded_channel();
    let socket_path = config.supervisor.socket.clone();
    let socket =
        ControlSocket::new(socket_path, settings.access.clone(), listener.is_some(), looks, fresh);
    tokio::spawn(socket.keep(asked, stop.clone()));
    let server = tokio::spawn(serve_api(listener, listeners, handle, settings, stop.clone()));
    let ended = brain.run().await;
    drop(given_up_first);
    // Answers under way go out before the process ends.
    stop.cancel();
    let _ = server.await;
    let socket_path = brain.config().supervisor.socket.clone();
    match ended {
        engine::Ended::Finished(code) => {
            let _ = std::fs::remove_file(socket_path);
            brain.say_goodbye(code);
            Ok(ExitCode::SUCCESS)
        }
        engine::Ended::Replaced => {
            brain.stand_by(&keeper_words(&arguments), lock).await;
            Ok(ExitCode::SUCCESS)
        }
        engine::Ended::KeeperLost => {
            brain.find_keeper(&keeper_words(&arguments)).await;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Makes the control socket; the kernel may still be closing that of a brain that was killed.
async fn bind_after_another(supervisor: &Supervisor) -> Result<UnixListener, BindError> {
    let deadline = tokio::time::Instant::now() + DEATH_PATIENCE;
    loop {
        match api::bind(&supervisor.socket, &supervisor.access) {
            Err(BindError::Live { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(DEATH_PAUSE).await;
            }
            bound => return bound,
        }
    }
}

/// Serves the control API, if need be as soon as its socket can be made.
async fn serve_api(
    listener: Option<UnixListener>,
    mut fresh: UnboundedReceiver<UnixListener>,
    handle: engine::Handle,
    settings: ApiSettings,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = match listener {
        Some(listener) => listener,
        None => tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(listener) = fresh.recv() => listener,
        },
    };
    api::serve(listener, fresh, handle, settings, stop).await
}

/// What a keeper that this brain starts is told.
fn keeper_words(arguments: &BrainArguments) -> crate::keeper::arguments::KeeperArguments {
    crate::keeper::arguments::KeeperArguments {
        runtime_dir: arguments.runtime_dir.clone(),
        lock: -1,
        nofile: arguments.nofile,
        table: None,
        brain: None,
        rehearsal: false,
        handover: None,
        options: arguments.options.clone(),
    }
}
