//! A quiet end for a program whose reader went away, as `head` expects.
//!
//! SIGPIPE stays ignored while the program runs: with the default action a write to a socket
//! whose daemon was just killed would end the client, too, instead of letting it connect again.

#![allow(unsafe_code, reason = "resetting a signal's action is unsafe in nix")]

use nix::sys::signal::{SigHandler, Signal, raise, signal};

/// Ends this process by SIGPIPE, so that a shell sees the usual status 141.
pub fn end_by_sigpipe() -> ! {
    // SAFETY: the default action runs no code of ours.
    let reset = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    if reset.is_ok() {
        let _unreached = raise(Signal::SIGPIPE);
    }
    std::process::exit(141)
}
