//! What is written comes back, older files become new ones, and what is too much goes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::*;
use super::{file, schema};
use crate::config::HistoryLimits;
use crate::core::care::cause::{Cause, Confidence, Finding};
use crate::core::care::{
    CheckId, Closing, IncidentId, RemedyId, RemedyResult, Story, Target, Verdict,
};
use crate::time::Wall;

const DAY: i64 = 86_400_000;

pub(super) struct Place {
    pub(super) directory: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("mend.db")
    }

    pub(super) fn store(&self) -> Store {
        Store::new(self.path(), HistoryLimits::default())
    }

    pub(super) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(super) fn asked(at: i64, request: &str) -> Record {
    Record::Asked(Asked {
        at: Wall(at),
        uid: Some(1000),
        user: "alice".into(),
        pid: Some(7),
        executable: Some("/usr/bin/mendctl".into()),
        request: request.into(),
        reason: None,
        outcome: "1 done".into(),
    })
}

pub(super) fn requests(store: &mut Store, waiting: &[Record]) -> Vec<String> {
    let query = AskedQuery { limit: 1_000, ..AskedQuery::default() };
    let found = store.asked(waiting, &query).unwrap().found;
    found.into_iter().map(|asked| asked.request).collect()
}

fn process(name: &str) -> Target {
    Target::Process(name.parse().unwrap())
}

pub(super) fn told(at: i64, id: u64, story: Story) -> Record {
    Record::Told { at: Wall(at), incident: IncidentId(id), target: process("web:0"), story }
}

pub(super) fn ended() -> Story {
    Story::Ended { how: "was killed by SIGKILL".into() }
}

fn checked(at: i64, name: &str, verdict: Verdict, detail: &str) -> Record {
    Record::Checked {
        at: Wall(at),
        check: CheckId { target: process("web:0"), check: name.parse().unwrap() },
        verdict,
        detail: detail.into(),
        took: Duration::from_micros(1_000 + at.unsigned_abs() % 1_000),
    }
}

fn results(store: &mut Store) -> Vec<Checked> {
    let query = CheckedQuery { limit: 10_000, ..CheckedQuery::default() };
    store.checked(&[], &query).unwrap().found
}

#[test]
fn every_kind_of_record_comes_back_from_the_file() {
    let place = Place::new();
    let mut store = place.store();
    let finding = Finding {
        cause: Cause::OutOfMemory,
        confidence: Confidence::Likely,
        facts: vec!["oom_kill 1".into(), "ä \"quoted\"".into()],
        sentence: "ran out of memory".into(),
    };
    let check = "http".parse().unwrap();
    let began = Story::Began { id: RemedyId(12), check, rung: 0, remedy: "restart".into() };
    let over = Record::RemedyOver {
        at: Wall(40),
        remedy: RemedyId(12),
        target: process("web:0"),
        what: "restart".into(),
        result: RemedyResult::Verified,
        took: Duration::from_secs(3),
    };
    store
        .write(&[
            asked(1, "stop web"),
            told(10, 5, ended()),
            told(20, 5, Story::Cause(finding)),
            told(30, 5, began),
            over,
            Record::Sampled { at: Wall(50), series: "web:0 memory".into(), value: 1.5 },
            Record::Sampled { at: Wall(50), series: "nothing".into(), value: f64::NAN },
            checked(60, "http", Verdict::Pass, "200"),
        ])
        .unwrap();
    drop(store);

    let mut store = place.store();
    assert_eq!(requests(&mut store, &[]), ["stop web"]);
    let (incident, steps) = store.story(&[], IncidentId(5)).unwrap().found.unwrap();
    assert_eq!((incident.target.as_str(), incident.program.as_deref()), ("web:0", Some("web")));
    assert_eq!((incident.opened, incident.remedies, incident.closed), (Wall(10), 1, None));
    let cause = incident.cause.unwrap();
    assert_eq!((cause.word.as_str(), cause.confidence.as_str()), ("out-of-memory", "likely"));
    assert_eq!(cause.facts, ["oom_kill 1", "ä \"quoted\""]);
    let kinds: Vec<_> = steps.iter().map(|step| (step.at.0, step.kind.as_str())).collect();
    assert_eq!(kinds, [(10, "ended"), (20, "cause"), (30, "began")]);
    assert_eq!(store.series(&[]).unwrap().found, ["web:0 memory"]);
    let samples = store.samples(&[], "web:0 memory", Wall(0), Wall(i64::MAX)).unwrap().found;
    assert_eq!(samples, [Sample { at: Wall(50), value: 1.5 }]);
    assert_eq!(results(&mut store).len(), 1);
    let numbers = LastNumbers { incident: 5, remedy: 12 };
    assert_eq!(store.last_numbers(&[]).unwrap().found, numbers);
    assert_eq!(store.take_words(), []);
}

