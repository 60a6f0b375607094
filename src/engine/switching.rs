//! Acts that enable and disable, and the starts that leave out what is disabled.

use std::collections::{BTreeMap, BTreeSet};

use super::core_loop::Engine;
use super::{Outcome, OutcomeKind, Refusal, Verb};
use crate::core::{Actor, Command, Event, Goal, ProcessStatus};
use crate::name::{ProcessName, ProgramName};

/// What a process was before it was switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Switched {
    enabled: bool,
    by_operator: bool,
}

impl From<&ProcessStatus> for Switched {
    fn from(status: &ProcessStatus) -> Self {
        Self { enabled: status.enabled, by_operator: status.enabled_by.is_some() }
    }
}

impl Engine {
    /// Returns the programs of these processes.
    ///
    /// # Errors
    ///
    /// [`Refusal::Invalid`] when a program has processes that are not among them.
    fn whole_programs(
        &self,
        selected: &BTreeSet<ProcessName>,
    ) -> Result<BTreeSet<ProgramName>, Refusal> {
        let programs: BTreeSet<ProgramName> =
            selected.iter().map(|process| process.program().clone()).collect();
        for program in &programs {
            if self.core.processes_of(program).any(|process| !selected.contains(process)) {
                return Err(Refusal::Invalid(format!(
                    "a program is enabled and disabled as a whole: name `{program}`"
                )));
            }
        }
        Ok(programs)
    }

    /// Makes sure that whole programs are switched.
    pub(super) fn check_switch(&self, selected: &BTreeSet<ProcessName>) -> Result<(), Refusal> {
        self.whole_programs(selected).map(drop)
    }

    /// Tells the core who is enabled or disabled, and with `now` to start or stop them too.
    pub(super) fn switch(
        &mut self,
        processes: Vec<ProcessName>,
        enabled: bool,
        now: bool,
        by: Actor,
    ) {
        let programs: BTreeSet<ProgramName> =
            processes.iter().map(|process| process.program().clone()).collect();
        let programs = programs.into_iter().collect();
        self.tell(Event::Operator(Command::Switch { programs, enabled, by: by.clone() }));
        self.keep_switches();
        if now {
            self.tell(Event::Operator(match enabled {
                true => Command::Start { processes, by },
                false => Command::Stop { processes, by },
            }));
        }
    }

    /// Writes down what operators enabled and disabled.
    pub(super) fn keep_switches(&mut self) {
        self.books.keep_switches(self.core.switches());
        let trouble = self.books.switches_trouble();
        self.note_trouble("switches", trouble);
    }

    /// Takes what is disabled and down out of a start that did not name it: `all`, a group and a
    /// glob mean what is in use.
    pub(super) fn take_disabled(
        &self,
        verb: Verb,
        names: &[String],
        selected: &mut BTreeSet<ProcessName>,
    ) -> Vec<Outcome> {
        match verb {
            Verb::Start | Verb::Restart => {}
            Verb::Stop | Verb::Reload | Verb::Signal(_) => return Vec::new(),
            Verb::Enable { .. } | Verb::Disable { .. } => return Vec::new(),
        }
        let mut left_out = Vec::new();
        selected.retain(|process| {
            let Some(status) = self.core.status(process) else { return true };
            let is_out = !status.enabled
                && status.enabled_by.is_some()
                && status.goal == Goal::Down
                && !names.iter().any(|name| is_named(name, process));
            if is_out {
                let message = status.reason.clone();
                let result = OutcomeKind::Unchanged;
                left_out.push(Outcome { process: process.clone(), result, message, status });
            }
            !is_out
        });
        left_out
    }
}

/// Whether a process is meant by its own name or its program's: `web:0`, `web`, `web:*`.
fn is_named(name: &str, process: &ProcessName) -> bool {
    let program = process.program().as_str();
    name == process.to_string() || name.split(':').next() == Some(program)
}

/// Says what enabling or disabling without a start or stop did.
pub(super) fn judge_switch(
    enable: bool,
    before: Switched,
    status: &ProcessStatus,
) -> (OutcomeKind, String) {
    let word = if enable { "enabled" } else { "disabled" };
    if before.by_operator && before.enabled == enable {
        return (OutcomeKind::Unchanged, format!("already {word}"));
    }
    let program = status.process.program();
    let text = match (enable, status.goal) {
        (true, Goal::Up) | (false, Goal::Down) => word.to_owned(),
        (true, Goal::Down) => {
            format!("enabled; it starts with the next boot, or now by `mendctl start {program}`")
        }
        (false, Goal::Up) => {
            format!("disabled; it runs until the next boot, or until `mendctl stop {program}`")
        }
    };
    (OutcomeKind::Done, text)
}

/// Puts the word for the switch before what came of the start or stop.
pub(super) fn with_word(enable: bool, outcome: (OutcomeKind, String)) -> (OutcomeKind, String) {
    let word = if enable { "enabled" } else { "disabled" };
    let (kind, text) = outcome;
    let kind = if kind == OutcomeKind::Unchanged { OutcomeKind::Done } else { kind };
    (kind, format!("{word}; {text}"))
}

/// Adds what was left out of an act to what came of the rest, in the order of names.
pub(super) fn join(mut outcomes: Vec<Outcome>, left_out: Vec<Outcome>) -> Vec<Outcome> {
    outcomes.extend(left_out);
    let by_name: BTreeMap<ProcessName, Outcome> =
        outcomes.into_iter().map(|outcome| (outcome.process.clone(), outcome)).collect();
    by_name.into_values().collect()
}
