//! The thread that watches the files of programs, and what the loop does about their changes.
//!
//! Directories are watched one by one, so that what is ignored costs nothing; those that come are
//! added, those that go are forgotten. A root that is missing is waited for in the nearest
//! directory above it. A tree that cannot be watched in full is said, with the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::watched::{Print, Target, targets};
use crate::config::Config;
use crate::name::ProgramName;
use crate::os::inotify::{Directories, Notice, Waker, WatchId, What};

/// After changes the thread rests this long, so that a storm is a few messages.
const REST: Duration = Duration::from_millis(50);
/// Changed files of one program that are counted in one message.
const MAX_COUNTED: usize = 1000;

/// What the thread has seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// These files of the program changed; there is at least one.
    Changed { program: ProgramName, files: BTreeSet<PathBuf>, first: PathBuf },
    /// What the files of these programs are like, and which of them was written last.
    Prints { prints: BTreeMap<ProgramName, (Print, Option<PathBuf>)>, is_all: bool },
    /// Why not everything is watched, or that it is.
    Trouble(Option<String>),
}

/// What the thread is asked for.
#[derive(Debug)]
enum Order {
    /// Watch this and nothing else, and tell what it is like.
    Watch(Vec<Target>),
    /// Tell what the files of a program are like.
    Print(ProgramName),
}

/// Watches as long as it lives; there is no thread until something is to be watched.
#[derive(Debug)]
pub(super) struct FileWatcher {
    seen: UnboundedSender<Touched>,
    thread: Option<(Sender<Order>, Waker)>,
}

impl FileWatcher {
    pub(super) fn new() -> (Self, UnboundedReceiver<Touched>) {
        let (seen, receiver) = unbounded_channel();
        (Self { seen, thread: None }, receiver)
    }

    /// Watches what the programs of `config` watch, and nothing else; tries again what could not
    /// be watched.
    pub(super) fn arm(&mut self, config: &Config) {
        let wanted: Vec<Target> = config
            .programs
            .values()
            .filter_map(|program| Some(targets(&program.name, program.watch.as_ref()?)))
            .flatten()
            .collect();
        if self.thread.is_none() {
            if wanted.is_empty() {
                return;
            }
            self.thread = self.start();
        }
        self.order(Order::Watch(wanted));
    }

    /// Asks what the files of a program are like now.
    pub(super) fn print(&self, program: &ProgramName) {
        self.order(Order::Print(program.clone()));
    }

    fn order(&self, order: Order) {
        if let Some((orders, waker)) = &self.thread {
            let _ = orders.send(order);
            waker.wake();
        }
    }

    fn start(&self) -> Option<(Sender<Order>, Waker)> {
        let (orders, arriving) = channel();
        let made = Directories::new().and_then(|(directories, waker)| {
            let seen = self.seen.clone();
            let thread =
                std::thread::Builder::new().name("mend-files".into()).stack_size(256 * 1024);
            thread.spawn(move || Watching::new(directories, seen).run(&arriving))?;
            Ok(waker)
        });
        match made {
            Ok(waker) => {
                // What kept an earlier thread from starting is over.
                let _ = self.seen.send(Touched::Trouble(None));
                Some((orders, waker))
            }
            Err(error) => {
                let text = explain(&error, None);
                let _ = self.seen.send(Touched::Trouble(Some(text)));
                None
            }
        }
    }
}

/// Says why something is not watched, and the way out.
fn explain(error: &io::Error, directory: Option<&Path>) -> String {
    match (error.raw_os_error(), directory) {
        (Some(libc::ENOSPC), _) => format!(
            "not every watched file is watched: the kernel has no inotify watch left; raise it \
             with `sysctl fs.inotify.max_user_watches={}` and `mendctl reload`, or watch less",
            doubled("max_user_watches")
        ),
        (Some(libc::EMFILE), _) => format!(
            "no file is watched: the user has no inotify instance left; raise it with \
             `sysctl fs.inotify.max_user_instances={}` and `mendctl reload`",
            doubled("max_user_instances")
        ),
        (_, Some(directory)) => {
            format!("`{}` cannot be watched: {error}; make it readable", directory.display())
        }
        (_, None) => format!("no file is watched: {error}"),
    }
}

fn doubled(limit: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{limit}"));
    let now: u64 = text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(8192);
    now.saturating_mul(2)
}

