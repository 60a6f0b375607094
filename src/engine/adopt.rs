//! What a starting brain finds: the keeper's table and the records on disk, merged.
//!
//! Nothing is spawned before this is complete: a brain that knew only part of the truth would
//! start second copies. Order: the keeper's list, which came before all else, then every record
//! that the list lacks is given to the keeper, then, if there was one, the list again, which now
//! is the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tracing::{debug, warn};

use super::extra::Extra;
use super::fdstore::FdStore;
use super::held::Held;
use super::keeper_link::KeeperSender;
use super::pins::Pins;
use super::run::{Found, Run};
use crate::capture::Channel;
use crate::keeper::wire::{ToBrain, ToKeeper};
use crate::name::{ProcessName, RunId};
use crate::os::pidfd::PidFd;
use crate::os::{clock, notify_socket, proc};
use crate::store::runs::{Born, Record, RunFiles, is_same_process};

/// How long a child that was cloned by a killed brain may take to write its record.
const WINDOW_PATIENCE: Duration = Duration::from_secs(5);

/// Returns whether an earlier daemon left runs, alive or not.
pub(crate) fn has_runs(runtime_dir: &Path) -> bool {
    std::fs::read_dir(runtime_dir.join("runs")).is_ok_and(|mut files| files.next().is_some())
}

/// How many files in the directory of the records a run has, and how many descriptors it takes
/// while a brain takes over at most: those of the keeper's list, the engine's, the pump's and the
/// ears'.
const FILES_OF_RUN: usize = 3;
const DESCRIPTORS_OF_RUN: u64 = 15;

/// What a brain has open beside its runs.
const OWN_DESCRIPTORS: u64 = 200;

/// Returns how many descriptors a brain that takes over what is there will have open.
pub(crate) fn descriptors_to_adopt(runtime_dir: &Path) -> u64 {
    let files = std::fs::read_dir(runtime_dir.join("runs")).map_or(0, Iterator::count);
    OWN_DESCRIPTORS + files.div_ceil(FILES_OF_RUN) as u64 * DESCRIPTORS_OF_RUN
}

/// Finds every run that was there before this brain.
///
/// # Errors
///
/// When the keeper does not answer or the records cannot be read: then nothing may be spawned.
pub(super) fn find_runs(
    keeper: &KeeperSender,
    held: &Held,
    files: &RunFiles,
    fdstore: &FdStore,
    pins: &mut Pins,
) -> io::Result<Vec<Found>> {
    let listed: BTreeMap<_, _> = held.runs().collect();
    let mut is_complete = true;
    let mut unheard = BTreeSet::new();
    let mut records = BTreeMap::new();
    let with_ready = files.list_ready()?;
    for run in files.list()? {
        let early = held.records.get(&run).cloned();
        let record = early.map_or_else(|| settled_record(files, run), Ok)?;
        let (pid, pipes) = listed.get(&run).copied().unwrap_or((None, 0));
        if pid.is_none() {
            introduce(keeper, files, pins, run, &record, listed.contains_key(&run))?;
            is_complete = false;
        }
        if record.born.is_some() && lacks_pipes(files, run, &record, pipes) {
            hold_output(keeper, files, run)?;
            is_complete = false;
        }
        if record.born.is_some() && hold_extras(keeper, files, run, &record, &listed, &with_ready)?
        {
            unheard.insert(run);
            is_complete = false;
        }
        records.insert(run, record);
    }
    // Without room for copies the keeper is asked, so that what does not fit is missing here alone.
    let copies = if is_complete { held.duplicate().ok() } else { None };
    let entries = copies.map_or_else(|| keeper.list(), Ok)?;
    let children: BTreeSet<u32> =
        proc::children(std::os::unix::process::parent_id()).into_iter().collect();
    let mut found: Vec<Found> = Vec::new();
    let mut extras: Vec<(RunId, Extra, OwnedFd)> = Vec::new();
    for (entry, fds) in entries {
        let ToBrain::Entry { run, pid, exit, pipes, has_pidfd } = entry else { continue };
        let mut fds: Vec<OwnedFd> = fds.into_iter().flatten().collect();
        if let Some((owner, extra)) = Extra::of_key(run) {
            extras.extend(fds.pop().map(|fd| (owner, extra, fd)));
            continue;
        }
        let record = records.remove(&run);
        let is_torn = record.as_ref().is_some_and(|record| record.header.is_none());
        match found_run(run, record, fds, usize::from(pipes), has_pidfd, pid, exit) {
            Some(mut run) => {
                let is_child = pid.is_some_and(|pid| children.contains(&pid));
                run.hands.foreign = exit.is_none() && !is_child;
                run.unheard = unheard.contains(&run.run);
                found.push(run);
            }
            None => {
                // Held, but never born, or without a word on whose it was.
                warn!(%run, "the keeper holds a run that has no record; it is dropped");
                keeper.send(&ToKeeper::Drop { run }, &[])?;
                fdstore.forget(run);
                if is_torn {
                    files.remove(run);
                }
            }
        }
    }
    for run in records.into_keys() {
        files.remove(run);
    }
    for (run, extra, fd) in extras {
        match found.iter_mut().find(|found| found.run == run) {
            Some(found) => found.hands.extras.push((extra, fd)),
            None => {
                keeper.send(&ToKeeper::Drop { run: extra.key(run) }, &[])?;
                fdstore.forget_extra(run, extra);
            }
        }
    }
    Ok(found)
}

