//! Serves what is asked of healing.
//!
//! A name is that of a process, program, group or glob as everywhere, or `host`; a check is
//! `web/http`, and a check of the host may be named alone.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::Refusal;
use super::super::core_loop::Engine;
use super::super::select::{nearest, select};
use super::charges;
use super::door::{CheckStatus, Checks, HealingRequest, Why, Whys};
use super::tellings::shown_target as shown;
use crate::core::care::{Answer, CareCommand, CareEvent, CheckId, Standing, Target};
use crate::core::{Actor, BreakerState};
use crate::os::clock;

/// What the host is called; a program of this name comes first.
const HOST: &str = "host";

impl Engine {
    pub(in crate::engine) fn serve_healing(&mut self, request: HealingRequest) {
        // What happened before the question counts for the answer.
        while self.healing.has_work() && !self.ending.is_under_way() {
            self.heal();
        }
        match request {
            HealingRequest::Checks { names, reply } => {
                let checks = self.selected_checks(&names).map(|ids| self.checks(&ids));
                // Whoever asked may have gone; so with the others.
                let _ = reply.send(checks);
            }
            HealingRequest::RunChecks { names, max_age, reply } => {
                self.run_checks(&names, max_age, reply);
            }
            HealingRequest::Heal { names, rung, by, reply } => {
                self.heal_now(&names, rung, by, reply)
            }
            HealingRequest::Hold { names, time, by, reply } => {
                let request = format!("hold {} for {}", names.join(" "), shown_time(time));
                let until = clock::now() + time;
                let command = |target, by| CareCommand::Hold { target, until, by };
                let _ = reply.send(self.command_healer(&names, &by, request, command));
            }
            HealingRequest::Release { names, by, reply } => {
                let request = format!("release {}", names.join(" "));
                let command = |target, by| CareCommand::Release { target, by };
                let _ = reply.send(self.command_healer(&names, &by, request, command));
            }
            HealingRequest::EndPanic { by, reply } => {
                let refused = self.refusal();
                self.audit(&by, "end the panic".to_owned(), refused.as_ref());
                if refused.is_none() {
                    self.healing.tell(CareEvent::Operator(CareCommand::EndPanic { by }));
                }
                let _ = reply.send(refused.map_or(Ok(()), Err));
            }
            HealingRequest::Why { names, reply } => {
                let whys = self.selected_targets(&names).map(|targets| self.whys(targets));
                let _ = reply.send(whys);
            }
        }
    }

    fn refusal(&self) -> Option<Refusal> {
        (self.ending.is_under_way() || self.healing.is_frozen).then_some(Refusal::ShuttingDown)
    }

    /// Tells the healer something about each of the targets; returns their names.
    fn command_healer(
        &mut self,
        names: &[String],
        by: &Actor,
        request: String,
        command: impl Fn(Target, Actor) -> CareCommand,
    ) -> Result<Vec<String>, Refusal> {
        let selected = match self.refusal() {
            Some(refusal) => Err(refusal),
            None => self.selected_targets(names),
        };
        self.audit(by, request, selected.as_ref().err());
        let targets = selected?;
        for target in &targets {
            self.healing.tell(CareEvent::Operator(command(target.clone(), by.clone())));
        }
        while self.healing.has_work() {
            self.heal();
        }
        Ok(targets.iter().map(shown).collect())
    }

