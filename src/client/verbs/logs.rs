//! `logs` and `tail`: what processes wrote, and what they write.

use anstyle::{AnsiColor, Style};
use clap::Args;
use jiff::Timestamp;
use unicode_width::UnicodeWidthStr;

use super::follow::{Follow, Step, printable};
use super::status;
use crate::api::view::LogLineView;
use crate::client::Context;
use crate::client::cli::SomeNames;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
On a terminal several processes get a coloured prefix; to a pipe go the bare lines.

Examples:
  mendctl logs web --since 10m --grep ERROR
  mendctl logs -f 'web:*' worker";
pub(crate) const TAIL_EXAMPLES: &str =
    "Examples:\n  mendctl tail web\n  mendctl tail @site -n 0 --stderr";

const LINES: u32 = 100;
const LINES_BEFORE_FOLLOWING: u32 = 10;
const COLORS: [AnsiColor; 8] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Yellow,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightGreen,
];

#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub names: SomeNames,
    /// Go on with what is written from now on
    #[arg(long, short)]
    pub follow: bool,
    /// How many lines to begin with [default: 100; 10 to follow; all with --since]
    #[arg(long, short = 'n', value_name = "N")]
    pub lines: Option<u32>,
    /// Only what is newer: 10m, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what is older: 10m, or an RFC 3339 time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    pub until: Option<String>,
    /// Put the time before every line
    #[arg(long, short)]
    pub timestamps: bool,
    /// Only what went to stderr
    #[arg(long, conflicts_with = "stdout")]
    pub stderr: bool,
    /// Only what went to stdout
    #[arg(long)]
    pub stdout: bool,
    /// No names before the lines
    #[arg(long)]
    pub no_prefix: bool,
    /// Only lines that contain TEXT
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
}

/// What to show of which line.
struct View {
    until: Option<Timestamp>,
    grep: Option<String>,
    timestamps: bool,
    /// Columns of the prefix, if there is one.
    prefix: Option<usize>,
}

