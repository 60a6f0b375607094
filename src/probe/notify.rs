//! What a process says of itself, see sd_notify(3): a datagram in, words out, no I/O.

use std::time::Duration;

/// Longest time that can be asked for: longer ones mean for ever.
const MAX_TIME: Duration = Duration::from_secs(365 * 86_400);
/// Most characters that are kept of a status.
const MAX_STATUS_CHARS: usize = 500;

/// One assignment that means something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// `READY=1`
    Ready,
    /// `STATUS=…`, one line without control characters.
    Status(String),
    /// `EXTEND_TIMEOUT_USEC=…`
    Extend(Duration),
    /// `WATCHDOG=1`
    Alive,
    /// `WATCHDOG=trigger`
    Hung,
    /// `WATCHDOG_USEC=…`
    Watchdog(Duration),
    /// `MAINPID=…`
    MainPid(u32),
}

/// Why a datagram is not listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    #[error("it contains a NUL byte")]
    Nul,
    #[error("it is not UTF-8")]
    Encoding,
}

/// Reads a datagram. Assignments that mean nothing here are skipped, `BARRIER=1`, `STOPPING=1`
/// and `RELOADING=1` among them.
///
/// # Errors
///
/// A datagram that sd_notify(3) would not send.
pub fn parse(datagram: &[u8]) -> Result<Vec<Said>, Nonsense> {
    // Some clients send the zero byte that ends their text.
    let datagram = datagram.strip_suffix(b"\0").unwrap_or(datagram);
    if datagram.contains(&0) {
        return Err(Nonsense::Nul);
    }
    let text = std::str::from_utf8(datagram).map_err(|_| Nonsense::Encoding)?;
    Ok(text.lines().filter_map(assignment).collect())
}

fn assignment(line: &str) -> Option<Said> {
    let (name, value) = line.split_once('=')?;
    let time = || {
        let micros = value.trim().parse().ok().map(Duration::from_micros);
        micros.map(|time| time.min(MAX_TIME))
    };
    match (name, value) {
        ("READY", "1") => Some(Said::Ready),
        ("WATCHDOG", "1") => Some(Said::Alive),
        ("WATCHDOG", "trigger") => Some(Said::Hung),
        ("STATUS", _) => Some(Said::Status(clean(value))),
        ("EXTEND_TIMEOUT_USEC", _) => time().map(Said::Extend),
        ("WATCHDOG_USEC", _) => time().map(Said::Watchdog),
        ("MAINPID", _) => value.trim().parse().ok().filter(|pid| *pid > 0).map(Said::MainPid),
        _ => None,
    }
}

fn clean(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = printable.trim();
    match text.char_indices().nth(MAX_STATUS_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_datagram_is_a_list_of_assignments_of_which_some_mean_something() {
        let said = parse(b"READY=1\nSTATUS= 3 of 7\x1b \nX=1\nnonsense\nMAINPID=12\n").unwrap();
        assert_eq!(said, [Said::Ready, Said::Status("3 of 7".into()), Said::MainPid(12)]);
        let said = parse(b"WATCHDOG=1\nWATCHDOG=trigger\nWATCHDOG_USEC=1500000").unwrap();
        let time = Duration::from_millis(1500);
        assert_eq!(said, [Said::Alive, Said::Hung, Said::Watchdog(time)]);
        let said = parse(b"EXTEND_TIMEOUT_USEC=18446744073709551615\0").unwrap();
        assert_eq!(said, [Said::Extend(MAX_TIME)]);
        for nothing in ["READY=0", "READY=11", "WATCHDOG_USEC=-1", "MAINPID=0", "BARRIER=1", ""] {
            assert_eq!(parse(nothing.as_bytes()).unwrap(), [], "{nothing}");
        }
    }

    #[test]
    fn garbage_is_named_and_a_long_status_is_cut() {
        assert_eq!(parse(b"READY=1\0\nSTATUS=x"), Err(Nonsense::Nul));
        assert_eq!(parse(b"STATUS=\xff"), Err(Nonsense::Encoding));
        let long = format!("STATUS={}", "ä".repeat(1000));
        let said = parse(long.as_bytes()).unwrap();
        assert!(matches!(&said[..], [Said::Status(text)] if text.chars().count() == 501));
    }

    proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
