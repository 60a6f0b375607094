//! `check list`, `check show` and `check run`.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::{Args, Subcommand};
use hyper::Method;
use jiff::Timestamp;

use super::follow::printable;
use crate::api::view::{
    CheckHistoryView, CheckStreakView, CheckView, ChecksView, RanView, ResultView, RunBody, RunView,
};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::client::printer::{Look, paint};
use crate::client::table::{Align, Cell, Column, Table};
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
A check is named web/http; web stands for all of a program, host for those of the host.
The exit code is 8 when one of them is down, or did not pass.

Examples:
  mendctl check list
  mendctl check show web/http
  mendctl check run web";

/// How long a run on demand may take beyond the check's own time limit.
const MARGIN: Duration = Duration::from_secs(120);

/// Most checks that are shown with their history.
const MAX_PASTS: usize = 20;

/// Entries of the history that are shown.
const STREAKS: &str = "10";

#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Show how checks stand
    #[command(after_help = "Examples:\n  mendctl check list\n  mendctl check list web host")]
    List(ListArgs),
    /// Show all that is known of checks: what they ask, their last results, their ladder
    #[command(after_help = "Examples:\n  mendctl check show web/http\n  mendctl check show web")]
    Show(NamedArgs),
    /// Run checks now and show what they find
    #[command(
        after_help = "Examples:\n  mendctl check run web/http\n  mendctl check run web --max-age 10s"
    )]
    Run(RunArgs),
}

#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Checks (web/http), programs (web), host [default: all]
    #[arg(value_name = "NAMES")]
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct NamedArgs {
    /// Checks (web/http), programs (web), host
    #[arg(required = true, value_name = "NAMES")]
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Checks (web/http), programs (web), host
    #[arg(required = true, value_name = "NAMES")]
    pub names: Vec<String>,
    /// A result that is at most so old will do
    #[arg(long, value_name = "DURATION", value_parser = when::parse_duration)]
    pub max_age: Option<Duration>,
}

pub(crate) async fn run(context: &mut Context, args: &CheckArgs) -> Result<Exit, Failure> {
    match &args.what {
        What::List(args) => list(context, &args.names, false).await,
        What::Show(args) => list(context, &args.names, true).await,
        What::Run(args) => run_now(context, args).await,
    }
}

async fn list(context: &mut Context, names: &[String], in_full: bool) -> Result<Exit, Failure> {
    let path = with_query("/v1/checks", names.iter().map(|name| ("name", name.as_str())));
    let answer = context.client.get::<ChecksView>(&path).await.map_err(Failure::when_asking)?;
    let checks = &answer.value.checks;
    let look = context.printer.look;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
    } else if checks.is_empty() {
        context.printer.notice("no checks are configured; `[[program.NAME.check]]` declares one");
    } else if in_full {
        let mut texts = Vec::new();
        for (index, check) in checks.iter().enumerate() {
            let mut text = describe(check, &look, Timestamp::now());
            if index < MAX_PASTS {
                text.push_str(&past(context, check).await?);
            }
            texts.push(text);
        }
        context.printer.text(&texts.join("\n"))?;
    } else {
        context.printer.text(&table(checks, &look, Timestamp::now()))?;
    }
    let is_down = |check: &CheckView| matches!(check.state.as_str(), "down" | "healing" | "broken");
    Ok(if checks.iter().any(is_down) { Exit::Unhealthy } else { Exit::Ok })
}

fn table(checks: &[CheckView], look: &Look, now: Timestamp) -> String {
    let column = |title, align, dispensable| Column { title, align, dispensable };
    let columns = vec![
        column("CHECK", Align::Left, 0),
        column("STATE", Align::Left, 0),
        column("SINCE", Align::Right, 3),
        column("LAST", Align::Left, 1),
        column("AGE", Align::Right, 2),
        column("DETAIL", Align::Left, 4),
    ];
    let row = |check: &CheckView| {
        let age = |at: &str| when::since(at, now).map(when::short).unwrap_or_default();
        vec![
            Cell::plain(format!("{}/{}", check.target, check.check)),
            Cell::new(check.state.as_str(), style(&check.state)),
            Cell::plain(age(&check.since)),
            Cell::plain(check.verdict.clone().unwrap_or_default()),
            Cell::plain(check.at.as_deref().map(age).unwrap_or_default()),
            Cell::plain(check.detail.clone().unwrap_or_default()),
        ]
    };
    let rows = checks.iter().map(row).collect();
    Table { columns, rows }.render(look.width, look.color, look.unicode)
}

/// Returns the style of a state, or of a verdict.
pub(super) fn style(word: &str) -> Style {
    match word {
        "up" | "pass" => AnsiColor::Green.on_default(),
        "none" | "held" | "unknown" => Style::new().dimmed(),
        "down" | "broken" | "fail" | "timeout" => AnsiColor::Red.on_default().bold(),
        _ => AnsiColor::Yellow.on_default(),
    }
}

