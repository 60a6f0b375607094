//! Notices that a configuration file was edited, appeared or went, so that status and events can
//! say so.
//!
//! Everything that touches the file system happens on a thread of its own.

use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use glob::{MatchOptions, Pattern};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::Config;
use crate::config::globbing::expand;

/// An editor's several steps (write, rename, chmod) count as one change.
const SETTLE: Duration = Duration::from_millis(300);

/// A wildcard ends at a `/`, as when the files are looked for.
const AS_GLOB: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Watches as long as it lives.
#[derive(Debug)]
pub(super) struct ConfigWatch {
    places: Sender<Places>,
    changes: UnboundedSender<PathBuf>,
}

/// What a change of would change the configuration.
#[derive(Debug, Clone)]
struct Places {
    files: Vec<PathBuf>,
    globs: Vec<String>,
}

impl ConfigWatch {
    /// Watches the places of `config` from now on, and no others; looks again for directories.
    pub(super) fn arm(&self, config: &Config) {
        let places = Places { files: config.files.clone(), globs: config.include_globs.clone() };
        // Without the thread only the announcement is lost, and that was said.
        let _ = self.places.send(places);
    }

    /// Announces a change that nobody may have seen, in a moment: whoever has just taken over has
    /// more urgent things to do.
    pub(super) fn look_soon(&self, file: &Path) {
        let _ = self.changes.send(file.to_path_buf());
    }
}

/// Watches the directories of the files and globs of `config`, because editors replace files
/// rather than write them.
///
/// A machine without inotify instances left only loses the announcement.
pub(super) fn start(config: &Config) -> (ConfigWatch, UnboundedReceiver<PathBuf>) {
    let (raw_sender, mut raw) = unbounded_channel::<PathBuf>();
    let (sender, receiver) = unbounded_channel();
    let (places, arriving) = channel();
    let thread = std::thread::Builder::new().name("mend-watch".into()).stack_size(128 * 1024);
    let changes = raw_sender.clone();
    if let Err(error) = thread.spawn(move || keep_watch(&arriving, &raw_sender)) {
        tracing::warn!(%error, "configuration files are not watched");
    }
    tokio::spawn(async move {
        while let Some(mut path) = raw.recv().await {
            while let Ok(Some(next)) = tokio::time::timeout(SETTLE, raw.recv()).await {
                path = next;
            }
            if sender.send(path).is_err() {
                return;
            }
        }
    });
    let watch = ConfigWatch { places, changes };
    watch.arm(config);
    (watch, receiver)
}

fn keep_watch(arriving: &Receiver<Places>, changes: &UnboundedSender<PathBuf>) {
    crate::os::process::block_all_signals();
    let mut _watcher = None;
    while let Ok(places) = arriving.recv() {
        let watcher = watch(places, changes.clone());
        // The one before goes only now: nothing is missed in between.
        _watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "configuration files are not watched"))
            .ok();
    }
}

fn watch(
    mut places: Places,
    changes: UnboundedSender<PathBuf>,
) -> notify::Result<RecommendedWatcher> {
    // Also where links lead to: an edit there is none of the link.
    let real = |file: &PathBuf| file.canonicalize().ok().filter(|real| real != file);
    let behind: Vec<PathBuf> = places.files.iter().filter_map(real).collect();
    places.files.extend(behind);
    let directories = directories(&places);
    let interest = Interest::new(&places);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        if event.paths.iter().any(|path| interest.includes(path))
            && let Some(file) = interest.files.first()
        {
            let _ = changes.send(file.clone());
        }
    })?;
    for directory in directories {
        if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
            // It may have gone just now; the others are watched all the same.
            tracing::warn!(%error, "`{}` is not watched", directory.display());
        }
    }
    Ok(watcher)
}

/// Tells which of the things that happen in a directory are about the configuration.
struct Interest {
    files: Vec<PathBuf>,
    globs: Vec<Pattern>,
    /// Directories that must come to be, or may go.
    roots: Vec<PathBuf>,
}

impl Interest {
    fn new(places: &Places) -> Self {
        let parts = |glob: &String| {
            let parent = Path::new(glob).parent().and_then(Path::to_str).map(str::to_owned);
            [Some(glob.clone()), parent].into_iter().flatten()
        };
        let globs = places.globs.iter().flat_map(parts);
        Self {
            files: places.files.clone(),
            globs: globs.filter_map(|glob| Pattern::new(&glob).ok()).collect(),
            roots: places.globs.iter().map(|glob| root_of(glob)).collect(),
        }
    }

    fn includes(&self, path: &Path) -> bool {
        // A directory on the way to a file may go and come back.
        self.files.iter().any(|file| file.starts_with(path))
            // The link that a mounted Kubernetes ConfigMap swaps.
            || path.file_name().is_some_and(|name| name == "..data")
            || self.globs.iter().any(|glob| glob.matches_path_with(path, AS_GLOB))
            || self.roots.iter().any(|root| root.starts_with(path))
    }
}

/// Returns the directories in which something may happen, all of them there.
fn directories(places: &Places) -> Vec<PathBuf> {
    let nearest = |file: &PathBuf| {
        file.ancestors().skip(1).find(|place| place.is_dir()).map(Path::to_path_buf)
    };
    let mut found: Vec<PathBuf> = places.files.iter().filter_map(nearest).collect();
    for glob in &places.globs {
        let root = root_of(glob);
        found.extend(root.ancestors().find(|place| place.is_dir()).map(Path::to_path_buf));
        let parent = Path::new(glob).parent().and_then(Path::to_str).unwrap_or_default();
        let matching = expand(parent).map(|found| found.paths).unwrap_or_default().into_iter();
        found.extend(matching.filter(|place| place.is_dir()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns the longest directory of a glob without wildcards in it.
fn root_of(glob: &str) -> PathBuf {
    let parent = Path::new(glob).parent().unwrap_or(Path::new("/"));
    let is_plain = |part: &Component<'_>| {
        !part.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte))
    };
    parent.components().take_while(is_plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_glob_may_come_to_match_is_watched() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        let places = Places {
            files: vec![directory.path().join("a/main.toml")],
            globs: vec![format!("{root}/conf.d/*/x.toml")],
        };
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("a")).unwrap();
        assert_eq!(
            directories(&places),
            [at(""), at("a")].map(|p| p.components().collect::<PathBuf>())
        );
        std::fs::create_dir_all(at("conf.d/web")).unwrap();
        assert_eq!(directories(&places), [at("a"), at("conf.d"), at("conf.d/web")]);
        let interest = Interest::new(&places);
        for (name, expected) in [
            ("a/main.toml", true),
            ("a/main.toml~", false),
            ("conf.d", true),
            ("conf.d/web", true),
            ("conf.d/web/x.toml", true),
            ("conf.d/web/y.toml", false),
            ("other", false),
        ] {
            assert_eq!(interest.includes(&at(name)), expected, "{name}");
        }
    }
}
