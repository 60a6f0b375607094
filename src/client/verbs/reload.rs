//! `reload`: mendd's configuration, or with names what programs reload on their own signal.

use std::time::Duration;

use clap::Args;

use super::act::{self, Act, Waiting};
use super::progress::wait_with_progress;
use crate::api::view::{ActBody, ReloadView};
use crate::client::Context;
use crate::client::cli::SomeNames;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;

pub(crate) const EXAMPLES: &str = "\
Without NAMES mendd reads its configuration again and applies the difference; a
configuration with a mistake changes nothing. With NAMES these programs get their
reload signal and mendd's configuration stays as it is.

Examples:
  mendctl reload
  mendctl reload web";

/// Reading and applying a configuration may restart programs, which takes their stop grace.
const RELOAD_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    pub names: SomeNames,
    #[command(flatten)]
    pub waiting: Waiting,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub(crate) async fn run(context: &mut Context, args: &ReloadArgs) -> Result<Exit, Failure> {
    if !args.names.names.is_empty() {
        let body = ActBody {
            names: args.names.names.clone(),
            wait: None,
            signal: None,
            reason: args.reason.clone(),
            now: None,
        };
        return act::perform(context, Act::Reload, body, args.waiting).await;
    }
    let client = context.client.clone();
    let reason = args.reason.as_deref().map(|reason| ("reason", reason));
    let path = with_query("/v1/reload", reason);
    let work = client.post::<ReloadView>(&path, RELOAD_PATIENCE);
    let interrupted = "no longer waiting; mendd goes on applying the configuration";
    let what = "reloading the configuration";
    let done = |_: &_| true;
    let answer = wait_with_progress(context, what, interrupted, &[], done, work).await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
        return Ok(Exit::Ok);
    }
    let view = answer.value;
    let parts = [
        ("added", &view.added),
        ("removed", &view.removed),
        ("restarted", &view.restarted),
        ("updated in place", &view.updated),
    ];
    for (what, names) in parts {
        if !names.is_empty() {
            context.printer.line(&format!("{what}: {}", names.join(", ")))?;
        }
    }
    if parts.iter().all(|(_, names)| names.is_empty()) {
        context.printer.line("nothing changed")?;
    }
    for warning in &view.warnings {
        context.printer.notice(&format!("warning: {warning}"));
    }
    Ok(Exit::Ok)
}
