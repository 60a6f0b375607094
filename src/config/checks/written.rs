//! A checked check, written as TOML again: for people who look at the configuration, and to tell
//! what two of them differ in.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::super::look::{
    Amount, Bounds, CertificateOf, DeclaredCheck, Endpoint, ExecLook, Hidden, HttpLook, Look,
    Password, PostgresLook, PostgresServer, RedisLook, TcpLook,
};
use super::super::model_check::{CheckKind, FailRule, Remedy, Rung};
use super::super::secrets::{HIDDEN, hidden_words, is_secret_name, without_secrets};
use super::super::show::{bare_or_quoted, list, quoted};
use super::super::units::{format_duration, signal_name};
use super::clients::{METHODS, REDIS_ROLES};
use super::schedule::{IMPACTS, MODES, ROLES};
use super::values::{LOAD_SPANS, PRESSURE_SPANS, PRESSURES, SHARES};

/// Returns every key of a check but its name, with its value as TOML; secrets are in it only with
/// `secrets`.
pub(in crate::config) fn written(
    declared: &DeclaredCheck,
    secrets: bool,
) -> Vec<(&'static str, String)> {
    let writer = Writer { secrets };
    let DeclaredCheck { check, look, is_builtin: _ } = declared;
    let super::Check {
        name: _,
        kind,
        role,
        impact,
        interval,
        timeout,
        fail_if,
        rise,
        start_timeout,
        heal,
        mode,
        cooldown,
        stable,
    } = check;
    let mut keys = vec![(kind.word(), writer.look(look))];
    keys.push(("role", word(&ROLES, *role)));
    keys.push(("severity", word(&IMPACTS, *impact)));
    if *kind != CheckKind::Process {
        keys.push(("interval", time(*interval)));
        keys.push(("timeout", time(*timeout)));
    }
    keys.push(match fail_if {
        FailRule::InARow(fall) => ("fall", fall.to_string()),
        FailRule::Among { failures, of } => ("fail_if", quoted(&format!("{failures} of {of}"))),
    });
    keys.push(("rise", rise.to_string()));
    keys.push(("start_timeout", time(*start_timeout)));
    keys.push(("heal", list(heal.iter().map(|rung| writer.rung(rung)))));
    keys.push(("mode", word(&MODES, *mode)));
    keys.push(("cooldown", time(*cooldown)));
    keys.push(("stable", time(*stable)));
    keys
}

fn word<T: PartialEq>(words: &[(&str, T)], value: T) -> String {
    let found = words.iter().find(|(_, one)| *one == value);
    quoted(found.map_or("", |(word, _)| word))
}

