//! Does a PostgreSQL server answer a query?
//!
//! Over its own protocol, without TLS. A server that starts or recovers lives: to restart it
//! would make it start again, so a live check only warns. One that refuses the check's user says
//! nothing of its health. A query that is given up is cancelled: one that hangs would otherwise
//! take a connection with each run of the check.

use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{Header, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::aside::aside;
use super::connect::{self, Connection};
use super::finding::Finding;
use super::postgres_error::{ServerError, judge};
use super::progress::{Progress, Stage};
use super::{Asker, password, words};
use crate::config::{CheckRole, Endpoint, Hidden, PostgresLook, PostgresServer};

/// Longest message of a server.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Most bytes of an answer; with more of them it is an answer.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Most rounds of a password's hash that a server may ask for; 4096 are usual.
const MAX_ROUNDS: u32 = 200_000;
/// How long a connection that only cancels may take.
const CANCEL_TIME: Duration = Duration::from_secs(2);

pub(super) async fn look(
    look: &PostgresLook,
    role: CheckRole,
    asker: &Asker<'_>,
    progress: &Progress,
) -> Finding {
    super::either(exchange(look, role, asker, progress).await)
}

async fn exchange(
    look: &PostgresLook,
    role: CheckRole,
    asker: &Asker<'_>,
    progress: &Progress,
) -> Result<Finding, Finding> {
    let password = match &look.password {
        Some(password) => Some(password::read(password, asker).await?),
        None => None,
    };
    let whom = look.server.to_string();
    let endpoint = endpoint(&look.server);
    let connection = connect::connect(&endpoint, progress).await?;
    progress.enter(Stage::Asking);
    let mut client = Client { whom: &whom, role, connection, read: BytesMut::new(), total: 0 };
    client.log_in(look, password.as_ref()).await?;
    let key = client.until_ready().await?;
    let mut cancel = Cancel { key, endpoint };
    client.send(|buffer| frontend::query(&look.query, buffer)).await?;
    client.until_ready().await?;
    // There is nothing to cancel any more.
    cancel.key = None;
    // Whether it hears that or not, it has answered.
    let _ = client
        .send(|buffer| {
            frontend::terminate(buffer);
            Ok(())
        })
        .await;
    Ok(Finding::pass(format!("postgres at {whom} answers `{}`", words::shown(&look.query))))
}

fn endpoint(server: &PostgresServer) -> Endpoint {
    match server {
        PostgresServer::Tcp(address) => Endpoint::Tcp(address.clone()),
        PostgresServer::Unix { directory, port } => {
            Endpoint::Unix(directory.join(format!(".s.PGSQL.{port}")))
        }
    }
}

struct Client<'a> {
    whom: &'a str,
    role: CheckRole,
    connection: Box<dyn Connection>,
    read: BytesMut,
    /// Bytes that have come in all.
    total: usize,
}

