//! Certificates that are good, about to expire, expired, not valid yet, for another name.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mendd::config::{Address, Bounds, CertificateLook, CertificateOf, HttpLook, Look, Tls};
use mendd::core::care::evidence::ProbeFailure;
use mendd::probe::{Unit, Verdict};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::bench::{Question, SHORT, ask, assert_failure, assert_report, wait_for_pass};
use crate::http::look;
use crate::server::{Server, directory, free_address, installed, listener};

const NAME: &str = "service.example";

/// A certificate with its key, and the authority that has signed it.
struct Pair {
    certificate: String,
    der: CertificateDer<'static>,
    key: KeyPair,
    authority: String,
}

/// Days from now; negative ones are past.
fn pair(from_days: i64, to_days: i64) -> Pair {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "an authority of the test");
    let authority_key = KeyPair::generate().unwrap();
    let signed = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let day = |days: i64| {
        let date = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let date = date.to_zoned(jiff::tz::TimeZone::UTC);
        let unsigned = |number: i8| u8::try_from(number).unwrap();
        rcgen::date_time_ymd(date.year().into(), unsigned(date.month()), unsigned(date.day()))
    };
    params.not_before = day(from_days);
    params.not_after = day(to_days);
    params.distinguished_name.push(DnType::CommonName, "common.example");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Pair {
        certificate: certificate.pem(),
        der: certificate.der().clone(),
        key,
        authority: signed.pem(),
    }
}

/// Answers each request over TLS until the test ends.
fn serve(listener: TcpListener, pair: &Pair) {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.der.clone()], key)
        .unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let server = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(server, client.unwrap());
            let mut asked = [0; 4096];
            // Who refuses the certificate asks nothing.
            if stream.read(&mut asked).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
}

fn https(address: Address, ca: Option<PathBuf>, server_name: &str, verify: bool) -> Look {
    let tls = Some(Tls { verify, ca, server_name: server_name.to_owned() });
    Look::Http(HttpLook { tls, ..look(address) })
}

fn days_left(address: &Address, warn: u32, fail: u32) -> Look {
    let of = CertificateOf::Server { address: address.clone(), server_name: NAME.to_owned() };
    Look::Certificate(CertificateLook { of, days_left: bounds(warn, fail) })
}

fn bounds(warn: u32, fail: u32) -> Bounds<u32> {
    Bounds { warn: Some(warn), fail: Some(fail) }
}

fn written(directory: &Path, pair: &Pair) -> PathBuf {
    let file = directory.join("authority.pem");
    std::fs::write(&file, &pair.authority).unwrap();
    file
}

#[test]
fn a_good_certificate_passes_with_its_authority_and_for_its_name_only() {
    let directory = directory();
    let (listener, address) = listener();
    let pair = pair(-10, 40);
    serve(listener, &pair);
    let ca = Some(written(directory.path(), &pair));
    let good = ask(https(address.clone(), ca.clone(), NAME, true));
    assert_report(&good, Verdict::Pass, "answered 200 OK");
    let other = ask(https(address.clone(), ca, "other.example", true));
    assert_report(&other, Verdict::Fail, "the certificate is not for other.example");
    let unverified = ask(https(address.clone(), None, "other.example", false));
    assert_report(&unverified, Verdict::Pass, "answered 200 OK");
    let unknown = ask(https(address.clone(), None, NAME, true));
    let trusts_nobody = unknown.verdict == Verdict::Unknown;
    assert!(trusts_nobody || unknown.sentence.contains("signed by nobody"), "{unknown:?}");

    let missing = Some(directory.path().join("missing.pem"));
    let report = ask(https(address.clone(), missing, NAME, true));
    assert_report(&report, Verdict::Unknown, "no such file or directory");
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let report = ask(https(address, Some(empty), NAME, true));
    assert_report(&report, Verdict::Unknown, "has no certificate in PEM");
}

#[test]
fn the_days_of_a_certificate_are_counted_and_compared() {
    let (listener, address) = listener();
    serve(listener, &pair(-10, 40));
    let report = ask(days_left(&address, 30, 7));
    assert_report(&report, Verdict::Pass, &format!("certificate of {NAME} expires in 39 days"));
    let sample = report.sample.unwrap();
    assert_eq!((sample.value, sample.unit), (39.0, Unit::Days));
    assert_eq!(ask(days_left(&address, 39, 7)).verdict, Verdict::Warn);
    let near = ask(days_left(&address, 60, 50));
    assert_report(&near, Verdict::Fail, "expires in 39 days (limit 50 days)");
    let certificate = near.certificate.unwrap();
    assert!(certificate.subject == NAME && certificate.seconds_left > 0, "{certificate:?}");
}

