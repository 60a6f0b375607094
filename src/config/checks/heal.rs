//! `heal`: the ladder of remedies below a check.

use std::time::Duration;

use super::super::command::{words, words_after};
use super::super::diagnostic::{nearest, quote};
use super::super::model_check::{CheckRole, Remedy, RemedyStep, Rung};
use super::super::read::{Context, Place};
use super::super::tree::{Node, Table};
use super::super::units::parse_signal;
use super::{Subject, inside};
use crate::name::ProgramName;

/// Most remedies below one check.
const MAX_RUNGS: usize = 16;
/// Most steps of one remedy.
const MAX_STEPS: usize = 16;
/// How long a remedy may take that only says or sends something.
const QUICK: Duration = Duration::from_secs(10);
/// How long commands, and the start of a standby, may take.
const USUAL: Duration = Duration::from_secs(60);
/// How long it may take to change several programs.
const LONG: Duration = Duration::from_secs(300);

/// The remedies that are a single word.
const WORDS: [(&str, Remedy); 9] = [
    ("confirm", Remedy::Confirm),
    ("reload", Remedy::Reload),
    ("restart", Remedy::Restart),
    ("clean-restart", Remedy::CleanRestart),
    ("restart-group", Remedy::RestartGroup),
    ("rollback", Remedy::Rollback),
    ("shed", Remedy::Shed),
    ("alert", Remedy::Alert),
    ("quarantine", Remedy::Quarantine),
];
/// Those that are followed by something.
const WITH: [&str; 3] = ["signal:NAME", "run:COMMAND", "fallback:PROGRAM"];
/// What a remedy in a table is said by.
const KEYS: [&str; 5] = ["remedy", "signal", "run", "steps", "fallback"];

/// A program that is to stand in for another one.
#[derive(Debug, Clone)]
pub(in crate::config) struct Standby {
    pub(in crate::config) on: ProgramName,
    pub(in crate::config) place: Place,
}

/// Reads the ladder, and the standbys that it names.
///
/// What `[defaults.check]` says is left out where it cannot be done.
pub(super) fn ladder(
    cx: &Context<'_>,
    subject: Subject<'_>,
    own: &Table<'_>,
    whole: &Table<'_>,
    role: CheckRole,
) -> (Vec<Rung>, Vec<Standby>) {
    let Some(node) = whole.get(cx, "heal") else { return (Vec::new(), Vec::new()) };
    let is_own = own.get(cx, "heal").is_some();
    let items = cx.list(&node).unwrap_or_default();
    if items.len() > MAX_RUNGS {
        let _: Option<()> = cx.bad(&node, format!("has more than {MAX_RUNGS} remedies"));
        return (Vec::new(), Vec::new());
    }
    if role == CheckRole::Ready {
        if is_own && !items.is_empty() {
            let message = "a check of the role `ready` only tells others, and heals nothing".into();
            let help = "remove `heal`, or use the role \"live\"";
            cx.error(&node.place(), "impossible-remedy", message, help);
        }
        return (Vec::new(), Vec::new());
    }
    let mut rungs: Vec<Rung> = Vec::new();
    let mut standbys = Vec::new();
    for item in &items {
        let Some(rung) = rung(cx, subject, item) else { continue };
        if !is_possible(cx, subject, item, &rung.remedy, is_own) {
            continue;
        }
        if let Some(last) = rungs.last().filter(|last| last.remedy == Remedy::Quarantine) {
            let (this, before) = (rung.remedy.word(), last.remedy.word());
            let message = format!("`{this}` comes after `{before}`, and would never be tried");
            let help = "put `quarantine` last; it begins anew at the foot now and then";
            cx.error(&item.place(), "impossible-remedy", message, help);
            break;
        }
        if let Remedy::Fallback { program } = &rung.remedy {
            standbys.push(Standby { on: program.clone(), place: item.place() });
        }
        rungs.push(rung);
    }
    (rungs, standbys)
}

