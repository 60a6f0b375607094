//! How much room a file system has; see statvfs(3).

use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// The room on a file system, as an ordinary user has it: what is reserved for root is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub size_bytes: u64,
    pub used_bytes: u64,
    pub free_bytes: u64,
    /// `None` where the file system has no fixed number of them.
    pub inodes: Option<Inodes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inodes {
    pub total: u64,
    pub free: u64,
}

impl Space {
    /// Returns how much is used, in percent, as df(1) counts it.
    pub fn used_percent(&self) -> f64 {
        percent(self.used_bytes, self.used_bytes.saturating_add(self.free_bytes))
    }

    /// Returns how many inodes are used, in percent.
    pub fn used_inodes_percent(&self) -> Option<f64> {
        self.inodes.map(|Inodes { total, free }| percent(total.saturating_sub(free), total))
    }
}

/// Asks the file system that `path` is on. One on a server that does not answer keeps the
/// caller waiting for ever.
///
/// # Errors
///
/// What statvfs(3) says: there is no such path, it may not be reached.
pub fn space(path: &Path) -> io::Result<Space> {
    let found = statvfs(path)?;
    #[expect(clippy::useless_conversion, reason = "these are 32 bits wide on some machines")]
    let [unit, blocks, free, available, files, free_files] = [
        found.fragment_size().into(),
        found.blocks().into(),
        found.blocks_free().into(),
        found.blocks_available().into(),
        found.files().into(),
        found.files_available().into(),
    ];
    let bytes = |blocks: u64| blocks.saturating_mul(unit);
    Ok(Space {
        size_bytes: bytes(blocks),
        used_bytes: bytes(blocks.saturating_sub(free)),
        free_bytes: bytes(available),
        inodes: (files > 0).then_some(Inodes { total: files, free: free_files }),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 52 bits")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_a_size_and_a_missing_path_none() {
        let space = space(Path::new("/")).unwrap();
        assert!(space.size_bytes >= space.used_bytes && space.size_bytes > 0, "{space:?}");
        assert!((0.0..=100.0).contains(&space.used_percent()), "{space:?}");
        let missing = super::space(Path::new("/nonexistent/directory")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn percentages_are_counted_as_df_does_and_never_divide_by_zero() {
        let mut space = Space { size_bytes: 100, used_bytes: 45, free_bytes: 45, inodes: None };
        assert_eq!((space.used_percent(), space.used_inodes_percent()), (50.0, None));
        space.inodes = Some(Inodes { total: 10, free: 1 });
        assert_eq!(space.used_inodes_percent(), Some(90.0));
        let nothing = Space { size_bytes: 0, used_bytes: 0, free_bytes: 0, inodes: None };
        assert_eq!(nothing.used_percent(), 0.0);
    }
}
