//! Where a daemon lives and what it is given, before it is started.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::{Daemon, Ran, run};

const MENDD: &str = env!("CARGO_BIN_EXE_mendd");
const CHILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bin/child");

/// Where a daemon lives, before it is started.
pub(crate) struct Setup {
    dir: TempDir,
    pub(super) id: String,
    preamble: String,
    supervisor: String,
    programs: String,
    flags: Vec<String>,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// Prepares a daemon with these `[program.…]` tables.
    ///
    /// `{dir}` stands for the test's directory, `{child}` for the program of odd children,
    /// `{id}` for the value of the marker `MEND_TEST_ID`.
    pub(crate) fn new(programs: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{count}", std::process::id());
        // A socket path has at most 107 bytes.
        let temp = Some(env::temp_dir()).filter(|dir| dir.as_os_str().len() < 60);
        let dir = tempfile::Builder::new()
            .prefix("mend-it-")
            .tempdir_in(temp.unwrap_or_else(|| "/tmp".into()))
            .expect("a directory for the test");
        Self {
            dir,
            id,
            preamble: String::new(),
            supervisor: String::new(),
            programs: programs.to_owned(),
            flags: Vec::new(),
            wrapper: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Adds lines to `[supervisor]`.
    pub(crate) fn supervisor(mut self, lines: &str) -> Self {
        self.supervisor.push_str(lines);
        self.supervisor.push('\n');
        self
    }

    /// Adds top-level keys, which TOML wants before the first table.
    pub(crate) fn preamble(mut self, lines: &str) -> Self {
        self.preamble.push_str(lines);
        self
    }

    /// Adds a flag of `mendd`.
    pub(crate) fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Starts the daemon through this command, which must exec it or be its parent.
    pub(crate) fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|word| self.fill(word)).collect();
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the tables given to [`Setup::new`], for a test that needs the directory first.
    pub(crate) fn programs(mut self, programs: &str) -> Self {
        programs.clone_into(&mut self.programs);
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn fill(&self, text: &str) -> String {
        let dir = self.dir.path().to_str().expect("the temporary directory is UTF-8");
        text.replace("{dir}", dir).replace("{child}", CHILD).replace("{id}", &self.id)
    }

    pub(super) fn config_text(&self, programs: &str) -> String {
        let head = "[supervisor]\nsocket = \"{dir}/run/mend.sock\"\nstate_dir = \"{dir}/state\"\n\
                    log_dir = \"{dir}/logs\"\n";
        self.fill(&format!("{}{head}{}\n{programs}\n", self.preamble, self.supervisor))
    }

    pub(super) fn config_path(&self) -> PathBuf {
        self.dir().join("mend.toml")
    }

    pub(super) fn command(&self) -> Command {
        fs::write(self.config_path(), self.config_text(&self.programs)).expect("a configuration");
        self.command_as_it_is()
    }

    /// As [`Setup::command`], on the configuration file as it is.
    fn command_as_it_is(&self) -> Command {
        let mut words: Vec<String> = self.wrapper.clone();
        words.push(MENDD.to_owned());
        words.push("--config".to_owned());
        words.push(self.config_path().to_str().expect("UTF-8").to_owned());
        words.extend(self.flags.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("MEND_TEST_ID", &self.id);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "MEND_SOCKET"]
        {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Runs `mendd --check` on the configuration.
    #[track_caller]
    pub(crate) fn check(&self) -> Ran {
        run(self.command().arg("--check"))
    }

    /// Runs the daemon where it is expected to refuse and to end by itself.
    #[track_caller]
    pub(crate) fn refused(&self) -> Ran {
        let ran = run(&mut self.command());
        assert_ne!(ran.code, 0, "the daemon was expected to refuse: {ran:#?}");
        ran
    }

    /// Starts the daemon and returns when it answers.
    #[track_caller]
    pub(crate) fn start(self) -> Daemon {
        let process = spawn(&self, self.command());
        let mut daemon = Daemon::new(self, process);
        daemon.wait_until_ready();
        daemon
    }
}

/// Starts the daemon once more, on the configuration file as it is.
pub(super) fn spawn_as_it_is(setup: &Setup) -> Child {
    spawn(setup, setup.command_as_it_is())
}

pub(super) fn spawn(setup: &Setup, mut command: Command) -> Child {
    let log = |name: &str| {
        let path = setup.dir().join(name);
        File::options().create(true).append(true).open(path).expect("a file for the daemon's words")
    };
    command
        .stdin(Stdio::null())
        .stdout(log("daemon.out"))
        .stderr(log("daemon.log"))
        .spawn()
        .expect("mendd can be executed")
}
