//! The text format of OpenMetrics 1.0, as far as it is needed.
//!
//! Rules kept here, so that no caller can break them: a family is written in one piece, its unit is
//! the end of its name, each kind has its suffix, texts are escaped, and the page ends with `# EOF`.

use std::fmt::{self, Write as _};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The units that names end with, if they have one.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// What a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows; a smaller number is a new beginning.
    Counter,
    /// Texts, in labels.
    Info,
    /// One of several states, in a label with the family's name.
    StateSet,
}

/// The page that is being written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// A family on its page; the borrow keeps others from coming in between.
#[derive(Debug)]
pub(super) struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
    kind: Kind,
}

impl Page {
    /// Begins a family; `name` is without the suffix of its kind.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let word = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Info => "info",
            Kind::StateSet => "stateset",
        };
        self.write(format_args!("# TYPE {name} {word}\n"));
        let has_end = |unit: &&&str| name.strip_suffix(**unit).is_some_and(|it| it.ends_with('_'));
        if let Some(unit) = UNITS.iter().find(has_end) {
            self.write(format_args!("# UNIT {name} {unit}\n"));
        }
        self.write(format_args!("# HELP {name} {}\n", Escaped(help)));
        Family { page: self, name, kind }
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _always_works = self.text.write_fmt(text);
    }
}

impl Family<'_> {
    /// Adds a number. Labels come in the same order for the whole family, each set of them once.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        self.sample(labels, None, value);
    }

    /// Adds all states, of which `current` is the one that holds.
    pub(super) fn state<'s>(
        &mut self,
        labels: &[(&str, &str)],
        states: impl IntoIterator<Item = &'s str>,
        current: &str,
    ) {
        let name = self.name;
        for state in states {
            self.sample(labels, Some((name, state)), flag(state == current));
        }
    }

    fn sample(&mut self, labels: &[(&str, &str)], more: Option<(&str, &str)>, value: f64) {
        let suffix = match self.kind {
            Kind::Gauge | Kind::StateSet => "",
            Kind::Counter => "_total",
            Kind::Info => "_info",
        };
        self.page.write(format_args!("{}{suffix}", self.name));
        for (index, (name, text)) in labels.iter().chain(more.as_ref()).enumerate() {
            let lead = if index == 0 { '{' } else { ',' };
            self.page.write(format_args!("{lead}{name}=\"{}\"", Escaped(text)));
        }
        let close = if labels.is_empty() && more.is_none() { "" } else { "}" };
        self.page.write(format_args!("{close} {}\n", Number(value)));
    }
}

/// Returns the number that stands for yes or no.
pub(super) fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

/// A text between quotes, or after `# HELP`.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A number as the format spells it.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            number if number.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            number => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_suffix_and_its_unit() {
        let mut page = Page::default();
        page.family("mend_up", Kind::Gauge, "Up.").add(&[], 1.0);
        page.family("mend_dropped_bytes", Kind::Counter, "Lost.").add(&[("a", "b")], 0.5);
        page.family("mend_build", Kind::Info, "Which.").add(&[("version", "1")], 1.0);
        page.family("mend_mode", Kind::StateSet, "How.").state(&[("x", "y")], ["a", "b"], "b");
        let expected = "\
# TYPE mend_up gauge
# HELP mend_up Up.
mend_up 1
# TYPE mend_dropped_bytes counter
# UNIT mend_dropped_bytes bytes
# HELP mend_dropped_bytes Lost.
mend_dropped_bytes_total{a=\"b\"} 0.5
# TYPE mend_build info
# HELP mend_build Which.
mend_build_info{version=\"1\"} 1
# TYPE mend_mode stateset
# HELP mend_mode How.
mend_mode{x=\"y\",mend_mode=\"a\"} 0
mend_mode{x=\"y\",mend_mode=\"b\"} 1
# EOF
";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn no_text_can_end_its_quotes_or_its_line() {
        let mut page = Page::default();
        let hostile = "a\\\"} 1\nmend_up 2\n# EOF";
        page.family("mend_up", Kind::Gauge, hostile).add(&[("name", hostile)], 1.0);
        let text = page.finish();
        let escaped = r#"a\\\"} 1\nmend_up 2\n# EOF"#;
        let lines: Vec<&str> = text.lines().collect();
        let help = format!("# HELP mend_up {escaped}");
        let sample = format!("mend_up{{name=\"{escaped}\"}} 1");
        assert_eq!(lines, ["# TYPE mend_up gauge", &help, &sample, "# EOF"]);
    }

    #[test]
    fn numbers_are_spelled_as_the_format_wants_them() {
        let spelled = |number: f64| Number(number).to_string();
        assert_eq!(spelled(1_795_434_727.12), "1795434727.12");
        assert_eq!(spelled(-0.25), "-0.25");
        assert_eq!(spelled(f64::NAN), "NaN");
        assert_eq!([f64::INFINITY, f64::NEG_INFINITY].map(spelled), ["+Inf", "-Inf"]);
    }
}
