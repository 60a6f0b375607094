//! Run records: what a new daemon must know of every run to take it over.
//!
//! A record lives on tmpfs and is never synced. The daemon writes the header before the spawn;
//! the child itself appends its pid, its pidfs inode and its `/proc/self/stat` line through
//! the inherited descriptor before it executes the program. So a program that runs always has
//! a record, whoever is killed at whatever moment. The lock on the file lasts as long as
//! somebody has that descriptor: it marks the window in which a pid may still appear.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Note;
use crate::name::RunId;
use crate::os::pidfd::PidFd;
use crate::os::proc;

/// A record is seldom longer.
const RECORD_BYTES: usize = 1024;

/// What is known of a run before it is spawned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHeader {
    /// `web` or `web:0`.
    pub process: String,
    pub cgroup: Option<PathBuf>,
    /// Standard error goes where standard output goes.
    pub merged: bool,
    /// The abstract name of its notification socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// Of the spawn settings, to see that they changed while no daemon lived.
    pub spawn_hash: u64,
}

/// What the child wrote about itself before it executed the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Born {
    pub pid: u32,
    /// Its pidfd's inode; 0, or the same for all, on kernels before 6.9.
    pub inode: u64,
    /// Clock ticks since boot; 0 when the child was killed before it could write it.
    pub starttime: u64,
}

/// A record as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `None` when the daemon was killed while it wrote the header; then there is no child.
    pub header: Option<RunHeader>,
    pub born: Option<Born>,
    /// No pid yet, but somebody still holds the record: one may appear. Ask again.
    pub in_window: bool,
}

impl Record {
    /// Returns whether everything is known that will ever be written.
    pub fn is_whole(&self) -> bool {
        self.header.is_some() && self.born.is_some_and(|born| born.starttime != 0)
    }
}

/// The directory `runs` in the runtime directory.
#[derive(Debug, Clone)]
pub struct RunFiles {
    directory: PathBuf,
}

impl RunFiles {
    /// Names the directory without touching it.
    pub fn at(runtime_dir: &Path) -> Self {
        Self { directory: runtime_dir.join("runs") }
    }

