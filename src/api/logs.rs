//! Logs over HTTP: where the lines come from is behind [`LogSource`], how they look is here.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::input::{Parameters, parse_time, wall_now};
use super::problem::Fault;
use super::server::Streaming;
use super::times::rfc3339;
use super::view::LogLineView;
use crate::capture::Cursor;
use crate::engine::LogPlace;
use crate::name::ProcessName;
use crate::time::Wall;

/// Lines shown when the request says neither how many nor since when.
const DEFAULT_LINES: usize = 100;

/// Batches that may wait for a slow reader; then the source waits too.
const BATCHES_IN_FLIGHT: usize = 4;

pub(super) const PARAMETERS: &[&str] =
    &["name", "lines", "since", "until", "follow", "stream", "format", "timestamps", "prefix"];

/// A future in a box, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// The newest so many lines of each process; `None` gives all of them.
    pub lines: Option<usize>,
    /// Only lines from this time on.
    pub since: Option<Wall>,
    /// Only lines before this time.
    pub until: Option<Wall>,
    /// Go on with what is printed later, until the stream is dropped.
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogChannel {
    /// Standard output; with merged stderr both.
    Stdout,
    Stderr,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub process: ProcessName,
    pub channel: LogChannel,
    /// When the daemon saw it, if that is known.
    pub at: Option<Wall>,
    /// Where in the log it begins.
    pub cursor: Cursor,
    /// The line's exact bytes without its end.
    pub line: Vec<u8>,
    /// `false` for a last line whose end has not been printed.
    pub ended: bool,
}

/// Where log lines come from.
pub trait LogSource: fmt::Debug + Send + Sync {
    /// Opens a view of the logs at `places`, merged in the order of time.
    ///
    /// # Errors
    ///
    /// What opening the files reports. A log that does not exist yet is empty, not an error.
    fn open(
        &self,
        places: Vec<LogPlace>,
        query: LogQuery,
    ) -> BoxFuture<'_, io::Result<Box<dyn LogLines>>>;
}

/// An open view of logs.
pub trait LogLines: Send {
    /// Returns the next lines, at most some thousand; none means the end.
    ///
    /// While following it is pending until there are more. Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, io::Result<Vec<LogRecord>>>;
}

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// NDJSON of [`LogLineView`].
    Json,
    /// The exact bytes, with what was asked for in front of each line.
    Text { timestamps: bool, prefix: bool },
}

/// Reads the query of a log request.
pub(super) fn read_query(parameters: &Parameters) -> Result<(LogQuery, Format), Fault> {
    let now = wall_now();
    let time =
        |name: &str| parameters.get(name).map(|text| parse_time(name, text, now)).transpose();
    let since = time("since")?;
    let lines = match parameters.get("lines") {
        None if since.is_some() => None,
        None => Some(DEFAULT_LINES),
        Some("all") => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Fault::parameter("lines", format!("`{text}` is neither a number nor `all`"))
        })?),
    };
    let (stdout, stderr) = match parameters.get("stream") {
        None | Some("all") => (true, true),
        Some("stdout") => (true, false),
        Some("stderr") => (false, true),
        Some(other) => {
            let why = format!("`{other}` is none of `stdout`, `stderr` and `all`");
            return Err(Fault::parameter("stream", why));
        }
    };
    let (timestamps, prefix) = (parameters.flag("timestamps")?, parameters.flag("prefix")?);
    let format = match parameters.get("format") {
        None | Some("text") => Format::Text { timestamps, prefix },
        Some("json") => Format::Json,
        Some(other) => {
            return Err(Fault::parameter("format", format!("`{other}` is neither json nor text")));
        }
    };
    let until = time("until")?;
    let follow = parameters.flag("follow")?;
    Ok((LogQuery { lines, since, until, follow, stdout, stderr }, format))
}

/// Answers with the lines as they come, until they end, the client leaves or the daemon stops.
///
/// An error half-way breaks the transfer off, so that a client never takes a part for all.
pub(super) fn respond(
    mut lines: Box<dyn LogLines>,
    format: Format,
    shutdown: CancellationToken,
) -> Response {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(BATCHES_IN_FLIGHT);
    tokio::spawn(async move {
        loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return,
                () = sender.closed() => return,
                batch = lines.next() => batch,
            };
            let chunk = match batch {
                Ok(records) if records.is_empty() => return,
                Ok(records) => Ok(render(&records, format)),
                Err(error) => Err(error),
            };
            let is_last = chunk.is_err();
            let sent = tokio::select! {
                () = shutdown.cancelled() => return,
                sent = sender.send(chunk) => sent,
            };
            if is_last || sent.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(receiver)));
    let content_type = match format {
        Format::Json => "application/x-ndjson",
        Format::Text { .. } => "text/plain; charset=utf-8",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(Streaming);
    response
}

fn render(records: &[LogRecord], format: Format) -> Bytes {
    let mut out = Vec::with_capacity(records.iter().map(|record| record.line.len() + 64).sum());
    for record in records {
        match format {
            Format::Json => {
                let view = LogLineView {
                    name: record.process.to_string(),
                    stream: match record.channel {
                        LogChannel::Stdout => "stdout".to_owned(),
                        LogChannel::Stderr => "stderr".to_owned(),
                    },
                    at: record.at.map(rfc3339),
                    cursor: record.cursor.to_string(),
                    line: String::from_utf8_lossy(&record.line).into_owned(),
                };
                serde_json::to_writer(&mut out, &view).expect("strings become JSON in memory");
                out.push(b'\n');
            }
            Format::Text { timestamps, prefix } => {
                if timestamps {
                    // As wide as a time, so that lines stay aligned.
                    let at = record.at.map_or_else(|| format!("{:24}", "-"), rfc3339);
                    out.extend_from_slice(at.as_bytes());
                    out.push(b' ');
                }
                if prefix {
                    out.extend_from_slice(format!("{} | ", record.process).as_bytes());
                }
                out.extend_from_slice(&record.line);
                // With something in front of each line, the next one needs a line of its own.
                if record.ended || timestamps || prefix {
                    out.push(b'\n');
                }
            }
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &[u8], ended: bool) -> LogRecord {
        LogRecord {
            process: "web:0".parse().unwrap(),
            channel: LogChannel::Stderr,
            at: Some(Wall(1_795_434_727_120)),
            cursor: Cursor { seq: 3, offset: 4096 },
            line: line.to_vec(),
            ended,
        }
    }

    #[test]
    fn plain_text_is_the_exact_bytes() {
        let format = Format::Text { timestamps: false, prefix: false };
        let lines = [record(b"a\xff\r", true), record(b"", true), record(b"half", false)];
        assert_eq!(&render(&lines, format)[..], b"a\xff\r\n\nhalf");
    }

    #[test]
    fn decorated_text_gives_each_record_a_line() {
        let format = Format::Text { timestamps: true, prefix: true };
        let text = render(&[record(b"half", false)], format);
        assert_eq!(&text[..], b"2026-11-23T11:52:07.120Z web:0 | half\n");
    }

    #[test]
    fn json_lines_replace_what_is_not_utf_8() {
        let text = render(&[record(b"a\xff", true)], Format::Json);
        let view: LogLineView = serde_json::from_slice(&text).unwrap();
        assert_eq!((view.line.as_str(), view.stream.as_str()), ("a\u{fffd}", "stderr"));
        assert_eq!(view.cursor, "3:4096");
    }
}
