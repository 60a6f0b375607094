//! What the loop does when files that programs watch have changed.

use std::path::PathBuf;

use super::HappeningKind;
use super::core_loop::Engine;
use super::file_watch::{Prints, Touched};
use super::watched::targets;
use crate::config::{OnWatch, WatchTarget};
use crate::core::filewatch::Changes;
use crate::core::{Event, Goal, StateCode};
use crate::name::ProgramName;
use crate::os::clock;

impl Engine {
    pub(super) fn on_touched(&mut self, touched: Touched) {
        match touched {
            Touched::Changed { program, files, first } => {
                let configured = self.config.programs.get(&program);
                let Some(watch) = configured.and_then(|it| it.watch.as_ref()) else { return };
                self.file_changes.on_change(clock::now(), &program, first, files, watch.debounce);
            }
            Touched::Prints { prints, is_all } => self.on_prints(prints, is_all),
            Touched::Trouble(text) => self.note_trouble("watched files", text),
        }
    }

    /// Compares what files are like with what they were like when their programs got their last
    /// renewal, and remembers it: they may have changed while no brain lived.
    fn on_prints(&mut self, prints: Prints, is_all: bool) {
        if is_all {
            self.prints.retain(|program, _| prints.contains_key(program));
        }
        for (program, (print, newest)) in prints {
            let configured = self.config.programs.get(&program);
            let Some(watch) = configured.and_then(|it| it.watch.as_ref()) else { continue };
            let before = self.old_prints.remove(&program);
            if before.is_some_and(|before| print.shows_change_since(before)) {
                let first = newest.or_else(|| watch.targets.first().map(root_of));
                let first = first.unwrap_or_default();
                let files = [first.clone()].into();
                self.file_changes.on_change(clock::now(), &program, first, files, watch.debounce);
            } else if !self.file_changes.is_pending(&program) {
                self.prints.insert(program, print);
            }
        }
        self.books.keep_prints(&self.prints);
    }

    /// Forgets changes of files that the configuration no longer watches.
    pub(super) fn keep_changes_that_count(&mut self) {
        let programs = &self.config.programs;
        self.file_changes.retain(|program, file| {
            let watch = programs.get(program).and_then(|it| it.watch.as_ref());
            watch.is_some_and(|watch| targets(program, watch).iter().any(|it| it.matches(file)))
        });
    }

    /// Renews the programs whose files have rested long enough.
    pub(super) fn renew_due(&mut self) {
        let now = clock::now();
        for (program, changes) in self.file_changes.take_due(now) {
            self.renew(program.clone(), changes);
            if !self.file_changes.is_pending(&program) {
                self.file_watcher.print(&program);
            }
        }
    }

    fn renew(&mut self, program: ProgramName, changes: Changes) {
        let configured = self.config.programs.get(&program).cloned();
        let Some(watch) = configured.as_ref().and_then(|it| it.watch.as_ref()) else { return };
        let wanted: Vec<StateCode> = self
            .core
            .processes_of(&program)
            .filter_map(|process| self.core.status(process))
            .filter(|status| status.goal == Goal::Up)
            .map(|status| status.state)
            .collect();
        if wanted.is_empty() || self.ending.is_under_way() {
            return;
        }
        let act = match watch.act {
            OnWatch::Restart => "restarting".to_owned(),
            // Whoever starts may not listen to the signal yet, and would die of it.
            OnWatch::Signal(_) if wanted.contains(&StateCode::Starting) => {
                return self.file_changes.put_back(clock::now(), program, changes, watch.debounce);
            }
            OnWatch::Signal(signal) => {
                format!("sending {}", crate::config::signal_name(signal))
            }
        };
        let cause = changes.sentence();
        let detail = format!("`{program}`: {cause}; {act}");
        tracing::info!("{detail}");
        self.happened(HappeningKind::Daemon { what: "files-changed".into(), detail });
        self.tell(Event::FilesChanged { program, cause });
    }
}

fn root_of(target: &WatchTarget) -> PathBuf {
    match target {
        WatchTarget::Path(path) | WatchTarget::Glob { root: path, .. } => path.clone(),
    }
}
