//! The socket's node in the file system: who can reach it, and how it comes to be without a gap.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_to, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

use super::access::admits_others;
use crate::config::Access;
use crate::keeper;
use crate::os::peer::peer_credentials;

/// Longest path of a socket: `sun_path` has 108 bytes, one ends the text and one is for the
/// name under which the socket is prepared.
const MAX_PATH_BYTES: usize = 106;

/// Why the control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "the path of the control socket `{path}` has {length} bytes, the kernel allows \
         {MAX_PATH_BYTES}; choose a shorter one"
    )]
    TooLong { path: PathBuf, length: usize },
    #[error("`{path}` is no path for a control socket: it names no file in a directory")]
    NoFileName { path: PathBuf },
    #[error(
        "cannot make the control socket: there is a {what} at `{path}`; remove it or choose \
         another `socket`"
    )]
    Occupied { path: PathBuf, what: &'static str },
    #[error("another daemon already serves `{path}`")]
    Live { path: PathBuf },
    #[error("cannot make the directory `{path}` of the control socket")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot tell whether another daemon serves `{path}`")]
    Probe { path: PathBuf, source: io::Error },
    #[error("cannot make the control socket `{path}`")]
    Bind { path: PathBuf, source: io::Error },
}

/// The file that a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketNode {
    device: u64,
    inode: u64,
}

impl SocketNode {
    /// Returns what is at `path`, `None` when there is nothing.
    pub fn at(path: &Path) -> Option<Self> {
        let about = fs::symlink_metadata(path).ok()?;
        Some(Self { device: about.dev(), inode: about.ino() })
    }
}

/// Makes the control socket at `path` and listens on it. For whoever has the brain's lock of the
/// directory: a brain that still listens there is being killed.
///
/// Only the daemon's own user can open it (0600), unless `access` names others: then everyone
/// can (0666) and each request is judged by who sent it. Missing directories are made, 0750 or
/// 0755. A socket that nobody serves any more is replaced in one step, so that a client finds
/// either the old or the new one.
///
/// # Errors
///
/// [`BindError::Live`] when another daemon answers there; it is left alone. A file of another
/// kind is left alone too.
pub fn bind(path: &Path, access: &Access) -> Result<UnixListener, BindError> {
    let length = path.as_os_str().len();
    if length > MAX_PATH_BYTES {
        return Err(BindError::TooLong { path: path.to_owned(), length });
    }
    let (Some(directory), Some(file_name)) = (path.parent(), path.file_name()) else {
        return Err(BindError::NoFileName { path: path.to_owned() });
    };
    let others = admits_others(access);
    make_directory(directory, others)?;
    check_vacant(path)?;

    let mut temporary_name = file_name.to_owned();
    temporary_name.push("~");
    let temporary = path.with_file_name(temporary_name);
    let failed = |source: io::Error| BindError::Bind { path: path.to_owned(), source };
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = listen_at(&temporary, others).map_err(failed)?;
    if let Err(error) = fs::rename(&temporary, path) {
        // Nothing else can be done about a leftover; the next start removes it.
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    Ok(listener)
}

/// Adjusts the modes of the socket at `path` and of its directory after a change of `access`.
///
/// # Errors
///
/// What `chmod` reports; the roles themselves hold in any case.
pub fn admit(path: &Path, access: &Access) -> io::Result<()> {
    let others = admits_others(access);
    fs::set_permissions(path, Permissions::from_mode(socket_mode(others)))?;
    match path.parent() {
        Some(directory) if others => open_directory(directory),
        Some(_) | None => Ok(()),
    }
}

fn socket_mode(others: bool) -> u32 {
    if others { 0o666 } else { 0o600 }
}

fn listen_at(path: &Path, others: bool) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The node takes the mode of the socket, so it is never open to more than it should be.
    fchmod(&fd, Mode::from_bits_truncate(0o600))?;
    bind_to(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    if others {
        fs::set_permissions(path, Permissions::from_mode(socket_mode(true)))?;
    }
    listen(&fd, Backlog::MAXCONN)?;
    Ok(UnixListener::from(fd))
}

fn make_directory(directory: &Path, others: bool) -> Result<(), BindError> {
    // A bare file name lies in the working directory.
    if directory.as_os_str().is_empty() {
        return Ok(());
    }
    let failed = |source: io::Error| BindError::Directory { path: directory.to_owned(), source };
    let mode = if others { 0o755 } else { 0o750 };
    if !directory.is_dir() {
        DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(failed)?;
    }
    if others { open_directory(directory).map_err(failed) } else { Ok(()) }
}

/// Lets everyone pass through `directory`, if it is ours; nothing is ever taken away.
fn open_directory(directory: &Path) -> io::Result<()> {
    if directory.as_os_str().is_empty() {
        return Ok(());
    }
    let metadata = fs::metadata(directory)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o011 == 0o011 || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    fs::set_permissions(directory, Permissions::from_mode(mode | 0o055))
}

/// Makes sure that nothing that matters is at `path`.
fn check_vacant(path: &Path) -> Result<(), BindError> {
    let probe = |source: io::Error| BindError::Probe { path: path.to_owned(), source };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(probe(error)),
    };
    let what = match () {
        () if kind.is_socket() => return check_stale(path),
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_file() => "regular file",
        () => "special file",
    };
    Err(BindError::Occupied { path: path.to_owned(), what })
}

