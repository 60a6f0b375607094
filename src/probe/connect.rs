//! Connects to an address or a socket, and tells apart whose fault it is when that fails.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::aside::aside;
use super::finding::Finding;
use super::progress::{Progress, Stage};
use super::words;
use crate::config::{Address, Endpoint};
use crate::core::care::evidence::ProbeFailure;

/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Bytes in both directions.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A name has no address, or nobody says which.
    NoName(String),
    Io(io::Error),
}

/// Connects, or finds out what its failure means.
pub(super) async fn connect(
    endpoint: &Endpoint,
    progress: &Progress,
) -> Result<Box<dyn Connection>, Finding> {
    let connected: Result<Box<dyn Connection>, Trouble> = match endpoint {
        Endpoint::Tcp(address) => tcp(address, progress).await.map(|stream| Box::new(stream) as _),
        Endpoint::Unix(path) => unix(path, progress).await.map(|stream| Box::new(stream) as _),
    };
    connected.map_err(|trouble| trouble.explain(&endpoint.to_string()))
}

/// Connects to the first of the host's addresses that accepts.
pub(super) async fn tcp(address: &Address, progress: &Progress) -> Result<TcpStream, Trouble> {
    let addresses = resolve(address, progress).await.map_err(Trouble::NoName)?;
    progress.enter(Stage::Connecting);
    let mut refusal = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
    let count = addresses.len();
    for (index, address) in addresses.into_iter().enumerate() {
        // One that swallows everything must leave time for the others.
        let others = u32::try_from(count - index).unwrap_or(1).max(1);
        let connecting = tokio::time::timeout(progress.left() / others, one(address));
        let error = match connecting.await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_late) => io::Error::from_raw_os_error(libc::ETIMEDOUT),
        };
        // A plain "no" says more than that there is no way to another address.
        if index == 0 || !matches!(kind(&error), Kind::Unreachable | Kind::Own) {
            refusal = error;
        }
    }
    Err(Trouble::Io(refusal))
}

async fn one(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Without a listener, a connection to one of this machine's own outgoing ports can meet
    // itself; see tcp(7) on simultaneous opens.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    // Questions are small and wait for their answers.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn unix(path: &Path, progress: &Progress) -> Result<UnixStream, Trouble> {
    progress.enter(Stage::Connecting);
    UnixStream::connect(path).await.map_err(Trouble::Io)
}

/// Returns the addresses of a host. Numbers and `localhost` ask nobody.
async fn resolve(address: &Address, progress: &Progress) -> Result<Vec<SocketAddr>, String> {
    let Address { host, port } = address;
    let with_port = |ip: IpAddr| SocketAddr::new(ip, *port);
    if let Ok(ip) = host.parse() {
        return Ok(vec![with_port(ip)]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Ok(own.map(with_port).to_vec());
    }
    progress.enter(Stage::Resolving);
    let question = (host.clone(), *port);
    let found = aside(&format!("the name `{host}`"), move || question.to_socket_addrs()).await;
    match found {
        Ok(Ok(addresses)) => match addresses.take(MAX_ADDRESSES).collect::<Vec<_>>() {
            none if none.is_empty() => Err(format!("the name `{host}` has no address")),
            some => Ok(some),
        },
        Ok(Err(error)) => {
            let why = words::error(&error);
            let why = why.strip_prefix("failed to lookup address information: ").unwrap_or(&why);
            Err(format!("the name `{host}` cannot be resolved: {}", lower(why)))
        }
        Err(unanswered) => Err(unanswered.to_string()),
    }
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Whose trouble an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nobody listens.
    Refused,
    /// Nobody accepts.
    Late,
    /// It was accepted and given up at once.
    Closed,
    Unreachable,
    /// This process cannot even try.
    Own,
}

fn kind(error: &io::Error) -> Kind {
    match error.raw_os_error().unwrap_or_default() {
        libc::ECONNREFUSED | libc::ENOENT | libc::ENOTDIR | libc::EPROTOTYPE => Kind::Refused,
        // The queue of a Unix socket is full: nobody takes connections from it.
        libc::ETIMEDOUT | libc::EAGAIN => Kind::Late,
        libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE => Kind::Closed,
        libc::EHOSTUNREACH | libc::EHOSTDOWN => Kind::Unreachable,
        // Descriptors, memory, ports, permissions, no network of its own at all.
        _ => Kind::Own,
    }
}

impl Trouble {
    /// Says what it means that there is no connection to `whom`.
    pub(super) fn explain(&self, whom: &str) -> Finding {
        let error = match self {
            Self::NoName(why) => return Finding::unknown(why),
            Self::Io(error) => error,
        };
        let why = words::error(error);
        match kind(error) {
            Kind::Refused if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                Finding::fail(ProbeFailure::Refused, format!("connect to {whom} refused"))
            }
            Kind::Refused => {
                Finding::fail(ProbeFailure::Refused, format!("nobody listens on {whom}: {why}"))
            }
            Kind::Late => Finding::timeout(
                ProbeFailure::ConnectTimeout,
                format!("{whom} does not accept connections"),
            ),
            Kind::Closed => Finding::fail(
                ProbeFailure::Closed,
                format!("{whom} closed the connection without an answer"),
            ),
            Kind::Unreachable => Finding::new(
                crate::core::care::Verdict::Fail,
                format!("connect to {whom} failed: {why}"),
            ),
            Kind::Own => Finding::unknown(format!("cannot try to connect to {whom}: {why}")),
        }
    }

    /// Says so in a few words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::NoName(why) => why.clone(),
            Self::Io(error) => words::error(error),
        }
    }
}

