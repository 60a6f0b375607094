//! Where things are when nobody says otherwise, for root and for an ordinary user.

use std::path::PathBuf;

/// Looks up an environment variable; empty values count as unset here.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

fn directory(env: Env<'_>, variable: &str) -> Option<PathBuf> {
    env(variable).filter(|value| value.starts_with('/')).map(PathBuf::from)
}

fn home(env: Env<'_>) -> PathBuf {
    directory(env, "HOME").unwrap_or_else(|| PathBuf::from("/"))
}

fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The three places of a daemon that runs as some user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultPaths {
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    pub log_dir: PathBuf,
}

/// Returns the places that a daemon of user `uid` uses when `[supervisor]` names none.
pub fn default_paths(env: Env<'_>, uid: u32) -> DefaultPaths {
    if uid == 0 {
        return DefaultPaths {
            socket: "/run/mend/mend.sock".into(),
            state_dir: "/var/lib/mend".into(),
            log_dir: "/var/log/mend".into(),
        };
    }
    let state = directory(env, "XDG_STATE_HOME")
        .unwrap_or_else(|| home(env).join(".local/state"))
        .join("mend");
    DefaultPaths { socket: user_socket(env, uid), log_dir: state.join("log"), state_dir: state }
}

fn user_socket(env: Env<'_>, uid: u32) -> PathBuf {
    match directory(env, "XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("mend/mend.sock"),
        None => PathBuf::from(format!("/tmp/mend-{uid}/mend.sock")),
    }
}

/// Returns the configuration that the daemon reads when `--config` names none:
/// `/etc/mend/supervisor.toml` as root, else `$XDG_CONFIG_HOME/mend/supervisor.toml`.
pub fn default_config_path(env: Env<'_>) -> PathBuf {
    config_path(env, effective_uid())
}

fn config_path(env: Env<'_>, uid: u32) -> PathBuf {
    if uid == 0 {
        return "/etc/mend/supervisor.toml".into();
    }
    directory(env, "XDG_CONFIG_HOME")
        .unwrap_or_else(|| home(env).join(".config"))
        .join("mend/supervisor.toml")
}

/// Returns where a client looks for its daemon, best first: `MEND_SOCKET` alone when it is set,
/// else the user's runtime directory, then `/run/mend/mend.sock`.
pub fn default_socket_candidates(env: Env<'_>) -> Vec<PathBuf> {
    socket_candidates(env, effective_uid())
}

fn socket_candidates(env: Env<'_>, uid: u32) -> Vec<PathBuf> {
    if let Some(socket) = env("MEND_SOCKET").filter(|value| !value.is_empty()) {
        return vec![socket.into()];
    }
    let system = PathBuf::from("/run/mend/mend.sock");
    if uid == 0 {
        return vec![system];
    }
    vec![user_socket(env, uid), system]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_env(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/alice".to_owned()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".to_owned()),
            "XDG_STATE_HOME" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn root_uses_the_places_of_the_system() {
        let paths = default_paths(&user_env, 0);
        assert_eq!(paths.socket, PathBuf::from("/run/mend/mend.sock"));
        assert_eq!(paths.state_dir, PathBuf::from("/var/lib/mend"));
        assert_eq!(paths.log_dir, PathBuf::from("/var/log/mend"));
        assert_eq!(config_path(&user_env, 0), PathBuf::from("/etc/mend/supervisor.toml"));
    }

    #[test]
    fn a_user_uses_their_own_places() {
        let paths = default_paths(&user_env, 7);
        assert_eq!(paths.socket, PathBuf::from("/run/user/7/mend/mend.sock"));
        assert_eq!(paths.state_dir, PathBuf::from("/home/alice/.local/state/mend"));
        assert_eq!(paths.log_dir, PathBuf::from("/home/alice/.local/state/mend/log"));
        let config = PathBuf::from("/home/alice/.config/mend/supervisor.toml");
        assert_eq!(config_path(&user_env, 7), config);
        assert_eq!(user_socket(&|_| None, 7), PathBuf::from("/tmp/mend-7/mend.sock"));
    }

    #[test]
    fn a_client_asks_the_named_daemon_only() {
        let named = |name: &str| (name == "MEND_SOCKET").then(|| "/x.sock".to_owned());
        assert_eq!(socket_candidates(&named, 7), [PathBuf::from("/x.sock")]);
        let places = ["/run/user/7/mend/mend.sock", "/run/mend/mend.sock"].map(PathBuf::from);
        assert_eq!(socket_candidates(&user_env, 7), places);
    }
}
