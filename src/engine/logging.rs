//! The daemon's own log: human or JSON, level by flag and at run time, never blocking.

use std::io::{self, BufWriter, IsTerminal};
use std::path::Path;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{DaemonLog, LogFormat, parse_log_filter};

/// Lines that may wait to be written; more are dropped and counted rather than waited for.
const BACKLOG_LINES: usize = 2048;

/// Changes the level at run time.
#[derive(Debug, Clone)]
pub(super) struct LevelHandle {
    filter: reload::Handle<Targets, Registry>,
}

impl LevelHandle {
    /// Returns the present filter.
    pub(super) fn get(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Sets the filter and returns the one before.
    ///
    /// # Errors
    ///
    /// A sentence for the operator when `level` is not a filter.
    pub(super) fn set(&self, level: &str) -> Result<String, String> {
        let filter = parse_log_filter(level).map_err(|why| format!("the level `{level}` {why}"))?;
        let before = self.filter.with_current(ToString::to_string).unwrap_or_default();
        self.filter.reload(filter).map_err(|error| error.to_string())?;
        Ok(before)
    }
}

/// Starts the log; what is logged reaches its place until the guard is dropped.
///
/// # Errors
///
/// When the log file cannot be opened or the level is not a filter.
pub(super) fn start(log: &DaemonLog) -> io::Result<(LevelHandle, WorkerGuard)> {
    let filter = parse_log_filter(&log.level).map_err(io::Error::other)?;
    let (filter, handle) = reload::Layer::new(filter);
    let (writer, guard, colour) = writer(log.file.as_deref())?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Human => registry
            .with(fmt::layer().with_writer(writer).with_ansi(colour).with_target(false))
            .try_init(),
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
        }
    };
    started.map_err(io::Error::other)?;
    Ok((LevelHandle { filter: handle }, guard))
}

fn writer(file: Option<&Path>) -> io::Result<(NonBlocking, WorkerGuard, bool)> {
    let builder = || NonBlockingBuilder::default().buffered_lines_limit(BACKLOG_LINES).lossy(true);
    match file {
        None => {
            let colour = io::stderr().is_terminal();
            let (writer, guard) = builder().finish(BufWriter::new(io::stderr()));
            Ok((writer, guard, colour))
        }
        Some(path) => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let file = std::fs::File::options().append(true).create(true).open(path)?;
            let (writer, guard) = builder().finish(BufWriter::new(file));
            Ok((writer, guard, false))
        }
    }
}
