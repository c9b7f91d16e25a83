//! Limits and ends of accounts and client keys, and the use of their days.

use std::collections::{BTreeSet, HashMap};
use std::num::{NonZeroU32, NonZeroU64, TryFromIntError};

use latchkey::id::Id;
use latchkey::limit::{Limits, Subject, SubjectKind, Used};
use sqlx::query_builder::Separated;

use super::error::Unfit;
use super::rows::Rows;
use super::sql::{self, JsonText, json_text, limit_columns, own_limit_columns, signed};
use super::sqlite::Database;
use super::{Change, Error, Result, Store, corrupt};
use crate::clock::UnixMillis;
use crate::day::{Day, TimeOfDay};
use crate::egress::Proxy;
use crate::fault;
use crate::limits::{LimitSettings, OwnLimits, Setting};

/// Changes to limits; a field that is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitChanges {
    /// Forgets all that was set of an account before: its platform's profile says what holds.
    pub of_profile: bool,
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
    /// [`LimitSettings::day_starts`]
    pub day_starts: Option<Option<TimeOfDay>>,
}

/// Changes to the terms of an account or a client key, or the terms of a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Its limits.
    pub limits: LimitChanges,
    /// Its end; `Some(None)` for never, `None` for as it is.
    pub expires_at: Option<Option<UnixMillis>>,
    /// The proxy by which it leaves, of an account; `Some(None)` for as its platform's others, `None` for as it is.
    pub proxy: Option<Option<Proxy>>,
}

/// One Envoy process's use of one subject's day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCount {
    /// The account or key.
    pub subject: Subject,
    /// The day, as the zone had it that held then.
    pub day: Day,
    /// The process; empty for those of long ago.
    pub instance: String,
    /// The amount; `None` deletes the row.
    pub used: Option<Used>,
}

impl LimitChanges {
    /// True if nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == LimitChanges::default()
    }

    fn apply(&self, own: &mut OwnLimits) {
        if self.of_profile {
            *own = OwnLimits::default();
        }
        let OwnLimits { set, lifted } = own;
        let LimitSettings {
            limits,
            time_zone,
            day_starts,
        } = set;
        let mut change = Apply { lifted };
        change.set(
            Setting::RequestsPerMinute,
            &mut limits.requests_per_minute,
            &self.requests_per_minute,
        );
        change.set(
            Setting::TokensPerMinute,
            &mut limits.tokens_per_minute,
            &self.tokens_per_minute,
        );
        change.set(
            Setting::TokensPerDay,
            &mut limits.tokens_per_day,
            &self.tokens_per_day,
        );
        change.set(
            Setting::ConcurrentStreams,
            &mut limits.concurrent_streams,
            &self.concurrent_streams,
        );
        change.set(Setting::TimeZone, time_zone, &self.time_zone);
        change.set(Setting::DayStarts, day_starts, &self.day_starts);
    }
}

/// Changes that are being applied: what is taken off is noted, so that no default comes in its place.
struct Apply<'a> {
    lifted: &'a mut BTreeSet<Setting>,
}

impl Apply<'_> {
    fn set<T: Clone>(&mut self, setting: Setting, to: &mut Option<T>, change: &Option<Option<T>>) {
        let Some(new) = change else { return };
        new.clone_into(to);
        match new {
            None => self.lifted.insert(setting),
            Some(_) => self.lifted.remove(&setting),
        };
    }
}

/// The `own_limit_columns!` of accounts.
#[derive(sqlx::FromRow)]
pub(super) struct OwnLimitRow {
    #[sqlx(flatten, try_from = "LimitRow")]
    set: LimitSettings,
    #[sqlx(try_from = "JsonText<BTreeSet<Setting>>")]
    lifted: BTreeSet<Setting>,
}

/// The `limit_columns!` of either table.
#[derive(sqlx::FromRow)]
pub(super) struct LimitRow {
    requests_per_minute: Option<i64>,
    tokens_per_minute: Option<i64>,
    tokens_per_day: Option<i64>,
    concurrent_streams: Option<i64>,
    time_zone: Option<String>,
    day_starts: Option<i64>,
}

/// A client key that has limits.
#[derive(sqlx::FromRow)]
struct LimitedKeyRow {
    id: String,
    #[sqlx(flatten, try_from = "LimitRow")]
    limits: LimitSettings,
}

/// An account that may have limits, and what its platform says of them.
#[derive(sqlx::FromRow)]
struct LimitedAccountRow {
    id: String,
    #[sqlx(flatten, try_from = "OwnLimitRow")]
    own: OwnLimits,
    #[sqlx(try_from = "JsonText<LimitSettings>")]
    default_limits: LimitSettings,
}

/// A row of `day_counts`.
#[derive(sqlx::FromRow)]
struct DayCountRow {
    kind: String,
    id: String,
    #[sqlx(try_from = "i64")]
    day_start: u64,
    #[sqlx(try_from = "i64")]
    day_end: u64,
    instance: String,
    #[sqlx(try_from = "i64")]
    requests: u64,
    #[sqlx(try_from = "i64")]
    tokens: u64,
}

