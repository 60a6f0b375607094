//! What the C library's allocator is told, so that memory once needed is not kept for ever.
#![allow(unsafe_code, reason = "nix has neither mallopt nor malloc_trim")]

/// Makes all threads from now on share the heaps that there are instead of having one each; call
/// it while there is one thread.
///
/// The daemon's threads allocate little, and each heap of its own would keep its peak.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes plain numbers and there is one thread.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives free memory back to the kernel; worth its time after much was freed at once.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no preconditions.
    let _ = unsafe { libc::malloc_trim(0) };
}
