//! `hold` and `release`: maintenance, in which nothing is healed and nobody is alerted.

use std::time::Duration;

use clap::Args;
use hyper::Method;

use crate::api::view::{HoldBody, HoldView, ReleaseBody};
use crate::client::Context;
use crate::client::cli::Names;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::when;

pub(crate) const HOLD_EXAMPLES: &str = "\
Checks go on and are shown; no remedy begins and no alert is sent. A hold ends by itself, and
holds over crash, upgrade and reboot. A crash is restarted as ever: `mendctl stop` is for that.

Examples:
  mendctl hold web --for 30m --reason 'moves its data'
  mendctl hold @site host --for 2h";

pub(crate) const RELEASE_EXAMPLES: &str = "\
Examples:
  mendctl release web
  mendctl release --panic --reason 'the network is back'";

#[derive(Debug, Clone, Args)]
pub struct HoldArgs {
    #[command(flatten)]
    pub names: Names,
    /// How long; at most 90 days
    #[arg(long = "for", value_name = "DURATION", value_parser = when::parse_duration)]
    pub time: Duration,
    /// Why, for the record and for `why`
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct ReleaseArgs {
    /// Processes (web:0), programs (web, web:*), groups (@site), globs (w*), host, or all
    #[arg(value_name = "NAMES", required_unless_present = "panic")]
    pub names: Vec<String>,
    /// End the panic in which nothing is healed one by one
    #[arg(long)]
    pub panic: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub(crate) async fn hold(context: &mut Context, args: &HoldArgs) -> Result<Exit, Failure> {
    let body = HoldBody {
        names: args.names.names.clone(),
        time: when::exact(args.time),
        reason: args.reason.clone(),
    };
    let client = context.client.clone();
    let answer =
        client.send::<HoldBody, HoldView>(Method::POST, "/v1/hold", &body, Duration::ZERO).await?;
    let time = when::short(args.time);
    finish(context, &answer.raw, &answer.value.names, &format!("is left alone for {time}"))
}

pub(crate) async fn release(context: &mut Context, args: &ReleaseArgs) -> Result<Exit, Failure> {
    let body =
        ReleaseBody { names: args.names.clone(), panic: args.panic, reason: args.reason.clone() };
    let client = context.client.clone();
    let answer = client
        .send::<ReleaseBody, HoldView>(Method::POST, "/v1/release", &body, Duration::ZERO)
        .await?;
    finish(context, &answer.raw, &answer.value.names, "is looked after again")
}

fn finish(
    context: &mut Context,
    raw: &[u8],
    names: &[String],
    what: &str,
) -> Result<Exit, Failure> {
    if context.printer.json {
        context.printer.raw_document(raw)?;
    } else {
        for name in names {
            context.printer.line(&format!("{name} {what}"))?;
        }
    }
    Ok(Exit::Ok)
}
