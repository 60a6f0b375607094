//! Where the daemon's socket is, and what a failed connection means.

use std::env;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::failure::Failure;
use crate::config;

/// Returns the places to look at, in order: `given` alone if there is one, else where daemons of
/// this user and of the system are. An empty path, as from an empty variable, is none.
pub fn candidates(given: Option<&Path>) -> Vec<PathBuf> {
    match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => vec![path.to_owned()],
        // `MEND_SOCKET` was looked at with the arguments.
        None => config::default_socket_candidates(&|name| match name {
            "MEND_SOCKET" => None,
            _ => env::var(name).ok(),
        }),
    }
}

/// Returns the first place where something is, even something that may not be opened.
///
/// A socket that is left over is not skipped: to talk to another daemon than the one meant would
/// be worse than to say that it is gone.
pub fn choose(candidates: &[PathBuf]) -> Result<PathBuf, Failure> {
    let found = candidates.iter().find(|path| match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    });
    found.cloned().ok_or_else(|| Failure::Missing { looked: candidates.to_vec() })
}

/// Says why `socket` could not be connected to.
pub fn explain(socket: &Path, error: io::Error) -> Failure {
    let socket = socket.to_owned();
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum, open to additions")]
    match error.kind() {
        io::ErrorKind::NotFound => Failure::Missing { looked: vec![socket] },
        io::ErrorKind::ConnectionRefused => Failure::Stale { socket },
        io::ErrorKind::PermissionDenied => {
            let owner = owner(&socket);
            Failure::Denied { socket, owner }
        }
        _ => Failure::Connect { socket, source: error },
    }
}

/// Describes whose the socket is, or the nearest directory above it that can be seen.
fn owner(socket: &Path) -> String {
    for place in socket.ancestors() {
        if let Ok(found) = place.symlink_metadata() {
            let uid = Uid::from_raw(found.uid());
            let user = User::from_uid(uid).ok().flatten();
            let user = user.map_or_else(|| format!("uid {uid}"), |user| format!("`{}`", user.name));
            let what = if place == socket {
                "it belongs".to_owned()
            } else {
                format!("`{}` belongs", place.display())
            };
            let mode = found.permissions().mode() & 0o7777;
            return format!("{what} to {user} (mode {mode:04o})");
        }
    }
    "its owner cannot be seen".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_socket_is_the_only_candidate() {
        assert_eq!(candidates(Some(Path::new("/x"))), [PathBuf::from("/x")]);
        assert_eq!(candidates(Some(Path::new(""))), candidates(None));
        assert_eq!(candidates(None).last(), Some(&PathBuf::from("/run/mend/mend.sock")));
    }

    #[test]
    fn the_first_existing_candidate_wins_and_a_miss_names_all() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let both = [a.clone(), b.clone()];
        let missing = choose(&both).unwrap_err().to_string();
        assert!(missing.contains("/a` or `") && missing.contains("/b`"), "{missing}");
        std::fs::write(&b, "").unwrap();
        assert_eq!(choose(&both).unwrap(), b);
        std::fs::write(&a, "").unwrap();
        assert_eq!(choose(&both).unwrap(), a);
    }

    #[test]
    fn a_forbidden_socket_names_its_owner_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mend.sock");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let failure = explain(&path, io::Error::from(io::ErrorKind::PermissionDenied));
        let user = User::from_uid(Uid::current()).unwrap().unwrap().name;
        let text = failure.to_string();
        assert!(text.contains(&format!("it belongs to `{user}` (mode 0600)")), "{text}");
        assert!(failure.help().unwrap().contains("sudo"));
    }
}
