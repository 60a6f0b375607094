//! Lines of output as they come, each once, over restarts of the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::tail::{Piece, Tail};
use crate::api::view::LogLineView;
use crate::capture::Cursor;
use crate::client::failure::Failure;
use crate::client::http::{Client, with_query};
use crate::client::lines::Lines;

/// How far the merged order of several streams may differ from the order of time.
const OVERLAP: Duration = Duration::from_secs(5);

/// One step of the view.
#[derive(Debug)]
pub(crate) enum Step {
    Line { line: LogLineView, raw: Vec<u8> },
    Lost,
    Again,
    End,
}

/// Drops what a second connection sends again.
#[derive(Debug)]
struct Seen {
    /// The last line shown of each stream of each process.
    shown: BTreeMap<(String, String), Cursor>,
    /// The time of the newest line.
    last: Option<Timestamp>,
    started: Timestamp,
    /// When the present connection began, unless it is the first.
    again: Option<Timestamp>,
}

impl Seen {
    fn new(started: Timestamp) -> Self {
        Self { shown: BTreeMap::new(), last: None, started, again: None }
    }

    /// Prepares for a connection at `now` that asks for lines from the returned time on.
    fn start_again(&mut self, now: Timestamp) -> Timestamp {
        self.again = Some(now);
        let from = self.last.unwrap_or(self.started);
        from.checked_sub(OVERLAP).unwrap_or(from)
    }

    /// Whether the line is a new one; remembers it.
    ///
    /// Places decide and not times: the time of a line that was read the moment it came may be
    /// corrected later.
    fn is_new(&mut self, line: &LogLineView) -> bool {
        let Ok(cursor) = line.cursor.parse::<Cursor>() else { return true };
        let at = line.at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        let key = (line.name.clone(), line.stream.clone());
        if let Some(again) = self.again {
            // A log that somebody truncated starts again at a place that was shown before.
            let may_be_old = at.is_none_or(|at| at <= again);
            match self.shown.get(&key) {
                Some(shown) if cursor <= *shown && may_be_old => return false,
                None if at.is_some_and(|at| at < self.started) => return false,
                Some(_) | None => {}
            }
        }
        self.shown.insert(key, cursor);
        self.last = self.last.max(at);
        true
    }
}

/// A view of the output of some processes.
pub(crate) struct Follow {
    /// The query without `since` and `lines`.
    query: Vec<(&'static str, String)>,
    follows: bool,
    tail: Tail,
    lines: Lines,
    seen: Seen,
}

impl Follow {
    /// Connects; the daemon has to be there for the first time. `first` is asked for only then.
    pub(crate) async fn open(
        client: &Client,
        mut query: Vec<(&'static str, String)>,
        first: &[(&'static str, String)],
        follows: bool,
    ) -> Result<Self, Failure> {
        query.push(("format", "json".to_owned()));
        if follows {
            query.push(("follow", "1".to_owned()));
        }
        let seen = Seen::new(Timestamp::now());
        let pairs = query.iter().chain(first).map(|(key, value)| (*key, value.as_str()));
        let tail = Tail::open(client, &with_query("/v1/logs", pairs)).await?;
        Ok(Self { query, follows, tail, lines: Lines::default(), seen })
    }

    /// Waits for the next step. May be cancelled without losing one.
    pub(crate) async fn next(&mut self) -> Result<Step, Failure> {
        loop {
            while let Some(raw) = self.lines.next_line() {
                if raw.is_empty() {
                    continue; // Sent now and then to keep the connection.
                }
                let raw = raw.to_vec();
                let line: LogLineView = serde_json::from_slice(&raw)
                    .map_err(|error| Failure::Protocol(error.to_string()))?;
                if !self.follows || self.seen.is_new(&line) {
                    return Ok(Step::Line { line, raw });
                }
            }
            if self.tail.is_lost() {
                self.reconnect().await?;
                return Ok(Step::Again);
            }
            match self.tail.piece().await? {
                Piece::Bytes(bytes) => self.lines.push(&bytes),
                Piece::End if !self.follows => return Ok(Step::End),
                Piece::Broken(why) if !self.follows => return Err(why),
                Piece::End | Piece::Broken(_) => {
                    self.lines = Lines::default();
                    return Ok(Step::Lost);
                }
            }
        }
    }

    async fn reconnect(&mut self) -> Result<(), Failure> {
        let since = self.seen.start_again(Timestamp::now()).to_string();
        let pairs = self.query.iter().map(|(key, value)| (*key, value.as_str()));
        let path = with_query("/v1/logs", pairs.chain([("since", since.as_str())]));
        self.tail.reconnect(&path, None).await
    }
}

/// Gets all lines of an answer that ends.
pub(crate) async fn collect(client: &Client, path: &str) -> Result<Vec<LogLineView>, Failure> {
    let mut stream = client.stream(path, None).await?;
    let mut lines = Lines::default();
    let mut found = Vec::new();
    while let Some(bytes) = stream.piece().await? {
        lines.push(&bytes);
        while let Some(raw) = lines.next_line() {
            if let Ok(line) = serde_json::from_slice(raw) {
                found.push(line);
            }
        }
    }
    Ok(found)
}

/// Makes a line harmless for a terminal: colours stay, other control characters are shown.
pub(crate) fn printable(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let color = if c == '\x1b' { color_length(rest) } else { 0 };
        let (kept, tail) = rest.split_at(color.max(c.len_utf8()));
        if color > 0 || c == '\t' || !c.is_control() {
            text.push_str(kept);
        } else {
            text.extend(c.escape_default());
        }
        rest = tail;
    }
    text
}

/// Returns the bytes of the colour sequence (`ESC [ 1 ; 31 m`) that `text` starts with, or 0.
fn color_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return 0 };
    let end = parameters.find(|c: char| !c.is_ascii_digit() && !matches!(c, ';' | ':'));
    match end {
        Some(end) if parameters[end..].starts_with('m') => end + 3,
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, cursor: &str, at: &str) -> LogLineView {
        LogLineView {
            name: name.to_owned(),
            stream: "stdout".to_owned(),
            at: Some(time(at).to_string()),
            cursor: cursor.to_owned(),
            line: String::new(),
        }
    }

