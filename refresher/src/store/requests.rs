//! What requests used: taken in batches, each once; summed up; pruned.

use latchkey::id::is_hex_name;
use latchkey::meter::MAX_TOKENS;
use latchkey::request::record::Record;
use latchkey::sync::records::Begun;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Change, Result, Store, signed, unsigned};
use crate::clock::UnixMillis;

/// The days for which a batch is remembered: an Envoy sends one again within seconds of finding the refresher, unless
/// the records themselves are kept for less.
const BATCH_DAYS: u32 = 7;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The most rows that one transaction of a pruning takes away, so that other writers get their turn.
const PRUNE_ROWS: i64 = 5_000;

/// The id of a batch of records: 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchId([u8; 16]);

impl BatchId {
    /// None where the text is no such id.
    pub fn parse(text: &str) -> Option<BatchId> {
        let id = u128::from_str_radix(text, 16).ok();
        let id = id.filter(|_| is_hex_name(text))?;
        Some(BatchId(id.to_be_bytes()))
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is on disk now.
    New,
    /// It was before.
    Known,
}

/// By what requests are summed up.
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// The id of the key or account, the model, or the day as `YYYY-MM-DD`; none where they have none.
    pub group: Option<String>,
    /// The name of the key or account, where that is still known.
    pub name: Option<String>,
    /// How many there were.
    pub requests: u64,
    /// Those whose answer was an error, was cut off or failed in its middle.
    pub failed: u64,
    /// Tokens of their prompts.
    pub input: u64,
    /// Those of them that came from the platform's cache.
    pub cached_input: u64,
    /// Tokens of their answers.
    pub output: u64,
    /// Those of them that were reasoning.
    pub reasoning: u64,
    /// All tokens.
    pub total: u64,
    /// How many requests' tokens are estimates.
    pub estimates: u64,
}

impl Store {
    /// Takes a batch, all of it or nothing, unless it was taken before. `begun` is what it says of its Envoy process.
    ///
    /// # Errors
    /// If SQLite fails. The batch was not taken then.
    pub async fn take_records(
        &self,
        batch: BatchId,
        records: &[Record],
        begun: Option<&Begun>,
        now: UnixMillis,
    ) -> Result<Taken> {
        let mut change = self.change().await?;
        let insert = "INSERT INTO batches (id, taken_at) VALUES (?, ?) ON CONFLICT DO NOTHING";
        let inserted = sqlx::query(insert)
            .bind(&batch.0[..])
            .bind(now.0)
            .execute(change.sql())
            .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Taken::Known);
        }
        for record in records {
            insert_record(&mut change, record).await?;
        }
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
    /// If SQLite fails.
    pub async fn usage(&self, by: By, since: UnixMillis) -> Result<Vec<Sums>> {
        let (group, name) = match by {
            By::Key => (
                "client_key",
                "(SELECT name FROM client_keys WHERE id = client_key)",
            ),
            By::Account => (
                "account",
                "(SELECT name FROM accounts WHERE id = requests.account)",
            ),
            By::Model => ("coalesce(model, asked)", "NULL"),
            By::Day => ("date(at / 1000, 'unixepoch')", "NULL"),
        };
        let order = match by {
            By::Day => "1",
            By::Key | By::Account | By::Model => "total DESC, requests DESC, 1",
        };
        // Every part of it is one of the texts above.
        let sql = format!(
            "SELECT {group} AS \"group\", {name} AS name, sum(count) AS requests, \
             sum(count * (status NOT BETWEEN 200 AND 399 OR error IS NOT NULL OR completeness = 'cut')) AS failed, \
             sum(coalesce(input, 0)) AS input, sum(coalesce(cached_input, 0)) AS cached_input, \
             sum(coalesce(output, 0)) AS output, sum(coalesce(reasoning, 0)) AS reasoning, \
             sum(coalesce(total, 0)) AS total, sum(count * estimate) AS estimates \
             FROM requests WHERE at >= ? GROUP BY 1 ORDER BY {order}"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(since.0)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(sums).collect()
    }

    /// Takes away what is older than `keep_days` days. Returns how many requests that were.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn prune_records(&self, keep_days: u32, now: UnixMillis) -> Result<u64> {
        let before = |days: u32| now.0.saturating_sub(i64::from(days) * DAY_MS);
        let requests = "DELETE FROM requests WHERE rowid IN \
             (SELECT rowid FROM requests WHERE at < ? ORDER BY at LIMIT ?)";
        let batches = "DELETE FROM batches WHERE id IN \
             (SELECT id FROM batches WHERE taken_at < ? ORDER BY taken_at LIMIT ?)";
        let pruned = self.prune(requests, before(keep_days)).await?;
        self.prune(batches, before(keep_days.min(BATCH_DAYS)))
            .await?;
        self.prune_envoys(before(keep_days)).await?;
        Ok(pruned)
    }

    async fn prune(&self, sql: &'static str, before: i64) -> Result<u64> {
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

async fn insert_record(change: &mut Change<'_>, record: &Record) -> Result<()> {
    let tokens = |of: fn(&latchkey::meter::Usage) -> u64| {
        let tokens = record.usage.as_ref().map(of);
        tokens.map(|tokens| signed(tokens.min(MAX_TOKENS)))
    };
    sqlx::query(
        "INSERT INTO requests (at, request_id, client_key, pool, account, platform, dialect, asked, model, status, \
         verdict, error, attempts, input, output, cached_input, cache_write, reasoning, total, estimate, \
         first_byte_ms, duration_ms, completeness, count) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(signed(record.at))
    .bind(record.id.as_ref().map(|id| id.as_str()))
    .bind(record.key.as_str())
    .bind(record.pool.as_str())
    .bind(record.account.as_ref().map(|id| id.as_str()))
    .bind(record.platform.as_ref().map(|id| id.as_str()))
    .bind(record.dialect.word())
    .bind(record.asked.as_ref().map(|model| model.as_str()))
    .bind(record.model.as_ref().map(|model| model.as_str()))
    .bind(record.status)
    .bind(record.verdict.as_ref().map(|word| word.as_str()))
    .bind(record.error.as_ref().map(|word| word.as_str()))
    .bind(record.attempts)
    .bind(tokens(|usage| usage.input))
    .bind(tokens(|usage| usage.output))
    .bind(tokens(|usage| usage.cached_input))
    .bind(tokens(|usage| usage.cache_write))
    .bind(tokens(|usage| usage.reasoning))
    .bind(tokens(|usage| usage.total))
    .bind(record.estimate)
    .bind(record.first_byte_ms.map(signed))
    .bind(signed(record.duration_ms))
    .bind(record.completeness.word())
    .bind(record.count.get())
    .execute(change.sql())
    .await?;
    Ok(())
}

fn sums(row: &SqliteRow) -> Result<Sums> {
    let number = |column: &'static str| unsigned(column, row.try_get(column)?);
    Ok(Sums {
        group: row.try_get("group")?,
        name: row.try_get("name")?,
        requests: number("requests")?,
        failed: number("failed")?,
        input: number("input")?,
        cached_input: number("cached_input")?,
        output: number("output")?,
        reasoning: number("reasoning")?,
        total: number("total")?,
        estimates: number("estimates")?,
    })
}
