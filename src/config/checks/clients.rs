//! The kinds that ask somebody: a command, a server, a certificate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::command::words;
use super::super::identity::identity;
use super::super::look::{
    Bounds, CertificateLook, CertificateOf, Endpoint, ExecLook, Hidden, HttpLook, HttpMethod,
    Password, PostgresLook, PostgresServer, RedisLook, RedisRole, TcpLook, Tls,
};
use super::super::read::{Context, Place};
use super::super::readiness::{Address, HttpTarget, parse_address, parse_web_url};
use super::super::ready::{parsed, pattern, statuses};
use super::super::tree::{Node, Table};
use super::urls::{self, Url};
use super::values::{Worse, bounds, warn_and_fail};
use super::{Subject, inside};

const REDIS_PORT: u16 = 6379;
const POSTGRES_PORT: u16 = 5432;
const DAY: Duration = Duration::from_secs(86_400);
/// Days that a certificate must still be valid when nothing is said.
const CERTIFICATE_DAYS: Bounds<u32> = Bounds { warn: Some(21), fail: Some(7) };

pub(in crate::config) const METHODS: [(&str, HttpMethod); 2] =
    [("GET", HttpMethod::Get), ("HEAD", HttpMethod::Head)];
pub(in crate::config) const REDIS_ROLES: [(&str, RedisRole); 2] =
    [("master", RedisRole::Master), ("replica", RedisRole::Replica)];

