//! Does something accept connections, and say what is expected?
//!
//! The kernel accepts connections for whoever listens, as long as there is room in the queue:
//! without `expect`, a process that is stopped or stuck still passes.

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{self, Connection, Trouble};
use super::finding::Finding;
use super::progress::{Progress, Stage};
use super::{MAX_OUTPUT_BYTES, Verdict, words};
use crate::config::{Address, TcpLook};

/// Asks for readiness.
pub(super) async fn ask(address: &Address, progress: &Progress) -> Finding {
    match connect::tcp(address, progress).await {
        Ok(_) => Finding::pass("accepts connections"),
        Err(trouble) => unready(&trouble),
    }
}

/// Says in a few words why something is not ready.
pub(super) fn unready(trouble: &Trouble) -> Finding {
    Finding::new(Verdict::Fail, trouble.words())
}

pub(super) async fn look(look: &TcpLook, progress: &Progress) -> Finding {
    super::either(exchange(look, progress).await)
}

async fn exchange(look: &TcpLook, progress: &Progress) -> Result<Finding, Finding> {
    let pattern = look.expect.as_deref().map(super::pattern).transpose()?;
    let whom = look.endpoint.to_string();
    let mut connection = connect::connect(&look.endpoint, progress).await?;
    progress.enter(Stage::Asking);
    if let Some(text) = &look.send {
        let sent = connection.write_all(text.as_bytes()).await;
        sent.map_err(|error| connect::broken(&whom, &error))?;
    }
    match pattern {
        Some(pattern) => expect(&whom, connection, &pattern, progress).await,
        None => Ok(Finding::pass(format!("{whom} accepts connections"))),
    }
}

/// Reads until what comes matches, and no more than is kept of an answer.
async fn expect(
    whom: &str,
    mut connection: Box<dyn Connection>,
    pattern: &Regex,
    progress: &Progress,
) -> Result<Finding, Finding> {
    let mut answer = Vec::new();
    while answer.len() < MAX_OUTPUT_BYTES {
        let mut buffer = [0; 1024];
        let bytes = match connection.read(&mut buffer).await {
            Ok(bytes) => bytes,
            Err(error) if answer.is_empty() => return Err(connect::broken(whom, &error)),
            // What was said before counts.
            Err(_) => 0,
        };
        if bytes == 0 {
            break;
        }
        progress.enter(Stage::Answering);
        answer.extend_from_slice(&buffer[..bytes]);
        if pattern.is_match(&answer) {
            let line = words::first_line(&answer).unwrap_or_default();
            return Ok(Finding::pass(format!("{whom} answers \"{line}\"")));
        }
    }
    if answer.is_empty() {
        return Err(connect::closed(whom));
    }
    answer.truncate(MAX_OUTPUT_BYTES);
    let line = words::first_line(&answer).unwrap_or_default();
    let sentence = format!("{whom} answers \"{line}\", which does not match `{pattern}`");
    Err(Finding::wrong(line, sentence).with_output(answer))
}
