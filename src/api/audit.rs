//! Who asked for a change and what became of it: a line in the daemon's log and an entry of the
//! history per request.
//!
//! Both are written even when the client goes away before its answer: the job goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{Uid, User};

use super::endpoints::Api;
use super::input::wall_now;
use crate::core::Actor;
use crate::core::rate::{Rate, RateLimit};
use crate::engine::history::{Asked, History, Record};
use crate::os::peer::PeerCredentials;
use crate::time::Wall;

/// How long the system's user database may take; a directory server may be far away.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Most user names that are remembered.
const MAX_NAMES: usize = 256;

/// So many refusals for want of a role are kept: whoever may do nothing could fill the history.
const DENIALS: RateLimit = RateLimit { every: Duration::from_secs(10), burst: 20 };

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
}

/// How many refusals for want of a role were kept lately, and how many were not.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<(Rate, u64)>);

impl Denials {
    /// Returns whether this one is kept, and how many before it were not.
    fn count(&self) -> Option<u64> {
        let mut denials = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match denials.0.try_take(crate::os::clock::now(), &DENIALS) {
            Ok(()) => Some(std::mem::take(&mut denials.1)),
            Err(_) => {
                denials.1 += 1;
                None
            }
        }
    }
}

impl Api {
    /// Begins the record of `request`, such as `stop web db`; returns who makes it, for the
    /// engine's own record.
    pub(super) async fn audit(
        &self,
        peer: &Arc<PeerCredentials>,
        request: String,
        reason: Option<String>,
    ) -> (Audit, Actor) {
        let history = Some(self.settings.history.clone());
        let mut audit = Audit::begin(Arc::clone(peer), request, history);
        audit.reason.clone_from(&reason);
        audit.user = self.users.name(peer.uid).await;
        let actor = Actor { uid: Some(peer.uid), name: audit.user.clone(), reason, at: audit.at };
        (audit, actor)
    }

    /// Records a request that the peer's role does not allow.
    pub(super) async fn note_denied(&self, peer: &Arc<PeerCredentials>, what: &str, needs: &str) {
        let more = match self.denials.count() {
            Some(0) => String::new(),
            Some(count) => format!("; {count} more before it are not kept"),
            None => {
                let outcome = format!("denied: needs {needs}");
                return Audit::begin(Arc::clone(peer), what.to_owned(), None).finish(outcome);
            }
        };
        let (audit, _) = self.audit(peer, what.to_owned(), None).await;
        audit.finish(format!("denied: needs {needs}{more}"));
    }
}

/// One change request on its way; writes its line when it is finished or dropped.
#[derive(Debug)]
pub(super) struct Audit {
    at: Wall,
    peer: Arc<PeerCredentials>,
    user: String,
    executable: Option<String>,
    request: String,
    reason: Option<String>,
    outcome: Option<String>,
    history: Option<History>,
}

impl Audit {
    /// The executable is read at once, while the peer is most likely still alive. It is a hint:
    /// the pid may have been recycled since the peer connected.
    fn begin(peer: Arc<PeerCredentials>, request: String, history: Option<History>) -> Self {
        let executable = std::fs::read_link(format!("/proc/{}/exe", peer.pid))
            .ok()
            .map(|path| path.display().to_string());
        Self {
            at: wall_now(),
            user: format!("uid {}", peer.uid),
            peer,
            executable,
            request,
            reason: None,
            outcome: None,
            history,
        }
    }

    pub(super) fn finish(mut self, outcome: impl Into<String>) {
        self.outcome = Some(outcome.into());
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let outcome = outcome.unwrap_or_else(|| "the client left before the answer".to_owned());
        tracing::info!(
            target: "mendd::audit",
            uid = self.peer.uid,
            pid = self.peer.pid,
            executable = %self.executable.as_deref().unwrap_or("unknown"),
            request = %self.request,
            outcome = %outcome,
            "control request"
        );
        let Some(history) = &self.history else { return };
        history.record(Record::Asked(Asked {
            at: self.at,
            uid: Some(self.peer.uid),
            user: std::mem::take(&mut self.user),
            pid: Some(self.peer.pid),
            executable: self.executable.take(),
            request: std::mem::take(&mut self.request),
            reason: self.reason.take(),
            outcome,
        }));
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
        let text =
            lines_of(|peer| Audit::begin(peer, "stop web".to_owned(), None).finish("1 done"));
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
        let text = lines_of(|peer| drop(Audit::begin(peer, "stop web".to_owned(), None)));
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
