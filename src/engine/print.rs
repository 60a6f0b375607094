//! What the files that a program watches are like: two prints show whether something has changed
//! in between, also while nobody watched.
//!
//! A print tells of exactly that of which the watch tells. What was changed where nobody looks,
//! as behind a link in a watched directory, must not show after the death of a brain either.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::watched::Target;
use crate::os::links::{self, Way};

/// What the files that a program watches are like, as far as it shows that they have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    /// Of what is watched; another one means nothing.
    of: u32,
    files: u32,
}

impl Print {
    /// Takes the print of what `targets`, all those of one program, mean now, together with the
    /// file that was written last.
    pub(super) fn take(targets: &[&Target]) -> (Self, Option<PathBuf>) {
        let mut pad = Pad::default();
        for target in targets {
            pad.press_way(&target.root);
        }
        let mut files: Vec<PathBuf> =
            targets.iter().flat_map(|target| target.scan(&target.root).1).collect();
        files.sort_unstable();
        files.dedup();
        files.iter().for_each(|file| pad.press(file, file));
        let of = crc32fast::hash(format!("{targets:?}").as_bytes());
        (Self { of, files: pad.hash.finalize() }, pad.newest.map(|(_, file)| file))
    }

    /// Returns what is written down of it.
    pub(super) fn parts(self) -> (u32, u32) {
        (self.of, self.files)
    }

    pub(super) fn from_parts((of, files): (u32, u32)) -> Self {
        Self { of, files }
    }

    /// Whether files have changed between an earlier print of the same targets and this one.
    pub(super) fn shows_change_since(self, before: Self) -> bool {
        self.of == before.of && self.files != before.files
    }
}

/// A print in the making.
#[derive(Default)]
struct Pad {
    hash: crc32fast::Hasher,
    newest: Option<((i64, i64), PathBuf)>,
}

impl Pad {
    /// Takes in the links that a root leads over, and the file at their end.
    fn press_way(&mut self, root: &Path) {
        let way = Way::of(root);
        let end = Some(&way.end).filter(|end| !end.is_dir());
        for place in way.links.iter().chain(end) {
            if !links::is_in_procfs(place) {
                self.press(place, root);
            }
        }
    }

