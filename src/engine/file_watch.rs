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

use super::print::Print;
use super::watched::{Target, is_swapped_mount, targets};
use crate::config::Config;
use crate::name::ProgramName;
use crate::os::inotify::{Directories, Notice, Waker, WatchId, What};
use crate::os::links::Way;

/// After changes the thread rests this long, so that a storm is a few messages.
const REST: Duration = Duration::from_millis(50);
/// Changed files of one program that are counted in one message.
const MAX_COUNTED: usize = 1000;

/// What the files of programs are like, and which of them was written last.
pub(super) type Prints = BTreeMap<ProgramName, (Print, Option<PathBuf>)>;

/// What the thread has seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// These files of the program changed; there is at least one.
    Changed { program: ProgramName, files: BTreeSet<PathBuf>, first: PathBuf },
    /// `is_all`: of all programs that watch anything.
    Prints { prints: Prints, is_all: bool },
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
    /// What the roots lead over, in the order of the targets.
    ways: Vec<Way>,
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
            ways: Vec::new(),
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
            // What is watched already need not be looked for.
            let order = order.filter(|it| *it != self.targets || self.trouble.is_some());
            let is_all = order.is_some();
            if let Some(targets) = order {
                self.targets = targets;
                self.arm(false);
                asked = self.targets.iter().map(|target| target.program.clone()).collect();
            }
            let prints = self.prints(asked);
            if !prints.is_empty() || is_all {
                // A change that a print may hold is told before it, or nobody would act on it
                // should the brain die in between.
                match self.directories.take() {
                    Ok(notices) => self.on_notices(notices),
                    Err(_) => continue, // It is told above.
                }
            }
            if !self.tell() || !self.tell_prints(prints, is_all) {
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

    fn prints(&self, programs: BTreeSet<ProgramName>) -> Prints {
        let print = |program: ProgramName| {
            let targets: Vec<&Target> =
                self.targets.iter().filter(|target| target.program == program).collect();
            let print = Print::take(&targets);
            (program, print)
        };
        programs.into_iter().map(print).collect()
    }

    /// Hands over what files are like. Returns whether anybody listens.
    fn tell_prints(&self, prints: Prints, is_all: bool) -> bool {
        if prints.is_empty() && !is_all {
            return true;
        }
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
        self.ways = self.targets.iter().map(|target| Way::of(&target.root)).collect();
        for (target, way) in self.targets.iter().zip(&self.ways) {
            wanted.extend(target.approach());
            wanted.extend(way.links.iter().filter_map(|link| link.parent()).map(Path::to_path_buf));
            if !way.end.is_dir() {
                wanted.extend(way.end.parent().filter(|it| it.is_dir()).map(Path::to_path_buf));
                files.push((target.program.clone(), target.root.clone()));
            }
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
            let is_new = file.parent().is_some_and(|parent| !before.contains(parent));
            if is_new && file.exists() {
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

    /// Forgets a root with everything below it, and the directories above it that this link
    /// leads to.
    fn forget_way(&mut self, root: &Path, link: &Path) {
        let leads = |directory: &&Path| Way::of(directory).links.iter().any(|it| it == link);
        root.ancestors().skip(1).filter(leads).for_each(|directory| self.forget(directory));
        self.forget_tree(root);
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
        let (targets, ways) = (self.targets.clone(), std::mem::take(&mut self.ways));
        let mut again = false;
        let is_content = is_dir || is_content(path);
        for (target, way) in targets.iter().zip(&ways) {
            if way.end == path && path != target.root && !is_dir {
                self.note(&target.program, &target.root);
            }
            if is_moved && way.links.iter().any(|link| link == path) {
                // What is below the root is found elsewhere from now on.
                again = true;
                self.forget_way(&target.root, path);
                if !way.end.is_dir() {
                    self.note(&target.program, &target.root);
                }
            }
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
            } else if is_content && target.matches(path) {
                self.note(&target.program, path);
            }
        }
        self.ways = ways;
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

/// Whether this may have content that changes: a file, a link, or what has gone meanwhile.
fn is_content(path: &Path) -> bool {
    std::fs::symlink_metadata(path).map_or(true, |it| it.is_file() || it.is_symlink())
}

#[cfg(test)]
#[path = "file_watch_tests.rs"]
mod tests;
