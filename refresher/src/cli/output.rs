//! The output of commands: text, tables for people, JSON for machines.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, Table, Width as Columns, presets,
};
use latchkey::snapshot::{ModelPattern, Models};
use serde::Serialize;

/// Standard output and standard error, or what stands in for them. Clones are the same ones.
#[derive(Clone)]
pub struct Out {
    answers: Sink,
    notes: Sink,
    width: Width,
    /// Notes go to a terminal, where a line can be written over.
    is_live: bool,
}

type Sink = Arc<Mutex<Box<dyn Write + Send>>>;

impl Out {
    /// Standard output and standard error.
    pub fn standard() -> Out {
        Out {
            width: Width::standard(),
            is_live: io::stderr().is_terminal(),
            ..Out::new(io::stdout(), io::stderr())
        }
    }

    /// The width of the answers.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Answers go to the one, notes to the other.
    pub fn new(answers: impl Write + Send + 'static, notes: impl Write + Send + 'static) -> Out {
        Out {
            answers: Arc::new(Mutex::new(Box::new(answers))),
            notes: Arc::new(Mutex::new(Box::new(notes))),
            width: Width::default(),
            is_live: false,
        }
    }

    /// The same, whose notes go to a terminal.
    #[cfg(test)]
    pub fn on_a_terminal(self) -> Out {
        Out {
            is_live: true,
            ..self
        }
    }

