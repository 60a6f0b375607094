//! The operator's command line of `mendd`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use crate::config::LogFormat;
use crate::name::ProgramName;

/// Runs programs, watches them and brings them back.
#[derive(Debug, Clone, Parser)]
#[command(name = "mendd", version, after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Options {
    /// The configuration file [default: /etc/mend/supervisor.toml as root, else
    /// $XDG_CONFIG_HOME/mend/supervisor.toml]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// What the daemon's own log tells: error, warn, info, debug, trace, or a filter such as
    /// `info,mendd::capture=debug`
    #[arg(long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,

    /// How the daemon's own log is written: human or json
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    pub(super) log_format: Option<LogFormat>,

    /// Stop everything when this program has ended, and exit with its code (containers)
    #[arg(long, value_name = "PROGRAM")]
    pub(super) exit_when: Option<ProgramName>,

    /// Only check the configuration: exit code 0 when it is good, 78 when not
    #[arg(long)]
    pub(super) check: bool,
}

const EXAMPLES: &str = "\
Examples:
  mendd --config supervisor.example.toml     run in the foreground
  mendd --check --config /etc/mend/supervisor.toml

Signals: TERM, INT, QUIT stop everything in order (again: at once); HUP reads the configuration
again; USR1 opens the log files again; USR2 upgrades to the executable on disk.";

fn parse_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("say human or json".into()),
    }
}

impl Options {
    /// Reads the words that the keeper passed on; the launcher has accepted them before.
    pub(super) fn from_words(words: Vec<OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(std::iter::once(OsString::from("mendd")).chain(words))
    }

    /// Returns the configuration file that counts.
    pub(super) fn config_path(&self) -> PathBuf {
        let path = self
            .config
            .clone()
            .unwrap_or_else(|| crate::config::default_config_path(&super::launcher::variable));
        std::path::absolute(&path).unwrap_or(path)
    }
}