pub(crate) async fn run(
    context: &mut Context,
    args: &LogsArgs,
    follows: bool,
) -> Result<Exit, Failure> {
    let follows = follows || args.follow;
    let now = Timestamp::now();
    let moment = |text: &Option<String>| {
        text.as_deref()
            .map(|text| when::parse_moment(text, now))
            .transpose()
            .map_err(Failure::Usage)
    };
    let (since, until) = (moment(&args.since)?, moment(&args.until)?);
    if follows && until.is_some() {
        return Err(Failure::Usage("what is followed has no end: leave out --until".to_owned()));
    }
    let prefix = prefix_width(context, args).await?;
    let mut query: Vec<(&'static str, String)> =
        args.names.names.iter().map(|name| ("name", name.clone())).collect();
    if args.stderr || args.stdout {
        query.push(("stream", if args.stderr { "stderr" } else { "stdout" }.to_owned()));
    }
    let mut first = Vec::new();
    let usual = if follows { LINES_BEFORE_FOLLOWING } else { LINES };
    if let Some(lines) = args.lines.or(since.is_none().then_some(usual)) {
        first.push(("lines", lines.to_string()));
    }
    if let Some(since) = since {
        first.push(("since", since.to_string()));
    }
    if let Some(until) = until {
        first.push(("until", until.to_string()));
    }
    let look = context.printer.look;
    let as_it_is = !follows && !context.printer.json && !look.out_is_terminal;
    if as_it_is && !args.timestamps && args.grep.is_none() {
        return copy(context, &query, &first).await;
    }
    let view = View { until, grep: args.grep.clone(), timestamps: args.timestamps, prefix };
    let follow = Follow::open(&context.client, query, &first, follows).await?;
    show(context, follow, &view).await
}

/// Copies the bytes that the processes wrote, also those that are no text.
async fn copy(
    context: &mut Context,
    query: &[(&'static str, String)],
    first: &[(&'static str, String)],
) -> Result<Exit, Failure> {
    let pairs = query.iter().chain(first).map(|(key, value)| (*key, value.as_str()));
    let path = with_query("/v1/logs", pairs.chain([("format", "text")]));
    let mut interrupt = context.interrupts.listen();
    let mut stream = context.client.stream(&path, None).await?;
    loop {
        let piece = tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(Exit::Interrupted),
            piece = stream.piece() => piece?,
        };
        match piece {
            Some(bytes) => context.printer.bytes(&bytes)?,
            None => return Ok(Exit::Ok),
        }
    }
}

/// Returns the width of the longest name if several processes go to a terminal.
async fn prefix_width(context: &Context, args: &LogsArgs) -> Result<Option<usize>, Failure> {
    if args.no_prefix || context.printer.json || !context.printer.look.out_is_terminal {
        return Ok(None);
    }
    let status = status::get(context, &args.names.names).await?.value;
    let widest = status.programs.iter().map(|process| process.name.width()).max();
    Ok(widest.filter(|_| status.programs.len() > 1))
}

async fn show(context: &mut Context, mut follow: Follow, view: &View) -> Result<Exit, Failure> {
    let mut interrupt = context.interrupts.listen();
    loop {
        let step = tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(Exit::Interrupted),
            step = follow.next() => step?,
        };
        match step {
            Step::Line { line, raw } => {
                if !view.wants(&line) {
                    continue;
                }
                if context.printer.json {
                    context.printer.raw_document(&raw)?;
                } else {
                    let look = context.printer.look;
                    let text = view.render(&line, look.color, look.out_is_terminal);
                    context.printer.line(&text)?;
                }
            }
            Step::Lost => context.printer.notice("mendd is gone, waiting for it to return"),
            Step::Again => context.printer.notice("mendd is back, going on"),
            Step::End => return Ok(Exit::Ok),
        }
    }
}

impl View {
    fn wants(&self, line: &LogLineView) -> bool {
        let at = line.at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        let is_late = self.until.zip(at).is_some_and(|(until, at)| at > until);
        let matches = self.grep.as_deref().is_none_or(|text| line.line.contains(text));
        matches && !is_late
    }

    fn render(&self, line: &LogLineView, color: bool, is_terminal: bool) -> String {
        let mut text = String::new();
        if let Some(width) = self.prefix {
            let room = width.saturating_sub(line.name.width());
            let prefix = format!("{}{} |", line.name, " ".repeat(room));
            text.push_str(&crate::client::printer::paint(color, name_style(&line.name), &prefix));
            text.push(' ');
        }
        if self.timestamps {
            text.push_str(line.at.as_deref().unwrap_or("-"));
            text.push(' ');
        }
        if is_terminal {
            text.push_str(&printable(&line.line));
        } else {
            text.push_str(&line.line);
        }
        text
    }
}

/// Returns the same colour for the same name, today and tomorrow.
fn name_style(name: &str) -> Style {
    let hash = crc32fast::hash(name.as_bytes());
    COLORS[hash as usize % COLORS.len()].on_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LogLineView {
        LogLineView {
            name: "web".to_owned(),
            stream: "stdout".to_owned(),
            at: Some("2026-11-23T12:00:00.123Z".to_owned()),
            cursor: "3:4096".to_owned(),
            line: "hello\x1b[2J".to_owned(),
        }
    }

    #[test]
    fn a_pipe_gets_the_line_as_it_is() {
        let view = View { until: None, grep: None, timestamps: false, prefix: None };
        assert_eq!(view.render(&line(), false, false), "hello\x1b[2J");
    }

    #[test]
    fn a_terminal_gets_padded_prefixes_and_times() {
        let view = View { until: None, grep: None, timestamps: true, prefix: Some(6) };
        let expected = "web    | 2026-11-23T12:00:00.123Z hello\\u{1b}[2J";
        assert_eq!(view.render(&line(), false, true), expected);
        let colored = view.render(&line(), true, true);
        assert!(colored.starts_with('\x1b'), "{colored:?}");
        assert_eq!(name_style("web"), name_style("web"));
    }

    #[test]
    fn only_lines_before_the_end_and_with_the_text_are_shown() {
        let until = |text: &str| Some(text.parse().unwrap());
        let view = |until, grep: Option<&str>| View {
            until,
            grep: grep.map(str::to_owned),
            timestamps: false,
            prefix: None,
        };
        assert!(view(until("2026-11-23T12:00:01Z"), Some("ell")).wants(&line()));
        assert!(!view(until("2026-11-23T12:00:00Z"), None).wants(&line()));
        assert!(!view(None, Some("bye")).wants(&line()));
    }
}
