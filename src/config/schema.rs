//! The configuration as a JSON Schema, so that editors complete and check it while it is typed.
//!
//! Made from the table of keys alone. It knows shapes and words; what only the loader can judge
//! (whether a user exists, cycles, bounds between keys) is not in it. Every value may also be a
//! string with `${…}`.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Section};
use super::kinds::Kind;
use crate::name::MAX_NAME_BYTES;

/// Writes the schema, draft 2020-12.
pub fn schema() -> Value {
    let program = "#/$defs/program";
    let name = format!("^[A-Za-z0-9_][A-Za-z0-9._-]{{0,{}}}$", MAX_NAME_BYTES - 1);
    let named = |reference: &str| {
        json!({
            "type": "object",
            "patternProperties": { &name: { "$ref": reference } },
            "additionalProperties": false,
        })
    };
    let mut top = table(Section::Top, "");
    let properties = json!({
        "supervisor": { "$ref": "#/$defs/supervisor" },
        "defaults": {
            "type": "object",
            "description": "Below every program, and below every check.",
            "properties": { "program": { "$ref": program }, "check": { "$ref": CHECK } },
            "additionalProperties": false,
        },
        "program": named(program),
        "group": named("#/$defs/group"),
        "check": named(CHECK),
    });
    merge(&mut top["properties"], properties);
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of mendd",
        "$defs": {
            "supervisor": table(Section::Supervisor, ""),
            "program": table(Section::Program, ""),
            "group": table(Section::Group, ""),
            "check": table(Section::Check, ""),
            "interpolated": {
                "type": "string",
                "description": "A text with variables of the daemon's environment.",
                "pattern": "\\$\\{",
            },
            "duration": {
                "anyOf": [
                    { "type": "integer", "minimum": 0 },
                    { "type": "string", "pattern": DURATION },
                ],
            },
            "size": {
                "anyOf": [
                    { "type": "integer", "minimum": 0 },
                    { "type": "string", "pattern": SIZE },
                ],
            },
        },
    });
    merge(&mut top, head);
    top
}

const DURATION: &str = r"^\s*([0-9]+|([0-9]+(\.[0-9]+)?\s*(us|µs|ms|sec|s|min|m|h|d|w)\s*)+)$";
const SIZE: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*([bB]|[kKmMgGtT]([iI]?[bB])?)?\s*$";
const PERCENTAGE: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$";
const REMEDY: &str = "^(confirm|reload|restart|clean-restart|restart-group|rollback|shed|alert|\
                      quarantine|(signal|run|fallback):.+)$";
