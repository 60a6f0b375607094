//! Files that are damaged, newer, locked, somebody else's; directories that are missing, full or
//! read-only. None of it loses what can be kept, and all of it is said.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rusqlite::Connection;

use super::history_tests::{Place, asked, ended, requests, told};
use super::*;
use crate::config::HistoryLimits;
use crate::core::care::IncidentId;

/// Writes something with a store, and closes it.
fn write(place: &Place, request: &str) {
    place.store().write(&[asked(1, request)]).unwrap();
}

#[track_caller]
fn assert_moved_aside(place: &Place, store: &mut Store, content: &[u8]) {
    let aside: Vec<String> =
        place.files().into_iter().filter(|name| name.contains(".corrupt-")).collect();
    let [name] = &aside[..] else { panic!("{:?}", place.files()) };
    assert!(name.starts_with("mend.db.corrupt-20") && name.ends_with('Z'), "{name}");
    let kept = fs::read(place.directory.path().join(name)).unwrap();
    let differs = kept.iter().zip(content).position(|(a, b)| a != b);
    assert_eq!((differs, kept.len()), (None, content.len()), "it was changed");
    let words = store.take_words();
    let [Word::Warning(text)] = &words[..] else { panic!("{words:?}") };
    assert!(text.contains("damaged") && text.contains(name), "{text}");
}

#[test]
fn a_file_that_is_no_database_is_moved_aside_and_a_new_one_begun() {
    for content in [&b"this is no database, and never was one".repeat(9)[..], b"x"] {
        let place = Place::new();
        fs::write(place.path(), content).unwrap();
        let mut store = place.store();
        store.write(&[asked(1, "a")]).unwrap();
        assert_eq!(requests(&mut store, &[]), ["a"]);
        assert_moved_aside(&place, &mut store, content);
    }
}

#[test]
fn a_damaged_header_is_moved_aside() {
    let place = Place::new();
    write(&place, "old");
    File::options().write(true).open(place.path()).unwrap().write_all_at(b"spoilt", 0).unwrap();
    let content = fs::read(place.path()).unwrap();
    let mut store = place.store();
    store.write(&[asked(2, "new")]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["new"]);
    assert_moved_aside(&place, &mut store, &content);
}

#[test]
fn a_torn_file_is_found_out_by_looking_or_by_writing() {
    for by_looking in [true, false] {
        let place = Place::new();
        let mut store = place.store();
        for round in 0..40 {
            store.write(&vec![asked(round, &"x".repeat(200)); 100]).unwrap();
        }
        drop(store);
        let length = fs::metadata(place.path()).unwrap().len();
        // The pages of the end are gone, the first ones are whole.
        File::options().write(true).open(place.path()).unwrap().set_len(length / 2).unwrap();
        let content = fs::read(place.path()).unwrap();
        let mut store = place.store();
        if by_looking {
            store.look().unwrap();
        }
        store.write(&[asked(2, "new")]).unwrap();
        assert_eq!(requests(&mut store, &[]), ["new"]);
        assert_moved_aside(&place, &mut store, &content);
    }
}

#[test]
fn pages_of_rubbish_are_found_out_by_looking() {
    let place = Place::new();
    let mut store = place.store();
    for round in 0..40 {
        store.write(&vec![asked(round, &"x".repeat(200)); 100]).unwrap();
    }
    drop(store);
    let file = File::options().write(true).open(place.path()).unwrap();
    for page in 30..60 {
        file.write_all_at(&[0xa5; 4_096], page * 4_096).unwrap();
    }
    let content = fs::read(place.path()).unwrap();
    let mut store = place.store();
    store.look().unwrap();
    assert_moved_aside(&place, &mut store, &content);
    store.write(&[asked(2, "new")]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["new"]);
}

#[test]
fn damage_that_shows_while_the_file_is_open_costs_no_record() {
    let place = Place::new();
    let mut store = place.store();
    store.write(&[asked(1, "old"), told(1, 1, ended())]).unwrap();
    // Another connection brings everything into the file; ours has to read it again.
    Connection::open(place.path())
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let file = File::options().write(true).open(place.path()).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    file.write_all_at(&vec![0xa5; length - 4_096], 4_096).unwrap();
    store.write(&[asked(2, "new"), told(3, 9, ended())]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["new"]);
    assert!(store.story(&[], IncidentId(9)).unwrap().found.is_some());
    let words = store.take_words();
    assert!(matches!(&words[..], [Word::Warning(text)] if text.contains("damaged")), "{words:?}");
}