fn time(duration: Duration) -> String {
    quoted(&format_duration(duration))
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn percent(percent: f64) -> String {
    quoted(&format!("{percent}%"))
}

fn amount(amount: Amount) -> String {
    match amount {
        Amount::Bytes(bytes) => bytes.to_string(),
        Amount::Percent(share) => percent(share),
    }
}

fn endpoint(endpoint: &Endpoint) -> String {
    quoted(&endpoint.to_string())
}

/// Collects the parts of an inline table.
#[derive(Default)]
struct Parts(String);

impl Parts {
    fn add(&mut self, key: &str, value: impl AsRef<str>) {
        let comma = if self.0.is_empty() { "" } else { ", " };
        let _ = write!(self.0, "{comma}{key} = {}", value.as_ref());
    }

    fn add_some(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn bounds<T: Copy>(&mut self, bounds: &Bounds<T>, write: impl Fn(T) -> String) {
        self.add_some("warn", bounds.warn.map(&write));
        self.add_some("fail", bounds.fail.map(&write));
    }

    fn latency(&mut self, latency: Option<&Bounds<Duration>>) {
        self.add_some("latency", latency.map(|bounds| bounds_table(bounds, time)));
    }

    fn finish(self) -> String {
        format!("{{ {} }}", self.0)
    }
}

fn bounds_table<T: Copy>(bounds: &Bounds<T>, write: impl Fn(T) -> String) -> String {
    let mut parts = Parts::default();
    parts.bounds(bounds, write);
    parts.finish()
}

struct Writer {
    secrets: bool,
}

impl Writer {
    fn look(&self, look: &Look) -> String {
        let mut parts = Parts::default();
        match look {
            Look::Process => return "true".to_owned(),
            Look::Exec(look) => self.exec(&mut parts, look),
            Look::Tcp(look) => self.tcp(&mut parts, look),
            Look::Http(look) => self.http(&mut parts, look),
            Look::Redis(look) => self.redis(&mut parts, look),
            Look::Postgres(look) => self.postgres(&mut parts, look),
            Look::Memory(look) => parts.bounds(&look.used, amount),
            Look::Cpu(look) => {
                parts.bounds(&look.percent, percent);
                parts.add("for", time(look.lasting));
            }
            Look::Fds(look) => parts.bounds(&look.percent, percent),
            Look::Disk(look) => {
                parts.add("path", path(&look.path));
                parts.add("free", bounds_table(&look.free, amount));
                let inodes = look.free_inodes.map(|bounds| bounds_table(&bounds, percent));
                parts.add_some("free_inodes", inodes);
            }
            Look::Load(look) => {
                parts.bounds(&look.per_cpu, |load| load.to_string());
                parts.add("span", word(&LOAD_SPANS, look.span));
            }
            Look::Pressure(look) => {
                parts.add("of", word(&PRESSURES, look.of));
                parts.add("share", word(&SHARES, look.share));
                parts.add("span", word(&PRESSURE_SPANS, look.span));
                parts.bounds(&look.percent, percent);
            }
            Look::Log(look) => {
                parts.add("pattern", quoted(&look.pattern));
                parts.bounds(&look.count, |count| count.to_string());
                parts.add("within", time(look.within));
            }
            Look::Silence(look) => parts.bounds(&look.longest, time),
            Look::Heartbeat(look) => {
                parts.add_some("file", look.file.as_deref().map(path));
                parts.add("within", time(look.within));
            }
            Look::Certificate(look) => {
                match &look.of {
                    CertificateOf::Server { address, server_name } => {
                        parts.add("address", quoted(&address.to_string()));
                        parts.add("server_name", quoted(server_name));
                    }
                    CertificateOf::File(file) => parts.add("file", path(file)),
                }
                parts.bounds(&look.days_left, |days| quoted(&format!("{days}d")));
            }
        }
        parts.finish()
    }

    /// Writes a command as a list, without the passwords in it.
    fn words(&self, argv: &[String]) -> String {
        match self.secrets {
            true => list(argv.iter().map(|word| quoted(word))),
            false => list(hidden_words(argv).iter().map(|word| quoted(word))),
        }
    }

    fn text(&self, text: &str) -> String {
        let shown = if self.secrets { None } else { without_secrets(text) };
        quoted(shown.as_deref().unwrap_or(text))
    }

    fn hidden(&self, text: &Hidden) -> String {
        quoted(if self.secrets { text.reveal() } else { HIDDEN })
    }

    fn password(&self, parts: &mut Parts, password: Option<&Password>) {
        match password {
            Some(Password::Written(text)) => parts.add("password", self.hidden(text)),
            Some(Password::Variable(name)) => parts.add("password_env", quoted(name)),
            Some(Password::File(file)) => parts.add("password_file", path(file)),
            None => {}
        }
    }

    fn exec(&self, parts: &mut Parts, look: &ExecLook) {
        parts.add("command", self.words(&look.argv));
        if let Some(identity) = &look.user {
            parts.add("user", quoted(&identity.user));
            parts.add("group", identity.gid.to_string());
        }
        parts.add_some("output", look.output.as_deref().map(quoted));
    }

    fn tcp(&self, parts: &mut Parts, look: &TcpLook) {
        parts.add("address", endpoint(&look.endpoint));
        // What is said to a server before it answers is often a password.
        let send = look.send.as_deref().map(|text| {
            let is_secret = text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_secret_name);
            if is_secret && !self.secrets { quoted(HIDDEN) } else { self.text(text) }
        });
        parts.add_some("send", send);
        parts.add_some("expect", look.expect.as_deref().map(quoted));
        parts.latency(look.latency.as_ref());
    }

    fn http(&self, parts: &mut Parts, look: &HttpLook) {
        let scheme = if look.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", look.target.address, look.target.path);
        parts.add("url", self.text(&url));
        parts.add_some("unix", look.unix.as_deref().map(path));
        parts.add("method", word(&METHODS, look.method));
        if !look.target.statuses.is_empty() {
            parts.add("status", list(look.target.statuses.iter().map(u16::to_string)));
        }
        parts.add_some("body", look.body.as_deref().map(quoted));
        if !look.headers.is_empty() {
            let mut headers = Parts::default();
            for (name, value) in &look.headers {
                let value = match is_secret_name(name) {
                    true => self.hidden(value),
                    false => self.text(value.reveal()),
                };
                headers.add(&bare_or_quoted(name), value);
            }
            parts.add("headers", headers.finish());
        }
        if !look.answer_headers.is_empty() {
            let mut headers = Parts::default();
            for (name, pattern) in &look.answer_headers {
                headers.add(&bare_or_quoted(name), quoted(pattern));
            }
            parts.add("answer_headers", headers.finish());
        }
        parts.latency(look.latency.as_ref());
        if let Some(tls) = &look.tls {
            parts.add("verify", tls.verify.to_string());
            parts.add_some("ca", tls.ca.as_deref().map(path));
        }
    }

    fn redis(&self, parts: &mut Parts, look: &RedisLook) {
        parts.add("address", endpoint(&look.endpoint));
        parts.add_some("user", look.user.as_deref().map(quoted));
        self.password(parts, look.password.as_ref());
        parts.add_some("role", look.role.map(|role| word(&REDIS_ROLES, role)));
        parts.latency(look.latency.as_ref());
    }

    fn postgres(&self, parts: &mut Parts, look: &PostgresLook) {
        let address = match &look.server {
            PostgresServer::Tcp(address) => address.to_string(),
            PostgresServer::Unix { .. } => format!("unix:{}", look.server),
        };
        parts.add("address", quoted(&address));
        parts.add("user", quoted(&look.user));
        parts.add("database", quoted(&look.database));
        self.password(parts, look.password.as_ref());
        parts.add("query", self.text(&look.query));
        parts.latency(look.latency.as_ref());
    }

    fn rung(&self, rung: &Rung) -> String {
        let Rung { remedy, timeout } = rung;
        let mut parts = Parts::default();
        match remedy {
            Remedy::Signal { signal } => parts.add("signal", quoted(&signal_name(*signal))),
            Remedy::Run { argv } => parts.add("run", self.words(argv)),
            Remedy::Fallback { program } => parts.add("fallback", quoted(program.as_str())),
            Remedy::Steps(steps) => {
                let steps = steps.iter().map(|step| {
                    let mut parts = Parts::default();
                    parts.add("run", self.words(&step.argv));
                    parts.add_some("undo", step.undo.as_ref().map(|undo| self.words(undo)));
                    parts.finish()
                });
                parts.add("steps", list(steps));
            }
            Remedy::Confirm | Remedy::Reload | Remedy::Restart | Remedy::CleanRestart => {
                parts.add("remedy", quoted(remedy.word()));
            }
            Remedy::RestartGroup | Remedy::Rollback | Remedy::Shed => {
                parts.add("remedy", quoted(remedy.word()));
            }
            Remedy::Alert | Remedy::Quarantine => parts.add("remedy", quoted(remedy.word())),
        }
        parts.add("timeout", time(*timeout));
        parts.finish()
    }
}