    fn time(at: &str) -> Timestamp {
        format!("2026-11-23T{at}Z").parse().unwrap()
    }

    #[test]
    fn a_second_connection_shows_only_what_is_new() {
        let mut seen = Seen::new(time("11:00:00"));
        for (cursor, at) in [("1:90", "12:00:00"), ("2:0", "12:00:01"), ("2:10", "12:00:01")] {
            assert!(seen.is_new(&line("a", cursor, at)));
        }
        assert!(seen.is_new(&line("b", "7:0", "11:59:58")));
        assert_eq!(seen.start_again(time("12:00:05")), time("11:59:56"));
        let again = [
            ("b", "7:0", "11:59:58", false),
            ("b", "7:9", "11:59:59", true),
            ("a", "1:90", "12:00:00", false),
            ("a", "2:0", "12:00:01", false),
            // The same line, whose time was not known exactly when it was shown.
            ("a", "2:10", "12:00:02", false),
            ("a", "2:20", "12:00:02", true),
            ("a", "2:30", "12:00:02", true),
            ("c", "1:0", "10:59:59", false),
            ("c", "1:10", "12:00:00", true),
        ];
        for (name, cursor, at, is_new) in again {
            assert_eq!(seen.is_new(&line(name, cursor, at)), is_new, "{name} {cursor} at {at}");
        }
    }

    #[test]
    fn a_third_connection_knows_what_the_second_showed() {
        let mut seen = Seen::new(time("11:00:00"));
        assert!(seen.is_new(&line("a", "1:0", "12:00:01")));
        seen.start_again(time("12:00:02"));
        assert!(!seen.is_new(&line("a", "1:0", "12:00:01")));
        assert!(seen.is_new(&line("a", "1:10", "12:00:01")));
        seen.start_again(time("12:00:03"));
        assert!(!seen.is_new(&line("a", "1:0", "12:00:01")));
        assert!(!seen.is_new(&line("a", "1:10", "12:00:01")));
        assert!(seen.is_new(&line("a", "1:20", "12:00:01")));
    }

    #[test]
    fn a_truncated_log_is_shown_from_its_new_beginning() {
        let mut seen = Seen::new(time("11:00:00"));
        assert!(seen.is_new(&line("a", "1:100", "12:00:01")));
        assert!(seen.is_new(&line("a", "1:0", "12:00:02")));
        seen.start_again(time("12:00:03"));
        assert!(!seen.is_new(&line("a", "1:0", "12:00:02")));
        assert!(seen.is_new(&line("a", "1:50", "12:00:02")));
        assert!(seen.is_new(&line("a", "1:0", "12:00:04")));
    }

    #[test]
    fn a_program_cannot_drive_the_terminal_but_may_use_colour() {
        assert_eq!(printable("\x1b[1;31mred\x1b[0m\tä"), "\x1b[1;31mred\x1b[0m\tä");
        assert_eq!(printable("\x1b[2Jx\x1b]0;t\x07\r"), "\\u{1b}[2Jx\\u{1b}]0;t\\u{7}\\r");
        assert_eq!(printable("\x1b["), "\\u{1b}[");
    }
}
