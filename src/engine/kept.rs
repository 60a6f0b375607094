//! A value in the state directory, and the trouble with writing it.

use std::path::Path;

use crate::store::Note;
use crate::store::slots::{Durability, Slots};

/// Bytes of one slot at the start; it grows when it must.
const SLOT_BYTES: usize = 8192;

/// One value that holds over a reboot.
pub(super) struct Kept {
    slots: Slots,
    /// The value as it is on disk.
    written: Vec<u8>,
    trouble: Option<String>,
    /// Begins the sentence about trouble: `goals`.
    what: &'static str,
}

impl Kept {
    /// Opens the file; what was written before is in [`Kept::written`].
    pub(super) fn open(
        path: &Path,
        version: u32,
        what: &'static str,
        notes: &mut Vec<Note>,
    ) -> Self {
        let (slots, loaded, mut more) = Slots::open(path, version, SLOT_BYTES, Durability::Synced);
        // The last note then says why; it is over as soon as a write succeeds.
        let trouble =
            if slots.is_writable() { None } else { more.pop().map(|note| note.to_string()) };
        notes.extend(more);
        let written = loaded.map(|loaded| loaded.body).unwrap_or_default();
        Self { slots, written, trouble, what }
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.written
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Writes the value if it changed.
    pub(super) fn write(&mut self, body: Vec<u8>) {
        if body == self.written && self.trouble.is_none() {
            return;
        }
        match self.slots.write(&body) {
            Ok(()) => {
                self.written = body;
                self.trouble = None;
            }
            Err(error) => {
                self.trouble = Some(format!(
                    "{} cannot be written to `{}` ({error}): a reboot would bring back the ones \
                     before",
                    self.what,
                    self.slots.path().display()
                ));
            }
        }
    }
}