#[test]
fn an_incident_is_healed_relapses_and_its_number_may_come_again() {
    let place = Place::new();
    let mut store = place.store();
    let verified = |remedy: &str| Story::Verified { remedy: remedy.into(), took: Duration::ZERO };
    let recovered = || Story::Recovered { after: Duration::from_secs(1) };
    store
        .write(&[
            told(0, 1, ended()),
            told(1_000, 1, verified("reload")),
            told(2_000, 1, recovered()),
            told(3_000, 1, Story::Relapsed),
        ])
        .unwrap();
    let (incident, _) = store.story(&[], IncidentId(1)).unwrap().found.unwrap();
    assert_eq!((incident.recovered, incident.healed_by), (None, None));
    store
        .write(&[
            told(5_000, 1, verified("restart")),
            told(6_000, 1, recovered()),
            told(9_000, 1, Story::Closed(Closing::Healed { remedies: 2 })),
            told(20_000, 1, ended()),
        ])
        .unwrap();
    let all = store.incidents(&[], &IncidentQuery { limit: 9, ..Default::default() });
    let all = all.unwrap().found;
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].opened, all[0].closed), (Wall(20_000), None));
    assert_eq!(all[1].healed_by.as_deref(), Some("restart"));
    assert_eq!((all[1].recovered, all[1].closed), (Some(Wall(6_000)), Some(Wall(9_000))));
    // Asked for by its number, the newer one is meant.
    let (incident, steps) = store.story(&[], IncidentId(1)).unwrap().found.unwrap();
    assert_eq!((incident.opened, steps.len()), (Wall(20_000), 1));
    let statistics = store.statistics(&[], &StatisticsQuery::default()).unwrap().found;
    assert_eq!((statistics.incidents, statistics.open, statistics.healed), (2, 1, 1));
    assert_eq!(statistics.mean_recovery(), Some(Duration::from_secs(6)));
}

