//! The way to the daemon: HTTP/1.1 over its Unix socket, one connection per request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::failure::Failure;
use super::socket;
use crate::api::view::Problem;

/// How long the daemon may take to answer, beyond what it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the keeper may take to put a new brain in the place of one that died.
const TAKEOVER: Duration = Duration::from_secs(1);

/// How often the socket is tried meanwhile.
const TAKEOVER_STEP: Duration = Duration::from_millis(10);

/// Talks to one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    candidates: Vec<PathBuf>,
}

/// A whole answer: the value, and the bytes as the daemon wrote them.
#[derive(Debug)]
pub struct Answer<T> {
    pub value: T,
    pub raw: Vec<u8>,
}

impl Client {
    /// Uses `given`, or the first of the usual places where a socket is.
    pub fn new(given: Option<&Path>) -> Self {
        Self { candidates: socket::candidates(given) }
    }

    /// Gets a document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        let response = self.ask(Method::GET, path, None, &[], PATIENCE).await?;
        whole(response, PATIENCE).await
    }

    /// Sends `body` and gets the answer, for which the daemon may take `wait` and a bit more.
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        wait: Duration,
    ) -> Result<Answer<T>, Failure> {
        self.send_bytes(method, path, written(body)?, &[], wait).await
    }

    /// As [`Client::send`], under a key by which the daemon knows the request when it is sent again.
    pub async fn send_once<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &B,
        wait: Duration,
    ) -> Result<Answer<T>, Failure> {
        let headers = [("idempotency-key", key)];
        self.send_bytes(Method::POST, path, written(body)?, &headers, wait).await
    }

    /// Asks for something that needs no details, as [`Client::send`] does.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        wait: Duration,
    ) -> Result<Answer<T>, Failure> {
        self.send_bytes(Method::POST, path, Vec::new(), &[], wait).await
    }

    async fn send_bytes<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
        wait: Duration,
    ) -> Result<Answer<T>, Failure> {
        let patience = PATIENCE.saturating_add(wait);
        let response = self.ask(method, path, Some(body), headers, patience).await?;
        whole(response, patience).await
    }

    /// Opens an answer that may go on for ever.
    pub async fn stream(&self, path: &str, last_event: Option<&str>) -> Result<Stream, Failure> {
        let mut headers = Vec::new();
        if let Some(id) = last_event {
            headers.push(("last-event-id", id));
        }
        let response = self.ask(Method::GET, path, None, &headers, PATIENCE).await?;
        Ok(Stream { body: response.into_body() })
    }

    /// Whether anybody answers at the socket.
    pub async fn is_reachable(&self) -> bool {
        self.try_connect().await.is_ok()
    }

    /// Connects; a socket where nobody answers may get a new brain in a moment.
    async fn connect(&self) -> Result<UnixStream, Failure> {
        let end = Instant::now() + TAKEOVER;
        loop {
            match self.try_connect().await {
                Err(Failure::Stale { .. }) if Instant::now() < end => sleep(TAKEOVER_STEP).await,
                result => return result,
            }
        }
    }

    async fn try_connect(&self) -> Result<UnixStream, Failure> {
        let path = socket::choose(&self.candidates)?;
        UnixStream::connect(&path).await.map_err(|error| socket::explain(&path, error))
    }

    /// Sends one request and returns the answer's head; errors of the daemon are failures.
    ///
    /// A brain that is being killed takes connections to its last moment; what only looks is asked
    /// again of the next one.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let end = Instant::now() + TAKEOVER;
        loop {
            let answer = self.ask_once(method.clone(), path, body.clone(), headers, patience).await;
            match answer {
                Err(Failure::Lost(_)) if method == Method::GET && Instant::now() < end => {
                    sleep(TAKEOVER_STEP).await;
                }
                answer => return answer,
            }
        }
    }

    async fn ask_once(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "mend")
            .header(USER_AGENT, concat!("mendctl/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "*/*");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = &body {
            request = request.header(CONTENT_LENGTH, body.len().to_string());
            if !body.is_empty() {
                request = request.header(CONTENT_TYPE, "application/json");
            }
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Failure::Usage(format!("this cannot be asked for: {error}")))?;
        let silent = |_| Failure::Lost(format!("no answer within {} s", patience.as_secs()));
        let response = timeout(patience, sender.send_request(request)).await.map_err(silent)?;
        let response = response.map_err(lost)?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }
}

/// An answer that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
}

impl Stream {
    /// Returns the next piece, `None` at the end. May be cancelled without losing any.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(bytes) = frame.map_err(lost)?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

fn written(body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body)
        .map_err(|error| Failure::Failed(format!("cannot write the request: {error}")))
}

async fn whole<T: DeserializeOwned>(
    response: Response<Incoming>,
    patience: Duration,
) -> Result<Answer<T>, Failure> {
    let silent = |_| Failure::Lost("the answer stopped half-way".to_owned());
    let body = timeout(patience, response.into_body().collect()).await.map_err(silent)?;
    let raw = body.map_err(lost)?.to_bytes().to_vec();
    // An empty answer reads as `null`, for requests whose success says all.
    let text: &[u8] = if raw.is_empty() { b"null" } else { &raw };
    match serde_json::from_slice(text) {
        Ok(value) => Ok(Answer { value, raw }),
        Err(error) => Err(Failure::Protocol(error.to_string())),
    }
}

async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let body = timeout(PATIENCE, response.into_body().collect()).await;
    let bytes = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return lost(error),
        Err(_) => return Failure::Lost("the answer stopped half-way".to_owned()),
    };
    if let Ok(problem) = serde_json::from_slice::<Problem>(&bytes) {
        return Failure::Problem(problem);
    }
    let text = String::from_utf8_lossy(&bytes);
    let title = status.canonical_reason().unwrap_or("error").to_owned();
    let help = (status.as_u16() == 404).then(|| {
        "this mendd may be older than this mendctl; `mendctl version` shows both".to_owned()
    });
    let detail = format!("mendd answered {}: {}", status.as_u16(), text.trim());
    Failure::Problem(Problem {
        kind: "about:blank".to_owned(),
        title,
        status: status.as_u16(),
        detail: detail.trim_end_matches([':', ' ']).to_owned(),
        help,
    })
}

fn lost(error: hyper::Error) -> Failure {
    Failure::Lost(match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

/// Builds `path?key=value&…`, with everything escaped that needs it.
pub fn with_query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut uri = path.to_owned();
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        uri.push(if index == 0 { '?' } else { '&' });
        uri.push_str(key);
        uri.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                uri.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        let uri = with_query("/v1/status", [("name", "web:*"), ("name", "@a b"), ("x", "ä&=")]);
        assert_eq!(uri, "/v1/status?name=web%3A%2A&name=%40a%20b&x=%C3%A4%26%3D");
        assert_eq!(with_query("/v1/status", []), "/v1/status");
    }
}
