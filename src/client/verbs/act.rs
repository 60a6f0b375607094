//! `start`, `stop`, `restart`, and what they share with the other acts.

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::progress::wait_with_progress;
use super::tail::Pauses;
use crate::api::view::{ActBody, ActView, OutcomeView, ProcessView};
use crate::client::Context;
use crate::client::cli::Names;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::{Answer, Client};
use crate::client::{state, when};

/// How long a daemon that went away may take to come back, where nobody waits for longer anyway.
const RETURN: Duration = Duration::from_secs(5);
/// What is left of a time that ran out while no daemon was there: enough to look once.
const LAST_LOOK: Duration = Duration::from_millis(100);

pub(crate) const START_EXAMPLES: &str =
    "Examples:\n  mendctl start web\n  mendctl start @site 'job-*' --timeout 2m";
pub(crate) const STOP_EXAMPLES: &str =
    "Examples:\n  mendctl stop web:1\n  mendctl stop all --reason 'moving the database'";
pub(crate) const RESTART_EXAMPLES: &str =
    "Examples:\n  mendctl restart web\n  mendctl restart 'web:*' --no-wait";

#[derive(Debug, Clone, Args)]
pub struct ActArgs {
    #[command(flatten)]
    pub names: Names,
    #[command(flatten)]
    pub waiting: Waiting,
    /// Why, for the record and for `status`
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// How long to wait for the effect.
#[derive(Debug, Clone, Copy, Args)]
pub struct Waiting {
    /// How long to wait for the effect
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = when::parse_duration)]
    pub timeout: Duration,
    /// Return at once
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
}

impl Waiting {
    fn wait(self) -> Option<Duration> {
        (!self.no_wait).then_some(self.timeout)
    }
}

/// What is done to processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Start,
    Stop,
    Restart,
    Signal,
    Reload,
    /// With or without a start.
    Enable {
        now: bool,
    },
    /// With or without a stop.
    Disable {
        now: bool,
    },
}

impl Act {
    fn path(self) -> &'static str {
        match self {
            Self::Start => "/v1/start",
            Self::Stop => "/v1/stop",
            Self::Restart => "/v1/restart",
            Self::Signal => "/v1/signal",
            Self::Reload => "/v1/reload-programs",
            Self::Enable { .. } => "/v1/enable",
            Self::Disable { .. } => "/v1/disable",
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Self::Start => "starting",
            Self::Stop => "stopping",
            Self::Restart => "restarting",
            Self::Signal => "signalling",
            Self::Reload => "reloading",
            Self::Enable { .. } => "enabling",
            Self::Disable { .. } => "disabling",
        }
    }

    /// Returns the word for a result without a message of its own.
    fn done(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Restart => "restarted",
            Self::Signal => "signalled",
            Self::Reload => "reloaded",
            Self::Enable { .. } => "enabled",
            Self::Disable { .. } => "disabled",
        }
    }

    fn is_reached(self) -> fn(&ProcessView) -> bool {
        match self {
            Self::Stop | Self::Disable { now: true } => {
                |process| process.pid.is_none() && process.state != "STOPPING"
            }
            Self::Enable { now: true } => state::is_running,
            Self::Enable { now: false } => |process| process.enabled,
            Self::Disable { now: false } => |process| !process.enabled,
            Self::Start | Self::Restart | Self::Signal | Self::Reload => state::is_running,
        }
    }
}

pub(crate) async fn run(context: &mut Context, act: Act, args: &ActArgs) -> Result<Exit, Failure> {
    let body = ActBody {
        names: args.names.names.clone(),
        wait: None,
        signal: None,
        reason: args.reason.clone(),
        now: None,
    };
    perform(context, act, body, args.waiting).await
}

/// Asks the daemon and prints one line per process.
pub(crate) async fn perform(
    context: &mut Context,
    act: Act,
    body: ActBody,
    waiting: Waiting,
) -> Result<Exit, Failure> {
    let client = context.client.clone();
    let work = ask(&client, act.path(), body.clone(), waiting.wait());
    let names = body.names.join(" ");
    let what = format!("{} {names}", act.participle());
    let interrupted =
        format!("no longer waiting; mendd goes on {what}: `mendctl status {names}` tells");
    let reached = act.is_reached();
    let answer =
        wait_with_progress(context, &what, &interrupted, &body.names, reached, work).await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
    } else {
        for outcome in &answer.value.results {
            print_outcome(context, act, outcome)?;
        }
    }
    Ok(verdict(&answer.value))
}

/// Sends the request, and again when the daemon dies before it has answered: by the key the next
/// brain knows whether the first one has taken it, and does nothing twice.
async fn ask(
    client: &Client,
    path: &str,
    mut body: ActBody,
    wait: Option<Duration>,
) -> Result<Answer<ActView>, Failure> {
    let key = format!("{:032x}", fastrand::u128(..));
    let end = Instant::now() + wait.unwrap_or_default();
    let give_up = Instant::now() + wait.unwrap_or_default().max(RETURN);
    let mut rest = wait;
    let mut pauses = Pauses::new();
    let mut lost = None;
    loop {
        body.wait = rest.map(when::exact);
        let sent = client.send_once(path, &key, &body, rest.unwrap_or_default());
        match (sent.await, &lost) {
            // Until something was sent, there is nothing to be found out.
            (Err(Failure::Lost(why)), None) => lost = Some(why),
            (Err(why), Some(_)) if why.is_away() => {}
            (answer, _) => return answer,
        }
        if Instant::now() >= give_up {
            let why = lost.unwrap_or_default();
            return Err(Failure::Lost(format!("{why}; nobody has answered since")));
        }
        pauses.next().await;
        rest = wait.map(|_| end.saturating_duration_since(Instant::now()).max(LAST_LOOK));
    }
}

fn print_outcome(context: &mut Context, act: Act, outcome: &OutcomeView) -> Result<(), Failure> {
    let (tone, word) = match outcome.result.as_str() {
        "done" => (state::Tone::Good, act.done()),
        "unchanged" => (state::Tone::Quiet, "nothing to do"),
        "timed-out" => (state::Tone::Busy, "not done yet"),
        "failed" => (state::Tone::Bad, "failed"),
        other => (state::Tone::Busy, other),
    };
    let mut message = match outcome.message.as_str() {
        "" => word.to_owned(),
        message => message.to_owned(),
    };
    let has_started = match act {
        Act::Start | Act::Restart | Act::Signal | Act::Reload => true,
        Act::Enable { now } => now,
        Act::Stop | Act::Disable { .. } => false,
    };
    let pid = outcome.process.pid.filter(|_| has_started && outcome.result == "done");
    if let Some(pid) = pid.filter(|_| !message.contains("pid ")) {
        message.push_str(&format!(", pid {pid}"));
    }
    let unicode = context.printer.look.unicode;
    let symbol = context.printer.paint(state::style(tone), state::symbol(tone, unicode));
    let prefix =
        if context.printer.look.out_is_terminal { format!("{symbol} ") } else { String::new() };
    context.printer.line(&format!("{prefix}{}: {message}", outcome.name))
}

fn verdict(answer: &ActView) -> Exit {
    let has = |result: &str| answer.results.iter().any(|outcome| outcome.result == result);
    if has("failed") {
        Exit::Failed
    } else if has("timed-out") {
        Exit::TimedOut
    } else {
        Exit::Ok
    }
}
