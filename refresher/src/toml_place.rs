//! The place at which a TOML text cannot be read, in words that quote nothing of it: a line may hold a secret that was put in
//! the wrong place.

use std::fmt;

/// The longest key that is shown; all of ours are shorter.
const MAX_KEY: usize = 32;

/// A place in a text, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Counts from 1.
    line: usize,
    /// Counts characters from 1.
    column: usize,
    problem: String,
}

impl Place {
    /// The place in `text` that an error is about.
    pub fn of(error: &toml::de::Error, text: &str) -> Place {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem: problem(error.message()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            line,
            column,
            problem,
        } = self;
        write!(formatter, "{line}:{column}: {problem}")
    }
}

/// Returns what an error's message says was expected, without what was found.
pub fn problem(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default().trim();
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (key, expected) = rest.split_once('`').unwrap_or_default();
        return match is_key(key) {
            true => message.to_owned(),
            false => format!("unknown field{expected}"),
        };
    }
    let quotes = [
        "invalid type",
        "invalid value",
        "invalid length",
        "unknown variant",
    ];
    if quotes.iter().any(|start| message.starts_with(start)) {
        return match message.rsplit_once(", expected ") {
            Some((_, expected)) => format!("expected {}", for_people(expected)),
            None => "expected another value".to_owned(),
        };
    }
    if message.starts_with("duplicate key") {
        return "expected each key once".to_owned();
    }
    message.to_owned()
}

/// The name of a type, as serde says it, in words.
fn for_people(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list, like [\"one\", \"two\"]",
        "a map" => "a table of keys and values",
        "a string" => "text in quotes",
        "a boolean" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i64" => "a whole number",
        other => other,
    }
}

/// Returns true if a text is the name of a key, and so no secret.
fn is_key(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only reading it matters")]
    struct Sample {
        number: Option<u8>,
        word: Option<Word>,
        table: Option<BTreeMap<String, u8>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Here,
        There,
    }

    #[test]
    fn a_place_says_what_was_expected_and_nothing_of_what_is_there() {
        const SECRET: &str = "sk-Sec, expected ret7";
        for (text, place) in [
            (
                format!("number = '{SECRET}'"),
                "1:10: expected a whole number that is not negative",
            ),
            (
                format!("\n  word = '{SECRET}'"),
                "2:10: expected `here` or `there`",
            ),
            (
                format!("number = 1\ntable = {{ a = '{SECRET}' }}"),
                "2:15: expected a whole number that is not negative",
            ),
            (SECRET.to_owned(), "1:"),
            (format!("number = {SECRET}"), "1:"),
            (format!("number = '{SECRET}"), "1:"),
            (
                format!("'{SECRET}' = 1"),
                "1:1: unknown field, expected one of `number`",
            ),
            (
                format!("'{SECRET}' = 1\n'{SECRET}' = 1"),
                "2:1: expected each key once",
            ),
            (
                "numbr = 1".to_owned(),
                "1:1: unknown field `numbr`, expected one of",
            ),
        ] {
            let error = toml::from_str::<Sample>(&text).unwrap_err();
            let shown = Place::of(&error, &text).to_string();
            assert!(shown.starts_with(place), "{text}: {shown}");
            assert!(
                !shown.contains("sk-") && !shown.contains("ret7"),
                "{text}: {shown}"
            );
        }
    }
}
