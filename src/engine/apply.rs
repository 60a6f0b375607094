//! Carries out what the machine of an apply decides: write down, declare, tell, finish.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::core_loop::Engine;
use super::output::log_path;
use super::reload::{Purpose, Read};
use super::run::Run;
use super::{
    ApplyBegun, ApplyRequest, ApplyTarget, GenerationOutcome, HappeningKind, How, Refusal,
};
use crate::config::{Config, Loaded, Report, Source};
use crate::core::{Actor, Apply, ApplyOrder, ApplyStep, Event, Goal, Mix, Plan, Progress};
use crate::name::ProcessName;
use crate::os::clock;
use crate::store::generations::Draft;
use crate::store::sources::Active;
use crate::time::Instant;

/// How long an apply may take, unless the request says otherwise.
const PATIENCE: Duration = Duration::from_secs(300);

/// How much of the output of what failed is shown.
const OUTPUT_BYTES: u64 = 4096;
const OUTPUT_LINES: usize = 10;

/// The last words of a process may still be on their way to its log.
const OUTPUT_DELAY: Duration = Duration::from_millis(200);

/// Where the request for an apply gets its answer.
pub(super) type Reply = oneshot::Sender<Result<ApplyBegun, Refusal>>;

/// An apply under way, with both of its ends.
#[derive(Debug)]
pub(super) struct Applying {
    machine: Apply,
    old: (Arc<Config>, Vec<Source>),
    new: (Arc<Config>, Vec<Source>),
    output: Output,
    /// What is declared when the output is read: what starts then writes to the same log.
    next: Option<Mix>,
    /// The end that waits for the output.
    end: Option<ApplyStep>,
}

/// The last lines of what failed.
#[derive(Debug, PartialEq, Eq)]
enum Output {
    NotAsked,
    Asked,
    Here(Vec<String>),
}

impl Applying {
    /// Goes on where another brain has died. `old` is what was active before.
    pub(super) fn resume(old: (Arc<Config>, Vec<Source>), new: Loaded, progress: Progress) -> Self {
        let new = (Arc::new(new.config), new.sources);
        let machine = Apply::resume(old.0.programs.clone(), new.0.programs.clone(), progress);
        Self { machine, old, new, output: Output::NotAsked, next: None, end: None }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        (self.end.is_none() && self.next.is_none()).then(|| self.machine.next_deadline())
    }

    pub(super) fn mix(&self) -> &Mix {
        self.machine.mix()
    }

    pub(super) fn progress(&self) -> &Progress {
        self.machine.progress()
    }

    /// Returns the configuration as it is with this mix of programs.
    pub(super) fn config(&self, mix: &Mix) -> Arc<Config> {
        let whole = if self.machine.is_rolling_back() { &self.old.0 } else { &self.new.0 };
        if mix.programs == whole.programs {
            return Arc::clone(whole);
        }
        Arc::new(Config { programs: mix.programs.clone(), ..Config::clone(whole) })
    }
}

impl Engine {
    /// Refuses what must not happen in the middle of an apply.
    pub(super) fn check_idle(&self) -> Result<(), Refusal> {
        let Some(applying) = &self.applying else { return Ok(()) };
        let order = &applying.progress().order;
        Err(Refusal::Busy(format!(
            "generation {} is being applied for {}; wait for its end (`mendctl watch`)",
            order.generation, order.by.name
        )))
    }

    pub(super) fn apply(&mut self, request: ApplyRequest, reply: Option<Reply>) {
        self.read_config(Purpose::Apply { request, reply });
    }

    /// Returns the generation that is asked for, `None` for what the files hold.
    pub(super) fn generation_of(&self, target: ApplyTarget) -> Result<Option<u64>, Refusal> {
        match target {
            ApplyTarget::Files => Ok(None),
            ApplyTarget::Generation(number) => Ok(Some(number)),
            ApplyTarget::Previous => {
                let previous = self.books.generations.previous().map(|it| it.number);
                let none = || {
                    let text = "there is no earlier generation to go back to; `mendctl config \
                                history` lists what is kept";
                    Refusal::Invalid(text.to_owned())
                };
                previous.map(Some).ok_or_else(none)
            }
        }
    }

    pub(super) fn on_apply_read(
        &mut self,
        request: ApplyRequest,
        reply: Option<Reply>,
        result: Result<Loaded, Report>,
    ) {
        let result = match (self.check_idle(), result) {
            _ if self.ending.is_under_way() => Err(Refusal::ShuttingDown),
            (Err(busy), _) => Err(busy),
            (Ok(()), Ok(loaded)) => self.begin_apply(&request, loaded),
            (Ok(()), Err(report)) => {
                self.note_rejected(&request.by, &report);
                Err(self.refuse(&report))
            }
        };
        self.answer_apply(&request, reply, result);
        self.look_at_apply(&BTreeSet::new());
    }

