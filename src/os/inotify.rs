//! What happens in directories, told by the kernel, without the opens and reads that are of no
//! interest.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// One watched directory.
pub type WatchId = WatchDescriptor;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub watch: WatchId,
    /// Of the entry in the watched directory; `None` when the directory itself is meant.
    pub name: Option<OsString>,
    pub what: What,
    /// The entry is a directory, not a link to one.
    pub is_dir: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The entry is new under its name.
    Appeared,
    /// The entry was removed; a directory had nothing in it any more.
    Removed,
    /// The entry was moved away, a directory with everything below it.
    MovedAway,
    /// The content or an attribute of the entry changed.
    Changed,
    /// The directory was moved or removed; what is below it as well.
    Lost,
    /// The kernel watches the directory no longer and has forgotten the number.
    Ended,
    /// More happened than the kernel keeps.
    Overflow,
}

/// Directories under watch.
#[derive(Debug)]
pub struct Directories {
    inotify: Inotify,
    wake: Arc<EventFd>,
}

/// Ends a wait from another thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub fn wake(&self) {
        // It fails only when it is full, and then the other side is awake.
        let _ = self.0.write(1);
    }
}

impl Directories {
    /// Makes a watch over nothing, and the way to interrupt its wait.
    ///
    /// # Errors
    ///
    /// `EMFILE` when the user has no inotify instance left.
    pub fn new() -> io::Result<(Self, Waker)> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags)?);
        Ok((Self { inotify, wake: Arc::clone(&wake) }, Waker(wake)))
    }

    /// Watches one directory, not what is below it.
    ///
    /// # Errors
    ///
    /// `ENOSPC` when the user has no watch left, `ENOTDIR`, `ENOENT`, `EACCES`.
    pub fn watch(&self, directory: &Path) -> io::Result<WatchId> {
        let what = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        Ok(self.inotify.add_watch(directory, what)?)
    }

    /// Ends the watch of a directory; one that is over already is none.
    pub fn unwatch(&self, watch: WatchId) {
        let _ = self.inotify.rm_watch(watch);
    }

    /// Waits until something happens or the waker is used.
    pub fn wait(&self) {
        let mut fds = [
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut fds, PollTimeout::NONE);
        let _ = self.wake.read();
    }

    /// Returns everything that has happened since the last call.
    ///
    /// # Errors
    ///
    /// Nothing that waiting would change.
    pub fn take(&self) -> io::Result<Vec<Notice>> {
        let mut notices: Vec<Notice> = Vec::new();
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(notices),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events {
                let Some(what) = meaning(event.mask) else { continue };
                let is_dir = event.mask.contains(AddWatchFlags::IN_ISDIR);
                let notice = Notice { watch: event.wd, name: event.name, what, is_dir };
                // A file that is written to in small pieces is one change.
                if notices.last() != Some(&notice) {
                    notices.push(notice);
                }
            }
        }
    }
}

fn meaning(mask: AddWatchFlags) -> Option<What> {
    let has = |flags: AddWatchFlags| mask.intersects(flags);
    if has(AddWatchFlags::IN_Q_OVERFLOW) {
        Some(What::Overflow)
    } else if has(AddWatchFlags::IN_IGNORED) {
        Some(What::Ended)
    } else if has(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF) {
        Some(What::Lost)
    } else if has(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
        Some(What::Appeared)
    } else if has(AddWatchFlags::IN_DELETE) {
        Some(What::Removed)
    } else if has(AddWatchFlags::IN_MOVED_FROM) {
        Some(What::MovedAway)
    } else if has(AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB) {
        Some(What::Changed)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_happens_in_a_directory_is_told_and_reading_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (directories, waker) = Directories::new().unwrap();
        let watch = directories.watch(dir.path()).unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "x").unwrap();
        fs::rename(&file, dir.path().join("b")).unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        directories.wait();
        let notice =
            |name: &str, what, is_dir| Notice { watch, name: Some(name.into()), what, is_dir };
        assert_eq!(
            directories.take().unwrap(),
            [
                notice("a", What::Appeared, false),
                notice("a", What::Changed, false),
                notice("a", What::MovedAway, false),
                notice("b", What::Appeared, false),
                notice("c", What::Appeared, true),
            ]
        );
        fs::read(dir.path().join("b")).unwrap();
        waker.wake();
        directories.wait();
        assert_eq!(directories.take().unwrap(), []);
        fs::remove_dir(dir.path().join("c")).unwrap();
        directories.unwatch(watch);
        let told: Vec<What> = directories.take().unwrap().iter().map(|n| n.what).collect();
        assert_eq!(told, [What::Removed, What::Ended]);
        assert!(directories.watch(&dir.path().join("b")).is_err(), "a file is no directory");
    }
}