fn describe(check: &CheckView, look: &Look, now: Timestamp) -> String {
    let name = format!("{}/{}", check.target, check.check);
    let name = paint(look.color, Style::new().bold(), &name);
    let state = paint(look.color, style(&check.state), &check.state);
    let mut text = format!("{name}: {state} since {}\n", when::ago(&check.since, now));
    let mut fact = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _always_works = writeln!(text, "{label:>10}: {value}");
    };
    fact("asks", format!("{} ({})", check.asks, check.kind));
    let seconds = |seconds: f64| match Duration::from_secs_f64(seconds.max(0.0)) {
        time if time < Duration::from_secs(10) => when::exact(time),
        time => when::short(time),
    };
    fact(
        "every",
        format!("{}, at most {}", seconds(check.interval_seconds), seconds(check.timeout_seconds)),
    );
    if let Some(next) = check.next_run.as_deref().and_then(|at| when::until(at, now)) {
        fact("next", format!("in {}", when::short(next)));
    }
    fact("judges", judgement(check));
    if check.role != "live" {
        fact("role", check.role.clone());
    }
    fact("heals", ladder(check));
    if let Some(left) = check.quarantined_until.as_deref().and_then(|at| when::until(at, now)) {
        fact("quarantine", format!("one attempt in {}", when::short(left)));
    }
    for (index, result) in check.results.iter().enumerate() {
        let label = if index == 0 { "results" } else { "" };
        let verdict = paint(look.color, style(&result.verdict), &result.verdict);
        let colon = if index == 0 { ":" } else { " " };
        let _always_works = writeln!(
            text,
            "{label:>10}{colon} {} {verdict} {}",
            when::clock(&result.at),
            said(result)
        );
    }
    text
}

/// Returns the lines of what the history has of a check; that it cannot be read is said aside.
async fn past(context: &mut Context, check: &CheckView) -> Result<String, Failure> {
    let path = format!("/v1/checks/{}/{}/results", check.target, check.check);
    let path = with_query(&path, [("limit", STREAKS)]);
    let found = match context.client.get::<CheckHistoryView>(&path).await {
        Ok(answer) => answer.value,
        // One that is older than this program has no such route.
        Err(Failure::Problem(problem)) if problem.status == 404 => return Ok(String::new()),
        Err(Failure::Problem(problem)) => {
            context.printer.notice(&format!("warning: without its history: {}", problem.detail));
            return Ok(String::new());
        }
        Err(failure) => return Err(failure),
    };
    if let Some(trouble) = &found.trouble {
        context.printer.notice(&format!("warning: this may not be all: {trouble}"));
    }
    Ok(render_past(&found.results, &context.printer.look))
}

fn render_past(streaks: &[CheckStreakView], look: &Look) -> String {
    let mut text = String::new();
    for (index, streak) in streaks.iter().enumerate() {
        let label = if index == 0 { "   history:" } else { "           " };
        let begin = when::date_and_clock(&streak.first);
        let verdict = paint(look.color, style(&streak.verdict), &streak.verdict);
        let times = match streak.runs {
            1 => String::new(),
            runs => format!(" {runs} times until {}", when::clock(&streak.last)),
        };
        let millis = |seconds: f64| format!("{:.0}", seconds * 1_000.0);
        let (least, most) = (millis(streak.took_least_seconds), millis(streak.took_most_seconds));
        let took = if least == most { least } else { format!("{least} to {most}") };
        let detail = printable(&streak.detail);
        let _always_works = writeln!(text, "{label} {begin} {verdict}{times} {detail} ({took} ms)");
    }
    text
}

fn said(result: &ResultView) -> String {
    let millis = result.took_seconds * 1_000.0;
    format!("{} ({millis:.0} ms)", result.detail)
}

fn judgement(check: &CheckView) -> String {
    let mut text = format!("{} failures are down, {} passes up", check.fall, check.rise);
    for (count, word) in [(check.fails, "failed"), (check.unknowns, "could not look")] {
        let _always_works = match count {
            0 => Ok(()),
            1 => write!(text, "; {word} once"),
            _ => write!(text, "; {word} {count} times in a row"),
        };
    }
    text
}

/// Names the rungs, the next one marked.
fn ladder(check: &CheckView) -> String {
    if check.heal.is_empty() {
        return "nothing, only tells".to_owned();
    }
    let next = usize::try_from(check.next_rung).unwrap_or(usize::MAX);
    let rung = |(index, word): (usize, &String)| match index + 1 == next {
        true => format!("[{word}]"),
        false => word.clone(),
    };
    let rungs: Vec<String> = check.heal.iter().enumerate().map(rung).collect();
    let observes = if check.observes { "; only observes" } else { "" };
    format!("{}{observes}", rungs.join(", "))
}

