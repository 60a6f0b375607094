//! The C program of children and floors, and the records that children leave.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::machine;

/// Bytes of one record: id, pid, time.
const RECORD_BYTES: usize = 24;

/// Id of the record that a writer leaves when all is written.
pub(crate) const WRITER_DONE: u64 = 1 << 32;

/// Compiles the probe: static, so that its start costs little beside what is measured; dynamic
/// where there is no static C library.
pub(crate) fn compile(dir: &Path) -> PathBuf {
    let source = dir.join("probe.c");
    let program = dir.join("probe");
    fs::write(&source, include_str!("probe.c")).expect("the directory is writable");
    for flags in [&["-static"][..], &[]] {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-w"]).args(flags).arg("-o").args([&program, &source]);
        if cc.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return program;
        }
    }
    panic!("no C compiler: install one that is called `cc`");
}

/// One start of a child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub(crate) at: u64,
}

/// The file that children append to.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) path: PathBuf,
    file: File,
    pub(crate) starts: Vec<Start>,
}

impl Records {
    pub(crate) fn new(path: PathBuf) -> Self {
        File::create(&path).expect("the directory is writable");
        let file = File::open(&path).expect("it was just made");
        Self { path, file, starts: Vec::new() }
    }

    fn read(&mut self) {
        let mut bytes = [0; RECORD_BYTES];
        // A record is appended whole.
        while self.file.read(&mut bytes).is_ok_and(|length| length == RECORD_BYTES) {
            let word = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[at..at + 8]);
                u64::from_ne_bytes(word)
            };
            let pid = u32::try_from(word(8)).unwrap_or(0);
            self.starts.push(Start { id: word(0), pid, at: word(16) });
        }
    }

    /// Waits until there are `count` records and returns the time of the last one.
    #[track_caller]
    pub(crate) fn wait(&mut self, count: usize) -> u64 {
        machine::wait_for("children to start", Duration::from_millis(1), || {
            self.read();
            (self.starts.len() >= count).then_some(())
        });
        self.starts[..count].iter().map(|start| start.at).max().unwrap_or(0)
    }

    /// Returns the pid of the newest run of each id.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut newest = std::collections::BTreeMap::new();
        for start in &self.starts {
            newest.insert(start.id, start.pid);
        }
        newest.into_values().collect()
    }
}

/// A bare C loop that does what is measured and nothing else.
#[derive(Debug)]
pub(crate) struct Floor {
    process: Child,
}

impl Floor {
    pub(crate) fn start(probe: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(probe);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        Self { process: command.spawn().expect("the probe was just compiled") }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it in order; returns when it and its children are gone.
    pub(crate) fn stop(&mut self) {
        machine::signal(self.process.id(), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            self.stop();
        }
    }
}