#[test]
fn the_time_outside_of_incidents_is_the_availability() {
    let place = Place::new();
    let mut store = place.store();
    let now = crate::os::clock::wall().0;
    let ago = |minutes: i64| now - minutes * 60_000;
    let recovered = || Story::Recovered { after: Duration::from_secs(1) };
    store
        .write(&[
            asked(ago(100), "start web"),
            told(ago(80), 1, ended()),
            told(ago(70), 1, recovered()),
            told(ago(60), 1, Story::Closed(Closing::ByItself)),
            // Still down.
            told(ago(10), 2, ended()),
        ])
        .unwrap();
    let mut of = |since: Option<i64>, program: &str| {
        let query = StatisticsQuery { since: since.map(Wall), program: Some(program.into()) };
        store.statistics(&[], &query).unwrap().found
    };
    let all = of(None, "web");
    let (period, web) = (all.period.unwrap(), &all.targets[0]);
    assert_eq!((period.0, web.target.as_str()), (Wall(ago(100)), "web:0"));
    assert_eq!((web.incidents, web.open, web.recovered), (2, 1, 1));
    assert_eq!(web.mean_recovery(), Some(Duration::from_secs(600)));
    let availability = web.availability(period).unwrap();
    assert!((availability - 0.8).abs() < 0.01, "{availability}");
    // The first one began before, and counts for its last five minutes only.
    let part = of(Some(ago(75)), "web:0");
    let web = &part.targets[0];
    assert_eq!((web.incidents, web.open, web.recovered), (1, 1, 0));
    let availability = web.availability(part.period.unwrap()).unwrap();
    assert!((availability - 0.8).abs() < 0.01, "{availability}");
    assert_eq!(of(None, "db").targets, []);
    let nothing = Place::new().store().statistics(&[], &StatisticsQuery::default()).unwrap();
    assert_eq!(nothing.found, Statistics::default());
    // What waits is joined with what is written.
    let waiting = [told(ago(5), 3, ended())];
    let joined = store.statistics(&waiting, &StatisticsQuery::default()).unwrap().found;
    assert_eq!((joined.targets[0].incidents, joined.targets[0].open), (3, 2));
    assert_eq!(joined.period.unwrap().0, Wall(ago(100)));
}

#[test]
fn what_befalls_the_host_is_found_under_its_name() {
    let place = Place::new();
    let mut store = place.store();
    let (at, target) = (Wall(1), Target::Host);
    let story = Story::Panicked { failing: vec![process("web:0")] };
    let told = Record::Told { at, incident: IncidentId(1), target: target.clone(), story };
    let check = CheckId { target, check: "disk".parse().unwrap() };
    let (detail, took) = (String::new(), Duration::ZERO);
    let checked = Record::Checked { at, check, verdict: Verdict::Warn, detail, took };
    store.write(&[told, checked]).unwrap();
    let query = IncidentQuery { program: Some("host".into()), limit: 9, ..Default::default() };
    let found = store.incidents(&[], &query).unwrap().found;
    assert_eq!((found[0].target.as_str(), found[0].program.as_deref()), ("host", None));
    let query = CheckedQuery { program: Some("host".into()), limit: 9, ..Default::default() };
    assert_eq!(store.checked(&[], &query).unwrap().found[0].check, "disk");
}

#[test]
fn incidents_that_a_forgetful_daemon_does_not_know_are_ended() {
    let place = Place::new();
    let mut store = place.store();
    store.write(&[told(1, 1, ended()), told(2, 2, ended())]).unwrap();
    store.write(&[Record::InProgress { at: Wall(9), incidents: vec![IncidentId(2)] }]).unwrap();
    let open = IncidentQuery { open: true, limit: 9, ..Default::default() };
    let open: Vec<u64> =
        store.incidents(&[], &open).unwrap().found.iter().map(|it| it.id.0).collect();
    assert_eq!(open, [2]);
    let (incident, steps) = store.story(&[], IncidentId(1)).unwrap().found.unwrap();
    assert_eq!((incident.closing.as_deref(), incident.closed), (Some("unknown"), Some(Wall(9))));
    assert_eq!(steps.last().unwrap().kind, "closed");
}

#[test]
fn equal_results_of_a_check_share_a_row_until_something_else_is_said() {
    let place = Place::new();
    let mut store = place.store();
    let pass = |at: i64| checked(at, "http", Verdict::Pass, &format!("200 in {at} ms"));
    let all: Vec<Record> = (0..30).map(|number| pass(number * 10_000)).collect();
    store.write(&all).unwrap();
    store.write(&[checked(300_000, "http", Verdict::Fail, "refused")]).unwrap();
    store.write(&[checked(310_000, "http", Verdict::Fail, "refused")]).unwrap();
    store.write(&[checked(320_000, "http", Verdict::Fail, "500")]).unwrap();
    let found = results(&mut store);
    let rows: Vec<_> = found.iter().map(|row| (row.detail.as_str(), row.runs)).collect();
    assert_eq!(rows, [("500", 1), ("refused", 2), ("200 in 290000 ms", 30)]);
    let passes = &found[2];
    assert_eq!((passes.first, passes.last), (Wall(0), Wall(290_000)));
    assert_eq!(passes.took_least, Duration::from_micros(1_000));
    assert!(passes.took_least <= passes.took_mean && passes.took_mean <= passes.took_most);
    drop(store);
    let mut store = place.store();
    assert_eq!(results(&mut store), found);
}