/// Says what it means that a connection that was there failed.
pub(super) fn broken(whom: &str, error: &io::Error) -> Finding {
    let is_closed = kind(error) == Kind::Closed || error.kind() == io::ErrorKind::UnexpectedEof;
    match is_closed {
        true => closed(whom),
        false => Finding::new(
            crate::core::care::Verdict::Fail,
            format!("the connection to {whom} failed: {}", words::error(error)),
        ),
    }
}

/// Says that a connection was closed before there was an answer.
pub(super) fn closed(whom: &str) -> Finding {
    let sentence = format!("{whom} closed the connection without an answer");
    Finding::fail(ProbeFailure::Closed, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::care::Verdict;

    fn explained(errno: i32) -> Finding {
        Trouble::Io(io::Error::from_raw_os_error(errno)).explain("db:5432")
    }

    #[test]
    fn each_error_is_the_trouble_of_somebody() {
        let refused = explained(libc::ECONNREFUSED);
        assert_eq!(
            (refused.verdict, refused.failure),
            (Verdict::Fail, Some(ProbeFailure::Refused))
        );
        assert_eq!(refused.sentence, "connect to db:5432 refused");
        let missing = explained(libc::ENOENT);
        assert_eq!(missing.sentence, "nobody listens on db:5432: no such file or directory");
        let late = explained(libc::EAGAIN);
        let expected = (Verdict::Timeout, Some(ProbeFailure::ConnectTimeout));
        assert_eq!((late.verdict, late.failure), expected);
        let own = [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EACCES,
            libc::EADDRNOTAVAIL,
            libc::ENETUNREACH,
        ];
        for errno in own {
            assert_eq!(explained(errno).verdict, Verdict::Unknown, "{errno}");
        }
        assert_eq!(explained(libc::EHOSTUNREACH).verdict, Verdict::Fail);
        assert_eq!(explained(libc::ECONNRESET).failure, Some(ProbeFailure::Closed));
    }

    #[test]
    fn a_name_that_cannot_exist_says_nothing_of_the_target() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = Address { host: "nothing.invalid".into(), port: 80 };
        let progress = Progress::new(std::time::Duration::from_secs(60));
        let trouble = runtime.block_on(tcp(&address, &progress)).unwrap_err();
        let finding = trouble.explain("nothing.invalid:80");
        assert_eq!(finding.verdict, Verdict::Unknown);
        assert!(finding.sentence.starts_with("the name `nothing.invalid`"), "{finding:?}");
    }
}