    pub(super) fn answer_apply(
        &mut self,
        request: &ApplyRequest,
        reply: Option<Reply>,
        result: Result<ApplyBegun, Refusal>,
    ) {
        let what = match request.target {
            ApplyTarget::Files => "apply".to_owned(),
            ApplyTarget::Previous => "apply --rollback".to_owned(),
            ApplyTarget::Generation(number) => format!("apply --to {number}"),
        };
        self.audit(&request.by, what, result.as_ref().err());
        match (reply, result) {
            // Whoever asked may have gone; the apply goes on.
            (Some(reply), result) => drop(reply.send(result)),
            (None, Ok(_)) => {}
            (None, Err(refusal)) => {
                let text = format!("the changed configuration was not applied: {refusal}");
                self.note_trouble("configuration", Some(text));
            }
        }
    }

    fn begin_apply(
        &mut self,
        request: &ApplyRequest,
        loaded: Loaded,
    ) -> Result<ApplyBegun, Refusal> {
        let Loaded { config, warnings, sources } = loaded;
        let fingerprint = super::generations::fingerprint(&sources);
        if request.fingerprint.as_ref().is_some_and(|seen| *seen != fingerprint) {
            let text = "the files have changed since the plan was made; look at it again";
            return Err(Refusal::Busy(text.to_owned()));
        }
        let plan = Plan::new(&self.config, &config);
        let mut texts: Vec<String> = warnings.iter().map(|it| it.message.clone()).collect();
        texts.extend(self.effects(&plan, &config));
        for text in &texts {
            warn!("{text}");
        }
        let cannot = |why: String| {
            Refusal::Failed(format!(
                "an apply must be written down before it begins, so that a crash ends in one \
                 configuration or the other: {why}; `mendctl reload` applies without that"
            ))
        };
        let held = self.would_hold(&config);
        if !held.is_empty() {
            return Err(Refusal::Busy(held.join("; ")));
        }
        let kept = self.books.active().filter(|active| active.apply.is_none());
        let kept =
            kept.ok_or_else(|| cannot("the active configuration is not on record".into()))?;
        let event = self.books.last_event();
        if plan.is_empty() && kept.sources == sources {
            let generation = self.books.generations.current().map_or(0, |it| it.number);
            self.note_trouble("configuration", None);
            return Ok(ApplyBegun { generation, begun: false, event, plan, warnings: texts });
        }
        let copy_of = self.generation_of(request.target)?;
        let draft = Draft {
            at: clock::wall(),
            by: request.by.clone(),
            how: if copy_of.is_some() { How::Rollback } else { How::Apply },
            outcome: GenerationOutcome::Applying,
            changes: plan.summary(),
            why: None,
            copy_of,
        };
        let generation = self
            .books
            .generations
            .add(draft, Some(&sources))
            .map_err(|error| cannot(format!("generations cannot be written ({error})")))?;
        let order = ApplyOrder {
            generation,
            by: request.by.clone(),
            patience: request.patience.unwrap_or(PATIENCE),
            roll_back: request.roll_back,
        };
        let (old, new) = (self.config.programs.clone(), config.programs.clone());
        let (machine, steps) = Apply::begin(clock::now(), old, new, order, &self.core);
        self.applying = Some(Applying {
            machine,
            old: (Arc::clone(&self.config), kept.sources),
            new: (Arc::new(config), sources),
            output: Output::NotAsked,
            next: None,
            end: None,
        });
        if let Err(why) = self.record_apply() {
            self.applying = None;
            // Nothing of it was tried: the files may be applied another time.
            self.settle(generation, GenerationOutcome::Rejected, Some(why.clone()));
            return Err(cannot(why));
        }
        self.say_apply(format!("generation {generation} begins: {}", plan.summary()));
        self.take_steps(steps);
        Ok(ApplyBegun { generation, begun: true, event, plan, warnings: texts })
    }

    /// Looks whether the apply has come further; an empty set stands for every process.
    pub(super) fn look_at_apply(&mut self, changed: &BTreeSet<ProcessName>) {
        let mut changed = changed.clone();
        loop {
            let Some(applying) = &mut self.applying else { return };
            if applying.end.is_some() || applying.next.is_some() {
                return;
            }
            let steps = applying.machine.look(clock::now(), &self.core, &changed);
            if steps.is_empty() {
                return;
            }
            changed.clear();
            self.take_steps(steps);
        }
    }

