//! The thread that writes the history. It sleeps until there is something to write, to answer or
//! to remove; with trouble it tries again, ever more rarely, as long as something waits.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::{Question, Said, Shared};
use crate::os::clock;
use crate::store::history::{Fault, Record, Store, Word};

/// Most records of one transaction.
const BATCH: usize = 500;

/// How long results and numbers wait for more of them.
const LINGER: Duration = Duration::from_secs(2);

/// Pauses between two tries while it cannot write.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// SQLite asks for little, and debug builds for more.
const STACK_BYTES: usize = 512 * 1024;

/// Starts the thread, which ends with the process.
pub(super) fn start(
    shared: Arc<Shared>,
    store: Store,
    look: bool,
    said: UnboundedSender<Said>,
) -> io::Result<()> {
    let mut writer = Writer { shared, store, said, trouble: None, is_tidy: true };
    std::thread::Builder::new().name("mend-history".into()).stack_size(STACK_BYTES).spawn(
        move || {
            let _end = End { shared: Arc::clone(&writer.shared), said: writer.said.clone() };
            if look {
                writer.look();
            }
            writer.run();
        },
    )?;
    Ok(())
}

struct Writer {
    shared: Arc<Shared>,
    store: Store,
    said: UnboundedSender<Said>,
    trouble: Option<Trouble>,
    /// Nothing is known that should be removed.
    is_tidy: bool,
}

struct Trouble {
    text: String,
    pause: Duration,
    retry_at: Instant,
    /// Time alone changes nothing about it.
    lasts: bool,
}

/// What there is to do.
enum Job {
    Answer(Question),
    Write,
    Tidy,
    Settle(std::sync::mpsc::Sender<()>, bool),
}

/// Tells everybody that there is nobody here any more, whatever ended the thread.
struct End {
    shared: Arc<Shared>,
    said: UnboundedSender<Said>,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.dead = true;
        // Whoever waits for an answer is told by this.
        queue.questions.clear();
        queue.settling.clear();
        let text = "the thread that keeps the history has died: nothing is remembered any more";
        let _ = self.said.send(Said::Trouble(Some(text.to_owned())));
    }
}

impl Writer {
    fn run(&mut self) {
        loop {
            match self.next() {
                Job::Answer(question) => {
                    self.write_all();
                    let waiting = self.shared.queue().waiting.copy();
                    question(&mut self.store, &waiting);
                    self.say_words();
                }
                Job::Write => self.write(),
                Job::Tidy => self.tidy(),
                Job::Settle(done, close) => {
                    self.retry_now();
                    self.write_all();
                    // What is not saved was counted, and is told as far as it was.
                    let _ = self.store.save();
                    if close {
                        self.store.close();
                    }
                    let _ = done.send(());
                }
            }
        }
    }

    /// Waits for the next thing to do.
    fn next(&mut self) -> Job {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue();
        loop {
            if let Some(limits) = queue.limits.take() {
                self.store.set_limits(limits);
            }
            if let Some(question) = queue.questions.pop_front() {
                return Job::Answer(question);
            }
            if let Some((done, close)) = queue.settling.pop() {
                return Job::Settle(done, close);
            }
            if queue.waiting.is_empty() {
                if !self.is_tidy {
                    return Job::Tidy;
                }
                queue = shared.bell.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
                continue;
            }
            let now = Instant::now();
            let due = match &self.trouble {
                Some(trouble) => trouble.retry_at,
                None if queue.is_urgent => now,
                None => queue.since.unwrap_or(now) + LINGER,
            };
            if due <= now {
                return Job::Write;
            }
            if !self.is_tidy && self.trouble.is_none() {
                return Job::Tidy;
            }
            if self.trouble.as_ref().is_some_and(|trouble| trouble.lasts) {
                // The next record that counts is the next occasion.
                queue.is_urgent = false;
                queue = shared.bell.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
            } else {
                let waited = shared.bell.wait_timeout(queue, due - now);
                queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
        }
    }

    fn look(&mut self) {
        if let Err(fault) = self.store.look() {
            self.fail(&fault);
        }
        self.say_words();
    }

    fn write_all(&mut self) {
        loop {
            let is_due = self.trouble.as_ref().is_none_or(|it| it.retry_at <= Instant::now());
            if !is_due || self.shared.queue().waiting.is_empty() {
                return;
            }
            self.write();
        }
    }

    /// Writes some of what waits.
    fn write(&mut self) {
        let records = {
            let mut queue = self.shared.queue();
            let records = queue.waiting.take(BATCH);
            queue.is_urgent = queue.waiting.is_urgent();
            records
        };
        match self.store.write(&records) {
            Ok(()) => self.succeed(),
            Err(Fault::Refused(why)) => self.write_one_by_one(records, &why),
            Err(fault) => {
                self.put_back(records);
                self.fail(&fault);
            }
        }
        self.say_words();
    }

    /// Writes those records that are not refused.
    fn write_one_by_one(&mut self, records: Vec<Record>, why: &str) {
        let mut left = records.into_iter();
        let mut refused = 0_u64;
        while let Some(record) = left.next() {
            let record = [record];
            match self.store.write(&record) {
                Ok(()) => {}
                Err(Fault::Refused(_)) => refused += 1,
                Err(fault) => {
                    let back = record.into_iter().chain(left).collect();
                    self.put_back(back);
                    return self.fail(&fault);
                }
            }
        }
        self.shared.queue().waiting.note_refused(refused);
        let text = format!("{refused} entries of the history were refused and are lost: {why}");
        let _ = self.said.send(Said::Word(Word::Warning(text)));
        self.succeed();
    }

    fn put_back(&self, records: Vec<Record>) {
        let mut queue = self.shared.queue();
        queue.waiting.put_back(records);
        queue.is_urgent = queue.waiting.is_urgent();
    }

    fn succeed(&mut self) {
        let lost = self.shared.queue().waiting.take_lost();
        if self.trouble.take().is_some() {
            let _ = self.said.send(Said::Trouble(None));
        }
        if lost > 0 {
            let text = format!(
                "{lost} entries of the history are lost: they could not be written, and there was \
                 no room for more in memory"
            );
            let _ = self.said.send(Said::Word(Word::Warning(text)));
        }
        // Something was written: what is too old may be removed.
        self.tidy();
    }

    fn fail(&mut self, fault: &Fault) {
        let lost = if self.shared.queue().waiting.has_lost() {
            ", and the oldest of it is lost for want of room"
        } else {
            ""
        };
        let text = format!(
            "the history cannot be written to `{}`: {fault}; it is kept in memory meanwhile{lost}",
            self.store.path().display()
        );
        let pause = match &self.trouble {
            Some(trouble) => (trouble.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        let lasts = matches!(fault, Fault::Newer(_));
        let pause = if lasts { LONGEST_PAUSE } else { pause };
        if self.trouble.as_ref().is_none_or(|trouble| trouble.text != text) {
            let _ = self.said.send(Said::Trouble(Some(text.clone())));
        }
        self.trouble = Some(Trouble { text, pause, retry_at: Instant::now() + pause, lasts });
    }

    fn retry_now(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.retry_at = Instant::now();
        }
    }

    fn tidy(&mut self) {
        // What is wrong with the file shows with the next write.
        let more = self.store.tidy(clock::wall()).unwrap_or(false);
        self.is_tidy = !more;
    }

    fn say_words(&mut self) {
        for word in self.store.take_words() {
            let _ = self.said.send(Said::Word(word));
        }
    }
}
