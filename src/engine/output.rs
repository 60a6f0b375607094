//! The output of runs: who moves it, where it goes, and its end.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::error;

use super::core_loop::Engine;
use super::run::Run;
use crate::capture::{Channel, Stream};
use crate::config::{Config, Program, Ready};
use crate::keeper::wire::ToKeeper;
use crate::name::{ProcessName, RunId};

impl Engine {
    /// Lets another pump move the output of every run, from where the logs say that it stopped.
    pub(super) fn attach_every_output(&self) {
        for (run, hands) in &self.runs {
            let program = self.config.programs.get(hands.process.program());
            self.attach_output(*run, hands, program.map(Arc::as_ref));
        }
    }

    /// Lets the pump move a run's output.
    pub(super) fn attach_output(&self, run: RunId, hands: &Run, program: Option<&Program>) {
        // A program that was removed while its run lives on keeps its log.
        let fallback = crate::config::Logs::default();
        let logs = program.map_or(&fallback, |program| &program.logs);
        let owner = program
            .and_then(|program| program.spawn.user.as_ref())
            .map(|user| (user.uid, user.gid));
        for (channel, fd) in &hands.pipes {
            let Ok(fifo) = fd.as_fd().try_clone_to_owned() else {
                error!(process = %hands.process, "no descriptor is left for the output");
                continue;
            };
            self.pump.attach(Stream {
                run,
                process: hands.process.clone(),
                channel: *channel,
                fifo,
                log: log_path(&self.config, &hands.process, *channel),
                logs: logs.clone(),
                owner,
                mark: hands.wants_marks.then(|| self.books.files().mark(run, mark_name(*channel))),
            });
        }
    }

    /// Returns whether it was written down where the output of a run begins.
    pub(super) fn has_marks(&self, run: RunId, hands: &Run) -> bool {
        let files = self.books.files();
        hands.pipes.iter().any(|(channel, _)| files.mark(run, mark_name(*channel)).exists())
    }

    /// The run's tree is gone: what is still in its pipes is all there will ever be.
    pub(super) fn finish_output(&mut self, run: RunId) {
        let Some(hands) = self.runs.get_mut(&run).filter(|hands| !hands.gone) else { return };
        hands.gone = true;
        if hands.pipes.is_empty() {
            self.close_run(run);
        } else {
            self.pump.finish(run);
        }
    }

    /// Everything of the run is dealt with: nobody needs to remember it.
    pub(super) fn close_run(&mut self, run: RunId) {
        if let Some(hands) = self.runs.remove(&run) {
            self.ears.forget(run);
            for (extra, _) in &hands.extras {
                self.fdstore.forget_extra(run, *extra);
                self.keeper.post(&ToKeeper::Drop { run: extra.key(run) });
            }
            self.books.close_run(run);
            self.fdstore.forget(run);
            self.pins.forget(run);
            // A keeper that is stopped must not stop the loop.
            self.keeper.post(&ToKeeper::Drop { run });
        }
    }
}

/// Returns whether the output of a program shows that it is ready.
pub(super) fn waits_for_output(program: &Program) -> bool {
    matches!(program.lifecycle.ready, Some(Ready::Log(_)))
}

fn mark_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Stdout => "out",
        Channel::Stderr => "err",
    }
}

/// Returns the current log segment of one stream: `LOG_DIR/web/0.stdout.log`.
pub(super) fn log_path(config: &Config, process: &ProcessName, channel: Channel) -> PathBuf {
    let stream = match channel {
        Channel::Stdout => "stdout",
        Channel::Stderr => "stderr",
    };
    config
        .supervisor
        .log_dir
        .join(process.program().as_str())
        .join(format!("{}.{stream}.log", process.file_stem()))
}