#[test]
fn a_streak_is_in_the_file_from_its_first_result_and_never_far_behind() {
    let place = Place::new();
    let mut store = place.store();
    for number in 0..100 {
        store.write(&[checked(number * 10_000, "http", Verdict::Pass, "")]).unwrap();
    }
    // What a SIGKILL would leave.
    let other = Connection::open(place.path()).unwrap();
    let saved: i64 = other.query_row("SELECT sum(runs) FROM results", [], |r| r.get(0)).unwrap();
    assert!((70..100).contains(&saved), "{saved} of 100 are saved");
    store.save().unwrap();
    let saved: i64 = other.query_row("SELECT sum(runs) FROM results", [], |r| r.get(0)).unwrap();
    assert_eq!(saved, 100);
    // After an hour another row begins.
    store.write(&[checked(3_700_000, "http", Verdict::Pass, "")]).unwrap();
    assert_eq!(results(&mut store).len(), 2);
}

#[test]
fn samples_are_found_over_slices_and_in_the_order_of_time() {
    let place = Place::new();
    let mut store = place.store();
    let sample = |at: i64, series: &str| Record::Sampled {
        at: Wall(at),
        series: series.into(),
        value: at as f64,
    };
    for at in 0..200 {
        store.write(&[sample(at * 30_000, "a"), sample(at * 30_000, "b")]).unwrap();
    }
    let mut found = |since: i64, until: i64| {
        let found = store.samples(&[], "a", Wall(since), Wall(until)).unwrap().found;
        found.iter().map(|sample| sample.at.0).collect::<Vec<_>>()
    };
    assert_eq!(found(i64::MIN, i64::MAX).len(), 200);
    assert_eq!(found(570_000, 630_000), [570_000, 600_000, 630_000]);
    assert_eq!(store.samples(&[], "c", Wall(0), Wall(9)).unwrap().found, []);
}

#[test]
fn an_empty_history_answers_without_making_a_file() {
    let place = Place::new();
    let mut store = place.store();
    assert!(requests(&mut store, &[]).is_empty());
    assert_eq!(store.story(&[], IncidentId(1)).unwrap().found, None);
    store.look().unwrap();
    assert!(place.files().is_empty());
}

#[test]
fn what_waits_is_found_together_with_what_is_written() {
    let place = Place::new();
    let mut store = place.store();
    store.write(&[asked(1, "a"), told(1, 1, ended()), told(2, 2, ended())]).unwrap();
    let closed = Story::Closed(Closing::ByItself);
    let waiting = [
        asked(2, "b"),
        told(3, 1, closed),
        told(4, 3, ended()),
        checked(5, "http", Verdict::Pass, ""),
    ];
    assert_eq!(requests(&mut store, &waiting), ["b", "a"]);
    let mut ids = |open: bool| {
        let query = IncidentQuery { open, limit: 9, ..Default::default() };
        let found = store.incidents(&waiting, &query).unwrap().found;
        found.iter().map(|incident| incident.id.0).collect::<Vec<_>>()
    };
    assert_eq!((ids(false), ids(true)), (vec![3, 2, 1], vec![3, 2]));
    let (incident, steps) = store.story(&waiting, IncidentId(1)).unwrap().found.unwrap();
    assert_eq!((incident.opened, incident.closed, steps.len()), (Wall(1), Some(Wall(3)), 2));
    let query = CheckedQuery { limit: 9, ..Default::default() };
    assert_eq!(store.checked(&waiting, &query).unwrap().found.len(), 1);
    let statistics = store.statistics(&waiting, &StatisticsQuery::default()).unwrap().found;
    assert_eq!(statistics.incidents, 3);
    assert_eq!(store.last_numbers(&waiting).unwrap().found.incident, 3);
}

