//! `config check`: the configuration's mistakes, found without a daemon; and the generations
//! that were applied.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::history;
use crate::api::view::SCHEMA;
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::config::{self, Diagnostic, Severity, Source};

pub(crate) const EXAMPLES: &str =
    "Examples:\n  mendctl config check\n  mendctl config check /etc/mend/supervisor.toml --json";

#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Say whether a configuration is correct; 78 when it has mistakes, 1 when it is not readable
    #[command(after_help = EXAMPLES)]
    Check {
        /// The configuration [default: the one that mendd reads]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List the configurations that were applied: when, by whom, why, and what became of them
    #[command(after_help = HISTORY_EXAMPLES)]
    History,
    /// Show what differs between two of them; 10 when something does
    #[command(after_help = DIFF_EXAMPLES)]
    Diff {
        /// A generation of `config history`
        #[arg(value_name = "N")]
        from: u64,
        /// A later one [default: N is compared with what is active]
        #[arg(value_name = "M")]
        to: Option<u64>,
    },
}

const HISTORY_EXAMPLES: &str =
    "Examples:\n  mendctl config history\n  mendctl config history --json | jq .current";
const DIFF_EXAMPLES: &str = "Examples:\n  mendctl config diff 3\n  mendctl config diff 3 5";

pub(crate) async fn run(context: &mut Context, args: &ConfigArgs) -> Result<Exit, Failure> {
    match &args.what {
        What::Check { file } => check(context, file.as_ref()),
        What::History => history::list(context).await,
        What::Diff { from, to } => history::diff(context, *from, *to).await,
    }
}

fn check(context: &mut Context, file: Option<&PathBuf>) -> Result<Exit, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let file = file.cloned().unwrap_or_else(|| config::default_config_path(&env));
    let color = context.printer.look.error_color;
    let (exit, diagnostics, sources, rendered) = match config::load(&file, &env) {
        Ok(loaded) => {
            let rendered = loaded.render_warnings(color);
            (Exit::Ok, loaded.warnings, loaded.sources, rendered)
        }
        Err(report) => {
            let exit = if report.sources.is_empty() { Exit::Failed } else { Exit::Config };
            let rendered = report.render(color);
            (exit, report.diagnostics, report.sources, rendered)
        }
    };
    if context.printer.json {
        let found: Vec<Value> = diagnostics.iter().map(|found| document(found, &sources)).collect();
        let valid = exit == Exit::Ok;
        let file = file.display().to_string();
        let whole = json!({ "schema": SCHEMA, "file": file, "valid": valid, "diagnostics": found });
        context.printer.document(&whole)?;
    } else {
        if !rendered.is_empty() {
            context.printer.aside(&format!("{}\n", rendered.trim_end()));
        }
        if exit == Exit::Ok {
            context.printer.line(&format!("{}: correct", file.display()))?;
        }
    }
    Ok(exit)
}

/// Returns a diagnostic with line and column, counted from 1, where it has a place.
fn document(diagnostic: &Diagnostic, sources: &[Source]) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let place = diagnostic.line_and_column(sources);
    json!({
        "code": diagnostic.code,
        "severity": severity,
        "file": diagnostic.file.display().to_string(),
        "line": place.map(|(line, _)| line),
        "column": place.map(|(_, column)| column),
        "message": diagnostic.message,
        "help": diagnostic.help,
    })
}
