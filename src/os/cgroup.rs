//! Control groups, version 2, as files: one leaf per run below a group of our own.
//!
//! Nothing in here is required: without a writable cgroup2 tree [`Cgroups::probe`] says why,
//! and trees of processes are found by other means. Controllers are a bonus on top: `kill`,
//! `freeze` and `events` work without any. Only `populated 0` means that nobody is left;
//! reading `cgroup.procs` while processes fork can show an empty list falsely.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::Limits;
use crate::os::pidfd::PidFd;

/// Controllers that limits need.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// How long a group may take to freeze before its members are killed unfrozen.
const FREEZE_PATIENCE: Duration = Duration::from_millis(500);
/// How long `rmdir` is tried again while the kernel still says busy.
const REMOVE_PATIENCE: Duration = Duration::from_millis(20);
/// The period that `cpu.max` counts in, microseconds.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// Why there are no control groups for us.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    #[error("this process is in no cgroup2 group that its mount shows")]
    NoOwnGroup,
    #[error("the cgroup2 file system `{0}` is mounted read-only, as is usual in containers")]
    ReadOnly(PathBuf),
    #[error("`{0}` is not delegated to this user (under systemd: set Delegate=yes)")]
    NotDelegated(PathBuf),
    #[error("the control group `{group}` cannot be used")]
    Failed { group: PathBuf, source: io::Error },
}

/// The part of the cgroup2 tree that belongs to one instance of the daemon.
#[derive(Debug)]
pub struct Cgroups {
    base: PathBuf,
    controllers: Vec<String>,
}

/// The control group of one run, with its directory held open.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
    directory: File,
}

impl Cgroups {
    /// Finds our place in the cgroup2 tree and makes the group `mend-<instance>` in it.
    ///
    /// When this process's own group would forbid controllers because it has members, the
    /// process and its parent (brain and keeper) move to a leaf `mend-<instance>/daemon`.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] with the reason, when no leaf could be made, filled and killed.
    pub fn probe(instance: &str) -> Result<Self, Unavailable> {
        let (parent, name) = place_of(instance)?;
        Self::below(&parent, &name)
    }

    /// Makes or finds the group `name` in the directory `parent` and tries it out.
    fn below(parent: &Path, name: &str) -> Result<Self, Unavailable> {
        let base = parent.join(name);
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::EROFS) => Unavailable::ReadOnly(parent.to_path_buf()),
            Some(libc::EACCES | libc::EPERM) => Unavailable::NotDelegated(parent.to_path_buf()),
            _ => Unavailable::Failed { group: base.clone(), source },
        };
        make_directory(&base).map_err(failed)?;
        let mut cgroups = Self { base: base.clone(), controllers: Vec::new() };
        cgroups.controllers = cgroups.enable_controllers(parent);
        let trial = cgroups.leaf(&format!("probe.{}", std::process::id())).map_err(failed)?;
        let usable = trial.probe();
        let removed = trial.remove();
        usable.and(removed).map_err(failed)?;
        Ok(cgroups)
    }

    /// Turns on what can be turned on for the leaves; returns what works.
    fn enable_controllers(&self, parent: &Path) -> Vec<String> {
        let wanted = listed(&parent.join("cgroup.controllers"));
        let mut enabled = Vec::new();
        for controller in CONTROLLERS.iter().filter(|name| wanted.iter().any(|have| have == *name))
        {
            let switch = format!("+{controller}");
            let control = parent.join("cgroup.subtree_control");
            let mut done = fs::write(&control, &switch);
            if done.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
                // "No internal processes": whoever is in the parent has to go to a leaf first.
                self.move_daemon_out_of_parent();
                done = fs::write(&control, &switch);
            }
            if done.is_ok() && fs::write(self.base.join("cgroup.subtree_control"), &switch).is_ok()
            {
                enabled.push((*controller).to_owned());
            }
        }
        enabled
    }

    fn move_daemon_out_of_parent(&self) {
        let daemon = self.base.join("daemon");
        if make_directory(&daemon).is_err() {
            return;
        }
        let Some(parent_group) = self.base.parent() else { return };
        let members = numbers(&parent_group.join("cgroup.procs"));
        for pid in [std::os::unix::process::parent_id(), std::process::id()] {
            if members.contains(&pid) {
                // A soft attempt: without it there are no limits, nothing else is lost.
                let _ = fs::write(daemon.join("cgroup.procs"), pid.to_string());
            }
        }
    }

    /// Returns the group that all leaves are in.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Removes the group when nothing is in it: the daemon ends in order.
    pub fn leave(&self) {
        // Where the daemon itself had to move into a leaf, the service manager removes both.
        let _ = fs::remove_dir(&self.base);
    }

    /// Returns the controllers that leaves have, among `memory`, `pids` and `cpu`.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Makes the leaf for a run (or finds it), its directory open for `CLONE_INTO_CGROUP`.
    ///
    /// # Errors
    ///
    /// What `mkdir` or `open` say, `EAGAIN` at `cgroup.max.descendants` among it.
    pub fn leaf(&self, name: &str) -> io::Result<Leaf> {
        let path = self.base.join(escape(name));
        if make_directory(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Somebody has cleaned up while no run was in it.
            make_directory(&self.base)?;
        }
        make_directory(&path)?;
        Leaf::reopen(&path)
    }

    /// Returns every leaf that exists, those of an earlier daemon included.
    pub fn existing_leaves(&self) -> Vec<PathBuf> {
        let mut leaves: Vec<PathBuf> = subgroups(&self.base);
        leaves.retain(|path| path.file_name() != Some(OsStr::new("daemon")));
        leaves.sort();
        leaves
    }
}

