//! The loop and the arms: every event goes to the core, every action of the core has an arm here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::apply::Applying;
use super::books::Books;
use super::config_watch::ConfigWatch;
use super::counts::Counts;
use super::ears::{Ears, Heard};
use super::fdstore::FdStore;
use super::file_watch::{FileWatcher, Touched};
use super::healing::{Healing, Report};
use super::history::{History, Said};
use super::keeper_link::{KeeperLink, KeeperSender};
use super::launch::{Born, Job, Jobs, Launched};
use super::lookouts::{Lookouts, Seen};
use super::output::waits_for_output;
use super::pins::Pins;
use super::print::Print;
use super::reload::{Read, Reading};
use super::run::{Run, exit_of};
use super::shutdown::Ending;
use super::upgrade::{Checked, Upgrading, Wanted};
use super::waiters::Waiters;
use super::{Door, HappeningKind, Refusal, Request, systemd};
use crate::capture::{Notice, Pump};
use crate::config::{Config, Program};
use crate::core::filewatch::FileWatch;
use crate::core::{Action, Actor, Change, Event, SpawnFailure, StateCode, Supervisor};
use crate::keeper::wire::{ToBrain, ToKeeper, WaitStatus};
use crate::name::{ProcessName, ProgramName, RunId};
use crate::os::clock;
use crate::os::pidfd::PidFd;
use crate::os::tree::{KillJob, SweepJob, Sweeper, already_empty};
use crate::time::{Instant, Wall};

/// How long a spawn under way may take when the runs are handed to another keeper.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that the brain is made of, owned by one loop.
pub(super) struct Engine {
    pub(super) core: Supervisor,
    pub(super) config: Arc<Config>,
    pub(super) config_path: PathBuf,
    pub(super) keeper: KeeperSender,
    /// Good for telling it from another one, even after its death.
    pub(super) keeper_pid: u32,
    pub(super) jobs: Jobs,
    pub(super) pump: Pump,
    pub(super) sweeper: Sweeper,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) books: Books,
    pub(super) waiters: Waiters,
    /// Processes that changed since the waiters last looked.
    pub(super) changed: BTreeSet<ProcessName>,
    /// Exits that the keeper told before the spawner told of the birth.
    pub(super) early_exits: BTreeMap<RunId, WaitStatus>,
    /// Trouble that an operator should know, by subject.
    pub(super) trouble: BTreeMap<String, String>,
    pub(super) started: Wall,
    pub(super) ending: Ending,
    /// Who waits for the end.
    pub(super) shutdown_replies: Vec<oneshot::Sender<Result<(), Refusal>>>,
    /// The daemon ends when this program has ended, with its exit code.
    pub(super) exit_when: Option<ProgramName>,
    pub(super) on_reload: Box<dyn Fn(&Config)>,
    pub(super) log_level: super::logging::LevelHandle,
    pub(super) systemd: systemd::Notifier,
    pub(super) fdstore: FdStore,
    pub(super) pins: Pins,
    pub(super) upgrading: Upgrading,
    pub(super) reading: Reading,
    pub(super) watch: ConfigWatch,
    /// Processes that keep another declaration than their program's, in the middle of an apply.
    pub(super) except: BTreeMap<ProcessName, Arc<Program>>,
    /// The first run of each process that is spawned as it is declared, as far as an older one
    /// may be left.
    pub(super) replaced: BTreeMap<ProcessName, RunId>,
    pub(super) applying: Option<Applying>,
    pub(super) ears: Ears,
    pub(super) lookouts: Lookouts,
    pub(super) healing: Healing,
    /// `MEND_INSTANCE` of what this daemon starts.
    pub(super) instance: String,
    pub(super) file_watcher: FileWatcher,
    pub(super) file_changes: FileWatch,
    /// What watched files were like when their programs got their last renewal.
    pub(super) prints: BTreeMap<ProgramName, Print>,
    /// The same from the brain before, for programs whose runs live on; each is compared once.
    pub(super) old_prints: BTreeMap<ProgramName, Print>,
    pub(super) history: History,
    pub(super) counts: Counts,
}

