//! What differs between two checked configurations, key by key, in the words of the file.
//!
//! Every field of the model is taken apart here by name, so that a new one cannot be forgotten.
//! Values of environment variables never come out: only which variables changed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::changes_checks::compare_checks;
use super::checks::IMPACTS;
use super::model::{
    Backoff, Breaker, Compression, Config, HistoryLimits, Lifecycle, Limits, LogFormat, Logs,
    OnWatch, Program, RestartPolicy, Sink, Spawn, Stdin, Stop, Supervisor, Watch, WatchTarget,
};
use super::model_check::{Impact, ModeRules};
use super::readiness::{Probe, Probing, Ready};
use super::secrets::{HIDDEN, hidden_words, without_secrets};
use super::units::{format_duration, signal_name};
use super::watch::WATCH_IGNORE;

/// When a changed key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// At once, without a restart.
    InPlace,
    /// The processes of the program are replaced.
    Restart,
    /// Not before the daemon itself is started again.
    DaemonRestart,
}

/// One key that differs. `None` is a value that is not set, or one that is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    pub key: String,
    pub old: Option<String>,
    pub new: Option<String>,
    pub effect: Effect,
}

/// Returns what differs between two declarations of one program.
pub fn program_changes(old: &Program, new: &Program) -> Vec<KeyChange> {
    let mut list = List::default();
    let Program {
        name: _,
        group,
        replicas,
        spawn,
        lifecycle,
        logs,
        watch,
        checks,
        impact,
        stale_files,
    } = old;
    list.effect = Effect::Restart;
    compare_spawn(&mut list, spawn, &new.spawn);
    // One process without a number and numbered ones have different names.
    let renamed = replicas.is_none() != new.replicas.is_none();
    list.effect = if renamed { Effect::Restart } else { Effect::InPlace };
    list.optional("replicas", replicas.as_ref(), new.replicas.as_ref());
    compare_readiness(&mut list, old, new);
    list.effect = Effect::InPlace;
    list.value("group", group, &new.group);
    compare_lifecycle(&mut list, lifecycle, &new.lifecycle);
    compare_logs(&mut list, logs, &new.logs);
    compare_watch(&mut list, watch.as_ref(), new.watch.as_ref());
    compare_checks(&mut list, checks, &new.checks);
    list.value("severity", severity(*impact), severity(new.impact));
    let paths = |paths: &[PathBuf]| list_of(paths.iter().map(|path| path.display()));
    list.value("stale_files", &paths(stale_files), &paths(&new.stale_files));
    list.changes
}

/// Returns what differs in `[supervisor]`, `[group.…]` and the files that are read.
pub fn setting_changes(old: &Config, new: &Config) -> Vec<KeyChange> {
    let mut list = List::default();
    let Config {
        supervisor,
        programs: _,
        groups,
        checks,
        mode,
        on_mode_change,
        files,
        include_globs,
    } = old;
    compare_supervisor(&mut list, supervisor, &new.supervisor);
    compare_mode(&mut list, mode, &new.mode);
    let command = |argv: &Vec<String>| words(argv);
    let (old_hook, new_hook) = (on_mode_change.as_ref(), new.on_mode_change.as_ref());
    list.push("supervisor.mode.on_change".into(), old_hook.map(command), new_hook.map(command));
    compare_checks(&mut list, checks, &new.checks);
    let members = |group: &super::Group| list_of(&group.programs);
    let mut names: Vec<_> = groups.keys().chain(new.groups.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (old, new) = (groups.get(name).map(members), new.groups.get(name).map(members));
        list.push(format!("group.{name}"), old, new);
    }
    let paths = |paths: &[PathBuf]| list_of(paths.iter().map(|path| path.display()));
    list.value("files", &paths(files), &paths(&new.files));
    list.value("include", &list_of(include_globs), &list_of(&new.include_globs));
    list.changes
}

pub(super) struct List {
    changes: Vec<KeyChange>,
    effect: Effect,
}

impl Default for List {
    fn default() -> Self {
        Self { changes: Vec::new(), effect: Effect::InPlace }
    }
}

impl List {
    pub(super) fn push(&mut self, key: String, old: Option<String>, new: Option<String>) {
        if old != new {
            self.changes.push(KeyChange { key, old, new, effect: self.effect });
        }
    }

