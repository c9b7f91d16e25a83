//! `refresher usage`: what requests used, for people and for machines.

use clap::{Args, ValueEnum};
use serde::Serialize;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::output::{print, print_json, table};
use super::{Context, Error};
use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::store::{By, EnvoyRequests, Sums};

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The furthest that `--since` reaches back in days: requests are kept for less.
const MAX_DAYS: i64 = 100_000;

/// `refresher usage`.
#[derive(Debug, Args)]
pub struct Show {
    /// What to sum requests up by
    #[arg(long, value_enum, default_value_t = Group::Account)]
    by: Group,
    /// From when on: so many days or hours ago (7d, 12h), or a date (2026-08-01, UTC)
    #[arg(long, value_name = "WHEN", default_value = "7d", value_parser = since)]
    since: Since,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

/// What `--by` takes.
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

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// So many milliseconds ago.
    Ago(i64),
    /// A day's beginning.
    Time(UnixMillis),
}

fn since(text: &str) -> Result<Since, String> {
    let ago = |digits: &str, unit: i64| {
        let number: i64 = digits.parse().ok()?;
        (1..=MAX_DAYS)
            .contains(&number)
            .then(|| Since::Ago(number * unit))
    };
    let found = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((digits, "d")) => ago(digits, DAY_MS),
        Some((digits, "h")) => ago(digits, HOUR_MS),
        _ => Date::parse(text, DATE).ok().map(|date| {
            let seconds = date.midnight().assume_utc().unix_timestamp();
            Since::Time(UnixMillis(seconds.saturating_mul(1000)))
        }),
    };
    found.ok_or_else(|| {
        "expected days or hours ago, like 7d or 12h, or a date like 2026-08-01".to_owned()
    })
}

/// One line of what is shown.
#[derive(Debug, Serialize)]
struct Row {
    /// The id of the key or account, the model or the day; none where the requests have none.
    group: Option<String>,
    /// The name of the key or account.
    name: Option<String>,
    requests: u64,
    failed: u64,
    input: u64,
    cached_input: u64,
    output: u64,
    reasoning: u64,
    total: u64,
    /// How many requests' tokens are estimates.
    estimates: u64,
}

impl From<Sums> for Row {
    fn from(sums: Sums) -> Row {
        Row {
            group: sums.group,
            name: sums.name,
            requests: sums.requests,
            failed: sums.failed,
            input: sums.input,
            cached_input: sums.cached_input,
            output: sums.output,
            reasoning: sums.reasoning,
            total: sums.total,
            estimates: sums.estimates,
        }
    }
}

impl Row {
    /// The sum of all rows.
    fn all(rows: &[Row]) -> Row {
        let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum();
        Row {
            group: None,
            name: Some("all".to_owned()),
            requests: sum(|row| row.requests),
            failed: sum(|row| row.failed),
            input: sum(|row| row.input),
            cached_input: sum(|row| row.cached_input),
            output: sum(|row| row.output),
            reasoning: sum(|row| row.reasoning),
            total: sum(|row| row.total),
            estimates: sum(|row| row.estimates),
        }
    }

    fn cells(&self, by: Group) -> [String; 8] {
        let nobody = match by {
            Group::Account => "(the gateway itself)",
            Group::Key | Group::Model | Group::Day => "(unknown)",
        };
        // Models are named by platforms and callers: whatever they hold, a line stays a line.
        let name = self.name.as_ref().or(self.group.as_ref());
        let name = name.map_or(nobody.to_owned(), |name| {
            name.replace(|character: char| character.is_control(), "?")
        });
        let mark = if self.estimates > 0 { "~" } else { "" };
        let marked = |number: u64| format!("{mark}{}", grouped(number));
        [
            name,
            grouped(self.requests),
            grouped(self.failed),
            marked(self.input),
            grouped(self.cached_input),
            marked(self.output),
            grouped(self.reasoning),
            marked(self.total),
        ]
    }
}

