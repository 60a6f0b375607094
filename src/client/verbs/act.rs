//! `start`, `stop`, `restart`, and what they share with the other acts.

use std::time::Duration;

use clap::Args;
use hyper::Method;

use super::progress::wait_with_progress;
use crate::api::view::{ActBody, ActView, OutcomeView, ProcessView};
use crate::client::Context;
use crate::client::cli::Names;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::{state, when};

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
    mut body: ActBody,
    waiting: Waiting,
) -> Result<Exit, Failure> {
    let wait = waiting.wait();
    body.wait = wait.map(when::exact);
    let client = context.client.clone();
    let work =
        client.send::<ActBody, ActView>(Method::POST, act.path(), &body, wait.unwrap_or_default());
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
