//! From what an operator typed to processes: names, programs, `program:*`, `@group`, globs, `all`.

use std::collections::{BTreeMap, BTreeSet};

use super::Refusal;
use crate::config::{Group, Program};
use crate::name::{GroupName, ProcessName, ProgramName};

/// Returns the processes that `names` select, each once, in name order.
///
/// # Errors
///
/// [`Refusal::UnknownName`] for the first name that selects nothing.
pub(super) fn select<'a>(
    names: &[String],
    processes: impl Iterator<Item = (&'a ProcessName, &'a Program)> + Clone,
    groups: &BTreeMap<GroupName, Group>,
) -> Result<BTreeSet<ProcessName>, Refusal> {
    let mut selected = BTreeSet::new();
    for name in names {
        let before = selected.len();
        let matches = matcher(name)?;
        let mut any = name == "all";
        for (process, program) in processes.clone() {
            if matches.accepts(process, program.name.as_str(), program.group.as_str(), groups) {
                any = true;
                selected.insert(process.clone());
            }
        }
        if !any && selected.len() == before {
            let known = processes.clone().flat_map(|(process, program)| {
                [process.to_string(), program.name.to_string(), format!("@{}", program.group)]
            });
            return Err(Refusal::UnknownName {
                name: name.clone(),
                suggestion: nearest(name, known),
            });
        }
    }
    Ok(selected)
}

enum Matcher {
    All,
    Group(String),
    Plain(String),
    Glob(glob::Pattern),
}

fn matcher(name: &str) -> Result<Matcher, Refusal> {
    if name == "all" {
        return Ok(Matcher::All);
    }
    if let Some(group) = name.strip_prefix('@') {
        return Ok(Matcher::Group(group.to_owned()));
    }
    if name.contains(['*', '?', '[']) {
        let pattern = glob::Pattern::new(name)
            .map_err(|error| Refusal::Invalid(format!("`{name}` is not a pattern: {error}")))?;
        return Ok(Matcher::Glob(pattern));
    }
    Ok(Matcher::Plain(name.strip_suffix(':').unwrap_or(name).to_owned()))
}

impl Matcher {
    fn accepts(
        &self,
        process: &ProcessName,
        program: &str,
        shown_group: &str,
        groups: &BTreeMap<GroupName, Group>,
    ) -> bool {
        match self {
            Self::All => true,
            Self::Group(group) => {
                shown_group == group
                    || groups.iter().any(|(name, members)| {
                        name.as_str() == group && members.programs.contains(process.program())
                    })
            }
            Self::Plain(name) => program == name || process.to_string() == *name,
            Self::Glob(pattern) => {
                // `web:*` is every process of `web`, also when it has no replicas.
                pattern.matches(&process.to_string())
                    || pattern.matches(program)
                    || (process.replica().is_none() && pattern.matches(&format!("{program}:0")))
            }
        }
    }
}

/// Returns the known name most like `name`, if any is like it at all.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Returns the processes that a program consists of.
pub(super) fn processes_of(program: &Program) -> Vec<ProcessName> {
    let name: &ProgramName = &program.name;
    match program.replicas {
        None => vec![ProcessName::new(name.clone(), None)],
        Some(count) => {
            (0..count).map(|replica| ProcessName::new(name.clone(), Some(replica))).collect()
        }
    }
}
