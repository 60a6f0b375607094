//! The OpenAPI document against the routes and the types that it describes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::bench::{NOW, generation, happening, plan, running};
use super::endpoints::OPENAPI;
use super::generations::{generation_view, plan_view};
use super::healing::samples;
use super::history::{asked_view, incident_view, step_view};
use super::routes::ROUTES;
use super::statistics::{statistics_view, streak_view};
use super::view::{
    ActBody, ApplyBody, ApplyView, AuditView, CheckHistoryView, ChecksView, ConfigValueView,
    ConfigView, DaemonView, GenerationsView, HealBody, HealView, HealedView, HoldBody, HoldView,
    IncidentStoryView, IncidentsView, LogLevelBody, LogLineView, OutcomeView, Problem, ProgramView,
    RanView, ReleaseBody, ReloadView, RunBody, RunView, ShutdownView, StatusView, UpgradeBody,
    UpgradeView, VersionView,
};
use super::{act_view, event_view, process_view};
use crate::core::care::IncidentId;
use crate::engine::history::{
    Asked, Checked, Found, FoundCause, Incident, RemedyStatistics, Statistics, Step,
    TargetStatistics,
};
use crate::time::Wall;

fn asked() -> Asked {
    Asked {
        at: Wall(1),
        uid: Some(0),
        user: "root".to_owned(),
        pid: Some(1),
        executable: Some("/bin/mendctl".to_owned()),
        request: "stop web".to_owned(),
        reason: Some("rest".to_owned()),
        outcome: "1 done".to_owned(),
    }
}

fn incident() -> Incident {
    let cause = FoundCause {
        word: "crashed".to_owned(),
        confidence: "certain".to_owned(),
        sentence: "crashed".to_owned(),
        facts: vec!["SIGSEGV".to_owned()],
    };
    Incident {
        id: IncidentId(1),
        target: "web:0".to_owned(),
        program: Some("web".to_owned()),
        opened: Wall(1),
        opening: "was killed".to_owned(),
        check: Some("http".to_owned()),
        cause: Some(cause),
        remedies: 1,
        healed_by: Some("restart".to_owned()),
        recovered: Some(Wall(2)),
        closed: Some(Wall(3)),
        closing: Some("healed".to_owned()),
    }
}

fn step() -> Step {
    Step { at: Wall(1), kind: "ended".to_owned(), sentence: "was killed".to_owned() }
}

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

#[test]
fn the_document_has_exactly_the_routes_of_the_table() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let role = operation["x-role"].as_str().unwrap_or_default();
            described.insert((method.to_ascii_uppercase(), path.clone(), role.to_owned()));
        }
    }
    let routed: BTreeSet<_> = ROUTES
        .iter()
        .map(|it| (it.method.to_string(), it.path.to_owned(), it.role.name().to_owned()))
        .collect();
    assert_eq!(described, routed);
}

