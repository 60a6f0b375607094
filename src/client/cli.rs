//! The command line: what can be asked for, and its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::exit::Exit;
use super::printer::ColorWhen;
use super::verbs::{
    act, apply, audit, check, completion, config, enable, explain, heal, hold, incidents,
    log_level, logs, plan, reload, shutdown, signal, stats, status, upgrade, wait, watch, why,
};

/// Controls mendd: shows, starts, stops and restarts what it supervises.
#[derive(Debug, Parser)]
#[command(name = "mendctl", version, after_help = after_help(), max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub struct Global {
    /// The daemon's socket [default: the user's, then /run/mend/mend.sock]
    #[arg(long, global = true, env = "MEND_SOCKET", value_name = "PATH", hide_env_values = true)]
    pub socket: Option<PathBuf>,
    /// Write JSON to stdout, also for errors
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colour; NO_COLOR and CLICOLOR_FORCE are honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show what runs and what does not
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Start processes, and wait until they run
    #[command(after_help = act::START_EXAMPLES)]
    Start(act::ActArgs),
    /// Stop processes, and wait until they are gone
    #[command(after_help = act::STOP_EXAMPLES)]
    Stop(act::ActArgs),
    /// Stop and start processes; those that do not run are started
    #[command(after_help = act::RESTART_EXAMPLES)]
    Restart(act::ActArgs),
    /// Let programs start by themselves, from the next boot on
    #[command(after_help = enable::ENABLE_EXAMPLES)]
    Enable(enable::EnableArgs),
    /// Let programs not start by themselves any more; by hand they may
    #[command(after_help = enable::DISABLE_EXAMPLES)]
    Disable(enable::EnableArgs),
    /// Reload mendd's configuration; with NAMES tell these programs to reload theirs
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::ReloadArgs),
    /// Show what the changed configuration would do, and why
    #[command(after_help = plan::EXAMPLES)]
    Plan(plan::PlanArgs),
    /// Apply the changed configuration; what does not run is rolled back
    #[command(after_help = apply::EXAMPLES)]
    Apply(apply::ApplyArgs),
    /// Send a signal to processes
    #[command(after_help = signal::EXAMPLES)]
    Signal(signal::SignalArgs),
    /// Show the output of processes
    #[command(after_help = logs::EXAMPLES)]
    Logs(logs::LogsArgs),
    /// Follow the output of processes (logs --follow)
    #[command(after_help = logs::TAIL_EXAMPLES)]
    Tail(logs::LogsArgs),
    /// Wait until processes are in a state
    #[command(after_help = wait::EXAMPLES)]
    Wait(wait::WaitArgs),
    /// Show events as they happen
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// Show, describe and run health checks
    #[command(after_help = check::EXAMPLES)]
    Check(check::CheckArgs),
    /// Tell why something is as it is, and the story of its last incident
    #[command(after_help = why::EXAMPLES)]
    Why(why::WhyArgs),
    /// Heal what a check finds down, now
    #[command(after_help = heal::EXAMPLES)]
    Heal(heal::HealArgs),
    /// Leave something alone for a time: no remedy, no alert
    #[command(after_help = hold::HOLD_EXAMPLES)]
    Hold(hold::HoldArgs),
    /// End a hold
    #[command(after_help = hold::RELEASE_EXAMPLES)]
    Release(hold::ReleaseArgs),
    /// Show what went wrong, and the story of one incident
    #[command(after_help = incidents::EXAMPLES)]
    Incidents(incidents::IncidentsArgs),
    /// Show what healing has achieved: recovery times, availability, success of remedies
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::StatsArgs),
    /// Show who asked for what, and what became of it
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::AuditArgs),
    /// Stop all processes and end mendd
    #[command(after_help = shutdown::EXAMPLES)]
    Shutdown(shutdown::ShutdownArgs),
    /// Become another version of mendd while the programs run on
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(upgrade::UpgradeArgs),
    /// Show the versions of client and daemon
    #[command(after_help = "Examples:\n  mendctl version\n  mendctl version --json")]
    Version,
    /// Change how much mendd writes to its own log
    #[command(after_help = log_level::EXAMPLES)]
    LogLevel(log_level::LogLevelArgs),
    /// Check a configuration, show what takes effect and what was before, print its schema
    #[command(after_help = config::EXAMPLES)]
    Config(config::ConfigArgs),
    /// Say at length what the code of a mistake means
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Print a completion script for a shell
    #[command(after_help = completion::EXAMPLES)]
    Completion(completion::CompletionArgs),
    /// Print what a completion script asks for.
    #[command(name = "__complete", hide = true)]
    Complete(completion::CompleteArgs),
}

/// Names that the daemon resolves.
#[derive(Debug, Clone, Args)]
pub struct Names {
    /// Processes (web:0), programs (web, web:*), groups (@site), globs (w*), or all
    #[arg(required = true, value_name = "NAMES")]
    pub names: Vec<String>,
}

/// As [`Names`], for verbs that take none as all.
#[derive(Debug, Clone, Args)]
pub struct SomeNames {
    /// Processes (web:0), programs (web, web:*), groups (@site), globs (w*) [default: all]
    #[arg(value_name = "NAMES")]
    pub names: Vec<String>,
}

fn after_help() -> String {
    let examples = "Examples:\n  mendctl status\n  mendctl restart web --timeout 2m\n";
    format!("{examples}\n{}", Exit::help().trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_two_examples() {
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = verb.get_name();
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.lines().filter(|line| line.contains("mendctl ")).count();
            assert!(examples >= 2, "{name} has {examples} examples");
        }
    }

    #[test]
    fn the_help_lists_every_exit_code() {
        let help = Cli::command().render_help().to_string();
        for exit in Exit::ALL {
            assert!(help.contains(&format!("{:>3}  {}", exit.code(), exit.meaning())), "{help}");
        }
    }
}
