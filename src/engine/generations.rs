//! Generations of the configuration, and what the files are compared with them.

use std::path::Path;

use tokio::sync::oneshot;
use tracing::warn;

use super::core_loop::Engine;
use super::{
    ApplyRequest, ApplyTarget, Compared, GenerationOutcome, HappeningKind, History, How, Planned,
    Refusal,
};
use crate::config::{Loaded, Report, Source};
use crate::core::{Actor, Plan};
use crate::os::clock;
use crate::store::generations::{Draft, Generation, Generations};
use crate::store::sources;

/// The subject of trouble with writing generations down.
pub(super) const TROUBLE: &str = "generations";

/// Where a plan goes.
pub(super) type Reply = oneshot::Sender<Result<Planned, Refusal>>;

/// The configuration to start with in place of one that was given up.
pub(crate) struct LastGood {
    /// `None` when no earlier one loads any more.
    pub(crate) loaded: Option<Loaded>,
    /// What to say about it.
    pub(crate) text: String,
}

/// Finds what to start with when the files hold what an apply has given up: they have not been
/// edited since, and nobody has said that they should count after all.
pub(crate) fn last_good(state_dir: &Path, files: &[Source]) -> Option<LastGood> {
    if !state_dir.join("generations/list").exists() {
        return None;
    }
    let (generations, _) = Generations::open(state_dir);
    let given_up = generations.rejected(files)?;
    let load = |good: &Generation| {
        let texts = generations.texts(good.number).ok()?;
        crate::config::load_sources(&texts, &super::reload::environment).ok()
    };
    let good = generations.current();
    let loaded = good.and_then(load);
    let start = match good.filter(|_| loaded.is_some()) {
        Some(good) => format!("starting with generation {}", good.number),
        None => "starting with it all the same, because no earlier one loads".to_owned(),
    };
    let (number, outcome) = (given_up.number, outcome_text(given_up));
    let text = format!("the files hold generation {number}, which was {outcome}: {start}");
    Some(LastGood { loaded, text })
}

/// Returns what tells one set of texts from another.
pub(super) fn fingerprint(texts: &[Source]) -> String {
    format!("{:08x}", sources::fingerprint(texts))
}

fn outcome_text(generation: &Generation) -> String {
    let word = match generation.outcome {
        GenerationOutcome::RolledBack => "rolled back",
        GenerationOutcome::Interrupted | GenerationOutcome::Applying => "interrupted",
        GenerationOutcome::Applied | GenerationOutcome::Kept => "applied",
        GenerationOutcome::Rejected => "rejected",
    };
    let why = generation.why.as_deref().and_then(|why| why.lines().next());
    match why {
        Some(why) => format!("{word} ({why})"),
        None => word.to_owned(),
    }
}

impl Engine {
    pub(super) fn plan(&mut self, between: Compared, reply: Reply) {
        self.read_config(super::reload::Purpose::Plan { between, reply });
    }

    pub(super) fn planned(
        &mut self,
        between: Compared,
        result: Result<Loaded, Report>,
        other: Option<Box<Loaded>>,
    ) -> Result<Planned, Refusal> {
        let loaded = result.map_err(|report| Refusal::BadConfiguration {
            rendered: report.render(false),
            mistakes: report.mistakes(),
        })?;
        let plan = match (&between, &other) {
            (Compared::Files | Compared::Previous | Compared::Generation(_), _) => {
                Plan::new(&self.config, &loaded.config)
            }
            (Compared::Generations(..), Some(other)) => Plan::new(&other.config, &loaded.config),
            (Compared::Generations(older, _), None) => {
                let text = format!("generation {older} does not load any more");
                return Err(Refusal::Failed(text));
            }
        };
        let mut warnings: Vec<String> =
            loaded.warnings.iter().map(|warning| warning.message.clone()).collect();
        let given_up = match between {
            Compared::Files => {
                warnings.extend(self.effects(&plan, &loaded.config));
                self.given_up(&loaded.sources)
            }
            Compared::Previous | Compared::Generation(_) | Compared::Generations(..) => None,
        };
        Ok(Planned { plan, fingerprint: fingerprint(&loaded.sources), warnings, given_up })
    }

    pub(super) fn history(&self) -> History {
        History {
            generations: self.books.generations.list().to_vec(),
            current: self.books.generations.current().map(|it| it.number),
            applying: self.applying.as_ref().map(|it| it.progress().order.generation),
        }
    }

    pub(super) fn texts_of(&self, number: u64) -> Result<Vec<Source>, Refusal> {
        let generations = &self.books.generations;
        if generations.get(number).is_none() {
            return Err(Refusal::Invalid(format!(
                "there is no generation {number}; `mendctl config history` lists what is kept"
            )));
        }
        generations.texts(number).map_err(|error| {
            Refusal::Failed(format!("the texts of generation {number} cannot be read: {error}"))
        })
    }

    /// Says what became of these texts if they were given up.
    fn given_up(&self, texts: &[Source]) -> Option<String> {
        let generation = self.books.generations.rejected(texts)?;
        Some(format!("generation {} was {}", generation.number, outcome_text(generation)))
    }

    /// Writes down that a configuration took effect at once, unless it is the current one.
    pub(super) fn note_generation(
        &mut self,
        texts: &[Source],
        how: How,
        by: &Actor,
        changes: String,
    ) {
        let generations = &mut self.books.generations;
        let current = generations.current().map(|it| it.number);
        if current.is_some_and(|number| generations.texts(number).is_ok_and(|it| it == texts)) {
            return;
        }
        let draft = Draft {
            at: clock::wall(),
            by: by.clone(),
            how,
            outcome: GenerationOutcome::Applied,
            changes,
            why: None,
            copy_of: None,
        };
        let result = generations.add(draft, Some(texts));
        self.note_generations_result(result.map(|_| ()));
    }

