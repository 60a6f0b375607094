//! `why`: why something is as it is, as a story.

use std::fmt::Write as _;

use anstyle::Style;
use clap::Args;
use jiff::Timestamp;

use super::check;
use crate::api::view::{CheckView, ToldView, WhyView, WhysView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::client::printer::{Look, paint};
use crate::client::{state, when};

pub(crate) const EXAMPLES: &str = "\
Tells the state, what the checks say, and the story of the incident in progress or of the last
one: how it was noticed, what it was taken for, what was done, and whether that has helped.
Without names it tells of whatever is not well.

Examples:
  mendctl why web
  mendctl why host";

#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// Processes (web:0), programs (web, web:*), groups (@site), globs (w*), host
    #[arg(value_name = "NAMES")]
    pub names: Vec<String>,
}

pub(crate) async fn run(context: &mut Context, args: &WhyArgs) -> Result<Exit, Failure> {
    let path = with_query("/v1/why", args.names.iter().map(|name| ("name", name.as_str())));
    let answer = context.client.get::<WhysView>(&path).await.map_err(Failure::when_asking)?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
        return Ok(Exit::Ok);
    }
    let whys = &answer.value;
    let is_wanted = |why: &&WhyView| !args.names.is_empty() || !is_well(why);
    let wanted: Vec<&WhyView> = whys.whys.iter().filter(is_wanted).collect();
    let look = context.printer.look;
    let now = Timestamp::now();
    let texts: Vec<String> = wanted.iter().map(|why| render(why, &look, now)).collect();
    context.printer.text(&texts.join("\n"))?;
    if wanted.is_empty() {
        context.printer.line("everything is well")?;
    }
    if whys.mode != "normal" && !whys.mode_reasons.is_empty() {
        let reasons = whys.mode_reasons.join("; ");
        context.printer.notice(&format!("the mode is {}: {reasons}", whys.mode));
    }
    Ok(Exit::Ok)
}

/// Whether there is nothing to tell of somebody who asks for nobody by name.
fn is_well(why: &WhyView) -> bool {
    let is_quiet = match &why.process {
        Some(process) => {
            matches!(state::tone(process), state::Tone::Good | state::Tone::Quiet)
        }
        None => matches!(why.health.as_str(), "none" | "up"),
    };
    is_quiet && why.hold.is_none() && why.incident.as_ref().is_none_or(|told| !told.open)
}

fn render(why: &WhyView, look: &Look, now: Timestamp) -> String {
    let name = paint(look.color, Style::new().bold(), &why.name);
    let mut text = match &why.process {
        Some(process) => {
            let word = paint(look.color, state::style(state::tone(process)), &process.state);
            let reason = match process.reason.as_str() {
                "" | "running" => String::new(),
                reason => format!(", {reason}"),
            };
            format!("{name}: {word}{reason}\n")
        }
        None => format!("{name}: the machine itself\n"),
    };
    // Writing to a string cannot fail.
    let mut say = |sentence: String| {
        let _always_works = writeln!(text, "  {sentence}");
    };
    if let Some(hold) = &why.hold {
        let left = when::until(&hold.until, now).map(when::short).unwrap_or_default();
        let reason = hold.reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        say(format!("{} is on hold for another {left}, by {}{reason}", why.name, hold.by));
    } else if let Some(standing) = &why.standing {
        say(format!("{} {standing}", why.name));
    }
    for required in &why.waits_for {
        say(format!("it requires {}, which is {}", required.name, required.state));
    }
    for check in &why.checks {
        say(check_line(check, look));
    }
    if let Some(told) = &why.incident {
        text.push_str(&story(told, look, now));
    } else if why.checks.is_empty() && why.process.is_some() {
        say("nothing has happened to it, and it has no checks".to_owned());
    }
    text
}

fn check_line(check: &CheckView, look: &Look) -> String {
    let state = paint(look.color, check::style(&check.state), &check.state);
    let mut line = format!("check {} is {state}", check.check);
    if let (Some(verdict), Some(detail)) = (&check.verdict, &check.detail) {
        let _always_works = write!(line, "; last it said {verdict}: {detail}");
    }
    line
}

fn story(told: &ToldView, look: &Look, now: Timestamp) -> String {
    let began = told.story.first().map(|entry| entry.at.as_str()).unwrap_or_default();
    let state = if told.open { "in progress" } else { "over" };
    let mut text = format!(
        "  incident {} is {state}; it began {} ({})\n",
        told.id,
        when::ago(began, now),
        when::date_and_clock(began)
    );
    for entry in &told.story {
        let clock = paint(look.color, Style::new().dimmed(), &when::clock(&entry.at));
        let sentence: String =
            entry.sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _always_works = writeln!(text, "    {clock} {sentence}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::{HeldView, RequiredView, StoryView};
    use crate::client::fake_daemon::process;

    fn why() -> WhyView {
        let entry = |what: &str, sentence: &str| StoryView {
            at: "not a time".to_owned(),
            what: what.to_owned(),
            sentence: sentence.to_owned(),
        };
        WhyView {
            name: "web:0".to_owned(),
            process: Some(process("web:0", "RUNNING", Some(7))),
            health: "down".to_owned(),
            standing: Some("gets its next remedy in 12 s".to_owned()),
            hold: None,
            waits_for: vec![RequiredView { name: "db".to_owned(), state: "down".to_owned() }],
            checks: vec![check::tests::view()],
            incident: Some(ToldView {
                id: 7,
                open: true,
                story: vec![
                    entry("failed", "is down: check `http` says connection refused"),
                    entry("cause", "runs, but nobody listens"),
                ],
            }),
        }
    }

    #[test]
    fn the_reasons_come_first_and_the_story_after_them() {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let expected = "\
web:0: RUNNING
  web:0 gets its next remedy in 12 s
  it requires db, which is down
  check http is suspect; last it said fail: connection refused
  incident 7 is in progress; it began not a time (not a time)
    not a time is down: check `http` says connection refused
    not a time runs, but nobody listens
";
        assert_eq!(render(&why(), &Look::plain(), now), expected);
    }

    #[test]
    fn a_hold_is_told_with_who_and_until_when() {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let mut why = why();
        why.hold = Some(HeldView {
            until: "2026-11-23T12:30:00Z".to_owned(),
            by: "alice".to_owned(),
            reason: Some("moves".to_owned()),
        });
        let text = render(&why, &Look::plain(), now);
        let line = "  web:0 is on hold for another 30m, by alice: moves\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_is_well_is_told_of_only_by_name() {
        let mut why = why();
        assert!(!is_well(&why));
        why.incident = None;
        assert!(is_well(&why));
        why.process.as_mut().unwrap().health = "down".to_owned();
        assert!(!is_well(&why));
    }
}