#[test]
fn what_is_too_old_goes_a_little_at_a_time_and_the_rest_stays() {
    let place = Place::new();
    let limits = HistoryLimits {
        keep: Duration::from_secs(10 * 86_400),
        samples_keep: Duration::from_secs(86_400),
        ..HistoryLimits::default()
    };
    let mut store = Store::new(place.path(), limits);
    let mut records = Vec::new();
    for day in 0..20 {
        let at = day * DAY;
        records.extend((0..60).map(|number| asked(at + number, "x")));
        for number in 0..100 {
            let at = Wall(at + number);
            records.push(Record::Sampled { at, series: "s".into(), value: 0.0 });
        }
        records.push(checked(at, "http", Verdict::Fail, "x"));
        let id = u64::try_from(day).unwrap();
        records.push(told(at, id, ended()));
        if day % 2 == 0 {
            records.push(told(at + 1, id, Story::Closed(Closing::ByItself)));
        }
    }
    store.write(&records).unwrap();
    let now = Wall(20 * DAY);
    let mut steps = 1;
    while store.tidy(now).unwrap() {
        steps += 1;
    }
    assert!(steps > 1, "all went at once");
    assert!(!store.tidy(now).unwrap());
    assert_eq!(requests(&mut store, &[]).len(), 10 * 60);
    assert_eq!(results(&mut store).len(), 10);
    let samples = store.samples(&[], "s", Wall(0), Wall(i64::MAX)).unwrap().found;
    assert_eq!(samples.len(), 100);
    let query = IncidentQuery { limit: 99, ..Default::default() };
    let left = store.incidents(&[], &query).unwrap().found;
    // Those that go on are kept however old they are.
    assert_eq!(left.len(), 10 + 5);
    let orphans: i64 = Connection::open(place.path())
        .unwrap()
        .query_row(
            "SELECT count(*) FROM steps WHERE incident NOT IN (SELECT row FROM incidents)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(orphans, 0);
}

#[test]
fn what_is_too_much_goes_results_first_and_incidents_last() {
    let place = Place::new();
    let limits = HistoryLimits { max_size: 1 << 20, ..HistoryLimits::default() };
    let mut store = Store::new(place.path(), limits);
    let now = Wall(DAY);
    let detail = "x".repeat(500);
    let mut peak = 0;
    store.write(&[told(1, 1, ended()), asked(1, "kept")]).unwrap();
    for round in 0..40 {
        let verdicts = [Verdict::Fail, Verdict::Unknown];
        let batch: Vec<Record> = (0..200)
            .map(|it| checked(round * 200 + it, "http", verdicts[it as usize % 2], &detail))
            .collect();
        store.write(&batch).unwrap();
        while store.tidy(now).unwrap() {}
        peak = peak.max(fs::metadata(place.path()).unwrap().len());
    }
    assert!(peak < 2 << 20, "the file has grown to {peak} bytes");
    let left = results(&mut store);
    assert!((500..2_000).contains(&left.len()), "{} results are left", left.len());
    assert_eq!(left[0].first, Wall(7_999));
    assert_eq!(requests(&mut store, &[]), ["kept"]);
    assert!(store.story(&[], IncidentId(1)).unwrap().found.is_some());
    // Then requests go.
    for _ in 0..20 {
        store.write(&(0..500).map(|at| asked(at, &detail)).collect::<Vec<_>>()).unwrap();
        while store.tidy(now).unwrap() {}
    }
    assert_eq!(results(&mut store), []);
    assert!(requests(&mut store, &[]).len() < 3_000);
    assert!(store.story(&[], IncidentId(1)).unwrap().found.is_some());
}

#[test]
fn a_clock_that_was_set_back_removes_nothing() {
    let place = Place::new();
    let mut store = place.store();
    store.write(&[asked(100 * DAY, "later")]).unwrap();
    while store.tidy(Wall(DAY)).unwrap() {}
    assert_eq!(requests(&mut store, &[]), ["later"]);
}

/// Every version that a release has written, as the statements that made it.
fn old_files() -> Vec<(usize, PathBuf)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/history");
    let path = |version: usize| directory.join(format!("version-{version}.sql"));
    (1..=schema::STEPS.len()).map(|version| (version, path(version))).collect()
}

