//! `heal`: what is down is to be healed now.

use std::time::Duration;

use clap::Args;
use hyper::Method;

use crate::api::view::{HealBody, HealView};
use crate::client::Context;
use crate::client::cli::Names;
use crate::client::exit::Exit;
use crate::client::failure::Failure;

pub(crate) const EXAMPLES: &str = "\
Only what a check finds down is healed, and every brake still holds: cool-downs, budgets, holds,
and what it requires comes first. `mendctl why NAME` tells what becomes of it.

Examples:
  mendctl heal web
  mendctl heal web --rung 2 --reason 'the reload will not help'";

#[derive(Debug, Clone, Args)]
pub struct HealArgs {
    #[command(flatten)]
    pub names: Names,
    /// The rung of its ladder to begin with; the first is 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rung: Option<u32>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub(crate) async fn run(context: &mut Context, args: &HealArgs) -> Result<Exit, Failure> {
    let body =
        HealBody { names: args.names.names.clone(), rung: args.rung, reason: args.reason.clone() };
    let client = context.client.clone();
    let answer =
        client.send::<HealBody, HealView>(Method::POST, "/v1/heal", &body, Duration::ZERO).await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
    } else {
        for result in &answer.value.results {
            match result.accepted {
                true => context.printer.line(&result.message)?,
                false => context.printer.notice(&result.message),
            }
        }
    }
    let accepted = answer.value.results.iter().all(|result| result.accepted);
    Ok(if accepted { Exit::Ok } else { Exit::Failed })
}
