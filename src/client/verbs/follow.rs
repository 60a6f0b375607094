//! Lines of output as they come, each once, over restarts of the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::view::LogLineView;
use crate::client::failure::Failure;
use crate::client::http::{Client, Stream, with_query};
use crate::client::lines::Lines;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
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

/// What was shown of one stream of one process: the time of the last line, and how many lines
/// had exactly this time.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    at: Timestamp,
    count: u32,
}

/// Drops what a second connection sends again.
#[derive(Debug)]
struct Seen {
    cursors: BTreeMap<(String, String), Cursor>,
    /// Lines still to be skipped at each cursor's own time.
    repeats: BTreeMap<(String, String), Cursor>,
    started: Timestamp,
    is_again: bool,
}

impl Seen {
    fn new(started: Timestamp) -> Self {
        let (cursors, repeats) = (BTreeMap::new(), BTreeMap::new());
        Self { cursors, repeats, started, is_again: false }
    }

    /// Prepares for a connection that starts at the returned time.
    fn start_again(&mut self) -> Timestamp {
        self.is_again = true;
        self.repeats = self.cursors.clone();
        let last = self.cursors.values().map(|cursor| cursor.at).max();
        let from = last.unwrap_or(self.started);
        from.checked_sub(OVERLAP).unwrap_or(from)
    }

    /// Whether the line is a new one; remembers it.
    fn is_new(&mut self, line: &LogLineView) -> bool {
        let Some(at) = line.at.as_deref().and_then(|at| at.parse::<Timestamp>().ok()) else {
            return true;
        };
        let key = (line.name.clone(), line.stream.clone());
        match self.repeats.get_mut(&key) {
            Some(shown) if at < shown.at => return false,
            Some(shown) if at == shown.at && shown.count > 0 => {
                shown.count -= 1;
                return false;
            }
            None if self.is_again && at < self.started && !self.cursors.contains_key(&key) => {
                return false;
            }
            Some(_) | None => {}
        }
        let cursor = self.cursors.entry(key).or_insert(Cursor { at, count: 0 });
        if at > cursor.at {
            *cursor = Cursor { at, count: 1 };
        } else if at == cursor.at {
            cursor.count += 1;
        }
        true
    }
}

/// A view of the output of some processes.
pub(crate) struct Follow {
    client: Client,
    /// The query without `since` and `lines`.
    query: Vec<(&'static str, String)>,
    follows: bool,
    stream: Option<Stream>,
    lines: Lines,
    seen: Seen,
    pause: Duration,
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
        let stream = client.stream(&with_query("/v1/logs", pairs), None).await?;
        Ok(Self {
            client: client.clone(),
            query,
            follows,
            stream: Some(stream),
            lines: Lines::default(),
            seen,
            pause: FIRST_PAUSE,
        })
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
            let Some(stream) = &mut self.stream else {
                self.reconnect().await?;
                return Ok(Step::Again);
            };
            match stream.piece().await {
                Ok(Some(bytes)) => self.lines.push(&bytes),
                Ok(None) if !self.follows => return Ok(Step::End),
                Ok(None) => return Ok(self.lost()),
                Err(error) if self.follows && error.is_transient() => return Ok(self.lost()),
                Err(error) => return Err(error),
            }
        }
    }

    fn lost(&mut self) -> Step {
        self.stream = None;
        self.lines = Lines::default();
        self.pause = FIRST_PAUSE;
        Step::Lost
    }

    async fn reconnect(&mut self) -> Result<(), Failure> {
        let since = self.seen.start_again().to_string();
        let path = {
            let pairs = self.query.iter().map(|(key, value)| (*key, value.as_str()));
            with_query("/v1/logs", pairs.chain([("since", since.as_str())]))
        };
        loop {
            match self.client.stream(&path, None).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
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

    fn line(name: &str, at: &str) -> LogLineView {
        LogLineView {
            name: name.to_owned(),
            stream: "stdout".to_owned(),
            at: Some(format!("2026-11-23T{at}Z")),
            line: String::new(),
        }
    }

    #[test]
    fn a_second_connection_shows_only_what_is_new() {
        let mut seen = Seen::new("2026-11-23T11:00:00Z".parse().unwrap());
        for at in ["12:00:00.000", "12:00:01.000", "12:00:01.000"] {
            assert!(seen.is_new(&line("a", at)));
        }
        assert!(seen.is_new(&line("b", "11:59:58.000")));
        assert_eq!(seen.start_again().to_string(), "2026-11-23T11:59:56Z");
        let again = [
            ("b", "11:59:58.000", false),
            ("b", "11:59:59.000", true),
            ("a", "12:00:00.000", false),
            ("a", "12:00:01.000", false),
            ("a", "12:00:01.000", false),
            ("a", "12:00:01.000", true),
            ("a", "12:00:02.000", true),
            ("c", "10:59:59.000", false),
            ("c", "12:00:00.000", true),
        ];
        for (name, at, is_new) in again {
            assert_eq!(seen.is_new(&line(name, at)), is_new, "{name} at {at}");
        }
    }

    #[test]
    fn a_third_connection_knows_what_the_second_showed() {
        let mut seen = Seen::new("2026-11-23T11:00:00Z".parse().unwrap());
        assert!(seen.is_new(&line("a", "12:00:01.000")));
        seen.start_again();
        assert!(!seen.is_new(&line("a", "12:00:01.000")));
        assert!(seen.is_new(&line("a", "12:00:01.000")));
        seen.start_again();
        assert!(!seen.is_new(&line("a", "12:00:01.000")));
        assert!(!seen.is_new(&line("a", "12:00:01.000")));
        assert!(seen.is_new(&line("a", "12:00:01.000")));
    }

    #[test]
    fn a_program_cannot_drive_the_terminal_but_may_use_colour() {
        assert_eq!(printable("\x1b[1;31mred\x1b[0m\tä"), "\x1b[1;31mred\x1b[0m\tä");
        assert_eq!(printable("\x1b[2Jx\x1b]0;t\x07\r"), "\\u{1b}[2Jx\\u{1b}]0;t\\u{7}\\r");
        assert_eq!(printable("\x1b["), "\\u{1b}[");
    }
}
