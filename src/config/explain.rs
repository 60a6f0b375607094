//! What each code of a diagnostic means, at length: `mendctl explain CODE`.

/// One code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    pub code: &'static str,
    /// A paragraph.
    pub text: &'static str,
    /// A configuration with this mistake; empty where it takes more than one text to make it.
    pub wrong: &'static str,
}

macro_rules! explanations {
    ($($code:literal: $text:literal, $wrong:literal;)*) => {
        &[$(Explanation { code: $code, text: $text, wrong: $wrong }),*]
    };
}

/// Every code there is, in alphabetical order.
pub const EXPLANATIONS: &[Explanation] = explanations! {
    "ambiguous-name": "A group has the name of a program that is not in it, so `mendctl restart NAME` could mean two things. Rename the group, or list the program in it.",
        "[program.site]\ncommand = [\"sleep\", \"60\"]\n\n[program.web]\ncommand = [\"sleep\", \"60\"]\n\n[group.site]\nprograms = [\"web\"]";
    "bad-glob": "A pattern of `include`, `watch` or `watch_ignore` cannot be read. `*` and `?` stand for characters within one name, `[abc]` for one of them, `**` for directories at any depth: it must stand alone between two slashes.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nwatch = [\"src/**.py\"]";
    "bad-interpolation": "`${…}` has none of the three forms: `${NAME}` must be set, `${NAME:-default}` may be missing, `${NAME:?message}` fails with the message. Write `$${` for the two characters themselves. With `shell = true`, `$NAME` without braces is the shell's.",
        "[program.web]\ncommand = \"echo ${PORT-8000}\"";
    "bad-name": "Names of programs, groups and checks have 1 to 64 letters, digits, `.`, `-` and `_`, and begin with a letter, a digit or `_`. `:` is not among them, because clients write `program:replica`; `all` selects every program, so nothing can be called so.",
        "[program.\"Web Server\"]\ncommand = [\"sleep\", \"60\"]";
    "bad-value": "The value has the right type and makes no sense; the message says what is expected, the help shows one that is good.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\numask = \"rw\"";
    "bad-variable-name": "The kernel hands an environment over as NAME=value texts, so a name may not be empty and may contain neither `=` nor NUL.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nenvironment = { \"A=B\" = \"1\" }";
    "conflicting-keys": "Two keys say the same thing in different ways, and it is not clear which is meant: `startsecs` and `start_period`, or a stop sequence beside a single signal. Keep one.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nstart_period = \"1s\"\nstartsecs = 2";
    "contradictory-exit-code": "An exit code is in `success_exit_codes` and in `permanent_exit_codes`. The second wins: the program goes to FATAL and is not started again by itself. This is a warning.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nsuccess_exit_codes = [0, 3]\npermanent_exit_codes = [3]";
    "dependency-cycle": "Programs depend on each other in a circle, so none of them could ever start first. The message prints the circle; one of its edges must go. `after` and `wants` count as well.",
        "[program.a]\ncommand = [\"sleep\", \"60\"]\nrequires = [\"b\"]\n\n[program.b]\ncommand = [\"sleep\", \"60\"]\nafter = [\"a\"]";
    "duplicate-key": "TOML allows a key once in a table. A table that was opened with `[header]` may not be opened again either.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\ncommand = [\"sleep\", \"61\"]";
    "duplicate-name": "Two files define a program, a group or a check of the same name, or a program has two checks of one name. Files are joined, never merged: a file that is read later replaces nothing silently.",
        "";
    "duplicate-section": "`[supervisor]` and `[defaults.program]` may be in one file of the configuration only, so that it is clear which values hold.",
        "";
    "empty-command": "The command has no word that could be executed. Perhaps a variable in it is empty.",
        "[program.web]\ncommand = []";
    "fallback-cycle": "Programs stand in for each other in a circle, or one for itself, so that in the end nobody does. The message prints the circle; one of these fallbacks must go.",
        "[program.a]\ncommand = [\"sleep\", \"60\"]\nautostart = false\n\n[[program.a.check]]\nprocess = true\nheal = [\"restart\", \"fallback:a\"]";
    "file-is-directory": "A directory is named where a file is expected. To read the files in it write a pattern, such as `include = [\"conf.d/*.toml\"]`.",
        "";
    "file-not-found": "The file does not exist. A path in `include` must exist; a pattern may match nothing. Relative paths start at the directory of the file that they are written in.",
        "";
    "file-not-utf8": "TOML is UTF-8. The message names the first byte that is not; an editor may have saved the file in another encoding. `file --mime-encoding FILE` guesses which, `iconv -f ISO-8859-1 -t UTF-8 FILE` converts it.",
        "";
    "file-too-large": "A file of more than 16 MiB is not taken for a configuration. Split it with `include`, if it really is one.",
        "";
    "file-unreadable": "The file exists but cannot be read: it may belong to somebody else, or be no regular file (a FIFO, a socket, a device).",
        "";
    "impossible-remedy": "A rung of the ladder that could never be carried out or reached: a restart below a check of the host, which has no program; any remedy below a check of the role `ready`, which only tells others; what comes after `quarantine`; a standby that requires the program for which it is to stand in.",
        "[check.root]\ndisk = \"/\"\nheal = [\"restart\"]";
    "impossible-timing": "Two times contradict each other: a probe that may take longer than the time to the next one, or a readiness that is waited for longer than `start_timeout` allows. Make the inner time shorter.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nready = { tcp = \"127.0.0.1:80\", interval = \"1s\", timeout = \"5s\" }";
    "include-cycle": "Files include each other in a circle; the message prints it. Each file is read once, so one of these includes is not needed.",
        "";
    "include-too-deep": "Files include each other in a chain that is longer than anybody could follow. Include them from one file.",
        "";
    "listed-twice": "A program is in the same list twice. It counts once; this is a warning, because another name was perhaps meant.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nrequires = [\"db\", \"db\"]\n\n[program.db]\ncommand = [\"sleep\", \"60\"]";
    "max-below-first": "The largest value of a series is smaller than its first: `backoff.max` below `backoff.initial`, or `breaker.max_open` below `breaker.open`.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nbackoff = { initial = \"10s\", max = \"1s\" }";
    "misplaced-check": "A check of this kind can only be made of a program (its output, its process), or only of the host (its load).",
        "[check.errors]\nlog = \"ERROR\"";
    "missing-command": "A program needs a `command`, its own or that of `[defaults.program]`. Either a list of words or a string, which is split like a shell would split it, without running one.",
        "[program.web]\nnice = 5";
    "missing-command-file": "What `command` names is not there, or not executable, now. It may be by the time of the start, so this is a warning. PATH is that of the program: its `environment`, else the daemon's.",
        "[program.web]\ncommand = \"/nowhere/server --port 80\"";
    "missing-directory": "A directory does not exist now: the working directory of a program, without which a start fails, or what a check of a disk looks at. This is a warning.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\ndirectory = \"/nowhere\"";
    "missing-environment-file": "An environment file does not exist now. A start would fail until it does; write a `-` before the path when it may be missing. This is a warning.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nenvironment_file = [\"/nowhere/web.env\"]";
    "missing-file": "A file that will be read does not exist now: the input of a program, without which a start fails, or a certificate or password of a check. This is a warning.",
        "[program.web]\ncommand = [\"cat\"]\nstdin = \"/nowhere/input\"";
    "missing-key": "A key is missing that its table, or another key, cannot do without: the `programs` of a group, the `signal` of a stop step, the `reload_signal` of `on_watch = \"reload\"` or of the remedy `reload`, what a check looks at, the bounds of a value.",
        "[group.site]";
    "no-debounce": "Editors, `git checkout` and a copy write a file in several steps, or many files one after the other. Without any debounce the program is renewed at the first of them, while the rest is still being written. This is a warning.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nwatch = \"src\"\nwatch_debounce = 0";
    "not-root": "Only root may run programs as somebody else. Start `mendd` as root, or leave `user` and `group` out.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nuser = \"root\"";
    "not-yet-supported": "The key has a meaning that this version of Mend does not know yet. It is refused rather than ignored, because a check that is silently not made is worse than none.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nschedule = \"daily\"";
    "nul-byte": "The kernel ends every text at a NUL, so none may be in a value.",
        "[program.web]\ncommand = [\"sleep\", \"6\\u00000\"]";
    "out-of-range": "The number is too small or too large; the message gives the bounds.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nnice = 99";
    "program-in-two-groups": "A program is shown under one group, so it can be in one only.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\n\n[group.a]\nprograms = [\"web\"]\n\n[group.b]\nprograms = [\"web\"]";
    "requirement-ends": "A program requires another one that ends for good by itself. What `requires` names must run whenever this one starts: after the other one has ended, a crash of this one would leave it waiting until somebody starts the other again. `after` only asks for the order. This is a warning.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nrequires = [\"migrate\"]\n\n[program.migrate]\ncommand = [\"true\"]\nrestart = \"never\"";
    "shared-directory": "Directories of the daemon itself that should be apart are the same, or one lies in another: what is beside the socket in `/run` does not outlive a reboot, and logs are cleared away by people and tools who do not think of the state beside them. This is a warning.",
        "[supervisor]\nstate_dir = \"/var/tmp/mend\"\nlog_dir = \"/var/tmp/mend\"";
    "shell-syntax": "A word of the command means something to a shell, but there is no shell: the command would get it as an argument. Add `shell = true`, or call one. This is a warning.",
        "[program.web]\ncommand = \"echo start && sleep 60\"";
    "socket-path-too-long": "The path of a Unix socket has 107 bytes at most; that is a limit of the kernel. Choose a shorter directory.",
        "[supervisor]\nsocket = \"/run/a-directory-with-a-name-that-is-much-too-long-for-a-socket/because-the-kernel-allows-no-more-than/mend.sock\"";
    "standby-autostarts": "The program that a `fallback` starts also starts by itself, and it is stopped when the program that it stands in for is well again. Give it `autostart = false`; this is a warning.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\n\n[[program.web.check]]\nprocess = true\nheal = [\"fallback:static\"]\n\n[program.static]\ncommand = [\"sleep\", \"60\"]";
    "stop-outlasts-shutdown": "The grace periods of a program's stop add up to more than `shutdown_timeout`, after which a shutdown kills what is left. It would be killed before its time is over; this is a warning.",
        "[supervisor]\nshutdown_timeout = \"5s\"\n\n[program.db]\ncommand = [\"sleep\", \"60\"]\nstop = { signal = \"TERM\", grace = \"30s\" }";
    "syntax": "The file is not TOML. The message is the parser's; only the first mistake of a line is shown, because what follows it is mostly noise.",
        "[program.web\ncommand = [\"sleep\", \"60\"]";
    "too-many-files": "The configuration is made of more files, or a pattern leads into more directories, than anybody means. Name the directory: `conf.d/*.toml`.",
        "";
    "unclosed-quote": "A command that is a string is split like a shell would split it, and this one has a quote or a backslash without an end. Write a list if the words are known.",
        "[program.web]\ncommand = \"echo 'hello\"";
    "unknown-group": "There is no group of this name on this machine. A number needs no account. As the limits of a process depend on it, this is a mistake and no warning.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\ngroup = \"no-such-group\"";
    "unknown-key": "The key does not exist here. It may be mistyped, belong into another table, or be another supervisor's word; the help says what is known. `mendctl config schema` teaches an editor all of them.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nreplica = 2";
    "unknown-program": "A program is named that the configuration does not have. All files are read first, so the order in which they are read does not matter.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nrequires = [\"bd\"]\n\n[program.db]\ncommand = [\"sleep\", \"60\"]";
    "unknown-user": "There is no user of this name on this machine. To run it as somebody else instead would be worse than not at all, so this is a mistake and no warning. A number needs no account, but a `group` beside it.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nuser = \"no-such-user\"";
    "unknown-value": "The key takes one of a few words, and this is none of them.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nrestart = \"sometimes\"";
    "unset-variable": "The value mentions a variable that is not set where the configuration is read: in the environment of `mendd`, not of the shell that calls `mendctl reload`. Give it a default, `${NAME:-default}`, or set it in the unit of the daemon.",
        "[program.web]\ncommand = \"server --port ${PORT_THAT_IS_NOT_SET}\"";
    "unusable-directory": "A directory of the daemon itself could not be made or written to by whoever checks the configuration. `mendd` would start with trouble, or not at all; this is a warning.",
        "[supervisor]\nlog_dir = \"/dev/null/log\"";
    "warn-beyond-fail": "Of two bounds the warning must come first: below the failure where more is worse, as with memory in use; above it where less is worse, as with free space.",
        "[check.memory]\nmemory = { warn = \"90%\", fail = \"80%\" }";
    "watches-everything": "A `watch` that begins at `/` needs a watch for every directory of the machine, of which the kernel has only so many, and any file that anybody writes renews the program. This is a warning.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nwatch = \"/\"";
    "watches-own-files": "What is watched contains a directory that the daemon writes to, such as that of the logs. The first line of output would count as a change, and each renewal writes more. `watch_ignore` leaves a directory out. This is a warning.",
        "[supervisor]\nlog_dir = \"/srv/web/logs\"\n\n[program.web]\ncommand = [\"sleep\", \"60\"]\nwatch = \"/srv/web\"";
    "wrong-type": "The value is of another type than the key takes. A string may stand for a number or a switch only when it comes from a variable, as in `replicas = \"${COPIES:-2}\"`.",
        "[program.web]\ncommand = [\"sleep\", \"60\"]\nreplicas = \"two\"";
};

