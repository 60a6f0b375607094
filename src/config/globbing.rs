//! Files that a pattern names: `*`, `?` and `[…]` within one part of a path, `**` for directories.
//!
//! Links are followed where the pattern names their place, never by `**`: a link to a directory
//! above would make the search endless.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::Pattern;

/// Most directories that one pattern looks into.
const MAX_DIRECTORIES: usize = 100_000;

/// What a pattern matches now.
#[derive(Debug, Default)]
pub struct Expanded {
    /// Sorted; directories are among them.
    pub paths: Vec<PathBuf>,
    /// Directories that could not be read, and why.
    pub unreadable: Vec<(PathBuf, io::Error)>,
    /// The pattern leads into more directories than anybody means.
    pub too_many: bool,
}

/// Tells whether a text is a pattern rather than a path.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Looks for everything that an absolute pattern matches.
///
/// # Errors
///
/// When the text is no pattern.
pub fn expand(pattern: &str) -> Result<Expanded, glob::PatternError> {
    // Also finds what only the whole shows, such as `a**`.
    Pattern::new(pattern)?;
    let mut expanded = Expanded::default();
    let mut places = vec![PathBuf::from("/")];
    let mut visited = 0;
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        let mut next = Vec::new();
        let matcher = Pattern::new(part)?;
        for place in &places {
            visited += 1;
            if visited > MAX_DIRECTORIES {
                expanded.too_many = true;
                break;
            }
            match *part {
                "**" => expanded.descend(place, &mut visited, is_last, &mut next),
                name if !is_glob(name) => next.push(place.join(name)),
                _ => expanded.children(place, &matcher, &mut next),
            }
        }
        places = next;
    }
    places.retain(|place| place.symlink_metadata().is_ok());
    places.sort_unstable();
    places.dedup();
    expanded.paths = places;
    Ok(expanded)
}

impl Expanded {
    fn children(&mut self, place: &Path, matcher: &Pattern, into: &mut Vec<PathBuf>) {
        for entry in self.entries(place) {
            if matcher.matches(&entry.file_name().to_string_lossy()) {
                into.push(entry.path());
            }
        }
    }

    /// Takes a directory and all below it; as the last part of a pattern `**` means what is in
    /// them.
    fn descend(
        &mut self,
        place: &Path,
        visited: &mut usize,
        is_last: bool,
        into: &mut Vec<PathBuf>,
    ) {
        let mut queue = vec![place.to_path_buf()];
        while let Some(directory) = queue.pop() {
            *visited += 1;
            if *visited > MAX_DIRECTORIES {
                self.too_many = true;
                return;
            }
            for entry in self.entries(&directory) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    queue.push(entry.path());
                } else if is_last {
                    into.push(entry.path());
                }
            }
            if !is_last {
                into.push(directory);
            }
        }
    }

    fn entries(&mut self, directory: &Path) -> Vec<fs::DirEntry> {
        match fs::read_dir(directory) {
            Ok(entries) => entries.flatten().collect(),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                Vec::new()
            }
            Err(error) => {
                self.unreadable.push((directory.to_path_buf(), error));
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_pattern_finds_what_it_says_and_ends_where_links_lead_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("conf/a/b")).unwrap();
        for file in ["conf/1.toml", "conf/a/2.toml", "conf/a/b/3.toml", "conf/a/b/4.txt"] {
            fs::write(at(file), "").unwrap();
        }
        symlink("..", at("conf/up")).unwrap();
        symlink(".", at("conf/here")).unwrap();
        let found = |pattern: &str| {
            let expanded = expand(at(pattern).to_str().unwrap()).unwrap();
            assert!(expanded.unreadable.is_empty() && !expanded.too_many, "{expanded:?}");
            let names = expanded.paths.iter().map(|path| path.strip_prefix(dir.path()).unwrap());
            names.map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("conf/*.toml"), ["conf/1.toml"]);
        assert_eq!(found("conf/here/*.toml"), ["conf/here/1.toml"]);
        assert_eq!(found("conf/**/*.toml"), ["conf/1.toml", "conf/a/2.toml", "conf/a/b/3.toml"]);
        assert_eq!(found("conf/*/b/[34].t*"), ["conf/a/b/3.toml", "conf/a/b/4.txt"]);
        assert_eq!(found("conf/a/**"), ["conf/a/2.toml", "conf/a/b/3.toml", "conf/a/b/4.txt"]);
        assert_eq!(found("none/*/x"), [""; 0]);
        assert!(expand("/a**").is_err() && expand("/[").is_err());
    }
}
