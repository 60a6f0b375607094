//! Does something accept connections?

use std::io;

use tokio::net::TcpStream;

use super::{Finding, Verdict, words};
use crate::config::Address;

pub(super) async fn ask(address: &Address) -> Finding {
    match connect(address).await {
        Ok(_) => Finding::new(Verdict::Pass, "accepts connections"),
        Err(error) => Finding::new(Verdict::Fail, words(&error)),
    }
}

/// Connects to the first of the host's addresses that accepts.
pub(super) async fn connect(address: &Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    // Without a listener, a connection to one of this machine's own outgoing ports can meet
    // itself; see tcp(7) on simultaneous opens.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(stream)
}