impl Client<'_> {
    /// Says who asks, and proves it.
    async fn log_in(
        &mut self,
        look: &PostgresLook,
        password: Option<&Hidden>,
    ) -> Result<(), Finding> {
        let parameters = [
            ("user", look.user.as_str()),
            ("database", look.database.as_str()),
            ("application_name", "mend"),
            ("client_encoding", "UTF8"),
        ];
        self.send(|buffer| frontend::startup_message(parameters, buffer)).await?;
        let whom = self.whom;
        let wanted = || {
            let sentence = format!("postgres at {whom} wants a password, and the check has none");
            password.map(Hidden::reveal).ok_or_else(|| Finding::unknown(sentence))
        };
        #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign list that grows")]
        match self.next().await? {
            Message::AuthenticationOk => Ok(()),
            Message::AuthenticationCleartextPassword => {
                let password = wanted()?.as_bytes();
                self.send(|buffer| frontend::password_message(password, buffer)).await?;
                self.accepted().await
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(look.user.as_bytes(), wanted()?.as_bytes(), body.salt());
                self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
                self.accepted().await
            }
            Message::AuthenticationSasl(body) => {
                let mut mechanisms = body.mechanisms();
                let mut is_known = false;
                while let Ok(Some(mechanism)) = mechanisms.next() {
                    is_known |= mechanism == SCRAM_SHA_256;
                }
                match is_known {
                    true => self.scram(wanted()?.as_bytes()).await,
                    false => Err(self.unknown_method()),
                }
            }
            Message::ErrorResponse(body) => Err(self.refused(&ServerError::new(&body))),
            _ => Err(self.unknown_method()),
        }
    }

    async fn scram(&mut self, password: &[u8]) -> Result<(), Finding> {
        let scram = ScramSha256::new(password, ChannelBinding::unsupported());
        let first = scram.message().to_vec();
        self.send(|buffer| frontend::sasl_initial_response(SCRAM_SHA_256, &first, buffer)).await?;
        let Message::AuthenticationSaslContinue(body) = self.next_or_refused().await? else {
            return Err(self.nonsense());
        };
        let challenge = body.data().to_vec();
        if rounds(&challenge).is_none_or(|rounds| rounds > MAX_ROUNDS) {
            return Err(self.nonsense());
        }
        // Thousands of rounds of a hash would keep all others on this thread waiting.
        let hashing = move || {
            let mut scram = scram;
            scram.update(&challenge).map(|()| scram)
        };
        let hashed = aside(&format!("the password for {}", self.whom), hashing).await;
        let hashed = hashed.map_err(|unanswered| Finding::unknown(unanswered.to_string()))?;
        let Ok(mut scram) = hashed else { return Err(self.nonsense()) };
        let proof = scram.message().to_vec();
        self.send(|buffer| frontend::sasl_response(&proof, buffer)).await?;
        let Message::AuthenticationSaslFinal(body) = self.next_or_refused().await? else {
            return Err(self.nonsense());
        };
        // A server that does not know the password either is not the one that was meant.
        scram.finish(body.data()).map_err(|_| self.nonsense())?;
        self.accepted().await
    }

    async fn accepted(&mut self) -> Result<(), Finding> {
        let is_ok = matches!(self.next_or_refused().await?, Message::AuthenticationOk);
        if is_ok { Ok(()) } else { Err(self.nonsense()) }
    }

    /// Waits until the server takes a query; returns the key to cancel it with, if it was told.
    async fn until_ready(&mut self) -> Result<Option<(i32, i32)>, Finding> {
        let mut key = None;
        self.total = 0;
        loop {
            #[expect(clippy::wildcard_enum_match_arm, reason = "rows and notices do not matter")]
            match self.next_or_refused().await? {
                Message::BackendKeyData(body) => key = Some((body.process_id(), body.secret_key())),
                Message::ReadyForQuery(_) => return Ok(key),
                // It waits for data, for ever.
                Message::CopyInResponse(_) => {
                    let sentence = "the query of the check is a COPY that wants data";
                    return Err(Finding::unknown(sentence));
                }
                _ if self.total > MAX_ANSWER_BYTES => return Ok(key),
                _ => {}
            }
        }
    }

    async fn next_or_refused(&mut self) -> Result<Message, Finding> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only one of them is a refusal")]
        match self.next().await? {
            Message::ErrorResponse(body) => Err(self.refused(&ServerError::new(&body))),
            message => Ok(message),
        }
    }

    async fn next(&mut self) -> Result<Message, Finding> {
        loop {
            if let Ok(Some(header)) = Header::parse(&self.read)
                && usize::try_from(header.len()).is_ok_and(|length| length > MAX_MESSAGE_BYTES)
            {
                // Another protocol, read as a length, could ask for gigabytes.
                return Err(self.nonsense());
            }
            match Message::parse(&mut self.read) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(_) => return Err(self.nonsense()),
            }
            match self.connection.read_buf(&mut self.read).await {
                Ok(0) => return Err(connect::closed(self.whom)),
                Ok(bytes) => self.total += bytes,
                Err(error) => return Err(connect::broken(self.whom, &error)),
            }
        }
    }

    async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), Finding> {
        let mut buffer = BytesMut::new();
        // Only a text with a zero byte in it cannot be written.
        write(&mut buffer).map_err(|error| {
            Finding::unknown(format!("the check cannot ask: {}", words::error(&error)))
        })?;
        match self.connection.write_all(&buffer).await {
            Ok(()) => Ok(()),
            Err(error) => Err(connect::broken(self.whom, &error)),
        }
    }

    fn refused(&self, error: &ServerError) -> Finding {
        judge(self.whom, error, self.role)
    }

    fn nonsense(&self) -> Finding {
        let sentence = format!("{} does not speak as PostgreSQL does", self.whom);
        Finding::wrong("something that is not PostgreSQL", sentence)
    }

    fn unknown_method(&self) -> Finding {
        Finding::unknown(format!(
            "postgres at {} wants another proof than a password (GSSAPI, SSPI, …)",
            self.whom
        ))
    }
}