impl Show {
    /// Prints it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        let since = match self.since {
            Since::Ago(ago) => UnixMillis(SystemClock.now().0.saturating_sub(ago)),
            Since::Time(time) => time,
        };
        let (by, head) = match self.by {
            Group::Key => (By::Key, "KEY"),
            Group::Account => (By::Account, "ACCOUNT"),
            Group::Model => (By::Model, "MODEL"),
            Group::Day => (By::Day, "DAY (UTC)"),
        };
        let sums = context.store.usage(by, since).await?;
        let rows: Vec<Row> = sums.into_iter().map(Row::from).collect();
        let envoys = context.store.envoys(since, usize::MAX).await?;
        if self.json {
            let sum = |of: fn(&EnvoyRequests) -> u64| envoys.iter().map(of).sum::<u64>();
            let (begun, recorded) = (sum(|one| one.begun), sum(|one| one.recorded));
            return Ok(print_json(
                &serde_json::json!({ "since": since.0, "rows": rows, "begun": begun, "recorded": recorded }),
            )?);
        }
        print(&text(&rows, self.by, head, since))?;
        print(&unrecorded_text(
            envoys.iter().map(EnvoyRequests::unrecorded).sum(),
        ))?;
        Ok(())
    }
}

/// The table, and what its marks mean.
fn text(rows: &[Row], by: Group, head: &str, since: UnixMillis) -> String {
    let from = OffsetDateTime::from_unix_timestamp(since.0.div_euclid(1000))
        .ok()
        .and_then(|time| {
            time.format(format_description!("[year]-[month]-[day] [hour]:[minute]"))
                .ok()
        })
        .unwrap_or_default();
    if rows.is_empty() {
        return format!("No requests since {from} UTC.\n");
    }
    let all = Row::all(rows);
    let shown = rows.iter().chain((rows.len() > 1).then_some(&all));
    let mut cells: Vec<[String; 8]> = shown.map(|row| row.cells(by)).collect();
    let mut heads = [
        "",
        "REQUESTS",
        "FAILED",
        "INPUT",
        "CACHED",
        "OUTPUT",
        "REASONING",
        "TOTAL",
    ]
    .map(str::to_owned);
    heads[0] = head.to_owned();
    // Numbers stand at the right of their columns.
    for column in 1..heads.len() {
        let width = |cell: &String| cell.chars().count();
        let widest = cells.iter().map(|row| width(&row[column])).max();
        let widest = widest.unwrap_or(0).max(width(&heads[column]));
        for cell in cells
            .iter_mut()
            .map(|row| &mut row[column])
            .chain([&mut heads[column]])
        {
            *cell = format!("{cell:>widest$}");
        }
    }
    let mut text = format!("Since {from} UTC, tokens:\n\n");
    text += &table(heads.each_ref().map(String::as_str), &cells);
    if all.estimates > 0 {
        text += &format!(
            "\n~ In part estimated from the length of requests and answers: {} of {} requests.\n",
            grouped(all.estimates),
            grouped(all.requests),
        );
    }
    text
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
    fn since_takes_spans_and_dates() {
        assert_eq!(since("7d"), Ok(Since::Ago(7 * DAY_MS)));
        assert_eq!(since("12h"), Ok(Since::Ago(12 * HOUR_MS)));
        let day = Since::Time(UnixMillis(1_785_542_400_000));
        assert_eq!(since("2026-08-01"), Ok(day));
        for bad in [
            "",
            "d",
            "7",
            "0d",
            "-1d",
            "7w",
            "2026-13-01",
            "99999999999d",
            "é",
        ] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }

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
        let row = |group: Option<&str>, name: Option<&str>, requests, estimates| Row {
            group: group.map(str::to_owned),
            name: name.map(str::to_owned),
            requests,
            failed: 1,
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

ACCOUNT               REQUESTS  FAILED    INPUT  CACHED  OUTPUT  REASONING    TOTAL
alice                       12       1  ~14,400       0     ~30          5  ~14,430
acc_2?                       1       1    1,200       0      30          5    1,230
(the gateway itself)         3       1    3,600       0      30          5    3,630
all                         16       3  ~19,200       0     ~90         15  ~19,290

~ In part estimated from the length of requests and answers: 2 of 16 requests.
";
        let since = UnixMillis(1_785_542_400_000);
        assert_eq!(text(&rows, Group::Account, "ACCOUNT", since), expected);
        let nothing = text(&[], Group::Day, "DAY", since);
        assert_eq!(nothing, "No requests since 2026-08-01 00:00 UTC.\n");
        assert_eq!(unrecorded_text(0), "");
        assert!(unrecorded_text(1).starts_with("\n1 more request began"));
        assert!(unrecorded_text(1_200).starts_with("\n1,200 more requests began"));
    }
}
