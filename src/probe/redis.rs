//! Does a Redis server answer `PING`, and is it what it should be?
//!
//! One that loads its data, or has lost its master, lives: to restart it would make it worse, so
//! a live check only warns. One that refuses the check's password says nothing of its health.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{self, Connection};
use super::finding::Finding;
use super::progress::{Progress, Stage};
use super::resp::{self, Value};
use super::{Asker, Verdict, password, words};
use crate::config::{CheckRole, RedisLook, RedisRole};
use crate::core::care::evidence::ProbeFailure;

/// Longest answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) async fn look(
    look: &RedisLook,
    role: CheckRole,
    asker: &Asker<'_>,
    progress: &Progress,
) -> Finding {
    super::either(exchange(look, role, asker, progress).await)
}

async fn exchange(
    look: &RedisLook,
    role: CheckRole,
    asker: &Asker<'_>,
    progress: &Progress,
) -> Result<Finding, Finding> {
    let password = match &look.password {
        Some(password) => Some(password::read(password, asker).await?),
        None => None,
    };
    let whom = look.endpoint.to_string();
    let connection = connect::connect(&look.endpoint, progress).await?;
    progress.enter(Stage::Asking);
    let mut client = Client { whom: &whom, connection, read: Vec::new() };
    if let Some(password) = &password {
        let answer = match &look.user {
            Some(user) => client.ask(&["AUTH", user, password.reveal()]).await?,
            None => client.ask(&["AUTH", password.reveal()]).await?,
        };
        if let Value::Error(text) = &answer {
            return Err(refused(&whom, text, role));
        }
    }
    let answer = client.ask(&["PING"]).await?;
    if let Value::Error(text) = &answer {
        return Err(refused(&whom, text, role));
    }
    if answer != Value::Text("PONG".to_owned()) {
        let text = words::shown(&format!("{answer:?}"));
        return Err(Finding::wrong(text, format!("{whom} answers PING with nonsense")));
    }
    let Some(wanted) = look.role else {
        return Ok(Finding::pass(format!("redis at {whom} answers PING")));
    };
    let answer = client.ask(&["ROLE"]).await?;
    if let Value::Error(text) = &answer {
        let text = words::shown(text);
        return Err(Finding::unknown(format!("redis at {whom} does not tell its role: {text}")));
    }
    judge_role(&whom, wanted, &answer)
}

fn judge_role(whom: &str, wanted: RedisRole, answer: &Value) -> Result<Finding, Finding> {
    let fields: &[Value] = match answer {
        Value::List(fields) => fields,
        Value::Text(_) | Value::Error(_) | Value::Number(_) | Value::Nothing => &[],
    };
    let field = |index: usize| match fields.get(index) {
        Some(Value::Text(text)) => words::shown(text),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Error(_) | Value::Nothing | Value::List(_)) | None => String::new(),
    };
    let role = field(0);
    let (expected, name) = match wanted {
        RedisRole::Master => ("master", "master"),
        RedisRole::Replica => ("slave", "replica"),
    };
    let shown = if role == "slave" { "replica" } else { role.as_str() };
    if role != expected {
        let sentence = format!("redis at {whom} is a {shown} and should be a {name}");
        return Err(Finding::wrong(shown, sentence));
    }
    let link = field(3);
    if wanted == RedisRole::Replica && link != "connected" {
        let master = format!("{}:{}", field(1), field(2));
        let sentence = format!("redis at {whom} has no link to its master {master}: {link}");
        return Ok(Finding::new(Verdict::Warn, sentence));
    }
    Ok(Finding::pass(format!("redis at {whom} answers PING and is a {name}")))
}

/// Says what an error that Redis sends means.
fn refused(whom: &str, text: &str, role: CheckRole) -> Finding {
    let text = words::shown(text);
    let sentence = format!("redis at {whom} refuses: {text}");
    match text.split(' ').next().unwrap_or_default() {
        // The check itself is wrong.
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => Finding::unknown(sentence),
        "ERR" if text.contains("max number of clients") => {
            Finding::fail(ProbeFailure::TooManyConnections, sentence)
        }
        "ERR" if text.contains("AUTH") || text.contains("invalid password") => {
            Finding::unknown(sentence)
        }
        "LOADING" | "MASTERDOWN" if role == CheckRole::Live => {
            Finding::new(Verdict::Warn, format!("redis at {whom} is not ready: {text}"))
        }
        _ => Finding::wrong(text.clone(), sentence),
    }
}