struct Watching {
    directories: Directories,
    seen: UnboundedSender<Touched>,
    targets: Vec<Target>,
    ids: BTreeMap<PathBuf, WatchId>,
    /// A directory may have several names, by links.
    paths: BTreeMap<WatchId, BTreeSet<PathBuf>>,
    changed: BTreeMap<ProgramName, (PathBuf, BTreeSet<PathBuf>)>,
    trouble: Option<String>,
    told: Option<String>,
}

impl Watching {
    fn new(directories: Directories, seen: UnboundedSender<Touched>) -> Self {
        Self {
            directories,
            seen,
            targets: Vec::new(),
            ids: BTreeMap::new(),
            paths: BTreeMap::new(),
            changed: BTreeMap::new(),
            trouble: None,
            told: None,
        }
    }

    fn run(mut self, arriving: &Receiver<Order>) {
        crate::os::process::block_all_signals();
        loop {
            let notices = match self.directories.take() {
                Ok(notices) => notices,
                Err(error) => {
                    let text = explain(&error, None);
                    let _ = self.seen.send(Touched::Trouble(Some(text)));
                    return;
                }
            };
            self.on_notices(notices);
            // The last word on what is watched counts; when nobody can give any, the brain is
            // gone.
            let mut order = None;
            let mut asked = BTreeSet::new();
            loop {
                match arriving.try_recv() {
                    Ok(Order::Watch(targets)) => order = Some(targets),
                    Ok(Order::Print(program)) => drop(asked.insert(program)),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let is_all = order.is_some();
            if let Some(targets) = order {
                self.targets = targets;
                self.arm(false);
                asked = self.targets.iter().map(|target| target.program.clone()).collect();
            }
            if !self.tell() || !self.tell_prints(asked, is_all) {
                return;
            }
            self.directories.wait();
        }
    }

    /// Hands over what was seen. Returns whether anybody listens.
    fn tell(&mut self) -> bool {
        if self.told != self.trouble {
            self.told = self.trouble.clone();
            if self.seen.send(Touched::Trouble(self.trouble.clone())).is_err() {
                return false;
            }
        }
        if self.changed.is_empty() {
            return true;
        }
        for (program, (first, files)) in std::mem::take(&mut self.changed) {
            if self.seen.send(Touched::Changed { program, files, first }).is_err() {
                return false;
            }
        }
        std::thread::sleep(REST);
        true
    }

    fn tell_prints(&self, programs: BTreeSet<ProgramName>, is_all: bool) -> bool {
        if programs.is_empty() && !is_all {
            return true;
        }
        let print = |program: ProgramName| {
            let targets: Vec<&Target> =
                self.targets.iter().filter(|target| target.program == program).collect();
            let print = Print::take(&targets);
            (program, print)
        };
        let prints = programs.into_iter().map(print).collect();
        self.seen.send(Touched::Prints { prints, is_all }).is_ok()
    }

    fn note(&mut self, program: &ProgramName, file: &Path) {
        let (_, files) = self
            .changed
            .entry(program.clone())
            .or_insert_with(|| (file.to_path_buf(), BTreeSet::new()));
        if files.len() < MAX_COUNTED {
            files.insert(file.to_path_buf());
        }
    }

    /// Watches every directory that the targets need and no other. With `is_news`, files in
    /// directories that were not watched before have changed.
    fn arm(&mut self, is_news: bool) {
        self.trouble = None;
        let mut wanted = BTreeSet::new();
        let mut files: Vec<(ProgramName, PathBuf)> = Vec::new();
        for target in &self.targets {
            wanted.extend(target.approach());
            let (directories, found) = target.scan(&target.root);
            wanted.extend(directories);
            files.extend(found.into_iter().map(|file| (target.program.clone(), file)));
        }
        let gone: Vec<PathBuf> =
            self.ids.keys().filter(|path| !wanted.contains(*path)).cloned().collect();
        for path in gone {
            self.forget(&path);
        }
        let before: BTreeSet<PathBuf> = self.ids.keys().cloned().collect();
        for directory in wanted {
            self.watch(&directory);
        }
        for (program, file) in files.into_iter().filter(|_| is_news) {
            if file.parent().is_some_and(|parent| !before.contains(parent)) {
                self.note(&program, &file);
            }
        }
    }

    fn watch(&mut self, directory: &Path) {
        if self.ids.contains_key(directory) {
            return;
        }
        match self.directories.watch(directory) {
            Ok(id) => {
                self.paths.entry(id).or_default().insert(directory.to_path_buf());
                self.ids.insert(directory.to_path_buf(), id);
            }
            // It has gone meanwhile, and that is told by the directory above.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
            Err(error) => {
                self.trouble.get_or_insert_with(|| explain(&error, Some(directory)));
            }
        }
    }

    fn forget(&mut self, directory: &Path) {
        let Some(id) = self.ids.remove(directory) else { return };
        let Some(names) = self.paths.get_mut(&id) else { return };
        names.remove(directory);
        if names.is_empty() {
            self.paths.remove(&id);
            self.directories.unwatch(id);
        }
    }

    /// Forgets a directory with everything below it: its path leads elsewhere or nowhere now.
    fn forget_tree(&mut self, top: &Path) {
        let below: Vec<PathBuf> = self
            .ids
            .range(top.to_path_buf()..)
            .map(|(path, _)| path.clone())
            .take_while(|path| path.starts_with(top))
            .collect();
        for path in below {
            self.forget(&path);
        }
    }

    fn on_notices(&mut self, notices: Vec<Notice>) {
        let mut is_moved = false;
        for notice in notices {
            if notice.what == What::Overflow {
                is_moved = true;
                let all: Vec<_> =
                    self.targets.iter().map(|t| (t.program.clone(), t.root.clone())).collect();
                for (program, root) in all {
                    self.note(&program, &root);
                }
                continue;
            }
            let Some(names) = self.paths.get(&notice.watch).cloned() else { continue };
            for directory in names {
                is_moved |= self.on_notice(&notice, &directory);
            }
        }
        if is_moved {
            self.arm(true);
        }
    }

    /// Takes what happened in a watched directory. Returns whether the directories to watch must
    /// be looked for again.
    fn on_notice(&mut self, notice: &Notice, directory: &Path) -> bool {
        match (notice.what, &notice.name) {
            (What::Ended, _) => {
                self.paths.remove(&notice.watch);
                self.ids.remove(directory);
                false
            }
            (What::Lost, _) => {
                self.forget_tree(directory);
                true
            }
            (What::Appeared | What::Removed | What::MovedAway | What::Changed, Some(name)) => {
                self.on_entry(notice.what, &directory.join(name), notice.is_dir)
            }
            (What::Appeared | What::Removed | What::MovedAway | What::Changed, None)
            | (What::Overflow, _) => false,
        }
    }

    fn on_entry(&mut self, what: What, path: &Path, is_dir: bool) -> bool {
        let is_moved = what != What::Changed;
        let targets = self.targets.clone();
        let mut again = false;
        for target in &targets {
            if is_moved && target.root.starts_with(path) {
                // The root, or what leads to it, is another one: also a link that was swapped.
                again = true;
                let was_there = self.is_watched_below(path, target);
                if (was_there && what == What::MovedAway) || (!is_dir && target.matches(path)) {
                    self.note(&target.program, path);
                }
            } else if is_swapped_mount(path) {
                if path.parent().is_some_and(|directory| {
                    target.enters(directory) || target.root.parent() == Some(directory)
                }) {
                    self.note(&target.program, path);
                }
            } else if is_dir {
                // Where it went nobody knows: its files are gone from here.
                if what == What::MovedAway && target.enters(path) {
                    self.note(&target.program, path);
                }
            } else if target.matches(path) {
                self.note(&target.program, path);
            }
        }
        if is_moved {
            self.forget_tree(path);
        }
        if is_dir && what == What::Appeared && !again {
            for target in targets.iter().filter(|target| target.enters(path)) {
                let (directories, files) = target.scan(path);
                directories.iter().for_each(|directory| self.watch(directory));
                files.iter().for_each(|file| self.note(&target.program, file));
            }
        }
        again
    }

    fn is_watched_below(&self, top: &Path, target: &Target) -> bool {
        let below = self.ids.range(top.to_path_buf()..).map(|(path, _)| path);
        below.take_while(|path| path.starts_with(top)).any(|path| target.enters(path))
    }
}

/// The link that a mounted Kubernetes ConfigMap swaps.
fn is_swapped_mount(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "..data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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
                if self.next(Duration::from_millis(200)).is_some_and(|f| f.contains(&self.at(file)))
                {
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
            std::os::unix::fs::symlink("1", dir.join("current")).unwrap();
        };
        let mut bench = Bench::new(prepare, "'current'");
        bench.until_seen("current/app", write);
        std::os::unix::fs::symlink("2", bench.at("next")).unwrap();
        fs::rename(bench.at("next"), bench.at("current")).unwrap();
        bench.wait_for("current/app");
        let released = bench.at("2/app");
        bench.until_seen("current/app", |_| write(&released));
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
}
