//! The words of the table of keys for types, as types.

/// What may be written for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Text,
    Path,
    Boolean,
    Integer,
    Number,
    Duration,
    Size,
    Percentage,
    Octal,
    Signal,
    /// A user or group, by name or number.
    Account,
    /// A text, or a table with the keys below this one.
    TextOrTable,
    /// This, or a table with the keys below this one.
    OrTable(Box<Kind>),
    /// A size or a percentage.
    Amount,
    /// A list of tables with the keys of a check.
    Checks,
    /// A list of remedies, each a text or a table with the keys below this one.
    Remedies,
    /// One of these words.
    Words(Vec<&'static str>),
    /// A word, or `signal:NAME`.
    WordsOrSignal(Vec<&'static str>),
    /// A text that is mostly a path; the words mean something else.
    PathOr(Vec<&'static str>),
    OrUnlimited(Box<Kind>),
    List(Box<Kind>),
    /// One, or a list of them.
    OneOrMany(Box<Kind>),
    /// The names of programs.
    Programs,
    /// Patterns that are kept as they are written.
    Patterns,
    /// Names and values of an environment.
    Variables,
    /// A list of tables with the keys below this one.
    Tables,
}

impl Kind {
    /// Reads the words of the table; `None` for words that are not known here.
    pub fn of(words: &str) -> Option<Self> {
        let list = |kind| Self::List(Box::new(kind));
        let many = |kind| Self::OneOrMany(Box::new(kind));
        Some(match words {
            "string" | "HOST:PORT" | "URL" | "regular expression" | "program" => Self::Text,
            "HOST:PORT or unix:PATH" | "HOST:PORT, unix:PATH or URL" => Self::Text,
            "notify, fd:N or a table" => Self::TextOrTable,
            "path" => Self::Path,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "duration" => Self::Duration,
            "size" => Self::Size,
            "percentage" => Self::Percentage,
            "octal string" => Self::Octal,
            "signal" => Self::Signal,
            "user" | "group" => Self::Account,
            "list of users" | "list of groups" => list(Self::Account),
            "list of integers" => list(Self::Integer),
            "integer or list of integers" => many(Self::Integer),
            "list of programs" => Self::Programs,
            "list of paths or globs" => list(Self::Path),
            "list of names or globs" => Self::Patterns,
            "list of { signal, grace }" | "list of { run, undo }" => Self::Tables,
            "list of checks" => Self::Checks,
            "list of remedies" => Self::Remedies,
            "size or percentage" => Self::Amount,
            "list or string" => many(Self::Text),
            "path or list of paths" | "path or list of paths or globs" => many(Self::Path),
            "table of strings" => Self::Variables,
            "null or path" => Self::PathOr(vec!["null"]),
            "restart, reload or signal:NAME" => Self::WordsOrSignal(vec!["restart", "reload"]),
            "human or json" => Self::Words(vec!["human", "json"]),
            "always, on-failure or never" => Self::Words(vec!["always", "on-failure", "never"]),
            "file, stdout, journald or none" => {
                Self::Words(vec!["file", "stdout", "journald", "none"])
            }
            "zstd or none" => Self::Words(vec!["zstd", "none"]),
            "start, live or ready" => Self::Words(vec!["start", "live", "ready"]),
            "minor, normal or critical" => Self::Words(vec!["minor", "normal", "critical"]),
            "act or observe" => Self::Words(vec!["act", "observe"]),
            "GET or HEAD" => Self::Words(vec!["GET", "HEAD"]),
            "master or replica" => Self::Words(vec!["master", "replica"]),
            "cpu, memory or io" => Self::Words(vec!["cpu", "memory", "io"]),
            "some or full" => Self::Words(vec!["some", "full"]),
            "1m, 5m or 15m" => Self::Words(vec!["1m", "5m", "15m"]),
            "10s, 60s or 300s" => Self::Words(vec!["10s", "60s", "300s"]),
            "HOST:PORT, unix:PATH or a table" | "HOST:PORT, unix:PATH, URL or a table" => {
                Self::OrTable(Box::new(Self::Text))
            }
            "size, percentage or a table" => Self::OrTable(Box::new(Self::Amount)),
            other if other.ends_with(" or a table") || other.ends_with(", or a table") => {
                let one = other.trim_end_matches(" or a table").trim_end_matches(',');
                Self::OrTable(Box::new(Self::of(one)?))
            }
            other => {
                let kind = Self::of(other.strip_suffix(" or unlimited")?)?;
                Self::OrUnlimited(Box::new(kind))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    #[test]
    fn the_words_of_every_key_are_known() {
        for key in KEYS {
            assert!(Kind::of(key.kind).is_some(), "`{}` of {}", key.kind, key.name);
        }
        assert_eq!(Kind::of("anything"), None);
    }
}
