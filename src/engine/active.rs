//! The active configuration's exact texts, in the runtime directory.
//!
//! A brain that comes back loads these and not the files on disk: what somebody has edited since
//! then takes effect when it is applied, not when something crashes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::{Loaded, Source};
use crate::store::sources;

const FILE: &str = "active.json";

/// Keeps the texts.
///
/// # Errors
///
/// Those of writing a file beside the old one and renaming it.
pub(crate) fn keep(runtime_dir: &Path, texts: &[Source]) -> io::Result<()> {
    let path = path(runtime_dir);
    let fresh = path.with_extension("tmp");
    // Whoever may only look at the status must not read what is set in environments.
    let _ = fs::remove_file(&fresh);
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?
        .write_all(&sources::encode(texts))?;
    fs::rename(&fresh, &path)
}

/// Loads the active configuration, `None` when there is none that still loads.
pub(crate) fn load(runtime_dir: &Path) -> Option<Loaded> {
    let texts = sources::decode(&fs::read(path(runtime_dir)).ok()?)?;
    crate::config::load_accepted(&texts, &super::reload::environment).ok()
}

/// Forgets the active configuration: nothing of it is left.
pub(crate) fn forget(runtime_dir: &Path) {
    let _ = fs::remove_file(path(runtime_dir));
}

fn path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_texts_are_for_the_daemon_alone_also_over_a_leftover() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("active.tmp"), "half").unwrap();
        for _ in 0..2 {
            keep(directory.path(), &[]).unwrap();
            let about = fs::metadata(path(directory.path())).unwrap();
            assert_eq!(about.permissions().mode() & 0o777, 0o600);
        }
    }
}
