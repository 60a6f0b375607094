//! The tiny parent of every child, and the wire between it and the brain.
//!
//! The keeper holds for each run the read ends of its output FIFOs, its pidfd and, when it has
//! ended, its wait status until the brain says that it is dealt with. It starts the brain, and
//! starts it again the moment it dies. It knows nothing of programs, configuration or logs, and
//! takes no memory after its start: whatever can fail lives in the brain.

/// Takes the place of the standard library's macro in all of the keeper; see [`say`].
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::keeper::say::say(format_args!($($words)*)) };
}

mod say;

pub mod wire;

pub mod table;

pub mod arguments;

mod lock;

mod brain;

mod orphan;

mod handover;

mod foreign;

mod watch;

mod upgrade;

pub use handover::SOCKET_NAME as HANDOVER_SOCKET;
pub use lock::{KEEPER_LOCK, is_another_keeper_there, sign_lock, take_lock};
pub use orphan::{
    BRAIN_LOCK, PATIENCE, evict, is_brain, is_other_brain_there, relieve, wait_for_brain_lock,
};
pub use watch::run;
