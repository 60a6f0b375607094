//! `logs`: what becomes of a program's output.

use std::time::Duration;

use super::model::{Compression, Logs, Sink};
use super::read::Context;
use super::tree::Table;

/// Smallest size of a log file before it is closed.
const MIN_SIZE_BYTES: u64 = 4096;

/// Reads `logs`; what is missing or wrong gets its default.
pub(super) fn logs(cx: &Context<'_>, program: &Table<'_>) -> Logs {
    let table = program.sub(cx, "logs");
    let sinks = [
        ("file", Sink::File),
        ("stdout", Sink::Stdout),
        ("journald", Sink::Journald),
        ("none", Sink::None),
    ];
    let codecs = [("zstd", Compression::Zstd), ("none", Compression::None)];
    let get = |key: &str| table.get(cx, key);
    let max_size = get("max_size").and_then(|node| match cx.size(&node)? {
        bytes if bytes < MIN_SIZE_BYTES => {
            cx.bad(&node, format!("must be at least {MIN_SIZE_BYTES} bytes"))
        }
        bytes => Some(bytes),
    });
    let max_size_bytes = max_size.unwrap_or(10 << 20);
    let max_total_bytes = get("max_total").and_then(|node| match cx.size(&node)? {
        bytes if bytes < max_size_bytes => cx.bad(&node, "is smaller than `logs.max_size`"),
        bytes => Some(bytes),
    });
    let keep = get("keep").and_then(|node| cx.integer(&node, 0..=100_000));
    Logs {
        sink: get("sink").and_then(|node| cx.choice(&node, &sinks)).unwrap_or(Sink::File),
        merge_stderr: get("merge_stderr").and_then(|node| cx.boolean(&node)).unwrap_or(true),
        max_size_bytes,
        max_age: get("max_age").and_then(|node| cx.some_duration(&node)),
        keep: keep.and_then(|n| u32::try_from(n).ok()).unwrap_or(10),
        max_total_bytes,
        compress: get("compress")
            .and_then(|node| cx.choice(&node, &codecs))
            .unwrap_or(Compression::Zstd),
        full_disk_block: get("full_disk_block")
            .and_then(|node| cx.duration(&node))
            .unwrap_or(Duration::from_secs(30)),
    }
}
