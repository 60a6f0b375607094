//! The keeper's whole memory: one slot per run, and the statuses nobody has claimed yet.
//!
//! The room is reserved once at the start and touched only as far as it is used.

use std::os::fd::RawFd;

use super::wire::WaitStatus;
use crate::name::RunId;

/// Most runs that are held at once.
pub const MAX_RUNS: usize = 65_536;

/// Statuses of processes that belong to no run, newest kept: orphans, and children whose brain
/// died between the spawn and the word about it.
const UNCLAIMED: usize = 1024;

/// One run. Plain data: it crosses an upgrade as bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub run: u64,
    /// Zero until the run is born.
    pub pid: u32,
    pub status: i32,
    pub pidfd: RawFd,
    pub pipes: [RawFd; 2],
    pub flags: u32,
}

/// Size of a [`Slot`] as bytes.
pub const SLOT_BYTES: usize = 32;

impl Slot {
    pub const EXITED: u32 = 1;
    pub const KNOWN: u32 = 2;
    /// Not a child of this keeper: the keeper before it has died.
    pub const FOREIGN: u32 = 4;
    /// The brain has been told of the exit.
    pub const TOLD: u32 = 8;
    /// In an upgrade's bytes only: no run, but a status that nobody has claimed yet.
    const UNCLAIMED: u32 = 1 << 30;
    const FREE: u32 = 1 << 31;

    pub fn new(run: RunId, pipes: [RawFd; 2]) -> Self {
        Self { run: run.0, pid: 0, status: 0, pidfd: -1, pipes, flags: 0 }
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub fn is_free(&self) -> bool {
        self.has(Self::FREE)
    }

    /// Returns how it ended, when it has.
    pub fn exit(&self) -> Option<WaitStatus> {
        match (self.has(Self::EXITED), self.has(Self::KNOWN)) {
            (false, _) => None,
            (true, true) => Some(WaitStatus::Known(self.status)),
            (true, false) => Some(WaitStatus::Unknown),
        }
    }

    /// Records how it ended; the first word counts.
    pub fn end(&mut self, status: WaitStatus) {
        if self.has(Self::EXITED) {
            return;
        }
        self.flags |= Self::EXITED;
        if let WaitStatus::Known(status) = status {
            self.flags |= Self::KNOWN;
            self.status = status;
        }
    }

    pub fn to_bytes(self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[0..8].copy_from_slice(&self.run.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.status.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.pidfd.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.pipes[0].to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.pipes[1].to_ne_bytes());
        bytes[28..32].copy_from_slice(&self.flags.to_ne_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; SLOT_BYTES]) -> Self {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let mut run = [0; 8];
        run.copy_from_slice(&bytes[0..8]);
        Self {
            run: u64::from_ne_bytes(run),
            pid: u32::from_ne_bytes(word(8)),
            status: i32::from_ne_bytes(word(12)),
            pidfd: RawFd::from_ne_bytes(word(16)),
            pipes: [RawFd::from_ne_bytes(word(20)), RawFd::from_ne_bytes(word(24))],
            flags: u32::from_ne_bytes(word(28)),
        }
    }
}

/// All slots. Never grows beyond the room of its start.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    /// A ring of `(pid, status)`.
    unclaimed: Vec<(u32, i32)>,
    next_unclaimed: usize,
}

impl Table {
    pub fn new() -> Self {
        Self {
            slots: Vec::with_capacity(MAX_RUNS),
            unclaimed: Vec::with_capacity(UNCLAIMED),
            next_unclaimed: 0,
        }
    }

