//! How the daemon is linked.

fn main() {
    println!("cargo::rerun-if-changed=.cargo/build.rs");
    // Position-independent executables are relocated page by page when they start, and the daemon
    // is two processes: 104 KiB of vtables and constant tables become private memory in each, half
    // of what the keeper may have. Linked to a fixed address those pages stay the file's, shared
    // and clean. Libraries, heap, stacks and mappings are placed at random all the same.
    println!("cargo::rustc-link-arg-bin=mendd=-no-pie");
}
