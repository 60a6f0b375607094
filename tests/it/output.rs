//! Output is captured exactly: every byte once and in order, over rotation and kills.

use std::fs;
use std::path::Path;

use mendd::api::view::StatusView;
use nix::sys::signal::Signal;

use crate::harness::{Daemon, Setup, is_full, wait_for};
use crate::proc;

/// Bytes of one line of the odd child's `numbers`.
const LINE: usize = 64;

/// Checks that the log holds the lines 1 to `count`, each once and in order.
#[track_caller]
fn assert_numbered(log: &[u8], count: usize) {
    for (index, line) in log.chunks(LINE).enumerate() {
        let expected = format!("{:012} {}\n", index + 1, "x".repeat(50));
        assert!(
            line == expected.as_bytes(),
            "line {} of {count} is {:?}",
            index + 1,
            String::from_utf8_lossy(line)
        );
    }
    assert_eq!(log.len(), count * LINE, "the number of bytes");
}

/// Waits until so many bytes of a process are in its segments.
///
/// Sizes are compared before the segments are read, so that a growing log is not read often.
#[track_caller]
fn wait_bytes(daemon: &Daemon, name: &str, bytes: usize) {
    let log = daemon.log_path(name, "stdout");
    let dir = log.parent().expect("a log is in a directory");
    wait_for(&format!("{bytes} bytes of `{name}`"), || {
        let size = size_of_logs(dir);
        if size >= bytes as u64 { Ok(()) } else { Err(format!("{size} bytes")) }
    });
}

/// The bytes of all uncompressed segments in a directory.
fn size_of_logs(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let logs = entries.filter(|e| e.file_name().to_string_lossy().ends_with(".log"));
    logs.filter_map(|entry| entry.metadata().ok()).map(|m| m.len()).sum()
}

/// The amount of output of the load tests: 64 MiB, in the long form 1 GiB.
fn load_lines() -> usize {
    (if is_full() { 1 << 30 } else { 64 << 20 }) / LINE
}

fn load_program(lines: usize) -> String {
    format!(
        "[program.load]\ncommand = ['{{child}}', 'numbers', '{lines}', '0', 'sleep']\n\
         logs = {{ max_size = '10MiB', keep = 1000, compress = 'none' }}\n"
    )
}

#[test]
fn every_line_under_load_is_kept_once_and_in_order_over_rotation() {
    let lines = load_lines();
    let daemon = Daemon::start(&load_program(lines));
    wait_bytes(&daemon, "load", lines * LINE);
    assert_numbered(&daemon.log_bytes("load", "stdout"), lines);
    let segments = fs::read_dir(daemon.file("logs/load")).expect("a log directory").flatten();
    let closed: Vec<_> = segments
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.ends_with(".log") && name != "0.stdout.log"
        })
        .collect();
    assert!(closed.len() >= lines * LINE / (11 << 20), "rotated only {} times", closed.len());
    for segment in closed {
        let size = segment.metadata().expect("it exists").len();
        assert!(size >= 10 << 20, "{segment:?} was closed at {size} bytes");
        assert_eq!(size % LINE as u64, 0, "{segment:?} does not end with a line");
    }
}

#[test]
fn kills_of_the_brain_under_load_lose_and_double_nothing() {
    let lines = load_lines();
    let daemon = Daemon::start(&load_program(lines));
    let pid = daemon.pid("load");
    let dir = daemon.file("logs/load");
    let mut kills = 0;
    // A kill at each eighth of the way, so that rotations are hit as well.
    for eighth in 1..8 {
        let mark = (lines * LINE * eighth / 8) as u64;
        wait_for("the load to go on", || {
            let size = size_of_logs(&dir);
            if size >= mark { Ok(()) } else { Err(format!("{size} of {mark} bytes")) }
        });
        daemon.kill_brain();
        kills += 1;
    }
    assert_eq!(kills, 7);
    wait_bytes(&daemon, "load", lines * LINE);
    assert_numbered(&daemon.log_bytes("load", "stdout"), lines);
    assert_eq!(daemon.process("load").pid, Some(pid), "the program never noticed");
}

#[test]
fn a_slow_writer_loses_nothing_over_kills_of_the_brain() {
    let daemon = Daemon::start(
        "[program.slow]\ncommand = ['{child}', 'numbers', '3000', '64000', 'sleep']\n\
         logs = { max_size = '32KiB', keep = 1000 }\n",
    );
    let pid = daemon.pid("slow");
    for _ in 0..5 {
        daemon.kill_brain();
    }
    wait_for("all lines", || {
        let bytes = daemon.log_bytes("slow", "stdout").len();
        if bytes >= 3000 * LINE { Ok(()) } else { Err(format!("{bytes} bytes")) }
    });
    assert_numbered(&daemon.log_bytes("slow", "stdout"), 3000);
    assert_eq!(daemon.pid("slow"), pid);
}

