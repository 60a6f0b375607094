//! `mendctl`: one file per verb.
//!
//! Rules: data goes to stdout, everything else to stderr; with `--json` stdout is JSON only, also
//! when something fails; a command returns when its effect is reached; an interrupt ends the view
//! or the waiting and never what the daemon does. Everything is printed by [`printer`].

pub mod cli;

pub mod exit;

pub mod failure;

pub mod printer;

pub mod socket;

pub mod http;

pub mod lines;

pub mod when;

pub mod table;

pub mod state;

pub mod interrupt;

mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};
use exit::Exit;
use failure::Failure;
use http::Client;
use interrupt::Interrupts;
use printer::{ColorWhen, Look, Printer};

use crate::api::view::SCHEMA;

/// What every verb gets: the daemon, the terminal and the user's patience.
pub struct Context {
    pub client: Client,
    pub printer: Printer,
    pub interrupts: Interrupts,
}

impl Context {
    /// Says once on stderr that the daemon is of another version than this program.
    pub fn compare_version(&mut self, daemon: &str, schema: u32) {
        let own = env!("CARGO_PKG_VERSION");
        if daemon != own {
            let age = if is_older(daemon, own) { "older" } else { "newer" };
            self.printer.notice(&format!("mendd {daemon} is {age} than this mendctl {own}"));
        } else if schema > SCHEMA {
            self.printer.notice("mendd knows more than this mendctl can show; update mendctl");
        }
    }
}

fn is_older(left: &str, right: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    numbers(left) < numbers(right)
}

/// Runs the program with the arguments and streams of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error, &arguments).into(),
    };
    let printer = Printer::of_process(Look::of_process(cli.global.color), cli.global.json);
    let client = Client::new(cli.global.socket.as_deref());
    let mut context = Context { client, printer, interrupts: Interrupts::Signals };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(&mut context, cli.verb)).into(),
        Err(error) => {
            context.printer.failure(&Failure::Output(error));
            Exit::Failed.into()
        }
    }
}

/// Runs one verb and reports what went wrong.
pub async fn run(context: &mut Context, verb: Verb) -> Exit {
    match verbs::run(context, verb).await {
        Ok(exit) => exit,
        Err(failure) => {
            context.printer.failure(&failure);
            failure.exit()
        }
    }
}

/// Prints help, version or what is wrong with the arguments.
fn refuse_arguments(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    if error.use_stderr() && wants_json {
        let mut printer = Printer::of_process(Look::of_process(ColorWhen::Auto), true);
        let text = error.to_string();
        // The rest, after an empty line, is about the usage in general.
        let said: Vec<&str> =
            text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let said = said.join(" ").trim_start_matches("error: ").to_owned();
        printer.failure(&Failure::Usage(said));
    } else {
        let _nobody_reads = error.print();
    }
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

#[cfg(test)]
mod fake_daemon;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod healing_tests;