/// Where the engine's events come from.
pub(super) struct Sources {
    pub(super) link: KeeperLink,
    pub(super) launched: UnboundedReceiver<Launched>,
    pub(super) gone: UnboundedReceiver<RunId>,
    pub(super) notices: UnboundedReceiver<Notice>,
    pub(super) signals: UnboundedReceiver<i32>,
    pub(super) config_changes: UnboundedReceiver<PathBuf>,
    pub(super) touched: UnboundedReceiver<Touched>,
    pub(super) checked: UnboundedReceiver<Checked>,
    pub(super) read: UnboundedReceiver<Read>,
    pub(super) heard: UnboundedReceiver<Heard>,
    pub(super) seen: UnboundedReceiver<Seen>,
    pub(super) reports: UnboundedReceiver<Report>,
    pub(super) said: UnboundedReceiver<Said>,
    pub(super) door: Door,
}

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything is stopped; the daemon ends with this code.
    Finished(u8),
    /// The keeper is gone: hand over to the next one.
    KeeperLost,
    /// A brain of another executable takes over.
    Replaced,
}

impl Engine {
    /// Runs until the daemon ends or the keeper is lost.
    pub(super) async fn run(&mut self, sources: &mut Sources) -> End {
        loop {
            let deadline = self.next_deadline();
            // Looked at first: what is due must not wait behind a stream of requests.
            // The timer below fires as well, so that the end of the loop sees what came of it.
            if deadline.is_some_and(|at| at <= clock::now()) {
                self.on_deadline();
            }
            let timer = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(clock::to_tokio(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                messages = sources.link.receive() => match messages {
                    Some(messages) => {
                        for message in messages {
                            self.on_keeper(message);
                        }
                    }
                    None => return End::KeeperLost,
                },
                Some(launched) = sources.launched.recv() => self.on_launched(launched),
                Some(run) = sources.gone.recv() => self.on_gone(run),
                Some(notice) = sources.notices.recv() => self.on_notice(notice),
                Some(seen) = sources.seen.recv() => self.on_seen(seen),
                Some(report) = sources.reports.recv() => self.on_report(report),
                Some(signal) = sources.signals.recv() => self.on_signal(signal),
                Some(_) = sources.config_changes.recv() => self.look_at_files(),
                Some(touched) = sources.touched.recv() => self.on_touched(touched),
                Some(read) = sources.read.recv() => self.on_read(read),
                Some(checked) = sources.checked.recv() => self.on_checked(checked),
                Some(said) = sources.said.recv() => self.on_said(said),
                // Behind everything that brings programs back to life.
                () = std::future::ready(()), if self.healing.has_work() => self.heal(),
                Some(request) = sources.door.requests.recv() => self.on_request(request),
                // Last: whoever talks without end holds up nobody.
                Some(heard) = sources.heard.recv() => self.on_heard(heard),
                () = timer => self.on_deadline(),
            }
            self.look_at_changes();
            if self.upgrading.is_leaving() {
                self.waiters.abandon();
                return End::Replaced;
            }
            if let Some(code) = self.finished() {
                for reply in self.shutdown_replies.drain(..) {
                    let _ = reply.send(Ok(()));
                }
                self.waiters.abandon();
                return End::Finished(code);
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        [
            self.core.next_deadline(),
            self.waiters.next_deadline(),
            self.ending.deadline(),
            self.systemd.next_ping(),
            self.applying.as_ref().and_then(Applying::next_deadline),
            self.file_changes.next_deadline(),
            self.healing.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_deadline(&mut self) {
        let now = clock::now();
        if self.core.next_deadline().is_some_and(|at| at <= now) {
            // What was said in time counts, however late it is heard.
            for run in self.core.due_runs(now) {
                self.hear(run);
            }
            self.tell(Event::DeadlineReached);
        }
        if self.file_changes.next_deadline().is_some_and(|at| at <= now) {
            self.renew_due();
        }
        if self.healing.next_deadline().is_some_and(|at| at <= now) {
            self.on_healing_deadline();
        }
        if self.ending.take_deadline(now) {
            self.on_late_shutdown();
        }
        if self.systemd.take_ping(now) {
            self.keeper.post(&ToKeeper::Ping);
        }
    }

    /// Gives the core an event and does what it asks for.
    pub(super) fn tell(&mut self, event: Event) {
        let mut pending = vec![event];
        while let Some(event) = pending.pop() {
            // Environments may hold what nobody should read in a log.
            if matches!(event, Event::Configure(_) | Event::ConfigureMix(_)) {
                debug!(programs = self.config.programs.len(), "configure");
            } else {
                debug!(?event, "event");
            }
            self.foresee(&event);
            let actions = self.core.on_event(clock::now(), event);
            self.perform(actions, &mut pending);
        }
    }

    /// Records decisions first, then carries them out; what fails at once comes back as an event.
    pub(super) fn perform(&mut self, actions: Vec<Action>, pending: &mut Vec<Event>) {
        let touched = self.record(&actions);
        for action in actions {
            self.execute(action, pending);
        }
        for process in &touched {
            self.attend(process);
        }
    }

    /// Writes down what changed; returns whom it concerns.
    fn record(&mut self, actions: &[Action]) -> BTreeSet<ProcessName> {
        let mut touched = BTreeSet::new();
        if actions.iter().any(|action| matches!(action, Action::Spawn { .. })) {
            self.books.note_next_run(self.core.next_run());
        }
        for action in actions {
            match action {
                Action::Announce(Change { process, .. }) | Action::Persist { process } => {
                    touched.insert(process.clone());
                }
                Action::Forget { process } => {
                    touched.remove(process);
                    self.books.forget(process);
                    self.lookouts.dismiss(process);
                    self.forget_life(process);
                    self.trouble.remove(&format!("log {process}"));
                    self.changed.insert(process.clone());
                }
                Action::Spawn { .. }
                | Action::Signal { .. }
                | Action::KillTree { .. }
                | Action::Sweep { .. }
                | Action::ShutdownComplete => {}
            }
        }
        for process in &touched {
            if let Some(snapshot) = self.core.snapshot(process) {
                self.books.keep(process, snapshot);
            }
            self.note_life(process);
        }
        self.changed.extend(touched.iter().cloned());
        self.note_trouble("state", self.books.trouble());
        if self.books.goals_trouble().is_some() {
            // The disk may have recovered.
            self.keep_goals();
        }
        if self.trouble.contains_key(super::generations::TROUBLE) {
            self.save_generations();
        }
        if self.books.switches_trouble().is_some() {
            self.keep_switches();
        }
        touched
    }

    fn execute(&mut self, action: Action, pending: &mut Vec<Event>) {
        match action {
            Action::Spawn { process, run } => {
                if let Err(message) = self.spawn(process, run) {
                    error!(%run, "{message}");
                    let failure = SpawnFailure { message, transient: false };
                    pending.push(Event::SpawnFailed { run, failure });
                }
            }
            Action::Signal { run, signal, group } => {
                if let Some(hands) = self.runs.get(&run)
                    && let Err(error) = hands.signal(signal, group)
                    && error.raw_os_error() != Some(libc::ESRCH)
                {
                    warn!(process = %hands.process, %run, signal, %error, "cannot signal");
                }
            }
            Action::KillTree { run } => self.kill_tree(run),
            Action::Sweep { run, signal } => {
                if let Some(event) = self.sweep(run, signal) {
                    pending.insert(0, event);
                }
            }
            Action::Announce(change) => self.announce(change),
            Action::Persist { .. } | Action::Forget { .. } => {}
            Action::ShutdownComplete => self.ending.complete(clock::now()),
        }
    }

    /// Returns what a process is declared as, which in the middle of an apply need not be what
    /// its program is.
    pub(super) fn declared(&self, process: &ProcessName) -> Option<&Arc<Program>> {
        let except = self.except.get(process);
        except.or_else(|| self.config.programs.get(process.program()))
    }

    fn spawn(&mut self, process: ProcessName, run: RunId) -> Result<(), String> {
        let program = self.declared(&process).cloned();
        let program = program.ok_or_else(|| format!("`{process}` is not configured any more"))?;
        let stale_files = self.healing.take_stale_files(&process);
        if self.jobs.send(Job { run, process, program, stale_files }) {
            return Ok(());
        }
        Err("the thread that starts programs has died".to_owned())
    }

    pub(super) fn kill_tree(&mut self, run: RunId) {
        let Some(hands) = self.runs.get(&run) else { return };
        let (Some(pid), Some(pidfd)) = (hands.pid, &hands.pidfd) else { return };
        if let Err(error) = pidfd.signal(libc::SIGKILL)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            warn!(process = %hands.process, %run, %error, "cannot kill");
        }
        match pidfd.as_fd().try_clone_to_owned() {
            Ok(main) => self.sweeper.kill_tree(KillJob {
                run,
                main_pid: pid,
                main: PidFd::from_owned(main),
                cgroup: hands.cgroup.clone(),
            }),
            Err(error) => warn!(%run, %error, "cannot kill the rest of the tree"),
        }
    }

    /// Starts to clear what is left of a run; answers at once when nothing is.
    pub(super) fn sweep(&mut self, run: RunId, signal: i32) -> Option<Event> {
        let Some(hands) = self.runs.get(&run) else {
            // Nothing is known of it but its number: whoever carries that is swept.
            self.sweeper.sweep(SweepJob {
                run,
                main_pid: u32::MAX,
                cgroup: None,
                signal,
                adopted_elsewhere: true,
            });
            return None;
        };
        if hands.gone {
            return Some(Event::Gone { run });
        }
        let empty = match (&hands.cgroup, hands.pid) {
            (Some(cgroup), _) => already_empty(cgroup),
            (None, pid) => pid.is_none(),
        };
        if empty {
            self.sweeper.untrack(run);
            self.finish_output(run);
            return Some(Event::Gone { run });
        }
        self.sweeper.sweep(SweepJob {
            run,
            main_pid: hands.pid.unwrap_or(0),
            cgroup: hands.cgroup.clone(),
            signal,
            adopted_elsewhere: hands.foreign,
        });
        None
    }

    fn announce(&mut self, change: Change) {
        let status = self.core.status(&change.process);
        info!(
            process = %change.process,
            from = change.from.name(),
            to = change.to.name(),
            run = change.run.map(|run| run.0),
            "{}", change.detail
        );
        self.happened(HappeningKind::State {
            process: change.process.to_string(),
            from: change.from.name().to_owned(),
            to: change.to.name().to_owned(),
            pid: status.as_ref().and_then(|status| status.pid),
            run: change.run.map(|run| run.0),
            detail: change.detail,
        });
        if self.exit_when.as_ref() == Some(change.process.program())
            && matches!(change.to, StateCode::Exited | StateCode::Fatal)
        {
            let exit = status.and_then(|status| status.last_exit);
            self.end_with(exit.map(|(exit, _)| exit));
        }
    }

    /// Writes an event down and tells those who listen; returns its id.
    pub(super) fn happened(&mut self, kind: HappeningKind) -> u64 {
        self.books.happened(clock::wall(), kind)
    }

    fn on_keeper(&mut self, message: ToBrain) {
        match message {
            ToBrain::Exited { run, status } => match self.runs.get_mut(&run) {
                Some(hands) if hands.exit.is_none() => {
                    hands.exit = Some(status);
                    self.note_exit(run, status);
                    // What it said before its end came before its end.
                    self.hear(run);
                    self.tell(Event::Exited { run, exit: exit_of(status) });
                }
                Some(_) => {}
                // Only what is being born is waited for: a word about a forgotten run would stay.
                None if self.core.process_of_run(run).is_some() => {
                    self.early_exits.insert(run, status);
                }
                None => {}
            },
            ToBrain::Signal { signal } => self.on_signal(signal),
            ToBrain::Pong => self.systemd.feed(),
            ToBrain::UpgradeBegins => self.leave_for_upgrade(),
            ToBrain::Upgraded => self.on_upgraded(),
            ToBrain::UpgradeFailed(why) => self.on_upgrade_failed(why),
            ToBrain::Entry { .. } | ToBrain::End => {}
        }
    }

    fn on_launched(&mut self, launched: Launched) {
        let Launched { run, process, result, exec } = launched;
        match result {
            Ok(born) => self.on_born(run, process, born),
            Err(failure) => {
                warn!(%process, %run, "{}", failure.message);
                self.early_exits.remove(&run);
                self.note_unborn(&process, exec);
                self.tell(Event::SpawnFailed { run, failure });
            }
        }
    }

    fn on_born(&mut self, run: RunId, process: ProcessName, born: Born) {
        let pid = born.pid;
        let exit = self.take_born(run, process, born);
        self.tell(Event::Spawned { run, pid });
        if let Some(status) = exit {
            self.tell(Event::Exited { run, exit: exit_of(status) });
        }
    }

    /// Takes a run into our hands; returns how it ended if it already has.
    fn take_born(&mut self, run: RunId, process: ProcessName, born: Born) -> Option<WaitStatus> {
        for warning in &born.warnings {
            warn!(%process, %run, "{warning}");
        }
        let program = self.declared(&process).cloned();
        let exit = self.early_exits.remove(&run);
        let hands = Run {
            process,
            pid: Some(born.pid),
            pidfd: Some(born.pidfd),
            pipes: born.pipes,
            extras: born.extras,
            marks: Vec::new(),
            wants_marks: program.as_deref().is_some_and(waits_for_output),
            cgroup: born.cgroup,
            exit,
            gone: false,
            foreign: false,
        };
        self.attach_output(run, &hands, program.as_deref());
        self.ears.listen(run, &hands);
        self.fdstore.keep(run, &hands);
        self.pins.keep(run, &hands);
        self.sweeper.track(run, born.pid);
        self.runs.insert(run, hands);
        exit
    }

    /// Ends the spawner and takes what it still brought to life, so that it is handed over with
    /// the rest. What it has not begun with is for the next brain. The core is told nothing any
    /// more. Returns whether the spawner has ended in time.
    pub(super) async fn finish_launches(
        &mut self,
        launched: &mut UnboundedReceiver<Launched>,
    ) -> bool {
        self.lookouts.dismiss_all();
        self.healing.freeze();
        self.jobs.close();
        let until = tokio::time::Instant::now() + LAUNCH_PATIENCE;
        loop {
            match tokio::time::timeout_at(until, launched.recv()).await {
                Ok(Some(Launched { run, process, result: Ok(born), .. })) => {
                    self.take_born(run, process, born);
                }
                Ok(Some(Launched { result: Err(_), .. })) => {}
                Ok(None) => return true,
                Err(_late) => return false,
            }
        }
    }

    fn on_gone(&mut self, run: RunId) {
        self.finish_output(run);
        self.tell(Event::Gone { run });
    }

    fn on_signal(&mut self, signal: i32) {
        self.note_signal(signal);
        let by = |name: &str| Actor {
            uid: None,
            name: format!("signal {name}"),
            reason: None,
            at: clock::wall(),
        };
        match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => {
                let name = crate::config::signal_name(signal);
                if self.ending.is_under_way() {
                    self.kill_everything(&format!("{name} came again during the shutdown"));
                } else {
                    self.begin_shutdown(by(&name), None);
                }
            }
            libc::SIGHUP => self.reload(by("SIGHUP"), None),
            libc::SIGUSR1 => {
                info!("log files are opened again");
                self.pump.reopen();
            }
            libc::SIGUSR2 => self.begin_upgrade(by("SIGUSR2"), Wanted::default(), None),
            _ => debug!(signal, "a signal without a meaning"),
        }
    }

    fn on_request(&mut self, request: Request) {
        super::requests::serve(self, request);
    }

    fn look_at_changes(&mut self) {
        let mut changed = std::mem::take(&mut self.changed);
        if self.applying.is_some() {
            self.look_at_apply(&changed);
            changed.append(&mut self.changed);
        }
        if !self.waiters.is_empty() {
            let mut waiters = std::mem::take(&mut self.waiters);
            let status = |process: &_| self.core.status(process).map(|it| self.with_health(it));
            waiters.check(clock::now(), &changed, status);
            self.waiters = waiters;
        }
    }

    /// Returns the exit code when everything is stopped and written.
    fn finished(&self) -> Option<u8> {
        self.ending.code().filter(|_| self.runs.is_empty())
    }
}
