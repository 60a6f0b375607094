//! What keeper and brain say to each other: bytes in, values out, no I/O.
//!
//! Each message is one packet: a fixed header of [`HEADER_BYTES`], then for
//! [`ToKeeper::Upgrade`] the text. The layout is a promise between versions: an upgraded brain talks to the keeper of
//! the version before. Both ends are on one machine, so numbers are in native byte order.

use std::time::Duration;

use crate::name::RunId;

/// Length of the header, and of every message without text.
pub const HEADER_BYTES: usize = 32;

/// Longest text in bytes.
pub const MAX_TEXT_BYTES: usize = 4096;

/// From the brain to the keeper. Descriptors travel beside the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToKeeper<'a> {
    /// Before a spawn: hold these read ends (one, or two) for this run.
    Hold { run: RunId },
    /// After a spawn, or on adoption: the run's pid, with its pidfd when it is alive.
    Born { run: RunId, pid: u32 },
    /// The run is dealt with: forget it.
    Drop { run: RunId },
    /// Say all that is known, then [`ToBrain::End`].
    List,
    /// The brain serves.
    Ready,
    /// The brain has ended its work in order; end with this code.
    Bye { code: u8 },
    /// Answer with [`ToBrain::Pong`]: is the keeper's loop alive?
    Ping,
    /// Become this executable once a brain of it has served within `patience`; the brain that
    /// says so withdraws when it hears [`ToBrain::UpgradeBegins`].
    Upgrade { path: &'a [u8], patience: Duration },
    /// This brain moves nothing and decides nothing any more, and has given up its lock: the next
    /// one may start. It waits to be killed once that one serves.
    Withdrawn,
}

/// From the keeper to the brain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToBrain {
    /// One held run. With descriptors: the read ends, then the pidfd when there is one.
    Entry { run: RunId, pid: Option<u32>, exit: Option<WaitStatus>, pipes: u8, has_pidfd: bool },
    /// The end of the list.
    End,
    /// The main process of this run has ended.
    Exited { run: RunId, status: WaitStatus },
    /// The keeper got this signal.
    Signal { signal: i32 },
    /// The answer to [`ToKeeper::Ping`].
    Pong,
    /// [`ToKeeper::Upgrade`] begins: answer with [`ToKeeper::Withdrawn`].
    UpgradeBegins,
    /// [`ToKeeper::Upgrade`] is done: keeper and brain are of the new executable.
    Upgraded,
    /// [`ToKeeper::Upgrade`] did not work, and everything is of the old executable again.
    UpgradeFailed(UpgradeFailure),
}

/// Why an upgrade was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeFailure {
    /// The new executable could not be executed, for this errno.
    Exec { errno: i32 },
    /// The new brain ended with this wait status before it served.
    BrainEnded { status: i32 },
    /// The new brain did not serve in time.
    BrainLate,
    /// The new keeper, tried beside the old one, ended with this wait status.
    KeeperEnded { status: i32 },
    /// The new keeper, tried beside the old one, did not end in time.
    KeeperLate,
    /// Another upgrade is under way.
    Busy,
}

impl std::fmt::Display for UpgradeFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Exec { errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                write!(f, "the new executable cannot be executed: {error}")
            }
            Self::BrainEnded { status } => {
                write!(f, "the new brain {} before it served", Ended(status))
            }
            Self::BrainLate => f.write_str("the new brain did not serve in time"),
            Self::KeeperEnded { status } => write!(
                f,
                "the new keeper cannot take over the state of this one: it {}",
                Ended(status)
            ),
            Self::KeeperLate => {
                f.write_str("the new keeper did not take over the state of this one in time")
            }
            Self::Busy => f.write_str("another upgrade is under way"),
        }
    }
}

/// A wait status in words.
struct Ended(i32);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if libc::WIFEXITED(self.0) {
            write!(f, "exited with code {}", libc::WEXITSTATUS(self.0))
        } else {
            write!(f, "was killed by signal {}", libc::WTERMSIG(self.0))
        }
    }
}

/// A wait status in the encoding of wait(2), or the honest word that nobody knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    Known(i32),
    Unknown,
}

/// A packet that is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes and kind {kind} is not understood")]
pub struct WireError {
    pub kind: u8,
    pub length: usize,
}

/// The header's fields, in the order of their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Header {
    kind: u8,
    flags: u8,
    pipes: u8,
    code: u8,
    pid: u32,
    run: u64,
    status: i32,
    signal: i32,
    text_bytes: u32,
}

