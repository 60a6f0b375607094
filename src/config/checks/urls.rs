//! URLs of servers that are no web servers: `redis://…`, `postgres://…`.

use super::super::look::Hidden;
use super::super::readiness::{AddressError, split_port};

/// A URL taken apart, its parts decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) user: Option<String>,
    pub(super) password: Option<Hidden>,
    /// Empty where the URL names none.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// What follows the first `/`.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
}

/// Why a text is no such URL; completes "must be …: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("`%` must be followed by two hexadecimal digits")]
    Percent,
}

/// Reads what follows `scheme://`.
pub(super) fn parse(rest: &str) -> Result<Url, UrlError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (account, server) = match authority.rsplit_once('@') {
        Some((account, server)) => (Some(account), server),
        None => (None, authority),
    };
    let (user, password) = match account {
        Some(account) => {
            let (user, password) = account
                .split_once(':')
                .map_or((account, None), |(user, password)| (user, Some(password)));
            (Some(decoded(user)?), password.map(decoded).transpose()?)
        }
        None => (None, None),
    };
    let (host, port) = match server {
        "" => ("", None),
        server => split_port(server)?,
    };
    let port = match port {
        Some(port) => Some(number(port).ok_or(AddressError::Port)?),
        None => None,
    };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok::<_, UrlError>((decoded(name)?, decoded(value)?))
    };
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(pair);
    Ok(Url {
        user: user.filter(|user| !user.is_empty()),
        password: password.filter(|password| !password.is_empty()).map(Hidden::new),
        host: host.to_owned(),
        port,
        path: decoded(path)?,
        query: query.collect::<Result<_, _>>()?,
    })
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// Replaces each `%XX`.
fn decoded(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or(UrlError::Percent)?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    let text = String::from_utf8(bytes).map_err(|_| UrlError::Percent)?;
    if text.contains('\0') { Err(UrlError::Percent) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_decoded() {
        let url = parse("me:p%40ss%2f@[::1]:6380/db%20one?host=/run/x&sslmode=disable").unwrap();
        assert_eq!(url.user.as_deref(), Some("me"));
        assert_eq!(url.password, Some(Hidden::new("p@ss/".to_owned())));
        assert_eq!((url.host.as_str(), url.port), ("::1", Some(6380)));
        assert_eq!(url.path, "db one");
        let query = [("host", "/run/x"), ("sslmode", "disable")];
        assert_eq!(url.query, query.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let bare = parse(":secret@h").unwrap();
        assert_eq!((bare.user, bare.port, bare.path.as_str()), (None, None, ""));
        assert_eq!(parse("/db").unwrap().host, "");
    }

    #[test]
    fn what_is_no_url_is_refused_with_the_reason() {
        for (text, error) in [
            ("h:0", UrlError::Address(AddressError::Port)),
            ("h:x", UrlError::Address(AddressError::Port)),
            ("a b", UrlError::Address(AddressError::Host)),
            ("u:%4@h", UrlError::Percent),
            ("u:%zz@h", UrlError::Percent),
            ("u:%00@h", UrlError::Percent),
            ("u:%é@h", UrlError::Percent),
            ("h/%ff", UrlError::Percent),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
