//! What is kept of a program's output, read from the files that an operator would read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Daemon, tail, wait_for};

impl Daemon {
    /// The current segment of a process's output.
    pub(crate) fn log_path(&self, name: &str, stream: &str) -> PathBuf {
        let (program, replica) = name.split_once(':').unwrap_or((name, "0"));
        self.dir().join(format!("logs/{program}/{replica}.{stream}.log"))
    }

    /// All that is kept of a process's standard output, oldest segment first.
    pub(crate) fn log_bytes(&self, name: &str, stream: &str) -> Vec<u8> {
        let current = self.log_path(name, stream);
        // The daemon rotates and compresses meanwhile: only an undisturbed look counts.
        wait_for("a quiet moment to read the log", || {
            let before = segments(&current);
            let bytes = read_segments(&before, &current).map_err(|error| error.to_string())?;
            if segments(&current) == before { Ok(bytes) } else { Err("rotated".to_owned()) }
        })
    }

    pub(crate) fn log_text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.log_bytes(name, "stdout")).into_owned()
    }

    /// Waits until the output of a process contains `text`, and returns all of it.
    #[track_caller]
    pub(crate) fn wait_log(&self, name: &str, text: &str) -> String {
        wait_for(&format!("`{name}` to print {text:?}"), || {
            let log = self.log_text(name);
            if log.contains(text) { Ok(log) } else { Err(tail(&log)) }
        })
    }
}

/// The closed segments of a log by number; a compressed one counts before its plain file.
fn segments(current: &Path) -> BTreeMap<String, PathBuf> {
    let stem = current.file_stem().expect("a log has a name").to_string_lossy().into_owned();
    let dir = current.parent().expect("a log is in a directory");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&format!("{stem}.")) else { continue };
        let Some((number, suffix)) = rest.split_once('.') else { continue };
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let replaces = suffix == "log.zst" || (suffix == "log" && !found.contains_key(number));
        if is_number && replaces {
            found.insert(number.to_owned(), path);
        }
    }
    found
}

fn read_segments(closed: &BTreeMap<String, PathBuf>, current: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for path in closed.values() {
        let mut file = File::open(path)?;
        if path.extension().is_some_and(|extension| extension == "zst") {
            zstd::stream::copy_decode(file, &mut bytes)?;
        } else {
            file.read_to_end(&mut bytes)?;
        }
    }
    bytes.extend(fs::read(current).unwrap_or_default());
    Ok(bytes)
}
