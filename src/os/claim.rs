//! Whose a control group is: the group of a daemon carries the name of its runtime directory, so
//! that the empty groups of daemons that were killed can be told from those of the living.
//!
//! A group is removed only when that is certain: its runtime directory is gone, nobody is in it,
//! and it was looked for where it had been, in the same mount namespace. A group without such a
//! mark is left alone.
#![allow(unsafe_code, reason = "extended attributes have no safe wrapper in nix")]

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cgroup::{self, Cgroups};

/// The extended attribute that names the owner.
const MARK: &CStr = c"user.mend.owner";

/// Returns what tells the runs and groups of this daemon from those of another on the machine.
pub fn instance(runtime_dir: &Path) -> String {
    let path = runtime_dir.canonicalize().unwrap_or_else(|_| runtime_dir.to_path_buf());
    format!("{:08x}", crc32fast::hash(path.as_os_str().as_encoded_bytes()))
}

/// Marks the group as that of the daemon with this runtime directory. Kernels before 5.7 have no
/// place for it, which leaves the group to whoever cleans up by hand.
pub fn claim(cgroups: &Cgroups, runtime_dir: &Path) {
    let path = runtime_dir.canonicalize().unwrap_or_else(|_| runtime_dir.to_path_buf());
    let Some(mut mark) = mount_namespace() else { return };
    mark.push(" ");
    mark.push(path);
    let _ = set_attribute(cgroups.base(), mark.as_bytes());
}

/// Removes the groups beside ours whose daemons are gone with their runtime directories; returns
/// how many there were.
pub fn remove_abandoned(cgroups: &Cgroups) -> usize {
    let Some(namespace) = mount_namespace() else { return 0 };
    let siblings = cgroups.base().parent().into_iter().flat_map(cgroup::subgroups);
    let abandoned = siblings.filter(|group| {
        group != cgroups.base()
            && group.file_name().is_some_and(|name| name.as_bytes().starts_with(b"mend-"))
            && owner(group, &namespace).is_some_and(|owner| is_gone(&owner))
            && cgroup::populated(group).is_ok_and(|populated| !populated)
    });
    abandoned.filter(|group| cgroup::remove_tree(group).is_ok()).count()
}

/// Removes the group of a daemon that was killed, for whoever knows that it is dead.
pub fn remove_left_over(runtime_dir: &Path) {
    if let Some(base) = cgroup::base_of(&instance(runtime_dir)) {
        let _ = cgroup::remove_tree(&base); // Refused by the kernel while anybody is in it.
    }
}

fn mount_namespace() -> Option<OsString> {
    fs::read_link("/proc/self/ns/mnt").ok().map(PathBuf::into_os_string)
}

/// Returns the runtime directory of a group that was marked in our mount namespace.
fn owner(group: &Path, namespace: &OsStr) -> Option<PathBuf> {
    let mark = attribute(group)?;
    let path = mark.strip_prefix(namespace.as_bytes())?.strip_prefix(b" ")?;
    path.starts_with(b"/").then(|| PathBuf::from(OsStr::from_bytes(path)))
}

fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn path_text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn set_attribute(path: &Path, value: &[u8]) -> io::Result<()> {
    let path = path_text(path)?;
    // SAFETY: both texts end with a NUL, and `value` lives over the call.
    let done = unsafe {
        libc::setxattr(path.as_ptr(), MARK.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn attribute(path: &Path) -> Option<Vec<u8>> {
    let path = path_text(path).ok()?;
    let mut value = vec![0_u8; 8_192];
    // SAFETY: both texts end with a NUL, and `value` has the room that is said.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), MARK.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(place: &Path) -> Option<Cgroups> {
        Cgroups::probe(&instance(place)).inspect_err(|why| eprintln!("skipped: {why}")).ok()
    }

    #[test]
    fn only_a_marked_empty_group_whose_runtime_directory_is_gone_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let dirs =
            ["ours", "living", "gone", "busy", "unmarked"].map(|name| place.path().join(name));
        dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
        let groups: Vec<Cgroups> = dirs.iter().map_while(|dir| group(dir)).collect();
        let [ours, living, gone, busy, unmarked] = groups.as_slice() else { return };
        for (group, dir) in groups.iter().zip(&dirs).take(4) {
            claim(group, dir);
        }
        let leaf = busy.leaf("busy").unwrap();
        let script =
            format!("echo $$ > {}/cgroup.procs; echo; exec sleep 600", leaf.path().display());
        let mut shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        for dir in &dirs[2..] {
            fs::remove_dir(dir).unwrap();
        }
        remove_abandoned(ours);
        assert!(!gone.base().exists());
        for kept in [ours, living, busy, unmarked] {
            assert!(kept.base().exists(), "{:?}", kept.base());
        }
        leaf.kill().unwrap();
        shell.wait().unwrap();
        for group in [ours, living, busy, unmarked] {
            while cgroup::remove_tree(group.base()).is_err() {
                std::thread::yield_now();
            }
        }
    }
}
