//! `upgrade`: mendd becomes another version of itself; the programs run on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::events::{Events, Step};
use super::progress::wait_with_progress;
use crate::api::view::{EventView, SCHEMA, UpgradeBody, UpgradeView, VersionView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::Client;
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
The new executable is asked for its version and whether it accepts the configuration. One that
does not serve in time, or fails in another way, is given up and the version before comes back
by itself: the exit code is then 1. Programs keep running with their pids; `logs --follow` and
`watch` go on by themselves.

Examples:
  mendctl upgrade
  mendctl upgrade --binary /opt/mend/mendd --patience 1m";

/// The check of the new executable, and the way back from one that does not serve.
const REST: Duration = Duration::from_secs(45);

#[derive(Debug, Clone, Args)]
pub struct UpgradeArgs {
    /// The new mendd [default: the file that the running one was started from]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// How long the new mendd may take to serve before the one before comes back
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = when::parse_duration)]
    pub patience: Duration,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What the upgrade came to.
struct Outcome {
    begun: UpgradeView,
    before: VersionView,
    after: VersionView,
    took: Duration,
}

pub(crate) async fn run(context: &mut Context, args: &UpgradeArgs) -> Result<Exit, Failure> {
    let client = context.client.clone();
    let body = body(args)?;
    let work = tokio::time::timeout(args.patience + REST, upgrade(&client, &body, args.patience));
    let work = async {
        work.await.unwrap_or_else(|_| {
            Err(Failure::TimedOut("mendd has not said what came of the upgrade".to_owned()))
        })
    };
    let interrupted = "no longer waiting; mendd goes on with the upgrade";
    let done = |_: &_| true;
    let outcome = wait_with_progress(context, "upgrading", interrupted, &[], done, work).await?;
    let Outcome { begun, before, after, took } = outcome;
    if context.printer.json {
        context.printer.document(&json!({
            "schema": SCHEMA,
            "result": "done",
            "from": begun.from,
            "to": after.version,
            "pid": after.pid,
            "keeper_pid": after.keeper_pid,
            "seconds": took.as_secs_f64(),
        }))?;
    } else {
        context.printer.line(&format!(
            "upgraded from {} to {} in {:.2} s (brain {} is now {}; every program runs on)",
            begun.from,
            after.version,
            took.as_secs_f64(),
            before.pid,
            after.pid
        ))?;
    }
    Ok(Exit::Ok)
}

fn body(args: &UpgradeArgs) -> Result<UpgradeBody, Failure> {
    let binary = args.binary.as_ref().map(|path| {
        let path = std::path::absolute(path)
            .map_err(|error| Failure::Usage(format!("cannot use `{}`: {error}", path.display())))?;
        path.into_os_string()
            .into_string()
            .map_err(|_| Failure::Usage("the path of the new mendd is not UTF-8".to_owned()))
    });
    Ok(UpgradeBody {
        binary: binary.transpose()?,
        patience: Some(format!("{}ms", args.patience.as_millis())),
        reason: args.reason.clone(),
    })
}

async fn upgrade(
    client: &Client,
    body: &UpgradeBody,
    patience: Duration,
) -> Result<Outcome, Failure> {
    let before = client.get::<VersionView>("/v1/version").await?.value;
    let asked = client.send(Method::POST, "/v1/upgrade", body, patience + REST).await?;
    let begun: UpgradeView = asked.value;
    let since = Instant::now();
    let mut events = Events::after(client, begun.event);
    loop {
        let Step::Event { event, .. } = events.next().await? else { continue };
        match outcome(&event) {
            Some(Ok(())) => break,
            Some(Err(why)) => return Err(Failure::Failed(why)),
            None => {}
        }
    }
    let took = since.elapsed();
    let after = client.get::<VersionView>("/v1/version").await?.value;
    Ok(Outcome { begun, before, after, took })
}

/// Reads from an event what came of the upgrade.
fn outcome(event: &EventView) -> Option<Result<(), String>> {
    if event.kind != "daemon" {
        return None;
    }
    match event.data["what"].as_str()? {
        "upgraded" => Some(Ok(())),
        "upgrade-failed" => {
            let detail = event.data["detail"].as_str();
            Some(Err(detail.unwrap_or("the upgrade was rolled back").to_owned()))
        }
        _ => None,
    }
}
