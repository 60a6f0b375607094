//! Everything about one process, and the last lines it wrote.

use std::fmt::Write;

use anstyle::Style;
use jiff::Timestamp;

use super::follow;
use crate::api::view::{LogLineView, ProcessView};
use crate::client::Context;
use crate::client::http::with_query;
use crate::client::printer::{Look, paint};
use crate::client::{state, when};

/// As many as systemctl shows.
const LINES: &str = "10";

/// Returns the whole picture; output that cannot be had is left out with a word why.
pub(crate) async fn render(context: &Context, process: &ProcessView) -> String {
    let look = context.printer.look;
    let mut text = facts(process, &look, Timestamp::now());
    let query = [("name", process.name.as_str()), ("lines", LINES), ("format", "json")];
    match follow::collect(&context.client, &with_query("/v1/logs", query)).await {
        Ok(lines) if lines.is_empty() => {}
        Ok(lines) => append_lines(&mut text, &lines, &look),
        Err(failure) => text.push_str(&format!("\n(no output: {})\n", failure.whole_text())),
    }
    text
}

fn append_lines(text: &mut String, lines: &[LogLineView], look: &Look) {
    text.push('\n');
    for line in lines {
        let clock = line.at.as_deref().map(when::clock).unwrap_or_default();
        let clock = paint(look.color, Style::new().dimmed(), &clock);
        text.push_str(&format!("{clock} {}\n", follow::printable(&line.line)));
    }
}

/// Returns an amount of memory in the unit that leaves one to four digits.
fn memory(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let (unit, shift) =
        units.into_iter().find(|(_, shift)| bytes >> shift > 0).unwrap_or(("bytes", 0));
    let whole = bytes >> shift;
    // Tenths, from what the shift cut off.
    let tenths = ((bytes - (whole << shift)) * 10) >> shift;
    format!("{whole}.{tenths} {unit}")
}

/// Returns the facts, a line each.
fn facts(process: &ProcessView, look: &Look, now: Timestamp) -> String {
    let tone = state::tone(process);
    let symbol = paint(look.color, state::style(tone), state::symbol(tone, look.unicode));
    let name = paint(look.color, Style::new().bold(), &process.name);
    let word = paint(look.color, state::style(tone), &process.state);
    let mut text = format!("{symbol} {name}: {word}");
    // That a running process is running is said, and how the last run ended has its own line.
    let is_plain = |reason: &str| reason == "running" || reason.starts_with("running; the run");
    let is_said = state::is_running(process) && is_plain(&process.reason);
    if !process.reason.is_empty() && !is_said {
        text.push_str(&format!(", {}", process.reason));
    }
    text.push('\n');
    let mut fact = |label: &str, value: String| {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _always_works = writeln!(text, "{label:>10}: {value}");
        }
    };
    fact("since", format!("{} ({})", process.since, when::ago(&process.since, now)));
    fact("pid", process.pid.map(|pid| pid.to_string()).unwrap_or_default());
    fact(
        "command",
        shlex::try_join(process.command.iter().map(String::as_str)).unwrap_or_default(),
    );
    fact("group", process.group.clone());
    if process.health != "none" {
        fact("health", process.health.clone());
    }
    let tells = |id| format!("{id} in progress; `mendctl why {}` tells", process.name);
    fact("incident", process.incident.map(tells).unwrap_or_default());
    fact("says", process.status_text.clone().unwrap_or_default());
    fact("ready", readiness(process, now));
    fact("memory", process.memory_bytes.map(memory).unwrap_or_default());
    fact("cpu time", process.cpu_seconds.map(|used| format!("{used:.1} s")).unwrap_or_default());
    fact("waits for", process.waiting_for.join(", "));
    fact("restarts", process.restarts.to_string());
    if process.breaker != "closed" || process.failures > 0 {
        let limit = process.failures_limit;
        fact("breaker", format!("{}, {} of {limit} failures", process.breaker, process.failures));
    }
    fact("next try", next_try(process, now));
    if let Some(exit) = &process.exit {
        fact("last exit", format!("{}, {}", exit.text, when::ago(&exit.at, now)));
    }
    fact("goal", goal(process));
    fact("enabled", enabled(process));
    text
}

fn next_try(process: &ProcessView, now: Timestamp) -> String {
    let Some(at) = process.retry_at.as_deref() else { return String::new() };
    let left = when::until(at, now).map(when::short).unwrap_or_default();
    format!("in {left} ({at})")
}

