//! Whatever comes in: a clear message, nothing lost, the daemon alive.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::harness::{Daemon, PATIENCE, Ran, Setup};
use crate::proc;

/// The exit code for a configuration that cannot be used (`EX_CONFIG`).
const CONFIG: i32 = 78;

#[track_caller]
fn assert_says(ran: &Ran, words: &[&str]) {
    let err = ran.err.to_lowercase();
    for word in words {
        let said = word.split('|').any(|word| err.contains(&word.to_lowercase()));
        assert!(said, "no {word:?} in:\n{}", ran.err);
    }
    assert!(!err.contains("panicked"), "{}", ran.err);
}

#[track_caller]
fn refused(programs: &str, words: &[&str]) {
    let setup = Setup::new(programs);
    let ran = setup.refused();
    assert_eq!(ran.code, CONFIG, "{ran:#?}");
    assert_says(&ran, words);
    let check = Setup::new(programs).flag("--check").refused();
    assert_eq!(check.code, CONFIG, "{check:#?}");
    assert!(!setup.dir().join("run").exists(), "a refused daemon leaves nothing behind");
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_key() {
    refused(
        "[program.a]\ncomand = ['sleep', '1']\n",
        &["mend.toml:", "comand", "did you mean", "`command`"],
    );
}

#[test]
fn a_wrong_type_is_refused_with_what_was_expected() {
    refused("[program.a]\ncommand = 5\n", &["mend.toml:", "command", "expected|must be"]);
}

#[test]
fn a_cycle_is_refused_and_printed() {
    refused(
        "[program.web]\ncommand = ['sleep', '1']\nrequires = ['db']\n\
         [program.db]\ncommand = ['sleep', '1']\nrequires = ['web']\n",
        &["cycle", "web → db → web|db → web → db"],
    );
}

#[test]
fn a_duplicate_name_is_refused() {
    refused(
        "[program.a]\ncommand = ['sleep', '1']\n[program.a]\ncommand = ['sleep', '2']\n",
        &["mend.toml:", "duplicate|twice|already"],
    );
}

#[test]
fn broken_toml_is_refused_with_its_place() {
    refused("[program.a\ncommand = ['sleep', '1']\n", &["mend.toml:"]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    refused(
        "[program.a]\ncommand = ['sleep', '1']\nprioritty = 1\nrestart = 'maybe'\nrequires = ['b']\n",
        &["prioritty", "maybe", "`b`"],
    );
}

#[test]
fn a_good_configuration_passes_the_check_and_starts_nothing() {
    let setup = Setup::new("[program.a]\ncommand = ['touch', '{dir}/ran']\n");
    let ran = setup.check();
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(!setup.dir().join("ran").exists() && !setup.dir().join("run").exists());
}

#[test]
fn a_missing_file_is_named() {
    let setup = Setup::new("").wrapper(&["sh", "-c", "rm {dir}/mend.toml; exec \"$@\"", "sh"]);
    let ran = setup.refused();
    assert_eq!(ran.code, CONFIG, "{ran:#?}");
    assert_says(&ran, &["mend.toml", "no such file|does not exist|missing|not found"]);
}

#[test]
fn a_missing_included_file_is_named() {
    let setup = Setup::new("").preamble("include = ['absent.toml']\n");
    let ran = setup.refused();
    assert_eq!(ran.code, CONFIG, "{ran:#?}");
    assert_says(&ran, &["absent.toml"]);
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    if !proc::is_root() {
        return proc::skip("the wrapper needs root to become another user");
    }
    // mendd is copied to where the other user may execute it.
    let setup = Setup::new("").wrapper(&[
        "sh",
        "-c",
        "cp \"$1\" {dir}/mendd; chmod 755 {dir} {dir}/mendd; chmod 600 {dir}/mend.toml; shift; \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups {dir}/mendd \"$@\"",
        "sh",
    ]);
    let ran = setup.refused();
    assert_eq!(ran.code, CONFIG, "{ran:#?}");
    assert_says(&ran, &["mend.toml", "permission"]);
}

#[test]
fn a_socket_path_that_is_a_directory_is_refused() {
    let setup = Setup::new("[program.a]\ncommand = ['touch', '{dir}/ran']\n");
    fs::create_dir_all(setup.dir().join("run/mend.sock")).expect("a directory");
    let ran = setup.refused();
    assert_says(&ran, &["mend.sock", "directory"]);
    assert!(!setup.dir().join("ran").exists(), "nothing was started");
}

#[test]
fn a_stale_socket_is_replaced() {
    let setup = Setup::new("");
    fs::create_dir(setup.dir().join("run")).expect("a directory");
    drop(std::os::unix::net::UnixListener::bind(setup.dir().join("run/mend.sock")).expect("bound"));
    let daemon = setup.start();
    daemon.ctl_ok(&["status"]);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_warning_and_not_the_end() {
    if proc::is_root() {
        return proc::skip("root may write everywhere");
    }
    let setup = Setup::new("[program.a]\ncommand = ['sleep', '1000']\n");
    let state = setup.dir().join("state");
    fs::create_dir(&state).expect("a directory");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o500)).expect("read-only");
    let daemon = setup.start();
    daemon.pid("a");
    daemon.wait_until("a warning", |s| s.daemon.warnings.iter().any(|w| w.contains("state")));
}

#[test]
fn a_mebibyte_of_garbage_on_the_socket_does_no_harm() {
    let daemon = Daemon::start("[program.a]\ncommand = ['sleep', '1000']\n");
    let pid = daemon.pid("a");
    let mut noise: Vec<u8> = Vec::with_capacity(1 << 20);
    let mut random = fastrand::Rng::with_seed(7);
    noise.resize_with(1 << 20, || random.u8(..));
    for _ in 0..5 {
        let mut stream = UnixStream::connect(daemon.socket()).expect("it listens");
        stream.set_read_timeout(Some(*PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(*PATIENCE)).expect("a timeout");
        // The daemon may hang up in the middle; what it answers, if it does, is a refusal.
        let _ = stream.write_all(&noise);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }
    assert_eq!(daemon.pid("a"), pid);
}

#[test]
fn huge_headers_and_bodies_are_refused() {
    let daemon = Daemon::start("");
    let target = format!("/v1/status?name={}", "x".repeat(100_000));
    let answer = crate::http::request(&daemon.socket(), "GET", &target, None, *PATIENCE);
    assert!(answer.as_ref().map_or(true, |a| (400..500).contains(&a.status)), "{answer:?}");
    let body = format!(r#"{{"names":["{}"]}}"#, "x".repeat(4 << 20));
    let answer = crate::http::request(&daemon.socket(), "POST", "/v1/stop", Some(&body), *PATIENCE);
    assert!(answer.as_ref().map_or(true, |a| (400..500).contains(&a.status)), "{answer:?}");
    daemon.ctl_ok(&["status"]);
}

#[test]
fn ten_thousand_idle_connections_do_not_lock_the_operator_out() {
    let daemon = Daemon::start("[program.a]\ncommand = ['sleep', '1000']\n");
    let pid = daemon.pid("a");
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let (_, hard) = limit.expect("limits can be read");
    let wanted = 10_000.min(hard.saturating_sub(200));
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard);
    let mut idle = Vec::new();
    while (idle.len() as u64) < wanted {
        match UnixStream::connect(daemon.socket()) {
            Ok(stream) => idle.push(stream),
            Err(error) => panic!("connection {} of {wanted}: {error}", idle.len()),
        }
    }
    let ran = daemon.ctl_ok(&["status"]);
    assert!(ran.out.contains(&pid.to_string()), "{ran:#?}");
    drop(idle);
    daemon.ctl_ok(&["status"]);
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused_and_told_who_holds_it() {
    let daemon = Daemon::start("[program.a]\ncommand = ['sleep', '1000']\n");
    let pid = daemon.pid("a");
    let ran = daemon.start_second();
    assert_eq!(ran.code, 75, "{ran:#?}");
    assert_says(&ran, &["already|another|in use|held"]);
    assert!(ran.err.contains(&daemon.keeper_pid().to_string()), "{ran:#?}");
    assert_eq!(daemon.pid("a"), pid, "the first goes on");
}
