//! `enable` and `disable`: whether programs start by themselves.

use clap::Args;

use super::act::{self, Act, Waiting};
use crate::api::view::ActBody;
use crate::client::Context;
use crate::client::cli::Names;
use crate::client::exit::Exit;
use crate::client::failure::Failure;

pub(crate) const ENABLE_EXAMPLES: &str =
    "Examples:\n  mendctl enable web\n  mendctl enable --now @site --reason 'the move is over'";
pub(crate) const DISABLE_EXAMPLES: &str = "Examples:\n  mendctl disable web\n  mendctl disable --now web --reason 'moves to another host'";

#[derive(Debug, Clone, Args)]
pub struct EnableArgs {
    #[command(flatten)]
    pub names: Names,
    /// Start or stop them as well
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    pub waiting: Waiting,
    /// Why, for the record and for `status`
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub(crate) async fn run(
    context: &mut Context,
    args: &EnableArgs,
    enable: bool,
) -> Result<Exit, Failure> {
    let now = args.now;
    let act = if enable { Act::Enable { now } } else { Act::Disable { now } };
    let body = ActBody {
        names: args.names.names.clone(),
        wait: None,
        signal: None,
        reason: args.reason.clone(),
        now: now.then_some(true),
    };
    act::perform(context, act, body, args.waiting).await
}
