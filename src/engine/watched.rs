//! Which files a program watches: what matches, what is left out, which directories to look at.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::{MatchOptions, Pattern};

use crate::config::{Watch, WatchTarget};
use crate::name::ProgramName;

/// A wildcard ends at a `/`.
const AS_GLOB: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// One entry of the `watch` of one program.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) program: ProgramName,
    /// The file or directory, or the directory that the wildcards are below.
    pub(super) root: PathBuf,
    /// What must match below the root; nothing where everything does.
    parts: Vec<Part>,
    ignore: Arc<Ignore>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// `**`: any number of directories.
    Any,
    Name(Pattern),
}

/// What is left out below a root.
#[derive(Debug, PartialEq)]
struct Ignore {
    names: Vec<Pattern>,
    paths: Vec<Pattern>,
}

/// Returns the entries of a program's `watch`.
pub(super) fn targets(program: &ProgramName, watch: &Watch) -> Vec<Target> {
    let patterns = |with_slash: bool| -> Vec<Pattern> {
        let chosen = watch.ignore.iter().filter(|text| text.contains('/') == with_slash);
        // The configuration has refused what is no pattern.
        chosen.filter_map(|text| Pattern::new(text).ok()).collect()
    };
    let ignore = Arc::new(Ignore { names: patterns(false), paths: patterns(true) });
    let target = |target: &WatchTarget| {
        let (root, parts) = match target {
            WatchTarget::Path(path) => (path.clone(), Vec::new()),
            WatchTarget::Glob { root, parts } => {
                let part = |text: &String| match text.as_str() {
                    "**" => Some(Part::Any),
                    text => Pattern::new(text).ok().map(Part::Name),
                };
                (root.clone(), parts.iter().filter_map(part).collect())
            }
        };
        Target { program: program.clone(), root, parts, ignore: Arc::clone(&ignore) }
    };
    watch.targets.iter().map(target).collect()
}

impl Target {
    /// Whether a change of this file counts.
    pub(super) fn matches(&self, file: &Path) -> bool {
        let Some(names) = self.below_root(file) else { return false };
        let fits = if self.parts.is_empty() { true } else { fits(&self.parts, &names) };
        fits && !self.ignore.hides(&self.root, &names)
    }

    /// Whether a file below this directory may count.
    pub(super) fn enters(&self, directory: &Path) -> bool {
        let Some(names) = self.below_root(directory) else { return false };
        let fits = self.parts.is_empty() || leads_on(&self.parts, &names);
        fits && !self.ignore.hides(&self.root, &names)
    }

    fn below_root<'p>(&self, path: &'p Path) -> Option<Vec<&'p OsStr>> {
        Some(path.strip_prefix(&self.root).ok()?.iter().collect())
    }

    /// Returns the nearest directory above the root that is there; it tells when the root comes,
    /// goes or is replaced.
    pub(super) fn approach(&self) -> Option<PathBuf> {
        self.root.ancestors().skip(1).find(|place| place.is_dir()).map(Path::to_path_buf)
    }

    /// Returns the directories from `start` downwards that are to be looked at, and the files in
    /// them that count. Links are not followed, but for the root itself; pipes, sockets and
    /// devices have no content that could change.
    pub(super) fn scan(&self, start: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut directories, mut files) = (Vec::new(), Vec::new());
        let mut queue = vec![start.to_path_buf()];
        while let Some(directory) = queue.pop() {
            if !self.enters(&directory) {
                continue;
            }
            // What is no directory, cannot be read, or has gone meanwhile has nothing to show.
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => queue.push(path),
                    Ok(kind) if !kind.is_file() && !kind.is_symlink() => {}
                    Ok(_) if is_swapped_mount(&path) || self.matches(&path) => files.push(path),
                    Ok(_) | Err(_) => {}
                }
            }
            directories.push(directory);
        }
        (directories, files)
    }
}

/// Whether this is the link that a mounted Kubernetes ConfigMap swaps.
pub(super) fn is_swapped_mount(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "..data")
}

fn fits(parts: &[Part], names: &[&OsStr]) -> bool {
    match (parts, names) {
        ([], names) => names.is_empty(),
        ([Part::Any], names) => !names.is_empty(),
        ([Part::Any, rest @ ..], names) => {
            (0..names.len()).any(|skipped| fits(rest, &names[skipped..]))
        }
        ([Part::Name(_), ..], []) => false,
        ([Part::Name(pattern), parts @ ..], [name, names @ ..]) => {
            matches_name(pattern, name) && fits(parts, names)
        }
    }
}

/// Whether something below a directory of these names may fit.
fn leads_on(parts: &[Part], names: &[&OsStr]) -> bool {
    match (parts, names) {
        ([], _) => false,
        ([Part::Any, ..], _) | ([Part::Name(_), ..], []) => true,
        ([Part::Name(pattern), parts @ ..], [name, names @ ..]) => {
            matches_name(pattern, name) && leads_on(parts, names)
        }
    }
}