fn readiness(process: &ProcessView, now: Timestamp) -> String {
    let left = process.gives_up_at.as_deref().and_then(|at| when::until(at, now));
    match (process.ready, left) {
        (None, _) => String::new(),
        (Some(true), _) => "yes".to_owned(),
        (Some(false), Some(left)) => format!("no, gives up in {}", when::short(left)),
        (Some(false), None) => "no".to_owned(),
    }
}

fn goal(process: &ProcessView) -> String {
    let mut goal = process.goal.clone();
    if let Some(by) = &process.goal_by {
        goal.push_str(&format!(", set by {by}"));
    }
    if let Some(reason) = &process.goal_reason {
        goal.push_str(&format!(": {reason}"));
    }
    goal
}

/// Says what an operator decided about the start; nothing where `autostart` decides.
fn enabled(process: &ProcessView) -> String {
    let Some(by) = &process.enabled_by else { return String::new() };
    let mut text = format!("{}, by {by}", if process.enabled { "yes" } else { "no" });
    if let Some(reason) = &process.enabled_reason {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(at) = &process.enabled_at {
        text.push_str(&format!(" ({at})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::ExitView;
    use crate::client::fake_daemon::process;

    #[test]
    fn the_facts_say_why_and_what_comes_next() {
        let mut db = process("db", "BACKOFF", None);
        db.reason = "exited with code 3".to_owned();
        db.command = vec!["sh".to_owned(), "-c".to_owned(), "exit 3".to_owned()];
        db.breaker = "half-open".to_owned();
        (db.failures, db.failures_limit, db.restarts) = (4, 5, 7);
        db.retry_at = Some("2026-11-23T12:00:12Z".to_owned());
        db.goal_by = Some("root".to_owned());
        db.goal_reason = Some("after the move".to_owned());
        db.enabled = false;
        db.enabled_by = Some("alice".to_owned());
        db.enabled_reason = Some("moves".to_owned());
        db.enabled_at = Some("2026-11-23T11:00:00Z".to_owned());
        db.exit = Some(ExitView {
            kind: "code".to_owned(),
            code: Some(3),
            signal: None,
            signal_name: None,
            core_dumped: false,
            at: "2026-11-23T11:59:00Z".to_owned(),
            text: "exited with code 3".to_owned(),
        });
        let expected = "\
! db: BACKOFF, exited with code 3
     since: 2026-11-23T10:30:00Z (1h 30m ago)
   command: sh -c 'exit 3'
     group: db
  restarts: 7
   breaker: half-open, 4 of 5 failures
  next try: in 12s (2026-11-23T12:00:12Z)
 last exit: exited with code 3, 1m ago
      goal: up, set by root: after the move
   enabled: no, by alice: moves (2026-11-23T11:00:00Z)
";
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        assert_eq!(facts(&db, &Look::plain(), now), expected);
    }

    #[test]
    fn what_a_start_waits_for_and_what_it_says_are_told() {
        let mut db = process("db", "STARTING", Some(7));
        db.reason = "tcp 127.0.0.1:5432: connection refused; gives up 1 min after its start".into();
        db.status_text = Some("recovering".to_owned());
        (db.ready, db.gives_up_at) = (Some(false), Some("2026-11-23T12:00:12Z".to_owned()));
        let shown = facts(&db, &Look::plain(), "2026-11-23T12:00:00Z".parse().unwrap());
        assert!(shown.contains("      says: recovering\n"), "{shown}");
        assert!(shown.contains("     ready: no, gives up in 12s\n"), "{shown}");
        (db.state, db.ready, db.gives_up_at) = ("RUNNING".to_owned(), Some(true), None);
        let shown = facts(&db, &Look::plain(), Timestamp::now());
        assert!(shown.contains("     ready: yes\n"), "{shown}");
        db.reason = "running; restarted because `db` was replaced".to_owned();
        let shown = facts(&db, &Look::plain(), Timestamp::now());
        assert!(shown.contains("restarted because"), "{shown}");
    }

    #[test]
    fn a_running_process_is_not_said_to_run_twice() {
        let mut web = process("web", "RUNNING", Some(7));
        for reason in ["running", "running; the run before killed by SIGTERM"] {
            web.reason = reason.to_owned();
            let shown = facts(&web, &Look::plain(), Timestamp::now());
            assert!(shown.starts_with("* web: RUNNING\n"), "{shown}");
        }
        web.reason = "blocked".to_owned();
        let shown = facts(&web, &Look::plain(), Timestamp::now());
        assert!(shown.starts_with("* web: RUNNING, blocked\n"), "{shown}");
    }
}
