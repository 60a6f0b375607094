//! What was configured is what the process gets; what was not is clean.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::{Daemon, Setup};
use crate::proc;

/// The `NAME=value` lines that the odd child prints about itself.
struct Facts {
    text: String,
    values: BTreeMap<String, String>,
}

impl Facts {
    fn of(daemon: &Daemon, name: &str) -> Self {
        let text = daemon.wait_log(name, "end of facts");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let values = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { text, values }
    }

    #[track_caller]
    fn get(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    fn env(&self, name: &str) -> Option<&str> {
        self.values.get(&format!("env:{name}")).map(String::as_str)
    }

    /// The rest of the line of `/proc/self/FILE` that starts with `start`.
    #[track_caller]
    fn line(&self, file: &str, start: &str) -> &str {
        let start = format!("{file}:{start}");
        let found = self.text.lines().find_map(|line| line.strip_prefix(start.as_str()));
        found.unwrap_or_else(|| panic!("no {start:?} in {}", self.text)).trim()
    }
}

#[test]
fn directory_umask_environment_nice_and_stdin_are_applied() {
    let setup = Setup::new(
        "[program.p]\ncommand = ['{child}', 'facts']\ndirectory = '{dir}/work'\numask = '027'\n\
         nice = 15\nstdin = '{dir}/input'\n\
         environment = { COLOUR = 'blue', BOTH = 'table', FROM = '${OUTSIDE:-unset}' }\n\
         environment_file = ['{dir}/env', '-{dir}/absent']\n",
    )
    .environment("OUTSIDE", "seen");
    fs::create_dir(setup.dir().join("work")).expect("a directory");
    fs::write(setup.dir().join("input"), "two\nlines\n").expect("an input");
    fs::write(setup.dir().join("env"), "# a comment\nFILE=yes\nBOTH=file\nQUOTED=\"a b\"\n")
        .expect("an environment file");
    let daemon = setup.start();
    let facts = Facts::of(&daemon, "p");
    let work = fs::canonicalize(daemon.file("work")).expect("it exists");
    assert_eq!(facts.get("cwd"), work.to_str().expect("UTF-8"));
    assert_eq!(facts.get("umask"), "027");
    assert_eq!(facts.get("nice"), "15");
    assert_eq!(facts.get("stdin"), "two\\nlines\\n");
    assert_eq!(facts.env("COLOUR"), Some("blue"));
    assert_eq!(facts.env("FROM"), Some("seen"));
    assert_eq!(facts.env("FILE"), Some("yes"));
    assert_eq!(facts.env("QUOTED"), Some("a b"));
    assert_eq!(facts.env("OUTSIDE"), Some("seen"), "the daemon's environment is inherited");
    assert!(facts.env("MEND_RUN").is_some(), "every run carries its marker");
}

#[test]
fn a_program_may_start_from_an_empty_environment() {
    let daemon = Setup::new(
        "[program.p]\ncommand = ['{child}', 'facts']\ninherit_environment = false\n\
         environment = { MEND_TEST_ID = '{id}' }\n",
    )
    .environment("SECRET_OF_THE_DAEMON", "x")
    .start();
    let facts = Facts::of(&daemon, "p");
    assert_eq!(facts.env("SECRET_OF_THE_DAEMON"), None);
    assert!(facts.env("PATH").is_some());
}

#[test]
fn a_child_starts_clean_whatever_the_daemon_has_open_or_blocked() {
    // Perl ignores SIGFPE by itself, so `cat` shows the signals.
    let daemon = Daemon::start(
        "[program.p]\ncommand = ['{child}', 'facts']\n\
         [program.cat]\ncommand = ['cat', '/proc/self/status']\nrestart = 'never'\n",
    );
    let facts = Facts::of(&daemon, "p");
    assert_eq!(facts.get("fds"), "", "descriptors above 2 are closed");
    assert_eq!(facts.get("stdin_is"), "/dev/null");
    assert_eq!(facts.get("session"), "own");
    let status = daemon.wait_log("cat", "nonvoluntary_ctxt_switches");
    for set in ["SigBlk:", "SigIgn:"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set)).expect("a line");
        assert_eq!(line.trim(), "0000000000000000", "{set}");
    }
    assert_eq!(facts.line("oom_score_adj", ""), "0");
}

#[test]
fn limits_are_soft_and_hard_at_once() {
    let daemon = Daemon::start(
        "[program.p]\ncommand = ['{child}', 'facts']\nno_new_privs = true\noom_score_adj = 300\n\
         limits = { nofile = 77, core = 0, fsize = '64MiB', cpu_time = '1h' }\n",
    );
    let facts = Facts::of(&daemon, "p");
    let numbers = |start| -> Vec<String> {
        facts.line("limits", start).split_whitespace().take(2).map(str::to_owned).collect()
    };
    assert_eq!(numbers("Max open files"), ["77", "77"]);
    assert_eq!(numbers("Max core file size"), ["0", "0"]);
    assert_eq!(numbers("Max file size"), ["67108864", "67108864"]);
    assert_eq!(numbers("Max cpu time"), ["3600", "3600"]);
    assert_eq!(facts.line("status", "NoNewPrivs:"), "1");
    assert_eq!(facts.line("oom_score_adj", ""), "300");
}

#[test]
fn a_program_runs_as_the_user_it_names() {
    if !proc::is_root() {
        return proc::skip("only root can become another user");
    }
    // Nothing of the test's own directory, which other users may not read.
    let daemon = Daemon::start(
        "[program.p]\nshell = true\ndirectory = '/'\nuser = 'nobody'\n\
         command = 'id -u; id -g; echo $HOME $USER $LOGNAME; echo again > /dev/stdout; \
         cat /proc/self/status; exec sleep 1000'\n",
    );
    let log = daemon.wait_log("p", "nonvoluntary_ctxt_switches");
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("nobody exists");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], nobody.uid.to_string());
    assert_eq!(lines[1], nobody.gid.to_string());
    assert_eq!(lines[2], format!("{} nobody nobody", nobody.dir.display()));
    assert_eq!(lines[3], "again", "/dev/stdout can be opened by the program's user");
    let groups = lines.iter().find_map(|line| line.strip_prefix("Groups:")).expect("a line");
    assert_eq!(groups.trim(), nobody.gid.to_string(), "no group of root is left");
}

#[test]
fn a_command_as_text_is_split_like_a_shell_would_and_run_without_one() {
    let daemon = Daemon::start(
        "[program.text]\ncommand = \"sh -c 'echo \\\"$0 $1\\\"; exec sleep 1000' 'a b' c\"\n\
         [program.star]\ncommand = 'echo * $HOME'\nrestart = 'never'\nstart_period = 0\n\
         [program.shell]\nshell = true\ncommand = 'echo one | tr o O; exec sleep 1000'\n",
    );
    daemon.wait_log("text", "a b c\n");
    daemon.wait_log("star", "* $HOME\n");
    daemon.wait_log("shell", "One\n");
}