    /// Notes a change that cannot be seen in what is shown.
    pub(super) fn push_hidden(&mut self, key: String, old: Option<String>, new: Option<String>) {
        self.changes.push(KeyChange { key, old, new, effect: self.effect });
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    fn value<T: Display + ?Sized>(&mut self, key: &str, old: &T, new: &T) {
        self.push(key.to_owned(), Some(old.to_string()), Some(new.to_string()));
    }

    fn optional<T: Display>(&mut self, key: &str, old: Option<&T>, new: Option<&T>) {
        self.push(key.to_owned(), old.map(T::to_string), new.map(T::to_string));
    }

    fn time(&mut self, key: &str, old: Duration, new: Duration) {
        self.value(key, &format_duration(old), &format_duration(new));
    }

    fn path(&mut self, key: &str, old: Option<&Path>, new: Option<&Path>) {
        let text = |path: &Path| path.display().to_string();
        self.push(key.to_owned(), old.map(text), new.map(text));
    }

    /// Names the variables that differ; their values stay hidden.
    fn environment(&mut self, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
            let shown = |there: bool| there.then(|| "(hidden)".to_owned());
            let (old, new) = (shown(old.contains_key(name)), shown(new.contains_key(name)));
            let key = format!("environment.{name}");
            self.changes.push(KeyChange { key, old, new, effect: self.effect });
        }
    }
}

fn list_of<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

fn words(argv: &[String]) -> String {
    let quote = |word: &String| match shlex::try_quote(word) {
        Ok(quoted) => quoted.into_owned(),
        Err(_) => word.escape_default().to_string(),
    };
    let shown: Vec<String> = argv
        .iter()
        .zip(hidden_words(argv))
        .map(|(word, shown)| if shown == HIDDEN { shown } else { quote(word) })
        .collect();
    let text = shown.join(" ");
    without_secrets(&text).unwrap_or(text)
}

fn compare_spawn(list: &mut List, old: &Spawn, new: &Spawn) {
    let Spawn {
        argv,
        user,
        directory,
        umask,
        inherit_environment,
        environment,
        environment_files,
        nice,
        oom_score_adj,
        limits,
        stdin,
        no_new_privs,
        // These follow from `ready` and `watchdog`; see `compare_readiness`.
        notify: _,
        watchdog: _,
        ready_fd: _,
    } = old;
    list.value("command", &words(argv), &words(&new.argv));
    let identity = |user: &super::Identity| {
        let super::Identity { user, uid, gid, groups, home, shell } = user;
        let (home, shell) = (home.display(), shell.display());
        format!("{user} (uid {uid}, gid {gid}, groups {}, {home}, {shell})", list_of(groups))
    };
    list.push("user".into(), user.as_ref().map(identity), new.user.as_ref().map(identity));
    list.path("directory", directory.as_deref(), new.directory.as_deref());
    list.value("umask", &format!("{umask:03o}"), &format!("{:03o}", new.umask));
    list.value("inherit_environment", inherit_environment, &new.inherit_environment);
    list.environment(environment, &new.environment);
    let file = |file: &super::EnvironmentFile| {
        format!("{}{}", if file.optional { "-" } else { "" }, file.path.display())
    };
    let old_files = list_of(environment_files.iter().map(file));
    list.value("environment_file", &old_files, &list_of(new.environment_files.iter().map(file)));
    list.optional("nice", nice.as_ref(), new.nice.as_ref());
    list.value("oom_score_adj", oom_score_adj, &new.oom_score_adj);
    compare_limits(list, limits, &new.limits);
    let input = |stdin: &Stdin| match stdin {
        Stdin::Null => "null".to_owned(),
        Stdin::File(path) => path.display().to_string(),
    };
    list.value("stdin", &input(stdin), &input(&new.stdin));
    list.value("no_new_privs", no_new_privs, &new.no_new_privs);
}

/// What a process is told of its readiness and watchdog when it is spawned needs another run; what
/// is only asked from outside does not.
fn compare_readiness(list: &mut List, old: &Program, new: &Program) {
    let told = |spawn: &Spawn| (spawn.notify, spawn.watchdog, spawn.ready_fd);
    let respawns = told(&old.spawn) != told(&new.spawn);
    list.effect = if respawns { Effect::Restart } else { Effect::InPlace };
    let (old, new) = (&old.lifecycle, &new.lifecycle);
    let ready = |lifecycle: &Lifecycle| {
        let text = lifecycle.ready.as_ref().map(readiness)?;
        Some(without_secrets(&text).unwrap_or(text))
    };
    list.push("ready".into(), ready(old), ready(new));
    let watchdog = |lifecycle: &Lifecycle| lifecycle.watchdog.map(format_duration);
    list.push("watchdog".into(), watchdog(old), watchdog(new));
}

fn readiness(ready: &Ready) -> String {
    let Ready::Probe(Probing { probe, interval, timeout }) = ready else {
        return ready.to_string();
    };
    let statuses = match probe {
        Probe::Http(target) if !target.statuses.is_empty() => {
            format!(" with status {}", list_of(&target.statuses))
        }
        Probe::Http(_) | Probe::Tcp(_) | Probe::Exec(_) => String::new(),
    };
    let every = interval.map(|time| format!(", every {}", format_duration(time)));
    format!("{probe}{statuses}{}, within {}", every.unwrap_or_default(), format_duration(*timeout))
}