impl Leaf {
    /// Opens a leaf that exists.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when it does not.
    pub fn reopen(path: &Path) -> io::Result<Self> {
        let directory = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        Ok(Self { path: path.to_path_buf(), directory })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lends the directory, as `clone3` takes it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    fn probe(&self) -> io::Result<()> {
        self.populated()?;
        if self.path.join("cgroup.kill").exists() || self.path.join("cgroup.freeze").exists() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "neither cgroup.kill nor cgroup.freeze"))
    }

    /// Sets what the limits ask of the controllers; returns a sentence for each that failed.
    pub fn set_limits(&self, limits: &Limits) -> Vec<String> {
        let mut settings = Vec::new();
        if let Some(bytes) = limits.memory_bytes {
            settings.push(("memory", "memory.max", bytes.to_string()));
        }
        if let Some(tasks) = limits.tasks {
            settings.push(("tasks", "pids.max", tasks.to_string()));
        }
        if let Some(percent) = limits.cpu_percent {
            let quota = (u64::from(percent) * CPU_PERIOD_MICROS / 100).max(1_000);
            settings.push(("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_MICROS}")));
        }
        let mut warnings = Vec::new();
        for (limit, file, value) in settings {
            if let Err(error) = write_existing(&self.path.join(file), &value) {
                let why = if error.kind() == io::ErrorKind::NotFound {
                    "its cgroup v2 controller is not available".to_owned()
                } else {
                    error.to_string()
                };
                warnings.push(format!("limit `{limit}` is not in force: {why}"));
            }
        }
        warnings
    }

    /// Returns the members of the leaf and of groups that its members made below it.
    pub fn procs(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        each_group(&self.path, &mut |group| pids.extend(numbers(&group.join("cgroup.procs"))));
        pids.retain(|pid| *pid != 0); // 0 is a process of another pid namespace.
        pids
    }

    /// Tells whether anybody lives in the leaf or below it. A leaf that is gone has nobody.
    ///
    /// # Errors
    ///
    /// What reading `cgroup.events` says.
    pub fn populated(&self) -> io::Result<bool> {
        populated(&self.path)
    }

    /// Sends SIGKILL to everybody in the leaf and below it, forks under way included.
    ///
    /// # Errors
    ///
    /// What writing `cgroup.kill` says, if freezing and killing one by one failed too.
    pub fn kill(&self) -> io::Result<()> {
        match write_existing(&self.path.join("cgroup.kill"), "1") {
            Ok(()) => Ok(()),
            Err(error) if gone(&error) && !self.path.exists() => Ok(()),
            Err(_) => self.kill_frozen(),
        }
    }

    /// The way before Linux 5.14: freeze, kill each, thaw.
    fn kill_frozen(&self) -> io::Result<()> {
        let freeze = self.path.join("cgroup.freeze");
        if write_existing(&freeze, "1").is_ok() {
            self.wait_frozen();
        }
        let killed = self.signal_each(libc::SIGKILL);
        let _ = write_existing(&freeze, "0"); // Absent before Linux 5.2.
        killed.map(|_| ())
    }

    fn wait_frozen(&self) {
        let deadline = Instant::now() + FREEZE_PATIENCE;
        let Ok(mut events) = File::open(self.path.join("cgroup.events")) else { return };
        while Instant::now() < deadline {
            let mut text = String::new();
            if events.rewind().and_then(|()| events.read_to_string(&mut text)).is_err()
                || text.lines().any(|line| line == "frozen 1" || line == "populated 0")
            {
                return;
            }
            let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            let _ = poll(&mut polled, PollTimeout::from(20_u8));
        }
    }

    /// Sends a signal once to every member found now, the suspended ones too; returns how many got
    /// it.
    ///
    /// # Errors
    ///
    /// The first failure other than "already gone", after all have been tried.
    pub fn signal_each(&self, signal: i32) -> io::Result<usize> {
        let held: Vec<(u32, io::Result<PidFd>)> =
            self.procs().into_iter().map(|pid| (pid, PidFd::open(pid))).collect();
        // Who is still listed after its pidfd was opened is the process that the pidfd holds.
        let members: std::collections::BTreeSet<u32> = self.procs().into_iter().collect();
        let mut reached = 0;
        let mut failure = None;
        for (pid, pidfd) in held {
            match pidfd.and_then(
                |pidfd| {
                    if members.contains(&pid) { pidfd.wake(signal) } else { Ok(()) }
                },
            ) {
                Ok(()) => reached += 1,
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(reached), Err)
    }

    /// Removes the leaf and what its members made below it; fine when it is gone already.
    ///
    /// # Errors
    ///
    /// `EBUSY` while somebody lives in it, after a few quick tries.
    pub fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + REMOVE_PATIENCE;
        loop {
            match remove_tree(&self.path) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(1));
                }
                done => return done,
            }
        }
    }
}

