//! What waits to be written: bounded, so that a disk that refuses everything for a week costs
//! memory once. There are few incidents and requests, and each counts; there are many results
//! and numbers: the two have room of their own, and lose their own oldest.

use std::collections::VecDeque;

use crate::store::history::Record;

/// Room for each of the two, in bytes.
const MAX_BYTES: usize = 2 << 20;

/// Longest text of a request or an outcome, in bytes: a request may name thousands of programs.
const MAX_TEXT: usize = 4_096;

/// Longest line of a check's result.
const MAX_DETAIL: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    few: Lane,
    many: Lane,
    /// Records that were lost for want of room, and not yet told of.
    lost: u64,
    /// All records that were lost since the start.
    lost_ever: u64,
}

#[derive(Debug, Default)]
struct Lane {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn push(&mut self, mut record: Record) {
        clip(&mut record);
        let lane = if is_few(&record) { &mut self.few } else { &mut self.many };
        lane.bytes += weight(&record);
        lane.records.push_back(record);
        let lost = lane.shrink();
        self.note_lost(lost);
    }

    /// Takes up to `count` of the oldest, those first that count most.
    pub(super) fn take(&mut self, count: usize) -> Vec<Record> {
        let mut taken = self.few.take(count);
        taken.extend(self.many.take(count - taken.len()));
        taken
    }

    /// Takes back what could not be written.
    pub(super) fn put_back(&mut self, records: Vec<Record>) {
        for record in records.into_iter().rev() {
            let lane = if is_few(&record) { &mut self.few } else { &mut self.many };
            lane.bytes += weight(&record);
            lane.records.push_front(record);
        }
        let lost = self.few.shrink() + self.many.shrink();
        self.note_lost(lost);
    }

    fn note_lost(&mut self, lost: u64) {
        self.lost += lost;
        self.lost_ever += lost;
    }

    /// Records that the file has refused are lost, too; they are told of at once.
    pub(super) fn note_refused(&mut self, refused: u64) {
        self.lost_ever += refused;
    }

    /// Returns how many were lost since the start.
    pub(super) fn lost_ever(&self) -> u64 {
        self.lost_ever
    }

    /// Whether something waits that should not wait for more.
    pub(super) fn is_urgent(&self) -> bool {
        !self.few.records.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.few.records.is_empty() && self.many.records.is_empty()
    }

    /// Returns a copy of everything, to look for something in it.
    pub(super) fn copy(&self) -> Vec<Record> {
        self.few.records.iter().chain(&self.many.records).cloned().collect()
    }

    pub(super) fn has_lost(&self) -> bool {
        self.lost > 0
    }

    /// Returns how many were lost, and begins to count anew.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

impl Lane {
    fn take(&mut self, count: usize) -> Vec<Record> {
        let count = count.min(self.records.len());
        let taken: Vec<Record> = self.records.drain(..count).collect();
        self.bytes -= taken.iter().map(weight).sum::<usize>();
        if self.records.is_empty() {
            // Room that was needed once is given back.
            self.records = VecDeque::new();
        }
        taken
    }

    /// Drops the oldest that have no room.
    fn shrink(&mut self) -> u64 {
        let mut lost = 0;
        while self.bytes > MAX_BYTES {
            let Some(record) = self.records.pop_front() else { break };
            self.bytes -= weight(&record);
            lost += 1;
        }
        lost
    }
}

fn is_few(record: &Record) -> bool {
    match record {
        Record::Asked(_) | Record::Told { .. } | Record::InProgress { .. } => true,
        Record::RemedyOver { .. } => true,
        Record::Checked { .. } | Record::Sampled { .. } => false,
    }
}

/// Roughly what a record takes in memory, with what its values point to.
fn weight(record: &Record) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let more = match record {
        Record::Asked(asked) => {
            let texts = text(&asked.executable) + text(&asked.reason);
            asked.user.len() + asked.request.len() + asked.outcome.len() + texts
        }
        // A finding has a list of facts, nothing else more than a sentence.
        Record::Told { .. } => 512,
        Record::InProgress { incidents, .. } => incidents.len() * 8,
        Record::Checked { detail, .. } => detail.len(),
        Record::Sampled { series, .. } => series.len(),
        Record::RemedyOver { what, .. } => what.len(),
    };
    size_of::<Record>() + more
}

fn clip(record: &mut Record) {
    match record {
        Record::Asked(asked) => {
            clip_text(&mut asked.request, MAX_TEXT);
            clip_text(&mut asked.outcome, MAX_TEXT);
        }
        Record::Checked { detail, .. } => clip_text(detail, MAX_DETAIL),
        Record::Told { .. } | Record::InProgress { .. } => {}
        Record::Sampled { .. } | Record::RemedyOver { .. } => {}
    }
}

fn clip_text(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::history::Asked;
    use crate::time::Wall;

    fn asked(request: &str) -> Record {
        Record::Asked(Asked {
            at: Wall(1),
            uid: Some(0),
            user: "root".into(),
            pid: Some(1),
            executable: None,
            request: request.into(),
            reason: None,
            outcome: "1 done".into(),
        })
    }

    fn sample(number: i32) -> Record {
        Record::Sampled { at: Wall(i64::from(number)), series: "x".into(), value: 0.0 }
    }

    #[test]
    fn many_numbers_push_out_no_request_and_the_newest_stay() {
        let mut waiting = Waiting::default();
        waiting.push(sample(-1));
        assert!(!waiting.is_urgent());
        waiting.push(asked("stop web"));
        assert!(waiting.is_urgent());
        let count = 100_000;
        for number in 0..count {
            waiting.push(sample(number));
        }
        let all = waiting.copy();
        assert_eq!(all[0], asked("stop web"));
        assert_eq!(all.last(), Some(&sample(count - 1)));
        assert!(all.len() > 1_000);
        assert_eq!(waiting.take_lost(), u64::try_from(count).unwrap() + 2 - all.len() as u64);
        assert!(!waiting.has_lost());
        assert_eq!(waiting.lost_ever(), u64::try_from(count).unwrap() + 2 - all.len() as u64);
        assert_eq!(waiting.take(usize::MAX), all);
        assert!(waiting.is_empty());
        assert_eq!((waiting.few.bytes, waiting.many.bytes), (0, 0));
    }

    #[test]
    fn what_is_put_back_comes_first_again() {
        let mut waiting = Waiting::default();
        for record in [asked("a"), sample(1), asked("b"), sample(2)] {
            waiting.push(record);
        }
        let taken = waiting.take(3);
        assert_eq!(taken, [asked("a"), asked("b"), sample(1)]);
        waiting.push(asked("c"));
        waiting.put_back(taken);
        assert_eq!(waiting.copy(), [asked("a"), asked("b"), asked("c"), sample(1), sample(2)]);
    }

    #[test]
    fn a_request_with_a_thousand_names_is_cut() {
        let mut waiting = Waiting::default();
        waiting.push(asked(&"ä".repeat(1 << 20)));
        let Some(Record::Asked(cut)) = waiting.take(1).pop() else { panic!("it is there") };
        assert!(cut.request.len() <= MAX_TEXT + '…'.len_utf8());
        assert!(cut.request.ends_with("ä…"));
    }
}
