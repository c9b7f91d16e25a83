//! The use of requests: records taken in batches, each once; summed up; pruned.

use latchkey::id::is_hex_name;
use latchkey::meter::MAX_TOKENS;
use latchkey::request::record::RequestRecord;
use latchkey::sync::records::Begun;
use sqlx::query_builder::Separated;

use super::rows::Rows;
use super::sql::{self, signed};
use super::sqlite::Database;
use super::{Result, Store};
use crate::clock::UnixMillis;

/// The days for which a batch is remembered: an Envoy sends one again within seconds of finding the refresher, unless
/// the records themselves are kept for less.
const BATCH_DAYS: u32 = 7;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The rows that one transaction of a pruning takes away, so that other writers get their turn; more only where several
/// requests came within the last one's millisecond.
const PRUNE_ROWS: i64 = 5_000;

/// A row for each record.
pub(super) const RECORDS: Rows = Rows {
    insert: "INSERT INTO requests (at, request_id, client_key, pool, account, platform, dialect, asked, model, status, \
             verdict, error, attempts, input, output, cached_input, cache_write, reasoning, total, estimate, \
             first_byte_ms, duration_ms, completeness, count) ",
    conflict: "",
};

/// The sums of requests by `$group`, in the order of `$order`.
macro_rules! sum_up {
    ($group:literal, $name:literal, $order:literal) => {
        concat!(
            "SELECT ", $group, " AS group_id, ", $name, " AS name, CAST(sum(count) AS BIGINT) AS requests, \
             CAST(sum(CASE WHEN completeness <> 'left' AND (status NOT BETWEEN 200 AND 399 OR error IS NOT NULL \
             OR completeness = 'cut') THEN count ELSE 0 END) AS BIGINT) AS failed, \
             CAST(sum(CASE WHEN completeness = 'left' THEN count ELSE 0 END) AS BIGINT) AS caller_left, \
             CAST(sum(coalesce(input, 0)) AS BIGINT) AS input, \
             CAST(sum(coalesce(cached_input, 0)) AS BIGINT) AS cached_input, \
             CAST(sum(coalesce(output, 0)) AS BIGINT) AS output, \
             CAST(sum(coalesce(reasoning, 0)) AS BIGINT) AS reasoning, \
             CAST(sum(coalesce(total, 0)) AS BIGINT) AS total, \
             CAST(sum(count * estimate) AS BIGINT) AS estimates \
             FROM requests WHERE at >= $1 GROUP BY 1 ORDER BY ", $order
        )
    };
}

sql::statements! {
    TAKE_BATCH = "INSERT INTO batches (id, taken_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    BY_KEY = sum_up!(
        "client_key",
        "(SELECT name FROM client_keys WHERE id = client_key)",
        "total DESC, requests DESC, 1"
    );
    BY_ACCOUNT = sum_up!(
        "account",
        "(SELECT name FROM accounts WHERE id = requests.account)",
        "total DESC, requests DESC, 1"
    );
    BY_MODEL = sum_up!("coalesce(model, asked)", "CAST(NULL AS TEXT)", "total DESC, requests DESC, 1");
    /// The group is the number of the day since 1970.
    BY_DAY = sum_up!("CAST(at / 86400000 AS TEXT)", "CAST(NULL AS TEXT)", "min(at)");
    /// Up to the time of the oldest row but so many.
    PRUNE_REQUESTS = "DELETE FROM requests WHERE at < $1 \
                      AND at <= coalesce((SELECT at FROM requests ORDER BY at LIMIT 1 OFFSET $2), $1)";
    PRUNE_BATCHES = "DELETE FROM batches WHERE taken_at < $1 \
                     AND taken_at <= coalesce((SELECT taken_at FROM batches ORDER BY taken_at LIMIT 1 OFFSET $2), $1)";
}

/// The id of a batch of records: 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchId([u8; 16]);

impl BatchId {
    /// Reads an id; none where the text is something else.
    pub fn parse(text: &str) -> Option<BatchId> {
        let id = u128::from_str_radix(text, 16).ok();
        let id = id.filter(|_| is_hex_name(text))?;
        Some(BatchId(id.to_be_bytes()))
    }
}

/// The outcome of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The batch is on disk now.
    New,
    /// The batch was on disk before.
    Known,
}

/// The group by which requests are summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The client key.
    Key,
    /// The account.
    Account,
    /// The model that was served, else the one that was asked for.
    Model,
    /// The day, in UTC.
    Day,
}

/// The sums of the requests that have something in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct Sums {
    /// The id of the key or account, the model, or the day as `YYYY-MM-DD`; none where they have none.
    #[sqlx(rename = "group_id")]
    pub group: Option<String>,
    /// The name of the key or account, where that is still known.
    pub name: Option<String>,
    /// The number of requests.
    #[sqlx(try_from = "i64")]
    pub requests: u64,
    /// The requests whose answer was an error, was cut off or failed in its middle.
    #[sqlx(try_from = "i64")]
    pub failed: u64,
    /// The requests whose caller went away before their end.
    #[sqlx(try_from = "i64")]
    pub caller_left: u64,
    /// Tokens of their prompts.
    #[sqlx(try_from = "i64")]
    pub input: u64,
    /// Tokens of their prompts that came from the platform's cache.
    #[sqlx(try_from = "i64")]
    pub cached_input: u64,
    /// Tokens of their answers.
    #[sqlx(try_from = "i64")]
    pub output: u64,
    /// Tokens of their answers that were reasoning.
    #[sqlx(try_from = "i64")]
    pub reasoning: u64,
    /// All tokens.
    #[sqlx(try_from = "i64")]
    pub total: u64,
    /// The number of requests whose tokens are estimates.
    #[sqlx(try_from = "i64")]
    pub estimates: u64,
}

