//! The accounts that one client key says are dead, and the calls by which we ask their platforms ourselves: what is due,
//! who may ask now, and what came of it. When, is [`crate::probe::schedule`]'s.

use std::time::Duration;

use latchkey::verdict::Reason;

use super::accounts::known;
use super::health::is_suspected;
use super::sql::{self, signed};
use super::switches::set_status;
use super::{Change, Outgoing, Result, Status, Store, health, sqlite};
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::id::{AccountId, random_base32};
use crate::probe::schedule::{self, MAX_A_MINUTE, MINUTE, Next, Row};

/// 160 random bits.
const TOKEN_CHARACTERS: usize = 32;

/// A call that is due, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The account.
    pub account: AccountId,
    /// Its platform's id.
    pub platform: String,
    /// The kind of its credential.
    pub kind: CredentialKind,
    /// The platform's reason, as a client key was told it.
    pub reason: Reason,
    /// The time at which it is due.
    pub due_at: UnixMillis,
}

/// The right to ask about an account, until it lapses.
#[derive(Debug)]
pub struct Probing {
    /// The account as its requests are made.
    pub outgoing: Outgoing,
    /// Its name.
    pub name: String,
    /// The platform's reason, as a client key was told it.
    pub reason: Reason,
    /// The number of this call in its row, from 1.
    pub asked: u32,
    /// The time at which the call leaves.
    pub at: UnixMillis,
    id: AccountId,
    token: String,
}

/// An answer to who would ask.
#[derive(Debug)]
pub enum MayAsk {
    /// The caller may ask.
    Yes(Box<Probing>),
    /// Somebody else asks, or there were as many calls in the last minute as there may be.
    NotNow,
    /// There is nothing to ask any more.
    Gone,
}

/// A row of `probes`.
#[derive(sqlx::FromRow)]
struct ProbeRow {
    #[sqlx(try_from = "i64")]
    generation: u64,
    #[sqlx(try_from = "i64")]
    asked: u32,
    asked_at: UnixMillis,
    due_at: Option<UnixMillis>,
}

/// A call that is due.
#[derive(sqlx::FromRow)]
struct DueRow {
    #[sqlx(try_from = "String")]
    account: AccountId,
    platform: String,
    #[sqlx(try_from = "String")]
    kind: CredentialKind,
    #[sqlx(try_from = "String")]
    reason: Reason,
    due_at: UnixMillis,
}

/// A call that may be made.
#[derive(sqlx::FromRow)]
struct ClaimableRow {
    name: String,
    #[sqlx(try_from = "String")]
    reason: Reason,
    #[sqlx(try_from = "i64")]
    asked: u32,
    claim_until: Option<UnixMillis>,
}

/// An account that was asked about.
#[derive(sqlx::FromRow)]
struct AskedRow {
    #[sqlx(try_from = "String")]
    status: Status,
    reason: Option<String>,
}

sql::statements! {
    ROW = "SELECT generation, asked, asked_at, due_at FROM probes WHERE account = $1";
    PLAN = "INSERT INTO probes (account, generation, reason, asked, asked_at, due_at) \
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account) DO UPDATE SET generation = excluded.generation, \
            reason = excluded.reason, asked = excluded.asked, asked_at = excluded.asked_at, due_at = excluded.due_at";
    DUE = "SELECT probes.account, accounts.platform, accounts.kind, probes.reason, probes.due_at FROM probes \
           JOIN accounts ON accounts.id = probes.account \
           WHERE probes.due_at IS NOT NULL AND accounts.status = 'active' \
           AND accounts.generation = probes.generation ORDER BY probes.due_at, probes.account";
    CLAIMABLE = "SELECT accounts.name, probes.reason, probes.asked, probes.claim_until FROM probes \
                 JOIN accounts ON accounts.id = probes.account WHERE probes.account = $1 AND probes.due_at <= $2 \
                 AND accounts.status = 'active' AND accounts.generation = probes.generation";
    ASKED_SINCE = "SELECT count(*) FROM probes WHERE asked_at > $1 AND asked_at <= $2";
    CLAIM = "UPDATE probes SET asked = asked + 1, asked_at = $1, claim_token = $2, claim_until = $3 WHERE account = $4";
    LAND = "UPDATE probes SET due_at = $1, claim_token = NULL, claim_until = NULL \
            WHERE account = $2 AND claim_token = $3";
    CALL_OFF = "UPDATE probes SET due_at = NULL WHERE account = $1 AND claim_token IS NULL";
    ASKED_ABOUT = "SELECT status, accounts.reason FROM accounts JOIN probes ON probes.account = accounts.id \
                   WHERE accounts.id = $1 AND accounts.generation = probes.generation";
    FORGET = "UPDATE probes SET due_at = NULL, asked = 0 WHERE account = $1";
}

impl From<ProbeRow> for Row {
    fn from(row: ProbeRow) -> Row {
        Row {
            generation: row.generation,
            asked: row.asked,
            asked_at: row.asked_at,
            due_at: row.due_at,
        }
    }
}

impl From<DueRow> for Due {
    fn from(row: DueRow) -> Due {
        Due {
            account: row.account,
            platform: row.platform,
            kind: row.kind,
            reason: row.reason,
            due_at: row.due_at,
        }
    }
}