#[test]
fn a_database_of_something_else_is_moved_aside_as_it_is() {
    let place = Place::new();
    let other = Connection::open(place.path()).unwrap();
    other.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1);").unwrap();
    drop(other);
    let content = fs::read(place.path()).unwrap();
    let mut store = place.store();
    store.write(&[asked(1, "a")]).unwrap();
    assert_moved_aside(&place, &mut store, &content);
}

#[test]
fn only_the_newest_of_what_was_moved_aside_is_kept() {
    let place = Place::new();
    for number in 1..=5 {
        let name = format!("mend.db.corrupt-2020010{number}T000000.000Z");
        fs::write(place.directory.path().join(&name), "old").unwrap();
        fs::write(place.directory.path().join(format!("{name}-wal")), "old").unwrap();
    }
    fs::write(place.path(), "rubbish").unwrap();
    write(&place, "a");
    let aside: Vec<String> =
        place.files().into_iter().filter(|name| name.contains(".corrupt-2020")).collect();
    let expected = ["4T000000.000Z", "4T000000.000Z-wal", "5T000000.000Z", "5T000000.000Z-wal"]
        .map(|end| format!("mend.db.corrupt-2020010{end}"));
    assert_eq!(aside, expected);
}

#[test]
fn a_file_of_a_newer_version_is_not_touched_and_memory_answers() {
    let place = Place::new();
    write(&place, "old");
    let newer = Connection::open(place.path()).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    newer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(newer);
    let content = fs::read(place.path()).unwrap();
    let mut store = place.store();
    assert_eq!(store.write(&[asked(2, "new")]), Err(Fault::Newer(99)));
    assert_eq!(store.look(), Err(Fault::Newer(99)));
    let query = AskedQuery { limit: 9, ..Default::default() };
    assert_eq!(store.asked(&[], &query), Err(Fault::Newer(99)));
    let found = store.asked(&[asked(2, "new")], &query).unwrap();
    assert_eq!(found.found.len(), 1);
    assert!(found.trouble.unwrap().contains("version 99"));
    assert!(fs::read(place.path()).unwrap() == content, "it was changed");
    assert_eq!(place.files(), ["mend.db"]);
}

#[test]
fn a_newer_version_is_known_also_when_only_the_wal_says_so() {
    let place = Place::new();
    write(&place, "old");
    let newer = Connection::open(place.path()).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(place.store().write(&[asked(2, "new")]), Err(Fault::Newer(99)));
    assert_eq!(place.store().take_words(), []);
}

#[test]
fn while_another_process_writes_nothing_is_written_and_nothing_lost() {
    let place = Place::new();
    let mut store = place.store();
    store.write(&[asked(1, "a")]).unwrap();
    let other = Connection::open(place.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.write(&[asked(2, "b")]), Err(Fault::Locked));
    // Reading goes on.
    assert_eq!(requests(&mut store, &[asked(2, "b")]), ["b", "a"]);
    other.execute_batch("COMMIT").unwrap();
    store.write(&[asked(2, "b")]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["b", "a"]);
}

#[test]
fn a_file_that_another_process_has_for_itself_is_left_to_it() {
    let place = Place::new();
    write(&place, "a");
    let other = Connection::open(place.path()).unwrap();
    other.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(())).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE; DELETE FROM asked WHERE 0;").unwrap();
    let mut store = place.store();
    assert_eq!(store.write(&[asked(2, "b")]), Err(Fault::Locked));
    let query = AskedQuery { limit: 9, ..Default::default() };
    let found = store.asked(&[asked(2, "b")], &query).unwrap();
    assert_eq!((found.found.len(), found.trouble.is_some()), (1, true));
    drop(other);
    store.write(&[asked(2, "b")]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["b", "a"]);
}

#[test]
fn a_missing_directory_is_made() {
    let place = Place::new();
    let path = place.directory.path().join("a/b/mend.db");
    let mut store = Store::new(path.clone(), HistoryLimits::default());
    store.write(&[asked(1, "a")]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["a"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o750));
}