struct Client<'a> {
    whom: &'a str,
    connection: Box<dyn Connection>,
    read: Vec<u8>,
}

impl Client<'_> {
    /// Sends one command and waits for its answer.
    async fn ask(&mut self, words: &[&str]) -> Result<Value, Finding> {
        let sent = self.connection.write_all(&resp::command(words)).await;
        // A server that has no room left says so, and closes before it was asked.
        let broken = sent.err();
        let mut buffer = [0; 4096];
        loop {
            match resp::parse(&self.read) {
                Ok(Some((value, length))) => {
                    self.read.drain(..length);
                    return Ok(value);
                }
                Ok(None) if self.read.len() <= MAX_ANSWER_BYTES => {}
                Ok(None) | Err(_) => {
                    let line = words::first_line(&self.read).unwrap_or_default();
                    let sentence = format!("{} does not speak as Redis: \"{line}\"", self.whom);
                    return Err(Finding::wrong(line, sentence));
                }
            }
            match self.connection.read(&mut buffer).await {
                Ok(0) => {
                    let closed = || connect::closed(self.whom);
                    let broken = broken.as_ref();
                    return Err(
                        broken.map_or_else(closed, |error| connect::broken(self.whom, error))
                    );
                }
                Ok(bytes) => self.read.extend_from_slice(&buffer[..bytes]),
                Err(error) => return Err(connect::broken(self.whom, &error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_redis_are_the_trouble_of_the_check_of_the_moment_or_of_the_server() {
        let verdict = |text: &str, role| refused("db:6379", text, role).verdict;
        for text in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "ERR AUTH <password> called without any password configured",
            "DENIED Redis is running in protected mode",
        ] {
            assert_eq!(verdict(text, CheckRole::Live), Verdict::Unknown, "{text}");
        }
        let loading = "LOADING Redis is loading the dataset in memory";
        assert_eq!(verdict(loading, CheckRole::Live), Verdict::Warn);
        assert_eq!(verdict(loading, CheckRole::Ready), Verdict::Fail);
        let full = refused("db:6379", "ERR max number of clients reached", CheckRole::Live);
        assert_eq!(full.failure, Some(ProbeFailure::TooManyConnections));
        let disk = "MISCONF Redis is configured to save RDB snapshots, but it cannot";
        assert_eq!(verdict(disk, CheckRole::Live), Verdict::Fail);
    }

    #[test]
    fn a_role_must_be_the_one_that_is_wanted_and_a_replica_should_have_its_master() {
        let list = |fields: &[&str]| {
            Value::List(fields.iter().map(|field| Value::Text((*field).to_owned())).collect())
        };
        let judged = |wanted, fields: &[&str]| match judge_role("db:1", wanted, &list(fields)) {
            Ok(finding) | Err(finding) => finding,
        };
        let replica = ["slave", "10.0.0.1", "6379", "connected", "7"];
        assert_eq!(judged(RedisRole::Replica, &replica).verdict, Verdict::Pass);
        assert_eq!(judged(RedisRole::Master, &["master", "0"]).verdict, Verdict::Pass);
        let alone = judged(RedisRole::Replica, &["slave", "10.0.0.1", "6379", "connect"]);
        assert_eq!(alone.verdict, Verdict::Warn);
        assert_eq!(
            alone.sentence,
            "redis at db:1 has no link to its master 10.0.0.1:6379: connect"
        );
        let wrong = judged(RedisRole::Master, &replica);
        assert_eq!(wrong.sentence, "redis at db:1 is a replica and should be a master");
        assert_eq!(judged(RedisRole::Master, &[]).verdict, Verdict::Fail);
    }
}
