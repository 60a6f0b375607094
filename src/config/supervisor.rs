//! `[supervisor]`: the daemon's own settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, eaccess, geteuid};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::command::words;
use super::identity::principals;
use super::model::{Access, DaemonLog, HistoryLimits, LogFormat, Supervisor};
use super::paths::default_paths;
use super::program::environment;
use super::read::{Context, Place};
use super::tree::{Node, Table};

/// Longest path of a Unix socket, in bytes.
const MAX_SOCKET_PATH: usize = 107;
/// Less than this would be removed before anybody reads it.
const MIN_HISTORY_SIZE: u64 = 1 << 20;
const DEFAULT_NOFILE: u64 = 65_536;
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(90);
/// What the variables that override a key begin with.
const VARIABLES: &str = "MEND_SUPERVISOR";

/// Reads `[supervisor]`; what is missing or wrong gets its default.
pub(super) fn supervisor(cx: &Context<'_>, mut table: Table<'_>) -> Supervisor {
    table.check_keys(cx);
    table.variables = Some(VARIABLES.to_owned());
    let home = (cx.env)("HOME").map(PathBuf::from);
    let path = |key: &str| {
        let node = table.get(cx, key)?;
        let path = cx.path(&node, home.as_deref())?;
        check_directory(cx, &node, &path);
        Some(path)
    };
    let defaults = default_paths(cx.env, cx.uid);
    let socket = match table.get(cx, "socket") {
        Some(node) => cx.path(&node, home.as_deref()).map(|path| (path, node.place())),
        None => Some((defaults.socket.clone(), Place::Variable("XDG_RUNTIME_DIR".to_owned()))),
    };
    let socket = socket
        .and_then(|(path, place)| checked_socket(cx, path, &place))
        .unwrap_or(defaults.socket);
    let nofile = table.get(cx, "nofile").and_then(|node| cx.integer(&node, 64..=1 << 30));
    let timeout = table.get(cx, "shutdown_timeout").and_then(|node| cx.some_duration(&node));
    let auto_apply = table.get(cx, "auto_apply").and_then(|node| cx.boolean(&node));
    let log = table.sub(cx, "log");
    let access = table.sub(cx, "access");
    let default_checks = table.get(cx, "default_checks").and_then(|node| cx.boolean(&node));
    let runtime_dir = socket.parent().map_or_else(|| "/".into(), Path::to_path_buf);
    let state_dir = path("state_dir").unwrap_or(defaults.state_dir);
    let log_dir = path("log_dir").unwrap_or(defaults.log_dir);
    check_apart(cx, &table, &runtime_dir, &state_dir, &log_dir);
    Supervisor {
        runtime_dir,
        socket,
        state_dir,
        log_dir,
        log: daemon_log(cx, &log, home.as_deref()),
        access: Access {
            observe: principals(cx, &access.sub(cx, "observe")),
            operate: principals(cx, &access.sub(cx, "operate")),
            admin: principals(cx, &access.sub(cx, "admin")),
        },
        environment: environment(cx, &table),
        nofile: nofile.and_then(|n| u64::try_from(n).ok()).unwrap_or(DEFAULT_NOFILE),
        default_checks: default_checks.unwrap_or(true),
        shutdown_timeout: timeout.unwrap_or(DEFAULT_SHUTDOWN_TIMEOUT),
        auto_apply: auto_apply.unwrap_or(false),
        history: history(cx, &table),
    }
}

fn history(cx: &Context<'_>, table: &Table<'_>) -> HistoryLimits {
    let defaults = HistoryLimits::default();
    let time = |key: &str| table.get(cx, key).and_then(|node| cx.some_duration(&node));
    let size = table.get(cx, "history_max_size").and_then(|node| {
        let size = cx.size(&node)?;
        if size < MIN_HISTORY_SIZE {
            return cx.bad(&node, "must be 1MiB or more");
        }
        Some(size)
    });
    HistoryLimits {
        keep: time("history_keep").unwrap_or(defaults.keep),
        samples_keep: time("samples_keep").unwrap_or(defaults.samples_keep),
        max_size: size.unwrap_or(defaults.max_size),
    }
}

/// Warns when logs or what has to outlive a boot lie where they disturb or get lost.
fn check_apart(cx: &Context<'_>, table: &Table<'_>, runtime: &Path, state: &Path, logs: &Path) {
    let check = |key: &str, message: String, help: &str| {
        // What nobody has written comes from defaults, which are apart.
        let written = [key, "log_dir", "state_dir", "socket"];
        if let Some(node) = written.iter().find_map(|key| table.get(cx, key)) {
            cx.warning(&node.place(), "shared-directory", message, help);
        }
    };
    let of_user = (cx.env)("XDG_RUNTIME_DIR").map(PathBuf::from);
    let of_boot = ["/run", "/var/run", "/dev/shm"].map(PathBuf::from);
    let passes = of_boot.iter().chain(&of_user).any(|place| runtime.starts_with(place));
    for (key, directory) in [("log_dir", logs), ("state_dir", state)] {
        if passes && directory.starts_with(runtime) {
            let message = format!(
                "`{key}` is beside the socket in `{}`, which is kept in memory and gone after a \
                 reboot",
                runtime.display()
            );
            check(key, message, "give it a directory on a disk");
        }
    }
    if logs == state {
        let message = format!("`log_dir` and `state_dir` are both `{}`", logs.display());
        let help = "give each its own, so that whoever clears away logs leaves the state alone";
        check("log_dir", message, help);
    }
}

