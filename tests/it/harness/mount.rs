//! File systems that are small, full or read-only.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::wait_for;
use crate::proc;

/// A tmpfs right below the directory of the test, gone at its end: to be dropped after the daemon.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts it, `None` where that is not allowed.
    pub(crate) fn new(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&at).expect("a directory to mount on");
        let options = format!("mode=750,{options}");
        let mounted = mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], &at);
        if !mounted {
            proc::skip("a tmpfs cannot be mounted here");
        }
        mounted.then_some(Self(at))
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        // A file that is being written makes the kernel refuse for a moment.
        wait_for("the disk to be mounted anew", || {
            let mounted = mount(&["-o", &options], &self.0);
            mounted.then_some(()).ok_or_else(|| options.clone())
        });
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let file = File::create(&path).expect("an inode is left");
        let mut at = 0;
        for size in [4096, 512, 1] {
            while let Ok(written) = file.write_at(&vec![b'x'; size], at)
                && written > 0
            {
                at += written as u64;
            }
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        // The test's directory could not be removed with a file system in it.
        let _ = self.0.parent().map(fs::remove_dir_all);
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(arguments).arg(at);
    command.output().is_ok_and(|output| output.status.success())
}