    fn take_steps(&mut self, steps: Vec<ApplyStep>) {
        for step in steps {
            match step {
                ApplyStep::Say(detail) => self.say_apply(detail),
                ApplyStep::Record => {
                    if let Err(why) = self.record_apply() {
                        let Some(applying) = &mut self.applying else { return };
                        let now = clock::now();
                        let instead = applying.machine.on_unrecorded(now, &why, &self.core);
                        return self.take_steps(instead);
                    }
                }
                ApplyStep::Configure(mix) => self.declare(mix),
                end @ (ApplyStep::Applied | ApplyStep::Kept { .. }) => self.finish_apply(end),
                end @ ApplyStep::RolledBack { .. } => self.finish_apply(end),
            }
        }
    }

    fn say_apply(&mut self, detail: String) {
        info!("apply: {detail}");
        self.happened(HappeningKind::Daemon { what: "apply".into(), detail });
    }

    /// Writes down how far the apply has come; first of all, that it is given up.
    fn record_apply(&mut self) -> Result<(), String> {
        let Some(applying) = &self.applying else { return Ok(()) };
        let progress = applying.progress().clone();
        if let crate::core::ApplyStage::RollingBack { why, .. } = &progress.stage {
            let (generation, why) = (progress.order.generation, why.clone());
            self.settle(generation, GenerationOutcome::RolledBack, Some(why));
        }
        let Some(applying) = &self.applying else { return Ok(()) };
        let active = Active {
            sources: applying.old.1.clone(),
            replaced: self.stale_runs(),
            apply: Some((applying.new.1.clone(), progress)),
        };
        self.books.keep_active(&active)
    }

    fn declare(&mut self, mix: Mix) {
        let asks = self.applying.as_ref().is_some_and(|it| it.machine.is_rolling_back());
        if asks && self.ask_for_output() {
            if let Some(applying) = &mut self.applying {
                applying.next = Some(mix);
            }
            return;
        }
        let Some(applying) = &self.applying else { return };
        let config = applying.config(&mix);
        let goals = applying.progress().goals.clone();
        self.core.remember_goals(goals);
        self.except.clone_from(&mix.except);
        self.set_config(config);
        self.tell(Event::ConfigureMix(mix));
        self.attend_all();
    }

    /// Goes on with an apply whose brain has died.
    pub(super) fn go_on_with_apply(&mut self) {
        let Some(applying) = &self.applying else { return };
        let generation = applying.progress().order.generation;
        self.say_apply(format!("generation {generation}: another brain goes on with it"));
        (self.on_reload)(&self.config);
        self.look_at_apply(&BTreeSet::new());
    }

    /// Reads the last words of what failed, away from the loop. Returns whether the way back has
    /// to wait for them: they may still be on their way to the log, which is written to by
    /// whatever starts next.
    fn ask_for_output(&mut self) -> bool {
        let Some(applying) = &mut self.applying else { return false };
        let crate::core::ApplyStage::RollingBack { culprit: Some(process), .. } =
            &applying.machine.progress().stage
        else {
            return false;
        };
        if applying.output != Output::NotAsked {
            return false;
        }
        applying.output = Output::Asked;
        let ended = |run: &Run| run.process == *process && (run.exit.is_some() || run.gone);
        let is_late = self.runs.values().any(ended);
        let streams = [crate::capture::Channel::Stdout, crate::capture::Channel::Stderr];
        let paths = streams.map(|stream| log_path(&self.config, process, stream));
        let length = |path: &PathBuf| path.metadata().map_or(0, |it| it.len());
        let places = paths.map(|path| {
            let end = if is_late { u64::MAX } else { length(&path) };
            (path, end)
        });
        let results = self.reading.results.clone();
        tokio::spawn(async move {
            if is_late {
                tokio::time::sleep(OUTPUT_DELAY).await;
            }
            let read = move || {
                let texts = places.iter().filter_map(|(path, end)| last_lines(path, *end).ok());
                texts.flatten().collect::<Vec<_>>()
            };
            let lines = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            // A loop that has ended needs no answer.
            let _ = results.send(Read::Output(lines));
        });
        is_late
    }

    pub(super) fn on_output(&mut self, lines: Vec<String>) {
        let Some(applying) = &mut self.applying else { return };
        applying.output = Output::Here(lines);
        if let Some(mix) = applying.next.take() {
            self.declare(mix);
            self.look_at_apply(&BTreeSet::new());
        }
        let Some(applying) = &mut self.applying else { return };
        if let Some(end) = applying.end.take() {
            self.finish_apply(end);
        }
    }

