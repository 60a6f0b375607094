//! What people and clients see of a process, and the sentences that explain it.

use std::collections::BTreeSet;

use super::care::HealthState;
use super::program::Process;
use super::snapshot::{Born, State, StopPhase};
use super::supervisor::Supervisor;
use super::text;
use super::{Event, Goal, Mix, ProcessStatus, Programs};
use crate::name::{ProcessName, ProgramName};
use crate::time::Instant;

impl Supervisor {
    pub(super) fn status_of(&self, process: &Process) -> ProcessStatus {
        let facts = &process.facts;
        let rule = &process.program.lifecycle.breaker;
        let counted = u32::try_from(facts.breaker.failures.len()).unwrap_or(u32::MAX);
        ProcessStatus {
            process: facts.process.clone(),
            program: process.program.clone(),
            state: process.code(),
            goal: facts.goal,
            goal_by: facts.goal_by.clone(),
            enabled: self.is_enabled(&process.program),
            enabled_by: self.switches.get(&process.program.name).map(|switch| switch.by.clone()),
            run: process.run(),
            pid: process.signallable().and(process.born()).map(|born| born.pid),
            since: facts.since,
            started: process.signallable().and(process.born()).map(|born| born.at),
            restarts: facts.starts.saturating_sub(1),
            last_exit: facts.last_exit,
            failure: facts.failure.clone(),
            ready: process.is_ready(),
            status_text: process.signallable().and(facts.said.status.clone()),
            blocked: self.is_blocked(process),
            gives_up_at: process.gives_up_at(),
            retry_at: match facts.state {
                State::Backoff { retry_at } => Some(retry_at),
                State::Stopped | State::Waiting { .. } | State::Starting { .. } => None,
                State::Running { .. } | State::Stopping { .. } => None,
                State::Exited | State::Fatal => None,
            },
            failures: (counted.max(facts.backoff.failures), rule.failures),
            breaker: facts.breaker.state,
            reason: self.reason(process),
            waiting_for: self.waiting_for(process),
            health: HealthState::None,
            incident: None,
        }
    }

    /// Whether a process waits for a requirement that will not run by itself, however far away.
    fn is_blocked(&self, process: &Process) -> bool {
        let mut looked_at = BTreeSet::new();
        let mut waiting = vec![process];
        while let Some(process) = waiting.pop() {
            if !matches!(process.facts.state, State::Waiting { .. }) {
                continue;
            }
            for required in &process.program.lifecycle.requires {
                if self.graph.summary(required).satisfied || !looked_at.insert(required) {
                    continue;
                }
                let others = self.wanted_of(required);
                let is_over =
                    |other: &&Process| matches!(other.facts.state, State::Exited | State::Fatal);
                if others.is_empty() || others.iter().any(is_over) {
                    return true;
                }
                waiting.extend(others);
            }
        }
        false
    }

    /// Returns what runs now and would have to stop with other programs because of what it
    /// requires there, each with the reason; what would be restarted or removed is not in it.
    pub fn would_hold(&self, now: Instant, programs: &Programs) -> Vec<(ProgramName, String)> {
        let mut then = self.clone();
        then.on_event(now, Event::ConfigureMix(Mix::whole(programs.clone())));
        let mut held: Vec<(ProgramName, String)> = Vec::new();
        for status in self.statuses().filter(|status| status.run.is_some()) {
            let name = status.process.program();
            let is_news = then.is_held(&status.process) && !self.is_held(&status.process);
            let Some(process) = then.get(&status.process).filter(|it| is_news && it.is_wanted())
            else {
                continue;
            };
            if held.iter().all(|(program, _)| program != name) {
                held.push((name.clone(), then.why_held(process)));
            }
        }
        held
    }

    /// Says which requirement of a process nobody wants.
    fn why_held(&self, process: &Process) -> String {
        let requires = &process.program.lifecycle.requires;
        let Some(required) = requires.iter().find(|name| self.graph.summary(name).withdrawn) else {
            return String::new();
        };
        let other = self.processes_of(required).filter_map(|name| self.get(name)).next();
        match other {
            Some(other) if self.graph.summary(required).held => {
                format!("it requires `{required}`, stopped because {}", self.why_held(other))
            }
            Some(other) => format!("it requires `{required}`, {}", self.why_stopped(other)),
            None => format!("it requires `{required}`, which has no process"),
        }
    }

    /// Returns the processes that a waiting start needs first.
    fn waiting_for(&self, process: &Process) -> Vec<ProcessName> {
        if !matches!(process.facts.state, State::Waiting { .. }) {
            return Vec::new();
        }
        let obstacles = self.graph.obstacles(&process.program);
        let processes = obstacles.flat_map(|program| self.not_running_of(program));
        processes.map(|other| other.facts.process.clone()).collect()
    }

