//! `audit`: who asked for what, and what became of it.

use anstyle::Style;
use clap::Args;

use crate::api::view::{AuditEntryView, AuditView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::client::printer::Look;
use crate::client::table::{Align, Cell, Column, Table};
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
Every request for a change is kept, also one that was refused; the newest is shown last.

Examples:
  mendctl audit --since 1d
  mendctl audit --user alice --limit 20
  mendctl audit --json | jq '.requests[] | select(.outcome | startswith(\"denied\"))'";

#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Only what is newer: 10m, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what is older: 10m, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only what this user asked for, by name or number
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// At most so many, the newest
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub limit: u32,
}

pub(crate) async fn run(context: &mut Context, args: &AuditArgs) -> Result<Exit, Failure> {
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit)];
    query.extend(when::since_and_until(args.since.as_deref(), args.until.as_deref())?);
    if let Some(user) = &args.user {
        query.push(("user", user.clone()));
    }
    let pairs = query.iter().map(|(key, value)| (*key, value.as_str()));
    let answer = context.client.get::<AuditView>(&with_query("/v1/audit", pairs)).await?;
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

fn render(audit: &AuditView, look: &Look) -> String {
    if audit.requests.is_empty() {
        return "nobody has asked for a change\n".to_owned();
    }
    let column = |title, align, dispensable| Column { title, align, dispensable };
    let columns = vec![
        column("TIME", Align::Left, 0),
        column("USER", Align::Left, 0),
        column("WITH", Align::Left, 2),
        column("PID", Align::Right, 3),
        column("REQUEST", Align::Left, 0),
        column("OUTCOME", Align::Left, 1),
    ];
    let rows = audit.requests.iter().rev().map(row).collect();
    Table { columns, rows }.render(look.width, look.color, look.unicode)
}

fn row(entry: &AuditEntryView) -> Vec<Cell> {
    let executable = entry.executable.as_deref().unwrap_or_default();
    let name = executable.rsplit('/').next().unwrap_or_default();
    let outcome = match &entry.reason {
        Some(reason) => format!("{}; reason: {reason}", entry.outcome),
        None => entry.outcome.clone(),
    };
    let dim = Style::new().dimmed();
    vec![
        Cell::plain(when::date_and_clock(&entry.at)),
        Cell::plain(entry.user.as_str()),
        Cell::new(name, dim),
        Cell::new(entry.pid.map(|pid| pid.to_string()).unwrap_or_default(), dim),
        Cell::plain(entry.request.as_str()),
        Cell::plain(outcome),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_downwards_in_time_and_says_why() {
        let entry = |at: &str, request: &str, reason: Option<&str>| AuditEntryView {
            at: at.to_owned(),
            user: "alice".to_owned(),
            uid: Some(1000),
            pid: Some(71),
            executable: Some("/usr/bin/mendctl".to_owned()),
            request: request.to_owned(),
            reason: reason.map(str::to_owned),
            outcome: "1 done".to_owned(),
        };
        let requests =
            vec![entry("later", "start web\n", None), entry("sooner", "stop web", Some("rest"))];
        let audit = AuditView { schema: 1, requests, trouble: None };
        let expected = "\
TIME    USER   WITH     PID  REQUEST     OUTCOME
sooner  alice  mendctl   71  stop web    1 done; reason: rest
later   alice  mendctl   71  start web   1 done
";
        assert_eq!(render(&audit, &Look::plain()), expected);
    }
}
