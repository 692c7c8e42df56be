//! Tables for people: aligned columns, cut to the width of a terminal.

use std::io::{self, IsTerminal as _, Write};

use rustix::termios::tcgetwinsize;

use super::content::Failure;

/// Space between two columns.
const GAP: &str = "  ";

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// Rows below a heading, printed together.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows.
    pub(super) fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with one text for each column.
    pub(super) fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Prints to standard output; lines are cut only if that is a terminal.
    pub(super) fn print(&self) -> Result<(), Failure> {
        let output = io::stdout().lock();
        let width = output.is_terminal().then(|| tcgetwinsize(&output).ok()).flatten();
        let width = width.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        self.write(&mut io::BufWriter::new(output), width).map_err(Failure::unheard)
    }

    fn write(&self, output: &mut impl Write, limit: Option<usize>) -> io::Result<()> {
        let heading: Vec<String> =
            self.columns.iter().map(|column| column.heading().to_owned()).collect();
        let widths = self.widths(&heading);
        for row in std::iter::once(&heading).chain(&self.rows) {
            let cells = row.iter().zip(&self.columns).zip(&widths);
            let cells = cells.map(|((text, column), width)| column.align(text, *width));
            let line = cells.collect::<Vec<_>>().join(GAP);
            let line: String = line.chars().take(limit.unwrap_or(usize::MAX)).collect();
            writeln!(output, "{}", line.trim_end())?;
        }
        output.flush()
    }

    fn widths(&self, heading: &[String]) -> Vec<usize> {
        let width = |place: usize| {
            let rows = self.rows.iter().map(Vec::as_slice).chain([heading]);
            rows.filter_map(|row| row.get(place)).map(|text| text.chars().count()).max()
        };
        (0..heading.len()).map(|place| width(place).unwrap_or(0)).collect()
    }
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }

    fn align(self, text: &str, width: usize) -> String {
        match self {
            Column::Left(_) => format!("{text:<width$}"),
            Column::Right(_) => format!("{text:>width$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cut() {
        let mut table =
            Table::new(&[Column::Left("NAME"), Column::Right("SIZE"), Column::Left("NOTE")]);
        table.add(["a", "1", "first"].map(str::to_owned).to_vec());
        table.add(["longer", "12345", ""].map(str::to_owned).to_vec());
        let shown = |limit| {
            let mut output = Vec::new();
            table.write(&mut output, limit).unwrap();
            String::from_utf8(output).unwrap()
        };
        let whole = "NAME     SIZE  NOTE\na           1  first\nlonger  12345\n";
        assert_eq!(shown(None), whole);
        assert_eq!(shown(Some(8)), "NAME\na\nlonger\n");
    }
}
