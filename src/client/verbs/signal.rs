//! `signal SIGNAL NAMES`.

use std::time::Duration;

use clap::Args;

use super::act::{self, Act, Waiting};
use crate::api::view::ActBody;
use crate::client::Context;
use crate::client::cli::Names;
use crate::client::exit::Exit;
use crate::client::failure::Failure;

pub(crate) const EXAMPLES: &str =
    "Examples:\n  mendctl signal HUP web\n  mendctl signal SIGUSR1 'worker:*'";

#[derive(Debug, Clone, Args)]
pub struct SignalArgs {
    /// HUP, SIGHUP or 1
    #[arg(value_name = "SIGNAL")]
    pub signal: String,
    #[command(flatten)]
    pub names: Names,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub(crate) async fn run(context: &mut Context, args: &SignalArgs) -> Result<Exit, Failure> {
    let body = ActBody {
        names: args.names.names.clone(),
        wait: None,
        signal: Some(args.signal.clone()),
        reason: args.reason.clone(),
        now: None,
    };
    let waiting = Waiting { timeout: Duration::ZERO, no_wait: true };
    act::perform(context, Act::Signal, body, waiting).await
}
