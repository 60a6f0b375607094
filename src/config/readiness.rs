//! How a process shows that it is ready, and what can be asked of it from outside.

use std::fmt;
use std::time::Duration;

/// What shows that a process is ready (`ready`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// It says `READY=1` on its notification socket; see sd_notify(3).
    Notify,
    /// It writes a line to this descriptor, which it inherits.
    Descriptor(i32),
    /// It has been up for this long.
    After(Duration),
    /// A whole line of its output matches this regular expression, which is a valid one.
    Log(String),
    /// A probe passes.
    Probe(Probing),
}

/// A probe that is repeated until it passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probing {
    pub probe: Probe,
    /// From one beginning to the next; `None` begins with 100 ms and grows to 1 s.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Duration,
}

/// One question to a process from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Something accepts a connection.
    Tcp(Address),
    /// The answer to a GET has one of the expected statuses.
    Http(HttpTarget),
    /// A command exits with 0; never empty.
    Exec(Vec<String>),
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or a number, an IPv6 one without its brackets.
    pub host: String,
    pub port: u16,
}

/// What is asked for over HTTP, and which answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    pub address: Address,
    /// Path and query; begins with `/`.
    pub path: String,
    /// Empty means 200 to 399.
    pub statuses: Vec<u16>,
}

impl HttpTarget {
    /// Returns whether this status of an answer is a good one.
    pub fn accepts(&self, status: u16) -> bool {
        match self.statuses.as_slice() {
            [] => (200..400).contains(&status),
            statuses => statuses.contains(&status),
        }
    }
}

impl fmt::Display for Ready {
    /// Says what is waited for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notify => f.write_str("`READY=1` on its notification socket"),
            Self::Descriptor(number) => write!(f, "a line on its descriptor {number}"),
            Self::After(time) => write!(f, "being up for {}", super::format_duration(*time)),
            Self::Log(pattern) => write!(f, "a line of output that matches `{pattern}`"),
            Self::Probe(probing) => probing.probe.fmt(f),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Http(target) => write!(f, "http://{}{}", target.address, target.path),
            Self::Exec(argv) => write!(f, "`{}`", argv.join(" ")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is no address or URL; completes "must be …: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error("the port is missing")]
    NoPort,
    #[error("the port must be a number from 1 to 65535")]
    Port,
    #[error("the host is missing")]
    NoHost,
    #[error("the host has a character that no name and no number has")]
    Host,
    #[error("https is not supported; let `exec` run a client such as curl")]
    Https,
    #[error("it must begin with `http://`")]
    Scheme,
    #[error("it must begin with `http://` or `https://`")]
    WebScheme,
    #[error("it may not contain a user; let `exec` run a client such as curl")]
    User,
    #[error("spaces, control and non-ASCII characters must be written as %XX")]
    Path,
}

/// Reads `HOST:PORT` or `[IPV6]:PORT`.
pub(super) fn parse_address(text: &str) -> Result<Address, AddressError> {
    let (host, port) = split_port(text)?;
    address(host, port.ok_or(AddressError::NoPort)?)
}

/// Reads `http://HOST[:PORT][/PATH]`; returns where to and what for.
pub(super) fn parse_url(text: &str) -> Result<(Address, String), AddressError> {
    match parse_web_url(text) {
        Ok((false, address, path)) => Ok((address, path)),
        Ok((true, ..)) => Err(AddressError::Https),
        Err(_) if text.starts_with("https://") => Err(AddressError::Https),
        Err(AddressError::WebScheme) => Err(AddressError::Scheme),
        Err(error) => Err(error),
    }
}

/// Reads a URL that may also begin with `https://`, which comes first in what is returned.
pub(super) fn parse_web_url(text: &str) -> Result<(bool, Address, String), AddressError> {
    let (is_https, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err(AddressError::WebScheme),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err(AddressError::User);
    }
    let (host, port) = split_port(authority)?;
    let address = address(host, port.unwrap_or(if is_https { "443" } else { "80" }))?;
    let path = path.split('#').next().unwrap_or_default();
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AddressError::Path);
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((is_https, address, format!("{slash}{path}")))
}

pub(super) fn split_port(text: &str) -> Result<(&str, Option<&str>), AddressError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(AddressError::Host)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::Host)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(AddressError::Host),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match host {
        "" => Err(AddressError::NoHost),
        _ if !host.bytes().all(is_good) => Err(AddressError::Host),
        _ => Ok((host, port)),
    }
}

fn address(host: &str, port: &str) -> Result<Address, AddressError> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port > 0 && digits);
    Ok(Address { host: host.to_owned(), port: port.ok_or(AddressError::Port)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["127.0.0.1:5432", "localhost:1", "[::1]:65535", "db_1.example:80"] {
            assert_eq!(parse_address(text).unwrap().to_string(), text);
        }
        for (text, error) in [
            ("localhost", AddressError::NoPort),
            (":80", AddressError::NoHost),
            ("", AddressError::NoHost),
            ("host:0", AddressError::Port),
            ("host:+1", AddressError::Port),
            ("host:65536", AddressError::Port),
            ("::1:80", AddressError::NoHost),
            ("[::1", AddressError::Host),
            ("[::1]80", AddressError::Host),
            ("[nonsense]:80", AddressError::Host),
            ("a b:80", AddressError::Host),
        ] {
            assert_eq!(parse_address(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_url_gives_an_address_and_what_to_ask_for() {
        for (text, host, path) in [
            ("http://localhost", "localhost:80", "/"),
            ("http://localhost:8000/healthz?deep=1", "localhost:8000", "/healthz?deep=1"),
            ("http://[::1]:8000?x#part", "[::1]:8000", "/?x"),
        ] {
            let (address, found) = parse_url(text).unwrap();
            assert_eq!((address.to_string().as_str(), found.as_str()), (host, path), "{text}");
        }
        for (text, error) in [
            ("https://localhost/", AddressError::Https),
            ("localhost:8000", AddressError::Scheme),
            ("http://me:secret@localhost/", AddressError::User),
            ("http:///healthz", AddressError::NoHost),
            ("http://localhost:/", AddressError::Port),
            ("http://localhost/a b", AddressError::Path),
            ("http://localhost/ä", AddressError::Path),
        ] {
            assert_eq!(parse_url(text), Err(error), "{text}");
        }
    }

    #[test]
    fn without_a_list_every_answer_but_an_error_is_good() {
        let (address, path) = parse_url("http://localhost/").unwrap();
        let mut target = HttpTarget { address, path, statuses: Vec::new() };
        assert_eq!([199, 200, 399, 400].map(|s| target.accepts(s)), [false, true, true, false]);
        target.statuses = vec![401];
        assert_eq!([200, 401].map(|status| target.accepts(status)), [false, true]);
    }
}
