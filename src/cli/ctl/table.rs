//! Columns for people: left-aligned words, right-aligned numbers, two blanks between.

use std::io::{self, Write};

/// A table that is printed once it is whole.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    heads: [&'static str; N],
    rows: Vec<[Cell; N]>,
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    Number(u64),
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(heads: [&'static str; N]) -> Self {
        Self { heads, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: [Cell; N]) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = self.rows.iter().map(|row| row[column].to_string().chars().count());
            cells.chain([self.heads[column].len()]).max().unwrap_or(0)
        });
        let is_number: [bool; N] =
            std::array::from_fn(|column| self.rows.first().is_some_and(|row| matches!(row[column], Cell::Number(_))));
        let mut line = |cells: [String; N]| {
            let mut text = String::new();
            for ((cell, width), is_number) in cells.iter().zip(widths).zip(is_number) {
                let gap = " ".repeat(width - cell.chars().count());
                let (before, after) = if is_number { (gap.as_str(), "") } else { ("", gap.as_str()) };
                text.extend([before, cell, after, "  "]);
            }
            writeln!(out, "{}", text.trim_end())
        };
        line(self.heads.map(str::to_owned))?;
        self.rows.iter().try_for_each(|row| line(std::array::from_fn(|column| row[column].to_string())))
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        // What a proxy tells must not steer the terminal it is read on.
        Self::Text(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["POOL", "N", "SINCE"]);
        table.row(["a".into(), 7.into(), "now".into()]);
        table.row(["größer".into(), 1_234.into(), "\u{1b}[2J".into()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        POOL       N  SINCE
        a          7  now
        größer  1234  �[2J
        ");
    }
}
