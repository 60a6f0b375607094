//! Every key of the configuration as data: what may be written where, with its default.
//!
//! The loader refuses what is not in this table, suggestions come from it, the example file is
//! tested against it and the documentation is printed from it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::diagnostic::nearest;

/// Where a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Outside every table.
    Top,
    /// `[supervisor]`
    Supervisor,
    /// `[program.NAME]` and `[defaults.program]`
    Program,
    /// `[group.NAME]`
    Group,
}

impl Section {
    /// Returns the table header as it is written.
    pub fn header(self) -> &'static str {
        match self {
            Self::Top => "top level",
            Self::Supervisor => "[supervisor]",
            Self::Program => "[program.NAME]",
            Self::Group => "[group.NAME]",
        }
    }
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub section: Section,
    /// Dotted below its section: `backoff.initial`.
    pub name: &'static str,
    /// The type in words: `duration`, `list of programs`.
    pub kind: &'static str,
    /// The default in words or as it would be written; empty when there is none.
    pub default: &'static str,
    /// A value as it is written.
    pub example: &'static str,
    /// One line for people.
    pub help: &'static str,
}

macro_rules! keys {
    ($($section:ident $name:literal, $kind:literal, $default:literal, $example:literal, $help:literal;)*) => {
        &[$(Key {
            section: Section::$section,
            name: $name,
            kind: $kind,
            default: $default,
            example: $example,
            help: $help,
        }),*]
    };
}

