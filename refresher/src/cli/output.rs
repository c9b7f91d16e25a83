//! The output of commands: text, tables for people, JSON for machines.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// Standard output and standard error, or what stands in for them. Clones are the same ones.
#[derive(Clone)]
pub struct Out {
    answers: Sink,
    notes: Sink,
}

type Sink = Arc<Mutex<Box<dyn Write + Send>>>;

impl Out {
    /// Standard output and standard error.
    pub fn standard() -> Out {
        Out::new(io::stdout(), io::stderr())
    }

    /// Answers go to the one, notes to the other.
    pub fn new(answers: impl Write + Send + 'static, notes: impl Write + Send + 'static) -> Out {
        Out {
            answers: Arc::new(Mutex::new(Box::new(answers))),
            notes: Arc::new(Mutex::new(Box::new(notes))),
        }
    }

    /// Prints text. A reader that stopped reading (`| head`) is no error.
    pub fn print(&self, text: &str) -> io::Result<()> {
        let mut out = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    /// Prints a value as JSON.
    pub fn print_json(&self, value: &impl Serialize) -> io::Result<()> {
        self.print(&format!("{}\n", serde_json::to_string_pretty(value)?))
    }

    /// Tells a person something beside the answer, on standard error.
    pub fn note(&self, text: &str) {
        let mut out = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is left to be told that nobody reads.
        let _ = writeln!(out, "{text}");
    }
}

/// Columns as wide as their widest cell, two blanks between them. Control characters cannot get in: names and reasons
/// are checked or ours.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    aligned(head, rows, CellAlignment::Left)
}

/// A table whose columns but the first are numbers, at the right of their columns.
pub fn table_of_numbers<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    aligned(head, rows, CellAlignment::Right)
}

fn aligned<const N: usize>(
    head: [&str; N],
    rows: &[[String; N]],
    alignment: CellAlignment,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head)
        .add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        let right = if index + 1 == N { 0 } else { 2 };
        column.set_padding((0, right));
        if index > 0 {
            column.set_cell_alignment(alignment);
        }
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            ["a".to_owned(), "long cell".to_owned()],
            ["bbb".to_owned(), String::new()],
        ];
        assert_eq!(table(["X", "Y"], &rows), "X    Y\na    long cell\nbbb\n");
        let rows = [
            ["a".to_owned(), "12".to_owned(), "1,234".to_owned()],
            ["bbb".to_owned(), "3".to_owned(), "5".to_owned()],
        ];
        assert_eq!(
            table_of_numbers(["X", "Y", "Z"], &rows),
            "X     Y      Z\na    12  1,234\nbbb   3      5\n"
        );
    }
}
