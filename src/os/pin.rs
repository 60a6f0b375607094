//! Pinned pidfds: a bind mount of a pidfd keeps a process's exit status readable although no
//! process holds the pidfd any more (kernel 6.14 and newer, `CAP_SYS_ADMIN`).
//!
//! A mount per run in the machine's mount table would make every reader of it work, systemd
//! first. So the pins live in a mount namespace of their own that holds nothing but a small
//! tmpfs; one bind mount of that namespace, in a directory that does not propagate, keeps it
//! alive. The machine's table grows by two lines, whatever the number of pins, and taking those
//! two away frees everything.
#![allow(unsafe_code, reason = "open_tree and move_mount have no safe wrapper in nix")]

use std::fs::{self, DirBuilder, File};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::unistd::{Pid, chdir, pivot_root};

use super::pidfd::PidFd;

/// `f_type` of nsfs, to which the files of namespaces belong.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// How many namespaces are made at most until the kernel lets one be held.
const MOST_TRIES: usize = 64;

/// A thread's stay in the namespace of the pins; the thread cannot leave it, nor lend it.
#[derive(Debug)]
pub struct Pinboard(PhantomData<*const ()>);

impl Pinboard {
    /// Moves the calling thread, for good, into the namespace that `place` holds; makes both
    /// when they are not there and `make` says so.
    ///
    /// The thread sees no other file afterwards.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when nothing is there to enter, `EPERM` without
    /// `CAP_SYS_ADMIN`, and what the steps say.
    pub fn enter(place: &Path, make: bool) -> io::Result<Self> {
        let namespace = match held_namespace(place) {
            Some(namespace) => namespace,
            None if make => make_namespace(place)?,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        // A thread that shares its root with others may not change it.
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        chdir("/")?;
        Ok(Self(PhantomData))
    }

    /// Pins a process under this name.
    ///
    /// # Errors
    ///
    /// `EINVAL` on kernels before 6.14; [`io::ErrorKind::AlreadyExists`] for a name in use.
    pub fn pin(&self, name: &str, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        let path = at(name);
        File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        attach(pidfd, &path).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    /// Opens what is pinned under this name: a pidfd like any other.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when nothing is.
    pub fn open(&self, name: &str) -> io::Result<PidFd> {
        Ok(PidFd::from_owned(File::open(at(name))?.into()))
    }

    /// Removes a pin; a name that is not in use is fine.
    pub fn unpin(&self, name: &str) {
        let path = at(name);
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&path);
    }

    /// Returns the names in use.
    ///
    /// # Errors
    ///
    /// What reading the directory says.
    pub fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir("/")?.map(|entry| Ok(entry?.file_name().to_string_lossy().into())).collect()
    }
}

/// Takes everything away that [`Pinboard::enter`] made in `place`, with all pins.
///
/// A thread that is still inside keeps its pins until it ends.
pub fn dismantle(place: &Path) {
    detach(place);
    // Not there, most of the time.
    let _ = fs::remove_file(namespace_file(place)).and_then(|()| fs::remove_dir(place));
}

fn at(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn namespace_file(place: &Path) -> PathBuf {
    place.join("ns")
}

/// Opens the namespace that an earlier daemon left in `place`.
fn held_namespace(place: &Path) -> Option<File> {
    let file = File::open(namespace_file(place)).ok()?;
    let kind = nix::sys::statfs::fstatfs(&file).ok()?.filesystem_type().0;
    (u64::try_from(kind) == Ok(NSFS_MAGIC)).then_some(file)
}

fn make_namespace(place: &Path) -> io::Result<File> {
    // Before anything is mounted: old kernels can make all of it and then pin nothing.
    drop(clone_mount(PidFd::open(std::process::id())?.as_fd())?);
    // What a daemon left that was killed in the middle of this.
    detach(place);
    DirBuilder::new().recursive(true).mode(0o700).create(place)?;
    let made = hold_namespace(place);
    if made.is_err() {
        dismantle(place);
    }
    made
}

fn hold_namespace(place: &Path) -> io::Result<File> {
    let nothing = None::<&str>;
    // The kernel refuses to hold a namespace where the mount could propagate into others.
    mount(Some(place), place, nothing, MsFlags::MS_BIND, nothing)?;
    mount(nothing, place, nothing, MsFlags::MS_PRIVATE, nothing)?;
    let file = namespace_file(place);
    File::options().write(true).create(true).truncate(false).mode(0o600).open(&file)?;
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut made = Err(Errno::EINVAL.into());
    // A namespace can be held only in an older one. Kernels around 6.18 tell the age by numbers
    // that each processor draws from a supply of its own: what the first one makes may count as
    // older, what the right one makes does not.
    for cpu in std::iter::once(None).chain(cpus.map(Some)).take(MOST_TRIES) {
        made = empty_namespace(place, cpu).and_then(|namespace| {
            let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
            mount(Some(source.as_str()), &file, nothing, MsFlags::MS_BIND, nothing)?;
            Ok(namespace)
        });
        if !made.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
            break;
        }
    }
    made
}

