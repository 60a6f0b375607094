//! What the operator starts: checks everything that can be checked, takes the runtime directory,
//! and becomes the keeper.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};

use super::Exit;
use super::options::Options;
use crate::config::Config;
use crate::engine::active;
use crate::keeper::arguments::KeeperArguments;
use crate::keeper::{self, KEEPER_LOCK};
use crate::os::{limits, process};

/// Looks up a variable of this process's environment.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns only when there is nothing to run or it cannot be run.
pub(super) fn launch(words: Vec<OsString>) -> ExitCode {
    let options = match Options::from_words(words.clone()) {
        Ok(options) => options,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = error.print();
            return code.into();
        }
    };
    let path = options.config_path();
    let colour = io::stderr().is_terminal();
    let loaded = match crate::config::load(&path, &variable) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", report.render(colour));
            match recover(&options, &path) {
                Some(loaded) => loaded,
                None => return Exit::Configuration.into(),
            }
        }
    };
    eprint!("{}", loaded.render_warnings(colour));
    if options.check {
        let count = loaded.config.programs.len();
        eprintln!("{}: good; {count} programs", path.display());
        return Exit::Ok.into();
    }
    if let Some(program) = &options.exit_when
        && !loaded.config.programs.contains_key(program)
    {
        eprintln!("mendd: --exit-when names `{program}`, which is not configured");
        return Exit::Usage.into();
    }
    match become_keeper(&loaded.config, &path, words) {
        Ok(never) => match never {},
        Err((exit, message)) => {
            eprintln!("mendd: {message}");
            exit.into()
        }
    }
}

/// A broken file must not keep a daemon from coming back to what runs: the configuration that
/// was active when it died still counts, while a run of it may live.
fn recover(options: &Options, path: &Path) -> Option<crate::config::Loaded> {
    if options.check {
        return None;
    }
    let runtime_dir = guess_runtime_dir(path);
    let loaded = active::load(&runtime_dir)?.loaded;
    eprintln!(
        "mendd: programs of an earlier daemon are left in `{}`: going on with the configuration \
         that it had",
        runtime_dir.display()
    );
    Some(loaded)
}

/// The runtime directory cannot be read from a broken file: the default one, or that of the
/// `socket` line if it is there to be read.
fn guess_runtime_dir(path: &Path) -> PathBuf {
    let text = fs::read_to_string(path).unwrap_or_default();
    let socket = text.lines().find_map(|line| {
        let value = line.trim().strip_prefix("socket")?.trim_start().strip_prefix('=')?;
        value.trim().strip_prefix('"')?.split('"').next().map(PathBuf::from)
    });
    let uid = process::effective_uid();
    let socket = socket.unwrap_or_else(|| crate::config::default_paths(&variable, uid).socket);
    socket.parent().map(Path::to_path_buf).unwrap_or_default()
}

fn become_keeper(
    config: &Config,
    path: &Path,
    words: Vec<OsString>,
) -> Result<std::convert::Infallible, (Exit, String)> {
    let supervisor = &config.supervisor;
    // What a careless parent left open must reach neither the keeper nor any program, and what
    // the daemon makes is for its own group at most, unless it says otherwise.
    process::close_on_exec_from(first_foreign_descriptor());
    umask(Mode::from_bits_truncate(0o027));
    let cannot = |what: &str, path: &Path, error: &io::Error| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let help = if denied { not_ours(path) } else { String::new() };
        (Exit::CannotCreate, format!("cannot {what} `{}`: {error}{help}", path.display()))
    };
    make_directory(&supervisor.runtime_dir, 0o750)
        .map_err(|error| cannot("make the runtime directory", &supervisor.runtime_dir, &error))?;
    for directory in [&supervisor.state_dir, &supervisor.log_dir] {
        make_directory(directory, 0o750)
            .map_err(|error| cannot("make the directory", directory, &error))?;
    }
    for (key, directory) in
        [("socket", &supervisor.runtime_dir), ("state_dir", &supervisor.state_dir)]
    {
        check_safe(key, directory).map_err(|message| (Exit::CannotCreate, message))?;
    }
    let mut lock = take_lock(&supervisor.runtime_dir)?;
    // The keeper will have this process's pid.
    keeper::sign_lock(&mut lock)
        .map_err(|error| cannot("write the lock in", &supervisor.runtime_dir, &error))?;
    let nofile = limits::raise_nofile(supervisor.nofile);
    let options = with_absolute_config(words, path);
    let arguments = KeeperArguments {
        runtime_dir: supervisor.runtime_dir.clone(),
        lock: lock.as_raw_fd(),
        nofile,
        table: None,
        brain: None,
        rehearsal: false,
        handover: None,
        options,
    };
    let error = exec_keeper(&arguments);
    Err((Exit::Failure, format!("cannot become the keeper: {error}")))
}