    fn run_checks(
        &mut self,
        names: &[String],
        max_age: Duration,
        reply: oneshot::Sender<Result<Vec<(CheckId, Answer)>, Refusal>>,
    ) {
        let selected = match self.refusal() {
            Some(refusal) => Err(refusal),
            None => self.selected_checks(names),
        };
        let ids = match selected {
            Ok(ids) => ids,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let asked: Vec<_> = ids
            .into_iter()
            .map(|check| {
                let (sender, answer) = oneshot::channel();
                let of = check.clone();
                self.ask_healer(|ask| CareCommand::Run { check: of, max_age, ask }, sender);
                (check, answer)
            })
            .collect();
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for (check, answer) in asked {
                match answer.await {
                    Ok(Ok(answer)) => answers.push((check, answer)),
                    Ok(Err(refusal)) => return drop(reply.send(Err(refusal))),
                    Err(_gone) => return drop(reply.send(Err(Refusal::ShuttingDown))),
                }
            }
            drop(reply.send(Ok(answers)));
        });
    }

    fn heal_now(
        &mut self,
        names: &[String],
        rung: Option<usize>,
        by: Actor,
        reply: oneshot::Sender<Result<Vec<(String, Answer)>, Refusal>>,
    ) {
        let selected = match self.refusal() {
            Some(refusal) => Err(refusal),
            None => self.selected_targets(names),
        };
        let request = match rung {
            Some(rung) => format!("heal {} from rung {}", names.join(" "), rung + 1),
            None => format!("heal {}", names.join(" ")),
        };
        self.audit(&by, request, selected.as_ref().err());
        let targets = match selected {
            Ok(targets) => targets,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let asked: Vec<_> = targets
            .into_iter()
            .map(|target| {
                let (sender, answer) = oneshot::channel();
                let (of, by) = (target.clone(), by.clone());
                self.ask_healer(|ask| CareCommand::Heal { target: of, rung, by, ask }, sender);
                (shown(&target), answer)
            })
            .collect();
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for (name, answer) in asked {
                match answer.await {
                    Ok(Ok(answer)) => answers.push((name, answer)),
                    Ok(Err(refusal)) => return drop(reply.send(Err(refusal))),
                    Err(_gone) => return drop(reply.send(Err(Refusal::ShuttingDown))),
                }
            }
            drop(reply.send(Ok(answers)));
        });
    }

    /// Returns the targets that names select; none select them all.
    fn selected_targets(&self, names: &[String]) -> Result<Vec<Target>, Refusal> {
        if names.is_empty() {
            return Ok(self.healing.care.targets().cloned().collect());
        }
        let mut targets = BTreeSet::new();
        for name in names {
            targets.extend(self.targets_of(name)?);
        }
        Ok(targets.into_iter().collect())
    }

    fn targets_of(&self, name: &str) -> Result<Vec<Target>, Refusal> {
        let statuses: Vec<_> = self.core.statuses().collect();
        let known = statuses.iter().map(|status| (&status.process, status.program.as_ref()));
        match select(&[name.to_owned()], known, &self.config.groups) {
            Ok(processes) => Ok(processes.into_iter().map(Target::Process).collect()),
            Err(_) if name == HOST => Ok(vec![Target::Host]),
            Err(refusal) => Err(refusal),
        }
    }

    /// Returns the checks that names select; none select them all.
    fn selected_checks(&self, names: &[String]) -> Result<Vec<CheckId>, Refusal> {
        let declared = &self.healing.declared;
        if names.is_empty() {
            return Ok(charges::all(declared).map(|(id, _)| id).collect());
        }
        let mut selected = BTreeSet::new();
        for name in names {
            let found = self.checks_of(name)?;
            if found.is_empty() {
                return Err(Refusal::Invalid(format!("`{name}` has no checks")));
            }
            selected.extend(found);
        }
        Ok(selected.into_iter().collect())
    }

    fn checks_of(&self, name: &str) -> Result<Vec<CheckId>, Refusal> {
        let all = || charges::all(&self.healing.declared).map(|(id, _)| id);
        let (of, check) = match name.split_once('/') {
            Some((of, check)) => (of, Some(check)),
            None => (name, None),
        };
        let targets = match self.targets_of(of) {
            Ok(targets) => targets,
            // A check of the host, named alone.
            Err(refusal) => {
                let of_host = |id: &CheckId| {
                    id.target == Target::Host && id.check.as_str() == name && check.is_none()
                };
                let found: Vec<CheckId> = all().filter(of_host).collect();
                return if found.is_empty() { Err(refusal) } else { Ok(found) };
            }
        };
        let is_wanted = |id: &CheckId| {
            targets.contains(&id.target) && check.is_none_or(|check| id.check.as_str() == check)
        };
        let found: Vec<CheckId> = all().filter(is_wanted).collect();
        if let (true, Some(check)) = (found.is_empty(), check) {
            let names = all().map(|id| format!("{}/{}", shown(&id.target), id.check));
            let suggestion = nearest(name, names)
                .map(|near| format!("; did you mean `{near}`?"))
                .unwrap_or_default();
            let text = format!("`{of}` has no check `{check}`{suggestion}");
            return Err(Refusal::Invalid(text));
        }
        Ok(found)
    }

    fn checks(&self, ids: &[CheckId]) -> Checks {
        let checks = ids.iter().filter_map(|id| self.check_status(id)).collect();
        Checks { checks, now: (clock::now(), clock::wall()) }
    }

    fn check_status(&self, id: &CheckId) -> Option<CheckStatus> {
        let care = &self.healing.care;
        let facts = care.target_facts(&id.target)?;
        let check = facts.checks.get(&id.check)?;
        let (health, ladder) = (&check.health, &check.ladder);
        Some(CheckStatus {
            id: id.clone(),
            declared: self.healing.look_of(id)?.clone(),
            state: health.state(facts.hold.is_some()),
            since: health.since,
            warning: health.warning,
            passes: health.passes,
            fails: health.fails,
            unknowns: health.unknowns,
            samples: care.samples(id).cloned().collect(),
            next_run: care.next_run(id),
            rung: ladder.next,
            quarantined_until: match ladder.quarantine.state {
                BreakerState::Open { until } => Some(until),
                BreakerState::Closed | BreakerState::HalfOpen => None,
            },
        })
    }

    fn whys(&self, targets: Vec<Target>) -> Whys {
        let now = (clock::now(), clock::wall());
        let care = &self.healing.care;
        Whys {
            whys: targets.into_iter().map(|target| self.why(target)).collect(),
            mode: care.mode().word(),
            mode_reasons: care.reasons(now.0),
            now,
        }
    }

    fn why(&self, target: Target) -> Why {
        let care = &self.healing.care;
        let name = shown(&target);
        let checks = charges::all(&self.healing.declared).map(|(id, _)| id);
        let checks = checks.filter(|id| id.target == target);
        let checks = checks.filter_map(|id| self.check_status(&id)).collect();
        let process = match &target {
            Target::Host => None,
            Target::Process(process) => self.core.status(process).map(|it| self.with_health(it)),
        };
        let facts = care.target_facts(&target);
        let standing = care.standing(&target).filter(|standing| **standing != Standing::Well);
        Why {
            health: care.health(&target),
            standing: standing.map(|standing| standing.sentence(clock::now())),
            hold: facts.and_then(|facts| facts.hold.clone()),
            waits_for: process.as_ref().map(|it| self.unwell_of(it)).unwrap_or_default(),
            incident: facts.and_then(|facts| facts.incident.as_ref()).map(|it| it.id),
            name,
            process,
            checks,
        }
    }

    /// Returns what a process requires that is not well.
    fn unwell_of(&self, status: &crate::core::ProcessStatus) -> Vec<(String, String)> {
        let dependencies = self.dependencies(status).into_iter();
        dependencies.filter(|it| !it.is_healthy).map(|it| (it.name, it.state)).collect()
    }
}

fn shown_time(time: Duration) -> String {
    crate::core::text::duration(time)
}