#[test]
fn the_last_words_of_a_program_that_ends_at_once_are_kept() {
    let daemon = Daemon::start(
        "[defaults.program]\nrestart = 'never'\nstart_period = 0\n\
         [program.burst]\ncommand = ['{child}', 'burst', '300000']\n\
         [program.tail]\nshell = true\ncommand = \"printf 'no line end'\"\n",
    );
    for name in ["burst", "tail"] {
        daemon.wait_state(name, "EXITED");
    }
    wait_for("300,000 bytes", || {
        let bytes = daemon.log_bytes("burst", "stdout");
        if bytes.len() == 300_000 { Ok(()) } else { Err(format!("{} bytes", bytes.len())) }
    });
    assert_eq!(daemon.wait_log("tail", "no line end"), "no line end");
}

#[test]
fn the_log_has_the_exact_bytes_of_the_program() {
    let daemon = Daemon::start(
        "[program.b]\nshell = true\nrestart = 'never'\nstart_period = 0\n\
         command = \"printf 'a\\\\000\\\\377\\\\r\\\\n\\\\033[1mé'\"\n",
    );
    let expected = b"a\0\xff\r\n\x1b[1m\xc3\xa9";
    wait_for("the bytes", || {
        let bytes = daemon.log_bytes("b", "stdout");
        if bytes == expected { Ok(()) } else { Err(format!("{bytes:?}")) }
    });
}

#[test]
fn stderr_is_merged_unless_it_is_kept_apart() {
    let daemon = Daemon::start(
        "[program.both]\ncommand = ['{child}', 'streams']\n\
         [program.apart]\ncommand = ['{child}', 'streams']\nlogs = { merge_stderr = false }\n",
    );
    assert_eq!(daemon.wait_log("both", "to stderr"), "to stdout\nto stderr\n");
    assert_eq!(daemon.wait_log("apart", "to stdout"), "to stdout\n");
    wait_for("stderr in a file of its own", || {
        let bytes = daemon.log_bytes("apart", "stderr");
        if bytes == b"to stderr\n" { Ok(()) } else { Err(format!("{bytes:?}")) }
    });
    assert!(!daemon.log_path("both", "stderr").exists());
}

#[test]
fn only_so_many_closed_segments_are_kept_and_they_are_compressed() {
    let daemon = Daemon::start(
        "[program.p]\ncommand = ['{child}', 'numbers', '10000', '0', 'sleep']\n\
         logs = { max_size = '64KiB', keep = 3, compress = 'zstd' }\n",
    );
    // Earlier there may be three segments as well, of a log that goes on.
    daemon.wait_log("p", "000000010000 ");
    let dir = daemon.file("logs/p");
    wait_for("three compressed segments and no other", || {
        let entries = fs::read_dir(&dir).map_err(|error| error.to_string())?.flatten();
        let names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let compressed = names.iter().filter(|name| name.ends_with(".log.zst")).count();
        let plain = names.iter().filter(|name| name.ends_with(".log")).count();
        if (compressed, plain) == (3, 1) { Ok(()) } else { Err(format!("{names:?}")) }
    });
    let log = daemon.log_bytes("p", "stdout");
    let last = String::from_utf8_lossy(&log[log.len() - LINE..]).into_owned();
    assert!(last.starts_with("000000010000 "), "{last}");
    let first: usize = String::from_utf8_lossy(&log[..12]).parse().expect("a number");
    assert_eq!(log.len() / LINE, 10_000 - first + 1, "what is kept has no gap");
}

#[test]
fn sinks_decide_where_output_goes() {
    let daemon = Daemon::start(
        "[program.quiet]\ncommand = ['{child}', 'streams']\nlogs = { sink = 'none' }\n\
         [program.loud]\ncommand = ['{child}', 'streams']\nlogs = { sink = 'stdout' }\n",
    );
    daemon.pid("quiet");
    wait_for("`name | line` on the daemon's own stdout", || {
        let out = fs::read_to_string(daemon.file("daemon.out")).unwrap_or_default();
        let all = ["loud | to stdout\n", "loud | to stderr\n"].iter().all(|l| out.contains(l));
        if all { Ok(()) } else { Err(out) }
    });
    assert!(daemon.log_bytes("quiet", "stdout").is_empty());
    assert_eq!(daemon.log_text("loud"), "to stdout\nto stderr\n");
}