fn matches_name(pattern: &Pattern, name: &OsStr) -> bool {
    pattern.matches(&name.to_string_lossy())
}

impl Ignore {
    fn hides(&self, root: &Path, names: &[&OsStr]) -> bool {
        let mut path = root.to_path_buf();
        names.iter().any(|name| {
            path.push(name);
            self.names.iter().any(|pattern| matches_name(pattern, name))
                || self.paths.iter().any(|pattern| pattern.matches_path_with(&path, AS_GLOB))
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{OnWatch, WATCH_IGNORE};

    pub(in crate::engine) fn target(written: WatchTarget, ignore: &[&str]) -> Target {
        let ignore = WATCH_IGNORE.iter().chain(ignore).map(|name| (*name).to_owned()).collect();
        let debounce = Duration::ZERO;
        let watch = Watch { targets: vec![written], ignore, debounce, act: OnWatch::Restart };
        targets(&"web".parse().unwrap(), &watch).remove(0)
    }

    pub(in crate::engine) fn glob(root: &str, parts: &[&str]) -> WatchTarget {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        WatchTarget::Glob { root: root.into(), parts }
    }

    #[track_caller]
    fn assert_matches(target: &Target, cases: &[(&str, bool)]) {
        for (path, expected) in cases {
            assert_eq!(target.matches(Path::new(path)), *expected, "{path}");
        }
    }

    #[test]
    fn two_stars_stand_for_directories_at_any_depth() {
        let target = target(glob("/srv/web", &["**", "*.py"]), &[]);
        assert_matches(
            &target,
            &[
                ("/srv/web/app.py", true),
                ("/srv/web/a/b/c.py", true),
                ("/srv/web/app.pyc", false),
                ("/srv/app.py", false),
                ("/srv/web/.git/hooks/x.py", false),
                ("/srv/web/a/__pycache__/x.py", false),
                ("/srv/web/.app.py.swp", false),
            ],
        );
        assert!(target.enters(Path::new("/srv/web/a/b")));
        assert!(!target.enters(Path::new("/srv/web/.git")));
        assert!(!target.enters(Path::new("/srv")));
    }

    #[test]
    fn a_wildcard_for_directories_keeps_to_their_depth() {
        let target = target(glob("/srv", &["*", "static", "**"]), &[]);
        assert_matches(
            &target,
            &[
                ("/srv/a/static/x/y.css", true),
                ("/srv/a/static/y.css", true),
                ("/srv/a/other/y.css", false),
                ("/srv/a/b/static/y.css", false),
            ],
        );
        for (directory, expected) in
            [("/srv/a", true), ("/srv/a/static", true), ("/srv/a/other", false)]
        {
            assert_eq!(target.enters(Path::new(directory)), expected, "{directory}");
        }
    }

    #[test]
    fn a_directory_means_everything_below_it_but_what_is_ignored() {
        let ignore = ["*.log", "**/build/**", "/srv/web/tmp/*"];
        let target = target(WatchTarget::Path("/srv/web".into()), &ignore);
        assert_matches(
            &target,
            &[
                ("/srv/web", true),
                ("/srv/web/a/b", true),
                ("/srv/web/a/b~", false),
                ("/srv/web/4913", false),
                ("/srv/web/x.log", false),
                ("/srv/web/logs.log/x", false),
                ("/srv/web/a/build/x", false),
                ("/srv/web/a/build/b/x", false),
                ("/srv/web/tmp/x", false),
                ("/srv/web/tmp/a/x", false),
                ("/srv/webs", false),
            ],
        );
    }

    #[test]
    fn what_is_named_itself_is_not_ignored() {
        let target = target(WatchTarget::Path("/srv/web/.git/HEAD".into()), &[]);
        assert_matches(
            &target,
            &[("/srv/web/.git/HEAD", true), ("/srv/web/.git/HEAD.lock", false)],
        );
    }

    #[test]
    fn a_scan_finds_directories_and_files_and_follows_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/.git/x")).unwrap();
        fs::create_dir_all(at("a/b")).unwrap();
        std::os::unix::fs::symlink(dir.path(), at("a/b/loop")).unwrap();
        std::os::unix::net::UnixListener::bind(at("a/socket.py")).unwrap();
        for name in ["a/1.py", "a/b/2.py", "a/b/3.txt", "a/.git/x/4.py"] {
            fs::write(at(name), "").unwrap();
        }
        let target = target(glob(at("a").to_str().unwrap(), &["**", "*.py"]), &[]);
        let (mut directories, mut files) = target.scan(&target.root);
        directories.sort_unstable();
        files.sort_unstable();
        assert_eq!(directories, [at("a"), at("a/b")]);
        assert_eq!(files, [at("a/1.py"), at("a/b/2.py")]);
        assert_eq!(target.approach(), Some(dir.path().to_path_buf()));
        let missing = super::tests::target(WatchTarget::Path(at("x/y/z")), &[]);
        assert_eq!(missing.approach(), Some(dir.path().to_path_buf()));
        assert_eq!(missing.scan(&missing.root), (vec![], vec![]));
    }
}