#[test]
fn a_file_or_directory_that_is_removed_is_made_again_and_that_is_said() {
    let place = Place::new();
    let directory = place.directory.path().join("state");
    let mut store = Store::new(directory.join("mend.db"), HistoryLimits::default());
    store.write(&[asked(1, "a")]).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    store.write(&[asked(2, "b")]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["b"]);
    let words = store.take_words();
    assert!(matches!(&words[..], [Word::Warning(text)] if text.contains("removed")), "{words:?}");
}

#[test]
fn what_is_no_file_is_neither_used_nor_moved() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    let fault = place.store().write(&[asked(1, "a")]).unwrap_err();
    assert_eq!(fault, Fault::CannotOpen("it is no file".to_owned()));
    assert_eq!(place.files(), ["mend.db"]);
}

#[test]
fn a_directory_that_may_not_be_written_is_said() {
    if nix::unistd::geteuid().is_root() {
        eprintln!(
            "skipped: root may write everywhere; the read-only file system is tested instead"
        );
        return;
    }
    let place = Place::new();
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let fault = place.store().write(&[asked(1, "a")]).unwrap_err();
    assert!(matches!(fault, Fault::ReadOnly(_)), "{fault:?}");
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A file system of its own, unmounted in the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Needs root; says so otherwise.
    fn mount(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        match mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options)) {
            Ok(()) => Some(Self(at.to_path_buf())),
            Err(why) => {
                eprintln!("skipped: a file system cannot be mounted here: {why}");
                None
            }
        }
    }

    fn remount(&self, flags: MsFlags) {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>)
            .unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_costs_nothing_that_fits_into_memory() {
    let place = Place::new();
    let Some(tmpfs) = Tmpfs::mount(&place.directory.path().join("disk"), "size=512k") else {
        return;
    };
    let mut store = Store::new(tmpfs.0.join("mend.db"), HistoryLimits::default());
    store.write(&[asked(0, "first")]).unwrap();
    let long = "x".repeat(2_000);
    let mut written = 0;
    let fault = loop {
        match store.write(&vec![asked(1, &long); 10]) {
            Ok(()) => written += 10,
            Err(fault) => break fault,
        }
        assert!(written < 10_000, "the disk is never full");
    };
    assert_eq!(fault, Fault::Full);
    // What is there is still read, together with what waits.
    let all = requests(&mut store, &[asked(2, "waits")]);
    assert_eq!(
        (all.len(), all[0].as_str(), all[written + 1].as_str()),
        (written + 2, "waits", "first")
    );
    assert_eq!(store.write(&vec![asked(1, &long); 10]), Err(Fault::Full));
    // A store that is opened on the full disk says the same, or cannot even begin.
    let mut second = Store::new(tmpfs.0.join("mend.db"), HistoryLimits::default());
    second.write(&[asked(1, &long.repeat(20))]).unwrap_err();
    drop(second);
    // Room again.
    mount(None::<&str>, &tmpfs.0, None::<&str>, MsFlags::MS_REMOUNT, Some("size=8m")).unwrap();
    store.write(&[asked(3, "again")]).unwrap();
    assert_eq!(requests(&mut store, &[])[0], "again");
    assert_eq!(store.take_words(), []);
}

#[test]
fn a_disk_that_is_full_from_the_beginning_is_no_damage() {
    let place = Place::new();
    let Some(tmpfs) = Tmpfs::mount(&place.directory.path().join("disk"), "size=64k") else {
        return;
    };
    let path = tmpfs.0.join("mend.db");
    fill(&tmpfs.0.join("filler"));
    let mut store = Store::new(path, HistoryLimits::default());
    store.write(&[asked(1, "a")]).unwrap_err();
    assert_eq!(store.take_words(), []);
    let query = AskedQuery { limit: 9, ..Default::default() };
    assert_eq!(store.asked(&[asked(1, "a")], &query).unwrap().found.len(), 1);
    fs::remove_file(tmpfs.0.join("filler")).unwrap();
    mount(None::<&str>, &tmpfs.0, None::<&str>, MsFlags::MS_REMOUNT, Some("size=8m")).unwrap();
    store.write(&[asked(1, "a")]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["a"]);
    assert_eq!(store.take_words(), []);
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
}

