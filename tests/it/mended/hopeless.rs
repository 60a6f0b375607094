//! What no restart can cure: it says so, does not restart for ever, and people are told.

use std::fs;
use std::net::TcpListener;

use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};

use super::services::{Service, database, nginx, nginx_of, redis, write_nginx};
use super::{Case, put};
use crate::harness::{Daemon, Setup};
use crate::healing::{unpressed, wait_health};
use crate::http::Events;
use crate::proc;
use crate::readiness::free_port;

/// Waits until people are told something of this kind, and returns the sentence.
fn wait_alert(events: &mut Events, what: &str) -> String {
    loop {
        let event = events.next().expect("the stream goes on");
        if event.kind == "alert" && event.data["what"] == what {
            return event.data["sentence"].as_str().unwrap_or_default().to_owned();
        }
    }
}

fn put_before(setup: &Setup, name: &str, text: &str) {
    fs::write(setup.dir().join(name), text).expect("a file in the test's directory");
}

/// Writes a certificate for `localhost` that signs itself, valid until so many days from now.
fn write_certificate(key: &KeyPair, days: i64) -> String {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let day = |days: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let date = at.to_zoned(jiff::tz::TimeZone::UTC);
        let small = |number: i8| u8::try_from(number).expect("a date");
        rcgen::date_time_ymd(date.year().into(), small(date.month()), small(date.day()))
    };
    (params.not_before, params.not_after) = (day(-30), day(days));
    params.self_signed(key).expect("a certificate").pem()
}

/// An nginx with a certificate that is good, and its key.
fn secure() -> Option<(Service, KeyPair)> {
    let (port, setup) = (free_port(), Setup::new(""));
    let key = KeyPair::generate().expect("a key");
    put_before(&setup, "key.pem", &key.serialize_pem());
    put_before(&setup, "certificate.pem", &write_certificate(&key, 90));
    let at = setup.dir().display();
    let server = format!(
        "server {{ listen 127.0.0.1:{port} ssl; return 204;\n\
         ssl_certificate {at}/certificate.pem; ssl_certificate_key {at}/key.pem; }}"
    );
    write_nginx(setup.dir(), "", &server);
    let asks =
        format!("certificate = {{ address = '127.0.0.1:{port}', server_name = 'localhost' }}");
    let service = nginx_of(setup, port, asks)?;
    Some((service, key))
}

#[test]
fn a_certificate_that_has_expired_is_renewed_by_the_command_for_that() {
    let Some((service, key)) = secure() else { return };
    put_before(&service.setup, "renewed.pem", &write_certificate(&key, 90));
    let (daemon, _) = service.start(
        "['confirm', { steps = [{ run = ['cp', '{dir}/renewed.pem', '{dir}/certificate.pem'] }, \
         { run = ['sh', '-c', 'kill -HUP $MEND_PID'] }] }, 'restart']",
    );
    let before = daemon.pid("web");
    let case = Case::begin(&daemon, "web", "certificate expired, renewed by a command");
    put(&daemon, "certificate.pem", &write_certificate(&key, -2));
    proc::send(before, Signal::SIGHUP);
    let told = case.over();
    let words = ["uses the certificate `localhost`, which expired"];
    told.assert_healed("certificate-expired", &["steps"], &words);
    assert_eq!(daemon.pid("web"), before, "it was not replaced");
}

#[test]
fn a_certificate_that_nobody_renews_is_left_to_people() {
    let Some((service, key)) = secure() else { return };
    let (daemon, _) = service.start("['reload', 'quarantine']");
    let before = daemon.pid("web");
    let mut events = daemon.events(None);
    let case = Case::begin(&daemon, "web", "certificate expired");
    put(&daemon, "certificate.pem", &write_certificate(&key, -2));
    proc::send(before, Signal::SIGHUP);
    let told = case.until("to be in quarantine", |told| {
        told.story.iter().any(|entry| entry.what == "quarantined")
    });
    told.assert_taken_for("certificate-expired", &["expired 2 days", "somebody has to look"]);
    assert_eq!(told.remedies(), ["reload"], "{}", told.text);
    assert!(wait_alert(&mut events, "quarantined").contains("quarantine"));
    let process = daemon.process("web");
    assert_eq!((process.pid, process.restarts), (Some(before), 0), "{process:?}");
    // Whoever has looked into it needs not tell Mend.
    put(&daemon, "certificate.pem", &write_certificate(&key, 90));
    proc::send(before, Signal::SIGHUP);
    let told = case.over();
    assert_eq!(told.remedies(), ["reload"], "{}", told.text);
}

/// Gives up after three failures, and tries again soon.
const GIVES_UP: &str = "breaker = { failures = 3, open = '2s', max_open = '2s' }";

/// A service that cannot start: the cause is named and stays the cause over all tries, people are
/// told, and it is well again when `cure` has taken the cause away.
fn cannot_start(
    service: Service,
    what: &'static str,
    (cause, words): (&str, &[&str]),
    cure: impl FnOnce(&Daemon),
) {
    let name = service.name;
    let check = service.check("['restart', 'quarantine']");
    let program = service.program.replacen("\n", &format!("\n{GIVES_UP}\n"), 1);
    let setup = unpressed(service.setup.programs(&format!("{program}{check}")));
    let daemon = setup.supervisor("default_checks = false").start();
    let mut events = daemon.events(Some(0));
    let case = Case::begin(&daemon, name, what);
    let sentence = wait_alert(&mut events, "keeps-failing");
    assert!(sentence.starts_with(name), "{sentence}");
    let told = case.until("to have a cause", |told| told.incident.cause.is_some());
    told.assert_taken_for(cause, words);
    let failures = daemon.process(name).restarts;
    daemon.wait_process(name, "to be tried again", |it| it.restarts > failures);
    let told = case.until("to have a cause", |told| told.incident.cause.is_some());
    told.assert_taken_for(cause, words);
    cure(&daemon);
    wait_health(&daemon, name, "up");
    case.over().assert_taken_for(cause, words);
}

#[test]
fn a_redis_whose_port_a_stranger_has_taken_names_the_stranger() {
    let Some(service) = redis("", "") else { return };
    let stranger = TcpListener::bind(("127.0.0.1", service.port)).expect("the port is free");
    let port = service.port.to_string();
    let taken = ("port-taken", [port.as_str()]);
    cannot_start(service, "redis: port taken", (taken.0, &taken.1), |_| drop(stranger));
}

#[test]
fn an_nginx_with_a_broken_configuration_says_so() {
    let Some(service) = nginx("", "return 204; no_such_directive on;") else { return };
    let broken = ("configuration-broken", ["no_such_directive"].as_slice());
    let server = format!("server {{ listen 127.0.0.1:{}; return 204; }}", service.port);
    cannot_start(service, "nginx: configuration broken", broken, |daemon| {
        write_nginx(daemon.dir(), "", &server);
    });
}

#[test]
fn a_postgres_with_a_broken_configuration_says_so() {
    let Some(service) = database("no_such_setting = on\n") else { return };
    let broken = ("configuration-broken", ["no_such_setting"].as_slice());
    cannot_start(service, "postgres: configuration broken", broken, |daemon| {
        let text = fs::read_to_string(daemon.file("pg.conf")).expect("its configuration");
        put(daemon, "pg.conf", &text.replace("no_such_setting = on\n", ""));
    });
}
