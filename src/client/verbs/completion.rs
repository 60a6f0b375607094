//! `completion`: scripts for shells, which ask for live names.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::status;
use crate::api::view::ChecksView;
use crate::client::Context;
use crate::client::cli::Cli;
use crate::client::exit::Exit;
use crate::client::failure::Failure;

pub(crate) const EXAMPLES: &str = "\
Examples:
  mendctl completion bash > /etc/bash_completion.d/mendctl
  mendctl completion fish > ~/.config/fish/completions/mendctl.fish";

/// The verbs that take names, as the shells' patterns list them.
const NAMED: [&str; 17] = [
    "status", "start", "stop", "restart", "enable", "disable", "reload", "signal", "logs", "tail",
    "wait", "check", "why", "heal", "hold", "release", "stats",
];

#[derive(Debug, Clone, Args)]
pub struct CompletionArgs {
    pub shell: Shell,
}

#[derive(Debug, Clone, Args)]
pub struct CompleteArgs {
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    Names,
    /// Also those of checks.
    Checks,
}

pub(crate) fn run(context: &mut Context, args: &CompletionArgs) -> Result<Exit, Failure> {
    let script = script(args.shell);
    context.printer.text(&script)?;
    Ok(Exit::Ok)
}

/// Prints names, one a line; nothing at all when the daemon cannot be asked, because a
/// completion must not disturb the command line.
pub(crate) async fn complete(context: &mut Context, args: &CompleteArgs) -> Result<Exit, Failure> {
    let Ok(answer) = status::get(context, &[]).await else { return Ok(Exit::Ok) };
    let mut names: Vec<String> = Vec::new();
    for process in answer.value.programs {
        let group = format!("@{}", process.group);
        if !process.group.is_empty() && process.group != process.program {
            names.push(group);
        }
        names.extend([process.program, process.name]);
    }
    names.push("all".to_owned());
    if args.what == What::Checks
        && let Ok(answer) = context.client.get::<ChecksView>("/v1/checks").await
    {
        names.push("host".to_owned());
        let checks = answer.value.checks.iter();
        names.extend(checks.map(|check| format!("{}/{}", check.target, check.check)));
    }
    names.sort_unstable();
    names.dedup();
    context.printer.line(&names.join("\n"))?;
    Ok(Exit::Ok)
}

fn script(shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mendctl", &mut bytes);
    let script = String::from_utf8_lossy(&bytes).into_owned();
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum, open to additions")]
    match shell {
        Shell::Bash => format!("{script}\n{}", bash_names()),
        Shell::Fish => format!("{script}\n{}", fish_names()),
        Shell::Zsh => zsh_names(&script),
        _ => script,
    }
}

fn bash_names() -> String {
    let verbs = NAMED.join("|");
    format!(
        r#"_mendctl_with_names() {{
    _mendctl "$@"
    local current="${{COMP_WORDS[COMP_CWORD]}}" word verb=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$word" in {verbs}) verb="$word"; break ;; esac
    done
    if [[ -n "$verb" && "$current" != -* ]]; then
        local IFS=$'\n' what=names
        [[ "$verb" == check ]] && what=checks
        COMPREPLY+=($(compgen -W "$(mendctl __complete $what 2>/dev/null)" -- "$current"))
        if declare -F __ltrim_colon_completions >/dev/null; then
            __ltrim_colon_completions "$current"
        fi
    fi
}}
complete -F _mendctl_with_names -o nosort -o bashdefault mendctl
"#
    )
}

fn fish_names() -> String {
    let verbs = NAMED.join(" ");
    format!(
        "complete -c mendctl -n '__fish_seen_subcommand_from {verbs}' -f \
         -a '(mendctl __complete names 2>/dev/null)'\n\
         complete -c mendctl -n '__fish_seen_subcommand_from check' -f \
         -a '(mendctl __complete checks 2>/dev/null)'\n"
    )
}

/// Lets the positional NAMES of the generated script ask the daemon.
fn zsh_names(script: &str) -> String {
    let function = "_mendctl_names() {\n    local -a names\n    \
                    names=(${(f)\"$(mendctl __complete names 2>/dev/null)\"})\n    \
                    compadd -a names\n}\n";
    let mut lines = Vec::new();
    for line in script.lines() {
        if line.contains("::names") {
            lines.push(line.replace(":_default'", ":_mendctl_names'"));
        } else {
            lines.push(line.to_owned());
        }
        if line.starts_with("#compdef") {
            lines.push(String::new());
            lines.push(function.trim_end().to_owned());
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_with_live_names_asks_for_them() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(script.contains("mendctl __complete "), "{shell}: {script}");
        }
        let zsh = script(Shell::Zsh);
        assert!(zsh.matches(":_mendctl_names'").count() >= NAMED.len(), "{zsh}");
    }

    #[test]
    fn the_bash_script_offers_live_names_after_a_verb() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("completion.bash");
        std::fs::write(&file, script(Shell::Bash)).unwrap();
        let test = format!(
            "mendctl() {{ printf 'web:0\\nworker\\n'; }}; source {}; \
             COMP_WORDS=(mendctl restart wo); COMP_CWORD=2; COMPREPLY=(); \
             _mendctl_with_names mendctl wo restart; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        let output =
            std::process::Command::new("bash").args(["-c", test.as_str()]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.lines().any(|line| line == "worker"), "{output:?}");
    }
}
