//! Homes: which account made a thing that requests name later (`latchkey::home`). They come with records, in the
//! transaction that takes those, and are looked up by an Envoy that does not know one.

use latchkey::home::ThingHash;
use latchkey::id::Id;
use latchkey::request::record::RequestRecord;

use super::sql::{self, signed};
use super::{Change, Result, Store};
use crate::clock::UnixMillis;

/// The most homes that are kept: some 150 MiB.
const MAX_HOMES: u64 = 1_000_000;
/// The rows that one transaction of a pruning takes away.
const PRUNE_ROWS: i64 = 5_000;

sql::statements! {
    KEEP = "INSERT INTO homes (thing, client_key, account, until) VALUES ($1, $2, $3, $4) \
            ON CONFLICT (thing, client_key) DO UPDATE SET until = excluded.until \
            WHERE homes.account = excluded.account";
    /// The key's own, or else another one's.
    FIND = "SELECT client_key = $2 AS is_own, account FROM homes WHERE thing = $1 AND until > $3 \
            ORDER BY client_key = $2 DESC LIMIT 1";
    PRUNE_ENDED = "DELETE FROM homes WHERE until <= $1 AND until <= \
                   coalesce((SELECT until FROM homes ORDER BY until LIMIT 1 OFFSET $2), $1)";
    COUNT = "SELECT client_key, count(*) FROM homes GROUP BY client_key";
    /// Deletes the homes of a key that the platform forgets first.
    PRUNE_KEY = "DELETE FROM homes WHERE client_key = $1 AND thing IN \
                 (SELECT thing FROM homes WHERE client_key = $1 ORDER BY until LIMIT $2)";
}

/// The home of a thing that a client key names, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// The key made it, and this account has it.
    At(String),
    /// Another key made it.
    Others,
    /// Nobody here made it, or long ago.
    Nowhere,
}

impl Store {
    /// Finds the account that has `thing`, for `key`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn home(&self, thing: &ThingHash, key: &Id, now: UnixMillis) -> Result<Home> {
        let query = sqlx::query_as(FIND)
            .bind(&thing.bytes()[..])
            .bind(key.as_str())
            .bind(now);
        let found: Option<(bool, String)> = query.fetch_optional(&self.pool).await?;
        Ok(match found {
            Some((true, account)) => Home::At(account),
            Some((false, _)) => Home::Others,
            None => Home::Nowhere,
        })
    }

    /// Forgets what the platforms have forgotten, and what is too much.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn prune_homes(&self, now: UnixMillis) -> Result<()> {
        self.prune_homes_to(MAX_HOMES, now).await
    }

    /// Keeps so many at most. Those with most give theirs up.
    pub(super) async fn prune_homes_to(&self, most: u64, now: UnixMillis) -> Result<()> {
        self.prune(PRUNE_ENDED, now.0).await?;
        let counts: Vec<(String, i64)> = sqlx::query_as(COUNT).fetch_all(&self.pool).await?;
        let counts = counts
            .into_iter()
            .map(|(key, count)| (key, count.unsigned_abs()));
        let counts: Vec<(String, u64)> = counts.collect();
        let share = share(counts.iter().map(|(_, count)| *count).collect(), most);
        for (key, count) in counts {
            let mut over = signed(count.saturating_sub(share));
            while over > 0 {
                let mut change = self.change().await?;
                let query = sqlx::query(PRUNE_KEY).bind(&key).bind(over.min(PRUNE_ROWS));
                query.execute(change.sql()).await?;
                change.commit().await?;
                over -= PRUNE_ROWS;
            }
        }
        Ok(())
    }
}

/// The most that each may have, so that all together have no more than `most`: who has less keeps all of it, and what
/// that leaves is for the others.
fn share(mut counts: Vec<u64>, most: u64) -> u64 {
    counts.sort_unstable();
    let (mut left, mut others) = (most, counts.len() as u64);
    for count in counts {
        if count > left / others {
            return left / others;
        }
        left -= count;
        others -= 1;
    }
    u64::MAX
}

impl Change<'_> {
    /// Keeps what requests made in their accounts. The first account that is told of a key's thing stays its home.
    pub(super) async fn keep_homes(&mut self, records: &[RequestRecord]) -> Result<()> {
        for record in records {
            let Some(account) = &record.account else {
                continue;
            };
            for made in &record.made {
                sqlx::query(KEEP)
                    .bind(&made.thing.bytes()[..])
                    .bind(record.key.as_str())
                    .bind(account.as_str())
                    .bind(signed(made.until))
                    .execute(self.sql())
                    .await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_share_is_as_large_as_it_can_be(counts in prop::collection::vec(0..1_000_u64, 0..9), most in 0..3_000_u64) {
            let share = share(counts.clone(), most);
            let kept = |share: u64| counts.iter().map(|count| *count.min(&share)).sum::<u64>();
            prop_assert!(kept(share) <= most);
            if share < u64::MAX {
                prop_assert!(kept(share + 1) > most, "one more each would fit");
            }
        }
    }

    #[test]
    fn who_has_little_keeps_it() {
        assert_eq!(share(vec![10, 900, 20], 500), 470);
        assert_eq!(share(vec![300, 300, 10], 500), 245);
        assert_eq!(share(vec![], 500), u64::MAX);
        assert_eq!(share(vec![100, 400], 500), u64::MAX);
    }
}
