//! `status`: a table, or for one process everything that is known.

use std::time::Duration;

use anstyle::Style;
use clap::Args;
use jiff::Timestamp;

use super::detail;
use super::events::{Events, Step};
use crate::api::view::{ProcessView, StatusView};
use crate::client::Context;
use crate::client::cli::SomeNames;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::{Answer, with_query};
use crate::client::printer::Look;
use crate::client::state;
use crate::client::table::{Align, Cell, Column, Table};
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
One process is shown in full, several as a table. The exit code is 3 when something
named is not running, or without names when something that should run does not.

Examples:
  mendctl status
  mendctl status web:0";

const CLEAR: &str = "\x1b[H\x1b[J";
/// Events come in bursts; one picture shows them all.
const COALESCE: Duration = Duration::from_millis(50);
/// The times on the screen grow by themselves.
const REDRAW: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub names: SomeNames,
    /// Do not fit the table to the terminal
    #[arg(long, short)]
    pub wide: bool,
    /// Stay and show every change
    #[arg(long)]
    pub watch: bool,
}

pub(crate) async fn run(context: &mut Context, args: &StatusArgs) -> Result<Exit, Failure> {
    if args.watch {
        return watch(context, args).await;
    }
    let answer = get(context, &args.names.names).await?;
    context.compare_version(&answer.value.daemon.version, answer.value.schema);
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
    } else {
        let text = match one_named(&args.names.names, &answer.value.programs) {
            Some(process) => detail::render(context, process).await,
            None => render(&answer.value, &context.printer.look, args.wide, Timestamp::now()),
        };
        context.printer.text(&text)?;
        warn(context, &answer.value);
    }
    Ok(state::verdict(&answer.value.programs, !args.names.names.is_empty()))
}

pub(crate) async fn get(
    context: &Context,
    names: &[String],
) -> Result<Answer<StatusView>, Failure> {
    let path = with_query("/v1/status", names.iter().map(|name| ("name", name.as_str())));
    context.client.get::<StatusView>(&path).await.map_err(Failure::when_asking)
}

/// Returns the process when exactly one was asked for by name.
fn one_named<'a>(names: &[String], processes: &'a [ProcessView]) -> Option<&'a ProcessView> {
    match (names, processes) {
        ([name], [process]) if !name.contains(['*', '?', '[', '@']) && name != "all" => {
            Some(process)
        }
        _ => None,
    }
}

fn warn(context: &mut Context, status: &StatusView) {
    for warning in &status.daemon.warnings {
        context.printer.notice(&format!("warning: {warning}"));
    }
    if status.mode == "stopping" {
        context.printer.notice(&format!("mendd is {}", status.mode));
    }
}

/// Lays out the table.
fn render(status: &StatusView, look: &Look, wide: bool, now: Timestamp) -> String {
    if status.programs.is_empty() {
        return "no programs are configured\n".to_owned();
    }
    let column = |title, align, dispensable| Column { title, align, dispensable };
    let columns = vec![
        column("NAME", Align::Left, 0),
        column("STATE", Align::Left, 0),
        column("PID", Align::Right, 1),
        column("SINCE", Align::Right, 2),
        column("RESTARTS", Align::Right, 3),
        column("DETAIL", Align::Left, 4),
    ];
    let rows = status.programs.iter().map(|process| row(process, look.unicode, now)).collect();
    let width = look.width.filter(|_| !wide);
    Table { columns, rows }.render(width, look.color, look.unicode)
}

fn row(process: &ProcessView, unicode: bool, now: Timestamp) -> Vec<Cell> {
    let tone = state::tone(process);
    let state_text = format!("{} {}", state::symbol(tone, unicode), process.state);
    let pid = process.pid.map(|pid| pid.to_string()).unwrap_or_default();
    let since = when::since(&process.since, now).map(when::short).unwrap_or_default();
    let dim = Style::new().dimmed();
    vec![
        Cell::plain(process.name.as_str()),
        Cell::new(state_text, state::style(tone)),
        Cell::plain(pid),
        Cell::plain(since),
        Cell::new(
            process.restarts.to_string(),
            if process.restarts == 0 { dim } else { Style::new() },
        ),
        Cell::plain(state::detail(process, now)),
    ]
}

