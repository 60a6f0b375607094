//! What comes through the engine's front door, one arm per request.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::core_loop::Engine;
use super::output::log_path;
use super::select::select;
use super::switching::join;
use super::upgrade::Wanted;
use super::waiters::{Before, Reply, judge};
use super::{
    Act, DaemonStatus, HappeningKind, LogPlace, Outcome, OutcomeKind, Refusal, Request, Status,
    Verb,
};
use crate::capture::Channel;
use crate::config::Sink;
use crate::core::{Actor, Command, Event, ProcessStatus};
use crate::name::ProcessName;
use crate::os::clock;

/// Serves one request. A long one is answered later, by the waiters or at the end.
pub(super) fn serve(engine: &mut Engine, request: Request) {
    match request {
        Request::Status { names, reply } => {
            let _ = reply.send(engine.status(&names));
        }
        Request::Act { act, reply } => engine.act(act, reply),
        Request::Reload { by, reply } => engine.reload(by, Some(reply)),
        Request::Plan { between, reply } => engine.plan(between, reply),
        Request::Apply { request, reply } => engine.apply(request, Some(reply)),
        Request::History { reply } => {
            let _ = reply.send(engine.history());
        }
        Request::Shutdown { by, reply } => engine.shutdown(by, reply),
        Request::LogLevel { level, by, reply } => {
            let result = engine.log_level.set(&level).map_err(Refusal::Invalid);
            engine.audit(&by, format!("log-level {level}"), result.as_ref().err());
            let _ = reply.send(result);
        }
        Request::EventsAfter { id, reply } => {
            let _ = reply.send(engine.books.events_after(id));
        }
        Request::LogPlaces { names, reply } => {
            let _ = reply.send(engine.log_places(&names));
        }
        Request::Counts { reply } => {
            let _ = reply.send(engine.counts());
        }
        Request::Healing(request) => engine.serve_healing(request),
        Request::Config { reply } => engine.show_config(reply),
        Request::Upgrade { by, binary, patience, reply } => {
            engine.begin_upgrade(by, Wanted { binary, patience }, Some(reply));
        }
    }
}

impl Engine {
    /// Writes down who asked for what and what came of it.
    pub(super) fn audit(&mut self, by: &Actor, request: String, refused: Option<&Refusal>) {
        let outcome = refused.map_or_else(|| "accepted".to_owned(), ToString::to_string);
        let request = match &by.reason {
            Some(reason) => format!("{request} (because: {reason})"),
            None => request,
        };
        self.happened(HappeningKind::Audit { by: by.name.clone(), uid: by.uid, request, outcome });
    }

    pub(super) fn selected(&self, names: &[String]) -> Result<BTreeSet<ProcessName>, Refusal> {
        let statuses: Vec<_> = self.core.statuses().collect();
        let known = statuses.iter().map(|status| (&status.process, status.program.as_ref()));
        select(names, known, &self.config.groups)
    }

    fn status(&self, names: &[String]) -> Result<Status, Refusal> {
        let processes: Vec<ProcessStatus> = if names.is_empty() {
            self.core.statuses().map(|status| self.with_health(status)).collect()
        } else {
            let wanted = self.selected(names)?;
            let chosen = self.core.statuses().filter(|it| wanted.contains(&it.process));
            chosen.map(|status| self.with_health(status)).collect()
        };
        let mut warnings: Vec<String> = self.trouble.values().cloned().collect();
        warnings.extend(self.health_warnings());
        Ok(Status {
            daemon: DaemonStatus {
                version: env!("CARGO_PKG_VERSION"),
                brain_pid: std::process::id(),
                keeper_pid: std::os::unix::process::parent_id(),
                started: self.started,
                config: self.config_path.clone(),
                warnings,
                phase: if self.ending.is_under_way() { "stopping" } else { "running" },
                mode: self.healing.mode(),
            },
            processes,
            now: (clock::now(), clock::wall()),
        })
    }