    /// Takes in a file or a link, which people know as `name`.
    fn press(&mut self, file: &Path, name: &Path) {
        let Ok(metadata) = fs::symlink_metadata(file) else { return };
        self.hash.update(file.as_os_str().as_bytes());
        if let Some(leads_to) = metadata.is_symlink().then(|| fs::read_link(file).ok()).flatten() {
            self.hash.update(leads_to.as_os_str().as_bytes());
        }
        let written = (metadata.mtime(), metadata.mtime_nsec());
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let of_file = [metadata.dev(), metadata.ino(), metadata.size()];
        of_file.iter().for_each(|number| self.hash.update(&number.to_le_bytes()));
        let times = [written.0, written.1, changed.0, changed.1];
        times.iter().for_each(|number| self.hash.update(&number.to_le_bytes()));
        self.newest = self.newest.take().max(Some((changed, name.to_path_buf())));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::config::WatchTarget;
    use crate::engine::watched::tests::{glob, target};

    type Change<'c> = &'c dyn Fn(&Bench);

    struct Bench {
        dir: tempfile::TempDir,
        targets: Vec<Target>,
        before: Option<Print>,
    }

    impl Bench {
        /// A directory that `prepare` fills, of which `tree/**` and `file` are watched.
        fn new(prepare: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("tree")).unwrap();
            prepare(dir.path());
            let tree = glob(dir.path().join("tree").to_str().unwrap(), &["**"]);
            let file = WatchTarget::Path(dir.path().join("file"));
            let targets = vec![target(tree, &[]), target(file, &[])];
            let mut bench = Self { dir, targets, before: None };
            bench.look();
            bench
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Puts a link in the place of another.
        fn swap(&self, link: &str, leads_to: &str) {
            symlink(leads_to, self.at("fresh")).unwrap();
            fs::rename(self.at("fresh"), self.at(link)).unwrap();
        }

        /// Returns whether something has changed since the last look.
        fn look(&mut self) -> bool {
            let (print, newest) = Print::take(&self.targets.iter().collect::<Vec<_>>());
            let before = self.before.replace(print).unwrap_or(print);
            let changed = print.shows_change_since(before);
            if changed {
                assert!(newest.is_some_and(|file| file.starts_with(self.dir.path())));
            }
            changed
        }
    }

    #[test]
    fn a_print_shows_every_change_and_nothing_else() {
        let mut bench = Bench::new(|dir| {
            fs::write(dir.join("tree/1"), "one").unwrap();
            fs::write(dir.join("file"), "one").unwrap();
        });
        let quiet: [(&str, Change); 3] = [
            ("nothing", &|_| ()),
            ("not watched", &|bench| fs::write(bench.at("other"), "x").unwrap()),
            ("ignored", &|bench| fs::write(bench.at("tree/1~"), "x").unwrap()),
        ];
        for (what, change) in quiet {
            change(&bench);
            assert!(!bench.look(), "{what}");
        }
        let mode = fs::Permissions::from_mode(0o700);
        let changes: [(&str, Change); 6] = [
            ("grown", &|bench| fs::write(bench.at("tree/1"), "more").unwrap()),
            ("allowed", &|bench| fs::set_permissions(bench.at("tree/1"), mode.clone()).unwrap()),
            ("new", &|bench| fs::write(bench.at("tree/2"), "").unwrap()),
            ("gone", &|bench| fs::remove_file(bench.at("tree/1")).unwrap()),
            ("replaced", &|bench| {
                fs::write(bench.at("next"), "one").unwrap();
                fs::rename(bench.at("next"), bench.at("file")).unwrap();
            }),
            ("all gone", &|bench| fs::remove_file(bench.at("file")).unwrap()),
        ];
        for (what, change) in changes {
            change(&bench);
            assert!(bench.look(), "{what}");
        }
        let (other, _) = Print::take(&[&bench.targets[0]]);
        assert!(!other.shows_change_since(bench.before.unwrap()), "something else is watched");
    }

    #[test]
    fn links_in_a_watched_directory_are_what_they_say_and_not_what_they_lead_to() {
        let mut bench = Bench::new(|dir| {
            fs::create_dir(dir.join("elsewhere")).unwrap();
            symlink("../elsewhere", dir.join("tree/directory")).unwrap();
            symlink("../elsewhere/file", dir.join("tree/missing")).unwrap();
            symlink("/proc/self/mounts", dir.join("tree/mtab")).unwrap();
            symlink("mtab", dir.join("tree/..data")).unwrap();
            std::os::unix::net::UnixListener::bind(dir.join("tree/socket")).unwrap();
        });
        fs::write(bench.at("elsewhere/file"), "x").unwrap();
        fs::remove_file(bench.at("tree/socket")).unwrap();
        assert!(!bench.look(), "nothing in the directory itself has changed");
        for (link, leads_to) in [("directory", ".."), ("missing", "x"), ("..data", "missing")] {
            bench.swap(&format!("tree/{link}"), leads_to);
            assert!(bench.look(), "{link}");
        }
    }

    #[test]
    fn the_links_that_a_root_leads_over_are_followed() {
        let mut bench = Bench::new(|dir| {
            for release in ["1", "2"] {
                fs::create_dir(dir.join(release)).unwrap();
                fs::write(dir.join(release).join("file"), "x").unwrap();
            }
            symlink("1", dir.join("current")).unwrap();
            symlink("current/file", dir.join("file")).unwrap();
        });
        fs::write(bench.at("1/file"), "more").unwrap();
        assert!(bench.look());
        bench.swap("current", "2");
        assert!(bench.look());
        fs::write(bench.at("1/file"), "not looked at any more").unwrap();
        assert!(!bench.look());
    }

    #[test]
    fn a_root_that_the_kernel_makes_up_for_whoever_looks_never_changes() {
        let prepare = |dir: &Path| symlink("/proc/thread-self/mounts", dir.join("file")).unwrap();
        let mut bench = Bench::new(prepare);
        assert!(!std::thread::spawn(move || bench.look()).join().unwrap());
    }
}