const HAS_PID: u8 = 1;
const HAS_EXIT: u8 = 2;
const STATUS_KNOWN: u8 = 4;
const HAS_PIDFD: u8 = 8;

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind;
        bytes[1] = self.flags;
        bytes[2] = self.pipes;
        bytes[3] = self.code;
        bytes[4..8].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.run.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.status.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.signal.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.text_bytes.to_ne_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let kind = bytes.first().copied().unwrap_or(0);
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(WireError { kind, length: bytes.len() });
        };
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let mut run = [0; 8];
        run.copy_from_slice(&bytes[8..16]);
        Ok(Self {
            kind,
            flags: bytes[1],
            pipes: bytes[2],
            code: bytes[3],
            pid: u32::from_ne_bytes(word(4)),
            run: u64::from_ne_bytes(run),
            status: i32::from_ne_bytes(word(16)),
            signal: i32::from_ne_bytes(word(20)),
            text_bytes: u32::from_ne_bytes(word(24)),
        })
    }

    fn exit(&self) -> WaitStatus {
        if self.flags & STATUS_KNOWN != 0 {
            WaitStatus::Known(self.status)
        } else {
            WaitStatus::Unknown
        }
    }

    fn with_exit(mut self, exit: WaitStatus) -> Self {
        self.flags |= HAS_EXIT;
        if let WaitStatus::Known(status) = exit {
            self.flags |= STATUS_KNOWN;
            self.status = status;
        }
        self
    }
}

impl<'a> ToKeeper<'a> {
    /// Returns the packet's header; the text of [`ToKeeper::Upgrade`] follows it.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let header = Header::default();
        match *self {
            Self::Hold { run } => Header { kind: 1, run: run.0, ..header },
            Self::Born { run, pid } => Header { kind: 2, run: run.0, pid, ..header },
            Self::Drop { run } => Header { kind: 3, run: run.0, ..header },
            Self::List => Header { kind: 4, ..header },
            Self::Ready => Header { kind: 5, ..header },
            Self::Bye { code } => Header { kind: 6, code, ..header },
            Self::Ping => Header { kind: 8, ..header },
            Self::Withdrawn => Header { kind: 9, ..header },
            Self::Upgrade { path, patience } => Header {
                kind: 7,
                run: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
                text_bytes: u32::try_from(path.len()).unwrap_or(u32::MAX),
                ..header
            },
        }
        .encode()
    }

    /// Reads a packet.
    ///
    /// # Errors
    ///
    /// [`WireError`] for anything that [`encode`](Self::encode) does not write.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = Header::decode(bytes)?;
        let run = RunId(header.run);
        let error = WireError { kind: header.kind, length: bytes.len() };
        match header.kind {
            1 => Ok(Self::Hold { run }),
            2 => Ok(Self::Born { run, pid: header.pid }),
            3 => Ok(Self::Drop { run }),
            4 => Ok(Self::List),
            5 => Ok(Self::Ready),
            6 => Ok(Self::Bye { code: header.code }),
            8 => Ok(Self::Ping),
            9 => Ok(Self::Withdrawn),
            7 => {
                let length = usize::try_from(header.text_bytes).map_err(|_| error)?;
                let end = HEADER_BYTES.checked_add(length).ok_or(error)?;
                if length > MAX_TEXT_BYTES {
                    return Err(error);
                }
                let patience = Duration::from_millis(header.run);
                let path = bytes.get(HEADER_BYTES..end).ok_or(error)?;
                Ok(Self::Upgrade { path, patience })
            }
            _ => Err(error),
        }
    }
}