#[test]
fn a_file_of_every_older_version_is_read_and_gone_on_with() {
    for (version, path) in old_files() {
        let place = Place::new();
        let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{why}: {path:?}"));
        let old = Connection::open(place.path()).unwrap();
        old.execute_batch(&text).unwrap();
        assert_eq!(schema::version(&old).unwrap(), version);
        drop(old);
        let mut store = place.store();
        store.write(&[asked(9, "new")]).unwrap();
        assert_eq!(requests(&mut store, &[]), ["new", "stop web"]);
        let (incident, steps) = store.story(&[], IncidentId(3)).unwrap().found.unwrap();
        assert_eq!((incident.healed_by.as_deref(), steps.len()), (Some("restart"), 4));
        assert_eq!(results(&mut store)[0].runs, 8);
        let samples = store.samples(&[], "load", Wall(0), Wall(i64::MAX)).unwrap().found;
        assert_eq!(samples, [Sample { at: Wall(1_795_434_700_000), value: 0.5 }]);
        let copies = place.files().iter().filter(|name| name.contains(".version-")).count();
        assert_eq!(copies, usize::from(version < schema::STEPS.len()));
        assert_eq!(tables(&place.path()), tables_of_a_new_file(), "version {version}");
    }
}

fn tables(path: &std::path::Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
        .unwrap();
    let words = |sql: String| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    statement.query_map([], |row| Ok(words(row.get(0)?))).unwrap().map(Result::unwrap).collect()
}

fn tables_of_a_new_file() -> Vec<String> {
    let place = Place::new();
    place.store().write(&[asked(1, "x")]).unwrap();
    tables(&place.path())
}

#[test]
fn the_next_version_is_reached_with_a_copy_of_the_one_before_or_not_at_all() {
    let place = Place::new();
    place.store().write(&[asked(1, "a")]).unwrap();
    let mut words = Vec::new();
    let mut steps = schema::STEPS.to_vec();
    let good = "ALTER TABLE asked ADD COLUMN address TEXT; UPDATE asked SET address = 'unix';";
    let mut connection = Connection::open(place.path()).unwrap();
    let from = steps.len();

    // A step that fails in its middle leaves nothing behind.
    steps.extend([good, "CREATE TABLE half (x) STRICT; DROP TABLE missing;"]);
    file::renew(&mut connection, &place.path(), from, &steps, &mut words).unwrap_err();
    assert_eq!(schema::version(&connection).unwrap(), from);
    connection.prepare("SELECT address FROM asked").unwrap_err();
    assert_eq!(words, []);

    steps.pop();
    file::renew(&mut connection, &place.path(), from, &steps, &mut words).unwrap();
    assert_eq!(schema::version(&connection).unwrap(), from + 1);
    let address: String =
        connection.query_row("SELECT address FROM asked", [], |row| row.get(0)).unwrap();
    assert_eq!(address, "unix");
    let copy = place.directory.path().join(format!("mend.db.version-{from}"));
    let mut old = Store::new(copy.clone(), HistoryLimits::default());
    assert_eq!(requests(&mut old, &[]), ["a"]);
    let [Word::Info(text)] = &words[..] else { panic!("{words:?}") };
    assert!(text.contains(copy.to_str().unwrap()), "{text}");
}
