//! Measures the installed `mendd` against its budgets and against bare C loops in the same run.
//!
//! ```text
//! cargo bench --bench figures                   everything, about three minutes
//! cargo bench --bench figures -- crash start    the figures whose names contain these words
//! cargo bench --bench figures -- --json         for programs
//! cargo bench --bench figures -- --idle 5       seconds of idleness to watch (default 30)
//! ```
//!
//! Only ratios of one run mean anything: machines differ, and so do their hours. Everything is
//! in a directory on tmpfs (`/dev/shm`), as the runtime directory is where it matters; it is
//! removed in the end, and nothing that was started lives on. `MEND_BENCH_DIR` names another.

mod daemon;
mod figures;
mod machine;
mod probe;
mod report;

use std::cell::Cell;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use self::report::Figure;

/// What every figure needs.
pub(crate) struct Bench {
    dir: PathBuf,
    probe: PathBuf,
    idle: Duration,
    daemons: Cell<u32>,
}

type Measure = fn(&Bench) -> Vec<Figure>;

/// Names to filter by, and what measures them.
const MEASURES: [(&str, Measure); 8] = [
    ("crash", figures::crash),
    ("start stop mass", figures::lives),
    ("memory", figures::memory),
    ("idle", figures::idle),
    ("capture", figures::capture),
    ("status mendctl", figures::status),
    ("brain takeover", figures::brain),
    ("keeper takeover", figures::keeper),
];

fn main() -> ExitCode {
    let mut words = Vec::new();
    let mut as_json = false;
    let mut idle = Duration::from_secs(30);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => as_json = true,
            "--idle" => {
                let seconds = arguments.next().and_then(|text| text.parse().ok());
                idle = Duration::from_secs(seconds.expect("--idle takes seconds"));
            }
            // cargo's own words, among them `--bench`
            flag if flag.starts_with('-') => {}
            word => words.push(word.to_owned()),
        }
    }
    // What a killed keeper leaves behind must not become somebody else's.
    nix::sys::prctl::set_child_subreaper(true).expect("every supported kernel does it");
    let bench = Bench::new(idle);
    let mut measured = Vec::new();
    for (names, measure) in MEASURES {
        if words.is_empty()
            || names.split(' ').any(|name| words.iter().any(|word| name.contains(word.as_str())))
        {
            eprintln!("measuring: {names}");
            measured.extend(measure(&bench));
            machine::kill_all_of(&bench.probe);
        }
    }
    let hold = report::print(&measured, as_json);
    if hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Bench {
    fn new(idle: Duration) -> Self {
        let base = env::var_os("MEND_BENCH_DIR").map(PathBuf::from).unwrap_or_else(|| {
            let tmpfs = Path::new("/dev/shm");
            if tmpfs.is_dir() { tmpfs.to_owned() } else { env::temp_dir() }
        });
        let dir = base.join(format!("mend-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("the directory is writable");
        let probe = probe::compile(&dir);
        Self { dir, probe, idle, daemons: Cell::new(0) }
    }

    /// Returns a directory that no daemon has had.
    pub(crate) fn fresh_dir(&self) -> PathBuf {
        self.daemons.set(self.daemons.get() + 1);
        self.dir.join(format!("d{}", self.daemons.get()))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        machine::kill_all_of(&self.probe);
        let _ = fs::remove_dir_all(&self.dir);
    }
}
