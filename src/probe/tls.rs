//! TLS over a connection, and what is wrong with a server's certificate.
//!
//! The cryptography is that of ring, named here and nowhere else. The system's trusted
//! certificates are read when the first check needs them, and again now and then.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::aside::aside;
use super::certificate::{self, Dates};
use super::connect::{self, Connection};
use super::finding::Finding;
use super::progress::{Progress, Stage};
use super::{file, words};
use crate::config::{Endpoint, Tls};

/// Longest file of trusted certificates.
const MAX_CA_BYTES: usize = 4 << 20;
/// How long the system's trusted certificates are believed to be what they were.
const ROOTS_FRESH: Duration = Duration::from_secs(600);

/// Makes a connection secure.
pub(super) async fn secure(
    connection: Box<dyn Connection>,
    tls: &Tls,
    whom: &str,
    progress: &Progress,
) -> Result<TlsStream<Box<dyn Connection>>, Finding> {
    let builder = builder()?;
    let mut config = if tls.verify {
        let roots = match &tls.ca {
            Some(path) => Arc::new(roots_of(path).await?),
            None => system_roots().await?,
        };
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let anyone = Arc::new(Anyone::new());
        builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = server_name(&tls.server_name)?;
    progress.enter(Stage::Asking);
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, connection).await.map_err(|error| explain(&error, whom, tls))
}

/// Returns the certificate that a server shows to whom asks for this name.
pub(super) async fn shown_certificate(
    endpoint: &Endpoint,
    name: &str,
    progress: &Progress,
) -> Result<CertificateDer<'static>, Finding> {
    let whom = endpoint.to_string();
    let anyone = Arc::new(Anyone::new());
    let verifier = Arc::clone(&anyone);
    let builder = builder()?.dangerous().with_custom_certificate_verifier(verifier);
    let config = builder.with_no_client_auth();
    let server = server_name(name)?;
    let connection = connect::connect(endpoint, progress).await?;
    progress.enter(Stage::Asking);
    let connected = TlsConnector::from(Arc::new(config)).connect(server, connection).await;
    // A server that then wants a certificate of ours has shown its own before.
    let seen = anyone.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let tls = Tls { verify: false, ca: None, server_name: name.to_owned() };
    match (seen, connected) {
        (Some(certificate), _) => Ok(certificate),
        (None, Err(error)) => Err(explain(&error, &whom, &tls)),
        (None, Ok(_)) => Err(Finding::unknown(format!("{whom} shows no certificate"))),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Finding> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Finding::unknown(format!("TLS cannot be used: {error}")))
}

fn server_name(name: &str) -> Result<ServerName<'static>, Finding> {
    let wrong = |_| Finding::unknown(format!("`{name}` cannot be the name of a TLS server"));
    ServerName::try_from(name.to_owned()).map_err(wrong)
}

async fn roots_of(path: &Path) -> Result<RootCertStore, Finding> {
    let bytes = file::read(path, MAX_CA_BYTES).await?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bytes).flatten());
    match roots.is_empty() {
        true => Err(Finding::unknown(format!("`{}` has no certificate in PEM", path.display()))),
        false => Ok(roots),
    }
}

/// Returns what this system trusts.
async fn system_roots() -> Result<Arc<RootCertStore>, Finding> {
    static KEPT: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((_, roots)) = kept.filter(|(at, _)| at.elapsed() < ROOTS_FRESH) {
        return Ok(roots);
    }
    let loaded = aside("the system's trusted certificates", rustls_native_certs::load_native_certs);
    let loaded = loaded.await.map_err(|unanswered| Finding::unknown(unanswered.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let sentence = "this system trusts no certificate: install ca-certificates, or name a `ca`";
        return Err(Finding::unknown(sentence));
    }
    let roots = Arc::new(roots);
    let entry = (Instant::now(), Arc::clone(&roots));
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
    Ok(roots)
}

/// Says why there is no secure connection.
fn explain(error: &io::Error, whom: &str, tls: &Tls) -> Finding {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(inner) = inner else { return connect::broken(whom, error) };
    let name = &tls.server_name;
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign list that grows")]
    match inner {
        Error::InvalidCertificate(why) => refused(why, name),
        Error::AlertReceived(alert) => {
            wrong(whom, &format!("refuses TLS with the alert {alert:?}"))
        }
        Error::InvalidMessage(_) => wrong(whom, "does not speak TLS"),
        other => wrong(whom, &format!("does not agree on TLS: {other}")),
    }
}

fn wrong(whom: &str, what: &str) -> Finding {
    Finding::wrong(what, format!("{whom} {what}"))
}

/// Says why a certificate is not trusted.
fn refused(why: &CertificateError, name: &str) -> Finding {
    let now = certificate::now();
    let seconds = |time: &UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let dates = |not_before, not_after| Dates { subject: name.to_owned(), not_before, not_after };
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign list that grows")]
    let (dates, what) = match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            (Some(dates(0, seconds(not_after))), String::new())
        }
        CertificateError::Expired => (Some(dates(0, now)), String::new()),
        CertificateError::NotValidYetContext { not_before, .. } => {
            (Some(dates(seconds(not_before), i64::MAX)), String::new())
        }
        CertificateError::NotValidYet => (Some(dates(now + 1, i64::MAX)), String::new()),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            (None, format!("the certificate is not for {name}"))
        }
        CertificateError::UnknownIssuer => (
            None,
            format!(
                "the certificate of {name} is signed by nobody whom this system trusts; `ca` names \
                 another authority"
            ),
        ),
        CertificateError::Revoked => (None, format!("the certificate of {name} was revoked")),
        other => (None, format!("the certificate of {name} is not valid: {other}")),
    };
    let invalid = dates.and_then(|dates| certificate::invalid(&dates, now));
    invalid.unwrap_or_else(|| Finding::wrong(words::shown(&what), words::shown(&what)))
}

/// Takes any certificate, and remembers which.
#[derive(Debug)]
struct Anyone {
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl Anyone {
    fn new() -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { algorithms, seen: Mutex::new(None) }
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(shown.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
