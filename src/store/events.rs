//! The event log: JSON lines in the runtime directory, with ids that go on over restarts.
//!
//! Two files take turns: when the current one is full the other is emptied and used. A disk
//! that refuses an event costs nothing but the event's life beyond this process.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Note;
use crate::core::{Happening, HappeningKind};
use crate::time::Wall;

/// A file is full at the first line that reaches this size.
const ROTATE_BYTES: u64 = 1 << 20;
/// Events that are kept in memory for clients that come back.
const KEPT: usize = 10_000;

/// One line of the log.
#[derive(Serialize, Deserialize)]
struct Line {
    id: u64,
    /// Milliseconds since 1970-01-01 UTC.
    at: i64,
    #[serde(flatten)]
    kind: Kind,
}

/// [`HappeningKind`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Kind {
    State {
        process: String,
        from: String,
        to: String,
        pid: Option<u32>,
        run: Option<u64>,
        detail: String,
    },
    Audit {
        by: String,
        uid: Option<u32>,
        request: String,
        outcome: String,
    },
    Check {
        target: String,
        check: String,
        from: String,
        to: String,
        detail: String,
    },
    Incident {
        incident: u64,
        target: String,
        what: String,
        sentence: String,
    },
    Alert {
        what: String,
        target: String,
        incident: Option<u64>,
        sentence: String,
    },
    Mode {
        from: String,
        to: String,
        reasons: Vec<String>,
    },
    Daemon {
        what: String,
        detail: String,
    },
}

/// The log of what happened.
#[derive(Debug)]
pub struct EventLog {
    paths: [PathBuf; 2],
    current: usize,
    file: Option<File>,
    written_bytes: u64,
    last_id: u64,
    /// The newest event of an earlier daemon, while nobody has asked for those: a brain that comes
    /// back has better things to do than to read them.
    unread: Option<u64>,
    kept: VecDeque<Arc<Happening>>,
    trouble: Option<String>,
}

impl EventLog {
    /// Goes on after what is there. A torn or damaged end is skipped with a note.
    pub fn open(directory: &Path) -> (Self, Vec<Note>) {
        let paths = [0, 1].map(|number| directory.join(format!("events.{number}.jsonl")));
        let mut notes = Vec::new();
        let newest = [0, 1].map(|number| newest_id(&paths[number], &mut notes));
        let current = usize::from(newest[1] > newest[0]);
        let last_id = newest[0].max(newest[1]);
        let mut log = Self {
            paths,
            current,
            file: None,
            written_bytes: 0,
            last_id,
            unread: (last_id > 0).then_some(last_id),
            kept: VecDeque::new(),
            trouble: None,
        };
        if let Err(error) = log.reopen(false) {
            log.failed(&error);
        }
        (log, notes)
    }