impl Store {
    /// Every call that is due or will be, the next one first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn due_probes(&self) -> Result<Vec<Due>> {
        let rows: Vec<DueRow> = sqlx::query_as(DUE).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(Due::from).collect())
    }

    /// Takes the right to ask about an account at `now` for `life`, on the database's clock, if the call is due, nobody
    /// else asks about it, and there were not as many calls in the last minute as there may be.
    ///
    /// # Errors
    /// If the database fails, or the account's credential cannot be opened.
    pub async fn begin_probe(
        &self,
        account: &AccountId,
        now: UnixMillis,
        life: Duration,
    ) -> Result<MayAsk> {
        let mut change = self.change().await?;
        let row: Option<ClaimableRow> = sqlx::query_as(CLAIMABLE)
            .bind(account.as_str())
            .bind(now)
            .fetch_optional(change.sql())
            .await?;
        let Some(row) = row else {
            return Ok(MayAsk::Gone);
        };
        let clock = sqlite::now(change.sql()).await?;
        let lately: i64 = sqlx::query_scalar(ASKED_SINCE)
            .bind(now.minus(MINUTE))
            .bind(now)
            .fetch_one(change.sql())
            .await?;
        let is_taken = row.claim_until.is_some_and(|until| until > clock);
        if is_taken || lately >= i64::from(MAX_A_MINUTE) {
            return Ok(MayAsk::NotNow);
        }
        let outgoing = self.outgoing(change.sql(), account.as_str(), false);
        let Some(outgoing) = outgoing.await? else {
            return Ok(MayAsk::Gone); // Its platform is off.
        };
        let token = random_base32(TOKEN_CHARACTERS);
        sqlx::query(CLAIM)
            .bind(now)
            .bind(&token)
            .bind(clock.plus(life))
            .bind(account.as_str())
            .execute(change.sql())
            .await?;
        change.commit().await?;
        Ok(MayAsk::Yes(Box::new(Probing {
            outgoing,
            name: row.name,
            reason: row.reason,
            asked: row.asked.saturating_add(1),
            at: now,
            id: account.clone(),
            token,
        })))
    }

    /// Keeps what came of a call. False, and nothing kept, if the right to make it has lapsed, or the account is another
    /// by now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_probe(&self, probing: &Probing, next: &Next, now: UnixMillis) -> Result<bool> {
        let mut change = self.change().await?;
        let due_at = match next {
            Next::Again(at) => Some(*at),
            Next::Dead(_) | Next::Alive | Next::Rest => None,
        };
        let landed = sqlx::query(LAND)
            .bind(due_at)
            .bind(probing.id.as_str())
            .bind(&probing.token)
            .execute(change.sql())
            .await?;
        if landed.rows_affected() == 0 {
            return Ok(false);
        }
        let asked: Option<AskedRow> = sqlx::query_as(ASKED_ABOUT)
            .bind(probing.id.as_str())
            .fetch_optional(change.sql())
            .await?;
        let current = asked.filter(|asked| asked.status == Status::Active);
        let is_current = current.is_some();
        match (next, current) {
            (Next::Dead(reason), Some(_)) if schedule::is_refusal(reason) => {
                let why =
                    "the platform refuses its credential, and there is nothing to renew it with";
                set_status(&mut change, &probing.id, Status::Dead, Some(why), now).await?;
            }
            (Next::Dead(reason), Some(_)) => {
                let why = format!(
                    "the platform says that it is of no use ({}), and said so again when it was asked",
                    reason.as_str()
                );
                set_status(&mut change, &probing.id, Status::Dead, Some(&why), now).await?;
            }
            (Next::Alive, Some(asked)) => {
                if is_suspected(asked.status, asked.reason.as_deref()) {
                    set_status(&mut change, &probing.id, Status::Active, None, now).await?;
                }
                health::found_alive(&mut change, &probing.id, probing.at).await?;
            }
            _ => {}
        }
        change.commit().await?;
        Ok(is_current)
    }

    /// The account of that name or id as its requests are made, whether or not it may serve any. None where its platform
    /// was not published.
    ///
    /// # Errors
    /// If there is no such account, or its credential cannot be opened.
    pub async fn asked_account(&self, name: &str) -> Result<Option<Outgoing>> {
        let mut transaction = sqlite::begin_read(&self.pool).await?;
        let account = known(&mut transaction, name).await?;
        let id = account.id.as_str();
        self.outgoing(&mut transaction, id, true).await
    }

    /// Makes no call about an account that nobody could answer.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn call_off_probe(&self, account: &AccountId) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query(CALL_OFF)
            .bind(account.as_str())
            .execute(change.sql())
            .await?;
        change.commit().await
    }
}

impl Change<'_> {
    /// Has the platform be asked about an account that a client key says is dead.
    pub(super) async fn plan_probe(
        &mut self,
        account: &AccountId,
        generation: u64,
        reason: &Reason,
        now: UnixMillis,
    ) -> Result<()> {
        let row: Option<ProbeRow> = sqlx::query_as(ROW)
            .bind(account.as_str())
            .fetch_optional(self.sql())
            .await?;
        let row = schedule::suspected(row.map(Row::from), generation, now);
        sqlx::query(PLAN)
            .bind(account.as_str())
            .bind(signed(row.generation))
            .bind(reason.as_str())
            .bind(i64::from(row.asked))
            .bind(row.asked_at)
            .bind(row.due_at)
            .execute(self.sql())
            .await?;
        Ok(())
    }

    /// Forgets why a platform was to be asked about an account, and not when it was.
    pub(super) async fn forget_probe(&mut self, account: &AccountId) -> Result<()> {
        sqlx::query(FORGET)
            .bind(account.as_str())
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