    /// Returns the processes of a program that somebody wants to run, if not right now.
    fn wanted_of(&self, program: &ProgramName) -> Vec<&Process> {
        let processes = self.processes_of(program).filter_map(|name| self.get(name));
        processes.filter(|it| it.facts.goal == Goal::Up && !it.facts.removed).collect()
    }

    /// Returns the processes because of which a program does not count as running: of those that
    /// are wanted, or of all where none is.
    fn not_running_of(&self, program: &ProgramName) -> Vec<&Process> {
        let mut concerned = self.wanted_of(program);
        if concerned.is_empty() {
            concerned = self.processes_of(program).filter_map(|name| self.get(name)).collect();
        }
        concerned.retain(|process| !process.standing().running);
        concerned
    }

    fn reason(&self, process: &Process) -> String {
        let facts = &process.facts;
        let last = facts.last_exit.map(|(exit, _)| text::exit(exit));
        match facts.state {
            State::Stopped => self.why_stopped(process),
            State::Waiting { .. } => self.why_waiting(process),
            State::Starting { .. } | State::Running { .. } if self.is_stop_wanted(process) => {
                let first: Vec<&str> = self
                    .graph
                    .stopping_dependants(&process.program.name)
                    .into_iter()
                    .map(|name| name.as_str())
                    .collect();
                match first.is_empty() {
                    true => format!("{}; as soon as it is spawned", self.why_stopping(process)),
                    false => {
                        let names = first.join("`, `");
                        format!("{}; after `{names}` has stopped", self.why_stopping(process))
                    }
                }
            }
            State::Starting { born: None, .. } => "is being spawned".to_owned(),
            State::Starting { born: Some(born), .. } => why_starting(process, born),
            State::Running { .. } if facts.because.is_some() => {
                let because = facts.because.as_deref().unwrap_or_default();
                format!("running; restarted because {because}")
            }
            State::Running { .. } => match (last, facts.starts) {
                (Some(last), 2..) => format!("running; the run before {last}"),
                (Some(_) | None, _) => "running".to_owned(),
            },
            State::Stopping { phase, .. } => {
                let step = match phase {
                    StopPhase::Signalled { .. } => "the stop signal was sent",
                    StopPhase::Killing { times: 0 | 1, .. } => "SIGKILL was sent to its whole tree",
                    StopPhase::Killing { .. } => "does not die of SIGKILL; blocked in the kernel?",
                    StopPhase::Sweeping { .. } => {
                        "its main process has ended, others of its tree live"
                    }
                };
                match (&facts.failing, self.is_stop_wanted(process)) {
                    (_, true) => format!("{}; {step}", self.why_stopping(process)),
                    (Some(failing), false) => format!("{}; {step}", failing.why),
                    (None, false) => format!("{step}; starts again when it has stopped"),
                }
            }
            State::Backoff { .. } => self.why_backoff(process, last),
            State::Exited => {
                let failure = facts.failure.as_ref().map(|failure| failure.message.clone());
                let cause = failure.or(last).unwrap_or_else(|| "exited".to_owned());
                format!("{cause}; its restart policy leaves it so")
            }
            State::Fatal => match (&facts.failure, last) {
                (Some(failure), _) => failure.message.clone(),
                (None, Some(last)) => format!("{last}, which is listed as permanent"),
                (None, None) => "gave up".to_owned(),
            },
        }
    }

    fn why_backoff(&self, process: &Process, last: Option<String>) -> String {
        let facts = &process.facts;
        let open = matches!(facts.breaker.state, super::BreakerState::Open { .. });
        if open {
            let State::Backoff { retry_at } = facts.state else { return String::new() };
            let sentence = process.breaker_sentence();
            return format!(
                "{sentence}; next try {} after the last",
                text::duration(retry_at.since(facts.since))
            );
        }
        let cause = match (&facts.failure, last) {
            (Some(failure), _) => failure.message.clone(),
            (None, Some(last)) => last,
            (None, None) => "failed".to_owned(),
        };
        format!("{cause}; {} failure in a row", text::ordinal(facts.backoff.failures))
    }

