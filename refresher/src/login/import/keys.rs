//! Lists of API keys: JSON objects with `name`, `platform` and `key`, or a table (CSV) with such columns. More of them are
//! `pool` and `base_url`; what others there are is kept for an export.

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::entry::{Entry, Form, Holds};
use super::fields::{Names, Place};
use super::{Error, object};

/// The names of a key.
pub const KEY: Names = &["key", "api_key", "apiKey"];
const NAME: Names = &["name"];
const PLATFORM: Names = &["platform"];
const POOL: Names = &["pool"];
const BASE_URL: Names = &["base_url", "baseUrl"];
/// The characters between two cells.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// The keys in a list that is `member` of the file, or the file itself.
pub fn list(
    list: Vec<Value>,
    member: &'static str,
    around: Option<Map<String, Value>>,
) -> Result<Vec<Entry>, Error> {
    let entries = list.into_iter().enumerate().map(|(index, one)| {
        let at = format!("{member}[{index}]");
        let entry = of(object(one, &at)?, &at, Form::Keys)?;
        Ok(Entry {
            around: around.clone(),
            ..entry
        })
    });
    entries.collect()
}

/// True if the first line of the text names columns, one of them a key's.
pub fn is_table(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    let delimiter = char::from(delimiter(first));
    let mut cells = first.split(delimiter).map(column);
    !first.trim_start().starts_with(['{', '[']) && cells.any(|cell| KEY.contains(&cell.as_str()))
}

/// The keys in a table.
pub fn table(text: &str) -> Result<Vec<Entry>, Error> {
    let first = text.lines().next().unwrap_or_default();
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter(first))
        .from_reader(text.as_bytes());
    let row_of = |error: &csv::Error| Error::Row {
        line: error.position().map_or(1, csv::Position::line),
    };
    let head = reader.headers().map_err(|error| row_of(&error))?;
    let columns: Vec<String> = head.iter().map(str::to_owned).collect();
    let rows = reader.into_records().map(|row| {
        let row = row.map_err(|error| row_of(&error))?;
        let at = format!("line {}", row.position().map_or(1, csv::Position::line));
        let entry = of(cells(&columns, &row), &at, Form::Csv)?;
        Ok(Entry {
            columns: columns.clone(),
            ..entry
        })
    });
    rows.collect()
}

/// A row as an object. Columns that we know have their name in it; others keep theirs.
fn cells(columns: &[String], row: &StringRecord) -> Map<String, Value> {
    let cells = columns.iter().zip(row);
    cells
        .map(|(name, cell)| (known(name), Value::from(cell)))
        .collect()
}

/// A column's name: one that is known, in any letters.
pub fn known(name: &str) -> String {
    let plain = column(name);
    let known = [NAME, PLATFORM, KEY, POOL, BASE_URL];
    let is_known = known.iter().any(|names| names.contains(&plain.as_str()));
    if is_known { plain } else { name.to_owned() }
}

fn column(cell: &str) -> String {
    cell.trim().trim_matches('"').to_ascii_lowercase()
}

fn delimiter(first: &str) -> u8 {
    let count = |delimiter: &u8| first.bytes().filter(|byte| byte == delimiter).count();
    DELIMITERS
        .into_iter()
        .max_by_key(|delimiter| (count(delimiter), *delimiter == b','))
        .unwrap_or(b',')
}

fn of(object: Map<String, Value>, at: &str, form: Form) -> Result<Entry, Error> {
    let place = Place::new(&object, at);
    let (name, pool) = (place.optional_name(NAME)?, place.optional_name(POOL)?);
    let (platform, base_url) = (place.optional(PLATFORM)?, place.optional(BASE_URL)?);
    Ok(Entry {
        at: at.to_owned(),
        name,
        pool,
        base_url,
        ..Entry::new(
            form,
            &platform.unwrap_or_default(),
            Holds::Key("", KEY),
            object,
        )
    })
}
