//! Is a GET answered well?

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::{Finding, MAX_OUTPUT_BYTES, Verdict, last_line, tcp, words};
use crate::config::HttpTarget;

pub(super) async fn ask(target: &HttpTarget) -> Finding {
    let stream = match tcp::connect(&target.address).await {
        Ok(stream) => stream,
        Err(error) => return Finding::new(Verdict::Fail, words(&error)),
    };
    let answer = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with this probe, whatever becomes of it.
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let answer = sender.send_request(request(target)).await?;
        Ok::<_, hyper::Error>((answer, connection))
    };
    match answer.await {
        Ok((answer, _connection)) => judge(target, answer).await,
        Err(error) => Finding::new(Verdict::Fail, explain(&error)),
    }
}

fn request(target: &HttpTarget) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    // Both were checked when they were read.
    if let Ok(path) = target.path.parse() {
        *request.uri_mut() = path;
    }
    let headers = request.headers_mut();
    if let Ok(host) = target.address.to_string().parse() {
        headers.insert(header::HOST, host);
    }
    let agent = header::HeaderValue::from_static(concat!("mend/", env!("CARGO_PKG_VERSION")));
    headers.insert(header::USER_AGENT, agent);
    headers.insert(header::ACCEPT, header::HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    request
}

async fn judge(target: &HttpTarget, answer: Response<Incoming>) -> Finding {
    let status = answer.status();
    let sentence = format!("answered {status}");
    if target.accepts(status.as_u16()) {
        return Finding::new(Verdict::Pass, sentence);
    }
    let output = beginning(answer.into_body()).await;
    let sentence = match last_line(&output) {
        Some(line) => format!("{sentence}: {line}"),
        None => sentence,
    };
    Finding { verdict: Verdict::Fail, sentence, output }
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

fn explain(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    match cause.map(|error: &std::io::Error| words(error)) {
        Some(cause) => cause,
        None if error.is_incomplete_message() => "closed the connection without an answer".into(),
        None => format!("did not answer in HTTP: {error}"),
    }
}
