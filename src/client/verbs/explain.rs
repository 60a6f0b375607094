//! `explain`: what the code of a mistake means, at length.

use clap::Args;
use serde_json::json;

use crate::api::view::SCHEMA;
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::config::explain::{EXPLANATIONS, Explanation, explain};
use crate::config::nearest;

pub(crate) const EXAMPLES: &str =
    "Examples:\n  mendctl explain unknown-key\n  mendctl explain            # lists all codes";

#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The code between the brackets of `error[…]` [default: list all]
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
}

pub(crate) fn run(context: &mut Context, args: &ExplainArgs) -> Result<Exit, Failure> {
    let Some(code) = &args.code else {
        return list(context);
    };
    let code = code.trim_start_matches("error[").trim_start_matches("warning[").trim_matches(']');
    let Some(explanation) = explain(code) else {
        let near = nearest(code, EXPLANATIONS.iter().map(|explanation| explanation.code));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`mendctl explain` lists all codes".to_owned(),
        };
        return Err(Failure::Usage(format!("no mistake has the code `{code}`; {help}")));
    };
    if context.printer.json {
        let Explanation { code, text, wrong } = explanation;
        let document = json!({ "schema": SCHEMA, "code": code, "text": text, "example": wrong });
        context.printer.document(&document)?;
        return Ok(Exit::Ok);
    }
    let width = context.printer.look.width.unwrap_or(80).clamp(40, 100);
    context.printer.line(&wrapped(explanation.text, width))?;
    if !explanation.wrong.is_empty() {
        let example = explanation.wrong.replace('\n', "\n    ").replace("\n    \n", "\n\n");
        context.printer.line(&format!("\nFor example:\n\n    {example}"))?;
    }
    Ok(Exit::Ok)
}

fn list(context: &mut Context) -> Result<Exit, Failure> {
    if context.printer.json {
        let codes: Vec<&str> = EXPLANATIONS.iter().map(|explanation| explanation.code).collect();
        context.printer.document(&json!({ "schema": SCHEMA, "codes": codes }))?;
        return Ok(Exit::Ok);
    }
    for explanation in EXPLANATIONS {
        context.printer.line(explanation.code)?;
    }
    Ok(Exit::Ok)
}

/// Breaks a paragraph into lines of at most `width` characters, at spaces.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_broken_at_spaces() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("averyveryverylongword x", 7), "averyveryverylongword\nx");
    }
}
