//! What a run finds in its environment, and which file its command names.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::launch::Job;
use crate::config::{EnvironmentFile, Spawn};
use crate::core::SpawnFailure;
use crate::os::explain::{Stage, explain_exec};

/// Search path where the environment has none; see execvp(3).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the daemon's own supervisor told the daemon, and nobody else.
const PRIVATE: [&str; 17] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "CREDENTIALS_DIRECTORY",
    "MAINPID",
    "FDSTORE",
    "LISTEN_PIDFDID",
    "WATCHDOG_PIDFDID",
    "SYSTEMD_EXEC_PID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    // A daemon that another one runs is a replica itself, its programs are not.
    "MEND_REPLICA",
];

/// A run's environment, in name order.
#[derive(Debug)]
pub(super) struct Environment(BTreeMap<OsString, OsString>);

/// Puts a run's environment together: the daemon's (when inherited), the user's, the environment
/// files', the declared one, in rising precedence.
pub(super) fn build(job: &Job, instance: &str) -> Result<Environment, SpawnFailure> {
    let spawn = &job.program.spawn;
    let mut values: BTreeMap<OsString, OsString> = BTreeMap::new();
    let own = std::env::vars_os();
    if spawn.inherit_environment {
        values.extend(own.filter(|(name, _)| !PRIVATE.iter().any(|word| name == word)));
    } else {
        let kept = ["PATH", "HOME", "USER", "LOGNAME", "SHELL"];
        values.extend(own.filter(|(name, _)| kept.iter().any(|word| name == word)));
    }
    if let Some(user) = &spawn.user {
        values.insert("HOME".into(), user.home.clone().into());
        values.insert("SHELL".into(), user.shell.clone().into());
        values.insert("USER".into(), user.user.clone().into());
        values.insert("LOGNAME".into(), user.user.clone().into());
    }
    let text = |(name, value): (&String, &String)| (name.into(), value.into());
    for file in &spawn.environment_files {
        values.extend(read_file(file)?);
    }
    values.extend(spawn.environment.iter().map(text));
    values.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    values.insert("MEND_INSTANCE".into(), instance.into());
    values.insert("MEND_RUN".into(), job.run.to_string().into());
    values.insert("MEND_PROCESS".into(), job.process.to_string().into());
    if let Some(replica) = job.process.replica() {
        values.insert("MEND_REPLICA".into(), replica.to_string().into());
    }
    Ok(Environment(values))
}

impl Environment {
    /// Sets a variable, whatever it was before.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.into(), value.into());
    }

    /// Returns the value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.get(&OsString::from(name)).map(|value| value.to_string_lossy().into_owned())
    }

    /// Takes a variable away.
    pub(super) fn unset(&mut self, name: &str) {
        self.0.remove(&OsString::from(name));
    }

    pub(super) fn path(&self) -> String {
        self.0
            .get(&OsString::from("PATH"))
            .map_or_else(|| DEFAULT_PATH.to_owned(), |path| path.to_string_lossy().into_owned())
    }

    pub(super) fn to_c_strings(&self) -> Result<Vec<CString>, SpawnFailure> {
        self.0
            .iter()
            .map(|(name, value)| {
                let line = [name.as_bytes(), b"=", value.as_bytes()].concat();
                CString::new(line).map_err(|_| SpawnFailure {
                    message: format!(
                        "the environment variable {} contains a NUL byte",
                        name.to_string_lossy()
                    ),
                    transient: false,
                })
            })
            .collect()
    }
}

/// Reads `NAME=value` lines as systemd's `EnvironmentFile=` does for the common forms: blank
/// lines and `#` or `;` comments are skipped, an `export ` before the name is accepted, one pair
/// of matching quotes around a value is removed.
fn read_file(file: &EnvironmentFile) -> Result<Vec<(OsString, OsString)>, SpawnFailure> {
    let name = file.path.display();
    let bytes = match std::fs::read(&file.path) {
        Ok(bytes) => bytes,
        Err(error) if file.optional && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(error) => {
            return Err(SpawnFailure {
                message: format!(
                    "cannot read the environment file `{name}`: {error} \
                     (a leading `-` makes a missing file optional)"
                ),
                transient: false,
            });
        }
    };
    let mut values = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
            continue;
        }
        let line = line.strip_prefix(b"export ").unwrap_or(line);
        let Some(equals) = line.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else {
            return Err(SpawnFailure {
                message: format!("`{name}`, line {}: expected NAME=value", index + 1),
                transient: false,
            });
        };
        let (key, value) = (line[..equals].trim_ascii(), line[equals + 1..].trim_ascii());
        values.push((OsString::from_vec(key.to_vec()), OsString::from_vec(unquoted(value))));
    }
    Ok(values)
}

fn unquoted(value: &[u8]) -> Vec<u8> {
    for quote in [b'"', b'\''] {
        if let [first, inner @ .., last] = value
            && *first == quote
            && *last == quote
        {
            return inner.to_vec();
        }
    }
    value.to_vec()
}

/// Finds the file that a command names, as execvp(3) would with the run's own PATH.
pub(super) fn find_executable(
    command: &str,
    environment: &Environment,
    spawn: &Spawn,
) -> Result<PathBuf, SpawnFailure> {
    if command.contains('/') {
        return Ok(PathBuf::from(command));
    }
    let path = environment.path();
    let candidates = || {
        path.split(':').filter(|part| !part.is_empty()).map(|part| Path::new(part).join(command))
    };
    let executable = |file: &PathBuf| {
        nix::unistd::access(file.as_path(), nix::unistd::AccessFlags::X_OK).is_ok()
            && file.is_file()
    };
    if let Some(found) = candidates().find(executable) {
        return Ok(found);
    }
    // Present but not executable is worth saying; else the plain name tells what was looked for.
    let (file, errno) = candidates()
        .find(|file| file.is_file())
        .map_or_else(|| (PathBuf::from(command), libc::ENOENT), |file| (file, libc::EACCES));
    Err(explain_exec(errno, Stage::Exec, &file, spawn))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, EnvironmentFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        std::fs::write(&path, text).unwrap();
        (directory, EnvironmentFile { path, optional: false })
    }

    #[test]
    fn an_environment_file_is_read_as_systemd_reads_it() {
        let (_directory, file) =
            file("# comment\n\nA=1\nexport B='two words'\n; c\nC=\"x=y\"\nD=\n  E = e \n");
        let text: Vec<_> = read_file(&file)
            .unwrap()
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect();
        assert_eq!(text, ["A=1", "B=two words", "C=x=y", "D=", "E=e"]);
    }

    #[test]
    fn a_line_that_is_no_assignment_is_named() {
        let (_directory, file) = file("A=1\nnonsense\n");
        let failure = read_file(&file).unwrap_err();
        assert!(failure.message.contains("line 2"), "{}", failure.message);
    }

    #[test]
    fn only_an_optional_file_may_be_missing() {
        let missing = |optional| EnvironmentFile { path: "/nonexistent/env".into(), optional };
        assert_eq!(read_file(&missing(true)).unwrap(), []);
        assert!(read_file(&missing(false)).unwrap_err().message.contains("/nonexistent/env"));
    }
}
