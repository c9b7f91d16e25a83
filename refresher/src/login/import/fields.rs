//! Fields of a credential file, by any of the names that programs give them. What is null or an empty text is not there.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Error;
use crate::clock::UnixMillis;

/// The names of a field, the one that an error names first.
pub type Names = &'static [&'static str];

pub const ACCESS: Names = &["access_token", "accessToken", "access"];
pub const REFRESH: Names = &["refresh_token", "refreshToken", "refresh"];
pub const ID: Names = &["id_token", "idToken"];
pub const ACCOUNT: Names = &[
    "account_id",
    "accountId",
    "chatgpt_account_id",
    "chatgptAccountId",
];
pub const ORGANIZATION: Names = &["organization_uuid", "organizationUuid", "org_uuid"];
pub const USER: Names = &["account_uuid", "accountUuid"];
pub const EMAIL: Names = &["email", "email_address"];
pub const CLIENT: Names = &["client_id", "clientId"];
pub const EXPIRES: Names = &[
    "expires_at",
    "expiresAt",
    "expired",
    "expires",
    "expiry_date",
];
pub const LAST_REFRESH: Names = &["last_refresh", "lastRefresh"];

/// Unix time up to here is in seconds, beyond it in milliseconds: the year 5138, and March of 1973.
pub const MAX_SECONDS: i64 = 100_000_000_000;

/// An object of the file, and its path for messages.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    object: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Place<'a> {
    pub fn new(object: &'a Map<String, Value>, path: &'a str) -> Place<'a> {
        Place { object, path }
    }

    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.object.get(name)
    }

    /// True if it has something under one of the names.
    pub fn has(self, names: Names) -> bool {
        self.find(names).1.is_some_and(|value| !is_nothing(value))
    }

    /// The path of a field: with the name that it has in the file.
    pub fn path(self, names: Names) -> String {
        let name = self.find(names).0;
        match self.path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// A string of visible ASCII, as tokens and ids are, not empty. Blanks and line ends around it are packing.
    pub fn text(self, names: Names) -> Result<String, Error> {
        let wrong = |found| Error::Field {
            field: self.path(names),
            expected: "a string of visible ASCII",
            found,
        };
        match self.find(names).1 {
            Some(Value::String(text)) => match text.trim() {
                "" => Err(wrong("an empty one")),
                text if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
                _ => Err(wrong("other characters in it")),
            },
            other => Err(wrong(kind(other))),
        }
    }

    /// The same, where there may be none.
    pub fn optional(self, names: Names) -> Result<Option<String>, Error> {
        self.has(names).then(|| self.text(names)).transpose()
    }

    /// A name of a person's making, where there is one: visible ASCII, and blanks within.
    pub fn optional_name(self, names: Names) -> Result<Option<String>, Error> {
        let Some(Value::String(text)) = self.find(names).1 else {
            return self.optional(names);
        };
        let text = text.trim();
        let fits = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        match text {
            "" => Ok(None),
            text if text.bytes().all(fits) => Ok(Some(text.to_owned())),
            _ => Err(Error::Field {
                field: self.path(names),
                expected: "visible ASCII",
                found: "other characters in it",
            }),
        }
    }

    /// The object at `name`, where there is one.
    pub fn object(self, name: &str, path: &'a str) -> Result<Option<Place<'a>>, Error> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Place { object, path })),
            other => Err(Error::Field {
                field: path.to_owned(),
                expected: "an object",
                found: kind(other),
            }),
        }
    }

    /// A time, where there is one.
    pub fn time(self, names: Names) -> Result<Option<UnixMillis>, Error> {
        if !self.has(names) {
            return Ok(None);
        }
        let value = self.find(names).1;
        let time = match value {
            Some(Value::Number(number)) => number.as_i64().and_then(of_number),
            Some(Value::String(text)) => of_text(text.trim()),
            _ => None,
        };
        time.map(Some).ok_or_else(|| Error::Field {
            field: self.path(names),
            expected: "a time like 2026-11-21T21:52:22Z, or a Unix time",
            found: match value {
                Some(Value::String(_)) => "another string",
                other => kind(other),
            },
        })
    }

    /// The name that the file has for one of these fields, and what is there.
    pub fn found(self, names: Names) -> Option<(&'static str, &'a Value)> {
        let (name, value) = self.find(names);
        Some((name, value.filter(|value| !is_nothing(value))?))
    }

    /// The first of the names that has something, or else the first of all.
    fn find(self, names: Names) -> (&'static str, Option<&'a Value>) {
        let mut found = names.iter().map(|name| (*name, self.object.get(*name)));
        let first = found.clone().next().unwrap_or_default();
        found
            .find(|(_, value)| value.is_some_and(|value| !is_nothing(value)))
            .unwrap_or(first)
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

fn of_text(text: &str) -> Option<UnixMillis> {
    match text.parse() {
        Ok(number) => of_number(number),
        Err(_) => {
            let time: Timestamp = text.parse().ok()?;
            Some(UnixMillis(time.as_millisecond().max(0)))
        }
    }
}

fn of_number(number: i64) -> Option<UnixMillis> {
    match number {
        ..0 => None,
        0..=MAX_SECONDS => Some(UnixMillis(number * 1_000)),
        _ => Some(UnixMillis(number)),
    }
}

pub fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}