/// Every key there is, in the order of the documentation.
pub const KEYS: &[Key] = keys! {
    Top "include", "list of paths or globs", "[]", "[\"conf.d/*.toml\"]", "further files, relative to this one, in sorted order";

    Supervisor "socket", "path", "/run/mend/mend.sock; user: $XDG_RUNTIME_DIR/mend/mend.sock", "\"/run/mend/mend.sock\"", "control socket; its directory is the runtime directory";
    Supervisor "state_dir", "path", "/var/lib/mend; user: ~/.local/state/mend", "\"/var/lib/mend\"", "goals, generations of the configuration and the history, mend.db";
    Supervisor "log_dir", "path", "/var/log/mend; user: ~/.local/state/mend/log", "\"/var/log/mend\"", "output of the programs";
    Supervisor "log.level", "string", "info", "\"info\"", "what the daemon logs: error, warn, info, debug, trace or a filter";
    Supervisor "log.format", "human or json", "human", "\"json\"", "form of the daemon's log";
    Supervisor "log.file", "path", "standard error", "\"/var/log/mend/mendd.log\"", "where the daemon's log goes";
    Supervisor "access.observe.users", "list of users", "[]", "[\"alice\"]", "who may look, beside root and the daemon's own user";
    Supervisor "access.observe.groups", "list of groups", "[]", "[\"adm\"]", "groups that may look";
    Supervisor "access.operate.users", "list of users", "[]", "[\"alice\"]", "who may start, stop, restart and signal";
    Supervisor "access.operate.groups", "list of groups", "[]", "[\"staff\"]", "groups that may start, stop, restart and signal";
    Supervisor "access.admin.users", "list of users", "[]", "[\"alice\"]", "who may reload and shut down";
    Supervisor "access.admin.groups", "list of groups", "[]", "[\"sudo\"]", "groups that may reload and shut down";
    Supervisor "environment", "table of strings", "{}", "{ TZ = \"UTC\" }", "added to the environment of every program";
    Supervisor "nofile", "integer", "65536", "65536", "open files the daemon asks for itself";
    Supervisor "shutdown_timeout", "duration", "90s", "\"90s\"", "longest orderly shutdown before the rest is killed";
    Supervisor "auto_apply", "boolean", "false", "true", "apply a changed file by itself, with roll-back";
    Supervisor "history_keep", "duration", "30d", "\"30d\"", "age of incidents, requests and results of checks that are kept";
    Supervisor "samples_keep", "duration", "24h", "\"24h\"", "age of measured numbers that are kept";
    Supervisor "history_max_size", "size", "256MiB", "\"256MiB\"", "all of the history together; the oldest goes first, incidents last";

    Program "command", "list or string", "", "[\"sleep\", \"60\"]", "what to run; a string is split like a shell would, without running one";
    Program "shell", "boolean", "false", "true", "hand the command, a string, to /bin/sh -c";
    Program "user", "user", "the daemon's own", "\"www-data\"", "name or number of the user to run as";
    Program "group", "group", "the user's own", "\"www-data\"", "name or number of the primary group";
    Program "directory", "path", "the daemon's own", "\"/srv/web\"", "working directory; ~ is the home of the user";
    Program "umask", "octal string", "022", "\"027\"", "permissions taken from new files";
    Program "environment", "table of strings", "{}", "{ PORT = \"8000\" }", "set in addition to what is inherited";
    Program "environment_file", "path or list of paths", "[]", "[\"-/etc/default/web\"]", "NAME=value files, read at each start; a leading - allows it to be missing";
    Program "inherit_environment", "boolean", "true", "false", "start from the daemon's environment";
    Program "nice", "integer", "the daemon's own", "5", "-20 (favoured) to 19";
    Program "oom_score_adj", "integer", "0", "500", "-1000 (never killed) to 1000 (killed first) when memory is short";
    Program "limits.memory", "size", "none", "\"512MiB\"", "memory of all its processes (cgroup)";
    Program "limits.cpu", "percentage", "none", "\"50%\"", "of one CPU; 150% is one and a half (cgroup)";
    Program "limits.tasks", "integer", "none", "200", "processes and threads together (cgroup)";
    Program "limits.nofile", "integer or unlimited", "inherited", "65536", "open files of a process";
    Program "limits.nproc", "integer or unlimited", "inherited", "512", "processes of the user";
    Program "limits.core", "size or unlimited", "inherited", "0", "size of a core dump";
    Program "limits.fsize", "size or unlimited", "inherited", "\"1GiB\"", "size of a written file";
    Program "limits.stack", "size or unlimited", "inherited", "\"8MiB\"", "stack of the main thread";
    Program "limits.as", "size or unlimited", "inherited", "\"4GiB\"", "address space of a process";
    Program "limits.memlock", "size or unlimited", "inherited", "\"64MiB\"", "locked memory";
    Program "limits.cpu_time", "duration or unlimited", "inherited", "\"1h\"", "CPU time of a process before SIGXCPU";
    Program "stdin", "null or path", "null", "\"null\"", "what it reads from";
    Program "no_new_privs", "boolean", "false", "true", "setuid programs gain nothing below it";
    Program "replicas", "integer", "one process without a number", "2", "run this many processes, NAME:0, NAME:1, …";
    Program "autostart", "boolean", "true", "false", "start with the daemon";
    Program "priority", "integer", "999", "100", "lower starts first and stops last";
    Program "requires", "list of programs", "[]", "[\"db\"]", "must run; started before, stopped after this one";
    Program "wants", "list of programs", "[]", "[\"cache\"]", "are started before too, but may fail";
    Program "after", "list of programs", "[]", "[\"migrate\"]", "order only, where both start";
    Program "restart_with", "list of programs", "[]", "[\"db\"]", "order as with after; restarts when one of them has a new run";
    Program "start_period", "duration", "1s", "\"1s\"", "time up before it counts as running, without ready";
    Program "startsecs", "duration", "", "\"1s\"", "another name of start_period";
    Program "ready", "notify, fd:N or a table", "none", "\"notify\"", "what shows that it is ready: READY=1 to its NOTIFY_SOCKET, a line on descriptor N, or one of the following";
    Program "ready.tcp", "HOST:PORT", "", "\"127.0.0.1:5432\"", "something accepts connections there";
    Program "ready.http", "URL", "", "\"http://127.0.0.1:8000/healthz\"", "a GET is answered well";
    Program "ready.status", "integer or list of integers", "200 to 399", "[200, 204]", "answers to ready.http that are good";
    Program "ready.log", "regular expression", "", "\"ready to accept connections\"", "a line of its output matches";
    Program "ready.after", "duration", "", "\"1s\"", "it is up this long";
    Program "ready.exec", "list or string", "", "[\"pg_isready\", \"-q\"]", "this command, run as the program is, exits with 0";
    Program "ready.interval", "duration", "100ms, growing to 1s", "\"1s\"", "from one probe (tcp, http, exec) to the next";
    Program "ready.timeout", "duration", "2s, exec: 10s", "\"500ms\"", "longest probe";
    Program "start_timeout", "duration", "60s", "\"60s\"", "a start that is not ready by then has failed";
    Program "watchdog", "duration", "none", "\"30s\"", "it sends WATCHDOG=1 to its NOTIFY_SOCKET at least so often, or is killed and restarted";
    Program "restart", "always, on-failure or never", "always", "\"on-failure\"", "when to start it again after it ended";
    Program "success_exit_codes", "list of integers", "[0]", "[0, 3]", "exit codes that are no failure";
    Program "permanent_exit_codes", "list of integers", "[]", "[78]", "exit codes after which a restart is pointless";
    Program "backoff.initial", "duration", "500ms", "\"500ms\"", "delay after the first failure";
    Program "backoff.max", "duration", "60s", "\"60s\"", "longest delay";
    Program "backoff.factor", "number", "2.0", "2.0", "growth of the delay with each failure";
    Program "backoff.jitter", "number", "0.25", "0.25", "random part of the delay, 0 to 1";
    Program "backoff.reset_after", "duration", "60s", "\"60s\"", "time up after which failures are forgotten";
    Program "breaker.failures", "integer", "5", "5", "failures within the window that open the breaker";
    Program "breaker.window", "duration", "2m", "\"2m\"", "time in which failures are counted";
    Program "breaker.open", "duration", "5m", "\"5m\"", "pause when open; doubles with each failed try";
    Program "breaker.max_open", "duration", "1h", "\"1h\"", "longest pause";
    Program "stop.signal", "signal", "TERM", "\"TERM\"", "asks it to end";
    Program "stop.grace", "duration", "10s", "\"10s\"", "time it has before SIGKILL";
    Program "stop.sequence", "list of { signal, grace }", "", "[{ signal = \"INT\", grace = \"5s\" }]", "several signals in turn, instead of signal and grace";
    Program "stop.sequence.signal", "signal", "", "\"INT\"", "signal of this step";
    Program "stop.sequence.grace", "duration", "10s", "\"5s\"", "time before the next step";
    Program "reload_signal", "signal", "none", "\"HUP\"", "makes it read its configuration again";
    Program "watch", "path or list of paths or globs", "[]", "[\"/srv/web/**/*.py\"]", "files, directories or globs, relative to this file; a change renews what runs";
    Program "watch_ignore", "list of names or globs", "[]", "[\"*.log\", \"build\"]", "what is not watched, beside what editors and version control leave";
    Program "watch_debounce", "duration", "500ms", "\"500ms\"", "so long must nothing change before anything is done";
    Program "on_watch", "restart, reload or signal:NAME", "reload with reload_signal, else restart", "\"restart\"", "what is done when a watched file has changed";
    Program "logs.sink", "file, stdout, journald or none", "file", "\"file\"", "where output goes; stdout and journald in addition to the file";
    Program "logs.merge_stderr", "boolean", "true", "false", "one log for both streams";
    Program "logs.max_size", "size", "10MiB", "\"10MiB\"", "a file is closed at the line end after this size";
    Program "logs.max_age", "duration", "none", "\"1d\"", "a file is closed at the line end after this age";
    Program "logs.keep", "integer", "10", "10", "closed files that are kept";
    Program "logs.max_total", "size", "none", "\"500MiB\"", "all files of one stream together";
    Program "logs.compress", "zstd or none", "zstd", "\"zstd\"", "what happens to closed files";
    Program "logs.full_disk_block", "duration", "30s", "\"30s\"", "time a full disk may block it before output is dropped";

    Group "programs", "list of programs", "", "[\"db\", \"web\"]", "its members; a program is in one group at most";
};

