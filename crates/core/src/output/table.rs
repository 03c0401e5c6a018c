//! A plain table: columns as wide as their widest cell, numbers to the right, no frame.

use unicode_width::UnicodeWidthStr as _;

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
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: impl IntoIterator<Item = (&'static str, Align)>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells beyond the columns are dropped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, header first, without blanks at their ends.
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
}
