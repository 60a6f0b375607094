//! Services that are out of connections.

use super::Case;
use super::services::{database, nginx, occupy, redis};

#[test]
fn a_redis_without_a_connection_left_is_restarted() {
    let Some(service) = redis("--maxclients 8", "reload_signal = 'HUP'") else { return };
    let (daemon, port) = service.start("['reload', 'restart']");
    let before = daemon.pid("cache");
    let case = Case::begin(&daemon, "cache", "redis out of connections");
    let held = occupy(port, b"", |answer| answer.starts_with(b"-ERR max number of clients"));
    let told = case.over();
    told.assert_healed("out-of-connections", &["restart"], &["has no connection left"]);
    assert_ne!(daemon.pid("cache"), before);
    drop(held);
}

/// What a client of PostgreSQL says first: protocol 3.0, the user and the database.
fn startup() -> Vec<u8> {
    let words = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(words.len() + 4).expect("it is short");
    [&length.to_be_bytes(), &words[..]].concat()
}

#[test]
fn a_postgres_without_a_connection_left_is_restarted() {
    let Some(service) = database("max_connections = 8\n") else { return };
    let (daemon, port) = service.start("['signal:HUP', 'restart']");
    let before = daemon.pid("db");
    let case = Case::begin(&daemon, "db", "postgres out of connections");
    let held = occupy(port, &startup(), |answer| answer.first() == Some(&b'E'));
    let told = case.over();
    told.assert_healed("out-of-connections", &["restart"], &["has no connection left"]);
    assert_ne!(daemon.pid("db"), before);
    drop(held);
}

#[test]
fn an_nginx_without_a_connection_left_is_restarted() {
    let service = nginx("worker_connections 8;", "return 204;");
    let Some(service) = service else { return };
    let (daemon, port) = service.start("['reload', 'restart']");
    let before = daemon.pid("web");
    let case = Case::begin(&daemon, "web", "nginx out of connections");
    // Half a request each: who has asked for nothing is closed to make room.
    let held = occupy(port, b"GET / HTTP/1.1\r\nHost: a\r\n", <[u8]>::is_empty);
    let told = case.over();
    let words = ["has no connection left", "worker_connections are not enough"];
    told.assert_healed("out-of-connections", &["restart"], &words);
    assert_ne!(daemon.pid("web"), before);
    drop(held);
}