/// A row for each count, in place of the one before.
pub(super) const KEEP_DAY_COUNTS: Rows = Rows {
    insert: "INSERT INTO day_counts (kind, id, day_start, day_end, instance, requests, tokens) ",
    conflict: " ON CONFLICT (kind, id, day_start, instance) \
               DO UPDATE SET day_end = excluded.day_end, requests = excluded.requests, tokens = excluded.tokens",
};

macro_rules! any_limit {
    () => {
        "coalesce(requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams) IS NOT NULL"
    };
}

sql::statements! {
    /// An account of a platform that is off has the limits of its own alone.
    LIMITED_ACCOUNTS = concat!(
        "SELECT accounts.id, ", own_limit_columns!(), ", coalesce(platforms.limits, '{}') AS default_limits \
         FROM accounts LEFT JOIN platforms ON platforms.id = platform \
         WHERE platforms.limits <> '{}' OR ", any_limit!()
    );
    LIMITED_KEYS = concat!(
        "SELECT id, ", limit_columns!(), " FROM client_keys WHERE revoked_at IS NULL AND ", any_limit!()
    );
    OF_ACCOUNT = concat!("SELECT ", own_limit_columns!(), " FROM accounts WHERE id = $1");
    OF_KEY = concat!("SELECT ", limit_columns!(), " FROM client_keys WHERE id = $1");
    SET_ACCOUNT = concat!(
        "UPDATE accounts SET (", own_limit_columns!(), ") = ($2, $3, $4, $5, $6, $7, $8) WHERE id = $1"
    );
    SET_KEY = concat!("UPDATE client_keys SET (", limit_columns!(), ") = ($2, $3, $4, $5, $6, $7) WHERE id = $1");
    SET_ACCOUNT_END = "UPDATE accounts SET expires_at = $1 WHERE id = $2";
    SET_KEY_END = "UPDATE client_keys SET expires_at = $1 WHERE id = $2";
    DAY_COUNTS = "SELECT kind, id, day_start, day_end, instance, requests, tokens FROM day_counts";
    DELETE_DAY_COUNT = "DELETE FROM day_counts WHERE kind = $1 AND id = $2 AND day_start = $3 AND instance = $4";
    PRUNE_DAY_COUNTS = "DELETE FROM day_counts WHERE day_start < $1";
}

impl TryFrom<LimitRow> for LimitSettings {
    type Error = TryFromIntError;

    fn try_from(row: LimitRow) -> std::result::Result<LimitSettings, TryFromIntError> {
        let large = |limit: Option<i64>| limit.map(u64::try_from).transpose();
        let small = |limit: Option<i64>| limit.map(u32::try_from).transpose();
        Ok(LimitSettings {
            limits: Limits {
                requests_per_minute: small(row.requests_per_minute)?.and_then(NonZeroU32::new),
                tokens_per_minute: large(row.tokens_per_minute)?.and_then(NonZeroU64::new),
                tokens_per_day: large(row.tokens_per_day)?.and_then(NonZeroU64::new),
                concurrent_streams: small(row.concurrent_streams)?.and_then(NonZeroU32::new),
            },
            time_zone: row.time_zone,
            day_starts: small(row.day_starts)?.and_then(TimeOfDay::of_minutes),
        })
    }
}

impl From<OwnLimitRow> for OwnLimits {
    fn from(row: OwnLimitRow) -> OwnLimits {
        OwnLimits {
            set: row.set,
            lifted: row.lifted,
        }
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
        let end = match kind {
            SubjectKind::Account => SET_ACCOUNT_END,
            SubjectKind::Key => SET_KEY_END,
        };
        self.set_limits(kind, id, &terms.limits).await?;
        if let (SubjectKind::Account, Some(proxy)) = (kind, &terms.proxy) {
            self.set_proxy(id, proxy.as_ref()).await?;
        }
        if let Some(expires_at) = terms.expires_at {
            if expires_at.is_some_and(|time| time < UnixMillis(0)) {
                let record = match kind {
                    SubjectKind::Account => fault::Kind::Account,
                    SubjectKind::Key => fault::Kind::ClientKey,
                };
                return Err(Error::Unfit {
                    record,
                    name: id.to_owned(),
                    unfit: Unfit::Time,
                });
            }
            sqlx::query(end)
                .bind(expires_at)
                .bind(id)
                .execute(self.sql())
                .await?;
        }
        Ok(())
    }

