//! What must hold between programs: dependencies exist and have no cycle, groups share nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostic::nearest;
use super::lifecycle::{Edge, program_names};
use super::model::{Group, RestartPolicy, Supervisor};
use super::program::Draft;
use super::read::{Context, Place};
use super::tree::Table;
use super::units::format_duration;
use crate::name::{GroupName, ProgramName};

/// Every program by name; those whose name is bad are not there.
pub(super) type Drafts = BTreeMap<ProgramName, Draft>;

/// Notes a name that no program has; `own` is not what was meant.
fn unknown_program(
    cx: &Context<'_>,
    drafts: &Drafts,
    own: Option<&ProgramName>,
    place: &Place,
    message: String,
    name: &str,
) {
    let others = drafts.keys().filter(|other| Some(*other) != own).map(ProgramName::as_str);
    let help = match nearest(name, others) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add a `[program.{name}]`, or remove the name"),
    };
    cx.error(place, "unknown-program", message, &help);
}

/// Notes dependencies on programs that do not exist, and cycles.
pub(super) fn check_dependencies(cx: &Context<'_>, drafts: &Drafts) {
    for (name, draft) in drafts {
        for dependency in &draft.dependencies {
            let (on, key) = (&dependency.on, dependency.edge.key());
            if on == name {
                let message = format!("`{name}` cannot be in its own `{key}`");
                cx.error(&dependency.place, "dependency-cycle", message, "remove it");
            } else if !drafts.contains_key(on) {
                let message = format!("`{name}` has `{on}` in `{key}`, which does not exist");
                unknown_program(cx, drafts, Some(name), &dependency.place, message, on.as_str());
            }
        }
    }
    let edge = |draft: &Draft, index: usize| {
        draft.dependencies.get(index).map(|one| (one.on.clone(), one.place.clone()))
    };
    check_cycles(drafts, &edge, &|place, path| {
        let message = format!("programs wait for each other: {path}");
        cx.error(place, "dependency-cycle", message, "remove one of these dependencies");
    });
}

/// Warns about requirements that end for good by themselves: who needs them waits from then on.
pub(super) fn check_endings(cx: &Context<'_>, drafts: &Drafts) {
    for (name, draft) in drafts {
        for dependency in draft.dependencies.iter().filter(|it| it.edge == Edge::Requires) {
            let Some(other) = drafts.get(&dependency.on) else { continue };
            if other.program.lifecycle.restart == RestartPolicy::Never {
                let on = &dependency.on;
                let message = format!(
                    "`{on}` is not started again when it ends (`restart = \"never\"`): `{name}` \
                     could not start from then on"
                );
                let help = format!(
                    "use `after = [\"{on}\"]` if only the order matters, or let `{on}` come back \
                     with `restart = \"on-failure\"`"
                );
                cx.warning(&dependency.place, "requirement-ends", message, &help);
            }
        }
    }
}

/// Notes standbys that do not exist, that stand in for each other, or that could not start.
pub(super) fn check_standbys(cx: &Context<'_>, drafts: &Drafts) {
    for (name, draft) in drafts {
        for standby in &draft.standbys {
            let Some(other) = drafts.get(&standby.on) else {
                let message =
                    format!("`{name}` falls back to `{}`, which does not exist", standby.on);
                unknown_program(
                    cx,
                    drafts,
                    Some(name),
                    &standby.place,
                    message,
                    standby.on.as_str(),
                );
                continue;
            };
            let lifecycle = &other.program.lifecycle;
            if lifecycle.requires.contains(name) {
                let message =
                    format!("`{}` requires `{name}`, for which it is to stand in", standby.on);
                let help = "remove the requirement, or name another program";
                cx.error(&standby.place, "impossible-remedy", message, help);
            } else if lifecycle.autostart {
                let message = format!("the standby `{}` starts by itself too", standby.on);
                let help = "add `autostart = false` to it; it runs only while it is needed";
                cx.warning(&standby.place, "standby-autostarts", message, help);
            }
        }
    }
    let edge = |draft: &Draft, index: usize| {
        draft.standbys.get(index).map(|one| (one.on.clone(), one.place.clone()))
    };
    check_cycles(drafts, &edge, &|place, path| {
        let message = format!("programs stand in for each other: {path}");
        cx.error(place, "fallback-cycle", message, "remove one of these fallbacks");
    });
}