    fn act(&mut self, act: Act, reply: Reply) {
        let verb = act.verb;
        let said = format!("{} {}", verb_word(verb), act.names.join(" "));
        let by = act.by.clone();
        let Some(reply) = self.act_again(&act, &said, reply) else { return };
        let checked = if self.ending.is_under_way() {
            Err(Refusal::ShuttingDown)
        } else {
            self.selected(&act.names)
        };
        let mut selected = match checked.and_then(|selected| self.check_act(verb, selected)) {
            Ok(selected) => selected,
            Err(refusal) => {
                self.audit(&by, said, Some(&refusal));
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        self.audit(&by, said.clone(), None);
        let left_out = self.take_disabled(verb, &act.names, &mut selected);
        let before: BTreeMap<_, _> = selected
            .iter()
            .filter_map(|process| Some((process.clone(), self.core.status(process)?)))
            .collect();
        if let Some(key) = act.key.clone() {
            self.remember_act(key, &by, &said, &before);
        }
        self.command(verb, selected.into_iter().collect(), by);
        self.wait_for_act(&act, before, left_out, reply);
    }

    /// Answers an act when its effect is reached, or at once where nobody waits for it.
    pub(super) fn wait_for_act(
        &mut self,
        act: &Act,
        before: BTreeMap<ProcessName, ProcessStatus>,
        left_out: Vec<Outcome>,
        reply: Reply,
    ) {
        let (verb, now) = (act.verb, clock::now());
        match act.wait {
            Some(wait) => {
                self.changed.extend(before.keys().cloned());
                self.waiters.add(verb, before, left_out, now + wait, reply);
            }
            None => {
                let outcomes = self.outcomes_now(verb, &before);
                let _ = reply.send(Ok(join(outcomes, left_out)));
            }
        }
    }

    fn check_act(
        &self,
        verb: Verb,
        selected: BTreeSet<ProcessName>,
    ) -> Result<BTreeSet<ProcessName>, Refusal> {
        if verb == Verb::Reload {
            for process in &selected {
                let status = self.core.status(process);
                if status.is_some_and(|status| status.program.lifecycle.reload_signal.is_none()) {
                    return Err(Refusal::Invalid(format!(
                        "`{process}` cannot reload: `{}` has no `reload_signal`; \
                         `mendctl restart {process}` replaces it",
                        process.program()
                    )));
                }
            }
        }
        if matches!(verb, Verb::Enable { .. } | Verb::Disable { .. }) {
            self.check_switch(&selected)?;
        }
        if matches!(verb, Verb::Reload | Verb::Signal(_)) {
            let running = |process: &ProcessName| {
                self.core.status(process).is_some_and(|status| status.pid.is_some())
            };
            if let Some(idle) = selected.iter().find(|process| !running(process))
                && selected.len() == 1
            {
                return Err(Refusal::Invalid(format!("`{idle}` is not running")));
            }
            return Ok(selected.into_iter().filter(|process| running(process)).collect());
        }
        Ok(selected)
    }

    fn command(&mut self, verb: Verb, processes: Vec<ProcessName>, by: Actor) {
        match verb {
            Verb::Start => self.tell(Event::Operator(Command::Start { processes, by })),
            Verb::Stop => self.tell(Event::Operator(Command::Stop { processes, by })),
            Verb::Restart => self.tell(Event::Operator(Command::Restart { processes, by })),
            Verb::Enable { now } => self.switch(processes, true, now, by),
            Verb::Disable { now } => self.switch(processes, false, now, by),
            Verb::Signal(signal) => {
                self.tell(Event::Operator(Command::Signal { processes, signal, by }));
            }
            Verb::Reload => {
                for process in processes {
                    let signal = self
                        .core
                        .status(&process)
                        .and_then(|status| status.program.lifecycle.reload_signal);
                    if let Some(signal) = signal {
                        let processes = vec![process];
                        let by = by.clone();
                        self.tell(Event::Operator(Command::Signal { processes, signal, by }));
                    }
                }
            }
        }
        self.keep_goals();
    }

    fn outcomes_now(
        &self,
        verb: Verb,
        before: &BTreeMap<ProcessName, ProcessStatus>,
    ) -> Vec<Outcome> {
        before
            .iter()
            .filter_map(|(process, before)| {
                let status = self.core.status(process).map(|it| self.with_health(it))?;
                let (result, message) = judge(verb, &Before::from(before), &status)
                    .unwrap_or_else(|| (OutcomeKind::Done, status.reason.clone()));
                Some(Outcome { process: process.clone(), result, message, status })
            })
            .collect()
    }

    /// Writes the goals that operators set to the state directory, for the next boot.
    pub(super) fn keep_goals(&mut self) {
        let mut goals = self.core.explicit_goals();
        // What an apply has taken away may come back.
        goals.extend(self.goals_of_apply());
        self.books.keep_goals(&goals);
        let trouble = self.books.goals_trouble();
        self.note_trouble("goals", trouble);
    }

    fn shutdown(&mut self, by: Actor, reply: oneshot::Sender<Result<(), Refusal>>) {
        if self.ending.is_under_way() {
            let _ = reply.send(Err(Refusal::ShuttingDown));
            return;
        }
        self.audit(&by, "shutdown".into(), None);
        self.shutdown_replies.push(reply);
        self.begin_shutdown(by, None);
    }

    fn log_places(&self, names: &[String]) -> Result<Vec<LogPlace>, Refusal> {
        let names: &[String] = if names.is_empty() { &["all".to_owned()] } else { names };
        let selected = self.selected(names)?;
        Ok(selected
            .into_iter()
            .map(|process| {
                let logs = self.config.programs.get(process.program()).map(|p| &p.logs);
                let captured = logs.is_some_and(|logs| logs.sink != Sink::None);
                let merged = logs.is_none_or(|logs| logs.merge_stderr);
                let place = |channel| log_path(&self.config, &process, channel);
                LogPlace {
                    stdout: captured.then(|| place(Channel::Stdout)),
                    stderr: (captured && !merged).then(|| place(Channel::Stderr)),
                    process,
                }
            })
            .collect())
    }
}

fn verb_word(verb: Verb) -> String {
    match verb {
        Verb::Start => "start".into(),
        Verb::Stop => "stop".into(),
        Verb::Restart => "restart".into(),
        Verb::Reload => "reload".into(),
        Verb::Enable { now: false } => "enable".into(),
        Verb::Enable { now: true } => "enable --now".into(),
        Verb::Disable { now: false } => "disable".into(),
        Verb::Disable { now: true } => "disable --now".into(),
        Verb::Signal(signal) => format!("signal {}", crate::config::signal_name(signal)),
    }
}
