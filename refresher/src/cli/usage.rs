//! `refresher usage`: what requests used, for people and for machines.

use clap::{Args, ValueEnum};

use super::output::{Width, table_of_numbers};
use super::time::{NotATime, When, minute};
use super::{Context, Error, Result};
use crate::app::usage::{self, Report};
use crate::clock::UnixMillis;
use crate::store::{By, Sums};

/// `refresher usage`.
#[derive(Debug, Args)]
pub struct Show {
    /// The groups to sum requests up by
    #[arg(long, value_enum, default_value_t = Group::Account)]
    by: Group,
    /// From when on: a time ago (7d, 12h), a day (2026-08-01, UTC) or a moment (2026-08-01T12:00:00Z)
    #[arg(long, value_name = "WHEN", default_value = "7d", value_parser = since, allow_hyphen_values = true)]
    since: When,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

/// The values of `--by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The client key that requests came with
    Key,
    /// The account that served them
    Account,
    /// The model
    Model,
    /// The day, in UTC
    Day,
}

fn since(text: &str) -> std::result::Result<When, String> {
    text.parse().map_err(|error| match error {
        NotATime::NoSuchDay => format!("expected a day that exists; found {text:?}"),
        NotATime::Else => format!(
            "expected a time ago (7d, 12h), a day (2026-08-01) or a moment (2026-08-01T12:00:00Z); found {text:?}"
        ),
    })
}

/// The sum of all rows.
fn all(rows: &[Sums]) -> Sums {
    let sum = |of: fn(&Sums) -> u64| rows.iter().map(of).sum();
    Sums {
        group: None,
        name: Some("all".to_owned()),
        requests: sum(|row| row.requests),
        failed: sum(|row| row.failed),
        caller_left: sum(|row| row.caller_left),
        input: sum(|row| row.input),
        cached_input: sum(|row| row.cached_input),
        output: sum(|row| row.output),
        reasoning: sum(|row| row.reasoning),
        total: sum(|row| row.total),
        estimates: sum(|row| row.estimates),
    }
}

fn cells(row: &Sums, by: Group) -> [String; 9] {
    let nobody = match by {
        Group::Account => "(the gateway itself)",
        Group::Key | Group::Model | Group::Day => "(unknown)",
    };
    // Models are named by platforms and callers: whatever they hold, a line stays a line.
    let name = row.name.as_ref().or(row.group.as_ref());
    let name = name.map_or(nobody.to_owned(), |name| {
        name.replace(|character: char| character.is_control(), "?")
    });
    let mark = if row.estimates > 0 { "~" } else { "" };
    let marked = |number: u64| format!("{mark}{}", grouped(number));
    [
        name,
        grouped(row.requests),
        grouped(row.failed),
        grouped(row.caller_left),
        marked(row.input),
        grouped(row.cached_input),
        marked(row.output),
        grouped(row.reasoning),
        marked(row.total),
    ]
}

impl Show {
    /// Prints it.
    ///
    /// # Errors
    /// If the operation comes to nothing.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let too_long = "expected --since as a time that calendars have; it is too long ago";
        let since = self.since.before(app.now());
        let since = since.ok_or_else(|| Error::Input(too_long.to_owned()))?;
        let (by, head) = match self.by {
            Group::Key => (By::Key, "KEY"),
            Group::Account => (By::Account, "ACCOUNT"),
            Group::Model => (By::Model, "MODEL"),
            Group::Day => (By::Day, "DAY (UTC)"),
        };
        let report = usage::report(app, by, since).await?;
        if self.json {
            return Ok(out.print_json(&report)?);
        }
        Ok(out.print(&text(&report, self.by, head, out.width()))?)
    }
}

/// The table, what its marks mean, and what it cannot show.
fn text(report: &Report, by: Group, head: &'static str, width: Width) -> String {
    let from = minute(UnixMillis(report.since));
    let unrecorded = unrecorded_text(report.unrecorded);
    let rows = &report.rows;
    if rows.is_empty() {
        return format!("No requests since {from}.\n{unrecorded}");
    }
    let all = all(rows);
    let shown = rows.iter().chain((rows.len() > 1).then_some(&all));
    let cells: Vec<[String; 9]> = shown.map(|row| cells(row, by)).collect();
    let heads = [
        head,
        "REQUESTS",
        "FAILED",
        "CALLER LEFT",
        "INPUT",
        "CACHED",
        "OUTPUT",
        "REASONING",
        "TOTAL",
    ];
    let mut text = format!("Since {from}, tokens:\n\n");
    text += &table_of_numbers(width, heads, &cells);
    if all.estimates > 0 {
        text += &format!(
            "\n~ In part estimated from the length of requests and answers: {} of {} requests.\n",
            grouped(all.estimates),
            grouped(all.requests),
        );
    }
    text + &unrecorded
}

/// Words the requests that began and that no record is there of.
fn unrecorded_text(requests: u64) -> String {
    match requests {
        0 => String::new(),
        1 => "\n1 more request began and is not recorded: it is under way, or ended with its Envoy.\n"
            .to_owned(),
        _ => format!(
            "\n{} more requests began and are not recorded: they are under way, or ended with their Envoy.\n",
            grouped(requests)
        ),
    }
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_table_reads_well() {
        let row = |group: Option<&str>, name: Option<&str>, requests, estimates| Sums {
            group: group.map(str::to_owned),
            name: name.map(str::to_owned),
            requests,
            failed: 1,
            caller_left: 2,
            input: 1_200 * requests,
            cached_input: 0,
            output: 30,
            reasoning: 5,
            total: 1_200 * requests + 30,
            estimates,
        };
        let rows = [
            row(Some("acc_1"), Some("alice"), 12, 2),
            row(Some("acc_2\n"), None, 1, 0),
            row(None, None, 3, 0),
        ];
        let expected = "\
Since 2026-08-01 00:00 UTC, tokens:

ACCOUNT               REQUESTS  FAILED  CALLER LEFT    INPUT  CACHED  OUTPUT  REASONING    TOTAL
alice                       12       1            2  ~14,400       0     ~30          5  ~14,430
acc_2?                       1       1            2    1,200       0      30          5    1,230
(the gateway itself)         3       1            2    3,600       0      30          5    3,630
all                         16       3            6  ~19,200       0     ~90         15  ~19,290

~ In part estimated from the length of requests and answers: 2 of 16 requests.
";
        let report = |rows| Report {
            since: 1_785_542_400_000,
            rows,
            begun: 0,
            recorded: 0,
            unrecorded: 0,
        };
        let found = text(
            &report(rows.into()),
            Group::Account,
            "ACCOUNT",
            Width::default(),
        );
        assert_eq!(found, expected);
        let nothing = text(&report(vec![]), Group::Day, "DAY", Width::default());
        assert_eq!(nothing, "No requests since 2026-08-01 00:00 UTC.\n");
        assert_eq!(unrecorded_text(0), "");
        assert!(unrecorded_text(1).starts_with("\n1 more request began"));
        assert!(unrecorded_text(1_200).starts_with("\n1,200 more requests began"));
    }
}
