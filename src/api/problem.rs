//! Refusals as RFC 9457 problem details: a stable `type`, what was wrong, and the way out.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::access::Role;
use super::view::Problem;
use crate::engine::Refusal;

/// What every problem `type` begins with. The host does not exist on purpose: the URI is a
/// name, not a page.
pub const TYPE_PREFIX: &str = "https://mend.invalid/problems/";

/// How long a client should wait before it asks a busy or stopping daemon again, in seconds.
const RETRY_AFTER_SECONDS: &str = "2";

/// A request that is refused: problem details, ready to be sent.
#[derive(Debug)]
pub(super) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    retry: bool,
    allow: Option<String>,
}

impl Fault {
    fn new(status: StatusCode, name: &str, title: impl Into<String>, detail: String) -> Self {
        let problem = Problem {
            kind: format!("{TYPE_PREFIX}{name}"),
            title: title.into(),
            status: status.as_u16(),
            detail,
            help: None,
        };
        Self(Box::new(Inner { problem, retry: false, allow: None }))
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.0.problem.help = Some(help.into());
        self
    }

    fn retry(mut self) -> Self {
        self.0.retry = true;
        self
    }

    /// Returns the text that belongs into the audit trail.
    pub(super) fn detail(&self) -> &str {
        &self.0.problem.detail
    }

    /// A parameter or a member of the body that cannot be understood: 400.
    pub(super) fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        let title = "A parameter cannot be understood";
        Self::new(StatusCode::BAD_REQUEST, "bad-parameter", title, format!("`{name}`: {why}"))
    }

    /// A parameter that this route does not have: 400.
    pub(super) fn unknown_parameter(name: &str, known: &[&str]) -> Self {
        let fault = Self::parameter(name, "this route has no such parameter");
        let near = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
            .min()
            .filter(|(distance, _)| *distance <= 2);
        match (near, known) {
            (Some((_, near)), _) => fault.help(format!("did you mean `{near}`?")),
            (None, []) => fault.help("leave the query out"),
            (None, _) => fault.help(format!("it has {}", quoted(known))),
        }
    }

    /// A body that is not the document the route wants: 400 when it is no JSON, else 422.
    pub(super) fn body(error: &serde_json::Error) -> Self {
        let status = match error.classify() {
            serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => StatusCode::BAD_REQUEST,
        };
        Self::new(status, "bad-body", "The body cannot be understood", error.to_string())
            .help("GET /v1/openapi.json describes the body of every request")
    }

    pub(super) fn unexpected_body() -> Self {
        let detail = "this route takes its options from the query, the request has a body";
        let title = "The body cannot be understood";
        Self::new(StatusCode::BAD_REQUEST, "bad-body", title, detail.to_owned())
            .help("use ?wait=…&reason=…, or POST /v1/start, /v1/stop, … which take a body")
    }

    pub(super) fn body_too_large(limit_bytes: usize) -> Self {
        let detail = format!("the body has more than {limit_bytes} bytes");
        let title = "The body is too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", title, detail)
    }

    pub(super) fn body_broken() -> Self {
        let detail = "the body ended before it was complete".to_owned();
        Self::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be understood", detail)
    }

    pub(super) fn body_too_slow() -> Self {
        let detail = "the body did not arrive in time".to_owned();
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The request took too long", detail)
    }

    pub(super) fn no_route(path: &str) -> Self {
        let detail = format!("there is nothing at `{path}`");
        Self::new(StatusCode::NOT_FOUND, "unknown-route", "There is no such route", detail)
            .help("GET / lists the routes, GET /v1/openapi.json describes them")
    }

    pub(super) fn method(method: &str, path: &str, allowed: String) -> Self {
        let detail = format!("`{path}` does not take {method}");
        let title = "The method does not fit the route";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut fault = Self::new(status, "method-not-allowed", title, detail)
            .help(format!("it takes {allowed}"));
        fault.0.allow = Some(allowed);
        fault
    }

    pub(super) fn denied(who: &str, has: Option<Role>, needs: Role) -> Self {
        let has = has.map_or("no role".to_owned(), |role| format!("the role `{role}`"));
        let detail = format!("this needs the role `{needs}`, {who} has {has}");
        Self::new(StatusCode::FORBIDDEN, "denied", "Permission denied", detail).help(format!(
            "run it as root or as the daemon's user, or add the user or one of its groups to \
             `{needs}` under [supervisor.access] and reload the configuration"
        ))
    }

    pub(super) fn no_incident(id: u64) -> Self {
        let detail = format!("no incident has the number {id}, or it is too old to be kept");
        Self::new(StatusCode::NOT_FOUND, "unknown-incident", "There is no such incident", detail)
            .help("`mendctl incidents` (GET /v1/incidents) lists what there is")
    }

    pub(super) fn no_history(detail: String) -> Self {
        let title = "The history cannot be read";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no-history", title, detail)
            .help("`mendctl status` says what is wrong with it; the programs run on without it")
    }

    pub(super) fn busy(limit: usize) -> Self {
        let detail = format!("{limit} requests are being answered already");
        let title = "The daemon is busy";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title, detail).retry()
    }

    pub(super) fn not_ready(detail: &str) -> Self {
        let title = "The daemon is not ready";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", title, detail.to_owned()).retry()
    }

    pub(super) fn internal(detail: String) -> Self {
        let title = "The daemon could not do it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", title, detail)
            .help("the daemon's own log has more")
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::UnknownName { suggestion, .. } => {
                let fault =
                    Self::new(StatusCode::NOT_FOUND, "unknown-name", "There is no such name", text);
                match suggestion {
                    Some(near) => fault.help(format!("did you mean `{near}`?")),
                    None => fault.help("`mendctl status` (GET /v1/status) lists what there is"),
                }
            }
            Refusal::Invalid(_) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "invalid-request", "The request makes no sense", text)
            }
            Refusal::ShuttingDown => {
                let title = "The supervisor is shutting down";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting-down", title, text).retry()
            }
            Refusal::BadConfiguration { rendered, mistakes } => {
                let title = match mistakes {
                    1 => "The configuration has a mistake".to_owned(),
                    n => format!("The configuration has {n} mistakes"),
                };
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "bad-configuration", title, rendered).help(
                    "nothing was changed; correct the file and check it with `mendctl config check`",
                )
            }
            Refusal::Busy(_) => {
                let title = "Something else must come first";
                Self::new(StatusCode::CONFLICT, "conflict", title, text)
            }
            Refusal::Failed(_) => Self::internal(text),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Inner { problem, retry, allow } = *self.0;
        let body = serde_json::to_vec(&problem).expect("a problem of strings becomes JSON");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(problem.status).expect("it was made from a StatusCode");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

/// Returns `` `a`, `b` and `c` ``.
pub(super) fn quoted(words: &[&str]) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            text.push_str(if index + 1 == words.len() { " and " } else { ", " });
        }
        text.push('`');
        text.push_str(word);
        text.push('`');
    }
    text
}
