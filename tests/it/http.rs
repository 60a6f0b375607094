//! A client of the control API that depends on nothing of Mend's own client.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mendd::api::view::EventView;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the answer {self:#?}"))
    }
}

/// Sends one request on a connection of its own and reads the whole answer.
pub(crate) fn request(
    socket: &Path,
    method: &str,
    target: &str,
    body: Option<&str>,
    patience: Duration,
) -> io::Result<Answer> {
    read_whole(open(socket, method, target, body, "", patience)?)
}

/// Posts a body with further header lines.
pub(crate) fn request_with(
    socket: &Path,
    target: &str,
    body: &str,
    headers: &str,
) -> io::Result<Answer> {
    let patience = Duration::from_secs(20);
    read_whole(open(socket, "POST", target, Some(body), headers, patience)?)
}

fn read_whole((status, content_type, mut reader): (u16, String, Body)) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(Answer { status, content_type, body: String::from_utf8_lossy(&bytes).into_owned() })
}

fn open(
    socket: &Path,
    method: &str,
    target: &str,
    body: Option<&str>,
    more_headers: &str,
    patience: Duration,
) -> io::Result<(u16, String, Body)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let content = body.map_or(String::new(), |body| {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    });
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: mend\r\nConnection: close\r\n{more_headers}{content}\r\n{}",
        body.unwrap_or_default()
    )?;
    let mut reader = BufReader::new(stream);
    let status = line(&mut reader)?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| io::Error::other(format!("not HTTP: {status:?}")))?;
    let (mut content_type, mut chunked) = (String::new(), false);
    loop {
        let header = line(&mut reader)?;
        match header.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim())) {
            None => break,
            Some((name, value)) if name == "content-type" => value.clone_into(&mut content_type),
            Some((name, value)) if name == "transfer-encoding" => chunked = value == "chunked",
            Some(_) => {}
        }
    }
    Ok((code, content_type, Body { reader, left: if chunked { Some(0) } else { None } }))
}

/// Reads one line without its end; empty at the end of input.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The body of an answer; `left` counts the bytes of the current chunk, if there are chunks.
struct Body {
    reader: BufReader<UnixStream>,
    left: Option<usize>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.left else { return self.reader.read(buffer) };
        let left = if left > 0 {
            left
        } else {
            let mut size = line(&mut self.reader)?;
            if size.is_empty() {
                size = line(&mut self.reader)?; // the line end that closes a chunk
            }
            usize::from_str_radix(&size, 16).map_err(io::Error::other)?
        };
        if left == 0 {
            return Ok(0);
        }
        let most = left.min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        self.left = Some(left - read);
        Ok(read)
    }
}

/// An open stream of server-sent events.
pub(crate) struct Events(BufReader<Body>);

impl Events {
    /// Listens from now on, or from the event after `after`.
    pub(crate) fn open(socket: &Path, after: Option<u64>, patience: Duration) -> io::Result<Self> {
        let resume = after.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let (status, kind, body) = open(socket, "GET", "/v1/events", None, &resume, patience)?;
        assert_eq!((status, kind.as_str()), (200, "text/event-stream"));
        Ok(Self(BufReader::new(body)))
    }
}

impl Iterator for Events {
    type Item = EventView;

    /// Returns the next event, `None` when the stream ended or was silent for too long.
    fn next(&mut self) -> Option<EventView> {
        let mut data = String::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end_matches(['\r', '\n']) {
                "" if !data.is_empty() => {
                    return Some(serde_json::from_str(&data).expect("an event is JSON"));
                }
                text => data.push_str(text.strip_prefix("data:").unwrap_or_default()),
            }
        }
    }
}

/// The client itself: how an answer is cut into chunks must not matter.
#[test]
fn events_are_read_whatever_the_chunks() {
    let text = "retry: 1000\n\nid: 7\nevent: state\ndata: {\"id\":7,\"at\":\"2026-01-01T00:00:00Z\",\
                \"kind\":\"state\",\"data\":{}}\n\n: keep-alive\n\n";
    for size in [1, 7, 64, 4096] {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut wire = Vec::new();
        for chunk in text.as_bytes().chunks(size) {
            wire.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            wire.extend(chunk.iter().chain(b"\r\n"));
        }
        wire.extend(b"0\r\n\r\n");
        theirs.write_all(&wire).expect("it fits into the socket's buffer");
        let body = Body { reader: BufReader::new(ours), left: Some(0) };
        let events: Vec<EventView> = Events(BufReader::new(body)).collect();
        assert_eq!(events.len(), 1, "in chunks of {size}");
        assert_eq!((events[0].id, events[0].kind.as_str()), (7, "state"));
    }
}
