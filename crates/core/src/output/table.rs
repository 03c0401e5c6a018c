//! A plain table: columns as wide as their widest cell, numbers to the right, no frame.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// Titles of the columns that are dropped if there is no room, the least needed one first.
    dispensable: Vec<&'static str>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: impl IntoIterator<Item = (&'static str, Align)>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
            dispensable: Vec::new(),
        }
    }

    /// Names the columns that are dropped if there is no room for all, the least needed one first.
    #[must_use]
    pub fn dropping(mut self, titles: impl IntoIterator<Item = &'static str>) -> Self {
        self.dispensable = titles.into_iter().collect();
        self
    }

    /// [`Table::lines`], with dispensable columns dropped until the lines have this width; lines that are still too
    /// long are cut.
    pub fn lines_within(&self, width: usize) -> Vec<String> {
        let mut table = self.clone();
        let mut dispensable = self.dispensable.iter();
        loop {
            let lines = table.lines();
            if lines.iter().all(|line| line.width() <= width) {
                return lines;
            }
            match dispensable.next() {
                Some(title) => table.drop_column(title),
                None => return lines.iter().map(|line| cut(line, width)).collect(),
            }
        }
    }

    fn drop_column(&mut self, title: &str) {
        let Some(at) = self.columns.iter().position(|(other, _)| *other == title) else {
            return;
        };
        self.columns.remove(at);
        for row in self.rows.iter_mut().filter(|row| at < row.len()) {
            row.remove(at);
        }
    }

    /// Adds a row; cells beyond the columns are dropped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, header first, without trailing blanks.
    pub fn lines(&self) -> Vec<String> {
        let header: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (title, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                cells.map(|cell| cell.width()).max().unwrap_or(0).max(title.width())
            })
            .collect();
        std::iter::once(&header)
            .chain(&self.rows)
            .map(|row| {
                let cells = row.iter().zip(&self.columns).zip(&widths);
                let line: Vec<String> = cells
                    .map(|((cell, (_, align)), width)| {
                        let blank = " ".repeat(width.saturating_sub(cell.width()));
                        match align {
                            Align::Left => format!("{cell}{blank}"),
                            Align::Right => format!("{blank}{cell}"),
                        }
                    })
                    .collect();
                line.join("  ").trim_end().to_owned()
            })
            .collect()
    }
}

/// The beginning of a line that fits, with a sign where it was cut.
fn cut(line: &str, width: usize) -> String {
    if line.width() <= width {
        return line.to_owned();
    }
    let mut used = 1;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    let kept: String = line.chars().take_while(fits).collect();
    format!("{}\u{2026}", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("IMAGE", Align::Left), ("SECONDS", Align::Right)]);
        table.row(["b\u{e4}se".to_owned(), "1.5".to_owned()]);
        table.row(["a-long-name".to_owned(), "12.0".to_owned()]);
        assert_eq!(
            table.lines(),
            [
                "IMAGE        SECONDS",
                "b\u{e4}se             1.5",
                "a-long-name     12.0"
            ]
        );
    }

    #[test]
    fn where_there_is_no_room_the_least_needed_columns_go_and_then_the_ends() {
        let mut table = Table::new([
            ("DOCK", Align::Left),
            ("STATE", Align::Left),
            ("MS", Align::Right),
            ("WHY", Align::Left),
        ])
        .dropping(["MS", "NONE", "STATE"]);
        table.row(["far", "running", "0.4", ""].map(str::to_owned));
        table.row(["gr\u{f6}\u{df}e", "unreachable", "-", "connection refused"].map(str::to_owned));
        assert_eq!(table.lines_within(80), table.lines());
        assert_eq!(
            table.lines_within(40),
            [
                "DOCK   STATE        WHY",
                "far    running",
                "gr\u{f6}\u{df}e  unreachable  connection refused"
            ]
        );
        assert_eq!(table.lines_within(25)[2], "gr\u{f6}\u{df}e  connection refused");
        assert_eq!(table.lines_within(12)[2], "gr\u{f6}\u{df}e  conn\u{2026}");
    }
}
