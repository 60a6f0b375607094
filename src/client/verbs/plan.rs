//! `plan`: what the changed files would do, and why.

use anstyle::{AnsiColor, Style};
use clap::Args;

use crate::api::view::{KeyChangeView, PlanView, ProgramChangeView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::Answer;
use crate::client::printer::{Look, paint};

pub(crate) const EXAMPLES: &str = "\
Shows what `mendctl apply` would start, stop, restart (and for which keys) and change in
place. Values of environment variables are never shown. The exit code is 0 when nothing would
change, 10 when something would, 78 when the files have mistakes.

Examples:
  mendctl plan
  mendctl plan --json | jq .summary";

#[derive(Debug, Clone, Args)]
pub struct PlanArgs {}

pub(crate) async fn run(context: &mut Context, _args: &PlanArgs) -> Result<Exit, Failure> {
    let answer = context.client.get::<PlanView>("/v1/plan").await?;
    show(context, &answer)?;
    if answer.value.changes && !context.printer.json {
        context.printer.notice("`mendctl apply` does it");
    }
    Ok(if answer.value.changes { Exit::Changes } else { Exit::Ok })
}

/// Prints a plan, with `--json` as the daemon wrote it.
pub(super) fn show(context: &mut Context, answer: &Answer<PlanView>) -> Result<(), Failure> {
    if context.printer.json {
        return context.printer.raw_document(&answer.raw);
    }
    let text = render(&answer.value, &context.printer.look);
    context.printer.text(&text)?;
    aside(context, &answer.value);
    Ok(())
}

/// Says what a plan has beside the changes.
pub(super) fn aside(context: &mut Context, plan: &PlanView) {
    for warning in &plan.warnings {
        context.printer.notice(&format!("warning: {warning}"));
    }
    if let Some(what) = &plan.given_up {
        context.printer.notice(&format!("warning: these files were applied before: {what}"));
    }
}

/// Draws a plan: a line for each program, the keys below it.
pub(super) fn render(plan: &PlanView, look: &Look) -> String {
    let mut text = String::new();
    for program in &plan.programs {
        let (mark, colour, what) = describe(program);
        let line = format!("{mark} {}: {what}", program.name);
        text.push_str(&paint(look.color, colour, &line));
        text.push('\n');
        for key in &program.keys {
            text.push_str(&format!("      {}\n", key_line(key, look)));
        }
    }
    if !plan.settings.is_empty() {
        let line = "~ settings of the daemon";
        text.push_str(&paint(look.color, AnsiColor::Cyan.on_default(), line));
        text.push('\n');
    }
    for key in &plan.settings {
        text.push_str(&format!("      {}\n", key_line(key, look)));
    }
    if text.is_empty() {
        text.push_str("nothing would change\n");
    }
    text
}

fn describe(program: &ProgramChangeView) -> (char, Style, String) {
    let yellow = AnsiColor::Yellow.on_default();
    match (program.action.as_str(), &program.because) {
        ("start", _) => ('+', AnsiColor::Green.on_default(), "starts".to_owned()),
        ("stop", _) => ('-', AnsiColor::Red.on_default(), "stops".to_owned()),
        ("restart", Some(other)) => ('!', yellow, format!("restarts together with `{other}`")),
        ("restart", None) => ('!', yellow, "restarts".to_owned()),
        ("restart-in-turn", _) => ('!', yellow, "restarts, one replica after the other".to_owned()),
        ("update", _) => ('~', AnsiColor::Cyan.on_default(), "changes in place".to_owned()),
        (other, _) => ('~', Style::new(), other.to_owned()),
    }
}

fn key_line(key: &KeyChangeView, look: &Look) -> String {
    let arrow = if look.unicode { "→" } else { "->" };
    let dim = |text: &str| paint(look.color, Style::new().dimmed(), text);
    let is_hidden = key.key.starts_with("environment.");
    let change = match (&key.old, &key.new) {
        (None, _) if is_hidden => "set".to_owned(),
        (_, None) if is_hidden => "unset".to_owned(),
        _ if is_hidden => "changed".to_owned(),
        (old, new) => {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| dim("(not set)"));
            format!("{} {arrow} {}", value(old), value(new))
        }
    };
    let when = match key.effect.as_str() {
        "daemon-restart" => dim(" (when the daemon is started again)"),
        _ => String::new(),
    };
    format!("{}: {change}{when}", key.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_as_what_happens_and_why() {
        let key = |key: &str, old: Option<&str>, new: Option<&str>, effect: &str| KeyChangeView {
            key: key.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
            effect: effect.to_owned(),
        };
        let program = |name: &str, action: &str, because: Option<&str>, keys| ProgramChangeView {
            name: name.to_owned(),
            action: action.to_owned(),
            because: because.map(str::to_owned),
            keys,
        };
        let hidden = Some("(hidden)");
        let plan = PlanView {
            schema: 1,
            changes: true,
            summary: String::new(),
            fingerprint: None,
            programs: vec![
                program("new", "start", None, vec![]),
                program("gone", "stop", None, vec![]),
                program(
                    "db",
                    "restart",
                    None,
                    vec![
                        key("nice", None, Some("5"), "restart"),
                        key("environment.TOKEN", hidden, hidden, "restart"),
                    ],
                ),
                program("web", "restart", Some("db"), vec![]),
                program("api", "update", None, vec![key("logs.keep", Some("10"), Some("3"), "")]),
            ],
            settings: vec![key("supervisor.nofile", Some("1"), Some("2"), "daemon-restart")],
            warnings: vec![],
            given_up: None,
        };
        let expected = "\
+ new: starts
- gone: stops
! db: restarts
      nice: (not set) -> 5
      environment.TOKEN: changed
! web: restarts together with `db`
~ api: changes in place
      logs.keep: 10 -> 3
~ settings of the daemon
      supervisor.nofile: 1 -> 2 (when the daemon is started again)
";
        assert_eq!(render(&plan, &Look::plain()), expected);
    }
}
