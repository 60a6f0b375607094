//! `shutdown`: all processes stop in order, then the daemon ends.

use std::io::{self, BufRead, IsTerminal};
use std::os::fd::OwnedFd;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::io::unix::AsyncFd;

use super::act::Waiting;
use super::progress::wait_with_progress;
use crate::api::view::{ProcessView, SCHEMA, VersionView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::{Answer, Client, with_query};
use crate::os::pidfd::PidFd;
use crate::os::proc;
use crate::os::readable::readable;

pub(crate) const EXAMPLES: &str =
    "Examples:\n  mendctl shutdown\n  mendctl shutdown --yes --timeout 5m";

const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What the keeper needs from the last answer to its end.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// The daemon answers when all has stopped; a refusal comes at once.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Args)]
pub struct ShutdownArgs {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub waiting: Waiting,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub(crate) async fn run(context: &mut Context, args: &ShutdownArgs) -> Result<Exit, Failure> {
    let before = context.client.get::<VersionView>("/v1/version").await?.value;
    if !args.yes && !confirm(context)? {
        return Err(Failure::Failed("nothing was done".to_owned()));
    }
    let reason = args.reason.as_deref().map(|reason| ("reason", reason));
    let path = with_query("/v1/shutdown", reason);
    let keeper = keeper(before.keeper_pid);
    let client = context.client.clone();
    if args.waiting.no_wait {
        let sent = client.post::<Value>(&path, REFUSAL_PATIENCE);
        if let Ok(answer) = tokio::time::timeout(REFUSAL_PATIENCE, sent).await {
            accept(answer)?;
        }
    } else {
        let timeout = args.waiting.timeout;
        let work = async {
            let end = async {
                accept(client.post::<Value>(&path, timeout).await)?;
                ended(&client, before.keeper_pid).await;
                if let Some(keeper) = keeper {
                    let _ = tokio::time::timeout(LAST_STEPS, keeper.readable()).await;
                }
                Ok(())
            };
            tokio::time::timeout(timeout, end).await.unwrap_or_else(|_| {
                let text = "mendd is still stopping its programs".to_owned();
                Err(Failure::TimedOut(text))
            })
        };
        let interrupted = "no longer waiting; mendd goes on shutting down";
        let done = |process: &ProcessView| process.pid.is_none();
        wait_with_progress(context, "shutting down", interrupted, &[], done, work).await?;
    }
    let word = if args.waiting.no_wait { "mendd is shutting down" } else { "mendd has ended" };
    if context.printer.json {
        let document = json!({ "schema": SCHEMA, "result": "done", "message": word });
        context.printer.document(&document)?;
    } else {
        context.printer.line(word)?;
    }
    Ok(Exit::Ok)
}

/// A daemon that ends at once may not get its answer out.
fn accept(answer: Result<Answer<Value>, Failure>) -> Result<(), Failure> {
    match answer {
        Ok(_) | Err(Failure::Lost(_) | Failure::Protocol(_)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Opens the keeper's process, whose end is the end of the daemon.
///
/// A daemon in another PID namespace has numbers that mean others here; then its silence is all
/// there is to see.
fn keeper(pid: u32) -> Option<AsyncFd<OwnedFd>> {
    let process = PidFd::open(pid).ok()?;
    if proc::comm(pid).as_deref() != Some("mendd") {
        return None;
    }
    readable(process.into()).ok()
}

/// Returns when nobody answers any more, or another daemon does.
async fn ended(client: &Client, keeper_pid: u32) {
    while client.is_reachable().await {
        match client.get::<VersionView>("/v1/version").await {
            Ok(answer) if answer.value.keeper_pid != keeper_pid => return,
            Ok(_) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

fn confirm(context: &mut Context) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !context.printer.look.error_is_terminal {
        let text = "shutdown stops every process: say --yes when there is nobody to ask";
        return Err(Failure::Usage(text.to_owned()));
    }
    context.printer.aside("Stop all processes and end mendd? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
