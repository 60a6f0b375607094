//! Compresses and removes closed segments, on a thread of low priority.
//!
//! One thread does both, so that they never race. Every job is idempotent and starts from what
//! is on disk; a crash in the middle leaves work for the job that the next opening sends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::unistd::{Gid, Uid};

use crate::config::{Compression, Logs};

use super::place::Place;

/// Fast enough to keep up with a pump, and a window of 2 MiB for readers.
const LEVEL: i32 = 3;
const CHUNK_BYTES: usize = 64 * 1024;

type Running = (Sender<(Place, Logs)>, JoinHandle<()>);

/// The thread's owner; the thread starts with the first job.
#[derive(Debug, Default)]
pub(super) struct Tidier {
    running: Option<Running>,
    stopping: Arc<AtomicBool>,
}

impl Tidier {
    /// Has the closed segments of a log compressed and pruned soon.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(super) fn send(&mut self, place: Place, logs: Logs) -> io::Result<()> {
        if self.running.is_none() {
            let (sender, jobs) = unbounded();
            let stopping = Arc::clone(&self.stopping);
            let thread = thread::Builder::new()
                .name("mend-tidy".to_owned())
                .spawn(move || work(&jobs, &stopping))?;
            self.running = Some((sender, thread));
        }
        if let Some((sender, _)) = &self.running {
            let _ = sender.send((place, logs));
        }
        Ok(())
    }

    /// Ends the thread; a compression under way is given up and redone at the next opening.
    pub(super) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some((sender, thread)) = self.running.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

fn work(jobs: &Receiver<(Place, Logs)>, stopping: &AtomicBool) {
    crate::os::thread::lower_priority();
    while let Ok((place, logs)) = jobs.recv() {
        if stopping.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = tidy(&place, &logs, stopping) {
            tracing::debug!(log = %place.current().display(), %error, "closed segments stay as they are");
        }
    }
}

/// Brings the closed segments of a log into the state that `logs` asks for.
///
/// # Errors
///
/// The first failure; what was not done stays readable and is done by a later call.
pub(super) fn tidy(place: &Place, logs: &Logs, stopping: &AtomicBool) -> io::Result<()> {
    for (seq, parts) in place.segments()? {
        if parts.plain && parts.zstd {
            // The finished `.zst` was in place before a crash kept the plain file.
            remove(&place.closed(seq))?;
        }
    }
    let closed = place.segments()?;
    let excess = closed.len().saturating_sub(logs.keep as usize);
    for seq in closed.keys().take(excess) {
        remove_segment(place, *seq)?;
    }
    prune_total(place, logs)?;
    if logs.compress == Compression::Zstd {
        for (seq, parts) in place.segments()? {
            if parts.plain && !parts.zstd {
                compress(place, seq, stopping)?;
            }
        }
    }
    remove_orphans(place)
}

/// Removes the oldest segments until all files of the log together fit.
fn prune_total(place: &Place, logs: &Logs) -> io::Result<()> {
    let Some(max_total) = logs.max_total_bytes else { return Ok(()) };
    let size = |path: &std::path::Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let closed = place.segments()?;
    let sizes: Vec<(u64, u64)> = closed
        .keys()
        .map(|seq| (*seq, size(&place.closed(*seq)).max(size(&place.compressed(*seq)))))
        .collect();
    let mut total = size(place.current()) + sizes.iter().map(|(_, bytes)| bytes).sum::<u64>();
    for (seq, bytes) in sizes {
        if total <= max_total {
            break;
        }
        remove_segment(place, seq)?;
        total -= bytes;
    }
    Ok(())
}

fn remove_segment(place: &Place, seq: u64) -> io::Result<()> {
    remove(&place.closed(seq))?;
    remove(&place.compressed(seq))?;
    remove(&place.closed_index(seq))
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes unfinished compressions and indexes whose segment is gone.
fn remove_orphans(place: &Place) -> io::Result<()> {
    let segments = place.segments()?;
    let mut orphans = Vec::new();
    place.for_each_numbered(|seq, suffix| match suffix {
        "log.zst.tmp" => orphans.push(place.unfinished(seq)),
        "idx" if !segments.contains_key(&seq) => orphans.push(place.closed_index(seq)),
        _ => {}
    })?;
    // A rotation between the listings may have closed a segment that the first did not show.
    let segments = place.segments()?;
    for path in orphans {
        if !segments.keys().any(|seq| place.closed_index(*seq) == path) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn compress(place: &Place, seq: u64, stopping: &AtomicBool) -> io::Result<()> {
    let unfinished = place.unfinished(seq);
    let result = compress_to(place, seq, &unfinished, stopping);
    if result.is_err() {
        let _ = remove(&unfinished);
    }
    result
}

fn compress_to(
    place: &Place,
    seq: u64,
    unfinished: &std::path::Path,
    stopping: &AtomicBool,
) -> io::Result<()> {
    remove(unfinished)?;
    let mut source = File::open(place.closed(seq))?;
    let metadata = source.metadata()?;
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(metadata.mode() & 0o777)
        .open(unfinished)?;
    let owner = (Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())));
    let _ = nix::unistd::fchown(&target, owner.0, owner.1);
    let mut encoder = zstd::stream::write::Encoder::new(target, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        if stopping.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => encoder.write_all(&buffer[..bytes])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let target = encoder.finish()?;
    // The plain file goes next: the compressed one must be on the disk by then. Its time of
    // change stays that of the text, for readers without an index.
    if let Ok(changed) = metadata.modified() {
        let _ = target.set_modified(changed);
    }
    target.sync_all()?;
    drop(target);
    fs::rename(unfinished, place.compressed(seq))?;
    remove(&place.closed(seq))
}
