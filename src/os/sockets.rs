//! Who listens on a TCP port, from `/proc/net/tcp` and the descriptors of all processes.
//!
//! Finding the process costs a look at every descriptor of the machine (some 10 ms), so it is
//! for the moment after a failure and not for every day.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Instant;

use crate::os::proc;

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub port: u16,
    /// The user who made the socket.
    pub uid: u32,
    pub inode: u64,
}

/// Who has some sockets open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// The pids by the inode of the socket, in rising order.
    pub pids: BTreeMap<u64, Vec<u32>>,
    /// Some processes could not be looked into: they belong to others.
    pub some_are_hidden: bool,
    /// The time was over before all processes were looked at.
    pub is_partial: bool,
}

/// Returns the sockets that listen on one of these ports, over IPv4 and IPv6.
///
/// # Errors
///
/// When there is no `/proc/net/tcp`; that there is no IPv6 is no error.
pub fn listeners(ports: &[u16]) -> io::Result<Vec<Listener>> {
    let mut found = parse(&fs::read_to_string("/proc/net/tcp")?, ports);
    if let Ok(text) = fs::read_to_string("/proc/net/tcp6") {
        found.extend(parse(&text, ports));
    }
    Ok(found)
}

/// Looks for the processes that hold these sockets, until `deadline`.
pub fn holders(inodes: &[u64], deadline: Instant) -> Holders {
    let mut holders = Holders::default();
    let mut pids = proc::all_pids();
    pids.sort_unstable();
    for pid in pids {
        if Instant::now() >= deadline {
            holders.is_partial = true;
            break;
        }
        let descriptors = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                // A process that has just ended hides nothing.
                holders.some_are_hidden |= error.kind() == io::ErrorKind::PermissionDenied;
                continue;
            }
        };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let Some(inode) = target.to_str().and_then(socket_inode) else { continue };
            if inodes.contains(&inode) {
                let pids = holders.pids.entry(inode).or_default();
                if pids.last() != Some(&pid) {
                    pids.push(pid);
                }
            }
        }
    }
    holders
}

/// Reads `socket:[12345]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Reads the table of sockets; see proc_net_tcp(5). Lines that make no sense are skipped.
fn parse(table: &str, ports: &[u16]) -> Vec<Listener> {
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let uid = fields.nth(3)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == LISTEN && ports.contains(&port)).then_some(Listener { port, uid, inode })
    };
    table.lines().skip(1).filter_map(listener).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn the_holder_of_a_listening_socket_is_found_over_both_protocols() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "no IPv4 on this machine");
                continue;
            };
            let port = socket.local_addr().unwrap().port();
            let found = listeners(&[port]).unwrap();
            assert_eq!(found.iter().map(|l| l.port).collect::<Vec<_>>(), [port], "{address}");
            let holders = holders(&[found[0].inode], soon());
            assert_eq!(holders.pids[&found[0].inode], [std::process::id()]);
            drop(socket);
            assert_eq!(listeners(&[port]).unwrap(), []);
        }
    }

    #[test]
    fn a_search_without_time_says_that_it_is_not_complete() {
        assert!(holders(&[1], Instant::now()).is_partial);
    }

    #[test]
    fn only_listening_sockets_of_the_asked_ports_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 552 1 0 100 0 0 10 0\n\
            1: 0100007F:1538 0100007F:8000 01 00000000:00000000 00:00000000 00000000   101        0 553 1 0\n\
            2: 0100007F:1539 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 554 1 0\n\
            3: torn 0A\n";
        assert_eq!(parse(table, &[5432]), [Listener { port: 5432, uid: 101, inode: 552 }]);
        assert_eq!(socket_inode("socket:[552]"), Some(552));
        assert_eq!(socket_inode("pipe:[552]"), None);
    }

    proptest! {
        #[test]
        fn no_table_panics(text in "[0-9A-F: \n]{0,300}") {
            let _ = parse(&text, &[0, 80]);
        }
    }
}