#[test]
fn an_expired_certificate_is_named_by_both_kinds_of_checks() {
    let directory = directory();
    let (listener, address) = listener();
    let pair = pair(-60, -2);
    serve(listener, &pair);
    let ca = Some(written(directory.path(), &pair));
    let words = format!("certificate of {NAME} expired 2 days ago");
    for look in [https(address.clone(), ca, NAME, true), days_left(&address, 30, 7)] {
        let report = ask(look);
        assert_report(&report, Verdict::Fail, &words);
        assert_failure(&report, ProbeFailure::CertificateInvalid);
        let certificate = report.certificate.expect("it is evidence");
        assert!(certificate.seconds_left < 0, "{certificate:?}");
    }
}

#[test]
fn a_certificate_of_the_future_is_named_by_both_kinds_of_checks() {
    let directory = directory();
    let (listener, address) = listener();
    let pair = pair(3, 40);
    serve(listener, &pair);
    let ca = Some(written(directory.path(), &pair));
    for look in [https(address.clone(), ca, NAME, true), days_left(&address, 30, 7)] {
        let report = ask(look);
        assert_report(&report, Verdict::Fail, &format!("certificate of {NAME} is not valid yet"));
        assert_failure(&report, ProbeFailure::CertificateInvalid);
    }
}

#[test]
fn the_first_certificate_of_a_file_counts_and_other_files_are_the_checks_own_fault() {
    let directory = directory();
    let file = directory.path().join("chain.pem");
    let pair = pair(-10, 6);
    std::fs::write(
        &file,
        format!("{}{}{}", pair.key.serialize_pem(), pair.certificate, pair.authority),
    )
    .unwrap();
    let look = |file: &Path| {
        let of = CertificateOf::File(file.to_path_buf());
        Look::Certificate(CertificateLook { of, days_left: bounds(14, 3) })
    };
    let report = ask(look(&file));
    assert_report(&report, Verdict::Warn, &format!("certificate of {NAME} expires in 5 days"));
    let garbage = directory.path().join("garbage.pem");
    let text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    std::fs::write(&garbage, text).unwrap();
    assert_report(&ask(look(&garbage)), Verdict::Unknown, "the certificate cannot be read");
    let missing = directory.path().join("missing");
    assert_report(&ask(look(&missing)), Verdict::Unknown, "cannot read `");
}

#[test]
fn a_server_without_tls_or_without_a_word_is_told_apart() {
    let (plain, address) = listener();
    std::thread::spawn(move || {
        let (mut client, _) = plain.accept().unwrap();
        client.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        let _ = client.read(&mut [0; 512]);
    });
    let report = ask(https(address, None, NAME, false));
    assert_report(&report, Verdict::Fail, "does not speak TLS");
    let (_silent, address) = listener();
    let report = Question::new(days_left(&address, 2, 1)).within(SHORT).ask();
    assert_report(&report, Verdict::Timeout, "accepted the connection and did not answer");
    assert_failure(&report, ProbeFailure::AnswerTimeout);
    assert_failure(&ask(days_left(&free_address(), 2, 1)), ProbeFailure::Refused);
}

#[test]
fn nginx_with_a_good_and_an_expired_certificate_is_seen() {
    let Some(nginx) = installed("nginx") else { return };
    let directory = directory();
    let at = directory.path().display();
    let mut servers = String::new();
    let mut cases = Vec::new();
    for (name, pair) in [("good", pair(-10, 90)), ("expired", pair(-60, -2))] {
        let address = free_address();
        let put = |kind: &str, text: &str| {
            let file = directory.path().join(format!("{name}.{kind}"));
            std::fs::write(&file, text).unwrap();
            file
        };
        let (certificate, key) =
            (put("crt", &pair.certificate), put("key", &pair.key.serialize_pem()));
        let ca = put("ca", &pair.authority);
        servers.push_str(&format!(
            "server {{ listen {address} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
             location / {{ return 204; }} }}\n",
            certificate.display(),
            key.display()
        ));
        cases.push((address, ca));
    }
    let config = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/1; proxy_temp_path {at}/2;\n\
         fastcgi_temp_path {at}/3; uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n{servers} }}\n"
    );
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let _server = Server::start(
        Command::new(nginx)
            .arg("-p")
            .arg(directory.path())
            .arg("-e")
            .arg("/dev/null")
            .arg("-c")
            .arg(&file),
    );
    let [(good, good_ca), (expired, expired_ca)] = &cases[..] else { panic!("two cases") };
    wait_for_pass(&https(good.clone(), Some(good_ca.clone()), NAME, true));
    assert_eq!(ask(days_left(good, 30, 7)).verdict, Verdict::Pass);
    let report = Question::new(https(expired.clone(), Some(expired_ca.clone()), NAME, true))
        .within(Duration::from_secs(30))
        .ask();
    assert_failure(&report, ProbeFailure::CertificateInvalid);
    assert_report(&ask(days_left(expired, 30, 7)), Verdict::Fail, "expired 2 days ago");
}