    /// Makes or opens the directory. What another boot left behind is wiped, with a note: its
    /// processes died with it.
    ///
    /// # Errors
    ///
    /// When the directory can be neither made nor read.
    pub fn new(runtime_dir: &Path) -> io::Result<(Self, Vec<Note>)> {
        let files = Self::at(runtime_dir);
        match fs::create_dir(&files.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let guard = runtime_dir.join("boot_id");
        let mut notes = Vec::new();
        let Some(current) = proc::boot_id() else { return Ok((files, notes)) };
        match fs::read_to_string(&guard) {
            Ok(written) if written.trim() == current => return Ok((files, notes)),
            Ok(written) if !written.trim().is_empty() => {
                let stale = files.list()?;
                stale.iter().for_each(|run| files.remove(*run));
                let text = format!("{} run records of an earlier boot were removed", stale.len());
                notes.push(Note::new(&files.directory, text));
            }
            // Torn by a kill at the first start: nothing was spawned before it was whole.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::write(&guard, format!("{current}\n"))?;
        Ok((files, notes))
    }

    /// Makes the directory again when somebody deleted it; returns whether that was necessary.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn ensure(&self) -> io::Result<bool> {
        if self.directory.exists() {
            return Ok(false);
        }
        fs::create_dir_all(&self.directory)?;
        Ok(true)
    }

    /// Returns the path of the record.
    pub fn record(&self, run: RunId) -> PathBuf {
        self.directory.join(format!("{run}.rec"))
    }

    /// Returns the path of the FIFO for standard output.
    pub fn stdout(&self, run: RunId) -> PathBuf {
        self.directory.join(format!("{run}.out"))
    }

    /// Returns the path of the FIFO for standard error.
    pub fn stderr(&self, run: RunId) -> PathBuf {
        self.directory.join(format!("{run}.err"))
    }

    /// Returns the path of the FIFO to which the run writes that it is ready.
    pub fn ready(&self, run: RunId) -> PathBuf {
        self.directory.join(format!("{run}.rdy"))
    }

    /// Returns the path of the file that says where in a log the output of the run begins.
    pub fn mark(&self, run: RunId, stream: &str) -> PathBuf {
        self.directory.join(format!("{run}.{stream}.mark"))
    }

    /// Makes the record with its header, locked for as long as the file or a copy is open.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] when the run has one: it must not be spawned again.
    pub fn create_record(&self, run: RunId, header: &RunHeader) -> io::Result<File> {
        let path = self.record(run);
        let mut file = File::options().append(true).create_new(true).mode(0o600).open(&path)?;
        let mut line = serde_json::to_vec(header)?;
        line.push(b'\n');
        let written = file.lock().and_then(|()| file.write_all(&line));
        if let Err(error) = written {
            let _ = fs::remove_file(&path); // Nobody was told of it yet.
            return Err(error);
        }
        Ok(file)
    }

    /// Reads a record as it is now.
    ///
    /// # Errors
    ///
    /// What opening and reading the file say.
    pub fn read_record(&self, run: RunId) -> io::Result<Record> {
        let mut file = File::open(self.record(run))?;
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        read_all(&mut file, &mut bytes)?;
        let (header, born) = parse(&bytes);
        let record = Record { header, born, in_window: false };
        if record.is_whole() {
            return Ok(record);
        }
        // The lock is asked for first: once it is free nothing more will be written.
        let held = match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        file.rewind()?;
        bytes.clear();
        read_all(&mut file, &mut bytes)?;
        let (header, born) = parse(&bytes);
        let in_window = held && born.is_none();
        Ok(Record { header, born, in_window })
    }

    /// Returns the runs that have a record, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// What reading the directory says.
    pub fn list(&self) -> io::Result<Vec<RunId>> {
        self.list_kind(".rec")
    }

    /// Returns the runs that have a FIFO for their readiness, see [`RunFiles::ready`].
    ///
    /// # Errors
    ///
    /// What reading the directory says.
    pub fn list_ready(&self) -> io::Result<BTreeSet<RunId>> {
        Ok(self.list_kind(".rdy")?.into_iter().collect())
    }

    fn list_kind(&self, suffix: &str) -> io::Result<Vec<RunId>> {
        let mut runs = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(suffix));
            runs.extend(number.and_then(|number| number.parse().ok()).map(RunId));
        }
        runs.sort();
        Ok(runs)
    }

    /// Removes everything of the run, the record last; what is gone already is fine.
    pub fn remove(&self, run: RunId) {
        let marks = [self.mark(run, "out"), self.mark(run, "err")];
        let pipes = [self.stdout(run), self.stderr(run), self.ready(run)];
        for path in pipes.into_iter().chain(marks).chain([self.record(run)]) {
            let _ = fs::remove_file(path); // A left-over is found, and removed, at takeover.
        }
    }
}

/// Reads on to the end without asking for the size first.
fn read_all(file: &mut File, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; RECORD_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(()),
            length => bytes.extend_from_slice(&chunk[..length]),
        }
    }
}

fn parse(bytes: &[u8]) -> (Option<RunHeader>, Option<Born>) {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let header = whole(lines.next()).and_then(|line| serde_json::from_slice(line).ok());
    let born = whole(lines.next()).and_then(|line| {
        let (pid, inode) = std::str::from_utf8(line).ok()?.trim().split_once(' ')?;
        let (pid, inode) = (pid.parse().ok()?, inode.parse().ok()?);
        // The command in the line may contain a newline.
        let rest = lines.collect::<Vec<_>>().concat();
        let stat = proc::parse_stat(&rest).filter(|_| rest.ends_with(b"\n"));
        let starttime = stat.map_or(0, |stat| stat.starttime);
        Some(Born { pid, inode, starttime })
    });
    (header, born)
}

/// A line without its end was torn.
fn whole(line: Option<&[u8]>) -> Option<&[u8]> {
    line?.strip_suffix(b"\n")
}

