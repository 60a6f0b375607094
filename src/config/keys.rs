//! Every key of the configuration as data: what may be written where, with its default.
//!
//! The loader refuses what is not in this table, suggestions come from it, the example file is
//! tested against it and the documentation is printed from it.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::diagnostic::nearest;

/// Where a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Outside every table.
    Top,
    /// `[supervisor]`
    Supervisor,
    /// `[program.NAME]` and `[defaults.program]`
    Program,
    /// `[group.NAME]`
    Group,
    /// `[[program.NAME.check]]`, `[check.NAME]` and `[defaults.check]`
    Check,
}

impl Section {
    /// Returns the table header as it is written.
    pub fn header(self) -> &'static str {
        match self {
            Self::Top => "top level",
            Self::Supervisor => "[supervisor]",
            Self::Program => "[program.NAME]",
            Self::Group => "[group.NAME]",
            Self::Check => "[check.NAME]",
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
    Supervisor "history_keep", "duration", "30d", "\"30d\"", "age of incidents, requests and results of checks that are kept";
    Supervisor "samples_keep", "duration", "24h", "\"24h\"", "age of measured numbers that are kept";
    Supervisor "history_max_size", "size", "256MiB", "\"256MiB\"", "all of the history together; the oldest goes first, incidents last";

    Supervisor "default_checks", "boolean", "true", "false", "warn of little memory, of full disks of its own directories, and of critical programs that do not run";
    Supervisor "mode.enter", "duration", "10s", "\"10s\"", "so long must something be down until the host counts as degraded or in an emergency";
    Supervisor "mode.leave", "duration", "60s", "\"60s\"", "so long must all be well until it no longer does";
    Supervisor "mode.shed_degraded", "integer", "none", "900", "in a degraded host programs of this priority number or a higher one are stopped";
    Supervisor "mode.shed_emergency", "integer", "none", "500", "the same in an emergency";
    Supervisor "mode.on_change", "list or string", "none", "[\"logger\", \"mode\"]", "run whenever the mode has changed";
    Supervisor "nofile", "integer", "65536", "65536", "open files the daemon asks for itself";
    Supervisor "shutdown_timeout", "duration", "90s", "\"90s\"", "longest orderly shutdown before the rest is killed";
    Supervisor "auto_apply", "boolean", "false", "true", "apply a changed file by itself, with roll-back";

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
    Program "check", "list of checks", "[]", "[{ name = \"http\", http = \"http://127.0.0.1:8000/healthz\" }]", "what is looked at of each of its processes: the keys of a check, in `[[program.NAME.check]]`";
    Program "severity", "minor, normal or critical", "normal", "\"critical\"", "what it means for the host when it is down: nothing, degraded, an emergency";
    Program "stale_files", "path or list of paths", "[]", "[\"/run/web.pid\"]", "files and sockets that the remedy clean-restart removes while nothing of it runs";

    Group "programs", "list of programs", "", "[\"db\", \"web\"]", "its members; a program is in one group at most";

    Check "name", "string", "the kind", "\"http\"", "name of a program's check; that of `[check.NAME]` is in its header";
    Check "exec", "list or string, or a table", "", "[\"check_queue\", \"--max\", \"100\"]", "this command exits with 0 (pass), 1 (warn), 2 (fail) or 3 (unknown)";
    Check "exec.command", "list or string", "", "[\"check_queue\"]", "the command, with the program's environment, directory and limits";
    Check "exec.user", "user", "the program's", "\"nobody\"", "who runs it";
    Check "exec.group", "group", "the user's own", "\"nogroup\"", "primary group of who runs it";
    Check "exec.output", "regular expression", "none", "\"^OK\"", "what it prints must match";
    Check "tcp", "HOST:PORT, unix:PATH or a table", "", "\"127.0.0.1:25\"", "something accepts connections there";
    Check "tcp.address", "HOST:PORT or unix:PATH", "", "\"127.0.0.1:25\"", "where to connect to";
    Check "tcp.send", "string", "nothing", "\"QUIT\\r\\n\"", "sent when the connection is there";
    Check "tcp.expect", "regular expression", "nothing", "\"^220 \"", "what comes back must match";
    Check "tcp.latency", "duration or a table", "none", "{ warn = \"100ms\", fail = \"1s\" }", "longest time until it is there; a single value is where it fails";
    Check "tcp.latency.warn", "duration", "none", "\"100ms\"", "a warning from here on";
    Check "tcp.latency.fail", "duration", "none", "\"1s\"", "a failure from here on";
    Check "http", "URL or a table", "", "\"http://127.0.0.1:8000/healthz\"", "a request is answered well";
    Check "http.url", "URL", "", "\"https://localhost/healthz\"", "what is asked for, over http or https; redirections are not followed";
    Check "http.unix", "path", "none", "\"/run/web.sock\"", "socket to connect to in place of the URL's host";
    Check "http.method", "GET or HEAD", "GET", "\"HEAD\"", "how it is asked";
    Check "http.status", "integer or list of integers", "200 to 399", "[200, 204]", "answers that are good";
    Check "http.body", "regular expression", "none", "\"\\\"ok\\\"\"", "the beginning of the answer must match";
    Check "http.headers", "table of strings", "{}", "{ Authorization = \"Bearer ${TOKEN:-}\" }", "sent in addition to the usual ones";
    Check "http.answer_headers", "table of strings", "{}", "{ content-type = \"^application/json\" }", "regular expressions that headers of the answer must match";
    Check "http.verify", "boolean", "true", "false", "whether the certificate of a server must be good";
    Check "http.ca", "path", "those of the system", "\"/etc/ssl/own-ca.pem\"", "certificates to trust";
    Check "http.latency", "duration or a table", "none", "{ warn = \"500ms\", fail = \"2s\" }", "longest time until the whole answer is there";
    Check "http.latency.warn", "duration", "none", "\"500ms\"", "a warning from here on";
    Check "http.latency.fail", "duration", "none", "\"2s\"", "a failure from here on";
    Check "redis", "HOST:PORT, unix:PATH, URL or a table", "", "\"127.0.0.1:6379\"", "a PING is answered";
    Check "redis.address", "HOST:PORT, unix:PATH or URL", "", "\"unix:/run/redis/redis.sock\"", "where the server is";
    Check "redis.user", "string", "none", "\"mend\"", "name to log in with";
    Check "redis.password", "string", "none", "\"${REDIS_PASSWORD:-}\"", "password to log in with";
    Check "redis.password_env", "string", "none", "\"REDIS_PASSWORD\"", "variable of the program's environment that holds it";
    Check "redis.password_file", "path", "none", "\"/etc/redis/password\"", "file whose first line is the password";
    Check "redis.role", "master or replica", "any", "\"master\"", "what the server must be";
    Check "redis.latency", "duration or a table", "none", "{ warn = \"50ms\", fail = \"1s\" }", "longest time until the answer";
    Check "redis.latency.warn", "duration", "none", "\"50ms\"", "a warning from here on";
    Check "redis.latency.fail", "duration", "none", "\"1s\"", "a failure from here on";
    Check "postgres", "HOST:PORT, unix:PATH, URL or a table", "", "\"postgres://mend@127.0.0.1:5432/app\"", "a query is answered";
    Check "postgres.address", "HOST:PORT, unix:PATH or URL", "", "\"unix:/run/postgresql\"", "where the server is; a path is the directory of its socket";
    Check "postgres.user", "string", "postgres", "\"mend\"", "name to log in with";
    Check "postgres.database", "string", "named like the user", "\"app\"", "where the query is asked";
    Check "postgres.password", "string", "none", "\"${PGPASSWORD:-}\"", "password to log in with";
    Check "postgres.password_env", "string", "none", "\"PGPASSWORD\"", "variable of the program's environment that holds it";
    Check "postgres.password_file", "path", "none", "\"/etc/mend/postgres-password\"", "file whose first line is the password";
    Check "postgres.query", "string", "SELECT 1", "\"SELECT 1\"", "what is asked; any answer is good";
    Check "postgres.latency", "duration or a table", "none", "{ warn = \"200ms\", fail = \"2s\" }", "longest time from connecting to the answer";
    Check "postgres.latency.warn", "duration", "none", "\"200ms\"", "a warning from here on";
    Check "postgres.latency.fail", "duration", "none", "\"2s\"", "a failure from here on";
    Check "memory", "size, percentage or a table", "", "{ warn = \"80%\", fail = \"95%\" }", "memory in use; percent are of `limits.memory`, else of the host";
    Check "memory.warn", "size or percentage", "none", "\"80%\"", "a warning from here on";
    Check "memory.fail", "size or percentage", "none", "\"95%\"", "a failure from here on";
    Check "cpu", "percentage or a table", "", "{ warn = \"80%\", fail = \"95%\", for = \"5m\" }", "processor time in use: of a program in percent of one CPU, of the host of all";
    Check "cpu.warn", "percentage", "none", "\"80%\"", "a warning from here on";
    Check "cpu.fail", "percentage", "none", "\"95%\"", "a failure from here on";
    Check "cpu.for", "duration", "1m", "\"5m\"", "over how long it is averaged";
    Check "fds", "percentage or a table", "", "{ warn = \"80%\", fail = \"95%\" }", "open files in percent of their limit";
    Check "fds.warn", "percentage", "none", "\"80%\"", "a warning from here on";
    Check "fds.fail", "percentage", "none", "\"95%\"", "a failure from here on";
    Check "disk", "path or a table", "", "\"/var\"", "what is free on the file system of a path";
    Check "disk.path", "path", "", "\"/var\"", "which file system";
    Check "disk.free", "size, percentage or a table", "{ warn = \"10%\", fail = \"5%\" }", "{ warn = \"10%\", fail = \"1GiB\" }", "space that must be free";
    Check "disk.free.warn", "size or percentage", "none", "\"10%\"", "a warning below this";
    Check "disk.free.fail", "size or percentage", "none", "\"1GiB\"", "a failure below this";
    Check "disk.free_inodes", "percentage or a table", "{ warn = \"10%\", fail = \"5%\" }", "\"5%\"", "inodes that must be free";
    Check "disk.free_inodes.warn", "percentage", "none", "\"10%\"", "a warning below this";
    Check "disk.free_inodes.fail", "percentage", "none", "\"5%\"", "a failure below this";
    Check "load", "number or a table", "", "{ warn = 2.0, fail = 8.0 }", "load average of the host for each CPU";
    Check "load.warn", "number", "none", "2.0", "a warning from here on";
    Check "load.fail", "number", "none", "8.0", "a failure from here on";
    Check "load.span", "1m, 5m or 15m", "5m", "\"15m\"", "over how long it is averaged";
    Check "pressure", "cpu, memory or io, or a table", "", "\"memory\"", "share of time in which tasks had to wait";
    Check "pressure.of", "cpu, memory or io", "", "\"io\"", "what they waited for";
    Check "pressure.share", "some or full", "cpu: some, memory and io: full", "\"some\"", "whether some or all of them waited";
    Check "pressure.span", "10s, 60s or 300s", "60s", "\"10s\"", "over how long it is averaged";
    Check "pressure.warn", "percentage", "none", "\"20%\"", "a warning from here on";
    Check "pressure.fail", "percentage", "cpu: 60%, memory: 10%, io: 40%", "\"40%\"", "a failure from here on";
    Check "process", "boolean", "", "true", "that it runs, which needs no probe";
    Check "log", "regular expression or a table", "", "\"panic|FATAL\"", "lines of output that match";
    Check "log.pattern", "regular expression", "", "\"ERROR\"", "which lines count";
    Check "log.warn", "integer", "none", "5", "a warning from this many on";
    Check "log.fail", "integer", "1", "50", "a failure from this many on";
    Check "log.within", "duration", "1m", "\"1m\"", "how long each of them counts";
    Check "silence", "duration or a table", "", "\"10m\"", "no output for so long";
    Check "silence.warn", "duration", "none", "\"5m\"", "a warning from here on";
    Check "silence.fail", "duration", "none", "\"10m\"", "a failure from here on";
    Check "heartbeat", "duration or a table", "", "\"30s\"", "it says WATCHDOG=1 to its NOTIFY_SOCKET at least so often";
    Check "heartbeat.within", "duration", "", "\"30s\"", "how old the last sign of life may be";
    Check "heartbeat.file", "path", "none", "\"/run/worker/alive\"", "the sign is that this file is written";
    Check "certificate", "HOST:PORT or a table", "", "\"localhost:443\"", "time until a certificate expires";
    Check "certificate.address", "HOST:PORT", "", "\"localhost:443\"", "server that shows it";
    Check "certificate.server_name", "string", "the host", "\"example.org\"", "name that the server is asked for";
    Check "certificate.file", "path", "", "\"/etc/ssl/site.pem\"", "file that it is in";
    Check "certificate.warn", "duration", "21d", "\"21d\"", "a warning when there is no more time than this";
    Check "certificate.fail", "duration", "7d", "\"7d\"", "a failure when there is no more time than this";
    Check "role", "start, live or ready", "live", "\"ready\"", "start: holds back the others until it passes; live: may heal; ready: only tells others";
    Check "severity", "minor, normal or critical", "the program's; host: normal", "\"critical\"", "what it means for the host when it is down: nothing, degraded, an emergency";
    Check "interval", "duration", "10s; exec: 30s", "\"10s\"", "from the end of one run to the next; shorter in doubt, longer when down";
    Check "timeout", "duration", "5s; exec: 10s", "\"5s\"", "longest run; shorter than the interval";
    Check "fall", "integer", "3", "3", "failures in a row until it is down";
    Check "fail_if", "string", "", "\"3 of 5\"", "the same with a number among the last verdicts, in place of fall";
    Check "rise", "integer", "2", "2", "passes in a row until it is up again";
    Check "start_timeout", "duration", "the program's; host: 60s", "\"60s\"", "time after a start in which failures do not count before the first pass";
    Check "heal", "list of remedies", "[]", "[\"reload\", \"restart\", { run = [\"fix\"], timeout = \"30s\" }]", "what is tried in turn when it is down: confirm, reload, signal:NAME, restart, clean-restart, restart-group, run:COMMAND, fallback:PROGRAM, rollback, shed, alert, quarantine";
    Check "heal.remedy", "string", "", "\"restart\"", "a remedy as it is written without a table";
    Check "heal.signal", "signal", "", "\"USR1\"", "sends a signal to the main process";
    Check "heal.run", "list or string", "", "[\"fix\"]", "runs a command as the program is run";
    Check "heal.fallback", "program", "", "\"web-static\"", "starts this standby, and stops it again when the program is well";
    Check "heal.steps", "list of { run, undo }", "", "[{ run = [\"drain\"], undo = [\"undrain\"] }]", "commands in turn; when one fails, those before it are undone in reverse";
    Check "heal.steps.run", "list or string", "", "[\"drain\"]", "command of this step";
    Check "heal.steps.undo", "list or string", "none", "[\"undrain\"]", "command that takes it back";
    Check "heal.timeout", "duration", "60s; restarts: the times to stop and start", "\"30s\"", "the remedy has failed when it is not over by then";
    Check "mode", "act or observe", "act", "\"observe\"", "observe only says what it would do";
    Check "cooldown", "duration", "60s", "\"60s\"", "least time from one remedy to the next";
    Check "stable", "duration", "60s", "\"60s\"", "time up until the next failure begins at the foot of the ladder again";
};

/// Keys that are planned but not part of this version: section, name, what they will do.
const LATER: &[(Section, &str, &str)] = &[
    (Section::Supervisor, "http", "control over TCP"),
    (Section::Program, "schedule", "scheduled programs"),
    (Section::Top, "session", "tmux sessions"),
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
    (Section::Program, "stop_timeout", "stop.grace"),
    (Section::Program, "stop_grace_period", "stop.grace"),
    (Section::Program, "kill_timeout", "stop.grace"),
    (Section::Program, "TimeoutStopSec", "stop.grace"),
    (Section::Program, "stop_signal", "stop.signal"),
    (Section::Program, "KillSignal", "stop.signal"),
    (Section::Program, "redirect_stderr", "logs.merge_stderr"),
    (Section::Program, "stdout_logfile_maxbytes", "logs.max_size"),
    (Section::Program, "stdout_logfile_backups", "logs.keep"),
    (Section::Program, "healthcheck", "check"),
    (Section::Program, "liveness", "check"),
    (Section::Check, "cert", "certificate"),
    (Section::Check, "command", "exec"),
    (Section::Check, "script", "exec"),
    (Section::Check, "url", "http"),
    (Section::Check, "address", "tcp"),
    (Section::Check, "threshold", "fall"),
    (Section::Check, "retries", "fall"),
    (Section::Check, "failureThreshold", "fall"),
    (Section::Check, "successThreshold", "rise"),
    (Section::Check, "periodSeconds", "interval"),
    (Section::Check, "timeoutSeconds", "timeout"),
    (Section::Check, "start_period", "start_timeout"),
    (Section::Check, "initialDelaySeconds", "start_timeout"),
    (Section::Check, "on_failure", "heal"),
    (Section::Check, "impact", "severity"),
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
    static PARTS: LazyLock<HashSet<(Section, &str, &str)>> = LazyLock::new(|| {
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
        let is_meant = key.name.rsplit_once('.').is_some_and(|(_, last)| last == name);
        // What one kind of check knows is of no use to another.
        let is_here =
            section != Section::Check || prefix.is_empty() || key.name.starts_with(prefix);
        key.section == section && is_meant && is_here
    });
    let in_check = section == Section::Program && is_child(Section::Check, "", name);
    match elsewhere {
        Some(key) => Stranger::Named(key.name.to_owned()),
        None if in_check => Stranger::Named(format!("check.{name}")),
        None => Stranger::Unknown(known),
    }
}

/// Prints the table of all keys as Markdown, one table for each section.
pub fn markdown_table() -> String {
    let mut out = String::new();
    let all = [Section::Top, Section::Supervisor, Section::Program, Section::Group, Section::Check];
    for section in all {
        if !out.is_empty() {
            out.push('\n');
        }
        let header = match section {
            Section::Top => "Top level".to_owned(),
            Section::Supervisor | Section::Program | Section::Group => {
                format!("`{}`", section.header())
            }
            Section::Check => {
                "`[[program.NAME.check]]`, `[check.NAME]` (of the host) and `[defaults.check]`"
                    .to_owned()
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