    /// Gives the event the next id, keeps it and writes it down.
    pub fn append(&mut self, at: Wall, kind: HappeningKind) -> Arc<Happening> {
        self.last_id += 1;
        let happening = Arc::new(Happening { id: self.last_id, at, kind });
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::clone(&happening));
        match self.write(&happening) {
            Ok(()) => self.trouble = None,
            Err(error) => self.failed(&error),
        }
        happening
    }

    /// Returns the kept events after this id, oldest first; at most 10,000 are kept.
    pub fn after(&mut self, id: u64) -> Vec<Arc<Happening>> {
        if self.unread.is_some_and(|newest| id < newest) {
            self.read_earlier();
        }
        let first = self.kept.partition_point(|happening| happening.id <= id);
        self.kept.range(first..).cloned().collect()
    }

    /// Puts what an earlier daemon wrote before what is kept.
    fn read_earlier(&mut self) {
        let Some(newest) = self.unread.take() else { return };
        let mut notes = Vec::new();
        let read = [0, 1].map(|number| read_lines(&self.paths[number], &mut notes));
        let mut all: Vec<Arc<Happening>> = read.into_iter().flatten().map(Arc::new).collect();
        all.retain(|happening| happening.id <= newest);
        all.sort_by_key(|happening| happening.id);
        all.extend(self.kept.drain(..));
        self.kept = VecDeque::from(all);
        self.kept.drain(..self.kept.len().saturating_sub(KEPT));
        for note in notes {
            tracing::warn!("{note}");
        }
    }

    /// Returns the id of the newest event, 0 before the first.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Says why the last event could not be written, `None` while all is well.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn failed(&mut self, error: &io::Error) {
        let path = self.paths[self.current].display();
        self.trouble = Some(format!("events are kept in memory only: `{path}`: {error}"));
        self.file = None; // The next one opens it again.
    }

    fn reopen(&mut self, empty: bool) -> io::Result<()> {
        let path = &self.paths[self.current];
        let mut file = File::options().append(true).create(true).mode(0o600).open(path)?;
        if empty {
            file.set_len(0)?;
        } else if fs::read(path)?.last().is_some_and(|byte| *byte != b'\n') {
            file.write_all(b"\n")?; // Ends a torn line, so that the next one stays whole.
        }
        self.written_bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, happening: &Happening) -> io::Result<()> {
        if self.written_bytes >= ROTATE_BYTES {
            // The other file may be all there is of them.
            self.read_earlier();
            self.current = 1 - self.current;
            self.reopen(true)?;
        } else if self.file.is_none() {
            self.reopen(false)?;
        }
        let mut line = serde_json::to_vec(&Line::from(happening))?;
        line.push(b'\n');
        let file = self.file.as_mut().expect("it was opened above");
        file.write_all(&line)?;
        self.written_bytes += line.len() as u64;
        Ok(())
    }
}

/// Returns the id of the last line that is whole, 0 when there is none.
fn newest_id(path: &Path, notes: &mut Vec<Note>) -> u64 {
    let mut skipped = 0_u32;
    let bytes = read_file(path, notes);
    let lines = bytes.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let ids = lines.map(|line| {
        let read = serde_json::from_slice::<Line>(line).ok();
        skipped += u32::from(read.is_none());
        read.map(|line| line.id)
    });
    let newest = ids.flatten().next().unwrap_or(0);
    if skipped > 0 {
        notes.push(Note::new(path, format!("{skipped} damaged lines at its end were skipped")));
    }
    newest
}

fn read_file(path: &Path, notes: &mut Vec<Note>) -> Vec<u8> {
    match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            notes.push(Note::new(path, format!("earlier events cannot be read: {error}")));
            Vec::new()
        }
    }
}

fn read_lines(path: &Path, notes: &mut Vec<Note>) -> Vec<Happening> {
    let bytes = read_file(path, notes);
    let mut skipped = 0_u32;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = lines.filter_map(|line| match serde_json::from_slice::<Line>(line) {
        Ok(line) => Some(Happening::from(line)),
        Err(_) => {
            skipped += 1;
            None
        }
    });
    let read = read.collect();
    if skipped > 0 {
        notes.push(Note::new(path, format!("{skipped} damaged lines were skipped")));
    }
    read
}

impl From<&Happening> for Line {
    fn from(happening: &Happening) -> Self {
        let kind = match happening.kind.clone() {
            HappeningKind::State { process, from, to, pid, run, detail } => {
                Kind::State { process, from, to, pid, run, detail }
            }
            HappeningKind::Audit { by, uid, request, outcome } => {
                Kind::Audit { by, uid, request, outcome }
            }
            HappeningKind::Check { target, check, from, to, detail } => {
                Kind::Check { target, check, from, to, detail }
            }
            HappeningKind::Incident { incident, target, what, sentence } => {
                Kind::Incident { incident, target, what, sentence }
            }
            HappeningKind::Alert { what, target, incident, sentence } => {
                Kind::Alert { what, target, incident, sentence }
            }
            HappeningKind::Mode { from, to, reasons } => Kind::Mode { from, to, reasons },
            HappeningKind::Daemon { what, detail } => Kind::Daemon { what, detail },
        };
        Self { id: happening.id, at: happening.at.0, kind }
    }
}

