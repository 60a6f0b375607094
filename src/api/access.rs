//! Who may do what: the roles of `[supervisor.access]` against the credentials of a peer.
//!
//! The role is worked out anew for each request, so that a reload takes effect on connections
//! that are already open.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{Access, Principals};
use crate::os::peer::PeerCredentials;

/// What a peer may do; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Status, logs, events.
    Observe,
    /// Start, stop, restart, signal, reload of programs.
    Operate,
    /// Reload of the configuration, shutdown, log level.
    Admin,
}

impl Role {
    /// Returns the key of `[supervisor.access]` that gives this role.
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// Returns the role of `peer`, `None` when it may do nothing.
    ///
    /// Root and the daemon's own user may do everything.
    pub fn of(peer: &PeerCredentials, access: &Access, own_uid: u32) -> Option<Self> {
        if peer.uid == 0 || peer.uid == own_uid || holds(peer, &access.admin) {
            Some(Self::Admin)
        } else if holds(peer, &access.operate) {
            Some(Self::Operate)
        } else if holds(peer, &access.observe) {
            Some(Self::Observe)
        } else {
            None
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn holds(peer: &PeerCredentials, principals: &Principals) -> bool {
    principals.uids.contains(&peer.uid)
        || principals.gids.contains(&peer.gid)
        || peer.groups.iter().any(|group| principals.gids.contains(group))
}

/// Tells whether anybody beside root and the daemon's own user has a role.
pub fn admits_others(access: &Access) -> bool {
    [&access.observe, &access.operate, &access.admin]
        .into_iter()
        .any(|principals| !principals.uids.is_empty() || !principals.gids.is_empty())
}

/// The access rules in force, shared by the server and whoever reloads the configuration.
#[derive(Debug, Clone, Default)]
pub struct SharedAccess(Arc<RwLock<Arc<Access>>>);

impl SharedAccess {
    pub fn new(access: Access) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(access))))
    }

    pub fn get(&self) -> Arc<Access> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the rules; the next request on every connection is judged by the new ones.
    ///
    /// [`super::admit`] adjusts the modes of the socket itself.
    pub fn set(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> PeerCredentials {
        PeerCredentials { uid, gid, pid: 1, groups: groups.to_vec() }
    }

    fn access() -> Access {
        Access {
            observe: Principals { uids: vec![10], gids: vec![100] },
            operate: Principals { uids: vec![11], gids: vec![101] },
            admin: Principals { uids: vec![12], gids: vec![102] },
        }
    }

    #[test]
    fn the_highest_role_that_uid_or_any_group_gives_counts() {
        let role = |peer| Role::of(&peer, &access(), 1000);
        assert_eq!(role(peer(0, 0, &[])), Some(Role::Admin));
        assert_eq!(role(peer(1000, 5, &[])), Some(Role::Admin));
        assert_eq!(role(peer(10, 5, &[])), Some(Role::Observe));
        assert_eq!(role(peer(10, 101, &[])), Some(Role::Operate));
        assert_eq!(role(peer(10, 5, &[7, 102])), Some(Role::Admin));
        assert_eq!(role(peer(11, 5, &[100])), Some(Role::Operate));
        assert_eq!(role(peer(13, 5, &[6])), None);
    }

    #[test]
    fn a_role_includes_the_ones_below_it() {
        assert!(Role::Observe < Role::Operate && Role::Operate < Role::Admin);
    }

    #[test]
    fn only_the_default_access_admits_nobody_else() {
        assert!(!admits_others(&Access::default()));
        assert!(admits_others(&access()));
    }
}
