//! `${VAR}` in values, expanded on the parsed string and never on the raw text.
//!
//! `${VAR}` must be set, `${VAR:-default}` may be unset or empty, `${VAR:?message}` fails with
//! the message, `$${` is a literal `${`. Any other `$` stays, because `$HOME`, `$1` and `$$`
//! belong to the shell of a program with `shell = true`. A default may hold further `${…}`.

use std::ops::Range;

use super::paths::Env;

/// Deepest nesting of defaults.
const MAX_DEPTH: usize = 8;

/// Why a text cannot be expanded, with the bytes of the text that are to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub code: &'static str,
    pub at: Range<usize>,
    pub message: String,
    pub help: String,
}

/// A text with its variables replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expanded {
    pub text: String,
    /// Whether any variable was replaced.
    pub replaced: bool,
}

/// Expands `text`, passing each value through `wrap`; all failures are collected.
pub(super) fn expand(
    text: &str,
    env: Env<'_>,
    wrap: &mut dyn FnMut(String) -> String,
) -> Result<Expanded, Vec<Failure>> {
    let mut failures = Vec::new();
    let expanded = expand_at(text, 0, 0, env, wrap, &mut failures);
    if failures.is_empty() { Ok(expanded) } else { Err(failures) }
}

fn expand_at(
    text: &str,
    base: usize,
    depth: usize,
    env: Env<'_>,
    wrap: &mut dyn FnMut(String) -> String,
    failures: &mut Vec<Failure>,
) -> Expanded {
    let mut out = Expanded { text: String::with_capacity(text.len()), replaced: false };
    let mut at = 0;
    while let Some(found) = text[at..].find('$') {
        let dollar = at + found;
        out.text.push_str(&text[at..dollar]);
        let rest = &text[dollar + 1..];
        if rest.starts_with("${") {
            out.text.push_str("${");
            at = dollar + 3;
        } else if let Some(body) = rest.strip_prefix('{') {
            let Some(length) = closing_brace(body) else {
                failures.push(Failure {
                    code: "bad-interpolation",
                    at: base + dollar..base + text.len(),
                    message: "`${` is never closed".to_owned(),
                    help: "close it with `}`, or write `$${` for the two characters".to_owned(),
                });
                return out;
            };
            let inner = dollar + 2;
            let end = inner + length + 1;
            let place = base + dollar..base + end;
            let body = &text[inner..inner + length];
            if let Some(value) = variable(body, base + inner, place, depth, env, failures) {
                out.text.push_str(&wrap(value));
                out.replaced = true;
            }
            at = end;
        } else {
            out.text.push('$');
            at = dollar + 1;
        }
    }
    out.text.push_str(&text[at..]);
    out
}

/// Returns the length of what is before the `}` that closes, nested `${…}` skipped.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = 0_usize;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            _ => {}
        }
    }
    None
}

fn variable(
    body: &str,
    base: usize,
    at: Range<usize>,
    depth: usize,
    env: Env<'_>,
    failures: &mut Vec<Failure>,
) -> Option<String> {
    let name_end =
        body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
    let (name, rest) = body.split_at(name_end);
    let mut fail = |code, message: String, help: String| {
        failures.push(Failure { code, at: at.clone(), message, help });
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let known_form = rest.is_empty() || rest.starts_with(":-") || rest.starts_with(":?");
    if !starts_well || !known_form {
        fail(
            "bad-interpolation",
            format!("{} is not a variable", super::diagnostic::quote(&format!("${{{body}}}"))),
            "write `${NAME}`, `${NAME:-default}` or `${NAME:?message}`; `$${` is a literal `${`"
                .to_owned(),
        );
        return None;
    }
    let value = env(name);
    let non_empty = value.clone().filter(|value| !value.is_empty());
    if let Some(default) = rest.strip_prefix(":-") {
        if non_empty.is_some() {
            return non_empty;
        }
        if depth >= MAX_DEPTH {
            let message = format!("defaults are nested deeper than {MAX_DEPTH}");
            fail("bad-interpolation", message, "use a variable of its own".to_owned());
            return None;
        }
        let inner = base + name_end + 2;
        return Some(expand_at(default, inner, depth + 1, env, &mut |v| v, failures).text);
    }
    if let Some(message) = rest.strip_prefix(":?") {
        if non_empty.is_none() {
            let reason = if message.is_empty() { "it must be set" } else { message };
            let text = format!("environment variable `{name}`: {reason}");
            fail("unset-variable", text, format!("set `{name}` where the daemon is started"));
        }
        return non_empty;
    }
    if value.is_none() {
        fail(
            "unset-variable",
            format!("environment variable `{name}` is not set"),
            format!("set it where the daemon is started, or give a default: `${{{name}:-…}}`"),
        );
    }
    value
}

/// Finds in the raw TOML text of a string the bytes that became `at` of the parsed string.
///
/// Escapes make the two differ; the same occurrence of the same text is what is looked for.
pub(super) fn raw_range(raw: &str, parsed: &str, at: &Range<usize>) -> Option<Range<usize>> {
    let wanted = parsed.get(at.clone())?;
    let nth = parsed.get(..at.start)?.matches(wanted).count();
    let (start, _) = raw.match_indices(wanted).nth(nth)?;
    Some(start..start + wanted.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("80".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn text(input: &str) -> Result<String, Vec<&'static str>> {
        expand(input, &env, &mut |value| value)
            .map(|e| e.text)
            .map_err(|failures| failures.iter().map(|f| f.code).collect())
    }

    #[test]
    fn variables_defaults_and_dollars() {
        for (input, output) in [
            ("a:${PORT}", "a:80"),
            ("${PORT:-1}${NONE:-1}${EMPTY:-2}", "8012"),
            ("${NONE:-}|${EMPTY}", "|"),
            ("${NONE:-${PORT}}", "80"),
            ("$$ $${PORT} $HOME $1 $", "$$ ${PORT} $HOME $1 $"),
            ("${PORT:?no}", "80"),
        ] {
            assert_eq!(text(input).as_deref(), Ok(output), "{input}");
        }
    }

    #[test]
    fn every_failure_of_a_text_is_found() {
        assert_eq!(
            text("${A} ${B:?x} ${C"),
            Err(vec!["unset-variable", "unset-variable", "bad-interpolation"])
        );
        for bad in ["${}", "${1A}", "${A-b}", "${A:b}"] {
            assert_eq!(text(bad), Err(vec!["bad-interpolation"]), "{bad}");
        }
    }

    #[test]
    fn a_default_nested_too_deep_is_refused() {
        let deep = "${A:-".repeat(50_000) + &"}".repeat(50_000);
        assert_eq!(text(&deep), Err(vec!["bad-interpolation"]));
    }
}
