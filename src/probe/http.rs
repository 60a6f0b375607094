//! Is a request answered well?
//!
//! Redirections are answers and not followed. Of a body only the beginning is read, and only
//! when it matters: some never end.

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use tokio_util::task::AbortOnDropHandle;

use super::connect::{self, Connection};
use super::finding::Finding;
use super::progress::{Progress, Stage};
use super::{MAX_OUTPUT_BYTES, Verdict, tcp, tls, words};
use crate::config::{Endpoint, HttpLook, HttpMethod, HttpTarget};

/// Most bytes of a body in which a pattern is looked for.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Asks for readiness.
pub(super) async fn ask(target: &HttpTarget, progress: &Progress) -> Finding {
    let stream = match connect::tcp(&target.address, progress).await {
        Ok(stream) => stream,
        Err(trouble) => return tcp::unready(&trouble),
    };
    progress.enter(Stage::Asking);
    let request = request(target, Method::GET, &target.address.to_string());
    match answer(stream, request).await {
        Ok((answer, _connection)) => match target.accepts(answer.status().as_u16()) {
            true => Finding::pass(format!("answered {}", answer.status())),
            false => bad_status(answer).await,
        },
        Err(error) => Finding::new(Verdict::Fail, explain(&error)),
    }
}

pub(super) async fn look(look: &HttpLook, progress: &Progress) -> Finding {
    super::either(exchange(look, progress).await)
}

async fn exchange(look: &HttpLook, progress: &Progress) -> Result<Finding, Finding> {
    let body = look.body.as_deref().map(super::pattern).transpose()?;
    let request = demanded(look)?;
    let endpoint = match &look.unix {
        Some(path) => Endpoint::Unix(path.clone()),
        None => Endpoint::Tcp(look.target.address.clone()),
    };
    let whom = endpoint.to_string();
    let connection = connect::connect(&endpoint, progress).await?;
    progress.enter(Stage::Asking);
    let connection: Box<dyn Connection> = match &look.tls {
        Some(tls) => Box::new(tls::secure(connection, tls, &whom, progress).await?),
        None => connection,
    };
    let (answer, _connection) =
        answer(connection, request).await.map_err(|error| failed(&whom, &error))?;
    progress.enter(Stage::Answering);
    if !look.target.accepts(answer.status().as_u16()) {
        return Err(bad_status(answer).await);
    }
    let good = format!("answered {}", answer.status());
    check_headers(look, answer.headers())?;
    if body.is_some() || look.latency.is_some() {
        check_body(answer.into_body(), body.as_ref(), &good).await?;
    }
    Ok(Finding::pass(good))
}

/// Builds the request that a check asks for.
fn demanded(look: &HttpLook) -> Result<Request<Empty<Bytes>>, Finding> {
    let address = &look.target.address;
    let usual = if look.tls.is_some() { 443 } else { 80 };
    let host = match address.port == usual {
        // Some servers take a name with its usual port for another name.
        true => {
            let text = address.to_string();
            text.rsplit_once(':').map_or(text.clone(), |(host, _)| host.to_owned())
        }
        false => address.to_string(),
    };
    let method = match look.method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
    };
    let mut request = request(&look.target, method, &host);
    for (name, value) in &look.headers {
        let name: Result<HeaderName, _> = name.parse();
        let value = HeaderValue::from_str(value.reveal());
        let (Ok(name), Ok(mut value)) = (name, value) else {
            return Err(Finding::unknown("a header of the request is not valid"));
        };
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn request(target: &HttpTarget, method: Method, host: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    // Both were checked when they were read.
    if let Ok(path) = target.path.parse() {
        *request.uri_mut() = path;
    }
    let headers = request.headers_mut();
    if let Ok(host) = host.parse() {
        headers.insert(header::HOST, host);
    }
    let agent = HeaderValue::from_static(concat!("mend/", env!("CARGO_PKG_VERSION")));
    headers.insert(header::USER_AGENT, agent);
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}

/// Asks; the connection lives as long as the second value.
async fn answer<C: Connection + 'static>(
    stream: C,
    request: Request<Empty<Bytes>>,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), hyper::Error> {
    let (mut sender, connection): (SendRequest<Empty<Bytes>>, _) =
        http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this probe, whatever becomes of it; its errors show in the answer.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    Ok((sender.send_request(request).await?, connection))
}

async fn bad_status(answer: Response<Incoming>) -> Finding {
    let status = answer.status();
    let output = beginning(answer.into_body()).await;
    let said = match words::last_line(&output) {
        Some(line) => format!("{status}: {line}"),
        None => status.to_string(),
    };
    Finding::wrong(said.clone(), format!("answered {said}")).with_output(output)
}

fn check_headers(look: &HttpLook, headers: &HeaderMap) -> Result<(), Finding> {
    for (name, pattern) in &look.answer_headers {
        let pattern = super::pattern(pattern)?;
        let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
        if values.iter().any(|value| pattern.is_match(value.as_bytes())) {
            continue;
        }
        let sentence = match values.first() {
            Some(value) => {
                let value = words::shown(&String::from_utf8_lossy(value.as_bytes()));
                format!(
                    "answered with the header `{name}: {value}`, which does not match `{pattern}`"
                )
            }
            None => format!("answered without the header `{name}`"),
        };
        return Err(Finding::wrong(sentence.clone(), sentence));
    }
    Ok(())
}

/// Reads a body until it matches, or to its end.
async fn check_body(
    mut body: Incoming,
    pattern: Option<&Regex>,
    good: &str,
) -> Result<(), Finding> {
    let mut read = Vec::new();
    let mut is_broken = false;
    while read.len() < MAX_BODY_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => read.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Some(Err(_)) => {
                is_broken = true;
                break;
            }
            None => break,
        }
        if pattern.is_some_and(|pattern| pattern.is_match(&read)) {
            return Ok(());
        }
    }
    let matches = pattern.is_none_or(|pattern| pattern.is_match(&read));
    if matches && !is_broken {
        return Ok(());
    }
    let sentence = match pattern {
        _ if is_broken => format!("{good}, and then broke off"),
        Some(pattern) => {
            let line = words::first_line(&read).unwrap_or_default();
            format!("{good} with \"{line}\", which does not match `{pattern}`")
        }
        None => good.to_owned(),
    };
    read.truncate(MAX_OUTPUT_BYTES);
    Err(Finding::wrong(sentence.clone(), sentence).with_output(read))
}

/// Reads the first bytes of a body that says why.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_OUTPUT_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    bytes.truncate(MAX_OUTPUT_BYTES);
    bytes
}

/// Says what it means that there is no answer.
fn failed(whom: &str, error: &hyper::Error) -> Finding {
    if let Some(error) = io_cause(error) {
        return connect::broken(whom, error);
    }
    // Closed in the middle of the answer, or before all of the request was sent.
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return connect::closed(whom);
    }
    let sentence = format!("{whom} does not answer in HTTP: {error}");
    Finding::wrong("something that is not HTTP", sentence)
}

fn io_cause(error: &hyper::Error) -> Option<&std::io::Error> {
    std::error::Error::source(error).and_then(|cause| cause.downcast_ref())
}

fn explain(error: &hyper::Error) -> String {
    match io_cause(error).map(words::error) {
        Some(cause) => cause,
        None if error.is_incomplete_message() => "closed the connection without an answer".into(),
        None => format!("did not answer in HTTP: {error}"),
    }
}