fn rung(cx: &Context<'_>, subject: Subject<'_>, item: &Node<'_>) -> Option<Rung> {
    if item.is_string() {
        let remedy = remedy(cx, subject, item)?;
        let timeout = usual_timeout(subject, &remedy);
        return Some(Rung { remedy, timeout });
    }
    let Some(table) = inside(cx, item) else {
        cx.wrong_type(item, "a list of remedies");
        return None;
    };
    let given: Vec<(&str, Node<'_>)> =
        KEYS.iter().filter_map(|key| Some((*key, table.get(cx, key)?))).collect();
    let [(key, node)] = given.as_slice() else {
        if let Some((_, second)) = given.get(1) {
            let message = "a rung of the ladder is one remedy, not several".to_owned();
            let label = (&given[0].1.place(), "also given here".to_owned());
            let help = "write them one after the other, or as `steps` of one transaction";
            cx.error_with(&second.place(), "conflicting-keys", message, help, label);
        } else {
            let message = "this rung does not say what to do".to_owned();
            let help = format!("give one of {}", KEYS.join(", "));
            cx.error(&item.place(), "missing-key", message, &help);
        }
        return None;
    };
    let remedy = match *key {
        "remedy" => remedy(cx, subject, node)?,
        "signal" => Remedy::Signal { signal: cx.signal(node)? },
        "run" => Remedy::Run { argv: words(cx, node, subject.spawn())? },
        "steps" => steps(cx, subject, node)?,
        _ => standby(cx, node, &cx.string(node)?)?,
    };
    let timeout = match table.get(cx, "timeout") {
        Some(node) => cx.some_duration(&node)?,
        None => usual_timeout(subject, &remedy),
    };
    Some(Rung { remedy, timeout })
}

/// Reads a remedy that is written as a text.
fn remedy(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<Remedy> {
    let text = cx.string(node)?;
    if let Some((_, remedy)) = WORDS.iter().find(|(word, _)| *word == text) {
        return Some(remedy.clone());
    }
    if let Some(name) = text.strip_prefix("signal:") {
        return match parse_signal(name) {
            Ok(signal) => Some(Remedy::Signal { signal }),
            Err(error) => cx.bad(node, format!("must name a signal: {error}")),
        };
    }
    if text.starts_with("run:") {
        let argv = words_after(cx, node, "run:", subject.spawn())?;
        return Some(Remedy::Run { argv });
    }
    if let Some(name) = text.strip_prefix("fallback:") {
        return standby(cx, node, name);
    }
    let message = format!("there is no remedy {}", quote(&text));
    let known = WORDS.iter().map(|(word, _)| *word).chain(WITH);
    let before = text.split_once(':').map_or(text.as_str(), |(before, _)| before);
    let with = || WITH.iter().filter_map(|word| Some((word.split_once(':')?.0, *word)));
    let near = nearest(&text, known.clone()).or_else(|| {
        let near = nearest(before, with().map(|(before, _)| before))?;
        with().find(|(before, _)| *before == near).map(|(_, word)| word)
    });
    let help = match near {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("the remedies are {}", known.collect::<Vec<_>>().join(", ")),
    };
    cx.error(&node.place(), "unknown-value", message, &help);
    None
}

fn standby(cx: &Context<'_>, node: &Node<'_>, name: &str) -> Option<Remedy> {
    match name.parse::<ProgramName>() {
        Ok(program) => Some(Remedy::Fallback { program }),
        Err(error) => {
            cx.error(&node.place(), "bad-name", error.to_string(), "name the standby");
            None
        }
    }
}

/// Reads the commands of a transaction.
fn steps(cx: &Context<'_>, subject: Subject<'_>, node: &Node<'_>) -> Option<Remedy> {
    let items = cx.list(node)?;
    if items.is_empty() || items.len() > MAX_STEPS {
        return cx.bad(node, format!("must have 1 to {MAX_STEPS} steps"));
    }
    let mut steps = Vec::new();
    for item in &items {
        let Some(table) = inside(cx, item) else {
            cx.wrong_type(item, "a list of tables");
            continue;
        };
        let Some(run) = table.get(cx, "run") else {
            let message = "this step does not say what to run".to_owned();
            cx.error(&item.place(), "missing-key", message, &item.example());
            continue;
        };
        let argv = words(cx, &run, subject.spawn());
        let undo = match table.get(cx, "undo") {
            Some(node) => Some(words(cx, &node, subject.spawn())?),
            None => None,
        };
        steps.extend(argv.map(|argv| RemedyStep { argv, undo }));
    }
    (steps.len() == items.len()).then_some(Remedy::Steps(steps))
}

/// Returns whether a remedy can be carried out; notes it when its own check asks for it.
fn is_possible(
    cx: &Context<'_>,
    subject: Subject<'_>,
    item: &Node<'_>,
    remedy: &Remedy,
    is_own: bool,
) -> bool {
    let word = remedy.word();
    let problem = match (subject.program, remedy) {
        (
            None,
            Remedy::Reload
            | Remedy::Signal { .. }
            | Remedy::Restart
            | Remedy::CleanRestart
            | Remedy::RestartGroup
            | Remedy::Fallback { .. },
        ) => Some((
            "impossible-remedy",
            format!("`{word}` needs a program, and this check is about the host"),
            "use `run`, `shed` or `alert`, or move the check to a program".to_owned(),
        )),
        (Some(program), Remedy::Reload) if program.lifecycle.reload_signal.is_none() => Some((
            "missing-key",
            format!("`reload` needs a `reload_signal` of `{}`", program.name),
            "add `reload_signal = \"HUP\"` to the program, or use \"restart\"".to_owned(),
        )),
        (Some(program), Remedy::Fallback { program: standby }) if *standby == program.name => {
            Some((
                "fallback-cycle",
                format!("`{standby}` cannot stand in for itself"),
                "name another program".to_owned(),
            ))
        }
        _ => None,
    };
    let Some((code, message, help)) = problem else { return true };
    if is_own {
        cx.error(&item.place(), code, message, &help);
    }
    false
}

/// Returns how long a remedy may take when nothing is said.
fn usual_timeout(subject: Subject<'_>, remedy: &Remedy) -> Duration {
    let replaced = subject.program.map_or(USUAL, |program| {
        let lifecycle = &program.lifecycle;
        let stop = lifecycle.stop.steps.iter().map(|step| step.grace);
        stop.fold(lifecycle.start_timeout.saturating_add(QUICK), Duration::saturating_add)
    });
    match remedy {
        Remedy::Reload | Remedy::Signal { .. } | Remedy::Shed => QUICK,
        Remedy::Alert | Remedy::Quarantine => QUICK,
        Remedy::Confirm | Remedy::Run { .. } | Remedy::Steps(_) | Remedy::Fallback { .. } => USUAL,
        Remedy::Restart | Remedy::CleanRestart => replaced,
        Remedy::RestartGroup | Remedy::Rollback => LONG.max(replaced),
    }
}
