//! `wait`: returns when processes are in a state, woken by events.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::events::{Events, Step};
use super::progress::wait_with_progress;
use crate::api::view::{ProcessView, StatusView};
use crate::client::Context;
use crate::client::cli::Names;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::{Answer, Client, with_query};
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
Examples:
  mendctl wait web db --for running --timeout 30s
  mendctl wait migrate --for exited";

#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    pub names: Names,
    /// The state to wait for
    #[arg(long = "for", value_name = "STATE", default_value = "running")]
    pub target: Target,
    /// How long to wait [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = when::parse_duration)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    Running,
    /// Running, and ready where that is declared
    Ready,
    Stopped,
    Exited,
    Fatal,
}

impl Target {
    fn is_reached(self) -> fn(&ProcessView) -> bool {
        match self {
            Self::Running => |process| process.state == "RUNNING",
            Self::Ready => |process| process.state == "RUNNING" && process.ready != Some(false),
            Self::Stopped => |process| matches!(process.state.as_str(), "STOPPED" | "EXITED"),
            Self::Exited => |process| process.state == "EXITED",
            Self::Fatal => |process| process.state == "FATAL",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Stopped => "stopped",
            Self::Exited => "exited",
            Self::Fatal => "fatal",
        }
    }
}

pub(crate) async fn run(context: &mut Context, args: &WaitArgs) -> Result<Exit, Failure> {
    let names = &args.names.names;
    let word = args.target.word();
    let client = context.client.clone();
    let work = async {
        let reached = reach(&client, names, args.target);
        match args.timeout {
            None => reached.await,
            Some(timeout) => tokio::time::timeout(timeout, reached).await.unwrap_or_else(|_| {
                let text =
                    format!("{} not {word} after {}", names.join(", "), when::exact(timeout));
                Err(Failure::TimedOut(text))
            }),
        }
    };
    let what = format!("waiting for {} to be {word}", names.join(" "));
    let reached = args.target.is_reached();
    let answer =
        wait_with_progress(context, &what, "no longer waiting", names, reached, work).await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
    } else {
        for process in &answer.value.programs {
            context.printer.line(&format!("{}: {}", process.name, process.state.to_lowercase()))?;
        }
    }
    Ok(Exit::Ok)
}

/// Looks, and looks again after every event. The events are opened first, so that no change
/// falls between looking and waiting.
async fn reach(
    client: &Client,
    names: &[String],
    target: Target,
) -> Result<Answer<StatusView>, Failure> {
    let path = with_query("/v1/status", names.iter().map(|name| ("name", name.as_str())));
    let mut events = Events::open(client).await?;
    let is_reached = target.is_reached();
    loop {
        match client.get::<StatusView>(&path).await.map_err(Failure::when_asking) {
            Ok(answer) if answer.value.programs.iter().all(is_reached) => return Ok(answer),
            Ok(answer) => {
                let hopeless = answer
                    .value
                    .programs
                    .iter()
                    .find(|process| process.state == "FATAL" && target != Target::Fatal);
                if let Some(process) = hopeless {
                    let text = format!("{} is FATAL: {}", process.name, process.reason);
                    return Err(Failure::Failed(text));
                }
            }
            Err(failure) if failure.is_transient() => {}
            Err(failure) => return Err(failure),
        }
        while matches!(events.next().await?, Step::Lost) {}
    }
}