/// Reads a record, waiting while a child is between its clone and its record.
fn settled_record(files: &RunFiles, run: RunId) -> io::Result<Record> {
    let deadline = clock::now() + WINDOW_PATIENCE;
    loop {
        let record = files.read_record(run)?;
        if !record.in_window || clock::now() >= deadline {
            return Ok(record);
        }
        // The child holds a lock on the record that cannot be waited for without taking it.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tells the keeper of a run that it does not know, or does not know the pid of.
fn introduce(
    keeper: &KeeperSender,
    files: &RunFiles,
    pins: &mut Pins,
    run: RunId,
    record: &Record,
    held: bool,
) -> io::Result<()> {
    let Some(born) = record.born else {
        if held {
            keeper.send(&ToKeeper::Drop { run }, &[])?;
        }
        files.remove(run);
        return Ok(());
    };
    let message = ToKeeper::Born { run, pid: born.pid };
    match is_same_process(&born).or_else(|| pinned(pins, run, &born)) {
        Some(pidfd) => keeper.send(&message, &[pidfd.as_fd().as_raw_fd()]),
        None => keeper.send(&message, &[]),
    }
}

/// Returns what holds the exit status of a run that has ended and been reaped.
fn pinned(pins: &mut Pins, run: RunId, born: &Born) -> Option<PidFd> {
    let pidfd = pins.find(run)?;
    // Written by nobody but us; but a status is told only of the process that the record names.
    (born.inode != 0 && pidfd.inode().ok() == Some(born.inode)).then_some(pidfd)
}

/// Returns whether the keeper holds fewer read ends of a run's output than there are: it does not
/// know the run, or had no descriptor left when it was told.
fn lacks_pipes(files: &RunFiles, run: RunId, record: &Record, held: usize) -> bool {
    let most = if record.header.as_ref().is_some_and(|header| header.merged) { 1 } else { 2 };
    // Seldom: only then the file system is asked, and a run without captured output has none.
    let paths = || [files.stdout(run), files.stderr(run)].into_iter();
    held < most && held < paths().filter(|path| path.exists()).count()
}

fn hold_output(keeper: &KeeperSender, files: &RunFiles, run: RunId) -> io::Result<()> {
    let paths = [files.stdout(run), files.stderr(run)];
    let pipes: Vec<_> = paths.iter().filter_map(|path| open_reader(path)).collect();
    let fds: Vec<_> = pipes.iter().map(AsRawFd::as_raw_fd).collect();
    keeper.send(&ToKeeper::Hold { run }, &fds)
}

/// Lets the keeper hold what a run says of itself through where it does not: it was killed, and
/// whoever held it. Returns whether there was any need.
fn hold_extras(
    keeper: &KeeperSender,
    files: &RunFiles,
    run: RunId,
    record: &Record,
    listed: &BTreeMap<RunId, (Option<u32>, usize)>,
    with_ready: &BTreeSet<RunId>,
) -> io::Result<bool> {
    let mut missing = Vec::new();
    let is_held = |extra: Extra| listed.contains_key(&extra.key(run));
    let name = record.header.as_ref().and_then(|header| header.notify.as_deref());
    if let Some(name) = name.filter(|_| !is_held(Extra::Notify)) {
        match notify_socket::open(name) {
            Ok(socket) => missing.push((Extra::Notify, socket)),
            Err(error) => warn!(%run, %error, "what a run says of itself is not heard any more"),
        }
    }
    if with_ready.contains(&run) && !is_held(Extra::Ready) {
        missing.extend(open_reader(&files.ready(run)).map(|pipe| (Extra::Ready, pipe)));
    }
    for (extra, fd) in &missing {
        keeper.send(&ToKeeper::Hold { run: extra.key(run) }, &[fd.as_raw_fd()])?;
    }
    Ok(!missing.is_empty())
}

fn open_reader(path: &Path) -> Option<OwnedFd> {
    let flags = libc::O_NONBLOCK;
    File::options().read(true).custom_flags(flags).open(path).ok().map(OwnedFd::from)
}

fn found_run(
    run: RunId,
    record: Option<Record>,
    fds: Vec<OwnedFd>,
    pipes: usize,
    has_pidfd: bool,
    pid: Option<u32>,
    exit: Option<crate::keeper::wire::WaitStatus>,
) -> Option<Found> {
    let record = record?;
    let born = record.born;
    let header = record.header?;
    let process: ProcessName = header.process.parse().ok()?;
    let pid = pid?;
    let mut fds = fds.into_iter();
    let channels = [Channel::Stdout, Channel::Stderr];
    let pipes = fds.by_ref().take(pipes).zip(channels).map(|(fd, ch)| (ch, fd)).collect();
    let pidfd = fds.next().filter(|_| has_pidfd).map(PidFd::from_owned);
    // A descriptor that did not fit into our table is missing: without it nothing can be stopped.
    let pidfd = pidfd.or_else(|| born.as_ref().and_then(is_same_process));
    debug!(%process, %run, pid, ended = exit.is_some(), "found a run");
    let hands = Run {
        process,
        pid: Some(pid),
        foreign: false,
        pidfd,
        pipes,
        extras: Vec::new(),
        marks: Vec::new(),
        wants_marks: false,
        cgroup: header.cgroup,
        exit,
        gone: false,
    };
    Some(Found { run, hands, unheard: false })
}
