//! Many logs as one, in the order in which their lines arrived.

use std::collections::VecDeque;
use std::io;

use crate::time::Wall;

use super::read::{LogLine, LogReader};

/// Lines read ahead per log.
const AHEAD: usize = 16;

/// A line and the number of the log that it comes from, in the order given at the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedLine {
    pub source: usize,
    pub line: LogLine,
}

#[derive(Debug)]
struct Branch {
    reader: LogReader,
    ahead: VecDeque<LogLine>,
    /// The time of the last line that had one; a line without a time stays behind it.
    last: Wall,
}

impl Branch {
    fn head(&mut self) -> io::Result<Option<Wall>> {
        if self.ahead.is_empty() {
            self.ahead.extend(self.reader.next_lines(AHEAD)?);
        }
        Ok(self.ahead.front().map(|line| line.at.unwrap_or(self.last).max(self.last)))
    }
}

/// Reads several positioned [`LogReader`]s as one.
#[derive(Debug)]
pub struct MergedReader {
    branches: Vec<Branch>,
}

impl MergedReader {
    pub fn new(readers: Vec<LogReader>) -> Self {
        let branch = |reader| Branch { reader, ahead: VecDeque::new(), last: Wall::default() };
        Self { branches: readers.into_iter().map(branch).collect() }
    }

    /// Returns up to `max` complete lines of all logs, the oldest first, those of one log always
    /// in their order; none means that there are no more for now.
    ///
    /// # Errors
    ///
    /// When a log cannot be read.
    pub fn next_lines(&mut self, max: usize) -> io::Result<Vec<MergedLine>> {
        let mut lines = Vec::new();
        while lines.len() < max {
            let mut oldest: Option<(Wall, usize)> = None;
            for (source, branch) in self.branches.iter_mut().enumerate() {
                let head = branch.head()?;
                if let Some(at) = head
                    && oldest.is_none_or(|(than, _)| at < than)
                {
                    oldest = Some((at, source));
                }
            }
            let Some((at, source)) = oldest else { break };
            let branch = &mut self.branches[source];
            branch.last = at;
            lines.extend(branch.ahead.pop_front().map(|line| MergedLine { source, line }));
        }
        Ok(lines)
    }

    /// Returns the unfinished last lines, for when nobody waits for their ends.
    pub fn flush_partial(&mut self) -> Vec<MergedLine> {
        let partial = |(source, branch): (usize, &mut Branch)| {
            branch.reader.flush_partial().map(|line| MergedLine { source, line })
        };
        self.branches.iter_mut().enumerate().filter_map(partial).collect()
    }

    /// Returns the readers' cursors, each at the first line that was not returned yet, or at most
    /// some lines later when lines were read ahead.
    pub fn readers(&self) -> impl Iterator<Item = &LogReader> {
        self.branches.iter().map(|branch| &branch.reader)
    }
}