#[test]
fn a_read_only_file_system_is_read_from_and_written_to_when_it_can_be() {
    let place = Place::new();
    let Some(tmpfs) = Tmpfs::mount(&place.directory.path().join("disk"), "size=8m") else {
        return;
    };
    let path = tmpfs.0.join("mend.db");
    let mut store = Store::new(path.clone(), HistoryLimits::default());
    store.write(&[asked(1, "a")]).unwrap();
    drop(store);
    tmpfs.remount(MsFlags::MS_RDONLY);
    let mut store = Store::new(path, HistoryLimits::default());
    let fault = store.write(&[asked(2, "b")]).unwrap_err();
    assert!(matches!(fault, Fault::ReadOnly(_) | Fault::CannotOpen(_)), "{fault:?}");
    assert_eq!(requests(&mut store, &[asked(2, "b")]), ["b", "a"]);
    assert_eq!(requests(&mut store, &[]), ["a"]);
    tmpfs.remount(MsFlags::empty());
    store.write(&[asked(2, "b")]).unwrap();
    assert_eq!(requests(&mut store, &[]), ["b", "a"]);
    assert_eq!(store.take_words(), []);
}

/// Whatever is wrong with the bytes, a record is written in the end and found again, unless it
/// was said that the file was moved aside. `MEND_HISTORY_SEED=7` plays one seed.
#[test]
fn no_spoilt_bytes_keep_a_record_from_being_written() {
    let seeds = match std::env::var("MEND_HISTORY_SEED") {
        Ok(seed) => vec![seed.parse().expect("MEND_HISTORY_SEED is a number")],
        Err(_) => (0..60).chain([fastrand::u64(..)]).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let mut chance = fastrand::Rng::with_seed(seed);
        let place = Place::new();
        let mut store = place.store();
        for round in 0..4 {
            let long = "x".repeat(chance.usize(1..3_000));
            store.write(&vec![asked(round, &long); 10]).unwrap();
            store.write(&[told(round, round.unsigned_abs(), ended())]).unwrap();
        }
        // As after a kill: with a WAL, whose content may or may not be in the file.
        let copies = ["", "-wal", "-shm"].map(|end| {
            let path = PathBuf::from(format!("{}{end}", place.path().display()));
            (fs::read(&path).unwrap(), path)
        });
        if chance.bool() {
            store.close();
        }
        drop(store);
        if !chance.bool() {
            for (content, path) in copies {
                fs::write(path, content).unwrap();
            }
        }
        for name in place.files() {
            spoil(&place.directory.path().join(name), &mut chance);
        }
        let mut store = place.store();
        if chance.bool() {
            store.look().unwrap_or_else(|fault| assert_bearable(seed, &fault));
        }
        let new = [asked(9, "new"), told(9, 99, ended())];
        let written = (0..3).any(|_| match store.write(&new) {
            Ok(()) => true,
            Err(fault) => {
                assert_bearable(seed, &fault);
                // As an operator would who is told so.
                let _ = fs::remove_file(place.path());
                false
            }
        });
        assert!(written, "seed {seed}");
        let all = requests(&mut store, &[]);
        let is_lost = store.take_words().iter().any(|it| matches!(it, Word::Warning(_)));
        assert!(is_lost || all[0] == "new", "seed {seed}");
        store.story(&[], IncidentId(99)).unwrap();
        while store.tidy(crate::time::Wall(i64::MAX / 2)).unwrap() {}
    }
}

/// A changed version number looks like a newer one, which is not ours to touch.
#[track_caller]
fn assert_bearable(seed: u64, fault: &Fault) {
    assert!(matches!(fault, Fault::Newer(_)), "seed {seed}: {fault:?}");
}

fn spoil(path: &Path, chance: &mut fastrand::Rng) {
    let mut content = fs::read(path).unwrap();
    if content.is_empty() || chance.u8(0..3) == 0 {
        return;
    }
    for _ in 0..chance.usize(0..40) {
        let at = chance.usize(0..content.len());
        content[at] = chance.u8(..);
    }
    if chance.u8(0..3) == 0 {
        content.truncate(chance.usize(0..content.len()));
    }
    fs::write(path, content).unwrap();
}
