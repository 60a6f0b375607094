//! `incidents`: what went wrong, and the story of each.

use anstyle::{AnsiColor, Style};
use clap::{Args, Subcommand};

use super::bundle;
use super::follow::printable;
use crate::api::view::{IncidentStoryView, IncidentView, IncidentsView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::client::printer::{Look, paint};
use crate::client::table::{Align, Cell, Column, Table};
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
The newest is shown last. An incident ends when what failed has been well again for a time.

Examples:
  mendctl incidents --open
  mendctl incidents --program web --since 7d
  mendctl incidents show 12
  mendctl incidents bundle 12 -o web.tar.zst";

const SHOW_EXAMPLES: &str = "\
Examples:
  mendctl incidents show 12
  mendctl incidents show 12 --json";

#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct IncidentsArgs {
    #[command(subcommand)]
    pub what: Option<What>,
    #[command(flatten)]
    pub list: ListArgs,
}

#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Tell the story of one incident
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its number
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// Pack what is known of one incident into a file, for whoever looks into it
    #[command(after_help = bundle::EXAMPLES)]
    Bundle(bundle::BundleArgs),
}

#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Only of this program, or of one of its processes
    #[arg(long, value_name = "NAME")]
    pub program: Option<String>,
    /// Only those that were not over before: 1d, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only those that began before: 1d, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only those that are not over
    #[arg(long)]
    pub open: bool,
    /// At most so many, the newest
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub limit: u32,
}

pub(crate) async fn run(context: &mut Context, args: &IncidentsArgs) -> Result<Exit, Failure> {
    match &args.what {
        Some(What::Show { id }) => show(context, *id).await,
        Some(What::Bundle(args)) => bundle::run(context, args).await,
        None => list(context, &args.list).await,
    }
}

async fn list(context: &mut Context, args: &ListArgs) -> Result<Exit, Failure> {
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(when::since_and_until(args.since.as_deref(), args.until.as_deref())?);
    if let Some(program) = &args.program {
        query.push(("program", program.clone()));
    }
    if args.open {
        query.push(("open", "1".to_owned()));
    }
    let pairs = query.iter().map(|(key, value)| (*key, value.as_str()));
    let answer = context.client.get::<IncidentsView>(&with_query("/v1/incidents", pairs)).await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
        return Ok(Exit::Ok);
    }
    let text = render_list(&answer.value, &context.printer.look);
    context.printer.text(&text)?;
    warn(context, answer.value.trouble.as_deref());
    Ok(Exit::Ok)
}

async fn show(context: &mut Context, id: u64) -> Result<Exit, Failure> {
    let path = format!("/v1/incidents/{id}");
    let answer = context.client.get::<IncidentStoryView>(&path).await;
    let answer = answer.map_err(Failure::when_asking)?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
        return Ok(Exit::Ok);
    }
    let text = render_story(&answer.value, &context.printer.look);
    context.printer.text(&text)?;
    warn(context, answer.value.trouble.as_deref());
    Ok(Exit::Ok)
}

fn warn(context: &mut Context, trouble: Option<&str>) {
    if let Some(trouble) = trouble {
        context.printer.notice(&format!("warning: this may not be all: {trouble}"));
    }
}

fn render_list(list: &IncidentsView, look: &Look) -> String {
    if list.incidents.is_empty() {
        return "no incidents\n".to_owned();
    }
    let column = |title, align, dispensable| Column { title, align, dispensable };
    let columns = vec![
        column("ID", Align::Right, 0),
        column("OPENED", Align::Left, 2),
        column("TARGET", Align::Left, 0),
        column("STATE", Align::Left, 0),
        column("TOOK", Align::Right, 3),
        column("WHAT", Align::Left, 1),
    ];
    let row = |incident: &IncidentView| {
        let (state, style) = state(incident);
        vec![
            Cell::plain(incident.id.to_string()),
            Cell::plain(when::date_and_clock(&incident.opened)),
            Cell::plain(incident.target.as_str()),
            Cell::new(state, style),
            Cell::plain(took(incident)),
            Cell::plain(what(incident)),
        ]
    };
    let rows = list.incidents.iter().rev().map(row).collect();
    Table { columns, rows }.render(look.width, look.color, look.unicode)
}