#[test]
fn operations_have_names_of_their_own_and_references_lead_somewhere() {
    let document = document();
    let mut names = BTreeSet::new();
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} is there twice");
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn each_schema_has_exactly_the_members_of_its_type() {
    let text = || String::from("x");
    let mut process = process_view(&running(), NOW);
    (process.memory_bytes, process.cpu_seconds) = (Some(1), Some(0.5));
    let daemon = DaemonView {
        version: text(),
        pid: 2,
        keeper_pid: 1,
        started: text(),
        config: text(),
        warnings: vec![text()],
    };
    let status = StatusView {
        schema: 1,
        mode: text(),
        daemon: daemon.clone(),
        programs: vec![process.clone()],
        sessions: Vec::new(),
    };
    let outcome =
        OutcomeView { name: text(), result: text(), message: text(), process: process.clone() };
    let program = ProgramView { schema: 1, name: text(), processes: Vec::new() };
    let act = ActBody {
        names: Vec::new(),
        wait: Some(text()),
        signal: Some(text()),
        reason: Some(text()),
        now: Some(true),
    };
    let lists = Vec::new;
    let reload = ReloadView {
        schema: 1,
        added: lists(),
        removed: lists(),
        restarted: lists(),
        updated: lists(),
        warnings: lists(),
    };
    let version = VersionView {
        schema: 1,
        name: text(),
        version: text(),
        api: text(),
        pid: 2,
        keeper_pid: 1,
    };
    let line = LogLineView { name: text(), stream: text(), at: None, cursor: text(), line: text() };
    let problem =
        Problem { kind: text(), title: text(), status: 400, detail: text(), help: Some(text()) };

    let mut schemas: BTreeSet<String> =
        document()["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    let mut check = |name: &str, example: Value| {
        assert!(schemas.remove(name), "{name} has no schema");
        check_members(name, &example);
    };
    check("StatusView", json(&status));
    check("DaemonView", json(&daemon));
    check("ExitView", json(&process.exit));
    check("ProcessView", json(&process));
    check("ProgramView", json(&program));
    check("ActBody", json(&act));
    check("ActView", json(&act_view(&[], NOW)));
    check("OutcomeView", json(&outcome));
    check("ReloadView", json(&reload));
    check("ShutdownView", json(&ShutdownView { schema: 1, stopped: true }));
    check("UpgradeView", json(&UpgradeView { schema: 1, from: text(), to: text(), event: 1 }));
    let upgrade =
        UpgradeBody { binary: Some(text()), patience: Some(text()), reason: Some(text()) };
    check("UpgradeBody", json(&upgrade));
    let mut plan = plan_view(&plan(), vec![text()]);
    (plan.fingerprint, plan.given_up) = (Some(text()), Some(text()));
    check("PlanView", json(&plan));
    check("ProgramChangeView", json(&plan.programs[4]));
    check("KeyChangeView", json(&plan.settings[0]));
    let apply = ApplyBody {
        timeout: Some(text()),
        no_rollback: true,
        back: true,
        generation: Some(1),
        fingerprint: Some(text()),
        reason: Some(text()),
    };
    check("ApplyBody", json(&apply));
    let generation = generation_view(&generation());
    let result = Some(generation.clone());
    let applied = ApplyView { schema: 1, generation: 1, begun: true, event: 1, plan, result };
    check("ApplyView", json(&applied));
    let generations = vec![generation.clone()];
    let (current, applying) = (Some(1), Some(2));
    let history = GenerationsView { schema: 1, current, applying, generations };
    check("GenerationsView", json(&history));
    check("GenerationView", json(&generation));
    let value = ConfigValueView {
        table: text(),
        key: text(),
        value: Value::Null,
        toml: Some(text()),
        from: text(),
        file: Some(text()),
        line: Some(1),
        words: Some(text()),
        hidden: false,
    };
    check("ConfigValueView", json(&value));
    check("ConfigView", json(&ConfigView { schema: 1, file: text(), values: vec![value] }));
    check_healing(&mut check);
    let trouble = Some(text());
    let entry = asked_view(asked());
    check("AuditEntryView", json(&entry));
    let requests = vec![entry];
    check("AuditView", json(&AuditView { schema: 1, requests, trouble: trouble.clone() }));
    let (incident, step) = (incident_view(incident()), step_view(step()));
    check("CauseView", json(&incident.cause));
    check("IncidentView", json(&incident));
    check("IncidentStepView", json(&step));
    let incidents = vec![incident.clone()];
    check("IncidentsView", json(&IncidentsView { schema: 1, incidents, trouble: trouble.clone() }));
    let story = IncidentStoryView { schema: 1, incident, steps: vec![step], trouble };
    check("IncidentStoryView", json(&story));
    check_statistics(&mut check);
    check("VersionView", json(&version));
    check("LogLevelBody", json(&LogLevelBody { level: text() }));
    check("EventView", json(&event_view(&happening(1))));
    check("LogLineView", json(&line));
    check("Problem", json(&problem));
    assert!(schemas.is_empty(), "no type for {schemas:?}");
}