/// Warns about programs that a shutdown would not leave their time to stop.
pub(super) fn check_shutdown(cx: &Context<'_>, supervisor: &Supervisor, drafts: &Drafts) {
    let limit = supervisor.shutdown_timeout;
    for (name, draft) in drafts {
        let steps = &draft.program.lifecycle.stop.steps;
        let whole = steps.iter().fold(Duration::ZERO, |sum, step| sum.saturating_add(step.grace));
        if whole > limit {
            let message = format!(
                "`{name}` may take {} to stop, a shutdown kills what is left after {}",
                format_duration(whole),
                format_duration(limit)
            );
            let help = "raise `shutdown_timeout` in `[supervisor]`, or shorten `stop`";
            cx.warning(&draft.place, "stop-outlasts-shutdown", message, help);
        }
    }
}

/// Returns where the edge of this number leads, and where it is written.
type Edges<'e> = dyn Fn(&Draft, usize) -> Option<(ProgramName, Place)> + 'e;

/// Walks the edges depth first, without recursion; an edge back into the walk is a cycle.
fn check_cycles(drafts: &Drafts, edge: &Edges<'_>, note: &dyn Fn(&Place, &str)) {
    let mut done: BTreeMap<ProgramName, bool> = BTreeMap::new();
    for root in drafts.keys() {
        if done.contains_key(root) {
            continue;
        }
        done.insert(root.clone(), false);
        let mut path: Vec<(ProgramName, usize)> = vec![(root.clone(), 0)];
        while let Some((name, next)) = path.last_mut() {
            let Some((on, place)) = drafts.get(name).and_then(|draft| edge(draft, *next)) else {
                done.insert(name.clone(), true);
                path.pop();
                continue;
            };
            *next += 1;
            if *name == on || !drafts.contains_key(&on) {
                continue;
            }
            match done.get(&on) {
                Some(true) => {}
                Some(false) => {
                    let start = path.iter().position(|(name, _)| *name == on).unwrap_or(0);
                    let mut names: Vec<&str> =
                        path[start..].iter().map(|(name, _)| name.as_str()).collect();
                    names.push(on.as_str());
                    note(&place, &names.join(" → "));
                }
                None => {
                    done.insert(on.clone(), false);
                    path.push((on, 0));
                }
            }
        }
    }
}

/// Reads the groups and puts each program into its own.
pub(super) fn groups(
    cx: &Context<'_>,
    tables: &BTreeMap<GroupName, (Place, Table<'_>)>,
    drafts: &mut Drafts,
) -> BTreeMap<GroupName, Group> {
    let mut groups = BTreeMap::new();
    let mut homes: BTreeMap<ProgramName, (GroupName, Place)> = BTreeMap::new();
    for (name, (place, table)) in tables {
        table.check_keys(cx);
        let Some(node) = table.get(cx, "programs") else {
            let message = format!("group `{name}` lists no programs");
            cx.error(place, "missing-key", message, "add `programs = [\"…\"]`");
            continue;
        };
        let mut programs = Vec::new();
        for (program, at) in program_names(cx, &node) {
            if !drafts.contains_key(&program) {
                let message = format!("group `{name}` lists `{program}`, which does not exist");
                unknown_program(cx, drafts, None, &at, message, program.as_str());
                continue;
            }
            if let Some((other, first)) = homes.get(&program) {
                let message =
                    format!("program `{program}` is in the groups `{other}` and `{name}`");
                let label = (first, format!("in group `{other}` here"));
                cx.error_with(&at, "program-in-two-groups", message, "remove it from one", label);
                continue;
            }
            homes.insert(program.clone(), (name.clone(), at));
            programs.push(program);
        }
        groups.insert(name.clone(), Group { name: name.clone(), programs });
    }
    for (program, draft) in drafts.iter_mut() {
        let own = draft.program.group.clone();
        match homes.get(program) {
            Some((group, _)) => draft.program.group = group.clone(),
            None => {
                if let Some((place, _)) = tables.get(&own) {
                    let message = format!("group `{own}` has the name of a program outside it");
                    let help = "rename the group, or list the program in it";
                    let label = (&draft.place, "the program of that name".to_owned());
                    cx.error_with(place, "ambiguous-name", message, help, label);
                }
            }
        }
    }
    groups
}