/// Returns how many rounds of a hash a SCRAM challenge asks for: `r=…,s=…,i=4096`.
fn rounds(challenge: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(challenge).ok()?;
    text.split(',').find_map(|part| part.strip_prefix("i="))?.parse().ok()
}

/// Cancels a query when it is dropped.
struct Cancel {
    key: Option<(i32, i32)>,
    endpoint: Endpoint,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let Some((process, secret)) = self.key else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let endpoint = self.endpoint.clone();
        // Nobody waits for it; the server closes the connection without an answer.
        drop(runtime.spawn(tokio::time::timeout(CANCEL_TIME, async move {
            let progress = Progress::new(CANCEL_TIME);
            let Ok(mut connection) = connect::connect(&endpoint, &progress).await else { return };
            let mut buffer = BytesMut::new();
            frontend::cancel_request(process, secret, &mut buffer);
            if connection.write_all(&buffer).await.is_ok() {
                let _ = connection.read(&mut [0; 1]).await;
            }
        })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::care::Verdict;
    use proptest::prelude::*;

    /// Logs in to a server that says this and hangs up.
    fn log_in(bytes: &[u8]) -> Result<(), Finding> {
        let look = PostgresLook {
            server: PostgresServer::Unix { directory: "/x".into(), port: 1 },
            user: "u".into(),
            database: "d".into(),
            password: None,
            query: "SELECT 1".into(),
            latency: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (connection, mut server) = tokio::io::duplex(1 << 16);
            server.write_all(bytes).await.unwrap();
            server.shutdown().await.unwrap();
            let mut client = Client {
                whom: "db",
                role: CheckRole::Live,
                connection: Box::new(connection),
                read: BytesMut::new(),
                total: 0,
            };
            let password = Hidden::new("s3cret".to_owned());
            client.log_in(&look, Some(&password)).await?;
            client.until_ready().await.map(drop)
        })
    }

    #[test]
    fn a_login_ends_when_the_server_is_ready_and_not_before() {
        let accepted = b"R\0\0\0\x08\0\0\0\0";
        let ready = b"Z\0\0\0\x05I";
        assert_eq!(log_in(&[&accepted[..], ready].concat()), Ok(()));
        let closed = log_in(accepted).unwrap_err();
        assert!(closed.sentence.contains("closed the connection"), "{closed:?}");
        // A length of another protocol is not believed.
        let long = log_in(b"R\x7f\xff\xff\xff").unwrap_err();
        assert!(long.sentence.contains("does not speak as PostgreSQL"), "{long:?}");
        let kerberos = log_in(b"R\0\0\0\x08\0\0\0\x02").unwrap_err();
        assert_eq!(kerberos.verdict, Verdict::Unknown);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_server_makes_it_panic(
            kinds in proptest::collection::vec((
                prop::sample::select(b"RESKNZTDC1GX".to_vec()),
                prop::sample::select(vec![0_u32, 3, 5, 10, 11, 12]),
                proptest::collection::vec(any::<u8>(), 0..20),
            ), 0..6),
            garbage in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = Vec::new();
            for (kind, code, body) in kinds {
                bytes.push(kind);
                let length = u32::try_from(body.len()).unwrap() + 8;
                bytes.extend(length.to_be_bytes());
                bytes.extend(code.to_be_bytes());
                bytes.extend(body);
            }
            bytes.extend(garbage);
            prop_assert!(log_in(&bytes).is_err());
        }
    }

    #[test]
    fn a_challenge_says_how_many_rounds_it_wants() {
        assert_eq!(rounds(b"r=abc,s=c2FsdA==,i=4096"), Some(4096));
        for nonsense in [&b"r=abc"[..], b"i=-1", b"i=99999999999", b"\xff"] {
            assert_eq!(rounds(nonsense), None);
        }
    }
}