impl ToBrain {
    /// Returns the packet.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let header = Header::default();
        match *self {
            Self::Entry { run, pid, exit, pipes, has_pidfd } => {
                let mut header = Header { kind: 65, run: run.0, pipes, ..header };
                if let Some(pid) = pid {
                    header.pid = pid;
                    header.flags |= HAS_PID;
                }
                if has_pidfd {
                    header.flags |= HAS_PIDFD;
                }
                exit.map_or(header, |exit| header.with_exit(exit))
            }
            Self::End => Header { kind: 66, ..header },
            Self::Exited { run, status } => {
                Header { kind: 67, run: run.0, ..header }.with_exit(status)
            }
            Self::Signal { signal } => Header { kind: 68, signal, ..header },
            Self::Pong => Header { kind: 72, ..header },
            Self::UpgradeBegins => Header { kind: 71, ..header },
            Self::Upgraded => Header { kind: 69, ..header },
            Self::UpgradeFailed(why) => {
                let (code, status) = why.to_numbers();
                Header { kind: 70, code, status, ..header }
            }
        }
        .encode()
    }

    /// Reads a packet.
    ///
    /// # Errors
    ///
    /// [`WireError`] for anything that [`encode`](Self::encode) does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let header = Header::decode(bytes)?;
        let run = RunId(header.run);
        let flag = |bit| header.flags & bit != 0;
        match header.kind {
            65 => Ok(Self::Entry {
                run,
                pid: flag(HAS_PID).then_some(header.pid),
                exit: flag(HAS_EXIT).then(|| header.exit()),
                pipes: header.pipes,
                has_pidfd: flag(HAS_PIDFD),
            }),
            66 => Ok(Self::End),
            67 => Ok(Self::Exited { run, status: header.exit() }),
            68 => Ok(Self::Signal { signal: header.signal }),
            72 => Ok(Self::Pong),
            69 => Ok(Self::Upgraded),
            71 => Ok(Self::UpgradeBegins),
            70 => UpgradeFailure::from_numbers(header.code, header.status)
                .map(Self::UpgradeFailed)
                .ok_or(WireError { kind: header.kind, length: bytes.len() }),
            _ => Err(WireError { kind: header.kind, length: bytes.len() }),
        }
    }
}

impl UpgradeFailure {
    fn to_numbers(self) -> (u8, i32) {
        match self {
            Self::Exec { errno } => (1, errno),
            Self::BrainEnded { status } => (2, status),
            Self::BrainLate => (3, 0),
            Self::KeeperEnded { status } => (4, status),
            Self::KeeperLate => (5, 0),
            Self::Busy => (6, 0),
        }
    }

    fn from_numbers(code: u8, number: i32) -> Option<Self> {
        match code {
            1 => Some(Self::Exec { errno: number }),
            2 => Some(Self::BrainEnded { status: number }),
            3 => Some(Self::BrainLate),
            4 => Some(Self::KeeperEnded { status: number }),
            5 => Some(Self::KeeperLate),
            6 => Some(Self::Busy),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_message_survives_the_wire() {
        let run = RunId(u64::MAX - 3);
        let plain = [
            ToKeeper::Hold { run },
            ToKeeper::Born { run, pid: 7 },
            ToKeeper::Drop { run },
            ToKeeper::List,
            ToKeeper::Ready,
            ToKeeper::Ping,
            ToKeeper::Withdrawn,
            ToKeeper::Bye { code: 9 },
        ];
        for message in plain {
            assert_eq!(ToKeeper::decode(&message.encode()), Ok(message));
        }
        let patience = Duration::from_millis(1500);
        let upgrade = ToKeeper::Upgrade { path: b"/usr/bin/mendd", patience };
        let packet = [&upgrade.encode()[..], b"/usr/bin/mendd"].concat();
        assert_eq!(ToKeeper::decode(&packet), Ok(upgrade));
        let exits = [None, Some(WaitStatus::Known(0)), Some(WaitStatus::Unknown)];
        for exit in exits {
            for pid in [None, Some(1)] {
                let entry = ToBrain::Entry { run, pid, exit, pipes: 2, has_pidfd: pid.is_some() };
                assert_eq!(ToBrain::decode(&entry.encode()), Ok(entry));
            }
        }
        let rest = [
            ToBrain::End,
            ToBrain::Exited { run, status: WaitStatus::Known(2304) },
            ToBrain::Exited { run, status: WaitStatus::Unknown },
            ToBrain::Signal { signal: 15 },
            ToBrain::Pong,
            ToBrain::UpgradeBegins,
            ToBrain::Upgraded,
            ToBrain::UpgradeFailed(UpgradeFailure::Exec { errno: 2 }),
            ToBrain::UpgradeFailed(UpgradeFailure::BrainEnded { status: 256 }),
            ToBrain::UpgradeFailed(UpgradeFailure::BrainLate),
            ToBrain::UpgradeFailed(UpgradeFailure::KeeperEnded { status: 11 }),
            ToBrain::UpgradeFailed(UpgradeFailure::KeeperLate),
            ToBrain::UpgradeFailed(UpgradeFailure::Busy),
        ];
        for message in rest {
            assert_eq!(ToBrain::decode(&message.encode()), Ok(message));
        }
    }

    proptest! {
        #[test]
        fn no_packet_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ToKeeper::decode(&bytes);
            let _ = ToBrain::decode(&bytes);
        }
    }
}
