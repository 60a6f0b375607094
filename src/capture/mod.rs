//! Moves what programs print into log files, exactly, and reads it back.
//!
//! Output travels FIFO → `splice` → log file: at any moment a byte is either in the pipe or in
//! the file, so SIGKILL of the daemon neither loses nor doubles one. Nothing in here reads output
//! in order to write it; everything else (indexes, other sinks, followers) is made from the file.
//!
//! One log is a set of files in one directory, `0.stdout.log` for example:
//!
//! | File | Content |
//! |---|---|
//! | `0.stdout.log` | the current segment: the child's exact bytes |
//! | `0.stdout.000007.log`, `….log.zst` | a closed segment, perhaps compressed |
//! | `0.stdout.idx`, `0.stdout.000007.idx` | when which bytes of a segment arrived |
//!
//! A rotation is: rename the segment, rename its index, make the new index (which knows the
//! segment's number), make the new segment. A crash after any step leaves a set that readers
//! understand and that the next opening completes. Compression renames the finished `.zst` into
//! place before it removes the plain file; both together are one segment.

mod place;

mod index;

mod writer;

mod pace;

mod log;

mod totals;

mod pump;

mod pump_loop;

mod tidy;

mod follow;

mod sinks;

mod segment;

mod mark;

pub mod read;

mod merge;

pub use follow::{Follower, Followers};
pub use merge::{MergedLine, MergedReader};
pub use pump::{Channel, Notice, Pump, Stream};
pub use read::{Cursor, LogLine, LogReader};
pub use totals::Totals;

#[cfg(test)]
mod pump_tests;

#[cfg(test)]
mod read_tests;
