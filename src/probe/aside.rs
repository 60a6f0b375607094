//! Runs what may block for ever on a thread of its own: a name server, a disk on the network.
//!
//! The runtime's own few threads would soon all be stuck in the same dead disk. A thread here
//! ends with its work, and what is stuck is not asked again and again: a question that waits
//! three times over is not asked a fourth time.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

/// Most threads for the same question.
const MAX_SAME: usize = 3;
/// Most threads in all.
const MAX_ALL: usize = 64;
/// Enough for what the C library's name service loads.
const STACK_BYTES: usize = 512 * 1024;

/// How many questions wait for an answer, by what they are about.
static WAITING: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("earlier questions about {0} still wait for their answer")]
    Same(String),
    #[error("too many questions wait for their answer")]
    All,
    #[error("no thread can be started")]
    NoThread(#[source] io::Error),
    #[error("the question about {0} was not answered")]
    Died(String),
}

/// Does `work` aside; `about` names what it may be stuck in. When this is dropped before its
/// end, the work goes on and its answer is thrown away.
pub(super) async fn aside<T: Send + 'static>(
    about: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let place = Place::take(about)?;
    let (sender, answer) = oneshot::channel();
    let work = move || {
        let answer = work();
        drop(place);
        // Nobody may wait for it any more.
        let _ = sender.send(answer);
    };
    let thread = thread::Builder::new().name("mend-aside".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(work).map_err(Unanswered::NoThread)?;
    answer.await.map_err(|_| Unanswered::Died(about.to_owned()))
}

/// A place among those that wait.
struct Place(String);

impl Place {
    fn take(about: &str) -> Result<Self, Unanswered> {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.get(about).is_some_and(|same| *same >= MAX_SAME) {
            return Err(Unanswered::Same(about.to_owned()));
        }
        if waiting.values().sum::<usize>() >= MAX_ALL {
            return Err(Unanswered::All);
        }
        *waiting.entry(about.to_owned()).or_default() += 1;
        Ok(Self(about.to_owned()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = waiting.get_mut(&self.0) {
            *same -= 1;
            if *same == 0 {
                waiting.remove(&self.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_question_that_is_stuck_is_not_asked_for_ever_and_again_once_it_is_answered() {
        let (release, gate) = mpsc::channel::<()>();
        let gate = std::sync::Arc::new(Mutex::new(gate));
        block_on(async {
            let ask = || {
                let gate = std::sync::Arc::clone(&gate);
                aside("a stuck disk", move || gate.lock().unwrap().recv().unwrap())
            };
            for _ in 0..MAX_SAME {
                let late = tokio::time::timeout(Duration::from_millis(1), ask()).await;
                assert!(late.is_err(), "it answered");
            }
            let refused = ask().await.unwrap_err();
            assert!(matches!(refused, Unanswered::Same(_)), "{refused}");
            assert_eq!(aside("another", || 7).await.unwrap(), 7);
            for _ in 0..MAX_SAME {
                release.send(()).unwrap();
            }
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while WAITING.lock().unwrap().contains_key("a stuck disk") {
                assert!(std::time::Instant::now() < deadline, "a place is not given back");
                thread::yield_now();
            }
            release.send(()).unwrap();
            ask().await.unwrap();
        });
    }

    #[test]
    fn work_that_panics_gives_its_place_back() {
        block_on(async {
            for _ in 0..=MAX_SAME {
                let died =
                    aside("a mistake", || assert!(WAITING.is_poisoned(), "on purpose")).await;
                assert!(matches!(died, Err(Unanswered::Died(_))));
            }
        });
    }
}