/// Returns the process that wrote this about itself, `None` when it has been reaped and when
/// its pid belongs to somebody else now.
///
/// The inode decides where the kernel gives each process its own, else the start time.
pub fn is_same_process(born: &Born) -> Option<PidFd> {
    let pidfd = PidFd::open(born.pid).ok()?;
    let inode = pidfd.inode().unwrap_or(0);
    let same = if inode != 0 && born.inode != 0 {
        inode == born.inode
    } else {
        // The pidfd is open already: whoever has the pid now is whom it holds, or it is dead.
        born.starttime != 0
            && proc::stat(born.pid).is_some_and(|now| now.starttime == born.starttime)
    };
    same.then_some(pidfd)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn header() -> RunHeader {
        let cgroup = Some(PathBuf::from("/sys/fs/cgroup/x"));
        RunHeader {
            process: "web:0".into(),
            cgroup,
            merged: true,
            notify: None,
            spawn_hash: u64::MAX,
        }
    }

    #[test]
    fn a_record_is_in_its_window_until_the_pid_is_there_or_nobody_holds_it() {
        let place = tempfile::tempdir().unwrap();
        let (files, notes) = RunFiles::new(place.path()).unwrap();
        assert_eq!(notes, []);
        let run = RunId(7);
        let mut file = files.create_record(run, &header()).unwrap();
        let twice = files.create_record(run, &header()).unwrap_err();
        assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists);
        let waiting = Record { header: Some(header()), born: None, in_window: true };
        assert_eq!(files.read_record(run).unwrap(), waiting);
        file.write_all(b"12 4").unwrap();
        assert_eq!(files.read_record(run).unwrap(), waiting, "a torn line is no pid");
        file.write_all(b"2\n12 (a\nb) S 1 2 3 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 0\n").unwrap();
        let born = Born { pid: 12, inode: 42, starttime: 4711 };
        let record = files.read_record(run).unwrap();
        assert_eq!((record.born, record.in_window), (Some(born), false));
        assert_eq!(files.list().unwrap(), [run]);
        files.remove(run);
        drop(files.create_record(run, &header()).unwrap());
        assert!(!files.read_record(run).unwrap().in_window);
        files.remove(run);
        assert_eq!(files.list().unwrap(), []);
    }

    #[test]
    fn a_header_of_before_notification_sockets_loads() {
        let line = r#"{"process":"web","cgroup":null,"merged":true,"spawn_hash":7}"#;
        let (header, _) = parse(format!("{line}\n").as_bytes());
        assert_eq!(header.unwrap().notify, None);
    }

    #[test]
    fn records_of_another_boot_are_wiped_and_those_of_this_one_kept() {
        let place = tempfile::tempdir().unwrap();
        let (files, _) = RunFiles::new(place.path()).unwrap();
        drop(files.create_record(RunId(1), &header()).unwrap());
        let (files, notes) = RunFiles::new(place.path()).unwrap();
        assert_eq!((files.list().unwrap(), notes), (vec![RunId(1)], vec![]));
        fs::write(place.path().join("boot_id"), "another\n").unwrap();
        let (files, notes) = RunFiles::new(place.path()).unwrap();
        assert_eq!((files.list().unwrap(), notes.len()), (vec![], 1));
    }

    #[test]
    fn a_process_is_known_by_inode_or_start_time_and_never_by_pid_alone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        let inode = PidFd::open(pid).unwrap().inode().unwrap();
        let starttime = proc::stat(pid).unwrap().starttime;
        assert!(is_same_process(&Born { pid, inode, starttime }).is_some());
        assert!(is_same_process(&Born { pid, inode: 0, starttime }).is_some());
        assert!(is_same_process(&Born { pid, inode: 0, starttime: starttime + 1 }).is_none());
        assert!(is_same_process(&Born { pid, inode: 0, starttime: 0 }).is_none());
        if inode != 0 {
            assert!(is_same_process(&Born { pid, inode: inode + 1, starttime }).is_none());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_same_process(&Born { pid, inode, starttime }).is_none());
    }
}