/// Returns the number after the standard descriptors and those that systemd passed to this
/// process; see sd_listen_fds(3).
fn first_foreign_descriptor() -> i32 {
    const FIRST: i32 = 3;
    let number = |name: &str| variable(name).and_then(|text| text.parse::<u32>().ok());
    let stored = number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(std::process::id()));
    FIRST.saturating_add(stored.and_then(|count| i32::try_from(count).ok()).unwrap_or(0))
}

fn exec_keeper(arguments: &KeeperArguments) -> io::Error {
    if let Err(error) = process::set_inherited(arguments.lock, true) {
        return error;
    }
    match arguments.to_argv() {
        Ok(argv) => process::exec(c"/proc/self/exe", &argv),
        Err(error) => error,
    }
}

/// A brain starts in the same directory, but an upgrade or a handover may not.
fn with_absolute_config(words: Vec<OsString>, path: &Path) -> Vec<OsString> {
    let mut words = words.into_iter();
    let mut kept = vec![OsString::from("--config"), path.as_os_str().to_owned()];
    while let Some(word) = words.next() {
        if word == "--config" || word == "-c" {
            words.next();
            continue;
        }
        let text = word.to_string_lossy();
        if !(text.starts_with("--config=") || (text.starts_with("-c") && text.len() > 2)) {
            kept.push(word);
        }
    }
    kept
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(error.kind(), "something that is no directory is in the way"))
        }
        result => result,
    }
}

/// Refuses a directory in which somebody else could plant files: records there decide which
/// processes are signalled, links there which files are written.
fn check_safe(key: &str, directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    let about =
        fs::metadata(directory).map_err(|error| format!("cannot look at `{shown}`: {error}"))?;
    let problem = if about.uid() != 0 && about.uid() != process::effective_uid() {
        format!("belongs to uid {}", about.uid())
    } else if about.mode() & 0o002 != 0 {
        "can be written by everyone".to_owned()
    } else {
        return Ok(());
    };
    Err(format!(
        "the directory `{shown}` (of `{key}`) {problem}, who could make mendd act on processes and \
         files of others; choose a directory of its own"
    ))
}

/// Says whose the nearest directory is that is there, and what to do about it.
fn not_ours(path: &Path) -> String {
    let found = path.ancestors().find_map(|place| Some((place, fs::symlink_metadata(place).ok()?)));
    let Some((place, about)) = found else { return String::new() };
    let uid = nix::unistd::Uid::from_raw(about.uid());
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let user = user.map_or_else(|| format!("uid {uid}"), |user| format!("`{}`", user.name));
    format!(
        "; `{}` belongs to {user}: run mendd as that user, or choose other places with `socket`, \
         `state_dir` and `log_dir`",
        place.display()
    )
}

/// Takes the runtime directory for this daemon alone.
fn take_lock(runtime_dir: &Path) -> Result<File, (Exit, String)> {
    let path = runtime_dir.join(KEEPER_LOCK);
    keeper::take_lock(&path).map_err(|error| {
        if error.kind() != io::ErrorKind::WouldBlock {
            return (Exit::CannotCreate, format!("cannot open `{}`: {error}", path.display()));
        }
        let holder = fs::read_to_string(&path).unwrap_or_default();
        let message = format!(
            "another mendd (pid {}) has the runtime directory `{}`; use another `socket`, or stop \
             that one with `mendctl shutdown`",
            holder.trim(),
            runtime_dir.display()
        );
        (Exit::Taken, message)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn words(texts: &[&str]) -> Vec<OsString> {
        texts.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_configuration_is_passed_on_by_its_absolute_path_alone() {
        for given in [
            &["-c", "x.toml", "--log-level", "debug"][..],
            &["--log-level", "debug", "--config=x.toml"],
            &["-cx.toml", "--log-level", "debug"],
        ] {
            let kept = with_absolute_config(words(given), Path::new("/etc/x.toml"));
            assert_eq!(kept, words(&["--config", "/etc/x.toml", "--log-level", "debug"]));
        }
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let set = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            check_safe("socket", directory.path())
        };
        assert_eq!(set(0o755), Ok(()));
        for mode in [0o777, 0o1777] {
            let message = set(mode).unwrap_err();
            assert!(message.contains("everyone") && message.contains("`socket`"), "{message}");
        }
    }

    #[test]
    fn a_second_daemon_is_told_who_has_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = take_lock(directory.path()).unwrap();
        keeper::sign_lock(&mut first).unwrap();
        let (exit, message) = take_lock(directory.path()).unwrap_err();
        assert_eq!(exit, Exit::Taken);
        assert!(message.contains(&std::process::id().to_string()), "{message}");
    }
}