/// Does so for what the history says in numbers.
fn check_statistics(check: &mut impl FnMut(&str, Value)) {
    let remedy = RemedyStatistics {
        what: "restart".to_owned(),
        verified: 1,
        not_verified: 1,
        not_done: 1,
        abandoned: 1,
        took_total: Duration::from_millis(1_500),
    };
    let target = TargetStatistics {
        target: "web:0".to_owned(),
        incidents: 2,
        open: 1,
        recovered: 1,
        recovery_total: Duration::from_millis(1_500),
        down: Duration::from_millis(2_500),
    };
    let found = Statistics {
        incidents: 2,
        recovered: 1,
        recovery_total: Duration::from_millis(1_500),
        remedies: vec![remedy],
        targets: vec![target],
        period: Some((Wall(0), Wall(10_000))),
        ..Statistics::default()
    };
    let view = statistics_view(Found { found, trouble: Some("x".to_owned()) });
    assert_eq!(view.targets[0].availability, Some(0.75));
    assert_eq!((view.mean_recovery_seconds, view.remedies[0].mean_seconds), (Some(1.5), Some(1.5)));
    check("TargetStatisticsView", json(&view.targets[0]));
    check("RemedyStatisticsView", json(&view.remedies[0]));
    check("StatisticsView", json(&view));
    let streak = streak_view(Checked {
        target: "web:0".to_owned(),
        check: "http".to_owned(),
        verdict: "pass".to_owned(),
        detail: "200".to_owned(),
        first: Wall(1),
        last: Wall(2),
        runs: 2,
        took_least: Duration::from_micros(1_500),
        took_most: Duration::from_micros(2_500),
        took_mean: Duration::from_micros(1_900),
    });
    check("CheckStreakView", json(&streak));
    let trouble = Some("x".to_owned());
    check(
        "CheckHistoryView",
        json(&CheckHistoryView { schema: 1, results: vec![streak], trouble }),
    );
}

/// Does so for checks and healing.
fn check_healing(check: &mut impl FnMut(&str, Value)) {
    let (names, text) = (Vec::new, || Some("x".to_owned()));
    let one = samples::check();
    check("ChecksView", json(&ChecksView { schema: 1, checks: vec![one.clone()] }));
    check("ResultView", json(&one.results[0]));
    check("CheckView", json(&one));
    check("RunBody", json(&RunBody { names: names(), max_age: text() }));
    check("RunView", json(&RunView { schema: 1, results: Vec::new() }));
    let (target, name) = (one.target.clone(), one.check.clone());
    let ran = RanView { target, check: name, result: None, refused: text() };
    check("RanView", json(&ran));
    check("HealBody", json(&HealBody { names: names(), rung: Some(1), reason: text() }));
    check("HealView", json(&HealView { schema: 1, results: Vec::new() }));
    let (name, message) = ("x".to_owned(), "x".to_owned());
    check("HealedView", json(&HealedView { name, accepted: true, message }));
    let time = "1m".to_owned();
    check("HoldBody", json(&HoldBody { names: names(), time, reason: text() }));
    check("ReleaseBody", json(&ReleaseBody { names: names(), panic: true, reason: text() }));
    check("HoldView", json(&HoldView { schema: 1, names: names() }));
    let whys = samples::why();
    let why = &whys.whys[0];
    check("WhysView", json(&whys));
    check("WhyView", json(why));
    check("HeldView", json(&why.hold));
    check("RequiredView", json(&why.waits_for[0]));
    let told = why.incident.as_ref().unwrap();
    check("ToldView", json(told));
    check("StoryView", json(&told.story[0]));
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// Compares names, and types as far as a JSON value shows them.
fn check_members(name: &str, example: &Value) {
    let document = document();
    let schema = &document["components"]["schemas"][name];
    let described: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
    let members = example.as_object().unwrap();
    assert_eq!(described, members.keys().collect(), "{name}");
    for (member, value) in members {
        let allowed = &schema["properties"][member]["type"];
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = match allowed {
            Value::String(one) => one == kind,
            Value::Array(several) => several.iter().any(|one| one == kind),
            // A reference to another schema, which has a check of its own.
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
        };
        assert!(fits, "{name}.{member} is {kind}, the schema says {allowed}");
    }
}