    fn why_stopped(&self, process: &Process) -> String {
        let facts = &process.facts;
        match (&facts.goal_by, facts.goal) {
            (Some(by), Goal::Down) => format!("stopped by {}", text::actor(by)),
            (None, Goal::Down) if self.disabled_by(&process.program.name).is_some() => {
                let verb = if facts.last_exit.is_none() { "not started" } else { "stopped" };
                let program = &process.program.name;
                format!("{verb}: {}", self.why_disabled(program).unwrap_or_default())
            }
            (None, Goal::Down) if self.is_enabled(&process.program) => {
                "stopped; it is enabled and starts with the next boot".to_owned()
            }
            (None, Goal::Down) if facts.last_exit.is_none() => {
                "not started: `autostart` is off".to_owned()
            }
            (None, Goal::Down) => "stopped".to_owned(),
            (_, Goal::Up) => match &self.shutdown {
                Some(by) => format!("shutdown by {}", text::actor(by)),
                None => "stopped".to_owned(),
            },
        }
    }

    /// Says why a run has to end.
    pub(super) fn why_stopping(&self, process: &Process) -> String {
        let facts = &process.facts;
        if facts.removed {
            return "removed from the configuration".to_owned();
        }
        if let Some(by) = &self.shutdown {
            return format!("shutdown by {}", text::actor(by));
        }
        match (facts.goal, &facts.goal_by) {
            (Goal::Down, Some(by)) => return format!("stopped by {}", text::actor(by)),
            (Goal::Down, None) => return "not wanted by the configuration".to_owned(),
            (Goal::Up, _) if facts.shed.is_some() => {
                let by = facts.shed.as_ref().map(text::actor);
                return format!("stopped for now by {}", by.unwrap_or_default());
            }
            (Goal::Up, _) if facts.restart => {
                return match &facts.because {
                    Some(because) => format!("restarting because {because}"),
                    None => "restarting".to_owned(),
                };
            }
            (Goal::Up, _) => {}
        }
        let requires = &process.program.lifecycle.requires;
        match requires.iter().find(|name| self.graph.summary(name).withdrawn) {
            Some(name) => format!("stops because `{name}`, which it requires, stops"),
            None => "stopping".to_owned(),
        }
    }

    /// Says what a start has to wait for.
    pub(super) fn why_waiting(&self, process: &Process) -> String {
        if !process.facts.remains.is_empty() {
            return "waits until nothing of the last run is alive".to_owned();
        }
        if let Some(by) = &process.facts.shed {
            return format!("kept down by {}; starts again when that is over", text::actor(by));
        }
        let Some(program) = self.graph.obstacles(&process.program).next() else {
            return "about to start".to_owned();
        };
        if !process.program.lifecycle.requires.contains(program) {
            return format!("waits for `{program}`, which starts before it");
        }
        let Some(blocker) = self.not_running_of(program).into_iter().next() else {
            return format!("requires `{program}`, which has no process");
        };
        let name = &blocker.facts.process;
        if blocker.facts.goal == Goal::Down
            && let Some(why) = self.why_disabled(program)
        {
            return format!("requires `{program}`, which was {why}");
        }
        let how = match blocker.facts.state {
            State::Stopped => match (&blocker.facts.goal_by, blocker.facts.goal) {
                (Some(by), Goal::Down) => format!("which was stopped by {}", text::actor(by)),
                (None, Goal::Down) => "which is stopped".to_owned(),
                (_, Goal::Up) => "which is stopped".to_owned(),
            },
            State::Fatal => format!("which is FATAL; starts by itself when `{name}` runs"),
            State::Exited => format!("which has exited; starts by itself when `{name}` runs"),
            State::Backoff { .. } => match &blocker.facts.failure {
                Some(failure) => {
                    format!("which has failed ({}), and will be tried again", failure.message)
                }
                None => "which has failed and will be tried again".to_owned(),
            },
            State::Stopping { .. } => match &blocker.facts.failing {
                Some(failing) => format!("which is being stopped: {}", failing.why),
                None => "which is being stopped".to_owned(),
            },
            State::Starting { born: Some(born), .. } if blocker.is_ready().is_some() => {
                format!("which is not ready: {}", why_starting(blocker, born))
            }
            State::Waiting { .. } | State::Starting { .. } => "which is starting".to_owned(),
            State::Running { .. } => "which is about to stop".to_owned(),
        };
        format!("requires `{name}`, {how}")
    }
    /// Says who disabled a program, why, and the way out.
    fn why_disabled(&self, program: &ProgramName) -> Option<String> {
        let by = self.disabled_by(program)?;
        Some(format!("disabled by {}; `mendctl enable --now {program}`", text::actor(by)))
    }
}

/// Says what a start waits for and how long it may.
fn why_starting(process: &Process, born: Born) -> String {
    let limit = text::duration(process.start_ends(born).since(born.at));
    match process.gives_up_at() {
        Some(_) => format!("{}; gives up {limit} after its start", process.awaits()),
        None if process.facts.said.unheard => format!(
            "what it said of its readiness may be lost; counts as running {limit} after its start"
        ),
        None => format!("counts as running {limit} after its start"),
    }
}
