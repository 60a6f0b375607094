//! What an error that PostgreSQL sends means for its health, by its SQLSTATE.

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorResponseBody;

use super::finding::Finding;
use super::{Verdict, words};
use crate::config::CheckRole;
use crate::core::care::evidence::ProbeFailure;

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ServerError {
    /// The SQLSTATE; see appendix A of PostgreSQL's documentation.
    pub(super) code: String,
    pub(super) message: String,
}

impl ServerError {
    pub(super) fn new(body: &ErrorResponseBody) -> Self {
        let mut error = Self::default();
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let text = || words::shown(&String::from_utf8_lossy(field.value_bytes()));
            match field.type_() {
                b'C' => error.code = text(),
                b'M' => error.message = text(),
                _ => {}
            }
        }
        error
    }
}

/// Says what it means that a server refuses.
pub(super) fn judge(whom: &str, error: &ServerError, role: CheckRole) -> Finding {
    let ServerError { code, message } = error;
    let sentence = format!("postgres at {whom} refuses: {message} ({code})");
    match code.as_str() {
        // too_many_connections
        "53300" => {
            let sentence =
                format!("postgres at {whom} has too many connections: {message} ({code})");
            Finding::fail(ProbeFailure::TooManyConnections, sentence)
        }
        // invalid_password, invalid_authorization_specification, insufficient_privilege: the
        // check is wrong.
        "28P01" | "28000" | "42501" => Finding::unknown(sentence),
        // cannot_connect_now: it starts, recovers or stops. A stop that hangs is no start.
        "57P03" if role == CheckRole::Live && !message.contains("shutting down") => {
            Finding::new(Verdict::Warn, format!("postgres at {whom} is not ready: {message}"))
        }
        _ => Finding::wrong(message.clone(), sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: &str, message: &str, role: CheckRole) -> Finding {
        let error = ServerError { code: code.to_owned(), message: message.to_owned() };
        judge("db:5432", &error, role)
    }

    #[test]
    fn each_state_is_the_trouble_of_the_check_of_the_moment_or_of_the_server() {
        let full = judged("53300", "sorry, too many clients already", CheckRole::Live);
        assert_eq!(full.failure, Some(ProbeFailure::TooManyConnections));
        let expected =
            "postgres at db:5432 has too many connections: sorry, too many clients already (53300)";
        assert_eq!(full.sentence, expected);
        let password = judged("28P01", "password authentication failed", CheckRole::Live);
        assert_eq!(password.verdict, Verdict::Unknown);
        let starting = "the database system is starting up";
        assert_eq!(judged("57P03", starting, CheckRole::Live).verdict, Verdict::Warn);
        assert_eq!(judged("57P03", starting, CheckRole::Start).verdict, Verdict::Fail);
        let stopping = "the database system is shutting down";
        assert_eq!(judged("57P03", stopping, CheckRole::Live).verdict, Verdict::Fail);
        let missing = judged("3D000", "database \"app\" does not exist", CheckRole::Live);
        assert_eq!(missing.verdict, Verdict::Fail);
    }
}