async fn run_now(context: &mut Context, args: &RunArgs) -> Result<Exit, Failure> {
    let body = RunBody { names: args.names.clone(), max_age: args.max_age.map(when::exact) };
    let client = context.client.clone();
    let answer =
        client.send::<RunBody, RunView>(Method::POST, "/v1/checks/run", &body, MARGIN).await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
    } else {
        for ran in &answer.value.results {
            let line = ran_line(ran, &context.printer.look);
            context.printer.line(&line)?;
        }
    }
    let passed = |ran: &RanView| {
        ran.result.as_ref().is_some_and(|it| matches!(it.verdict.as_str(), "pass" | "warn"))
    };
    let results = &answer.value.results;
    Ok(if results.iter().all(passed) { Exit::Ok } else { Exit::Unhealthy })
}

fn ran_line(ran: &RanView, look: &Look) -> String {
    let name = format!("{}/{}", ran.target, ran.check);
    match (&ran.result, &ran.refused) {
        (Some(result), _) => {
            let verdict = paint(look.color, style(&result.verdict), &result.verdict);
            format!("{name}: {verdict}, {}", said(result))
        }
        (None, Some(why)) => format!("{name}: not run, {why}"),
        (None, None) => format!("{name}: not run"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A check that has failed once.
    pub(crate) fn view() -> CheckView {
        let result = |verdict: &str, detail: &str| ResultView {
            at: "not a time".to_owned(),
            verdict: verdict.to_owned(),
            detail: detail.to_owned(),
            took_seconds: 0.012,
        };
        let last = result("fail", "connection refused");
        CheckView {
            target: "web:0".to_owned(),
            check: "http".to_owned(),
            kind: "http".to_owned(),
            asks: "http://127.0.0.1:8000/".to_owned(),
            role: "live".to_owned(),
            state: "suspect".to_owned(),
            since: "2026-11-23T11:59:00Z".to_owned(),
            verdict: Some(last.verdict.clone()),
            detail: Some(last.detail.clone()),
            at: Some("2026-11-23T11:59:58Z".to_owned()),
            took_seconds: Some(0.012),
            warning: false,
            passes: 0,
            fails: 1,
            unknowns: 0,
            fall: 3,
            rise: 2,
            interval_seconds: 10.0,
            timeout_seconds: 5.0,
            next_run: Some("2026-11-23T12:00:02Z".to_owned()),
            heal: vec!["reload".to_owned(), "restart".to_owned()],
            next_rung: 2,
            quarantined_until: None,
            observes: true,
            builtin: false,
            results: vec![last, result("pass", "answered 200 OK")],
        }
    }

    #[test]
    fn a_check_is_described_with_its_ladder_and_results() {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let expected = "\
web:0/http: suspect since 1m ago
      asks: http://127.0.0.1:8000/ (http)
     every: 10s, at most 5s
      next: in 2s
    judges: 3 failures are down, 2 passes up; failed once
     heals: reload, [restart]; only observes
   results: not a time fail connection refused (12 ms)
            not a time pass answered 200 OK (12 ms)
";
        assert_eq!(describe(&view(), &Look::plain(), now), expected);
    }

    #[test]
    fn the_past_is_told_in_streaks() {
        let streak = |verdict: &str, runs, most| CheckStreakView {
            target: "web:0".to_owned(),
            check: "http".to_owned(),
            verdict: verdict.to_owned(),
            detail: "said\u{1b}[2J so".to_owned(),
            first: "then".to_owned(),
            last: "later".to_owned(),
            runs,
            took_least_seconds: 0.004,
            took_mean_seconds: 0.005,
            took_most_seconds: most,
        };
        let text =
            render_past(&[streak("fail", 1, 0.004), streak("pass", 360, 0.012)], &Look::plain());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("   history: then fail said"), "{text}");
        assert!(lines[0].ends_with(" so (4 ms)") && !text.contains('\u{1b}'), "{text:?}");
        assert!(lines[1].starts_with("            then pass 360 times until later said"), "{text}");
        assert!(lines[1].ends_with("(4 to 12 ms)"), "{text}");
        assert_eq!(render_past(&[], &Look::plain()), "");
    }

    #[test]
    fn the_table_has_a_line_for_each_check() {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let table = table(&[view()], &Look::plain(), now);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "web:0/http  suspect     1m  fail   2s  connection refused");
    }

    #[test]
    fn what_could_not_be_run_is_said() {
        let (target, check) = ("web".to_owned(), "http".to_owned());
        let refused = Some("it does not run".to_owned());
        let ran = RanView { target, check, result: None, refused };
        assert_eq!(ran_line(&ran, &Look::plain()), "web/http: not run, it does not run");
    }
}