fn compare_limits(list: &mut List, old: &Limits, new: &Limits) {
    let Limits {
        memory_bytes,
        cpu_percent,
        tasks,
        nofile,
        nproc,
        core_bytes,
        fsize_bytes,
        stack_bytes,
        address_space_bytes,
        memlock_bytes,
        cpu_seconds,
    } = old;
    list.optional("limits.cpu", cpu_percent.as_ref(), new.cpu_percent.as_ref());
    for (key, old, new) in [
        ("limits.memory", memory_bytes, new.memory_bytes),
        ("limits.tasks", tasks, new.tasks),
        ("limits.nofile", nofile, new.nofile),
        ("limits.nproc", nproc, new.nproc),
        ("limits.core", core_bytes, new.core_bytes),
        ("limits.fsize", fsize_bytes, new.fsize_bytes),
        ("limits.stack", stack_bytes, new.stack_bytes),
        ("limits.as", address_space_bytes, new.address_space_bytes),
        ("limits.memlock", memlock_bytes, new.memlock_bytes),
        ("limits.cpu_time", cpu_seconds, new.cpu_seconds),
    ] {
        list.optional(key, old.as_ref(), new.as_ref());
    }
}

fn compare_lifecycle(list: &mut List, old: &Lifecycle, new: &Lifecycle) {
    let Lifecycle {
        autostart,
        priority,
        requires,
        wants,
        after,
        restart_with,
        start_period,
        start_timeout,
        // Compared by `compare_readiness`.
        ready: _,
        watchdog: _,
        restart,
        success_exit_codes,
        permanent_exit_codes,
        backoff,
        breaker,
        stop,
        reload_signal,
    } = old;
    list.value("autostart", autostart, &new.autostart);
    list.value("priority", priority, &new.priority);
    list.value("requires", &list_of(requires), &list_of(&new.requires));
    list.value("wants", &list_of(wants), &list_of(&new.wants));
    list.value("after", &list_of(after), &list_of(&new.after));
    list.value("restart_with", &list_of(restart_with), &list_of(&new.restart_with));
    list.time("start_period", *start_period, new.start_period);
    list.time("start_timeout", *start_timeout, new.start_timeout);
    let policy = |restart: RestartPolicy| match restart {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "never",
    };
    list.value("restart", policy(*restart), policy(new.restart));
    let codes = |codes: &[i32]| list_of(codes);
    list.value("success_exit_codes", &codes(success_exit_codes), &codes(&new.success_exit_codes));
    let (old_codes, new_codes) = (codes(permanent_exit_codes), codes(&new.permanent_exit_codes));
    list.value("permanent_exit_codes", &old_codes, &new_codes);
    compare_backoff(list, backoff, &new.backoff);
    compare_breaker(list, breaker, &new.breaker);
    let steps =
        |Stop { steps }: &Stop| {
            list_of(steps.iter().map(|step| {
                format!("{} {}", signal_name(step.signal), format_duration(step.grace))
            }))
        };
    list.value("stop", &steps(stop), &steps(&new.stop));
    let signal = |signal: &i32| signal_name(*signal);
    let (old_signal, new_signal) = (reload_signal.as_ref(), new.reload_signal.as_ref());
    list.push("reload_signal".into(), old_signal.map(signal), new_signal.map(signal));
}

fn compare_backoff(list: &mut List, old: &Backoff, new: &Backoff) {
    let Backoff { initial, max, factor, jitter, reset_after } = old;
    list.time("backoff.initial", *initial, new.initial);
    list.time("backoff.max", *max, new.max);
    list.value("backoff.factor", factor, &new.factor);
    list.value("backoff.jitter", jitter, &new.jitter);
    list.time("backoff.reset_after", *reset_after, new.reset_after);
}

fn compare_breaker(list: &mut List, old: &Breaker, new: &Breaker) {
    let Breaker { failures, window, open, max_open } = old;
    list.value("breaker.failures", failures, &new.failures);
    list.time("breaker.window", *window, new.window);
    list.time("breaker.open", *open, new.open);
    list.time("breaker.max_open", *max_open, new.max_open);
}

fn compare_logs(list: &mut List, old: &Logs, new: &Logs) {
    let Logs {
        sink,
        merge_stderr,
        max_size_bytes,
        max_age,
        keep,
        max_total_bytes,
        compress,
        full_disk_block,
    } = old;
    let sink_name = |sink: Sink| match sink {
        Sink::File => "file",
        Sink::Stdout => "stdout",
        Sink::Journald => "journald",
        Sink::None => "none",
    };
    list.value("logs.sink", sink_name(*sink), sink_name(new.sink));
    list.value("logs.merge_stderr", merge_stderr, &new.merge_stderr);
    list.value("logs.max_size", max_size_bytes, &new.max_size_bytes);
    let age = |age: &Duration| format_duration(*age);
    list.push("logs.max_age".into(), max_age.as_ref().map(age), new.max_age.as_ref().map(age));
    list.value("logs.keep", keep, &new.keep);
    list.optional("logs.max_total", max_total_bytes.as_ref(), new.max_total_bytes.as_ref());
    let compression = |compress: Compression| match compress {
        Compression::None => "none",
        Compression::Zstd => "zstd",
    };
    list.value("logs.compress", compression(*compress), compression(new.compress));
    list.time("logs.full_disk_block", *full_disk_block, new.full_disk_block);
}

