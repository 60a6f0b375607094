//! Properties of the calling thread.
#![allow(unsafe_code, reason = "nix has no setpriority")]

/// Gives the calling thread the lowest CPU priority (nice 19); a refusal changes nothing.
pub fn lower_priority() {
    // SAFETY: the call takes plain numbers; 0 means the calling thread.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}