pub(super) fn exec(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<ExecLook> {
    let Some(table) = inside(cx, node) else {
        let argv = words(cx, node, subject.spawn())?;
        return Some(ExecLook { argv, user: None, output: None });
    };
    let user = identity(cx, &table);
    let output = match table.get(cx, "output") {
        Some(node) => Some(pattern(cx, &node)?),
        None => None,
    };
    let command = required(cx, node, &table, "command", "add `command = [\"…\"]`")?;
    Some(ExecLook { argv: words(cx, &command, subject.spawn())?, user, output })
}

pub(super) fn tcp(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<TcpLook> {
    let Some(table) = inside(cx, node) else {
        let endpoint = endpoint(cx, subject, node)?;
        return Some(TcpLook { endpoint, send: None, expect: None, latency: None });
    };
    let send = match table.get(cx, "send") {
        Some(node) => match cx.string(&node)? {
            empty if empty.is_empty() => return cx.bad(&node, "may not be empty"),
            text => Some(text),
        },
        None => None,
    };
    let expect = match table.get(cx, "expect") {
        Some(node) => Some(pattern(cx, &node)?),
        None => None,
    };
    let latency = latency(cx, &table)?;
    let address = required(cx, node, &table, "address", "add `address = \"127.0.0.1:25\"`")?;
    Some(TcpLook { endpoint: endpoint(cx, subject, &address)?, send, expect, latency })
}

pub(super) fn http(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<HttpLook> {
    let empty = Table { prefix: node.key.clone(), ..Table::new(node.section, Vec::new()) };
    let (table, url) = match inside(cx, node) {
        Some(table) => {
            let help = "add `url = \"http://127.0.0.1:8000/healthz\"`";
            let url = required(cx, node, &table, "url", help)?;
            (table, url)
        }
        None => (empty, node.clone()),
    };
    let get = |key: &str| table.get(cx, key);
    let (is_https, address, path) = parsed(cx, &url, "a URL", parse_web_url)?;
    let ca = get("ca").map(|node| existing_file(cx, subject, &node));
    let verify = get("verify").map(|node| cx.boolean(&node));
    let tls = match is_https {
        true => Some(Tls {
            verify: verify.unwrap_or(Some(true))?,
            ca: ca.map_or(Some(None), |ca| ca.map(Some))?,
            server_name: address.host.clone(),
        }),
        false => {
            for node in ["ca", "verify"].iter().filter_map(|key| get(key)) {
                let message = format!("`{}` has no meaning without `https://`", node.key);
                cx.error(&node.place(), "conflicting-keys", message, "remove it");
            }
            None
        }
    };
    let body = get("body").map(|node| pattern(cx, &node));
    let method = get("method").map(|node| cx.choice(&node, &METHODS));
    if let (Some(Some(HttpMethod::Head)), Some(body)) = (method, get("body")) {
        let message = "the answer to a HEAD request has no body".to_owned();
        let help = "remove `body`, or use the method \"GET\"";
        cx.error(&body.place(), "conflicting-keys", message, help);
    }
    let unix = get("unix").map(|node| cx.path(&node, subject.home));
    let statuses = get("status").map(|node| statuses(cx, &node)).unwrap_or_default();
    let headers = headers(cx, &table, "headers", &|cx, node| {
        let text = cx.string(node)?;
        let is_good = |c: char| c == '\t' || (!c.is_control() && c.is_ascii());
        match text.chars().all(is_good) {
            true => Some(Hidden::new(text.trim().to_owned())),
            false => cx.bad(node, "has a character that no header may have"),
        }
    });
    let answer_headers = headers_of_answer(cx, &table);
    Some(HttpLook {
        target: HttpTarget { address, path, statuses },
        unix: unix.map_or(Some(None), |unix| unix.map(Some))?,
        tls,
        method: method.unwrap_or(Some(HttpMethod::Get))?,
        headers: headers?,
        body: body.map_or(Some(None), |body| body.map(Some))?,
        answer_headers: answer_headers?,
        latency: latency(cx, &table)?,
    })
}

fn headers_of_answer(cx: &Context<'_>, table: &Table<'_>) -> Option<BTreeMap<String, String>> {
    headers(cx, table, "answer_headers", &|cx, node| pattern(cx, node))
}

/// Reads a table of headers, each value by `read`.
fn headers<T>(
    cx: &Context<'_>,
    table: &Table<'_>,
    key: &str,
    read: &dyn Fn(&Context<'_>, &Node<'_>) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    let Some(node) = table.get(cx, key) else { return Some(found) };
    let Some(layer) = node.table() else {
        cx.wrong_type(&node, "a table");
        return None;
    };
    for (name, value) in layer.table.iter() {
        let place = Place::File { index: layer.file, span: name.span() };
        let name: &str = name.get_ref();
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            let message = "the name of a header has letters, digits and `-`".to_owned();
            cx.error(&place, "bad-value", message, "for example `Authorization`");
            return None;
        }
        let item = Node::toml_node(node.section, format!("{}.{name}", node.key), layer.file, value);
        if found.insert(name.to_ascii_lowercase(), read(cx, &item)?).is_some() {
            let message = format!("the header `{name}` is here twice");
            cx.error(&place, "duplicate-key", message, "keep one");
        }
    }
    Some(found)
}

pub(super) fn redis(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<RedisLook> {
    let table = inside(cx, node);
    let help = "add `address = \"127.0.0.1:6379\"`";
    let address = match &table {
        Some(table) => required(cx, node, table, "address", help)?,
        None => node.clone(),
    };
    let text = cx.string(&address)?;
    let (endpoint, url) = match text.split_once("://") {
        Some(("redis", rest)) => {
            let url = url(cx, &address, rest)?;
            let server = server(cx, &address, &url, REDIS_PORT)?;
            (Endpoint::Tcp(server), Some(url))
        }
        Some(("rediss", _)) => {
            return cx.bad(&address, "cannot use TLS; let `exec` run a client such as redis-cli");
        }
        Some(_) | None => (endpoint(cx, subject, &address)?, None),
    };
    let (of_url, secret) = url.map(|url| (url.user, url.password)).unwrap_or_default();
    let Some(table) = table else {
        let password = secret.map(Password::Written);
        return Some(RedisLook { endpoint, user: of_url, password, role: None, latency: None });
    };
    let user = table.get(cx, "user").map(|node| cx.string(&node));
    let role = table.get(cx, "role").map(|node| cx.choice(&node, &REDIS_ROLES));
    let password = password(cx, subject, &table, secret)?;
    Some(RedisLook {
        endpoint,
        user: user.map_or(Some(of_url), |user| user.map(Some))?,
        password,
        role: role.map_or(Some(None), |role| role.map(Some))?,
        latency: latency(cx, &table)?,
    })
}

pub(super) fn postgres(
    cx: &Context<'_>,
    subject: Subject<'_>,
    node: &Node<'_>,
) -> Option<PostgresLook> {
    let empty = Table { prefix: node.key.clone(), ..Table::new(node.section, Vec::new()) };
    let (table, address) = match inside(cx, node) {
        Some(table) => {
            let help = "add `address = \"127.0.0.1:5432\"` or `address = \"unix:/run/postgresql\"`";
            let address = required(cx, node, &table, "address", help)?;
            (table, address)
        }
        None => (empty, node.clone()),
    };
    let text = cx.string(&address)?;
    let (server, url) = match text.split_once("://") {
        Some(("postgres" | "postgresql", rest)) => {
            let url = url(cx, &address, rest)?;
            (postgres_server(cx, &address, &url)?, Some(url))
        }
        Some(_) | None => match endpoint(cx, subject, &address)? {
            Endpoint::Tcp(address) => (PostgresServer::Tcp(address), None),
            Endpoint::Unix(path) => (socket_directory(path), None),
        },
    };
    let mut user = "postgres".to_owned();
    let (mut database, mut secret) = (None, None);
    if let Some(url) = url {
        user = url.user.unwrap_or(user);
        database = Some(url.path).filter(|path| !path.is_empty());
        secret = url.password;
    }
    let text = |key: &str| match table.get(cx, key) {
        Some(node) => match cx.string(&node)? {
            empty if empty.trim().is_empty() => cx.bad(&node, "may not be empty"),
            text => Some(Some(text)),
        },
        None => Some(None),
    };
    user = text("user")?.unwrap_or(user);
    let database = text("database")?.or(database).unwrap_or_else(|| user.clone());
    let query = text("query")?.unwrap_or_else(|| "SELECT 1".to_owned());
    let password = password(cx, subject, &table, secret)?;
    Some(PostgresLook { server, user, database, password, query, latency: latency(cx, &table)? })
}

/// Reads where a URL leads, with what it asks for beside that.
fn postgres_server(cx: &Context<'_>, node: &Node<'_>, url: &Url) -> Option<PostgresServer> {
    let mut directory = None;
    for (name, value) in &url.query {
        match (name.as_str(), value.as_str()) {
            ("host", path) if path.starts_with('/') => directory = Some(PathBuf::from(path)),
            ("sslmode", "disable" | "allow" | "prefer") => {}
            ("sslmode", _) => {
                return cx.bad(node, "cannot use TLS; let `exec` run a client such as psql");
            }
            _ => {
                let name = super::super::diagnostic::quote(name);
                return cx
                    .bad(node, format!("may have `host` and `sslmode` after `?`, not {name}"));
            }
        }
    }
    match directory {
        Some(directory) => {
            Some(PostgresServer::Unix { directory, port: url.port.unwrap_or(POSTGRES_PORT) })
        }
        None => server(cx, node, url, POSTGRES_PORT).map(PostgresServer::Tcp),
    }
}

/// Takes the path of a socket apart, as `unix:/run/postgresql/.s.PGSQL.5433` is written too.
fn socket_directory(path: PathBuf) -> PostgresServer {
    let name = path.file_name().and_then(|name| name.to_str());
    let port = name.and_then(|name| name.strip_prefix(".s.PGSQL.")?.parse().ok());
    match (port, path.parent()) {
        (Some(port), Some(parent)) => {
            PostgresServer::Unix { directory: parent.to_path_buf(), port }
        }
        _ => PostgresServer::Unix { directory: path, port: POSTGRES_PORT },
    }
}

fn url(cx: &Context<'_>, node: &Node<'_>, rest: &str) -> Option<Url> {
    match urls::parse(rest) {
        Ok(url) => Some(url),
        Err(error) => cx.bad(node, format!("must be a URL: {error}")),
    }
}

fn server(cx: &Context<'_>, node: &Node<'_>, url: &Url, port: u16) -> Option<Address> {
    match url.host.as_str() {
        "" => cx.bad(node, "must be a URL: the host is missing"),
        host => Some(Address { host: host.to_owned(), port: url.port.unwrap_or(port) }),
    }
}

pub(super) fn certificate(
    cx: &Context<'_>,
    subject: Subject<'_>,
    node: &Node<'_>,
) -> Option<CertificateLook> {
    let Some(table) = inside(cx, node) else {
        let address = parsed(cx, node, "an address", parse_address)?;
        let of = CertificateOf::Server { server_name: address.host.clone(), address };
        return Some(CertificateLook { of, days_left: CERTIFICATE_DAYS });
    };
    let has_bounds = ["warn", "fail"].iter().any(|key| table.get(cx, key).is_some());
    let days_left = match has_bounds {
        true => warn_and_fail(cx, &table, Worse::Less, &|node| days(cx, node)),
        false => Some(CERTIFICATE_DAYS),
    };
    let name = table.get(cx, "server_name");
    let of = match (table.get(cx, "address"), table.get(cx, "file")) {
        (Some(address), None) => {
            let address = parsed(cx, &address, "an address", parse_address)?;
            let server_name = match name {
                Some(node) => cx.string(&node)?,
                None => address.host.clone(),
            };
            CertificateOf::Server { address, server_name }
        }
        (None, Some(file)) => {
            if let Some(name) = name {
                let message = format!("`{}` has no meaning together with a file", name.key);
                cx.error(&name.place(), "conflicting-keys", message, "remove it");
            }
            CertificateOf::File(existing_file(cx, subject, &file)?)
        }
        (Some(address), Some(file)) => {
            let message = "a certificate is in a file or shown by a server".to_owned();
            let label = (&address.place(), "also given here".to_owned());
            cx.error_with(&file.place(), "conflicting-keys", message, "keep one", label);
            return None;
        }
        (None, None) => {
            let message = "`certificate` does not say where it is".to_owned();
            cx.error(&node.place(), "missing-key", message, "give `address` or `file`");
            return None;
        }
    };
    Some(CertificateLook { of, days_left: days_left? })
}

fn days(cx: &Context<'_>, node: &Node<'_>) -> Option<u32> {
    let time = cx.some_duration(node)?;
    if time < DAY {
        return cx.bad(node, "is counted in days");
    }
    u32::try_from(time.as_secs() / DAY.as_secs()).ok()
}

/// Reads a key that its table cannot do without.
fn required<'t>(
    cx: &Context<'_>,
    node: &Node<'_>,
    table: &Table<'t>,
    key: &str,
    help: &str,
) -> Option<Node<'t>> {
    let found = table.get(cx, key);
    if found.is_none() {
        let message = format!("`{}` needs a key `{key}`", node.key);
        cx.error(&node.place(), "missing-key", message, help);
    }
    found
}

/// Reads `HOST:PORT` or `unix:PATH`.
fn endpoint(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<Endpoint> {
    let text = cx.string(node)?;
    match text.strip_prefix("unix:") {
        Some(path) => cx.resolve(node, path, subject.home).map(Endpoint::Unix),
        None => parsed(cx, node, "an address", parse_address).map(Endpoint::Tcp),
    }
}

/// Reads `latency`; `None` only after a mistake.
fn latency(cx: &Context<'_>, table: &Table<'_>) -> Option<Option<Bounds<Duration>>> {
    match table.get(cx, "latency") {
        Some(node) => bounds(cx, &node, Worse::More, &|node| cx.some_duration(node)).map(Some),
        None => Some(None),
    }
}

/// Reads the one of the three keys that says the password, unless the URL has.
fn password(
    cx: &Context<'_>,
    subject: Subject<'_>,
    table: &Table<'_>,
    of_url: Option<Hidden>,
) -> Option<Option<Password>> {
    let keys = ["password", "password_env", "password_file"];
    let given: Vec<Node<'_>> = keys.iter().filter_map(|key| table.get(cx, key)).collect();
    if let [first, second, ..] = given.as_slice() {
        let message = "the password is said twice".to_owned();
        let label = (&first.place(), "also given here".to_owned());
        cx.error_with(&second.place(), "conflicting-keys", message, "keep one", label);
        return None;
    }
    let Some(node) = given.first() else { return Some(of_url.map(Password::Written)) };
    if of_url.is_some() {
        let message = format!("`{}` stands beside a password in the URL", node.key);
        cx.error(&node.place(), "conflicting-keys", message, "keep one");
        return None;
    }
    if node.key.ends_with("_file") {
        return existing_file(cx, subject, node).map(|path| Some(Password::File(path)));
    }
    let text = cx.string(node)?;
    if !node.key.ends_with("_env") {
        return Some(Some(Password::Written(Hidden::new(text))));
    }
    match text.is_empty() || text.contains(['=', '\0']) {
        true => cx.bad(node, "must be the name of a variable"),
        false => Some(Some(Password::Variable(text))),
    }
}

/// Reads the path of a file that should be there.
fn existing_file(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<PathBuf> {
    let path = cx.path(node, subject.home)?;
    if cx.looks && !Path::exists(&path) {
        let message = format!("`{}` does not exist", path.display());
        let help = "create it before the check is run";
        cx.warning(&node.place(), "missing-file", message, help);
    }
    Some(path)
}
