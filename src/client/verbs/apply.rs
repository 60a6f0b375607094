//! `apply`: the changed files take effect as a whole, or what was before comes back.

use std::io::{self, BufRead, IsTerminal};
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::events::{Events, Step};
use super::plan;
use crate::api::view::{
    ApplyBody, ApplyView, EventView, GenerationView, GenerationsView, PlanView, SCHEMA,
};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::Client;
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
Applies what `mendctl plan` shows: all of it or nothing. What is gone stops first; replicas
are replaced one after the other; when all that is new or changed runs, it is done. The first
failure, or the end of the timeout, brings the configuration before back, and the exit code is
1. It goes on when mendctl or mendd is killed. --rollback goes to the generation before,
--to N to any that `mendctl config history` lists; the files stay as they are.

Examples:
  mendctl apply
  mendctl apply --yes --timeout 2m --reason 'deploy 4711'
  mendctl apply --rollback";

/// To read and to check the configuration.
const BEGIN_PATIENCE: Duration = Duration::from_secs(120);

/// What the end may take beyond the timeout.
const REST: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Only show what would be done, as `plan` does
    #[arg(long)]
    pub dry_run: bool,
    /// How long it may take until everything runs
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = when::parse_duration)]
    pub timeout: Duration,
    /// Keep the new configuration also when something does not run
    #[arg(long)]
    pub no_rollback: bool,
    /// Go back to the previous generation
    #[arg(long, conflicts_with = "to")]
    pub rollback: bool,
    /// Go to this generation
    #[arg(long, value_name = "N")]
    pub to: Option<u64>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub(crate) async fn run(context: &mut Context, args: &ApplyArgs) -> Result<Exit, Failure> {
    let path = match args.to {
        Some(number) => format!("/v1/plan?to={number}"),
        None if args.rollback => "/v1/plan?to=previous".to_owned(),
        None => "/v1/plan".to_owned(),
    };
    let planned = context.client.get::<PlanView>(&path).await?;
    if args.dry_run {
        plan::show(context, &planned)?;
        return Ok(if planned.value.changes { Exit::Changes } else { Exit::Ok });
    }
    if !context.printer.json {
        let text = plan::render(&planned.value, &context.printer.look);
        context.printer.aside(&text);
        plan::aside(context, &planned.value);
    }
    if planned.value.changes && !args.yes && !confirm(context)? {
        return Err(Failure::Failed("nothing was done".to_owned()));
    }
    let body = ApplyBody {
        timeout: Some(when::exact(args.timeout)),
        no_rollback: args.no_rollback,
        back: args.rollback,
        generation: args.to,
        fingerprint: planned.value.fingerprint.clone(),
        reason: args.reason.clone(),
    };
    let client = context.client.clone();
    let since = Instant::now();
    let sent = client.send(Method::POST, "/v1/apply", &body, BEGIN_PATIENCE).await?;
    let begun: ApplyView = sent.value;
    if !begun.begun {
        if context.printer.json {
            context.printer.raw_document(&sent.raw)?;
        } else {
            context.printer.line("nothing changed")?;
        }
        return Ok(Exit::Ok);
    }
    // There and back again, and what a restart of the daemon takes.
    let limit = args.timeout.saturating_mul(2).saturating_add(REST);
    let ended = tokio::time::timeout(limit, follow(context, &client, &begun)).await;
    let ended = ended.unwrap_or_else(|_| {
        Err(Failure::TimedOut("mendd has not said what came of the apply".to_owned()))
    })?;
    report(context, begun, ended, since.elapsed())
}

/// Shows progress until the apply has ended, over the death of the daemon.
async fn follow(
    context: &mut Context,
    client: &Client,
    begun: &ApplyView,
) -> Result<GenerationView, Failure> {
    let mut interrupt = context.interrupts.listen();
    let mut events = Events::after(client, begun.event);
    let mut is_lost = false;
    loop {
        let step = tokio::select! {
            biased;
            () = interrupt.wait() => {
                let text = "no longer waiting; mendd goes on with the apply";
                return Err(Failure::Interrupted(text.to_owned()));
            }
            step = events.next() => step?,
        };
        match step {
            Step::Event { event, .. } => match progress(&event) {
                Some(Progress::Step(detail)) if !context.printer.json => {
                    context.printer.notice(&detail);
                }
                Some(Progress::Step(_)) | None => {}
                Some(Progress::End) => {
                    let found = look(client, begun.generation).await?;
                    if found.outcome != "applying" {
                        return Ok(found);
                    }
                }
            },
            Step::Lost => {
                is_lost = true;
                context.printer.notice("mendd is gone, waiting for it to go on");
            }
            Step::Again if is_lost => context.printer.notice("mendd is back"),
            Step::Again => {}
        }
    }
}

enum Progress {
    Step(String),
    End,
}

fn progress(event: &EventView) -> Option<Progress> {
    // What was between is no longer kept: the list of generations tells the rest.
    if event.kind == "gap" {
        return Some(Progress::End);
    }
    let what = event.data["what"].as_str().filter(|_| event.kind == "daemon")?;
    match what {
        "apply" => event.data["detail"].as_str().map(|text| Progress::Step(text.to_owned())),
        "applied" | "apply-kept" | "apply-rolled-back" => Some(Progress::End),
        _ => None,
    }
}

/// Asks what has become of the generation.
async fn look(client: &Client, number: u64) -> Result<GenerationView, Failure> {
    let list = client.get::<GenerationsView>("/v1/generations").await?.value;
    let found = list.generations.into_iter().find(|generation| generation.number == number);
    found.ok_or_else(|| Failure::Failed(format!("generation {number} is no longer on record")))
}

fn report(
    context: &mut Context,
    begun: ApplyView,
    ended: GenerationView,
    took: Duration,
) -> Result<Exit, Failure> {
    let is_applied = ended.outcome == "applied";
    if context.printer.json {
        let document = json!({
            "schema": SCHEMA,
            "generation": begun.generation,
            "plan": begun.plan,
            "result": ended,
            "seconds": took.as_secs_f64(),
        });
        context.printer.document(&document)?;
        return Ok(if is_applied { Exit::Ok } else { Exit::Failed });
    }
    if is_applied {
        context.printer.line(&format!(
            "generation {} is applied after {:.1} s: {}",
            ended.number,
            took.as_secs_f64(),
            ended.changes
        ))?;
        return Ok(Exit::Ok);
    }
    let why = ended.why.as_deref().unwrap_or("it is not known why");
    Err(Failure::Failed(match ended.outcome.as_str() {
        "kept" => format!("generation {} was applied, but {why}", ended.number),
        "rolled-back" => format!("generation {} was rolled back: {why}", ended.number),
        outcome => format!("generation {} is {outcome}: {why}", ended.number),
    }))
}

fn confirm(context: &mut Context) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !context.printer.look.error_is_terminal {
        let text = "an apply may restart programs: say --yes when there is nobody to ask";
        return Err(Failure::Usage(text.to_owned()));
    }
    context.printer.aside("Apply it? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
