//! The active configuration's exact texts, in the runtime directory, with the apply that is
//! under way.
//!
//! A brain that comes back loads these and not the files on disk: what somebody has edited since
//! then takes effect when it is applied, not when something crashes. The file is replaced as a
//! whole, so that a brain finds the state before a step or after it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::Loaded;
use crate::core::Progress;
use crate::name::{ProcessName, RunId};
use crate::store::sources::{self, Active};

const FILE: &str = "active.json";

/// What a brain goes on from.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// The configuration that counts; during an apply the one before.
    pub(crate) loaded: Loaded,
    /// The first run of each process that is spawned as it is declared now.
    pub(crate) replaced: BTreeMap<ProcessName, RunId>,
    /// What is being applied, and how far that has come.
    pub(crate) apply: Option<(Loaded, Progress)>,
}

/// Keeps the texts.
///
/// # Errors
///
/// Those of writing a file beside the old one and renaming it.
pub(crate) fn keep(runtime_dir: &Path, active: &Active) -> io::Result<()> {
    let path = path(runtime_dir);
    let fresh = path.with_extension("tmp");
    // Whoever may only look at the status must not read what is set in environments.
    let _ = fs::remove_file(&fresh);
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?
        .write_all(&sources::encode_active(active))?;
    fs::rename(&fresh, &path)
}

/// Reads what is kept as it was written; `None` when there is nothing, or it is damaged.
pub(super) fn read(runtime_dir: &Path) -> Option<Active> {
    sources::decode_active(&fs::read(path(runtime_dir)).ok()?)
}

/// Loads the active configuration, `None` when there is none of this boot that still loads.
pub(crate) fn load(runtime_dir: &Path) -> Option<Remembered> {
    if super::books::is_of_another_boot(runtime_dir) {
        return None;
    }
    let active = read(runtime_dir)?;
    let load = |texts: &_| crate::config::load_accepted(texts, &super::reload::environment).ok();
    let apply = match active.apply {
        Some((texts, progress)) => Some((load(&texts)?, progress)),
        None => None,
    };
    Some(Remembered { loaded: load(&active.sources)?, replaced: active.replaced, apply })
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
            keep(directory.path(), &Active::default()).unwrap();
            let about = fs::metadata(path(directory.path())).unwrap();
            assert_eq!(about.permissions().mode() & 0o777, 0o600);
        }
    }
}
