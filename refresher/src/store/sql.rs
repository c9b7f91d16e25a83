//! SQL that every database runs alike, and the ways from a column to a value.
//!
//! A statement has `$n` placeholders, stands in its module's `statements!`, and is prepared on SQLite, and on
//! PostgreSQL where that is installed, by `tests/statements.rs`. It uses what SQLite and PostgreSQL both have:
//! `ON CONFLICT`, `CASE` in place of scalar `max`, `CAST(sum(…) AS BIGINT)`, and integers for truth values, which are
//! compared (`= 1`) where a `bool` is read. What only one of them has stands in `sqlite/`.

use std::collections::BTreeSet;

use latchkey::dialect::Demands;
use latchkey::snapshot::{ModelMaps, Models};
use latchkey::verdict::{Scope, quota::Window};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Type};

use crate::failing::Failing;
use crate::limits::{LimitSettings, Setting};
use crate::probe::quota::Figure;

/// Names a module's statements, and lists them, so that a test can prepare each of them on every database.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* const $name: &str = $sql;)*
        /// Every statement of this module, by name.
        #[cfg(test)]
        pub(in crate::store) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// The columns of a [`LimitSettings`](crate::limits::LimitSettings), in the table of accounts and in that of client keys.
macro_rules! limit_columns {
    () => {
        "requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams, time_zone, day_starts"
    };
}

/// The columns of an [`OwnLimits`](crate::limits::OwnLimits), in the table of accounts.
macro_rules! own_limit_columns {
    () => {
        concat!(limit_columns!(), ", lifted")
    };
}

pub(super) use {limit_columns, own_limit_columns, statements};

/// A value that a column holds as JSON text.
pub(super) struct JsonText<T>(T);

impl<DB: Database, T> Type<DB> for JsonText<T>
where
    str: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        str::type_info()
    }

    fn compatible(ty: &DB::TypeInfo) -> bool {
        str::compatible(ty)
    }
}

impl<'r, DB: Database, T: DeserializeOwned> Decode<'r, DB> for JsonText<T>
where
    &'r str: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<JsonText<T>, BoxDynError> {
        Ok(JsonText(serde_json::from_str(<&str>::decode(value)?)?))
    }
}

/// Lets `#[sqlx(try_from = "JsonText<…>")]` read these types.
macro_rules! from_json_text {
    ($($type:ty),*) => {
        $(impl From<JsonText<$type>> for $type {
            fn from(text: JsonText<$type>) -> $type {
                text.0
            }
        })*
    };
}

from_json_text!(
    Models,
    ModelMaps,
    Demands,
    Scope,
    Vec<Window>,
    Vec<Figure>,
    LimitSettings,
    BTreeSet<Setting>,
    Option<Failing>
);

/// The JSON of a list, a map or a name, all of which always serialise.
pub(super) fn json_text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A `u64` as databases hold it, which have no unsigned integers.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
