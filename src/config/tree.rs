//! The written values: a node with its key and place, and tables in layers.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::quote;
use super::keys::{self, Section, Stranger};
use super::read::{Context, Place};

/// One value and the key it was written under.
#[derive(Clone)]
pub(super) struct Node<'t> {
    pub section: Section,
    /// Dotted below its section.
    pub key: String,
    pub(super) value: Written<'t>,
}

#[derive(Clone)]
pub(super) enum Written<'t> {
    Toml { file: usize, value: &'t Spanned<DeValue<'t>> },
    Variable { name: String, text: String },
}

/// A table, or the same table of several layers; the first layer that has a key wins.
#[derive(Clone)]
pub(super) struct Table<'t> {
    pub section: Section,
    /// Dotted below its section, empty at its top.
    pub prefix: String,
    pub layers: Vec<Layer<'t>>,
    /// `MEND_SUPERVISOR` where variables override scalars.
    pub variables: Option<String>,
}

#[derive(Clone)]
pub(super) struct Layer<'t> {
    pub file: usize,
    pub table: &'t DeTable<'t>,
}

impl<'t> Node<'t> {
    pub(super) fn toml_node(
        section: Section,
        key: String,
        file: usize,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Self {
        Self { section, key, value: Written::Toml { file, value } }
    }

    pub(super) fn place(&self) -> Place {
        match &self.value {
            Written::Toml { file, value } => Place::File { index: *file, span: value.span() },
            Written::Variable { name, .. } => Place::Variable(name.clone()),
        }
    }

    pub(super) fn toml(&self) -> Option<&'t DeValue<'t>> {
        match &self.value {
            Written::Toml { value, .. } => Some(value.get_ref()),
            Written::Variable { .. } => None,
        }
    }

    pub(super) fn is_string(&self) -> bool {
        self.toml().is_none_or(DeValue::is_str)
    }

    pub(super) fn is_integer(&self) -> bool {
        self.toml().is_some_and(DeValue::is_integer)
    }

    pub(super) fn table(&self) -> Option<Layer<'t>> {
        match &self.value {
            Written::Toml { file, value } => {
                value.get_ref().as_table().map(|table| Layer { file: *file, table })
            }
            Written::Variable { .. } => None,
        }
    }

    pub(super) fn found(&self) -> &'static str {
        match self.toml() {
            None | Some(DeValue::String(_)) => "a string",
            Some(DeValue::Integer(_)) => "a whole number",
            Some(DeValue::Float(_)) => "a number with a fraction",
            Some(DeValue::Boolean(_)) => "true or false",
            Some(DeValue::Datetime(_)) => "a date",
            Some(DeValue::Array(_)) => "a list",
            Some(DeValue::Table(_)) => "a table",
        }
    }

    /// Returns the help that shows how the key is written.
    pub(super) fn example(&self) -> String {
        match keys::find(self.section, &self.key) {
            Some(key) => {
                let last = key.name.rsplit('.').next().unwrap_or(key.name);
                format!("for example `{last} = {}`", key.example)
            }
            None => match keys::children(self.section, &self.key).first() {
                Some(child) => {
                    let example = keys::find(self.section, &format!("{}.{child}", self.key))
                        .map_or("…", |key| key.example);
                    format!("for example `{} = {{ {child} = {example} }}`", self.key)
                }
                None => String::new(),
            },
        }
    }
}

impl<'t> Table<'t> {
    pub(super) fn new(section: Section, layers: Vec<Layer<'t>>) -> Self {
        Self { section, prefix: String::new(), layers, variables: None }
    }

    fn dotted(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Returns the value of a key: the variable that overrides it, else the first layer's.
    pub(super) fn get(&self, cx: &Context<'_>, name: &str) -> Option<Node<'t>> {
        if let Some(prefix) = &self.variables {
            let variable = format!("{prefix}_{}", name.to_ascii_uppercase());
            if let Some(text) = (cx.env)(&variable) {
                return Some(Node {
                    section: self.section,
                    key: self.dotted(name),
                    value: Written::Variable { name: variable, text },
                });
            }
        }
        let written = |layer: &Layer<'t>| Some((layer.file, layer.table.get(name)?));
        let (file, value) = self.layers.iter().find_map(written)?;
        Some(Node::toml_node(self.section, self.dotted(name), file, value))
    }

    /// Returns the value of a key in every layer that has it, the strongest first.
    pub(super) fn written(&self, name: &str) -> Vec<Node<'t>> {
        // Most keys are in no layer, and cost nothing then.
        self.layers
            .iter()
            .filter_map(|layer| Some((layer.file, layer.table.get(name)?)))
            .map(|(file, value)| Node::toml_node(self.section, self.dotted(name), file, value))
            .collect()
    }

    /// Returns the table below a key with the same layers, its keys checked.
    pub(super) fn sub(&self, cx: &Context<'_>, name: &str) -> Self {
        let mut layers = Vec::new();
        for node in self.written(name) {
            match node.table() {
                Some(layer) => layers.push(layer),
                None => cx.wrong_type(&node, "a table"),
            }
        }
        let variables =
            self.variables.as_ref().map(|p| format!("{p}_{}", name.to_ascii_uppercase()));
        let table = Self { section: self.section, prefix: self.dotted(name), layers, variables };
        table.check_keys(cx);
        table
    }

    /// Notes every key that does not exist.
    pub(super) fn check_keys(&self, cx: &Context<'_>) {
        for layer in &self.layers {
            for (key, _) in layer.table.iter() {
                let name: &str = key.get_ref();
                if !keys::is_child(self.section, &self.prefix, name) {
                    let place = Place::File { index: layer.file, span: key.span() };
                    unknown_key(cx, &place, self.section, &self.prefix, name);
                }
            }
        }
    }
}

/// Notes a key that does not exist, with what the operator most likely meant.
pub(super) fn unknown_key(
    cx: &Context<'_>,
    place: &Place,
    section: Section,
    prefix: &str,
    name: &str,
) {
    let within = match (section, prefix) {
        (Section::Top, _) => "at the top level".to_owned(),
        (Section::Check, "") => "in a check".to_owned(),
        (Section::Check, _) => format!("in `{prefix}` of a check"),
        (_, "") => format!("in `{}`", section.header()),
        _ => format!("in `{prefix}` of `{}`", section.header()),
    };
    let unknown = format!("there is no key {} {within}", quote(name));
    match keys::stranger(section, prefix, name) {
        Stranger::Later(what) => cx.error(
            place,
            "not-yet-supported",
            format!("{} ({what}) is not supported by this version of Mend", quote(name)),
            "remove it, or use a version of Mend that has it",
        ),
        Stranger::Named(ours) => {
            cx.error(place, "unknown-key", unknown, &format!("Mend calls it `{ours}`"));
        }
        Stranger::Near(near) => {
            cx.error(place, "unknown-key", unknown, &format!("did you mean `{near}`?"));
        }
        Stranger::Unknown(known) => {
            let help = format!("the keys here are {}", known.join(", "));
            cx.error(place, "unknown-key", unknown, &help);
        }
    }
}
