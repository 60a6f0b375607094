//! Reads small files that a check names, however long their disk takes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::aside::aside;
use super::finding::Finding;
use super::words;

/// Returns the content of a file that is at most `limit` long.
pub(super) async fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Finding> {
    let shown = path.display().to_string();
    let (path, about) = (path.to_path_buf(), format!("`{shown}`"));
    let reading = aside(&about, move || {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    });
    match reading.await {
        Ok(Ok(bytes)) if bytes.len() > limit => Err(Finding::unknown(format!(
            "`{shown}` is larger than {}",
            words::bytes(limit as u64)
        ))),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            Err(Finding::unknown(format!("cannot read `{shown}`: {}", words::error(&error))))
        }
        Err(unanswered) => Err(Finding::unknown(unanswered.to_string())),
    }
}

/// Returns how long ago a file was last written; zero when that is to come by this clock.
///
/// # Errors
///
/// The outer one when nobody answers, the inner one is the system's.
pub(super) async fn age(path: &Path) -> Result<io::Result<Duration>, Finding> {
    let about = format!("`{}`", path.display());
    let path = path.to_path_buf();
    let looking = aside(&about, move || {
        let written = std::fs::metadata(path)?.modified()?;
        Ok(SystemTime::now().duration_since(written).unwrap_or_default())
    });
    looking.await.map_err(|unanswered| Finding::unknown(unanswered.to_string()))
}