    async fn set_limits(
        &mut self,
        kind: SubjectKind,
        id: &str,
        changes: &LimitChanges,
    ) -> Result<()> {
        let of_account = kind == SubjectKind::Account;
        let mut own = match of_account {
            true => {
                let row: OwnLimitRow = self.limits_of(OF_ACCOUNT, id).await?;
                OwnLimits::from(row)
            }
            false => {
                let row: LimitRow = self.limits_of(OF_KEY, id).await?;
                let set = LimitSettings::try_from(row);
                let set = set.map_err(|error| corrupt("limits", error.to_string()))?;
                OwnLimits {
                    set,
                    ..OwnLimits::default()
                }
            }
        };
        changes.apply(&mut own);
        let OwnLimits { set, lifted } = own;
        let small = |limit: Option<NonZeroU32>| limit.map(|limit| i64::from(limit.get()));
        let large = |limit: Option<NonZeroU64>| limit.map(|limit| signed(limit.get()));
        let update = match of_account {
            true => SET_ACCOUNT,
            false => SET_KEY,
        };
        let mut update = sqlx::query(update)
            .bind(id)
            .bind(small(set.limits.requests_per_minute))
            .bind(large(set.limits.tokens_per_minute))
            .bind(large(set.limits.tokens_per_day))
            .bind(small(set.limits.concurrent_streams))
            .bind(set.time_zone)
            .bind(set.day_starts.map(|time| i64::from(time.minutes())));
        if of_account {
            update = update.bind(json_text(&lifted));
        }
        update.execute(self.sql()).await?;
        Ok(())
    }

    async fn limits_of<T>(&mut self, select: &'static str, id: &str) -> Result<T>
    where
        T: for<'r> sqlx::FromRow<'r, <Database as sqlx::Database>::Row> + Send + Unpin,
    {
        let row = sqlx::query_as(select).bind(id);
        Ok(row.fetch_one(self.sql()).await?)
    }
}

impl Store {
    /// Every account, and every client key in use, that has limits, of its own or its platform's, and what holds of
    /// them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn limited(&self) -> Result<Vec<(Subject, LimitSettings)>> {
        let accounts: Vec<LimitedAccountRow> = sqlx::query_as(LIMITED_ACCOUNTS)
            .fetch_all(&self.pool)
            .await?;
        let keys: Vec<LimitedKeyRow> = sqlx::query_as(LIMITED_KEYS).fetch_all(&self.pool).await?;
        let accounts = accounts.into_iter().map(|row| {
            let holds = row.own.over(&row.default_limits).settings;
            (SubjectKind::Account, row.id, holds)
        });
        let keys = keys
            .into_iter()
            .map(|row| (SubjectKind::Key, row.id, row.limits));
        let limited = accounts.chain(keys);
        let limited = limited.filter(|(_, _, settings)| !settings.limits.is_none());
        let read = |(kind, id, settings): (SubjectKind, String, LimitSettings)| {
            Ok((subject(kind, &id)?, settings))
        };
        limited.map(read).collect()
    }

    /// The use of days that are kept.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn day_counts(&self) -> Result<Vec<DayCount>> {
        let rows: Vec<DayCountRow> = sqlx::query_as(DAY_COUNTS).fetch_all(&self.pool).await?;
        let read = |row: DayCountRow| {
            Ok(DayCount {
                subject: subject(kind(&row.kind), &row.id)?,
                day: Day {
                    start: row.day_start,
                    end: row.day_end,
                },
                instance: row.instance,
                used: Some(Used {
                    requests: row.requests,
                    tokens: row.tokens,
                }),
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Keeps these counts, each in place of the one before, and forgets days that began before `oldest`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn keep_day_counts(&self, counts: &[DayCount], oldest: u64) -> Result<()> {
        let mut change = self.change().await?;
        // A row that is named twice has its last count: no statement may meet a row twice.
        let mut last = HashMap::new();
        for count in counts {
            last.insert((&count.subject, count.day.start, &count.instance), count);
        }
        let (kept, gone): (Vec<&DayCount>, Vec<&DayCount>) =
            last.into_values().partition(|count| count.used.is_some());
        for count in gone {
            sqlx::query(DELETE_DAY_COUNT)
                .bind(count.subject.kind.to_string())
                .bind(count.subject.id.as_str())
                .bind(signed(count.day.start))
                .bind(&count.instance)
                .execute(change.sql())
                .await?;
        }
        KEEP_DAY_COUNTS
            .add(change.sql(), &kept, bind_day_count)
            .await?;
        sqlx::query(PRUNE_DAY_COUNTS)
            .bind(signed(oldest))
            .execute(change.sql())
            .await?;
        change.commit().await
    }
}

/// Gives the parameters of a count's row, in the order of [`KEEP_DAY_COUNTS`].
fn bind_day_count(mut row: Separated<'_, Database, &'static str>, count: &&DayCount) {
    let used = count.used.unwrap_or_default();
    row.push_bind(count.subject.kind.to_string())
        .push_bind(count.subject.id.as_str())
        .push_bind(signed(count.day.start))
        .push_bind(signed(count.day.end))
        .push_bind(count.instance.as_str())
        .push_bind(signed(used.requests))
        .push_bind(signed(used.tokens));
}

fn kind(word: &str) -> SubjectKind {
    match word {
        "account" => SubjectKind::Account,
        _ => SubjectKind::Key,
    }
}

fn subject(kind: SubjectKind, id: &str) -> Result<Subject> {
    let id = Id::try_from(id).map_err(|_| corrupt("day_counts.id", format!("{id:?}")))?;
    Ok(Subject { kind, id })
}
