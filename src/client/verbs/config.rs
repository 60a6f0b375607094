//! `config`: its mistakes, its schema, what takes effect, and the generations that were applied.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{config_show, history};
use crate::api::view::SCHEMA;
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::config::{self, Diagnostic, Severity, Source};

pub(crate) const EXAMPLES: &str = "\
Examples:
  mendctl config check
  mendctl config check /etc/mend/supervisor.toml --strict
  mendctl config show web";

const CHECK_EXAMPLES: &str = "\
Exits with 0 when it is correct, with 78 when it has mistakes, with 1 when it cannot be read,
and with --strict also when there are warnings. Nothing is started and no daemon is asked.

Examples:
  mendctl config check
  mendctl config check /etc/mend/supervisor.toml --json";

const SHOW_EXAMPLES: &str = "\
The output is a configuration again: all files joined, variables filled in, defaults applied,
each line with where it comes from. Values that look like secrets are shown as ***.

Examples:
  mendctl config show                        # the file that mendd reads
  mendctl config show ./supervisor.toml web
  mendctl config show running 'w*' --json    # what the daemon has active";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  mendctl config schema > supervisor.schema.json
  echo '#:schema ./supervisor.schema.json' # the first line of a configuration, for editors";

#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Say whether a configuration is correct
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// The configuration [default: the one that mendd reads]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Fail also when there are only warnings
        #[arg(long)]
        strict: bool,
    },
    /// Show every key with its value and where it comes from
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// A file, or `running`, then programs, groups, `supervisor` or globs [default: all of
        /// the file that mendd reads]
        #[arg(value_name = "FILE|running|NAMES")]
        what: Vec<String>,
        /// Show secrets too; only of a file
        #[arg(long)]
        show_secrets: bool,
    },
    /// Print a JSON Schema of the configuration, for editors
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
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

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(super) fn default_file() -> PathBuf {
    config::default_config_path(&env)
}

pub(crate) async fn run(context: &mut Context, args: &ConfigArgs) -> Result<Exit, Failure> {
    match &args.what {
        What::Check { file, strict } => check(context, file.clone(), *strict),
        What::Show { what, show_secrets } => config_show::run(context, what, *show_secrets).await,
        What::History => history::list(context).await,
        What::Diff { from, to } => history::diff(context, *from, *to).await,
        What::Schema => {
            let schema = config::schema::schema();
            let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
            context.printer.line(&text)?;
            Ok(Exit::Ok)
        }
    }
}

fn check(context: &mut Context, file: Option<PathBuf>, strict: bool) -> Result<Exit, Failure> {
    let file = file.unwrap_or_else(default_file);
    let color = context.printer.look.error_color;
    let (exit, diagnostics, sources, rendered) = match config::load(&file, &env) {
        Ok(loaded) => {
            let rendered = loaded.render_warnings(color);
            let exit = if strict && !loaded.warnings.is_empty() { Exit::Failed } else { Exit::Ok };
            (exit, loaded.warnings, loaded.sources, rendered)
        }
        Err(report) => {
            let exit = if report.is_unreadable() { Exit::Failed } else { Exit::Config };
            let rendered = report.render(color);
            (exit, report.diagnostics, report.sources, rendered)
        }
    };
    let mistakes = diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
    let warnings = diagnostics.len() - mistakes;
    if context.printer.json {
        let found: Vec<Value> = diagnostics.iter().map(|found| document(found, &sources)).collect();
        let file = file.display().to_string();
        let whole = json!({
            "schema": SCHEMA, "file": file, "valid": mistakes == 0,
            "mistakes": mistakes, "warnings": warnings, "diagnostics": found,
        });
        context.printer.document(&whole)?;
        return Ok(exit);
    }
    if let Some(first) = diagnostics.first() {
        let more = format!("`mendctl explain {}` says more", first.code);
        context.printer.aside(&format!("{}\n\n{more}\n", rendered.trim_end()));
    }
    let file = file.display();
    match (mistakes, warnings) {
        (0, 0) => context.printer.line(&format!("{file}: correct"))?,
        (0, 1) => context.printer.line(&format!("{file}: correct, with a warning"))?,
        (0, count) => context.printer.line(&format!("{file}: correct, with {count} warnings"))?,
        (1, _) => context.printer.aside(&format!("{file}: a mistake\n")),
        (count, _) => context.printer.aside(&format!("{file}: {count} mistakes\n")),
    }
    Ok(exit)
}

/// Returns a diagnostic with lines and columns, counted from 1, where it has a place; the end is
/// the first character after it.
fn document(diagnostic: &Diagnostic, sources: &[Source]) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let place = |file: &std::path::Path, at: usize| {
        let source = sources.iter().find(|source| source.path == file)?;
        let before = &source.text[..source.text.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.matches('\n').count() + 1;
        Some((line, before[line_start..].chars().count() + 1))
    };
    let span = diagnostic.span.as_ref();
    let start = diagnostic.line_and_column(sources);
    let end = span.and_then(|span| place(&diagnostic.file, span.end));
    let notes: Vec<Value> = diagnostic
        .notes
        .iter()
        .map(|note| {
            let at = note.place.as_ref().and_then(|(file, span)| place(file, span.start));
            json!({
                "message": note.message,
                "file": note.place.as_ref().map(|(file, _)| file.display().to_string()),
                "line": at.map(|(line, _)| line),
                "column": at.map(|(_, column)| column),
            })
        })
        .collect();
    json!({
        "code": diagnostic.code,
        "severity": severity,
        "file": diagnostic.file.display().to_string(),
        "line": start.map(|(line, _)| line),
        "column": start.map(|(_, column)| column),
        "end": end.map(|(line, column)| json!({ "line": line, "column": column })),
        "message": diagnostic.message,
        "help": diagnostic.help,
        "notes": notes,
    })
}
