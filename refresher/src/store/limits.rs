//! Limits and ends of accounts and client keys, and what was used of their days.

use std::num::{NonZeroU32, NonZeroU64};

use latchkey::id::Id;
use latchkey::limit::{Limits, Subject, SubjectKind, Used};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Change, Result, Store, corrupt, signed, unsigned};
use crate::clock::UnixMillis;

/// The columns of [`LimitSettings`] in both tables.
pub(super) const LIMIT_COLUMNS: &str =
    "requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams, time_zone";

/// What an account or a client key may use, and where its day begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// The limits.
    pub limits: Limits,
    /// The IANA name of the zone at whose midnight the day begins; UTC where there is none.
    pub time_zone: Option<String>,
}

/// What is to be changed; a field that is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitChanges {
    /// [`Limits::requests_per_minute`]
    pub requests_per_minute: Option<Option<NonZeroU32>>,
    /// [`Limits::tokens_per_minute`]
    pub tokens_per_minute: Option<Option<NonZeroU64>>,
    /// [`Limits::tokens_per_day`]
    pub tokens_per_day: Option<Option<NonZeroU64>>,
    /// [`Limits::concurrent_streams`]
    pub concurrent_streams: Option<Option<NonZeroU32>>,
    /// [`LimitSettings::time_zone`]
    pub time_zone: Option<Option<String>>,
}

/// What is to be changed about the terms of an account or a client key, or said about a new one's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Its limits.
    pub limits: LimitChanges,
    /// When it ends; `Some(None)` for never, `None` for as it is.
    pub ends_at: Option<Option<UnixMillis>>,
}

/// What one Envoy process has used of one subject's day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCount {
    /// Whose day.
    pub subject: Subject,
    /// Its first millisecond, Unix time.
    pub day_start: u64,
    /// The process; empty for those of long ago.
    pub instance: String,
    /// How much; `None` where there is to be no such row.
    pub used: Option<Used>,
}

impl LimitChanges {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == LimitChanges::default()
    }

    fn apply(&self, settings: &mut LimitSettings) {
        fn set<T: Clone>(to: &mut T, change: &Option<T>) {
            if let Some(new) = change {
                new.clone_into(to);
            }
        }
        let limits = &mut settings.limits;
        set(&mut limits.requests_per_minute, &self.requests_per_minute);
        set(&mut limits.tokens_per_minute, &self.tokens_per_minute);
        set(&mut limits.tokens_per_day, &self.tokens_per_day);
        set(&mut limits.concurrent_streams, &self.concurrent_streams);
        set(&mut settings.time_zone, &self.time_zone);
    }
}

/// Reads [`LIMIT_COLUMNS`].
pub(super) fn settings(row: &SqliteRow) -> Result<LimitSettings> {
    let number = |column: &'static str| {
        let value: Option<i64> = row.try_get(column)?;
        value.map(|value| unsigned(column, value)).transpose()
    };
    let small = |column: &'static str| -> Result<Option<NonZeroU32>> {
        let value = number(column)?.map(|value| u32::try_from(value).unwrap_or(u32::MAX));
        Ok(value.and_then(NonZeroU32::new))
    };
    Ok(LimitSettings {
        limits: Limits {
            requests_per_minute: small("requests_per_minute")?,
            tokens_per_minute: number("tokens_per_minute")?.and_then(NonZeroU64::new),
            tokens_per_day: number("tokens_per_day")?.and_then(NonZeroU64::new),
            concurrent_streams: small("concurrent_streams")?,
        },
        time_zone: row.try_get("time_zone")?,
    })
}

impl Change<'_> {
    /// Changes the limits of a record of `table`, without giving it a revision.
    async fn set_limits(
        &mut self,
        table: &'static str,
        id: &str,
        changes: &LimitChanges,
    ) -> Result<()> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {LIMIT_COLUMNS} FROM {table} WHERE id = ?"));
        let row = sqlx::query(sql).bind(id).fetch_one(self.sql()).await?;
        let mut settings = settings(&row)?;
        changes.apply(&mut settings);
        let LimitSettings { limits, time_zone } = settings;
        let sql = sqlx::AssertSqlSafe(format!(
            "UPDATE {table} SET ({LIMIT_COLUMNS}) = (?, ?, ?, ?, ?) WHERE id = ?"
        ));
        let small = |limit: Option<NonZeroU32>| limit.map(|limit| i64::from(limit.get()));
        let large = |limit: Option<NonZeroU64>| limit.map(|limit| signed(limit.get()));
        sqlx::query(sql)
            .bind(small(limits.requests_per_minute))
            .bind(large(limits.tokens_per_minute))
            .bind(large(limits.tokens_per_day))
            .bind(small(limits.concurrent_streams))
            .bind(time_zone)
            .bind(id)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}