    fn finish_apply(&mut self, end: ApplyStep) {
        let Some(applying) = &mut self.applying else { return };
        if applying.output == Output::Asked {
            applying.end = Some(end);
            return;
        }
        let Some(applying) = self.applying.take() else { return };
        let order = applying.progress().order.clone();
        self.replaced.extend(applying.progress().replaced.clone());
        self.except.clear();
        let generation = order.generation;
        let (sources, outcome, why) = match end {
            ApplyStep::RolledBack { why, trouble, .. } => {
                let mut text = why;
                if let Some(trouble) = trouble {
                    text.push_str(&format!("; the configuration before is back, but {trouble}"));
                }
                if let Output::Here(lines) = applying.output
                    && !lines.is_empty()
                {
                    text.push_str(&format!("\nits last output:\n  {}", lines.join("\n  ")));
                }
                (applying.old.1, GenerationOutcome::RolledBack, Some(text))
            }
            ApplyStep::Kept { why } => (applying.new.1, GenerationOutcome::Kept, Some(why)),
            ApplyStep::Applied | ApplyStep::Say(_) | ApplyStep::Record => {
                (applying.new.1, GenerationOutcome::Applied, None)
            }
            ApplyStep::Configure(_) => (applying.new.1, GenerationOutcome::Applied, None),
        };
        let active = Active { sources, replaced: self.stale_runs(), apply: None };
        let trouble = self.books.keep_active(&active).err();
        self.note_trouble("active configuration", trouble);
        self.settle(generation, outcome, why.clone());
        self.on_applied(generation, outcome, why.as_deref());
        self.keep_goals();
        self.note_trouble("configuration", None);
        let lack = super::reload::lacks_descriptors(&self.config);
        self.note_trouble("descriptors", lack);
        let (what, text) = match outcome {
            GenerationOutcome::Applied => ("applied", "applied"),
            GenerationOutcome::Kept => ("apply-kept", "kept although it does not all run"),
            GenerationOutcome::RolledBack | GenerationOutcome::Applying => {
                ("apply-rolled-back", "rolled back")
            }
            GenerationOutcome::Interrupted | GenerationOutcome::Rejected => {
                ("apply-rolled-back", "rolled back")
            }
        };
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let detail = format!("generation {generation} was {text}{why}");
        if outcome == GenerationOutcome::Applied {
            info!("apply: {detail}");
        } else {
            warn!("apply: {detail}");
        }
        self.happened(HappeningKind::Daemon { what: what.into(), detail });
        // The files may be newer than what was applied, or hold what was given up.
        self.look_at_files();
    }

    /// The daemon ends in the middle: what was before counts for the next start.
    pub(super) fn interrupt_apply(&mut self) {
        let Some(applying) = self.applying.take() else { return };
        let generation = applying.progress().order.generation;
        let why = "the daemon was shut down in the middle of it".to_owned();
        let detail = format!("generation {generation} was interrupted: {why}");
        self.settle(generation, GenerationOutcome::Interrupted, Some(why));
        self.happened(HappeningKind::Daemon { what: "apply-rolled-back".into(), detail });
    }

    /// Returns what operators want of processes that an apply has taken away for now.
    pub(super) fn goals_of_apply(&self) -> Vec<(ProcessName, Goal, Actor)> {
        let Some(applying) = &self.applying else { return Vec::new() };
        let goals = applying.progress().goals.iter();
        goals.filter(|(name, ..)| self.core.status(name).is_none()).cloned().collect()
    }
}

/// Reads the last lines of a log before `end`.
fn last_lines(path: &Path, end: u64) -> io::Result<Vec<String>> {
    let mut file = std::fs::File::open(path)?;
    let end = file.metadata()?.len().min(end);
    let start = end.saturating_sub(OUTPUT_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end - start).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    if start > 0 && lines.len() > 1 {
        lines.remove(0); // Most likely a part of a line.
    }
    let first = lines.len().saturating_sub(OUTPUT_LINES);
    let clean = |line: &&str| line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    Ok(lines[first..].iter().map(clean).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole_few_and_harmless() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        std::fs::write(&path, "one\ntwo \u{1b}[31mred\n").unwrap();
        assert_eq!(last_lines(&path, u64::MAX).unwrap(), ["one", "two [31mred"]);
        assert_eq!(last_lines(&path, 4).unwrap(), ["one"]);
        let long: String = (0..2000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, long).unwrap();
        let lines = last_lines(&path, u64::MAX).unwrap();
        assert_eq!((lines.len(), lines[9].as_str()), (OUTPUT_LINES, "line 1999"));
    }
}
