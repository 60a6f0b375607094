//! The kernel's log, `/dev/kmsg`: what it says about processes that it has ended.
//!
//! Opened anew for each look, so nothing wakes up when the kernel prints. Ordinary users may not
//! read it where `kernel.dmesg_restrict` is set.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// The longest record that the kernel hands out.
const MAX_RECORD_BYTES: usize = 8192;
/// Most records that are kept; the newest are.
const MAX_RECORDS: usize = 200;

/// One line of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Since boot, by the kernel's own clock, which may be a little off the monotonic one.
    pub at: Duration,
    pub text: String,
}

/// Returns the newest records that are not older than `begin` and that `wanted` accepts.
///
/// # Errors
///
/// [`io::ErrorKind::PermissionDenied`] where only root may read the log, and
/// [`io::ErrorKind::TimedOut`] when `deadline` comes before its end.
pub fn since(
    begin: Duration,
    deadline: Instant,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<Vec<Record>> {
    let log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    read(log, deadline, |record| record.at >= begin && wanted(&record.text))
}

fn read(
    mut log: impl Read,
    deadline: Instant,
    wanted: impl Fn(&Record) -> bool,
) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut buffer = [0; MAX_RECORD_BYTES];
    loop {
        match log.read(&mut buffer) {
            Ok(0) => return Ok(records),
            Ok(bytes) => records.extend(parse(&buffer[..bytes]).filter(|record| wanted(record))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(records),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The next record was overwritten before it was read; the one after it comes next.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) => return Err(error),
        }
        if records.len() > MAX_RECORDS {
            records.remove(0);
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Reads one record: `6,339,5140900,-;text`, then lines with further facts, which are dropped.
fn parse(record: &[u8]) -> Option<Record> {
    let record = String::from_utf8_lossy(record);
    let (head, text) = record.split_once(';')?;
    let micros = head.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(Record { at: Duration::from_micros(micros), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hands out one record for each read, as the kernel does.
    struct Records(Vec<io::Result<&'static str>>);

    impl Read for Records {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let record = self.0.remove(0)?;
            buffer[..record.len()].copy_from_slice(record.as_bytes());
            Ok(record.len())
        }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn records_are_read_over_a_gap_until_there_are_no_more() {
        let records = Records(vec![
            Ok("6,1,1000000,-;old\n"),
            Err(io::Error::from_raw_os_error(libc::EPIPE)),
            Ok("4,3,5000000,-;web[7]: segfault at 0 ip 1\n SUBSYSTEM=x\n"),
            Ok("nonsense"),
        ]);
        let found = read(records, later(), |record| record.at >= Duration::from_secs(2)).unwrap();
        let expected =
            Record { at: Duration::from_secs(5), text: "web[7]: segfault at 0 ip 1".into() };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_log_without_end_is_left_at_the_deadline_and_errors_are_told() {
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer[..8].copy_from_slice(b"6,1,1,-;");
                Ok(8)
            }
        }
        let error = read(Endless, Instant::now(), |_| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let denied = Records(vec![Err(io::ErrorKind::PermissionDenied.into())]);
        let error = read(denied, later(), |_| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn the_log_of_this_machine_can_be_read_by_root() {
        match since(Duration::ZERO, later(), |_| true) {
            Ok(records) => assert!(records.len() <= MAX_RECORDS),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::TimedOut, "{error}"),
        }
    }

    proptest! {
        #[test]
        fn no_record_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in "[0-9,;a-z\n]{0,50}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