impl Change<'_> {
    /// Changes the terms of an account or a client key, without giving it a revision.
    pub(super) async fn set_terms(
        &mut self,
        kind: SubjectKind,
        id: &str,
        terms: &Terms,
    ) -> Result<()> {
        let (table, end) = match kind {
            SubjectKind::Account => ("accounts", "UPDATE accounts SET ends_at = ? WHERE id = ?"),
            SubjectKind::Key => (
                "client_keys",
                "UPDATE client_keys SET expires_at = ? WHERE id = ?",
            ),
        };
        self.set_limits(table, id, &terms.limits).await?;
        if let Some(ends_at) = terms.ends_at {
            sqlx::query(end)
                .bind(ends_at.map(|time| time.0))
                .bind(id)
                .execute(self.sql())
                .await?;
        }
        Ok(())
    }
}

impl Store {
    /// Every account, and every client key in use, that has limits.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn limited(&self) -> Result<Vec<(Subject, LimitSettings)>> {
        const ANY: &str = "coalesce(requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams) IS NOT NULL";
        let sql = format!(
            "SELECT 'account' AS subject_kind, id, {LIMIT_COLUMNS} FROM accounts WHERE {ANY} UNION ALL \
             SELECT 'key', id, {LIMIT_COLUMNS} FROM client_keys WHERE {ANY} AND revoked_at IS NULL"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &SqliteRow| {
            let subject = subject(row.try_get("subject_kind")?, row.try_get("id")?)?;
            Ok((subject, settings(row)?))
        };
        rows.iter().map(read).collect()
    }

    /// What was used of days that are kept.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn day_counts(&self) -> Result<Vec<DayCount>> {
        let rows =
            sqlx::query("SELECT kind, id, day_start, instance, requests, tokens FROM day_counts")
                .fetch_all(&self.pool)
                .await?;
        let number = |row: &SqliteRow, column: &'static str| unsigned(column, row.try_get(column)?);
        let read = |row: &SqliteRow| {
            Ok(DayCount {
                subject: subject(row.try_get("kind")?, row.try_get("id")?)?,
                day_start: number(row, "day_start")?,
                instance: row.try_get("instance")?,
                used: Some(Used {
                    requests: number(row, "requests")?,
                    tokens: number(row, "tokens")?,
                }),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Keeps these counts, each in place of the one before, and forgets days that began before `oldest`.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn keep_day_counts(&self, counts: &[DayCount], oldest: u64) -> Result<()> {
        let mut change = self.change().await?;
        for count in counts {
            let sql = match count.used {
                Some(_) => {
                    "INSERT INTO day_counts (kind, id, day_start, instance, requests, tokens) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                     ON CONFLICT DO UPDATE SET requests = ?5, tokens = ?6"
                }
                None => {
                    "DELETE FROM day_counts WHERE kind = ?1 AND id = ?2 AND day_start = ?3 AND instance = ?4"
                }
            };
            let query = sqlx::query(sql)
                .bind(count.subject.kind.to_string())
                .bind(count.subject.id.as_str())
                .bind(signed(count.day_start))
                .bind(&count.instance);
            let query = match count.used {
                Some(used) => query.bind(signed(used.requests)).bind(signed(used.tokens)),
                None => query,
            };
            query.execute(change.sql()).await?;
        }
        sqlx::query("DELETE FROM day_counts WHERE day_start < ?")
            .bind(signed(oldest))
            .execute(change.sql())
            .await?;
        change.commit().await
    }
}

fn subject(kind: &str, id: &str) -> Result<Subject> {
    let kind = match kind {
        "account" => SubjectKind::Account,
        _ => SubjectKind::Key,
    };
    let id = Id::try_from(id).map_err(|_| corrupt("day_counts.id", format!("{id:?}")))?;
    Ok(Subject { kind, id })
}
