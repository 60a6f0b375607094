//! The configuration as it takes effect, over the wire and back.

use serde_json::Value;

use super::problem::Fault;
use super::view::{ConfigValueView, ConfigView, SCHEMA};
use crate::config::show::{Origin, Shown, select};
use crate::engine::{Handle, Refusal};

/// Answers `GET /v1/config`.
pub(super) async fn running(handle: &Handle, names: &[String]) -> Result<ConfigView, Fault> {
    let status = handle.status(Vec::new()).await?;
    let shown = select(handle.config().await?, names)
        .map_err(|(name, suggestion)| Refusal::UnknownName { name, suggestion })?;
    Ok(config_view(&status.daemon.config.display().to_string(), shown))
}

/// Shows the keys of a configuration whose main file is `file`.
pub fn config_view(file: &str, shown: Vec<Shown>) -> ConfigView {
    let values = shown.into_iter().map(value_view).collect();
    ConfigView { schema: SCHEMA, file: file.to_owned(), values }
}

fn value_view(shown: Shown) -> ConfigValueView {
    let Shown { table, key, value, origin, hidden } = shown;
    let place = |file: std::path::PathBuf, line| (Some(file.display().to_string()), Some(line));
    let (from, (file, line), words) = match origin {
        Origin::File { file, line } => ("file", place(file, line), None),
        Origin::Above { header, file, line } => ("above", place(file, line), Some(header)),
        Origin::Variable(name) => ("variable", (None, None), Some(name)),
        Origin::Default(words) => ("default", (None, None), Some(words)),
    };
    ConfigValueView {
        table,
        key,
        value: value.as_deref().and_then(json_of).unwrap_or_default(),
        toml: value,
        from: from.to_owned(),
        file,
        line,
        words,
        hidden,
    }
}

/// Reads a value as it is written in TOML.
fn json_of(text: &str) -> Option<Value> {
    let table: serde_json::Map<String, Value> = toml::from_str(&format!("value = {text}")).ok()?;
    table.get("value").cloned()
}

/// Takes back what [`config_view`] made.
pub fn shown_of(view: ConfigView) -> Vec<Shown> {
    let one = |view: ConfigValueView| {
        let file = view.file.unwrap_or_default().into();
        let line = view.line.unwrap_or_default();
        let words = view.words.unwrap_or_default();
        let origin = match view.from.as_str() {
            "file" => Origin::File { file, line },
            "above" => Origin::Above { header: words, file, line },
            "variable" => Origin::Variable(words),
            _ => Origin::Default(words),
        };
        Shown { table: view.table, key: view.key, value: view.toml, origin, hidden: view.hidden }
    };
    view.values.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_comes_back_from_the_wire() {
        let shown = |key: &str, value: Option<&str>, origin| Shown {
            table: "program.web".to_owned(),
            key: key.to_owned(),
            value: value.map(str::to_owned),
            origin,
            hidden: false,
        };
        let file = std::path::PathBuf::from("/m.toml");
        let header = "[defaults.program]".to_owned();
        let all = vec![
            shown("nice", Some("3"), Origin::File { file: file.clone(), line: 7 }),
            shown("umask", Some("\"022\""), Origin::Above { header, file, line: 2 }),
            shown("nofile", Some("9"), Origin::Variable("MEND_SUPERVISOR_NOFILE".to_owned())),
            shown("user", None, Origin::Default("the daemon's own".to_owned())),
        ];
        let view = config_view("/m.toml", all.clone());
        assert_eq!(view.values[0].value, serde_json::json!(3));
        assert_eq!(view.values[3].value, Value::Null);
        let text = serde_json::to_string(&view).unwrap();
        assert_eq!(shown_of(serde_json::from_str(&text).unwrap()), all);
    }
}
