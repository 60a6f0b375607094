//! Sentences about programs that cannot be executed.

use std::collections::BTreeMap;

use crate::config::{Identity, Limits, Stdin};

use super::*;

fn spawn(command: &str) -> Spawn {
    Spawn {
        argv: vec![command.to_owned()],
        user: None,
        directory: None,
        umask: 0o022,
        inherit_environment: true,
        environment: BTreeMap::new(),
        environment_files: Vec::new(),
        nice: None,
        oom_score_adj: 0,
        limits: Limits::default(),
        stdin: Stdin::Null,
        no_new_privs: false,
        notify: false,
        watchdog: None,
        ready_fd: None,
    }
}

fn nobody() -> Identity {
    Identity {
        user: "nobody".into(),
        uid: 65534,
        gid: 65534,
        groups: vec![65534],
        home: "/".into(),
        shell: "/bin/sh".into(),
    }
}

/// Executes the file for real and explains what the kernel said.
#[track_caller]
fn explain(program: &Path) -> SpawnFailure {
    let error = std::process::Command::new(program).spawn().unwrap_err();
    let written = program.display().to_string();
    explain_exec(error.raw_os_error().unwrap(), Stage::Exec, program, &spawn(&written))
}

fn file(directory: &Path, name: &str, text: &[u8], mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[track_caller]
fn assert_says(failure: &SpawnFailure, words: &str, transient: bool) {
    assert!(failure.message.contains(words), "{:?} lacks {words:?}", failure.message);
    assert_eq!(failure.transient, transient, "{failure:?}");
}

#[test]
fn every_failure_of_exec_names_its_cause() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let script = file(place, "script", b"#! /no/such/interp -x\n", 0o755);
    assert_says(&explain(&script), "interpreter `/no/such/interp` does not", false);
    let plain = file(place, "plain", b"#!/bin/sh\n", 0o644);
    assert_says(&explain(&plain), "chmod +x", false);
    let text = file(place, "text", b"hello\n", 0o755);
    assert_says(&explain(&text), "no `#!` line", false);
    let empty = file(place, "empty", b"", 0o755);
    assert_says(&explain(&empty), "the file is empty", false);
    assert_says(&explain(place), "is a directory", false);
    assert_says(&explain(&place.join("scrip")), "script`?", false);
}

#[test]
fn a_bare_name_that_is_nowhere_is_explained_with_the_path_and_a_near_name() {
    let place = tempfile::tempdir().unwrap();
    file(place.path(), "gunicorn", b"#!/bin/sh\n", 0o755);
    let mut spawn = spawn("gunicrn");
    spawn.environment.insert("PATH".into(), place.path().display().to_string());
    let failure = explain_exec(libc::ENOENT, Stage::Exec, Path::new("gunicrn"), &spawn);
    assert_says(&failure, &format!("searched {}", place.path().display()), false);
    assert_says(&failure, "gunicorn`?", false);
}

#[test]
fn the_directory_that_a_user_may_not_search_is_named() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let program = file(place.path(), "x", b"#!/bin/sh\n", 0o755);
    let mut spawn = spawn(&program.display().to_string());
    spawn.user = Some(nobody());
    let failure = explain_exec(libc::EACCES, Stage::Exec, &program, &spawn);
    let words = format!("`{}` may not be searched by user `nobody`", place.path().display());
    assert_says(&failure, &words, false);
}

#[test]
fn an_elf_file_tells_its_loader() {
    let own = std::env::current_exe().unwrap();
    let loader = interpreter(&own).unwrap();
    assert!(loader.is_none_or(|loader| loader.exists()));
    let missing = interpreter(Path::new("/bin/sh")).unwrap().unwrap();
    assert!(missing.to_string_lossy().contains("ld"), "{missing:?}");
}

#[test]
fn what_may_pass_by_itself_is_transient() {
    let (path, spawn) = (Path::new("/bin/true"), spawn("/bin/true"));
    for (errno, stage) in [
        (libc::EAGAIN, Stage::Prepare),
        (libc::EAGAIN, Stage::Uid),
        (libc::ENOMEM, Stage::Exec),
        (libc::ETXTBSY, Stage::Exec),
        (libc::ENOSPC, Stage::Record),
    ] {
        let failure = explain_exec(errno, stage, path, &spawn);
        assert!(failure.transient, "{failure:?}");
    }
    for (errno, stage) in
        [(libc::EPERM, Stage::Uid), (libc::E2BIG, Stage::Exec), (libc::EPERM, Stage::Limits)]
    {
        let failure = explain_exec(errno, stage, path, &spawn);
        assert!(!failure.transient, "{failure:?}");
    }
}

#[test]
fn a_missing_directory_is_named() {
    let mut spawn = spawn("/bin/true");
    spawn.directory = Some("/no/such/place".into());
    let failure = explain_exec(libc::ENOENT, Stage::Directory, Path::new("/bin/true"), &spawn);
    assert_says(&failure, "`/no/such/place` does not exist", false);
}

#[test]
fn stage_numbers_survive_a_round_trip() {
    let stages: Vec<Stage> = (0..100).filter_map(Stage::from_raw).collect();
    assert_eq!(stages.len(), 15);
    for stage in stages {
        assert_eq!(Stage::from_raw(stage as u32), Some(stage));
    }
}