fn compare_watch(list: &mut List, old: Option<&Watch>, new: Option<&Watch>) {
    let mut push = |key: &str, text: &dyn Fn(&Watch) -> String| {
        list.push(key.to_owned(), old.map(text), new.map(text));
    };
    // A field more must be told too.
    let _ = old.map(|Watch { targets: _, ignore: _, debounce: _, act: _ }| ());
    push("watch", &|watch| list_of(&watch.targets));
    push("watch_ignore", &|watch| {
        list_of(watch.ignore.iter().filter(|name| !WATCH_IGNORE.contains(&name.as_str())))
    });
    push("watch_debounce", &|watch| format_duration(watch.debounce));
    push("on_watch", &|watch| match watch.act {
        OnWatch::Restart => "restart".to_owned(),
        OnWatch::Signal(signal) => format!("signal:{}", signal_name(signal)),
    });
}

impl Display for WatchTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Glob { root, parts } => {
                write!(
                    f,
                    "{}/{}",
                    root.display().to_string().trim_end_matches('/'),
                    parts.join("/")
                )
            }
        }
    }
}

fn compare_supervisor(list: &mut List, old: &Supervisor, new: &Supervisor) {
    let Supervisor {
        socket,
        // The parent of `socket`.
        runtime_dir: _,
        state_dir,
        log_dir,
        log,
        access,
        // Part of the environment of each program, where it is compared.
        environment: _,
        nofile,
        default_checks,
        shutdown_timeout,
        auto_apply,
        history: HistoryLimits { keep, samples_keep, max_size },
    } = old;
    list.effect = Effect::DaemonRestart;
    list.path("supervisor.socket", Some(socket), Some(&new.socket));
    list.path("supervisor.state_dir", Some(state_dir), Some(&new.state_dir));
    list.path("supervisor.log_dir", Some(log_dir), Some(&new.log_dir));
    list.value("supervisor.log.level", &log.level, &new.log.level);
    let format = |format: LogFormat| match format {
        LogFormat::Human => "human",
        LogFormat::Json => "json",
    };
    list.value("supervisor.log.format", format(log.format), format(new.log.format));
    list.path("supervisor.log.file", log.file.as_deref(), new.log.file.as_deref());
    list.value("supervisor.nofile", nofile, &new.nofile);
    list.effect = Effect::InPlace;
    list.value("supervisor.default_checks", default_checks, &new.default_checks);
    for (role, old, new) in [
        ("observe", &access.observe, &new.access.observe),
        ("operate", &access.operate, &new.access.operate),
        ("admin", &access.admin, &new.access.admin),
    ] {
        let (old_ids, new_ids) = (list_of(&old.uids), list_of(&new.uids));
        list.value(&format!("supervisor.access.{role}.users"), &old_ids, &new_ids);
        let (old_ids, new_ids) = (list_of(&old.gids), list_of(&new.gids));
        list.value(&format!("supervisor.access.{role}.groups"), &old_ids, &new_ids);
    }
    list.time("supervisor.shutdown_timeout", *shutdown_timeout, new.shutdown_timeout);
    list.value("supervisor.auto_apply", auto_apply, &new.auto_apply);
    list.time("supervisor.history_keep", *keep, new.history.keep);
    list.time("supervisor.samples_keep", *samples_keep, new.history.samples_keep);
    list.value("supervisor.history_max_size", max_size, &new.history.max_size);
}

fn compare_mode(list: &mut List, old: &ModeRules, new: &ModeRules) {
    let ModeRules { enter, leave, shed_degraded, shed_emergency } = old;
    list.time("supervisor.mode.enter", *enter, new.enter);
    list.time("supervisor.mode.leave", *leave, new.leave);
    let (old, now) = (shed_degraded.as_ref(), new.shed_degraded.as_ref());
    list.optional("supervisor.mode.shed_degraded", old, now);
    let (old, now) = (shed_emergency.as_ref(), new.shed_emergency.as_ref());
    list.optional("supervisor.mode.shed_emergency", old, now);
}

fn severity(impact: Impact) -> &'static str {
    IMPACTS.iter().find(|(_, one)| *one == impact).map_or("", |(word, _)| word)
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