/// Makes a mount namespace with nothing in it but a tmpfs, on one processor or any.
fn empty_namespace(place: &Path, cpu: Option<usize>) -> io::Result<File> {
    let place = place.to_path_buf();
    // On a thread of its own: whoever leaves a namespace cannot come back to its chroot.
    thread::Builder::new()
        .name("mend-pin-make".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            if let Some(cpu) = cpu {
                let mut one = CpuSet::new();
                one.set(cpu)?;
                sched_setaffinity(Pid::from_raw(0), &one)?;
            }
            move_to_empty_namespace(&place)
        })?
        .join()
        .map_err(|_| io::Error::other("the thread that makes the namespace panicked"))?
}

fn move_to_empty_namespace(place: &Path) -> io::Result<File> {
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let namespace = File::open("/proc/thread-self/ns/mnt")?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("mend-pins"), place, Some("tmpfs"), flags, Some("mode=0700"))?;
    chdir(place)?;
    // The old root lands on top of the new one, from where it is taken away with all below it:
    // no filesystem of the machine may be kept busy.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(namespace)
}

fn detach(place: &Path) {
    // Each of them may be there more than once, or not at all.
    for path in [namespace_file(place), place.to_path_buf()] {
        while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
    }
}

/// Makes a mount of what `source` refers to that is not attached to anything.
fn clone_mount(source: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let clone = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let flags = clone | u32::try_from(libc::AT_EMPTY_PATH).expect("a flag is positive");
    // SAFETY: the descriptor is open and the path ends with NUL; a descriptor or -1 comes back.
    let tree =
        unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), c"".as_ptr(), flags) };
    if tree < 0 {
        return Err(io::Error::last_os_error());
    }
    let tree = i32::try_from(tree).expect("a descriptor is a small number");
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// Mounts a clone of what `source` refers to on a file.
fn attach(source: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let tree = clone_mount(source)?;
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: both paths end with NUL and live over the call, the descriptor is open.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs `work` on a pinboard, on a thread that ends with it.
    fn on_board<T: Send>(place: &Path, work: impl FnOnce(&Pinboard) -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| Pinboard::enter(place, true).map(|board| work(&board)));
            thread.join().unwrap()
        })
    }

    fn mounts_below(place: &Path) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(place.to_str().unwrap())).count()
    }

    #[test]
    fn a_pin_tells_the_status_of_a_process_that_nobody_held() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("pins");
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pidfd = PidFd::open(child.id()).unwrap();
        let inode = pidfd.inode().unwrap();
        let pinned = on_board(&place, move |board| board.pin("1", pidfd.as_fd()));
        child.kill().unwrap();
        child.wait().unwrap();
        if let Err(error) = pinned.and_then(|pinned| pinned) {
            eprintln!("skipped: {error}");
            return dismantle(&place);
        }
        // The whole board is one line, its directory another.
        assert_eq!(mounts_below(&place), 2);
        let found = on_board(&place, |board| {
            let names = board.names().unwrap();
            let pidfd = board.open("1").unwrap();
            board.unpin("1");
            (names, pidfd.inode().unwrap(), pidfd.exit_status().unwrap(), board.names().unwrap())
        });
        let (names, same, status, rest) = found.unwrap();
        assert_eq!((names, same, rest), (vec!["1".to_owned()], inode, vec![]));
        assert!(matches!(status, None | Some(libc::SIGKILL)), "{status:?}");
        dismantle(&place);
        assert_eq!(mounts_below(&place), 0);
        assert!(!place.exists());
    }

    #[test]
    fn what_a_killed_daemon_left_half_made_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("pins");
        fs::create_dir(&place).unwrap();
        let nothing = None::<&str>;
        if let Err(error) = mount(Some(&place), &place, nothing, MsFlags::MS_BIND, nothing) {
            return eprintln!("skipped: {error}");
        }
        fs::write(namespace_file(&place), "").unwrap();
        let entered = on_board(&place, |board| board.names().unwrap());
        assert!(entered.as_ref().is_ok_and(Vec::is_empty), "{entered:?}");
        assert_eq!(mounts_below(&place), 2);
        dismantle(&place);
        assert_eq!(mounts_below(&place), 0);
    }
}