    /// Returns the index of a run.
    pub fn find(&self, run: RunId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.run == run.0 && !slot.is_free())
    }

    /// Returns the index of the living run with this pid.
    pub fn find_pid(&self, pid: u32) -> Option<usize> {
        self.slots.iter().position(|slot| {
            slot.pid == pid && !slot.has(Slot::EXITED | Slot::FOREIGN) && !slot.is_free()
        })
    }

    /// Adds a slot, `None` when all room is taken.
    pub fn insert(&mut self, slot: Slot) -> Option<usize> {
        if let Some(index) = self.slots.iter().position(Slot::is_free) {
            self.slots[index] = slot;
            return Some(index);
        }
        if self.slots.len() == self.slots.capacity() {
            return None;
        }
        self.slots.push(slot);
        Some(self.slots.len() - 1)
    }

    /// Removes a slot and returns it; its descriptors are the caller's to close.
    pub fn remove(&mut self, index: usize) -> Slot {
        let slot = self.slots[index];
        self.slots[index].flags = Slot::FREE;
        while self.slots.last().is_some_and(Slot::is_free) {
            self.slots.pop();
        }
        slot
    }

    pub fn get(&self, index: usize) -> Option<&Slot> {
        self.slots.get(index).filter(|slot| !slot.is_free())
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut Slot> {
        self.slots.get_mut(index).filter(|slot| !slot.is_free())
    }

    /// Returns one past the last index in use.
    pub fn end(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Keeps the status of a process that belongs to no run, in place of the oldest.
    pub fn keep_unclaimed(&mut self, pid: u32, status: i32) {
        if self.unclaimed.len() < UNCLAIMED {
            self.unclaimed.push((pid, status));
        } else {
            self.unclaimed[self.next_unclaimed] = (pid, status);
        }
        self.next_unclaimed = (self.next_unclaimed + 1) % UNCLAIMED;
    }

    /// Returns everything as slots, for the next image of an upgrade.
    pub fn export(&self) -> impl Iterator<Item = Slot> {
        let kept = self.unclaimed.iter().filter(|(pid, _)| *pid != 0).map(|(pid, status)| Slot {
            pid: *pid,
            status: *status,
            flags: Slot::UNCLAIMED,
            ..Slot::new(RunId(0), [-1, -1])
        });
        self.slots.iter().filter(|slot| !slot.is_free()).copied().chain(kept)
    }

    /// Takes in one slot of what [`export`](Self::export) returned.
    pub fn import(&mut self, slot: Slot) {
        if slot.has(Slot::UNCLAIMED) {
            self.keep_unclaimed(slot.pid, slot.status);
        } else {
            self.insert(slot);
        }
    }

    /// Takes the newest status kept for this pid.
    pub fn claim(&mut self, pid: u32) -> Option<i32> {
        let length = self.unclaimed.len();
        let newest_first = (1..=length).map(|back| {
            if length < UNCLAIMED {
                length - back
            } else {
                (self.next_unclaimed + UNCLAIMED - back) % UNCLAIMED
            }
        });
        let index = newest_first.into_iter().find(|index| self.unclaimed[*index].0 == pid)?;
        let (_, status) = self.unclaimed[index];
        self.unclaimed[index].0 = 0;
        Some(status)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(run: u64) -> Slot {
        Slot::new(RunId(run), [4, -1])
    }

    #[test]
    fn a_slot_survives_an_upgrade_as_bytes() {
        let mut slot = slot(7);
        slot.pid = 4711;
        slot.pidfd = 12;
        slot.end(WaitStatus::Known(9));
        assert_eq!(Slot::from_bytes(&slot.to_bytes()), slot);
    }

    #[test]
    fn a_table_survives_an_upgrade_with_the_statuses_that_nobody_claimed() {
        let mut before = Table::new();
        before.insert(slot(1)).unwrap();
        before.insert(slot(2)).unwrap();
        before.remove(0);
        before.keep_unclaimed(5, 256);
        let mut after = Table::new();
        before.export().for_each(|slot| after.import(slot));
        assert_eq!(after.find(RunId(2)), Some(0));
        assert_eq!(after.end(), 1);
        assert_eq!(after.claim(5), Some(256));
    }

    #[test]
    fn the_first_word_about_an_exit_counts() {
        let mut slot = slot(1);
        slot.end(WaitStatus::Known(256));
        slot.end(WaitStatus::Unknown);
        assert_eq!(slot.exit(), Some(WaitStatus::Known(256)));
    }

    #[test]
    fn a_freed_slot_is_used_again_and_never_found() {
        let mut table = Table::new();
        let first = table.insert(slot(1)).unwrap();
        table.insert(slot(2)).unwrap();
        table.remove(first);
        assert_eq!(table.find(RunId(1)), None);
        assert_eq!(table.insert(slot(3)), Some(first));
        assert_eq!(table.end(), 2);
    }

    #[test]
    fn the_newest_status_of_a_pid_is_claimed_once() {
        let mut table = Table::new();
        table.keep_unclaimed(5, 1);
        table.keep_unclaimed(5, 2);
        for other in 0..(UNCLAIMED as u32 - 2) {
            table.keep_unclaimed(1000 + other, 0);
        }
        assert_eq!(table.claim(5), Some(2));
        table.keep_unclaimed(9, 3); // overwrites the oldest, the first status of pid 5
        assert_eq!(table.claim(5), None);
        assert_eq!(table.claim(9), Some(3));
    }
}