#[test]
fn the_log_goes_on_over_restarts_of_the_program() {
    let daemon = Daemon::start(
        "[program.p]\nshell = true\nstart_period = 0\ncommand = 'echo run; exec sleep 1000'\n",
    );
    daemon.wait_log("p", "run\n");
    let pid = daemon.pid("p");
    proc::send(pid, Signal::SIGKILL);
    daemon.new_pid("p", pid);
    assert_eq!(daemon.wait_log("p", "run\nrun\n"), "run\nrun\n");
}

/// Gives the daemon alone a log disk of 2 MiB of which most is taken.
pub(crate) const SMALL_DISK: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mkdir -p {dir}/logs && mount -t tmpfs -o size=2m none {dir}/logs && \
     head -c 1900000 /dev/zero > {dir}/logs/filler && exec \"$@\"",
    "sh",
];

fn warns_of_full_disk(status: &StatusView) -> bool {
    status.daemon.warnings.iter().any(|w| w.contains("full") || w.contains("space"))
}

#[test]
fn a_full_log_disk_blocks_the_program_and_loses_nothing_when_space_returns() {
    if !proc::is_root() {
        return proc::skip("only root can mount a small disk");
    }
    // 1 MiB of output.
    let daemon = Setup::new(
        "[program.p]\ncommand = ['{child}', 'numbers', '16384', '0', 'sleep']\n\
         logs = { full_disk_block = '10m', compress = 'none' }\n\
         [program.other]\ncommand = ['sleep', '1000']\n",
    )
    .wrapper(&SMALL_DISK)
    .start();
    let pid = daemon.pid("p");
    let status = daemon.wait_until("a warning about the full disk", warns_of_full_disk);
    assert!(status.programs.iter().all(|p| p.state == "RUNNING"), "{status:#?}");
    daemon.ctl_ok(&["restart", "other"]);
    let inside = format!("/proc/{}/root{}", daemon.main_pid(), daemon.file("logs").display());
    fs::remove_file(format!("{inside}/filler")).expect("the filler can be removed");
    let log = Path::new(&inside).join("p/0.stdout.log");
    wait_for("the whole output", || {
        let size = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        if size >= 16384 * LINE as u64 { Ok(()) } else { Err(format!("{size} bytes")) }
    });
    assert_numbered(&fs::read(&log).expect("a log"), 16384);
    daemon.wait_until("the warning to go", |status| !warns_of_full_disk(status));
    assert_eq!(daemon.pid("p"), pid);
}

#[test]
fn a_disk_that_stays_full_drops_output_counts_it_and_marks_the_place() {
    if !proc::is_root() {
        return proc::skip("only root can mount a small disk");
    }
    let daemon = Setup::new(
        "[program.p]\ncommand = ['{child}', 'numbers', '65536', '0', 'exit:0']\n\
         restart = 'never'\nstart_period = 0\n\
         logs = { full_disk_block = '200ms', compress = 'none' }\n",
    )
    .wrapper(&SMALL_DISK)
    .start();
    daemon.wait_until("a warning about the full disk", warns_of_full_disk);
    daemon.wait_state("p", "EXITED"); // it got rid of more than disk and FIFO hold together
    let inside = format!("/proc/{}/root{}", daemon.main_pid(), daemon.file("logs").display());
    fs::remove_file(format!("{inside}/filler")).expect("the filler can be removed");
    daemon.ctl(&["start", "--no-wait", "p"]); // the next run has something to write
    let log = Path::new(&inside).join("p/0.stdout.log");
    wait_for("the marker", || {
        let bytes = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let marked = text.lines().any(|l| l.starts_with("-- mend: ") && l.contains("dropped"));
        if marked { Ok(()) } else { Err(format!("{} bytes without a marker", bytes.len())) }
    });
}

#[test]
fn the_lines_of_two_programs_are_merged_in_the_order_of_time() {
    let daemon = Daemon::start(
        "[program.a]\ncommand = ['{child}', 'numbers', '200', '6400', 'sleep']\n\
         [program.b]\ncommand = ['{child}', 'numbers', '200', '6400', 'sleep']\n",
    );
    for name in ["a", "b"] {
        daemon.wait_log(name, "000000000200 ");
    }
    let merged = daemon.ctl_ok(&["logs", "-n", "400", "--no-prefix", "a", "b"]);
    let numbers: Vec<u32> =
        merged.out.lines().map(|line| line[..12].parse().expect("a number")).collect();
    assert_eq!(numbers.len(), 400);
    // Both write line n at nearly the same time, so neighbours differ little.
    let far = numbers.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) > 60).count();
    assert_eq!(far, 0, "the streams were not merged by time");
}
