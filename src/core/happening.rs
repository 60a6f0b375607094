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
    /// A check sees its target in another state.
    Check { target: String, check: String, from: String, to: String, detail: String },
    /// The story of an incident goes on; the sentence goes on from the target's name.
    Incident { incident: u64, target: String, what: String, sentence: String },
    /// Something that a person should know.
    Alert { what: String, target: String, incident: Option<u64>, sentence: String },
    /// The mode of the whole host changed.
    Mode { from: String, to: String, reasons: Vec<String> },
    /// The daemon itself: started, adopted, reloaded, warning, stopping.
    Daemon { what: String, detail: String },
}
