//! Standard output: text, tables for people, JSON for machines.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::clock::UnixMillis;

/// Prints text. A reader that stopped reading (`| head`) is no error.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Columns as wide as their widest cell. Control characters cannot get in: names and reasons are checked or ours.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().fold(line(head), |text, row| {
        text + &line(row.each_ref().map(String::as_str))
    })
}

/// A time for people: `in 3h 20m`, `5m ago`, `now`.
pub fn relative(time: UnixMillis, now: UnixMillis) -> String {
    if time > now {
        let text = span(time.since(now));
        if text == "0s" {
            "now".to_owned()
        } else {
            format!("in {text}")
        }
    } else {
        let text = span(now.since(time));
        if text == "0s" {
            "now".to_owned()
        } else {
            format!("{text} ago")
        }
    }
}

/// The two largest units.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(minutes, "m", seconds % 60, "s"),
        3600..86400 => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
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
    }

    #[test]
    fn times_read_well() {
        let now = UnixMillis(1_790_000_000_000);
        for (seconds, text) in [
            (0, "now"),
            (59, "in 59s"),
            (90, "in 1m 30s"),
            (3600, "in 1h"),
            (100_000, "in 1d 3h"),
            (-7300, "2h 1m ago"),
        ] {
            assert_eq!(relative(UnixMillis(now.0 + seconds * 1000), now), text);
        }
    }
}
