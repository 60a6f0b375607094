//! A remedy of several steps: all of them, or as if none had been.
//!
//! When a step fails, is called off or takes too long, the undo commands of the steps before it
//! run in reverse. After a crash in the middle nobody knows how far the step in flight came, so
//! it is undone as well; undo commands are written to do no harm in that case. An undo that
//! fails does not keep the others from being tried, and is never forgotten.
//!
//! The whole machine is plain data: written down, it is its own journal.

use crate::config::RemedyStep;

/// How far a transaction has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub stage: TransactionStage,
    /// Steps whose undo failed, in the order in which it was tried.
    pub not_undone: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionStage {
    /// This step is under way; all before it are done.
    Doing {
        step: usize,
    },
    /// The undo command of this step is under way; those of later steps have run.
    Undoing {
        step: usize,
        why: String,
    },
    Done,
    /// Everything that could be undone has been.
    Undone {
        why: String,
    },
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionOrder {
    Do {
        step: usize,
    },
    Undo {
        step: usize,
    },
    /// It is over: look at [`Transaction::stage`].
    Over,
}

impl Transaction {
    /// Begins with the first step.
    pub fn begin(steps: &[RemedyStep]) -> (Self, TransactionOrder) {
        let mut transaction =
            Self { stage: TransactionStage::Doing { step: 0 }, not_undone: Vec::new() };
        let order = match steps.is_empty() {
            false => TransactionOrder::Do { step: 0 },
            true => {
                transaction.stage = TransactionStage::Done;
                TransactionOrder::Over
            }
        };
        (transaction, order)
    }

    /// A step, or its undo command, has ended. `None` when it is not the one under way.
    pub fn on_ended(
        &mut self,
        steps: &[RemedyStep],
        step: usize,
        undo: bool,
        result: Result<(), String>,
    ) -> Option<TransactionOrder> {
        match (&self.stage, result) {
            (TransactionStage::Doing { step: ours }, Ok(())) if !undo && *ours == step => {
                let next = step + 1;
                if next < steps.len() {
                    self.stage = TransactionStage::Doing { step: next };
                    return Some(TransactionOrder::Do { step: next });
                }
                self.stage = TransactionStage::Done;
                Some(TransactionOrder::Over)
            }
            (TransactionStage::Doing { step: ours }, Err(why)) if !undo && *ours == step => {
                Some(self.undo_below(steps, step, why))
            }
            (TransactionStage::Undoing { step: ours, why }, result) if undo && *ours == step => {
                let why = why.clone();
                if result.is_err() {
                    self.not_undone.push(step);
                }
                Some(self.undo_below(steps, step, why))
            }
            (
                TransactionStage::Doing { .. }
                | TransactionStage::Undoing { .. }
                | TransactionStage::Done
                | TransactionStage::Undone { .. },
                _,
            ) => None,
        }
    }

    /// The step in flight has been killed: its time is over, or nobody wants the remedy any
    /// more. What it did half is undone too. `None` when nothing is in flight but an undo.
    pub fn call_off(&mut self, steps: &[RemedyStep], why: &str) -> Option<TransactionOrder> {
        match self.stage {
            TransactionStage::Doing { step } => {
                Some(self.undo_below(steps, step + 1, why.to_owned()))
            }
            TransactionStage::Undoing { .. } => None,
            TransactionStage::Done | TransactionStage::Undone { .. } => None,
        }
    }

    /// The brain died and the next one goes on: back, as nobody knows how far it came.
    pub fn resume(&mut self, steps: &[RemedyStep]) -> TransactionOrder {
        match self.stage.clone() {
            TransactionStage::Doing { step } => {
                self.undo_below(steps, step + 1, "the supervisor died during a step".to_owned())
            }
            TransactionStage::Undoing { step, why } => self.undo_below(steps, step + 1, why),
            TransactionStage::Done | TransactionStage::Undone { .. } => TransactionOrder::Over,
        }
    }

    fn undo_below(&mut self, steps: &[RemedyStep], end: usize, why: String) -> TransactionOrder {
        let before = steps.get(..end).unwrap_or(steps);
        match before.iter().rposition(|step| step.undo.is_some()) {
            Some(step) => {
                self.stage = TransactionStage::Undoing { step, why };
                TransactionOrder::Undo { step }
            }
            None => {
                self.stage = TransactionStage::Undone { why };
                TransactionOrder::Over
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four steps; the third has nothing to undo.
    fn steps() -> Vec<RemedyStep> {
        let step = |n: usize| RemedyStep {
            argv: vec![format!("do-{n}")],
            undo: (n != 2).then(|| vec![format!("undo-{n}")]),
        };
        (0..4).map(step).collect()
    }

    /// Plays to the end; step or undo numbers in `failing` fail. Returns what was ordered.
    fn play(
        transaction: &mut Transaction,
        mut order: TransactionOrder,
        fails: impl Fn(usize, bool) -> bool,
    ) -> Vec<String> {
        let mut orders = Vec::new();
        loop {
            let (step, undo) = match order {
                TransactionOrder::Do { step } => (step, false),
                TransactionOrder::Undo { step } => (step, true),
                TransactionOrder::Over => return orders,
            };
            orders.push(format!("{} {step}", if undo { "undo" } else { "do" }));
            let result = if fails(step, undo) { Err("exit code 1".to_owned()) } else { Ok(()) };
            order = transaction.on_ended(&steps(), step, undo, result).expect("it was in flight");
        }
    }

    #[test]
    fn all_steps_run_in_turn() {
        let (mut transaction, order) = Transaction::begin(&steps());
        assert_eq!(play(&mut transaction, order, |_, _| false), ["do 0", "do 1", "do 2", "do 3"]);
        assert_eq!(transaction.stage, TransactionStage::Done);
    }

    #[test]
    fn a_failed_step_undoes_those_before_it_in_reverse() {
        let (mut transaction, order) = Transaction::begin(&steps());
        let orders = play(&mut transaction, order, |step, undo| step == 3 && !undo);
        assert_eq!(orders, ["do 0", "do 1", "do 2", "do 3", "undo 1", "undo 0"]);
        assert_eq!(transaction.stage, TransactionStage::Undone { why: "exit code 1".into() });
    }

    #[test]
    fn an_undo_that_fails_is_remembered_and_the_others_still_run() {
        let (mut transaction, order) = Transaction::begin(&steps());
        let orders = play(&mut transaction, order, |step, undo| undo == (step == 1));
        assert_eq!(orders, ["do 0"]);
        let (mut transaction, order) = Transaction::begin(&steps());
        let orders = play(&mut transaction, order, |step, undo| {
            (step, undo) == (2, false) || (step, undo) == (1, true)
        });
        assert_eq!(orders, ["do 0", "do 1", "do 2", "undo 1", "undo 0"]);
        assert_eq!(transaction.not_undone, [1]);
    }

    #[test]
    fn a_step_that_is_called_off_is_undone_itself() {
        let (mut transaction, _) = Transaction::begin(&steps());
        transaction.on_ended(&steps(), 0, false, Ok(()));
        let order = transaction.call_off(&steps(), "took longer than 30 s").unwrap();
        assert_eq!(order, TransactionOrder::Undo { step: 1 });
        assert_eq!(transaction.call_off(&steps(), "again"), None);
        assert_eq!(play(&mut transaction, order, |_, _| false), ["undo 1", "undo 0"]);
    }

    #[test]
    fn a_crash_in_any_place_leads_back_to_the_start() {
        for crash_after in 0..8 {
            let (mut transaction, mut order) = Transaction::begin(&steps());
            let mut done = [false; 4];
            for count in 0.. {
                if count == crash_after {
                    transaction = transaction.clone();
                    order = transaction.resume(&steps());
                }
                let (step, undo) = match order {
                    TransactionOrder::Do { step } => (step, false),
                    TransactionOrder::Undo { step } => (step, true),
                    TransactionOrder::Over => break,
                };
                done[step] = !undo;
                let result = if step == 3 { Err("no".to_owned()) } else { Ok(()) };
                order = transaction.on_ended(&steps(), step, undo, result).unwrap();
            }
            assert!(matches!(transaction.stage, TransactionStage::Undone { .. }));
            assert_eq!([done[0], done[1]], [false, false], "after {crash_after} orders");
        }
    }

    #[test]
    fn a_report_on_another_step_changes_nothing() {
        let (mut transaction, _) = Transaction::begin(&steps());
        let before = transaction.clone();
        assert_eq!(transaction.on_ended(&steps(), 1, false, Ok(())), None);
        assert_eq!(transaction.on_ended(&steps(), 0, true, Ok(())), None);
        assert_eq!(transaction, before);
    }

    #[test]
    fn a_transaction_of_nothing_is_done() {
        let (transaction, order) = Transaction::begin(&[]);
        assert_eq!((transaction.stage, order), (TransactionStage::Done, TransactionOrder::Over));
    }
}