/// Keys that are planned but not part of this version: section, name, what they will do.
const LATER: &[(Section, &str, &str)] = &[
    (Section::Supervisor, "http", "control over TCP"),
    (Section::Program, "check", "health checks"),
    (Section::Program, "heal", "healing"),
    (Section::Program, "schedule", "scheduled programs"),
    (Section::Top, "session", "tmux sessions"),
    (Section::Top, "check", "health checks"),
    (Section::Top, "alert", "alerts"),
    (Section::Top, "backup", "backups"),
];

/// What other supervisors call our keys.
const FOREIGN: &[(Section, &str, &str)] = &[
    (Section::Program, "cmd", "command"),
    (Section::Program, "exec", "command"),
    (Section::Program, "ExecStart", "command"),
    (Section::Program, "args", "command"),
    (Section::Program, "cwd", "directory"),
    (Section::Program, "dir", "directory"),
    (Section::Program, "working_directory", "directory"),
    (Section::Program, "env", "environment"),
    (Section::Program, "env_file", "environment_file"),
    (Section::Program, "numprocs", "replicas"),
    (Section::Program, "instances", "replicas"),
    (Section::Program, "autorestart", "restart"),
    (Section::Program, "readiness", "ready"),
    (Section::Program, "TimeoutStartSec", "start_timeout"),
    (Section::Program, "WatchdogSec", "watchdog"),
    (Section::Program, "depends_on", "requires"),
    (Section::Program, "exitcodes", "success_exit_codes"),
    (Section::Program, "startretries", "breaker.failures"),
    (Section::Program, "stopsignal", "stop.signal"),
    (Section::Program, "stopwaitsecs", "stop.grace"),
    (Section::Program, "redirect_stderr", "logs.merge_stderr"),
    (Section::Program, "stdout_logfile_maxbytes", "logs.max_size"),
    (Section::Program, "stdout_logfile_backups", "logs.keep"),
    (Section::Supervisor, "loglevel", "log.level"),
    (Section::Supervisor, "logfile", "log.file"),
    (Section::Supervisor, "minfds", "nofile"),
];