    /// Writes down that somebody wanted to apply what has mistakes, once for the same mistakes.
    pub(super) fn note_rejected(&mut self, by: &Actor, report: &Report) {
        let why = Some(mistakes(report));
        let last = self.books.generations.list().last();
        if last.is_some_and(|it| it.outcome == GenerationOutcome::Rejected && it.why == why) {
            return;
        }
        let draft = Draft {
            at: clock::wall(),
            by: by.clone(),
            how: How::Apply,
            outcome: GenerationOutcome::Rejected,
            changes: "nothing".to_owned(),
            why,
            copy_of: None,
        };
        let result = self.books.generations.add(draft, None);
        self.note_generations_result(result.map(|_| ()));
    }

    /// Writes down what became of a generation.
    pub(super) fn settle(&mut self, number: u64, outcome: GenerationOutcome, why: Option<String>) {
        let result = self.books.generations.settle(number, outcome, why);
        self.note_generations_result(result);
    }

    fn note_generations_result(&mut self, result: std::io::Result<()>) {
        let trouble = result.err().map(|error| {
            format!(
                "generations of the configuration cannot be written below `{}` ({error}): \
                 `mendctl apply` is refused, `mendctl reload` works",
                self.config.supervisor.state_dir.display()
            )
        });
        self.note_trouble(TROUBLE, trouble);
    }

    /// Tries again what could not be written: the disk may have recovered.
    pub(super) fn save_generations(&mut self) {
        let result = self.books.generations.save();
        let is_over = result.is_ok();
        self.note_generations_result(result);
        if let Some(active) = self.books.active().filter(|it| is_over && it.apply.is_none()) {
            self.note_started_with(&active.sources);
        }
    }

    /// Brings the list in line with what is active, after a start.
    pub(super) fn check_generations(&mut self, texts: &[Source]) {
        let under_way = self.applying.as_ref().map(|it| it.progress().order.generation);
        let leftover: Vec<u64> = self
            .books
            .generations
            .list()
            .iter()
            .filter(|it| it.outcome == GenerationOutcome::Applying && Some(it.number) != under_way)
            .map(|it| it.number)
            .collect();
        for number in leftover {
            let is_active = self.books.generations.texts(number).is_ok_and(|it| it == texts);
            let (outcome, why) = match is_active {
                true => (GenerationOutcome::Applied, None),
                false => {
                    let why = "the daemon or the machine was stopped in the middle of it";
                    (GenerationOutcome::Interrupted, Some(why.to_owned()))
                }
            };
            self.settle(number, outcome, why);
        }
        if under_way.is_none() {
            self.note_started_with(texts);
        }
        if !self.books.generations.is_writable() {
            let result = self.books.generations.save();
            self.note_generations_result(result);
        }
    }

    /// Makes sure that what is active is a generation.
    fn note_started_with(&mut self, texts: &[Source]) {
        let name = "the start of mendd".to_owned();
        let by = Actor { uid: None, name, reason: None, at: clock::wall() };
        let programs = self.config.programs.len();
        self.note_generation(texts, How::Start, &by, format!("starts {programs} programs"));
    }

    /// Says what is wrong with the files, beginning with the first mistake.
    pub(super) fn say_mistakes(&self, report: &Report) -> String {
        let file = self.config_path.display();
        format!(
            "`{file}` has {}; what runs is the configuration before (`mendctl config check {file}` \
             shows all)",
            mistakes(report)
        )
    }

    /// Acts on a change of the files: announces it, or applies it if that is wanted.
    pub(super) fn compare_with_files(&mut self, result: Result<Loaded, Report>) {
        if self.applying.is_some() {
            return; // Its end looks again.
        }
        // A directory may have come to be.
        self.watch.arm(&self.config);
        let file = self.config_path.display();
        let message = match &result {
            Ok(loaded) if loaded.config == *self.config => None,
            Ok(loaded) => Some(match self.given_up(&loaded.sources) {
                Some(what) => format!(
                    "`{file}` still holds what was given up: {what}; what runs is the \
                     configuration before. Edit it, or try it again with `mendctl apply`"
                ),
                None if self.config.supervisor.auto_apply && !self.ending.is_under_way() => {
                    return self.apply_by_itself();
                }
                None => format!(
                    "`{file}` has changed and is good; `mendctl plan` shows what `mendctl apply` \
                     would change"
                ),
            }),
            Err(report) => Some(self.say_mistakes(report)),
        };
        self.note_trouble("configuration", message);
    }

    fn apply_by_itself(&mut self) {
        let by = Actor { uid: None, name: "auto_apply".into(), reason: None, at: clock::wall() };
        let request = ApplyRequest {
            by,
            target: ApplyTarget::Files,
            patience: None,
            roll_back: true,
            fingerprint: None,
        };
        self.apply(request, None);
    }

    /// Says that the daemon was not started with what the files hold.
    pub(super) fn say_last_good(&mut self, text: String) {
        warn!("{text}");
        self.happened(HappeningKind::Daemon { what: "warning".into(), detail: text });
    }
}

/// Counts the mistakes and tells the place of the first.
fn mistakes(report: &Report) -> String {
    let count = match report.mistakes() {
        1 => "a mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    match report.first_mistake() {
        Some((place, message)) => format!("{count}, the first at {place}: {message}"),
        None => count,
    }
}