const CHECK: &str = "#/$defs/check";
const READY: &str = "^(notify|fd:[0-9]+)$";
const SIGNAL: &str = r"^\s*([0-9]+|(SIG)?[A-Za-z0-9]+(\+[0-9]+)?)\s*$";

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// Describes the keys below `prefix`.
fn table(section: Section, prefix: &str) -> Value {
    let mut properties = Map::new();
    for name in keys::children(section, prefix) {
        let dotted = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        properties.insert(name.to_owned(), property(section, &dotted));
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn property(section: Section, dotted: &str) -> Value {
    let below = !keys::children(section, dotted).is_empty();
    let Some(key) = keys::find(section, dotted) else {
        return table(section, dotted);
    };
    let mut value = match Kind::of(key.kind) {
        Some(Kind::TextOrTable) if below => {
            let words = json!({ "type": "string", "pattern": READY });
            json!({ "anyOf": [words, interpolated(), table(section, dotted)] })
        }
        Some(Kind::OrTable(kind)) if below => {
            json!({ "anyOf": [one(&kind), table(section, dotted)] })
        }
        Some(Kind::Remedies) if below => {
            let words = json!({ "type": "string", "pattern": REMEDY });
            let one = json!({ "anyOf": [words, interpolated(), table(section, dotted)] });
            json!({ "type": "array", "items": one })
        }
        Some(Kind::Tables) if below => json!({ "type": "array", "items": table(section, dotted) }),
        Some(kind) => one(&kind),
        None => json!({}),
    };
    merge(&mut value, remarks(key));
    value
}

fn remarks(key: &Key) -> Value {
    let description = match key.default {
        "" => format!("{}.", key.help),
        default => format!("{}. Default: {default}.", key.help),
    };
    match parsed(key.example) {
        Some(example) => json!({ "description": description, "examples": [example] }),
        None => json!({ "description": description }),
    }
}

/// Reads a value as it is written in TOML.
fn parsed(text: &str) -> Option<Value> {
    let table: Map<String, Value> = toml::from_str(&format!("value = {text}")).ok()?;
    table.get("value").cloned()
}

fn interpolated() -> Value {
    json!({ "$ref": "#/$defs/interpolated" })
}

/// Allows `${…}` beside the value itself.
fn or_interpolated(value: Value) -> Value {
    json!({ "anyOf": [value, interpolated()] })
}

fn words(words: &[&str]) -> Value {
    json!({ "enum": words })
}

fn one(kind: &Kind) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let pattern = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    match kind {
        Kind::Text | Kind::Path | Kind::PathOr(_) => json!({ "type": "string" }),
        Kind::Boolean => or_interpolated(json!({ "type": "boolean" })),
        Kind::Integer => or_interpolated(json!({ "type": "integer" })),
        Kind::Number => or_interpolated(json!({ "type": "number" })),
        Kind::Duration => or_interpolated(reference("duration")),
        Kind::Size => or_interpolated(reference("size")),
        Kind::Percentage => or_interpolated(pattern(PERCENTAGE)),
        Kind::Octal => or_interpolated(pattern("^[0-7]{1,4}$")),
        Kind::Signal => or_interpolated(json!({
            "anyOf": [{ "type": "integer", "minimum": 1 }, pattern(SIGNAL)],
        })),
        Kind::Account => json!({ "type": ["string", "integer"] }),
        Kind::Words(list) => or_interpolated(words(list)),
        Kind::WordsOrSignal(list) => {
            let signal = pattern("^signal:");
            or_interpolated(json!({ "anyOf": [words(list), signal] }))
        }
        Kind::OrUnlimited(kind) => json!({ "anyOf": [one(kind), words(&["unlimited"])] }),
        Kind::List(kind) => json!({ "type": "array", "items": one(kind) }),
        Kind::OneOrMany(kind) => {
            json!({ "anyOf": [one(kind), { "type": "array", "items": one(kind) }] })
        }
        Kind::Programs | Kind::Patterns => {
            json!({ "type": "array", "items": { "type": "string" } })
        }
        Kind::Variables => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "integer"] } })
        }
        Kind::Amount => json!({ "anyOf": [one(&Kind::Size), pattern(PERCENTAGE)] }),
        Kind::OrTable(kind) => json!({ "anyOf": [one(kind), { "type": "object" }] }),
        Kind::Checks => json!({ "type": "array", "items": { "$ref": CHECK } }),
        Kind::Tables | Kind::Remedies => json!({ "type": "array" }),
        Kind::TextOrTable => json!({ "type": ["string", "object"] }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::keys::KEYS;
    use crate::config::load_tests::uncommented_example;
    use crate::config::{Source, load_as};

    const EXAMPLE: &str = include_str!("../../supervisor.example.toml");

    /// Checks a value as the part of JSON Schema that this schema uses says.
    fn check(schema: &Value, root: &Value, value: &Value, at: &str) -> Result<(), String> {
        let whole = schema.as_object().expect("a schema is an object");
        for (word, rule) in whole {
            let good = match word.as_str() {
                "$ref" => {
                    let pointer = rule.as_str().unwrap().trim_start_matches('#');
                    check(root.pointer(pointer).expect("the reference leads on"), root, value, at)?;
                    true
                }
                "anyOf" => {
                    let rules = rule.as_array().unwrap();
                    rules.iter().any(|rule| check(rule, root, value, at).is_ok())
                }
                "type" => match rule.as_array() {
                    Some(types) => types.iter().any(|one| is_type(one, value)),
                    None => is_type(rule, value),
                },
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
                "pattern" => value.as_str().is_none_or(|text| fits(rule.as_str().unwrap(), text)),
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        check(rule, root, item, at)?;
                    }
                    true
                }
                "additionalProperties" => {
                    for (name, item) in value.as_object().into_iter().flatten() {
                        let at = format!("{at}.{name}");
                        if let Some(rule) = property_rule(whole, name) {
                            check(rule, root, item, &at)?;
                        } else if rule == &Value::Bool(false) {
                            return Err(format!("{at} is not known"));
                        } else {
                            check(rule, root, item, &at)?;
                        }
                    }
                    true
                }
                // Looked at with `additionalProperties`, which every table has.
                "properties" | "patternProperties" => whole.contains_key("additionalProperties"),
                "$schema" | "title" | "$defs" | "description" | "examples" => true,
                other => panic!("the check does not know `{other}`"),
            };
            if !good {
                return Err(format!("{at}: {value} is not {word} {rule}"));
            }
        }
        Ok(())
    }

    fn property_rule<'s>(schema: &'s Map<String, Value>, name: &str) -> Option<&'s Value> {
        let named = schema.get("properties").and_then(|all| all.get(name));
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        named.or_else(|| {
            let (pattern, rule) = patterns?.iter().next()?;
            assert!(pattern.starts_with("^[A-Za-z0-9_]"), "a pattern of names");
            let is_reserved = name == "all";
            (is_reserved || name.parse::<crate::name::ProgramName>().is_ok()).then_some(rule)
        })
    }

    fn is_type(rule: &Value, value: &Value) -> bool {
        match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            other => panic!("the check does not know the type `{other}`"),
        }
    }

    /// Judges a text by what its pattern is for.
    fn fits(pattern: &str, text: &str) -> bool {
        use crate::config::{parse_duration, parse_signal, parse_size};
        match pattern {
            "\\$\\{" => text.contains("${"),
            DURATION => parse_duration(text).is_ok(),
            SIZE => parse_size(text).is_ok(),
            SIGNAL => parse_signal(text).is_ok(),
            READY => text == "notify" || text.starts_with("fd:"),
            "^signal:" => text.starts_with("signal:"),
            "^[0-7]{1,4}$" => text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b)),
            PERCENTAGE => text.trim_end().ends_with('%'),
            REMEDY => {
                let words = pattern.trim_start_matches("^(").split('|');
                let mut words = words.filter(|word| !word.contains(['(', ')']));
                let with = ["signal:", "run:", "fallback:", "quarantine"];
                words.any(|word| word == text) || with.iter().any(|word| text.starts_with(word))
            }
            other => panic!("the check does not know the pattern `{other}`"),
        }
    }

    fn judge(text: &str) -> Result<(), String> {
        let value: Value = toml::from_str(text).map_err(|error| error.to_string())?;
        let schema = schema();
        check(&schema, &schema, &value, "")
    }

    #[test]
    fn the_example_is_valid_as_it_is_and_with_every_option() {
        judge(EXAMPLE).unwrap();
        judge(&uncommented_example()).unwrap();
    }

    #[test]
    fn every_value_may_come_from_a_variable() {
        judge(
            "[program.web]\ncommand = '${C}'\nreplicas = '${N:-2}'\nautostart = '${A}'\n\
               umask = '${U}'\nbackoff = { factor = '${F}', max = '${M}' }\nrestart = '${R}'",
        )
        .unwrap();
    }

    /// The broken files of one text, with the codes of their mistakes.
    fn broken() -> Vec<(String, String, Vec<&'static str>)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            if path.extension().is_none_or(|extension| extension != "toml")
                || text.contains("#=== ")
            {
                continue;
            }
            let sources = [Source { path: "mend.toml".into(), text: text.clone() }];
            let Err(report) = load_as(&sources, &|_| None, 0) else { continue };
            let codes = report.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
            found.push((path.file_name().unwrap().to_string_lossy().into_owned(), text, codes));
        }
        found
    }

    #[test]
    fn what_has_an_unknown_key_or_a_wrong_type_is_not_valid() {
        let mut seen = 0;
        for (name, text, codes) in broken() {
            if name == "shell-with-list.toml" {
                continue; // Good alone; wrong beside another key.
            }
            let concerns = ["unknown-key", "wrong-type", "unknown-value", "not-yet-supported"];
            if codes.iter().any(|code| concerns.contains(code)) {
                assert!(judge(&text).is_err(), "{name} is valid");
                seen += 1;
            }
        }
        assert!(seen >= 25, "only {seen} files");
    }

    #[test]
    fn every_key_is_described_with_its_help() {
        let schema = schema();
        for key in KEYS {
            let start = match key.section {
                Section::Top => String::new(),
                Section::Supervisor => "/$defs/supervisor".to_owned(),
                Section::Program => "/$defs/program".to_owned(),
                Section::Group => "/$defs/group".to_owned(),
                Section::Check => "/$defs/check".to_owned(),
            };
            let mut place = schema.pointer(&start).unwrap();
            for part in key.name.split('.') {
                let table = match place["anyOf"].as_array() {
                    _ if place["type"] == "array" => {
                        let items = &place["items"];
                        let several = items["anyOf"].as_array().into_iter().flatten();
                        several.into_iter().find(|it| it["type"] == "object").unwrap_or(items)
                    }
                    Some(several) => several.iter().find(|it| it["type"] == "object").unwrap(),
                    None => place,
                };
                place = &table["properties"][part];
            }
            let description = place["description"].as_str().unwrap_or_default();
            assert!(description.starts_with(key.help), "{} {}", key.section.header(), key.name);
            assert!(place["examples"].is_array(), "the example of {} is no TOML", key.name);
        }
    }
}
