//! Who asked for a change and what became of it, one line per request.
//!
//! The line is written even when the client goes away before its answer: the job goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{Uid, User};

use super::input::wall_now;
use crate::core::Actor;
use crate::os::peer::PeerCredentials;

/// How long the system's user database may take; a directory server may be far away.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Most user names that are remembered.
const MAX_NAMES: usize = 256;

/// User names by uid, remembered for the life of the daemon.
#[derive(Debug, Default)]
pub(super) struct UserNames(Mutex<BTreeMap<u32, String>>);

impl UserNames {
    /// Returns the user's name, `uid 1234` when it has none or the look-up takes too long.
    async fn name(&self, uid: u32) -> String {
        if uid == 0 {
            return "root".to_owned();
        }
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&uid) {
            return known.clone();
        }
        let lookup = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
        match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(Ok(Some(user)))) => {
                let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if names.len() >= MAX_NAMES {
                    names.clear();
                }
                names.insert(uid, user.name.clone());
                user.name
            }
            _ => format!("uid {uid}"),
        }
    }

    /// Returns who is asking, for the engine's record.
    pub(super) async fn actor(&self, peer: &PeerCredentials, reason: Option<String>) -> Actor {
        let name = self.name(peer.uid).await;
        Actor { uid: Some(peer.uid), name, reason, at: wall_now() }
    }
}

/// One change request on its way; writes its line when it is finished or dropped.
#[derive(Debug)]
pub(super) struct Audit {
    peer: Arc<PeerCredentials>,
    executable: String,
    request: String,
    outcome: Option<String>,
}

impl Audit {
    /// Begins the record of `request`, such as `stop web db`.
    ///
    /// The executable is read at once, while the peer is most likely still alive. It is a hint:
    /// the pid may have been recycled since the peer connected.
    pub(super) fn begin(peer: Arc<PeerCredentials>, request: String) -> Self {
        let executable = std::fs::read_link(format!("/proc/{}/exe", peer.pid))
            .map_or_else(|_| "unknown".to_owned(), |path| path.display().to_string());
        Self { peer, executable, request, outcome: None }
    }

    pub(super) fn finish(mut self, outcome: impl Into<String>) {
        self.outcome = Some(outcome.into());
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let outcome = self.outcome.as_deref().unwrap_or("the client left before the answer");
        tracing::info!(
            target: "mendd::audit",
            uid = self.peer.uid,
            pid = self.peer.pid,
            executable = %self.executable,
            request = %self.request,
            outcome = %outcome,
            "control request"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(work: impl FnOnce(Arc<PeerCredentials>)) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let pid = i32::try_from(std::process::id()).unwrap();
        let peer = PeerCredentials { uid: 7, gid: 7, pid, groups: Vec::new() };
        tracing::subscriber::with_default(subscriber, || work(Arc::new(peer)));
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_change_leaves_one_line_with_who_what_and_outcome() {
        let text = lines_of(|peer| Audit::begin(peer, "stop web".to_owned()).finish("1 done"));
        let executable = std::env::current_exe().unwrap();
        let pid = format!("pid={}", std::process::id());
        for part in
            ["mendd::audit", "uid=7", &pid, "stop web", "1 done", executable.to_str().unwrap()]
        {
            assert!(text.contains(part), "no {part}: {text}");
        }
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_client_that_leaves_is_in_the_audit_too() {
        let text = lines_of(|peer| drop(Audit::begin(peer, "stop web".to_owned())));
        assert!(text.contains("the client left before the answer"), "{text}");
    }

    #[test]
    fn users_without_a_name_are_called_by_their_number() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let names = UserNames::default();
        runtime.block_on(async {
            assert_eq!(names.name(0).await, "root");
            assert_eq!(names.name(3_999_999_999).await, "uid 3999999999");
        });
    }
}
