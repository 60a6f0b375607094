//! What looks like a secret, and how it is hidden.

/// Stands for a value that is not shown.
pub(super) const HIDDEN: &str = "***";

/// Parts of names whose values nobody should read off a screen.
const WORDS: &[&str] = &[
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "APIKEY",
    "CREDENTIAL",
    "PRIVATE",
    "AUTHORIZATION",
];

/// Whole words of a name that mean the same: `API_KEY`, `DB_PASS`, but not `MONKEY`.
const WHOLE: &[&str] = &["KEY", "KEYS", "PASS", "PWD", "DSN", "AUTH", "COOKIE", "SALT"];

/// Tells whether a variable or option of this name holds a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let part = |word: &str| WHOLE.contains(&word);
    // The shell's own working directory is in every environment.
    upper != "PWD"
        && (WORDS.iter().any(|word| upper.contains(word)) || upper.split(['_', '-', '.']).any(part))
}

/// Hides the password of every URL in a text, and the value of every option such as
/// `--password=…` and `--password …`; `None` when there is nothing to hide.
pub(crate) fn without_secrets(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_hidden = false;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/\"'?#,".contains(c));
        let (authority, tail) = after.split_at(end.unwrap_or(after.len()));
        match authority
            .rsplit_once('@')
            .and_then(|(user, host)| Some((user.split_once(':')?, host)))
        {
            Some(((user, password), host)) if !password.is_empty() && password != HIDDEN => {
                out.push_str(&format!("{user}:{HIDDEN}@{host}"));
                is_hidden = true;
            }
            Some(_) | None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    let (out, more) = without_options(&out);
    let (out, words) = without_words_after(&out);
    (is_hidden || more || words).then_some(out)
}

/// Hides the word after `--NAME` of a secret name, in a command line and in a list of quoted
/// words.
fn without_words_after(text: &str) -> (String, bool) {
    let between = |c: char| c.is_whitespace() || "\"',".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_hidden = false;
    while let Some(at) = rest.find("--") {
        let starts_a_word = rest[..at].chars().next_back().is_none_or(between);
        let (before, after) = rest.split_at(at + 2);
        out.push_str(before);
        rest = after;
        let name = &after[..after.find(|c: char| between(c) || c == '=').unwrap_or(after.len())];
        let tail = &after[name.len()..];
        let Some(start) = tail.find(|c: char| !between(c)) else { continue };
        let value = &tail[start..];
        let value = &value[..value.find(between).unwrap_or(value.len())];
        let is_value = start > 0 && !value.starts_with('-') && value != HIDDEN;
        if starts_a_word && is_value && is_secret_name(name) {
            out.push_str(&after[..name.len() + start]);
            out.push_str(HIDDEN);
            rest = &after[name.len() + start + value.len()..];
            is_hidden = true;
        }
    }
    out.push_str(rest);
    (out, is_hidden)
}

/// Hides the passwords of a command: those above, and the word after `--password`.
pub(crate) fn hidden_words(argv: &[String]) -> Vec<String> {
    let names_secret = |word: &String| {
        word.starts_with('-') && !word.contains('=') && is_secret_name(word.trim_start_matches('-'))
    };
    let mut hides = false;
    let mut shown = Vec::with_capacity(argv.len());
    for word in argv {
        shown.push(match hides {
            true => HIDDEN.to_owned(),
            false => without_secrets(word).unwrap_or_else(|| word.clone()),
        });
        hides = names_secret(word);
    }
    shown
}

/// Hides what follows `--NAME=` and `NAME=` of a secret name, up to the end of the word.
fn without_options(text: &str) -> (String, bool) {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_hidden = false;
    while let Some(at) = rest.find('=') {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let start = before[..at].rfind(|c| !is_name(c)).map_or(0, |at| at + 1);
        let name = before.get(start..at).unwrap_or_default();
        rest = after;
        // `a = b` of a table is no option.
        let end = after.find(|c: char| c.is_whitespace() || "\"',&".contains(c));
        let value = &after[..end.unwrap_or(after.len())];
        if !value.is_empty() && value != HIDDEN && is_secret_name(name) {
            out.push_str(HIDDEN);
            rest = &after[value.len()..];
            is_hidden = true;
        }
    }
    out.push_str(rest);
    (out, is_hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_and_others_are_not() {
        for name in [
            "DB_PASSWORD",
            "password",
            "API_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "KEY",
            "x-api-key",
            "DATABASE_DSN",
            "GITHUB_PAT_TOKEN",
            "PGPASSWORD",
            "SSH_PASSPHRASE",
            "DB_PASS",
            "Proxy-Authorization",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PORT", "MONKEY", "PWD", "KEYBOARD", "PASSAGE", "COMPASS", "HOME", "PATH"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn passwords_in_urls_and_options_are_hidden_where_they_stand() {
        for (text, expected) in [
            ("postgres://me:s3cret@db:5432/x", Some("postgres://me:***@db:5432/x")),
            ("a http://u:p@h b redis://:pw@r/0", Some("a http://u:***@h b redis://:***@r/0")),
            ("http://host:80/a@b:c", None),
            ("http://user@host/", None),
            ("[\"x\", \"--token=abc\", \"-v\"]", Some("[\"x\", \"--token=***\", \"-v\"]")),
            ("[\"x\", \"--password\", \"abc\"]", Some("[\"x\", \"--password\", \"***\"]")),
            ("run --db-password  abc --token -v", Some("run --db-password  *** --token -v")),
            ("run --port 80 --password", None),
            ("a--password b -- c", None),
            ("run --db-password=a=b c", Some("run --db-password=*** c")),
            ("run --port=80", None),
            ("http://h/?token=abc&x=1", Some("http://h/?token=***&x=1")),
        ] {
            assert_eq!(without_secrets(text).as_deref(), expected, "{text}");
        }
    }
}
