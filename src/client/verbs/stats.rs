//! `stats`: what healing has achieved, and how well everything was.

use anstyle::Style;
use clap::Args;

use crate::api::view::{RemedyStatisticsView, StatisticsView, TargetStatisticsView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::client::printer::Look;
use crate::client::table::{Align, Cell, Column, Table};
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
MTTR is the mean time from the beginning of an incident until all was well again; what is not
available is the time in between. HELPED counts what the checks have proved.

Examples:
  mendctl stats
  mendctl stats web --since 7d
  mendctl stats --json | jq '.targets[] | {target, availability}'";

#[derive(Debug, Clone, Args)]
pub struct StatsArgs {
    /// A program, one of its processes, or host [default: all]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only since then: 7d, or an RFC 3339 time [default: all that is kept]
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

pub(crate) async fn run(context: &mut Context, args: &StatsArgs) -> Result<Exit, Failure> {
    let mut query = when::since_and_until(args.since.as_deref(), None)?;
    if let Some(name) = &args.name {
        query.push(("program", name.clone()));
    }
    let pairs = query.iter().map(|(key, value)| (*key, value.as_str()));
    let answer = context.client.get::<StatisticsView>(&with_query("/v1/statistics", pairs)).await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
        return Ok(Exit::Ok);
    }
    let text = render(&answer.value, &context.printer.look);
    context.printer.text(&text)?;
    if let Some(trouble) = &answer.value.trouble {
        context.printer.notice(&format!("warning: this may not be all: {trouble}"));
    }
    Ok(Exit::Ok)
}

fn render(statistics: &StatisticsView, look: &Look) -> String {
    let Some(since) = &statistics.since else { return "nothing is known yet\n".to_owned() };
    let mut text = format!("since {}: {}\n", when::date_and_clock(since), summary(statistics));
    let table = |columns: Vec<Column>, rows| {
        format!("\n{}", Table { columns, rows }.render(look.width, look.color, look.unicode))
    };
    let right = |title, dispensable| Column { title, align: Align::Right, dispensable };
    let left = |title| Column { title, align: Align::Left, dispensable: 0 };
    if !statistics.targets.is_empty() {
        let columns = vec![
            left("TARGET"),
            right("INCIDENTS", 1),
            right("OPEN", 3),
            right("MTTR", 0),
            right("DOWN", 2),
            right("AVAILABLE", 0),
        ];
        text.push_str(&table(columns, statistics.targets.iter().map(target_row).collect()));
    }
    if !statistics.remedies.is_empty() {
        let columns = vec![
            left("REMEDY"),
            right("TRIED", 0),
            right("HELPED", 1),
            right("SUCCESS", 0),
            right("TOOK", 2),
        ];
        text.push_str(&table(columns, statistics.remedies.iter().map(remedy_row).collect()));
    }
    text
}

fn summary(statistics: &StatisticsView) -> String {
    let mut text = match statistics.incidents {
        0 => "no incidents".to_owned(),
        1 => "1 incident".to_owned(),
        count => format!("{count} incidents"),
    };
    let parts = [
        (statistics.healed, "healed"),
        (statistics.by_itself, "over by themselves"),
        (statistics.open, "open"),
    ];
    for (count, word) in parts.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {word}"));
    }
    if let Some(mean) = statistics.mean_recovery_seconds {
        text.push_str(&format!("; MTTR {}", when::span(mean)));
    }
    text
}

fn target_row(target: &TargetStatisticsView) -> Vec<Cell> {
    let open = if target.open > 0 { target.open.to_string() } else { String::new() };
    vec![
        Cell::new(target.target.as_str(), Style::new()),
        Cell::plain(target.incidents.to_string()),
        Cell::plain(open),
        Cell::plain(target.mean_recovery_seconds.map(when::span).unwrap_or_default()),
        Cell::plain(when::span(target.down_seconds)),
        Cell::plain(target.availability.map(|part| percent(part, 3)).unwrap_or_default()),
    ]
}

fn remedy_row(remedy: &RemedyStatisticsView) -> Vec<Cell> {
    let tried = remedy.verified + remedy.not_verified + remedy.not_done;
    vec![
        Cell::plain(remedy.remedy.as_str()),
        Cell::plain(tried.to_string()),
        Cell::plain(remedy.verified.to_string()),
        Cell::plain(remedy.success.map(|part| percent(part, 0)).unwrap_or_default()),
        Cell::plain(remedy.mean_seconds.map(when::span).unwrap_or_default()),
    ]
}

/// Writes a part of 1 with so many decimals, rounded down: only all of it is 100 %.
fn percent(part: f64, decimals: i32) -> String {
    let steps = 10_f64.powi(decimals);
    // A step less than exact is the arithmetic's, not the world's.
    let percent = (part * 100.0 * steps + 1e-6).floor() / steps;
    format!("{percent:.*}%", usize::try_from(decimals).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics() -> StatisticsView {
        let target = |target: &str, open, mean, down_seconds, availability| TargetStatisticsView {
            target: target.to_owned(),
            incidents: 2,
            open,
            mean_recovery_seconds: mean,
            down_seconds,
            availability: Some(availability),
        };
        let remedy = RemedyStatisticsView {
            remedy: "restart".to_owned(),
            verified: 2,
            not_verified: 1,
            not_done: 0,
            abandoned: 4,
            success: Some(2.0 / 3.0),
            mean_seconds: Some(2.5),
        };
        StatisticsView {
            schema: 1,
            since: Some("then".to_owned()),
            until: Some("now".to_owned()),
            incidents: 4,
            open: 1,
            healed: 2,
            by_itself: 1,
            mean_recovery_seconds: Some(0.25),
            targets: vec![
                target("web:0", 1, Some(0.25), 3_720.0, 0.999_999_9),
                target("host", 0, None, 0.0, 1.0),
            ],
            remedies: vec![remedy],
            trouble: None,
        }
    }

    #[test]
    fn what_was_down_is_never_available_all_the_time() {
        let expected = "\
since then: 4 incidents, 2 healed, 1 over by themselves, 1 open; MTTR 250ms

TARGET  INCIDENTS  OPEN   MTTR   DOWN  AVAILABLE
web:0           2     1  250ms  1h 2m    99.999%
host            2                 0ms   100.000%

REMEDY   TRIED  HELPED  SUCCESS  TOOK
restart      3       2      66%    2s
";
        assert_eq!(render(&statistics(), &Look::plain()), expected);
    }

    #[test]
    fn nothing_that_happened_is_said_and_nothing_that_is_known_as_well() {
        let mut none = StatisticsView {
            incidents: 0,
            open: 0,
            healed: 0,
            by_itself: 0,
            mean_recovery_seconds: None,
            targets: Vec::new(),
            remedies: Vec::new(),
            ..statistics()
        };
        assert_eq!(render(&none, &Look::plain()), "since then: no incidents\n");
        none.since = None;
        assert_eq!(render(&none, &Look::plain()), "nothing is known yet\n");
    }
}
