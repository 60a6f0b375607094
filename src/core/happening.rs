//! What is told to those who watch: the entries of the event log.

use crate::time::Wall;

/// Something that happened, as `/v1/events` tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// Grows by one with each event, also over the death of the daemon.
    pub id: u64,
    pub at: Wall,
    pub kind: HappeningKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HappeningKind {
    /// A process changed its state.
    State {
        process: String,
        from: String,
        to: String,
        pid: Option<u32>,
        run: Option<u64>,
        detail: String,
    },
    /// An operator's request was carried out or refused.
    Audit { by: String, uid: Option<u32>, request: String, outcome: String },
    /// The daemon itself: started, adopted, reloaded, warning, stopping.
    Daemon { what: String, detail: String },
}