/// Finds what is known about a code.
pub fn explain(code: &str) -> Option<&'static Explanation> {
    EXPLANATIONS.iter().find(|explanation| explanation.code == code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::{Source, load_as};

    /// Words in kebab-case of the loader that are no codes.
    const NO_CODES: &[&str] =
        &["on-failure", "clean-restart", "restart-group", "disk-state", "disk-log", "disk-runtime"];

    fn is_code(word: &str) -> bool {
        let parts: Vec<&str> = word.split('-').collect();
        let is_part = |part: &&str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        parts.len() > 1 && parts.iter().all(is_part) && parts[0].starts_with(char::is_alphabetic)
    }

    #[test]
    fn every_code_in_the_loader_is_explained_and_no_other() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found: BTreeSet<String> = ["syntax".to_owned()].into();
        let files = |directory: &str| fs::read_dir(root.join(directory)).unwrap();
        for entry in files("src/config").chain(files("src/config/checks")) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with("_tests.rs") || name == "explain.rs" || name == "keys.rs" {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            found.extend(code.split('"').filter(|word| is_code(word)).map(str::to_owned));
        }
        for word in NO_CODES {
            assert!(found.remove(*word), "`{word}` is not in the loader any more");
        }
        let explained: BTreeSet<String> = EXPLANATIONS.iter().map(|e| e.code.to_owned()).collect();
        assert_eq!(found, explained);
    }

    #[test]
    fn every_code_of_the_broken_files_is_explained() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
        let mut seen = 0;
        for entry in fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                let text = fs::read_to_string(&path).unwrap();
                for line in text.lines() {
                    let rest = line.strip_prefix("error[").or(line.strip_prefix("warning["));
                    if let Some((code, _)) = rest.and_then(|rest| rest.split_once(']')) {
                        assert!(explain(code).is_some(), "`{code}` of {}", path.display());
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 100, "only {seen} diagnostics");
    }

    #[test]
    fn every_example_has_the_mistake_that_it_is_about_and_no_other() {
        let env = |name: &str| (name == "PATH").then(|| "/usr/bin:/bin".to_owned());
        for explanation in EXPLANATIONS.iter().filter(|explanation| !explanation.wrong.is_empty()) {
            let text = explanation.wrong.to_owned();
            let sources = [Source { path: "mend.toml".into(), text }];
            let uid = if explanation.code == "not-root" { 4242 } else { 0 };
            let codes: BTreeSet<&str> = match load_as(&sources, &env, uid) {
                Ok(loaded) => loaded.warnings.iter().map(|d| d.code).collect(),
                Err(report) => report.diagnostics.iter().map(|d| d.code).collect(),
            };
            assert_eq!(codes, [explanation.code].into(), "the example of {}", explanation.code);
        }
    }

    #[test]
    fn the_codes_are_in_order_and_the_texts_are_sentences() {
        assert!(EXPLANATIONS.is_sorted_by_key(|explanation| explanation.code));
        for Explanation { code, text, .. } in EXPLANATIONS {
            assert!(text.ends_with('.') && text.len() > 40, "{code}");
        }
    }
}
