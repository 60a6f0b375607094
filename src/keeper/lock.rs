//! The lock that keeps a runtime directory to one keeper.

use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Name of the keeper's lock in the runtime directory; it contains the keeper's pid.
pub const KEEPER_LOCK: &str = "mendd.lock";

/// The name of a keeper's process.
const KEEPER_COMMAND: &str = "mendd";

/// Takes the lock; it is held for as long as a descriptor of it is open anywhere.
///
/// A plain file, because dropping it must only close it: a brain that starts a keeper closes its
/// own descriptor while the keeper's goes on holding the lock.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] when another keeper has it, else what the file system says.
pub fn take_lock(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    // Ours alone: whoever can read a file can lock it, and keep every daemon from starting.
    let _ = file.set_permissions(Permissions::from_mode(0o600));
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Writes this process's pid into the lock.
///
/// # Errors
///
/// What the file system says.
pub fn sign_lock(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// Returns whether a keeper other than `than` has the runtime directory.
///
/// Looks at the pid that the lock names and never touches the lock itself: a keeper that starts
/// at this moment would take that for another one.
pub fn is_another_keeper_there(runtime_dir: &Path, than: u32) -> bool {
    let signed = std::fs::read_to_string(runtime_dir.join(KEEPER_LOCK));
    let pid = signed.ok().and_then(|text| text.trim().parse::<u32>().ok());
    pid.is_some_and(|pid| {
        let command = || std::fs::read_to_string(format!("/proc/{pid}/comm"));
        pid != than
            && command().is_ok_and(|command| command.trim_end() == KEEPER_COMMAND)
            && crate::os::proc::stat(pid).is_some_and(|stat| stat.state != 'Z')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_lasts_while_a_copy_of_its_descriptor_is_open() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(KEEPER_LOCK);
        let lock = take_lock(&path).unwrap();
        let of_the_next_keeper = lock.try_clone().unwrap();
        drop(lock);
        assert_eq!(take_lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(of_the_next_keeper);
        take_lock(&path).unwrap();
    }
}
