//! `config check`: the configuration's mistakes, found without a daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

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
}

pub(crate) fn run(context: &mut Context, args: &ConfigArgs) -> Result<Exit, Failure> {
    let What::Check { file } = &args.what;
    let env = |name: &str| std::env::var(name).ok();
    let file = file.clone().unwrap_or_else(|| config::default_config_path(&env));
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
    let source = sources.iter().find(|source| source.path == diagnostic.file);
    let place = source.zip(diagnostic.span.as_ref()).and_then(|(source, span)| {
        let before = source.text.get(..span.start)?;
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.matches('\n').count() + 1;
        Some((line, before[line_start..].chars().count() + 1))
    });
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
