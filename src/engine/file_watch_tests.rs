//! The watch over real files.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

use crate::config::{self, Source};

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory, what is watched in it, and what was seen.
struct Bench {
    dir: tempfile::TempDir,
    watcher: FileWatcher,
    seen: UnboundedReceiver<Touched>,
}

impl Bench {
    fn new(prepare: impl FnOnce(&Path), watch: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let (watcher, seen) = FileWatcher::new();
        let mut bench = Self { dir, watcher, seen };
        bench.arm(watch);
        bench
    }

    fn arm(&mut self, watch: &str) {
        let text = format!("[program.web]\ncommand = ['sleep', '1']\nwatch = [{watch}]");
        let path = self.dir.path().join("mend.toml");
        let loaded = config::load_sources(&[Source { path, text }], &|_| None).unwrap();
        self.watcher.arm(&loaded.config);
    }

    /// Does something, again and again until it is seen: the thread may not watch yet.
    fn until_seen(&mut self, file: &str, mut change: impl FnMut(&Path)) {
        let start = Instant::now();
        loop {
            change(&self.at(file));
            if self.next(Duration::from_millis(200)).is_some_and(|f| f.contains(&self.at(file))) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "`{file}` was not seen");
        }
    }

    fn wait_for(&mut self, file: &str) {
        let start = Instant::now();
        while !self.next(PATIENCE).is_some_and(|files| files.contains(&self.at(file))) {
            assert!(start.elapsed() < PATIENCE, "`{file}` was not seen");
        }
    }

    fn next(&mut self, patience: Duration) -> Option<BTreeSet<PathBuf>> {
        let start = Instant::now();
        loop {
            match self.seen.try_recv() {
                Ok(Touched::Changed { files, .. }) => return Some(files),
                Ok(Touched::Prints { .. }) => {}
                Ok(Touched::Trouble(text)) => assert_eq!(text, None),
                Err(_) if start.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return None,
            }
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Puts a link in the place of another.
fn swap(link: &Path, leads_to: &str) {
    let fresh = link.with_extension("fresh");
    symlink(leads_to, &fresh).unwrap();
    fs::rename(&fresh, link).unwrap();
}

fn write(path: &Path) {
    fs::write(path, "x").unwrap();
}

#[test]
fn a_new_directory_is_watched_with_what_was_made_in_it_meanwhile() {
    let mut bench = Bench::new(|dir| fs::create_dir(dir.join("src")).unwrap(), "'src/**/*.py'");
    bench.until_seen("src/a.py", write);
    fs::create_dir_all(bench.at("src/b/c")).unwrap();
    write(&bench.at("src/b/c/d.py"));
    bench.wait_for("src/b/c/d.py");
    bench.until_seen("src/b/c/d.py", |file| {
        fs::write(file.with_extension("tmp"), "y").unwrap();
        fs::rename(file.with_extension("tmp"), file).unwrap();
    });
}

#[test]
fn a_root_that_is_missing_is_waited_for_and_one_that_goes_may_come_back() {
    let mut bench = Bench::new(|_| (), "'a/b/conf', 'marker'");
    bench.until_seen("marker", write);
    for _ in 0..3 {
        fs::create_dir_all(bench.at("a/b/conf/x")).unwrap();
        write(&bench.at("a/b/conf/x/y"));
        bench.wait_for("a/b/conf/x/y");
        fs::remove_dir_all(bench.at("a")).unwrap();
    }
}

#[test]
fn a_link_that_is_swapped_is_a_change_and_what_it_leads_to_is_watched() {
    let prepare = |dir: &Path| {
        for release in ["1", "2"] {
            fs::create_dir(dir.join(release)).unwrap();
            write(&dir.join(release).join("app"));
        }
        symlink("1", dir.join("current")).unwrap();
    };
    let mut bench = Bench::new(prepare, "'current'");
    bench.until_seen("current/app", write);
    swap(&bench.at("current"), "2");
    bench.wait_for("current/app");
    let released = bench.at("2/app");
    bench.until_seen("current/app", |_| write(&released));
}

#[test]
fn links_on_the_way_to_a_file_are_followed_and_what_they_lead_to_is_watched() {
    let prepare = |dir: &Path| {
        for release in ["releases/1", "releases/2"] {
            fs::create_dir_all(dir.join(release)).unwrap();
            write(&dir.join(release).join("app"));
        }
        symlink("releases/1", dir.join("current")).unwrap();
        symlink("current/app", dir.join("app")).unwrap();
    };
    let mut bench = Bench::new(prepare, "'app', 'current/app'");
    let first = bench.at("releases/1/app");
    bench.until_seen("app", |_| write(&first));
    bench.until_seen("current/app", |_| write(&first));
    swap(&bench.at("current"), "releases/2");
    let (mut app, mut in_current) = (false, false);
    while !(app && in_current) {
        let files = bench.next(PATIENCE).expect("the swap is seen");
        app |= files.contains(&bench.at("app"));
        in_current |= files.contains(&bench.at("current/app"));
    }
    let second = bench.at("releases/2/app");
    bench.until_seen("app", |_| write(&second));
    bench.until_seen("current/app", |_| write(&second));
}

#[test]
fn a_swapped_link_is_no_change_for_who_watches_its_neighbours() {
    let prepare = |dir: &Path| {
        for release in ["1", "2"] {
            fs::create_dir(dir.join(release)).unwrap();
            write(&dir.join(release).join("app"));
        }
        symlink("1", dir.join("current")).unwrap();
        write(&dir.join("other"));
    };
    let mut bench = Bench::new(prepare, "'current/app', 'other'");
    bench.until_seen("other", write);
    swap(&bench.at("current"), "2");
    let files = bench.next(PATIENCE).expect("the swap is seen");
    assert_eq!(files, [bench.at("current/app")].into());
}

#[test]
fn what_is_neither_file_nor_link_is_not_told() {
    let mut bench = Bench::new(|dir| fs::create_dir(dir.join("run")).unwrap(), "'run'");
    bench.until_seen("run/file", write);
    std::os::unix::net::UnixListener::bind(bench.at("run/socket")).unwrap();
    write(&bench.at("run/last"));
    loop {
        let files = bench.next(PATIENCE).expect("the last file is seen");
        assert!(!files.contains(&bench.at("run/socket")), "{files:?}");
        if files.contains(&bench.at("run/last")) {
            break;
        }
    }
}

#[test]
fn what_is_ignored_or_does_not_match_is_not_told_and_programs_may_stop_watching() {
    let prepare = |dir: &Path| fs::create_dir(dir.join(".git")).unwrap();
    let mut bench = Bench::new(prepare, "'**/*.py', '.'");
    bench.until_seen("a.py", write);
    for name in ["a.py~", ".a.py.swp", "4913", ".git/x.py"] {
        write(&bench.at(name));
    }
    write(&bench.at("b.py"));
    loop {
        let files = bench.next(PATIENCE).expect("the last file is seen");
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
        assert!(names.iter().all(|name| *name == "a.py" || *name == "b.py"), "{names:?}");
        if files.contains(&bench.at("b.py")) {
            break;
        }
    }
    bench.arm("'other'");
    bench.until_seen("other", write);
}

#[test]
fn a_limit_of_the_kernel_is_said_with_the_way_out() {
    let text = explain(&io::Error::from_raw_os_error(libc::ENOSPC), Some(Path::new("/srv")));
    assert!(text.contains("sysctl fs.inotify.max_user_watches="), "{text}");
    let text = explain(&io::Error::from_raw_os_error(libc::EMFILE), None);
    assert!(text.contains("fs.inotify.max_user_instances="), "{text}");
    let text = explain(&io::Error::from_raw_os_error(libc::EACCES), Some(Path::new("/srv")));
    assert!(text.starts_with("`/srv` cannot be watched: "), "{text}");
}