/// Returns the directory that the group of an instance is made in, and its name.
fn place_of(instance: &str) -> Result<(PathBuf, String), Unavailable> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own_group(&mounts, &own)?;
    // A daemon that starts again finds itself in the leaf that an earlier one made.
    let name = format!("mend-{}", escape(instance));
    let group = match (group.file_name(), group.parent().and_then(Path::file_name)) {
        (Some(leaf), Some(parent)) if leaf == "daemon" && parent == name.as_str() => {
            group.ancestors().nth(2).unwrap_or(&group).to_path_buf()
        }
        _ => group,
    };
    Ok((group, name))
}

/// Returns where the group of an instance is, if it is anywhere.
pub(crate) fn base_of(instance: &str) -> Option<PathBuf> {
    let (parent, name) = place_of(instance).ok()?;
    Some(parent.join(name))
}

/// Tells whether anybody lives in the group `path` or below it; nobody does in one that is gone.
///
/// # Errors
///
/// What reading `cgroup.events` says.
pub fn populated(path: &Path) -> io::Result<bool> {
    match fs::read_to_string(path.join("cgroup.events")) {
        Ok(text) => Ok(!text.lines().any(|line| line == "populated 0")),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the group and those below it, once, without waiting.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let below = subgroups(path);
            if below.is_empty() {
                return Err(error);
            }
            below.iter().try_for_each(|group| remove_tree(group))?;
            fs::remove_dir(path)
        }
        Err(error) if gone(&error) => Ok(()),
        done => done,
    }
}

/// A group removed while one of its files is read answers `ENODEV`.
fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Never creates: on a plain file system that would hide a mistake.
fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

fn listed(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn numbers(path: &Path) -> Vec<u32> {
    listed(path).iter().filter_map(|word| word.parse().ok()).collect()
}

pub(crate) fn subgroups(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let directories =
        entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

fn each_group(path: &Path, visit: &mut impl FnMut(&Path)) {
    visit(path);
    for group in subgroups(path) {
        each_group(&group, visit);
    }
}

/// Makes any text a file name: what is not a letter, digit, `.`, `-` or `_` becomes `%xx`.
fn escape(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if plain || (byte == b'.' && index > 0) {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02x}");
        }
    }
    safe
}

/// Finds the directory of our own group from the texts of `mountinfo` and `/proc/self/cgroup`.
fn own_group(mounts: &str, own: &str) -> Result<PathBuf, Unavailable> {
    let within = own.lines().find_map(|line| line.strip_prefix("0::"));
    let mut found = Err(Unavailable::NotMounted);
    for line in mounts.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        if kind.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let fields: Vec<&str> = place.split(' ').collect();
        let [_, _, _, root, target, options, ..] = fields[..] else { continue };
        let target = PathBuf::from(unescape(target));
        if options.split(',').any(|option| option == "ro") {
            found = Err(Unavailable::ReadOnly(target));
            continue;
        }
        let root = unescape(root);
        let inside = within
            .map(|path| path.trim_end_matches(" (deleted)"))
            .filter(|path| !path.starts_with("/.."))
            .and_then(|path| Path::new(path).strip_prefix(&root).ok());
        match inside {
            Some(inside) => return Ok(target.join(inside)),
            None => found = Err(Unavailable::NoOwnGroup),
        }
    }
    found
}

/// `mountinfo` writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