/// Warns when a directory that the daemon makes and fills could not be made or filled now.
fn check_directory(cx: &Context<'_>, node: &Node<'_>, path: &Path) {
    let Some(there) = path.ancestors().find(|place| place.symlink_metadata().is_ok()) else {
        return;
    };
    let shown = there.display();
    let (why, help) = if !there.is_dir() {
        (format!("`{shown}` is no directory"), "choose another place, or remove what is there")
    } else if eaccess(there, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let uid = geteuid();
        (
            format!("uid {uid} may not write to `{shown}`"),
            "change its owner, or start as another user",
        )
    } else {
        return;
    };
    let message = format!("`{}` cannot be used: {why}", node.key);
    cx.warning(&node.place(), "unusable-directory", message, help);
}

fn checked_socket(cx: &Context<'_>, path: PathBuf, place: &Place) -> Option<PathBuf> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let message =
            format!("the path of the socket has {length} bytes, {MAX_SOCKET_PATH} are allowed");
        cx.error(place, "socket-path-too-long", message, "choose a shorter directory");
        return None;
    }
    Some(path)
}

/// What follows from the mode of the whole host, `[supervisor.mode]`.
pub(super) struct Mode {
    pub(super) rules: super::ModeRules,
    pub(super) on_change: Option<Vec<String>>,
}

/// Reads `[supervisor.mode]`; `table` is that of `[supervisor]`.
pub(super) fn mode(cx: &Context<'_>, mut table: Table<'_>) -> Mode {
    table.variables = Some(VARIABLES.to_owned());
    let table = table.sub(cx, "mode");
    let usual = super::ModeRules::default();
    let time = |key: &str| table.get(cx, key).and_then(|node| cx.some_duration(&node));
    let range = i64::from(i32::MIN)..=i64::from(i32::MAX);
    let priority = |key: &str| {
        let number = table.get(cx, key).and_then(|node| cx.integer(&node, range.clone()));
        number.and_then(|number| i32::try_from(number).ok())
    };
    let rules = super::ModeRules {
        enter: time("enter").unwrap_or(usual.enter),
        leave: time("leave").unwrap_or(usual.leave),
        shed_degraded: priority("shed_degraded"),
        shed_emergency: priority("shed_emergency"),
    };
    if let (Some(degraded), Some(emergency)) = (rules.shed_degraded, rules.shed_emergency)
        && emergency > degraded
        && let Some(node) = table.get(cx, "shed_emergency")
    {
        let message =
            format!("an emergency would stop programs from {emergency} on, less than {degraded}");
        let help = "give it a number that is not higher than that of `shed_degraded`";
        cx.error(&node.place(), "bad-value", message, help);
    }
    let on_change = table.get(cx, "on_change").and_then(|node| words(cx, &node, None));
    Mode { rules, on_change }
}

fn daemon_log(cx: &Context<'_>, table: &Table<'_>, home: Option<&Path>) -> DaemonLog {
    let level = table.get(cx, "level").and_then(|node| {
        let text = cx.string(&node)?;
        match parse_log_filter(&text) {
            Ok(_) => Some(text),
            Err(why) => cx.bad(&node, why),
        }
    });
    let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
    let format = table.get(cx, "format").and_then(|node| cx.choice(&node, &formats));
    DaemonLog {
        level: level.unwrap_or_else(|| "info".to_owned()),
        format: format.unwrap_or(LogFormat::Human),
        file: table.get(cx, "file").and_then(|node| cx.path(&node, home)),
    }
}

/// Reads the level of the daemon's own log: one level, or levels by module after commas.
///
/// # Errors
///
/// A sentence that begins with what is wrong, such as `must be …`.
pub fn parse_log_filter(text: &str) -> Result<Targets, String> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    for part in text.split(',') {
        let (target, level) = part.split_once('=').unwrap_or(("", part));
        let named = target.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c));
        if !named || !is_level(level.trim()) {
            return Err(
                "must be error, warn, info, debug, trace or off, or such levels by module \
                        as in `info,mendd::capture=debug`"
                    .to_owned(),
            );
        }
    }
    text.parse().map_err(|error| format!("must be a level: {error}"))
}