impl From<Line> for Happening {
    fn from(line: Line) -> Self {
        let kind = match line.kind {
            Kind::State { process, from, to, pid, run, detail } => {
                HappeningKind::State { process, from, to, pid, run, detail }
            }
            Kind::Audit { by, uid, request, outcome } => {
                HappeningKind::Audit { by, uid, request, outcome }
            }
            Kind::Check { target, check, from, to, detail } => {
                HappeningKind::Check { target, check, from, to, detail }
            }
            Kind::Incident { incident, target, what, sentence } => {
                HappeningKind::Incident { incident, target, what, sentence }
            }
            Kind::Alert { what, target, incident, sentence } => {
                HappeningKind::Alert { what, target, incident, sentence }
            }
            Kind::Mode { from, to, reasons } => HappeningKind::Mode { from, to, reasons },
            Kind::Daemon { what, detail } => HappeningKind::Daemon { what, detail },
        };
        Self { id: line.id, at: Wall(line.at), kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(detail: &str) -> HappeningKind {
        HappeningKind::Daemon { what: "warning".into(), detail: detail.into() }
    }

    #[test]
    fn ids_and_events_go_on_over_a_restart_and_a_torn_line() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = EventLog::open(place.path());
        let state = HappeningKind::State {
            process: "web:0".into(),
            from: "STOPPED".into(),
            to: "STARTING".into(),
            pid: Some(4),
            run: None,
            detail: "ä".into(),
        };
        let audit = HappeningKind::Audit {
            by: "root".into(),
            uid: Some(0),
            request: "stop web".into(),
            outcome: "done".into(),
        };
        let first = log.append(Wall(5), state);
        let second = log.append(Wall(6), audit);
        drop(log);
        let path = place.path().join("events.0.jsonl");
        File::options().append(true).open(&path).unwrap().write_all(b"{\"id\":3,\"at").unwrap();
        let (mut log, notes) = EventLog::open(place.path());
        assert_eq!(notes.len(), 1);
        assert_eq!(log.after(0), [first, Arc::clone(&second)]);
        let third = log.append(Wall(7), event("x"));
        assert_eq!((third.id, log.after(1)), (3, vec![second, Arc::clone(&third)]));
        let (mut log, _) = EventLog::open(place.path());
        assert_eq!((log.after(2), log.last_id()), (vec![third], 3));
    }

    #[test]
    fn the_files_take_turns_and_memory_is_bounded() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = EventLog::open(place.path());
        for _ in 0..KEPT + 500 {
            log.append(Wall(1), event(&"x".repeat(250)));
        }
        assert_eq!(log.trouble(), None);
        assert_eq!(log.after(0).len(), KEPT);
        for path in &log.paths {
            assert!(fs::metadata(path).unwrap().len() < ROTATE_BYTES + 1_000);
        }
        let (again, _) = EventLog::open(place.path());
        assert_eq!(again.last_id(), log.last_id());
    }

    #[test]
    fn events_of_an_earlier_daemon_are_kept_when_their_file_is_used_again() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = EventLog::open(place.path());
        let first = log.append(Wall(1), event("first"));
        let (mut log, _) = EventLog::open(place.path());
        while fs::metadata(&log.paths[1]).is_err() || log.current == 1 {
            log.append(Wall(2), event(&"x".repeat(2_000)));
        }
        assert!(!fs::read_to_string(&log.paths[0]).unwrap().contains("first"));
        assert_eq!(log.after(0).first(), Some(&first));
        assert_eq!(log.after(first.id).len() as u64, log.last_id() - 1);
    }

    #[test]
    fn an_event_that_cannot_be_written_is_still_told() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = EventLog::open(&place.path().join("missing"));
        assert_eq!(log.append(Wall(1), event("x")).id, 1);
        assert!(log.trouble().unwrap().contains("memory only"));
        fs::create_dir(place.path().join("missing")).unwrap();
        log.append(Wall(2), event("y"));
        assert_eq!(log.trouble(), None);
        assert_eq!(log.after(0).len(), 2);
    }
}