/// Finds a key by its section and dotted name.
pub fn find(section: Section, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Returns the next part of every key below `prefix` (`""` or `backoff`), without repeats.
pub fn children(section: Section, prefix: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for key in KEYS.iter().filter(|key| key.section == section) {
        let rest = match prefix {
            "" => Some(key.name),
            _ => key.name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')),
        };
        let first = rest.and_then(|rest| rest.split('.').next());
        if let Some(first) = first.filter(|first| !names.contains(first)) {
            names.push(first);
        }
    }
    names
}

/// Returns whether `name` is the next part of a key below `prefix`.
pub fn is_child(section: Section, prefix: &str, name: &str) -> bool {
    static PARTS: LazyLock<BTreeSet<(Section, &str, &str)>> = LazyLock::new(|| {
        let parts = |key: &Key| {
            let (section, name) = (key.section, key.name);
            let ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
            let parts = move |end| {
                let (prefix, last) = name[..end].rsplit_once('.').unwrap_or(("", &name[..end]));
                (section, prefix, last)
            };
            ends.map(parts).collect::<Vec<_>>()
        };
        KEYS.iter().flat_map(parts).collect()
    });
    PARTS.contains(&(section, prefix, name))
}

/// What is known about a key that is not in the table.
pub(super) enum Stranger {
    /// Will exist; the text says for what.
    Later(&'static str),
    /// Another supervisor's word, or the right word in the wrong place.
    Named(String),
    /// Perhaps mistyped.
    Near(&'static str),
    Unknown(Vec<&'static str>),
}

/// Judges a key that [`children`] does not list.
pub(super) fn stranger(section: Section, prefix: &str, name: &str) -> Stranger {
    if prefix.is_empty() {
        if let Some((.., what)) = LATER.iter().find(|(s, n, _)| *s == section && *n == name) {
            return Stranger::Later(what);
        }
        if let Some((.., ours)) = FOREIGN.iter().find(|(s, n, _)| *s == section && *n == name) {
            return Stranger::Named((*ours).to_owned());
        }
    }
    let known = children(section, prefix);
    if let Some(near) = nearest(name, known.iter().copied()) {
        return Stranger::Near(near);
    }
    let elsewhere = KEYS.iter().find(|key| {
        key.section == section && key.name.rsplit_once('.').is_some_and(|(_, last)| last == name)
    });
    match elsewhere {
        Some(key) => Stranger::Named(key.name.to_owned()),
        None => Stranger::Unknown(known),
    }
}

/// Prints the table of all keys as Markdown, one table for each section.
pub fn markdown_table() -> String {
    let mut out = String::new();
    for section in [Section::Top, Section::Supervisor, Section::Program, Section::Group] {
        if !out.is_empty() {
            out.push('\n');
        }
        let header = match section {
            Section::Top => "Top level".to_owned(),
            Section::Supervisor | Section::Program | Section::Group => {
                format!("`{}`", section.header())
            }
        };
        out.push_str(&format!(
            "**{header}**\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n"
        ));
        for key in KEYS.iter().filter(|key| key.section == section) {
            let default = match key.default {
                "" => String::new(),
                default => format!("`{}`", default.replace('|', "\\|")),
            };
            out.push_str(&format!(
                "| `{}` | {} | {default} | {} |\n",
                key.name,
                key.kind,
                key.help.replace('|', "\\|")
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_key_once() {
        let table = markdown_table();
        for key in KEYS {
            let same = KEYS.iter().filter(|k| k.section == key.section && k.name == key.name);
            assert_eq!(same.count(), 1, "{}", key.name);
            assert!(table.contains(&format!("| `{}` |", key.name)));
        }
    }

    #[test]
    fn the_parts_of_keys_are_the_children_of_their_prefixes() {
        for key in KEYS {
            let (prefix, last) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            assert!(is_child(key.section, prefix, last), "{}", key.name);
            for child in children(key.section, prefix) {
                assert!(is_child(key.section, prefix, child), "{prefix} {child}");
            }
        }
        assert!(
            is_child(Section::Program, "", "stop") && is_child(Section::Program, "stop", "grace")
        );
        assert!(!is_child(Section::Program, "stop", "signa"));
        assert!(!is_child(Section::Group, "stop", "signal"));
    }

    #[test]
    fn words_of_other_supervisors_lead_to_ours() {
        for (section, foreign, ours) in FOREIGN {
            assert!(find(*section, foreign).is_none(), "{foreign} exists");
            let parent = children(*section, "").contains(ours);
            assert!(parent || find(*section, ours).is_some(), "{ours} does not exist");
        }
    }
}
