//! The verbs.

pub(super) mod status;

pub(super) mod detail;

pub(super) mod act;

pub(super) mod enable;

pub(super) mod progress;

pub(super) mod reload;

pub(super) mod plan;

pub(super) mod apply;

pub(super) mod history;

pub(super) mod audit;

pub(super) mod incidents;

pub(super) mod bundle;

pub(super) mod stats;

pub(super) mod signal;

pub(super) mod logs;

mod tail;

pub(super) mod follow;

pub(super) mod events;

pub(super) mod wait;

pub(super) mod watch;

pub(super) mod check;

pub(super) mod why;

pub(super) mod heal;

pub(super) mod hold;

pub(super) mod shutdown;

pub(super) mod upgrade;

pub(super) mod version;

pub(super) mod log_level;

pub(super) mod config;

pub(super) mod config_show;

pub(super) mod explain;

pub(super) mod completion;

use super::Context;
use super::cli::Verb;
use super::exit::Exit;
use super::failure::Failure;

pub(super) async fn run(context: &mut Context, verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Status(args) => status::run(context, &args).await,
        Verb::Start(args) => act::run(context, act::Act::Start, &args).await,
        Verb::Stop(args) => act::run(context, act::Act::Stop, &args).await,
        Verb::Restart(args) => act::run(context, act::Act::Restart, &args).await,
        Verb::Enable(args) => enable::run(context, &args, true).await,
        Verb::Disable(args) => enable::run(context, &args, false).await,
        Verb::Reload(args) => reload::run(context, &args).await,
        Verb::Plan(args) => plan::run(context, &args).await,
        Verb::Apply(args) => apply::run(context, &args).await,
        Verb::Audit(args) => audit::run(context, &args).await,
        Verb::Incidents(args) => incidents::run(context, &args).await,
        Verb::Stats(args) => stats::run(context, &args).await,
        Verb::Signal(args) => signal::run(context, &args).await,
        Verb::Logs(args) => logs::run(context, &args, false).await,
        Verb::Tail(args) => logs::run(context, &args, true).await,
        Verb::Wait(args) => wait::run(context, &args).await,
        Verb::Watch(args) => watch::run(context, &args).await,
        Verb::Check(args) => check::run(context, &args).await,
        Verb::Why(args) => why::run(context, &args).await,
        Verb::Heal(args) => heal::run(context, &args).await,
        Verb::Hold(args) => hold::hold(context, &args).await,
        Verb::Release(args) => hold::release(context, &args).await,
        Verb::Shutdown(args) => shutdown::run(context, &args).await,
        Verb::Upgrade(args) => upgrade::run(context, &args).await,
        Verb::Version => version::run(context).await,
        Verb::LogLevel(args) => log_level::run(context, &args).await,
        Verb::Config(args) => config::run(context, &args).await,
        Verb::Explain(args) => explain::run(context, &args),
        Verb::Completion(args) => completion::run(context, &args),
        Verb::Complete(args) => completion::complete(context, &args).await,
    }
}