    /// Writes over the line that was shown last, where a terminal shows it; an empty text takes it off.
    pub fn show(&self, text: &str) {
        if self.is_live {
            let mut out = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            let shown = write!(out, "\r{text}\x1b[K").and_then(|()| out.flush());
            // Nobody is left to be told that nobody reads.
            let _ = shown;
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

    /// Prints something beside the answer, on standard error, for a person.
    pub fn note(&self, text: &str) {
        let mut out = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is left to be told that nobody reads.
        let _ = writeln!(out, "{text}");
    }
}

/// A line about one thing: its name, and what it is.
pub fn line(name: &str, value: &str) -> String {
    format!("  {name:10}  {value}\n")
}

/// A list of models for people.
pub fn models(models: &Models) -> String {
    let patterns: Vec<&str> = models.patterns().iter().map(ModelPattern::as_str).collect();
    match models.is_all() {
        true => "all".to_owned(),
        false => patterns.join(", "),
    }
}

/// Returns what is to be said of some of those in a table, a line each, beneath it.
pub fn beneath(said: &[(&str, String)]) -> String {
    let lines = said.iter().map(|(name, text)| format!("{name}: {text}\n"));
    let lines: String = lines.collect();
    match lines.is_empty() {
        true => lines,
        false => format!("\n{lines}"),
    }
}

/// `text`, or the word for nothing.
pub fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// The columns of characters that a reader has; none where nobody says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Width(Option<u16>);

impl Width {
    /// The narrowest in which a table can be read. In less, lines are as long as they are.
    const LEAST: u16 = 40;

    /// `columns` (`$COLUMNS`) where it says a number, else what the terminal says.
    pub fn of(columns: Option<&str>, terminal: Option<u16>) -> Width {
        let said = columns.and_then(|text| text.trim().parse().ok());
        Width(said.or(terminal).filter(|width| *width >= Width::LEAST))
    }

    /// The width of standard output.
    fn standard() -> Width {
        let terminal = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let columns = std::env::var("COLUMNS").ok();
        Width::of(columns.as_deref(), terminal.map(|size| size.ws_col))
    }
}

/// Columns as wide as their widest cell, or as `width` allows, two blanks between them; where a word would have to be
/// broken for that, a block of lines for each row. Control characters cannot get
/// in: names and reasons are checked or ours.
pub fn table<const N: usize>(width: Width, head: [&str; N], rows: &[[String; N]]) -> String {
    aligned(width, head, rows, CellAlignment::Left)
}

/// A table whose columns but the first are numbers, at the right of their columns.
pub fn table_of_numbers<const N: usize>(
    width: Width,
    head: [&str; N],
    rows: &[[String; N]],
) -> String {
    aligned(width, head, rows, CellAlignment::Right)
}

fn aligned<const N: usize>(
    width: Width,
    head: [&str; N],
    rows: &[[String; N]],
    alignment: CellAlignment,
) -> String {
    let words = longest_words(&head, rows);
    if let Some(most) = width.0
        && words.iter().map(|word| word + GAP).sum::<usize>() > usize::from(most) + GAP
    {
        return blocks(&head, rows);
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(match width.0 {
            Some(_) => ContentArrangement::Dynamic,
            None => ContentArrangement::Disabled,
        })
        .set_header(head)
        .add_rows(rows);
    if let Some(width) = width.0 {
        table.set_width(width);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let right = if index + 1 == N { 0 } else { GAP };
        column.set_padding((0, u16::try_from(right).unwrap_or_default()));
        if let Some(word) = words.get(index)
            && let Ok(least) = u16::try_from(word + right)
        {
            column.set_constraint(ColumnConstraint::LowerBoundary(Columns::Fixed(least)));
        }
        if index > 0 {
            column.set_cell_alignment(alignment);
        }
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// The blanks between two columns.
const GAP: usize = 2;

/// The characters of the longest word of each column.
fn longest_words<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> [usize; N] {
    std::array::from_fn(|index| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let cells = cells.map(String::as_str).chain(head.get(index).copied());
        let words = cells.flat_map(str::split_whitespace);
        words.map(|word| word.chars().count()).max().unwrap_or(1)
    })
}

/// The rows one after the other, a line for each cell that is not empty.
fn blocks<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> String {
    let widest = head.iter().map(|title| title.chars().count()).max();
    let widest = widest.unwrap_or_default();
    let block = |row: &[String; N]| -> String {
        let cells = head.iter().zip(row);
        let cells = cells.filter(|(_, cell)| !cell.is_empty());
        cells
            .map(|(title, cell)| format!("{title:widest$}  {cell}\n"))
            .collect()
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_width_breaks_a_word() {
        let rows = [
            [
                "alice@example.test",
                "needs login",
                "default, paid-last",
                "acc_NSDSPEWRUKZOHLCU",
            ],
            ["team", "active", "default", "acc_7PZQYMH5T6BLV46L"],
        ]
        .map(|row| row.map(str::to_owned));
        let head = ["ACCOUNT", "STATUS", "POOLS", "ID"];
        for columns in 40..120 {
            let text = table(Width(Some(columns)), head, &rows);
            for word in rows
                .iter()
                .flatten()
                .flat_map(|cell| cell.split_whitespace())
            {
                assert!(text.contains(word), "{columns}: {word} in\n{text}");
            }
            let longest = text.lines().map(str::len).max().unwrap_or_default();
            assert!(longest <= usize::from(columns), "{columns}:\n{text}");
        }
        assert_eq!(
            table(Width(Some(40)), head, &rows[1..]),
            "ACCOUNT  team\nSTATUS   active\nPOOLS    default\nID       acc_7PZQYMH5T6BLV46L\n"
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            ["a".to_owned(), "long cell".to_owned()],
            ["bbb".to_owned(), String::new()],
        ];
        assert_eq!(
            table(Width::default(), ["X", "Y"], &rows),
            "X    Y\na    long cell\nbbb\n"
        );
        let rows = [
            ["a".to_owned(), "12".to_owned(), "1,234".to_owned()],
            ["bbb".to_owned(), "3".to_owned(), "5".to_owned()],
        ];
        assert_eq!(
            table_of_numbers(Width::default(), ["X", "Y", "Z"], &rows),
            "X     Y      Z\na    12  1,234\nbbb   3      5\n"
        );
    }

    #[test]
    fn a_table_is_as_wide_as_its_reader() {
        let words = "some words that go on ".repeat(9);
        let rows = [["a".to_owned(), words.clone()]];
        let longest = |text: String| text.lines().map(str::len).max().unwrap_or_default();
        for (columns, terminal, most) in [
            (Some("60"), None, 60),
            (Some("60"), Some(100), 60),
            (None, Some(100), 100),
            (Some("wide"), Some(100), 100),
            (Some("0"), None, 300),
            (None, None, 300),
        ] {
            let width = Width::of(columns, terminal);
            let found = longest(table(width, ["X", "Y"], &rows));
            assert!(found <= most, "{columns:?} {terminal:?}: {found}");
            assert!(most == 300 || found > most / 2, "{found}");
        }
        assert!(longest(table(Width::default(), ["X", "Y"], &rows)) > words.len());
    }
}