/// Shows the status again after every event, and over restarts of the daemon.
async fn watch(context: &mut Context, args: &StatusArgs) -> Result<Exit, Failure> {
    let mut interrupt = context.interrupts.listen();
    let mut events = Events::open(&context.client).await?;
    let mut shown = get(context, &args.names.names).await?;
    draw(context, &shown, args, true)?;
    let mut is_stale = false;
    loop {
        let pause = if is_stale { COALESCE } else { REDRAW };
        tokio::select! {
            () = interrupt.wait() => return Ok(Exit::Interrupted),
            step = events.next() => match step? {
                Step::Event { .. } | Step::Again => is_stale = true,
                Step::Lost => context.printer.notice("mendd is gone, waiting for it to return"),
            },
            () = tokio::time::sleep(pause) => {
                let had_news = is_stale;
                if is_stale {
                    is_stale = false;
                    match get(context, &args.names.names).await {
                        Ok(answer) => shown = answer,
                        Err(failure) if failure.is_transient() => {}
                        Err(failure) => return Err(failure),
                    }
                }
                draw(context, &shown, args, had_news)?;
            }
        }
    }
}

/// Draws the picture; where there is no terminal, only when there is news.
fn draw(
    context: &mut Context,
    answer: &Answer<StatusView>,
    args: &StatusArgs,
    has_news: bool,
) -> Result<(), Failure> {
    let look = context.printer.look;
    if context.printer.json {
        return if has_news { context.printer.raw_document(&answer.raw) } else { Ok(()) };
    }
    let text = render(&answer.value, &look, args.wide, Timestamp::now());
    if !look.out_is_terminal {
        return if has_news { context.printer.text(&format!("{text}\n")) } else { Ok(()) };
    }
    let room = look.height.unwrap_or(24).saturating_sub(1);
    let lines: Vec<&str> = text.lines().take(room).collect();
    context.printer.text(&format!("{CLEAR}{}\n", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake_daemon::{process, status};

    const NOW: &str = "2026-11-23T12:00:00Z";

    fn picture(width: Option<usize>) -> String {
        let mut web = process("web:0", "RUNNING", Some(4711));
        web.restarts = 2;
        let mut db = process("db", "BACKOFF", None);
        db.since = "2026-11-23T11:59:30Z".to_owned();
        db.retry_at = Some("2026-11-23T12:00:12Z".to_owned());
        (db.failures, db.failures_limit) = (4, 5);
        db.reason = "exited with code 3".to_owned();
        let look = Look { width, ..Look::plain() };
        render(&status(vec![web, db]), &look, false, NOW.parse().unwrap())
    }

    #[test]
    fn the_table_says_what_runs_and_when_the_rest_is_tried_again() {
        let expected = "\
NAME   STATE       PID   SINCE  RESTARTS  DETAIL
web:0  * RUNNING  4711  1h 30m         2
db     ! BACKOFF           30s         0  next try in 12s, failed 4 of 5; exited with code 3
";
        assert_eq!(picture(None), expected);
    }

    #[test]
    fn a_narrow_terminal_keeps_names_and_states() {
        let expected = "\
NAME   STATE       PID
web:0  * RUNNING  4711
db     ! BACKOFF
";
        assert_eq!(picture(Some(24)), expected);
    }

    #[test]
    fn only_a_plain_name_of_one_process_is_shown_in_full() {
        let processes = [process("web", "RUNNING", Some(1))];
        assert!(one_named(&["web".to_owned()], &processes).is_some());
        assert!(one_named(&["w*".to_owned()], &processes).is_none());
        assert!(one_named(&[], &processes).is_none());
    }

    #[test]
    fn without_names_what_was_stopped_on_purpose_is_well() {
        let mut stopped = process("web", "STOPPED", None);
        stopped.goal = "down".to_owned();
        assert_eq!(state::verdict(std::slice::from_ref(&stopped), false), Exit::Ok);
        assert_eq!(state::verdict(&[stopped], true), Exit::NotRunning);
        let fatal = process("web", "FATAL", None);
        assert_eq!(state::verdict(&[fatal], false), Exit::NotRunning);
        let mut ill = process("web", "RUNNING", Some(1));
        ill.health = "down".to_owned();
        assert_eq!(state::verdict(&[ill], true), Exit::Unhealthy);
    }
}
