//! The protocol of Redis, version 2, as far as a few questions need it: bytes in, values out.
//!
//! Client libraries bring pools, clusters and a URL parser of twenty crates; a check sends three
//! commands.

/// Deepest lists within lists.
const MAX_DEPTH: usize = 8;
/// Most values of one answer.
const MAX_VALUES: usize = 1000;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Error(String),
    Number(i64),
    Nothing,
    List(Vec<Value>),
}

/// The bytes are no answer of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an answer of Redis")]
pub(super) struct Nonsense;

/// Writes a command with its arguments.
pub(super) fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Reads one value and returns it with its length; `None` when it has not come to its end.
///
/// # Errors
///
/// [`Nonsense`] as soon as no further bytes could make it a value.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Value, usize)>, Nonsense> {
    let mut reader = Reader { bytes, at: 0, left: MAX_VALUES };
    match reader.value(MAX_DEPTH) {
        Ok(value) => Ok(Some((value, reader.at))),
        Err(Stop::More) => Ok(None),
        Err(Stop::Nonsense) => Err(Nonsense),
    }
}

enum Stop {
    More,
    Nonsense,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        self.left = self.left.checked_sub(1).ok_or(Stop::Nonsense)?;
        let kind = *self.bytes.get(self.at).ok_or(Stop::More)?;
        if !b"+-:$*".contains(&kind) {
            return Err(Stop::Nonsense);
        }
        self.at += 1;
        let line = self.line()?;
        let text = || String::from_utf8_lossy(line).into_owned();
        match kind {
            b'+' => Ok(Value::Text(text())),
            b'-' => Ok(Value::Error(text())),
            b':' => number(line).map(Value::Number),
            b'$' => match length(line)? {
                Some(length) => self.bulk(length).map(Value::Text),
                None => Ok(Value::Nothing),
            },
            _ => match length(line)? {
                Some(_) if depth == 0 => Err(Stop::Nonsense),
                Some(length) => {
                    let values = (0..length).map(|_| self.value(depth - 1));
                    values.collect::<Result<_, _>>().map(Value::List)
                }
                None => Ok(Value::Nothing),
            },
        }
    }

    /// Reads to the end of the line, which is not part of it.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        const MAX_LINE: usize = 64 * 1024;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.windows(2).take(MAX_LINE).position(|pair| pair == b"\r\n") {
            Some(end) => {
                self.at += end + 2;
                Ok(&rest[..end])
            }
            None if rest.len() > MAX_LINE => Err(Stop::Nonsense),
            None => Err(Stop::More),
        }
    }

    fn bulk(&mut self, length: usize) -> Result<String, Stop> {
        let end = self.at.checked_add(length).ok_or(Stop::Nonsense)?;
        let text = self.bytes.get(self.at..end).ok_or(Stop::More)?;
        let tail = self.bytes.get(end..end + 2).ok_or(Stop::More)?;
        if tail != b"\r\n" {
            return Err(Stop::Nonsense);
        }
        self.at = end + 2;
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

fn number(line: &[u8]) -> Result<i64, Stop> {
    let text = std::str::from_utf8(line).map_err(|_| Stop::Nonsense)?;
    text.parse().map_err(|_| Stop::Nonsense)
}

/// Reads a length; -1 stands for nothing at all.
fn length(line: &[u8]) -> Result<Option<usize>, Stop> {
    const MAX_BYTES: usize = 1 << 20;
    match number(line)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| Stop::Nonsense)?;
            if length > MAX_BYTES { Err(Stop::Nonsense) } else { Ok(Some(length)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn answers_are_read_one_by_one_and_wait_for_their_end() {
        let bytes = b"+PONG\r\n-ERR no\r\n";
        assert_eq!(parse(bytes), Ok(Some((text("PONG"), 7))));
        assert_eq!(parse(&bytes[7..]), Ok(Some((Value::Error("ERR no".into()), 9))));
        let role = b"*3\r\n$6\r\nmaster\r\n:3129659\r\n*0\r\n";
        let expected =
            Value::List(vec![text("master"), Value::Number(3_129_659), Value::List(vec![])]);
        assert_eq!(parse(role), Ok(Some((expected, role.len()))));
        for end in 0..role.len() {
            assert_eq!(parse(&role[..end]), Ok(None), "{end} bytes");
        }
        assert_eq!(parse(b"$-1\r\n"), Ok(Some((Value::Nothing, 5))));
    }

    #[test]
    fn other_protocols_and_traps_are_nonsense_at_once() {
        let deep = "*1\r\n".repeat(MAX_DEPTH + 2);
        let many = format!("*{}\r\n{}", MAX_VALUES + 5, ":1\r\n".repeat(MAX_VALUES + 5));
        let cases = ["HTTP/1.1 400", ":x\r\n", "$-2\r\n", "$99999999999\r\n", "$1\r\nabc\r\n"];
        for bytes in cases.into_iter().chain([deep.as_str(), many.as_str()]) {
            assert_eq!(parse(bytes.as_bytes()), Err(Nonsense), "{bytes}");
        }
    }

    #[test]
    fn a_command_counts_bytes_and_not_letters() {
        assert_eq!(command(&["AUTH", "ä"]), "*2\r\n$4\r\nAUTH\r\n$2\r\nä\r\n".as_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100),
                text in "([-+:$*]-?[0-9]{1,3}\r\n|a{0,5}\r\n){0,20}") {
            let _ = parse(&bytes);
            if let Ok(Some((_, length))) = parse(text.as_bytes()) {
                prop_assert!(length <= text.len());
            }
        }

        #[test]
        fn a_command_reads_back_as_a_list_of_its_words(words in proptest::collection::vec(".{0,9}", 1..5)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let bytes = command(&words);
            let expected = Value::List(words.iter().map(|word| text(word)).collect());
            prop_assert_eq!(parse(&bytes), Ok(Some((expected, bytes.len()))));
        }
    }
}
