//! The only door to stdout and stderr: data to the one, everything else to the other.

use std::env;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::failure::Failure;
use crate::os::sigpipe;

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub color: bool,
    pub error_color: bool,
    pub unicode: bool,
    pub out_is_terminal: bool,
    pub error_is_terminal: bool,
    /// Columns; `None` when stdout is no terminal, so that nothing is cut.
    pub width: Option<usize>,
    pub height: Option<usize>,
    /// Columns of the terminal at stderr.
    pub error_width: Option<usize>,
}

impl Look {
    /// Looks at stdout, stderr and the environment.
    pub fn of_process(when: ColorWhen) -> Self {
        let choice = |auto: anstream::ColorChoice| match when {
            ColorWhen::Auto => auto != anstream::ColorChoice::Never,
            ColorWhen::Always => true,
            ColorWhen::Never => false,
        };
        let size = terminal_size::terminal_size_of(io::stdout());
        Self {
            color: choice(anstream::AutoStream::choice(&io::stdout())),
            error_color: choice(anstream::AutoStream::choice(&io::stderr())),
            unicode: locale_is_utf8(|name| env::var(name).ok()),
            out_is_terminal: io::stdout().is_terminal(),
            error_is_terminal: io::stderr().is_terminal(),
            width: size.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0),
            height: size.map(|(_, height)| usize::from(height.0)).filter(|height| *height > 0),
            error_width: terminal_size::terminal_size_of(io::stderr())
                .map(|(width, _)| usize::from(width.0))
                .filter(|width| *width > 0),
        }
    }

    /// Returns a look without terminal, colour or wide characters.
    pub const fn plain() -> Self {
        Self {
            color: false,
            error_color: false,
            unicode: false,
            out_is_terminal: false,
            error_is_terminal: false,
            width: None,
            height: None,
            error_width: None,
        }
    }
}

fn locale_is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Writes what a command has to say.
pub struct Printer {
    out: Box<dyn Write>,
    error: Box<dyn Write>,
    pub look: Look,
    /// Whether stdout is JSON.
    pub json: bool,
}

impl Printer {
    pub fn of_process(look: Look, json: bool) -> Self {
        Self::new(Box::new(io::stdout().lock()), Box::new(io::stderr()), look, json)
    }

    pub fn new(out: Box<dyn Write>, error: Box<dyn Write>, look: Look, json: bool) -> Self {
        Self { out, error, look, json }
    }

    /// Writes text to stdout as it is and flushes it; a closed pipe ends the program quietly.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => sigpipe::end_by_sigpipe(),
            other => Ok(other?),
        }
    }

    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// Writes one JSON document as one line.
    pub fn document(&mut self, document: &Value) -> Result<(), Failure> {
        self.line(&document.to_string())
    }

    /// Passes on a JSON document as the daemon wrote it.
    pub fn raw_document(&mut self, raw: &[u8]) -> Result<(), Failure> {
        let mut line = raw.trim_ascii_end().to_vec();
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Says something on stderr that is not the result.
    pub fn notice(&mut self, text: &str) {
        self.aside(&format!("mendctl: {text}\n"));
    }

    /// Writes to stderr as it is. A stderr that cannot be written to is no reason to fail.
    pub fn aside(&mut self, text: &str) {
        let _lost = self.error.write_all(text.as_bytes()).and_then(|()| self.error.flush());
    }

    /// Reports a failure: in words on stderr, with `--json` as one object on stdout.
    pub fn failure(&mut self, failure: &Failure) {
        if self.json {
            let problem = failure.problem();
            let mut error = json!({
                "type": problem.kind,
                "title": problem.title,
                "status": problem.status,
                "detail": problem.detail,
                "exit_code": failure.exit().code(),
            });
            if let Some(help) = problem.help {
                error["help"] = help.into();
            }
            let document = json!({ "schema": crate::api::view::SCHEMA, "error": error });
            let _lost = self.document(&document);
            return;
        }
        if let Failure::Interrupted(text) = failure {
            self.notice(text);
            return;
        }
        let red = self.error_paint(AnsiColor::Red.on_default().bold(), "error:");
        let text = failure.whole_text();
        // A rendered report says itself that these are errors.
        let lead = if text.starts_with("error[") { String::new() } else { format!("{red} ") };
        self.aside(&format!("{lead}{text}\n"));
        if let Some(help) = failure.help() {
            let blue = self.error_paint(AnsiColor::Cyan.on_default().bold(), "help:");
            self.aside(&format!("{blue} {help}\n"));
        }
    }

    /// Returns `text` in a style, if stdout shows colour.
    pub fn paint(&self, style: Style, text: &str) -> String {
        paint(self.look.color, style, text)
    }

    /// Returns `text` in a style, if stderr shows colour.
    pub fn error_paint(&self, style: Style, text: &str) -> String {
        paint(self.look.error_color, style, text)
    }
}

/// Returns `text` in a style, or as it is.
pub fn paint(color: bool, style: Style, text: &str) -> String {
    if color && !style.is_plain() { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_locale_variable_with_a_value_decides() {
        let with = |all: &'static str, lang: &'static str| {
            locale_is_utf8(move |name| match name {
                "LC_ALL" => Some(all.to_owned()),
                "LANG" => Some(lang.to_owned()),
                _ => None,
            })
        };
        assert!(with("", "en_US.UTF-8"));
        assert!(with("C.utf8", "C"));
        assert!(!with("C", "en_US.UTF-8"));
        assert!(!with("", ""));
    }
}
