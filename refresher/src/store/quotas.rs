//! The words of platforms on quotas of accounts when we asked, with the time of that. The filter's reports of what
//! answers said are [`super::health`]'s; there both come together.

use std::collections::BTreeMap;

use latchkey::id::Id;
use latchkey::sync::report::Report;
use latchkey::verdict::Scope;

use super::sql::{self, JsonText, json_text, signed};
use super::{Change, Noticed, Outgoing, Result, Store, corrupt};
use crate::clock::UnixMillis;
use crate::id::AccountId;
use crate::probe::quota::{self, Calls, Figure, Out};

/// The platform's word on an account's quota.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The windows; none where it was never asked, or what it said was forgotten.
    pub figures: Vec<Figure>,
    /// The time at which it said so.
    pub at: UnixMillis,
}

/// An account whose platform can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Askable {
    /// Its id.
    pub account: AccountId,
    /// Its name.
    pub name: String,
    /// The calls about it until now.
    pub calls: Calls,
}

/// The right to make one call.
#[derive(Debug)]
pub struct Asking {
    /// The account as its requests are made.
    pub outgoing: Outgoing,
    /// The time at which the call leaves.
    pub at: UnixMillis,
    id: AccountId,
}

/// A row of `quotas`.
#[derive(sqlx::FromRow)]
struct QuotaRow {
    account: String,
    #[sqlx(try_from = "JsonText<Vec<Figure>>")]
    figures: Vec<Figure>,
    said_at: UnixMillis,
}

/// An account that can be asked about.
#[derive(sqlx::FromRow)]
struct AskableRow {
    #[sqlx(try_from = "String")]
    id: AccountId,
    name: String,
    asked_at: Option<UnixMillis>,
    failures: Option<i64>,
    windows_at: Option<UnixMillis>,
}

sql::statements! {
    ALL = "SELECT account, figures, said_at FROM quotas";
    ASKABLE = "SELECT accounts.id, accounts.name, quotas.asked_at, quotas.failures, health.windows_at FROM accounts \
               LEFT JOIN quotas ON quotas.account = accounts.id LEFT JOIN health ON health.account = accounts.id \
               WHERE accounts.platform = $1 AND accounts.status = 'active' ORDER BY accounts.id";
    BEGIN = "INSERT INTO quotas (account, asked_at) VALUES ($1, $2) \
             ON CONFLICT (account) DO UPDATE SET asked_at = excluded.asked_at WHERE quotas.asked_at = $3";
    TOLD = "UPDATE quotas SET figures = $1, said_at = $2, failures = 0 WHERE account = $3 AND asked_at = $2 \
            AND EXISTS (SELECT 1 FROM accounts WHERE id = $3 AND generation = $4)";
    FAILED = "UPDATE quotas SET failures = failures + 1 WHERE account = $1 AND asked_at = $2";
    FORGET = "UPDATE quotas SET figures = '[]', said_at = 0 WHERE account = $1";
}

impl From<AskableRow> for Askable {
    fn from(row: AskableRow) -> Askable {
        Askable {
            account: row.id,
            name: row.name,
            calls: Calls {
                asked_at: row.asked_at,
                failures: row
                    .failures
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or(0),
                heard_at: row.windows_at.unwrap_or(UnixMillis(0)),
            },
        }
    }
}

impl Store {
    /// Reads what platforms said of accounts' quotas when they were asked, by the accounts' ids.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn quotas(&self) -> Result<BTreeMap<String, Asked>> {
        let rows: Vec<QuotaRow> = sqlx::query_as(ALL).fetch_all(&self.pool).await?;
        let of_account = |row: QuotaRow| {
            let (figures, at) = (row.figures, row.said_at);
            (row.account, Asked { figures, at })
        };
        Ok(rows.into_iter().map(of_account).collect())
    }

    /// The accounts in use of a platform, and the calls about each.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn askable(&self, platform: &str) -> Result<Vec<Askable>> {
        let rows: Vec<AskableRow> = sqlx::query_as(ASKABLE)
            .bind(platform)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(Askable::from).collect())
    }

    /// Takes the right to make the next call about an account, at `now`. None if somebody else took it meanwhile, or the
    /// account is of no use any more. A call that is cut off counts as made.
    ///
    /// # Errors
    /// If the database fails, or the account's credential cannot be opened. The call counts as made then too.
    pub async fn begin_asking(&self, asked: &Askable, now: UnixMillis) -> Result<Option<Asking>> {
        let id = asked.account.as_str();
        let mut change = self.change().await?;
        let begun = sqlx::query(BEGIN)
            .bind(id)
            .bind(now)
            .bind(asked.calls.asked_at)
            .execute(change.sql())
            .await?;
        if begun.rows_affected() == 0 {
            return Ok(None);
        }
        let outgoing = self.outgoing(change.sql(), id, false).await;
        change.commit().await?;
        let id = asked.account.clone();
        Ok(outgoing?.map(|outgoing| Asking {
            outgoing,
            at: now,
            id,
        }))
    }

    /// Keeps what a platform said: Envoys hear of the windows, and that the account is `out` where its quota is used up.
    /// Nothing is kept of an account that has another credential by now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_asking(
        &self,
        asking: &Asking,
        figures: &[Figure],
        out: Option<Out>,
        now: UnixMillis,
    ) -> Result<Vec<Noticed>> {
        let mut change = self.change().await?;
        let told = sqlx::query(TOLD)
            .bind(json_text(&figures))
            .bind(asking.at)
            .bind(asking.id.as_str())
            .bind(signed(asking.outgoing.account.generation))
            .execute(change.sql())
            .await?;
        if told.rows_affected() == 0 {
            return Ok(Vec::new());
        }
        let account = Id::try_from(asking.id.as_str())
            .map_err(|_| corrupt("accounts.id", format!("{:?}", asking.id.as_str())))?;
        let at = u64::try_from(asking.at.0).unwrap_or_default();
        let windows = figures.iter().map(|figure| figure.window.clone());
        let quota = Report::Quota {
            account: account.clone(),
            windows: windows.collect(),
            at,
        };
        let cooling = out
            .zip(quota::used_up())
            .map(|(out, reason)| Report::CoolingDown {
                account: account.clone(),
                scope: Scope::Account,
                until: out.until,
                guessed: out.guessed,
                reason,
                at,
            });
        let reports: Vec<&Report> = [&quota].into_iter().chain(&cooling).collect();
        let mut noticed = Vec::new();
        change
            .take_reports(&account, &reports, now, &mut noticed)
            .await?;
        change.commit().await?;
        Ok(noticed)
    }

    /// Counts a call that told nothing.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn asked_in_vain(&self, asking: &Asking) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query(FAILED)
            .bind(asking.id.as_str())
            .bind(asking.at)
            .execute(change.sql())
            .await?;
        change.commit().await
    }
}

impl Change<'_> {
    /// Forgets what a platform said of an account's quota, and not when it was asked.
    pub(super) async fn forget_quota(&mut self, account: &AccountId) -> Result<()> {
        sqlx::query(FORGET)
            .bind(account.as_str())
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
