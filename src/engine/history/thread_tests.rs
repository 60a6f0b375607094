//! The door and its thread, with files that cannot be written for a while.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    history: History,
    said: UnboundedReceiver<Said>,
    runtime: Runtime,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap(), HistoryLimits::default())
    }

    fn on(directory: tempfile::TempDir, limits: HistoryLimits) -> Self {
        let path = directory.path().join("mend.db");
        let (history, said) = History::start(path, limits, true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { history, said, runtime, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mend.db")
    }

    fn requests(&self) -> Vec<String> {
        let query = AskedQuery { limit: 100_000, ..Default::default() };
        let found = self.runtime.block_on(self.history.asked(query)).unwrap();
        found.found.into_iter().rev().map(|asked| asked.request).collect()
    }

    #[track_caller]
    fn hears(&mut self) -> Said {
        let word = async { tokio::time::timeout(PATIENCE, self.said.recv()).await };
        self.runtime.block_on(word).expect("nothing is said").expect("the thread is gone")
    }

    #[track_caller]
    fn hears_of_trouble(&mut self) -> String {
        match self.hears() {
            Said::Trouble(Some(text)) => text,
            other @ (Said::Trouble(None) | Said::Word(_)) => panic!("{other:?}"),
        }
    }
}

fn asked(request: impl Into<String>) -> Record {
    Record::Asked(Asked {
        at: crate::os::clock::wall(),
        uid: None,
        user: "signal TERM".into(),
        pid: None,
        executable: None,
        request: request.into(),
        reason: None,
        outcome: "taken up".into(),
    })
}

fn written(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare("SELECT request FROM asked ORDER BY row").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Waits until another connection finds these requests in the file.
#[track_caller]
fn wait_written(path: &Path, expected: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while written(path) != expected {
        assert!(Instant::now() < deadline, "{:?} is written", written(path));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_record_is_written_without_being_asked_for_and_found_when_it_is() {
    let bench = Bench::new();
    bench.history.record(asked("first"));
    bench.history.record(asked("second"));
    assert_eq!(bench.requests(), ["first", "second"]);
    bench.history.record(asked("third"));
    wait_written(&bench.path(), &["first", "second", "third"]);
}

#[test]
fn results_that_wait_for_more_are_found_at_once_when_somebody_asks() {
    let bench = Bench::new();
    let at = crate::os::clock::wall();
    bench.history.record(Record::Sampled { at, series: "load".into(), value: 0.5 });
    let samples = bench.history.samples("load".into(), Wall(0), Wall(i64::MAX));
    let samples = bench.runtime.block_on(samples).unwrap().found;
    assert_eq!(samples, [Sample { at, value: 0.5 }]);
}

#[test]
fn an_end_in_order_writes_everything_and_leaves_one_file() {
    let bench = Bench::new();
    for number in 0..2_000 {
        bench.history.record(asked(number.to_string()));
    }
    bench.history.close(PATIENCE);
    assert_eq!(std::fs::read_dir(bench.directory.path()).unwrap().count(), 1);
    assert_eq!(written(&bench.path()).len(), 2_000);
    // Something late opens it again.
    bench.history.record(asked("late"));
    bench.history.settle(PATIENCE);
    assert_eq!(written(&bench.path()).last().map(String::as_str), Some("late"));
}

#[test]
fn what_another_process_keeps_from_being_written_is_written_when_it_lets_go() {
    let mut bench = Bench::new();
    bench.history.record(asked("before"));
    assert_eq!(bench.requests(), ["before"]);
    let other = Connection::open(bench.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    bench.history.record(asked("meanwhile"));
    let text = bench.hears_of_trouble();
    assert!(text.contains("another process has locked it"), "{text}");
    assert!(text.contains("kept in memory meanwhile"), "{text}");
    bench.history.record(asked("and more"));
    assert_eq!(bench.requests(), ["before", "meanwhile", "and more"]);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(bench.hears(), Said::Trouble(None));
    wait_written(&bench.path(), &["before", "meanwhile", "and more"]);
}

#[test]
fn what_has_no_room_in_memory_is_counted_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mend.db");
    let mut bench = Bench::on(directory, HistoryLimits::default());
    bench.history.record(asked("before"));
    assert_eq!(bench.requests(), ["before"]);
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let long = "x".repeat(4_000);
    let count = 5_000;
    for number in 0..count {
        bench.history.record(asked(format!("{number} {long}")));
    }
    let mut text = bench.hears_of_trouble();
    if !text.contains("lost for want of room") {
        // The first try came before there was too much.
        text = bench.hears_of_trouble();
    }
    assert!(text.contains("lost for want of room"), "{text}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(bench.hears(), Said::Trouble(None));
    let Said::Word(Word::Warning(text)) = bench.hears() else { panic!("no word about the loss") };
    let lost: usize = text.split(' ').next().unwrap().parse().unwrap();
    let kept = bench.requests();
    assert_eq!(lost + kept.len(), count + 1, "{text}");
    assert!(lost > 1_000 && kept.len() > 100, "{text}");
    assert!(kept.last().unwrap().starts_with(&format!("{} ", count - 1)));
}

#[test]
fn a_newer_file_is_tried_again_only_when_there_is_something_new() {
    let directory = tempfile::tempdir().unwrap();
    let newer = Connection::open(directory.path().join("mend.db")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let mut bench = Bench::on(directory, HistoryLimits::default());
    let text = bench.hears_of_trouble();
    assert!(text.contains("version 99"), "{text}");
    bench.history.record(asked("a"));
    assert_eq!(bench.requests(), ["a"]);
    // Moved away by the operator, and the daemon ends: then it is written.
    std::fs::remove_file(bench.path()).unwrap();
    bench.history.settle(PATIENCE);
    assert_eq!(bench.hears(), Said::Trouble(None));
    assert_eq!(written(&bench.path()), ["a"]);
}

#[test]
fn limits_that_change_take_effect_with_the_next_record() {
    let bench = Bench::new();
    for number in 0..10 {
        let mut record = asked(number.to_string());
        if let Record::Asked(asked) = &mut record {
            asked.at = Wall(asked.at.0 - 3_600_000 * (10 - number));
        }
        bench.history.record(record);
    }
    assert_eq!(bench.requests().len(), 10);
    let keep = Duration::from_secs(5 * 3_600 + 60);
    bench.history.set_limits(HistoryLimits { keep, ..Default::default() });
    bench.history.record(asked("new"));
    let left = || bench.requests().len();
    let deadline = Instant::now() + PATIENCE;
    while left() != 6 {
        assert!(Instant::now() < deadline, "{} are left", left());
    }
    assert_eq!(bench.requests(), ["5", "6", "7", "8", "9", "new"]);
}

#[test]
fn a_thread_that_dies_is_said_and_holds_nobody_up() {
    let mut bench = Bench::new();
    bench.history.question(Box::new(|_, _| panic!("a mistake of ours")));
    assert!(bench.hears_of_trouble().contains("has died"));
    bench.history.record(asked("a"));
    let query = AskedQuery { limit: 9, ..Default::default() };
    assert_eq!(bench.runtime.block_on(bench.history.asked(query)), Err(Unread::Dead));
    assert_eq!(bench.history.last_numbers(PATIENCE), LastNumbers::default());
    bench.history.close(PATIENCE);
}
