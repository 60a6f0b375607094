//! Where in a log the output of one run begins.
//!
//! Written before the first byte of the run is moved, so that whoever comes after a SIGKILL knows
//! which lines are the run's own.

use std::fs;
use std::path::Path;

use super::read::Cursor;

/// Returns what is written at `path`, after writing `now` there if nothing is.
pub(super) fn first(path: &Path, now: Cursor) -> Cursor {
    let written = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    if let Some(written) = written {
        return written;
    }
    // One that cannot be written costs the next daemon the lines that were there before it.
    if let Err(error) = fs::write(path, format!("{now}\n")) {
        tracing::debug!(%error, path = %path.display(), "no mark for a run's output");
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_counts_and_a_torn_one_does_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("7.out.mark");
        let (first_end, later) = (Cursor { seq: 3, offset: 7 }, Cursor { seq: 4, offset: 0 });
        fs::write(&path, "").unwrap();
        assert_eq!(first(&path, first_end), first_end);
        assert_eq!(first(&path, later), first_end);
    }
}
