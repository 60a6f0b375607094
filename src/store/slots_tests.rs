//! Slot files on disks that tear, fill up and refuse.

use std::os::unix::fs::PermissionsExt;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::*;

const SIZE: usize = 4096;

fn open(path: &Path) -> (Slots, Option<Loaded>, Vec<Note>) {
    Slots::open(path, 1, SIZE, Durability::Volatile)
}

fn body(loaded: Option<Loaded>) -> Option<Vec<u8>> {
    loaded.map(|loaded| loaded.body)
}

/// A file with `old` in one slot and `new` in the other; returns where `new` is.
fn two_values(path: &Path) -> usize {
    let (mut slots, _, notes) = open(path);
    assert_eq!(notes, []);
    slots.write(b"old").unwrap();
    let at = slots.next * SIZE;
    slots.write(b"new").unwrap();
    at
}

/// A small tmpfs, `None` (with a message) when it may not be mounted.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(options: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        match mount(Some("tmpfs"), place.path(), Some("tmpfs"), MsFlags::empty(), Some(options)) {
            Ok(()) => Some(Self(place)),
            Err(error) => {
                eprintln!("skipped: no tmpfs ({error})");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn the_newest_value_is_read_back_and_a_longer_one_makes_the_file_grow() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("goals");
    two_values(&path);
    let (mut slots, loaded, notes) = open(&path);
    assert_eq!((body(loaded), notes), (Some(b"new".to_vec()), vec![]));
    let long = vec![7; SIZE * 3];
    slots.write(&long).unwrap();
    slots.write(b"short").unwrap();
    let (mut slots, loaded, notes) = open(&path);
    assert_eq!((body(loaded), notes), (Some(b"short".to_vec()), vec![]));
    slots.write(&long).unwrap();
    assert_eq!(body(open(&path).1), Some(long));
}

#[test]
fn any_flipped_bit_of_the_newest_slot_leaves_the_older_value_and_a_note() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("goals");
    let at = two_values(&path);
    let whole = fs::read(&path).unwrap();
    for byte in (0..28).chain(HEADER_BYTES..HEADER_BYTES + 3) {
        let mut bytes = whole.clone();
        bytes[at + byte] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let (_, loaded, notes) = open(&path);
        assert_eq!(body(loaded), Some(b"old".to_vec()), "byte {byte}");
        assert!(notes[0].text.contains("number 1 in the other one is used"), "{notes:?}");
    }
}

#[test]
fn a_truncated_file_gives_what_is_left_of_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("goals");
    two_values(&path);
    for length in [SIZE + 10, SIZE, SIZE - 100] {
        File::options().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
        let (mut slots, loaded, notes) = open(&path);
        assert!(loaded.is_some(), "{length} bytes");
        assert!(notes[0].text.contains("truncated"), "{notes:?}");
        slots.write(b"next").unwrap();
        assert_eq!(body(open(&path).1), Some(b"next".to_vec()));
    }
}

#[test]
fn a_file_of_a_newer_format_is_moved_aside_and_never_overwritten() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("goals");
    let (mut newer, _, _) = Slots::open(&path, 2, SIZE, Durability::Synced);
    newer.write(b"from the future").unwrap();
    let before = fs::read(&path).unwrap();
    let (mut slots, loaded, notes) = open(&path);
    assert_eq!(body(loaded), None);
    assert!(notes[0].text.contains("newer"), "{notes:?}");
    slots.write(b"now").unwrap();
    assert_eq!(fs::read(place.path().join("goals.future")).unwrap(), before);
}

#[test]
fn a_file_that_others_could_have_written_is_not_used() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("goals");
    two_values(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let (_, loaded, notes) = open(&path);
    assert_eq!(body(loaded), None);
    assert!(notes[0].text.contains("not safe"), "{notes:?}");
}

#[test]
fn a_full_file_system_does_not_stop_writes_in_place() {
    let Some(place) = Tmpfs::new("size=64k") else { return };
    let path = place.0.path().join("goals");
    let (mut slots, _, _) = open(&path);
    slots.write(b"before").unwrap();
    fs::write(place.0.path().join("filler"), vec![1; 1 << 20]).unwrap_err();
    slots.write(b"while full").unwrap();
    let error = slots.write(&[1; SIZE * 2]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert!(!place.0.path().join("goals.new").exists());
    assert_eq!(body(open(&path).1), Some(b"while full".to_vec()));
}

#[test]
fn without_inodes_or_on_a_read_only_file_system_it_says_so_and_recovers() {
    let Some(place) = Tmpfs::new("nr_inodes=2") else { return };
    let filler = place.0.path().join("filler");
    fs::write(&filler, "").unwrap();
    let path = place.0.path().join("goals");
    let (mut slots, _, notes) = open(&path);
    assert!(notes[0].text.contains("memory only"), "{notes:?}");
    slots.write(b"x").unwrap_err();
    fs::remove_file(&filler).unwrap();
    slots.write(b"y").unwrap();
    drop(slots);
    let none = None::<&str>;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, place.0.path(), none, read_only, none).unwrap();
    let (mut slots, loaded, notes) = open(&path);
    assert_eq!((body(loaded), notes.len()), (Some(b"y".to_vec()), 1));
    assert_eq!(slots.write(b"z").unwrap_err().raw_os_error(), Some(libc::EROFS));
}
