//! The last lines of a file, fit to be read by people.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How much of a file is read.
const MAX_BYTES: u64 = 4096;
/// Most lines that are returned, the newest.
const MAX_LINES: usize = 50;

/// Returns the last lines of a file that were written after its first `from` bytes.
pub(super) fn lines(file: &Path, from: u64) -> io::Result<Vec<String>> {
    // What is no file any more must not keep anybody waiting.
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(MAX_BYTES).max(from);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(split(&bytes, start > from))
}

/// Splits into lines; the first is left out where it may have begun before.
fn split(bytes: &[u8], is_torn: bool) -> Vec<String> {
    let whole = match bytes.iter().position(|byte| *byte == b'\n').filter(|_| is_torn) {
        Some(end) => bytes.get(end + 1..).unwrap_or_default(),
        None => bytes,
    };
    let lines = whole.split(|byte| *byte == b'\n').map(plain);
    let mut lines: Vec<String> = lines.filter(|line| !line.trim().is_empty()).collect();
    lines.drain(..lines.len().saturating_sub(MAX_LINES));
    lines
}

/// Takes colours and other commands for a terminal out of a line.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.trim_end().chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' if letters.as_str().starts_with('[') => {
                // Up to the letter that ends the sequence.
                let _ = letters.by_ref().skip(1).find(|c| ('\x40'..='\x7e').contains(c));
            }
            control if control.is_control() => plain.push(' '),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_whole_lines_of_this_run_are_returned() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("log");
        std::fs::write(&file, "earlier run\none\n\n\x1b[31mtwo\x1b[0m\r\nth\tree").unwrap();
        assert_eq!(lines(&file, 12).unwrap(), ["one", "two", "th ree"]);
        let long = "x".repeat(50) + "\n";
        std::fs::write(&file, long.repeat(200)).unwrap();
        let found = lines(&file, 0).unwrap();
        assert_eq!(found.len(), MAX_LINES);
        assert!(found.iter().all(|line| line.len() == 50), "{found:?}");
        assert_eq!(lines(&file, 1 << 40).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn one_line_that_is_longer_than_all_that_is_read_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("log");
        std::fs::write(&file, "y".repeat(10_000)).unwrap();
        let found = lines(&file, 0).unwrap();
        assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [4096]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), torn: bool) {
            for line in split(&bytes, torn) {
                prop_assert!(!line.contains('\n') && !line.contains('\x1b'), "{:?}", line);
            }
        }
    }
}