impl Store {
    /// Takes a batch, all of it or nothing, unless it was taken before. `begun` counts the requests that its Envoy process
    /// let in.
    ///
    /// # Errors
    /// If the database fails. The batch was not taken then.
    pub async fn take_records(
        &self,
        batch: BatchId,
        records: &[RequestRecord],
        begun: Option<&Begun>,
        now: UnixMillis,
    ) -> Result<Taken> {
        let mut change = self.change().await?;
        let inserted = sqlx::query(TAKE_BATCH)
            .bind(&batch.0[..])
            .bind(now)
            .execute(change.sql())
            .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Taken::Known);
        }
        RECORDS.add(change.sql(), records, bind_record).await?;
        change.keep_homes(records).await?;
        if let Some(begun) = begun {
            let counts = records.iter().map(|record| u64::from(record.count.get()));
            change.add_requests(begun, counts.sum(), now).await?;
        }
        change.commit().await?;
        Ok(Taken::New)
    }

    /// The requests since `since`, summed up; the group with the most tokens first, days in order.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn usage(&self, by: By, since: UnixMillis) -> Result<Vec<Sums>> {
        let sql = match by {
            By::Key => BY_KEY,
            By::Account => BY_ACCOUNT,
            By::Model => BY_MODEL,
            By::Day => BY_DAY,
        };
        let query = sqlx::query_as(sql).bind(since);
        let mut sums: Vec<Sums> = query.fetch_all(&self.pool).await?;
        if by == By::Day {
            for day in &mut sums {
                day.group = day.group.as_deref().and_then(date);
            }
        }
        Ok(sums)
    }

    /// Takes away what is older than `keep_days` days. Returns the number of records.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn prune_records(&self, keep_days: u32, now: UnixMillis) -> Result<u64> {
        let before = |days: u32| now.0.saturating_sub(i64::from(days) * DAY_MS);
        let pruned = self.prune(PRUNE_REQUESTS, before(keep_days)).await?;
        self.prune(PRUNE_BATCHES, before(keep_days.min(BATCH_DAYS)))
            .await?;
        self.prune_envoys(before(keep_days)).await?;
        Ok(pruned)
    }

    /// Has `sql` take away what is of before then, [`PRUNE_ROWS`] or a few more at a time.
    pub(super) async fn prune(&self, sql: &'static str, before: i64) -> Result<u64> {
        let mut all = 0;
        loop {
            let mut change = self.change().await?;
            let pruned = sqlx::query(sql)
                .bind(before)
                .bind(PRUNE_ROWS)
                .execute(change.sql())
                .await?
                .rows_affected();
            change.commit().await?;
            all += pruned;
            if pruned < PRUNE_ROWS.unsigned_abs() {
                return Ok(all);
            }
        }
    }
}

/// Gives the parameters of a record's row, in the order of [`RECORDS`].
fn bind_record(mut row: Separated<'_, Database, &'static str>, record: &RequestRecord) {
    let tokens = |of: fn(&latchkey::meter::Usage) -> u64| {
        let tokens = record.usage.as_ref().map(of);
        tokens.map(|tokens| signed(tokens.min(MAX_TOKENS)))
    };
    row.push_bind(signed(record.at))
        .push_bind(record.id.as_ref().map(|id| id.as_str()))
        .push_bind(record.key.as_str())
        .push_bind(record.pool.as_str())
        .push_bind(record.account.as_ref().map(|id| id.as_str()))
        .push_bind(record.platform.as_ref().map(|id| id.as_str()))
        .push_bind(record.dialect.word())
        .push_bind(record.asked.as_ref().map(|model| model.as_str()))
        .push_bind(record.model.as_ref().map(|model| model.as_str()))
        .push_bind(i64::from(record.status))
        .push_bind(record.verdict.as_ref().map(|word| word.as_str()))
        .push_bind(record.error.as_ref().map(|word| word.as_str()))
        .push_bind(i64::from(record.attempts))
        .push_bind(tokens(|usage| usage.input))
        .push_bind(tokens(|usage| usage.output))
        .push_bind(tokens(|usage| usage.cached_input))
        .push_bind(tokens(|usage| usage.cache_write))
        .push_bind(tokens(|usage| usage.reasoning))
        .push_bind(tokens(|usage| usage.total))
        .push_bind(i64::from(record.estimate))
        .push_bind(record.first_byte_ms.map(signed))
        .push_bind(signed(record.duration_ms))
        .push_bind(record.completeness.word())
        .push_bind(i64::from(record.count.get()));
}

/// The date, as `YYYY-MM-DD`, of a day whose number since 1970 this is; none of one past year 9999.
fn date(day: &str) -> Option<String> {
    let first_ms = day.parse::<i64>().ok()?.checked_mul(DAY_MS)?;
    let date = jiff::Timestamp::from_millisecond(first_ms).ok()?;
    Some(date.strftime("%F").to_string())
}