pub(super) fn render_story(story: &IncidentStoryView, look: &Look) -> String {
    let incident = &story.incident;
    let (state, style) = state(incident);
    let target = paint(look.color, Style::new().bold(), &incident.target);
    let mut text =
        format!("{target} {}: {}\n", printable(what(incident)), paint(look.color, style, state));
    let mut fact = |label: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{label:>11}: {}\n", printable(value)));
        }
    };
    fact("opened", &when::date_and_clock(&incident.opened));
    fact("by check", incident.check.as_deref().unwrap_or_default());
    if let Some(cause) = &incident.cause {
        fact("cause", &format!("{} ({})", cause.word, cause.confidence));
        fact("because of", &cause.facts.join("; "));
    }
    fact("remedies", &incident.remedies.to_string());
    fact("healed by", incident.healed_by.as_deref().unwrap_or_default());
    fact("well after", &took(incident));
    fact("closed", &incident.closed.as_deref().map(when::date_and_clock).unwrap_or_default());
    text.push('\n');
    for step in &story.steps {
        let clock = paint(look.color, Style::new().dimmed(), &when::clock(&step.at));
        text.push_str(&format!("{clock} {}\n", printable(&step.sentence)));
    }
    text
}

/// The sentence that says most.
fn what(incident: &IncidentView) -> &str {
    incident.cause.as_ref().map_or(&incident.opening, |cause| &cause.sentence)
}

fn took(incident: &IncidentView) -> String {
    incident.recovery_seconds.map(when::span).unwrap_or_default()
}

fn state(incident: &IncidentView) -> (&str, Style) {
    match (&incident.closing, &incident.recovered) {
        (Some(closing), _) => (closing, Style::new()),
        (None, Some(_)) => ("recovering", AnsiColor::Yellow.on_default()),
        (None, None) => ("open", AnsiColor::Red.on_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::{CauseView, IncidentStepView};

    fn incident(id: u64) -> IncidentView {
        IncidentView {
            id,
            target: "web:0".to_owned(),
            program: Some("web".to_owned()),
            opened: "then".to_owned(),
            opening: "is down: check `http` says refused".to_owned(),
            check: Some("http".to_owned()),
            cause: None,
            remedies: 0,
            healed_by: None,
            recovered: None,
            recovery_seconds: None,
            closed: None,
            closing: None,
        }
    }

    fn healed() -> IncidentView {
        IncidentView {
            cause: Some(CauseView {
                word: "killed".to_owned(),
                confidence: "certain".to_owned(),
                sentence: "was killed from outside".to_owned(),
                facts: vec!["SIGKILL".to_owned(), "no oom_kill".to_owned()],
            }),
            remedies: 1,
            healed_by: Some("restart".to_owned()),
            recovered: Some("soon".to_owned()),
            recovery_seconds: Some(0.25),
            closed: Some("later".to_owned()),
            closing: Some("healed".to_owned()),
            ..incident(3)
        }
    }

    #[test]
    fn the_list_says_what_goes_on_and_what_it_was_taken_for() {
        let incidents = vec![incident(12), healed()];
        let list = IncidentsView { schema: 1, incidents, trouble: None };
        let expected = "\
ID  OPENED  TARGET  STATE    TOOK  WHAT
 3  then    web:0   healed  250ms  was killed from outside
12  then    web:0   open           is down: check `http` says refused
";
        assert_eq!(render_list(&list, &Look::plain()), expected);
    }

    #[test]
    fn a_story_has_its_facts_and_its_steps() {
        let step = |sentence: &str| IncidentStepView {
            at: "now".to_owned(),
            kind: "cause".to_owned(),
            sentence: sentence.to_owned(),
        };
        let steps = vec![step("is down"), step("is well\u{1b}[2J again")];
        let story = IncidentStoryView { schema: 1, incident: healed(), steps, trouble: None };
        let text = render_story(&story, &Look::plain());
        let expected = "\
web:0 was killed from outside: healed
     opened: then
   by check: http
      cause: killed (certain)
 because of: SIGKILL; no oom_kill
   remedies: 1
  healed by: restart
 well after: 250ms
     closed: later

now is down
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("again\n") && !text.contains('\u{1b}'), "{text:?}");
    }
}
