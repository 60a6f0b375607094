//! Bytes in, lines and server-sent events out, however the bytes were cut. No I/O.

/// Splits a byte stream at `\n`, keeping an unfinished line for later.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were given out already.
    taken: usize,
    /// Bytes of `buffer` known to hold no line end.
    searched: usize,
}

impl Lines {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.searched -= self.taken;
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole line, without its end (`\n` or `\r\n`).
    pub fn next_line(&mut self) -> Option<&[u8]> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(offset) = found else {
            self.searched = self.buffer.len();
            return None;
        };
        let (start, end) = (self.taken, self.searched + offset);
        self.taken = end + 1;
        self.searched = self.taken;
        let line = &self.buffer[start..end];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerEvent {
    /// The last id seen, also when this event has none of its own.
    pub id: Option<String>,
    pub event: String,
    pub data: String,
}

/// Parses `text/event-stream`. Comments, `retry` and unknown fields are skipped.
#[derive(Debug, Default)]
pub struct Sse {
    lines: Lines,
    last_id: Option<String>,
    event: String,
    data: Option<String>,
}

impl Sse {
    pub fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// Returns the next complete event; one without data does not count.
    pub fn next_event(&mut self) -> Option<ServerEvent> {
        while let Some(line) = self.lines.next_line() {
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if let Some(data) = self.data.take() {
                    return Some(ServerEvent { id: self.last_id.clone(), event, data });
                }
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
                "event" => self.event = value.to_owned(),
                "data" => match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => self.data = Some(value.to_owned()),
                },
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all_lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            while let Some(line) = lines.next_line() {
                found.push(line.to_vec());
            }
        }
        found
    }

    fn all_events(chunks: &[&[u8]]) -> Vec<ServerEvent> {
        let mut sse = Sse::default();
        let mut found = Vec::new();
        for chunk in chunks {
            sse.push(chunk);
            while let Some(event) = sse.next_event() {
                found.push(event);
            }
        }
        found
    }

    #[test]
    fn an_unfinished_line_waits_for_its_end() {
        assert_eq!(all_lines(&[b"a\nb", b"c\r", b"\n\nd"]), [&b"a"[..], b"bc", b""]);
    }

    #[test]
    fn an_event_has_its_fields_and_keeps_the_last_id() {
        let text =
            b": hello\nretry: 5\nid: 7\nevent: state\ndata: {\"a\":1}\ndata:x\n\n\ndata: y\n\n";
        let found = all_events(&[text]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].id.as_deref(), Some("7"));
        assert_eq!(found[0].event, "state");
        assert_eq!(found[0].data, "{\"a\":1}\nx");
        let expected =
            ServerEvent { id: Some("7".into()), event: String::new(), data: "y".to_owned() };
        assert_eq!(found[1], expected);
    }

    proptest! {
        #[test]
        fn cutting_the_bytes_elsewhere_changes_nothing(
            text in "(id: ?[0-9]{0,3}|data: ?[a-zä]{0,4}|event: s|: c|[a-z:]{0,4}|\\PC{0,5})(\r?\n(id: 1|data: x|)){0,9}\n\n",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(all_lines(&chunks), all_lines(&[bytes]));
            prop_assert_eq!(all_events(&chunks), all_events(&[bytes]));
        }

        #[test]
        fn no_bytes_make_it_panic(chunks in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let whole = chunks.concat();
            prop_assert_eq!(all_lines(&chunks), all_lines(&[&whole]));
            prop_assert_eq!(all_events(&chunks), all_events(&[&whole]));
        }
    }
}