fn check_stale(path: &Path) -> Result<(), BindError> {
    let live = || BindError::Live { path: path.to_owned() };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let attempt = socket(AddressFamily::Unix, SockType::Stream, flags, None).and_then(|fd| {
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(fd)
    });
    match attempt {
        Ok(fd) if is_of_dying_brain(&fd) => Ok(()),
        // EAGAIN: somebody listens, with a full queue.
        Ok(_) | Err(Errno::EAGAIN) => Err(live()),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        Err(Errno::EPROTOTYPE) => {
            Err(BindError::Occupied { path: path.to_owned(), what: "socket of another kind" })
        }
        Err(errno) => Err(BindError::Probe { path: path.to_owned(), source: errno.into() }),
    }
}

/// Returns whether a brain that had the lock before is at the other end: the kernel can take long
/// to close all that it had open.
fn is_of_dying_brain(socket: &OwnedFd) -> bool {
    let pid = peer_credentials(socket).ok().and_then(|peer| u32::try_from(peer.pid).ok());
    pid.is_some_and(keeper::is_brain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;
    use crate::config::Principals;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn open_access() -> Access {
        Access { observe: Principals { uids: vec![65_534], gids: Vec::new() }, ..Access::default() }
    }

    #[test]
    fn only_the_owner_can_open_the_socket_unless_access_names_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/mend.sock");
        let first = bind(&path, &Access::default()).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o750));
        admit(&path, &open_access()).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o666, 0o755));
        admit(&path, &Access::default()).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(first);
        let _second = bind(&path, &open_access()).unwrap();
        assert_eq!(mode(&path), 0o666);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mend.sock");
        drop(bind(&path, &Access::default()).unwrap());
        fs::write(directory.path().join("mend.sock~"), "left over").unwrap();
        let listener = bind(&path, &Access::default()).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert!(matches!(bind(&path, &Access::default()), Err(BindError::Live { .. })));
        assert!(UnixStream::connect(&path).is_ok());
        drop(listener);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_socket_of_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "precious").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        let _datagram = UnixDatagram::bind(at("datagram")).unwrap();
        for (name, expected) in [
            ("dir", "directory"),
            ("file", "regular file"),
            ("link", "symbolic link"),
            ("datagram", "socket of another kind"),
        ] {
            match bind(&at(name), &Access::default()) {
                Err(BindError::Occupied { what, .. }) => assert_eq!(what, expected),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
    }

    #[test]
    fn impossible_paths_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("x".repeat(120));
        let error = bind(&long, &Access::default()).unwrap_err();
        assert!(error.to_string().contains("shorter"), "{error}");
        let under_file = directory.path().join("file");
        fs::write(&under_file, "").unwrap();
        let error = bind(&under_file.join("mend.sock"), &Access::default()).unwrap_err();
        assert!(matches!(error, BindError::Directory { .. }), "{error:?}");
        let error = bind(Path::new("/"), &Access::default()).unwrap_err();
        assert!(matches!(error, BindError::NoFileName { .. }), "{error:?}");
    }

    #[test]
    fn the_longest_path_that_is_allowed_works() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let room = MAX_PATH_BYTES - directory.path().as_os_str().len() - 1;
        let path = directory.path().join("x".repeat(room));
        let _listener = bind(&path, &Access::default()).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }
}
