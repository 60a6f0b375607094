//! Giving back what was needed once, so that it is not kept for ever.
#![allow(unsafe_code, reason = "nix has neither mallopt, malloc_trim nor dl_iterate_phdr")]

use std::ffi::{c_int, c_void};

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

/// Takes the pages of the executable's code and constants out of this process; those that are
/// still needed come back from the page cache with their next use. Worth its time when a start is
/// over, most of whose code is never run again.
pub fn forget_code() {
    // SAFETY: the callback keeps to what dl_iterate_phdr(3) hands it.
    let _ = unsafe { libc::dl_iterate_phdr(Some(forget_object), std::ptr::null_mut()) };
}

/// Ends the walk with the first object, which is the executable.
unsafe extern "C" fn forget_object(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the library hands over a valid object with as many headers as it says.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, count))
    };
    let is_file_alone = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
    };
    for header in headers.iter().filter(is_file_alone) {
        let page = page_size();
        let start = (base + header.p_vaddr).div_ceil(page) * page;
        let end = (base + header.p_vaddr + header.p_memsz) / page * page;
        if let Ok(length @ 1..) = usize::try_from(end.saturating_sub(start)) {
            // SAFETY: a mapping of a file that nothing was ever written to: its pages are those of
            // the file, and are read again when somebody touches them; see madvise(2).
            let _ = unsafe { libc::madvise(start as *mut c_void, length, libc::MADV_DONTNEED) };
        }
    }
    1
}

fn page_size() -> u64 {
    // SAFETY: the call takes a plain number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_was_forgotten_runs_as_ever() {
        let resident = || -> u64 {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(2).unwrap().parse().unwrap()
        };
        let before = resident();
        forget_code();
        let after = resident();
        assert!(after < before, "{after} pages of files after {before}");
        give_back();
    }
}
