//! Columns that fit the terminal and never wrap.

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::printer::paint;

const GAP: usize = 2;
/// A last column narrower than this says nothing and is left out.
const LEAST_USEFUL: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    pub align: Align,
    /// The column with the highest number is the first to go when the terminal is too narrow;
    /// 0 stays and is cut instead.
    pub dispensable: u8,
}

#[derive(Debug, Clone)]
pub struct Cell {
    pub text: String,
    pub style: Style,
}

impl Cell {
    /// Takes one line of text; control characters become spaces.
    pub fn new(text: impl Into<String>, style: Style) -> Self {
        let text: String = text.into();
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        Self { text: text.chars().map(clean).collect(), style }
    }

    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Style::new())
    }
}

/// Lays out rows of cells; the last column takes the room that is left.
#[derive(Debug)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Returns the text, each line ended by `\n` and at most `width` columns wide.
    pub fn render(&self, width: Option<usize>, color: bool, unicode: bool) -> String {
        let (shown, widths) = self.layout(width);
        let mut text = String::new();
        let titles: Vec<Cell> =
            self.columns.iter().map(|c| Cell::new(c.title, Style::new().bold())).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            self.render_row(&mut text, row, &shown, &widths, color, unicode);
        }
        text
    }

    /// Chooses the columns to show and their widths.
    fn layout(&self, limit: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let natural = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].text.width());
            cells.chain([self.columns[index].title.width()]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(natural).collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(limit) = limit else { return (shown, widths) };
        loop {
            let gaps = GAP * shown.len().saturating_sub(1);
            let total = shown.iter().map(|index| widths[*index]).sum::<usize>() + gaps;
            if total <= limit {
                return (shown, widths);
            }
            let excess = total - limit;
            let last = self.columns.len() - 1;
            if shown.contains(&last) && widths[last] >= excess + LEAST_USEFUL {
                widths[last] -= excess;
                return (shown, widths);
            }
            let victim = shown
                .iter()
                .copied()
                .filter(|index| self.columns[*index].dispensable > 0)
                .max_by_key(|index| self.columns[*index].dispensable);
            let Some(victim) = victim else {
                cut_widest(&shown, &mut widths, limit);
                return (shown, widths);
            };
            shown.retain(|index| *index != victim);
        }
    }

    fn render_row(
        &self,
        text: &mut String,
        row: &[Cell],
        shown: &[usize],
        widths: &[usize],
        color: bool,
        unicode: bool,
    ) {
        let start = text.len();
        let mut pending = 0;
        for (place, index) in shown.iter().copied().enumerate() {
            let cell = &row[index];
            let cut = cut(&cell.text, widths[index], unicode);
            let room = widths[index] - cut.width();
            let (before, after) = match self.columns[index].align {
                Align::Left => (0, room),
                Align::Right => (room, 0),
            };
            if place > 0 {
                pending += GAP;
            }
            pending += before;
            if !cut.is_empty() {
                text.push_str(&" ".repeat(pending));
                pending = 0;
                text.push_str(&paint(color, cell.style, &cut));
            }
            pending += after;
        }
        debug_assert!(!text[start..].contains('\n'), "a cell is one line");
        text.push('\n');
    }
}

/// Takes the excess from the widest columns when none may go.
fn cut_widest(shown: &[usize], widths: &mut [usize], limit: usize) {
    let gaps = GAP * shown.len().saturating_sub(1);
    loop {
        let total = shown.iter().map(|index| widths[*index]).sum::<usize>() + gaps;
        let widest = shown.iter().copied().max_by_key(|index| widths[*index]);
        match widest {
            Some(widest) if total > limit && widths[widest] > 1 => widths[widest] -= 1,
            Some(_) | None => return,
        }
    }
}

/// Cuts `text` to `width` columns, marking the cut.
pub fn cut(text: &str, width: usize, unicode: bool) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mark = if unicode { "…" } else { "~" };
    let mut kept = String::new();
    let mut used = mark.width();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    if width > 0 {
        kept.push_str(mark);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |title, align, dispensable| Column { title, align, dispensable };
        let row = |cells: [&str; 4]| cells.map(Cell::plain).to_vec();
        Table {
            columns: vec![
                column("NAME", Align::Left, 0),
                column("STATE", Align::Left, 0),
                column("PID", Align::Right, 1),
                column("DETAIL", Align::Left, 2),
            ],
            rows: vec![
                row(["web:0", "* RUNNING", "12345", ""]),
                row(["a-long-name", "x FATAL", "", "exited with code 3, 5 times"]),
            ],
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        let expected = "\
NAME         STATE        PID  DETAIL
web:0        * RUNNING  12345
a-long-name  x FATAL           exited with code 3, 5 times
";
        assert_eq!(table().render(None, false, false), expected);
    }

    #[test]
    fn the_last_column_is_cut_first() {
        let expected = "\
NAME         STATE        PID  DETAIL
web:0        * RUNNING  12345
a-long-name  x FATAL           exited wi…
";
        assert_eq!(table().render(Some(41), false, true), expected);
    }

    #[test]
    fn then_columns_go_and_at_last_names_are_cut() {
        let expected = "\
NAME         STATE        PID
web:0        * RUNNING  12345
a-long-name  x FATAL
";
        assert_eq!(table().render(Some(30), false, false), expected);
        let expected = "\
NAME       STATE
web:0      * RUNNING
a-long-n~  x FATAL
";
        assert_eq!(table().render(Some(20), false, false), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut table = table();
        table.rows[0][3] = Cell::plain("日本語のテキスト, wide characters\nand a line end");
        for width in 6..90 {
            for line in table.render(Some(width), false, true).lines() {
                assert!(line.width() <= width, "{line:?} is wider than {width}");
            }
        }
    }

    #[test]
    fn colour_changes_no_position() {
        let mut table = table();
        table.rows[0][1].style = Style::new().bold();
        let plain = anstream::adapter::strip_str(&table.render(Some(41), true, true)).to_string();
        assert_eq!(plain, table.render(Some(41), false, true));
    }
}
