//! The health of accounts as Envoys learn it: cooldowns, and how much of the quota is used.
//!
//! Each report says when it was learned. So reports may come twice, late and in any order, and lead to the same state.
//! Envoys merge that state into their own by the same rules (`latchkey::health`).

pub(super) mod reports;

use std::collections::BTreeMap;

use latchkey::health::{MAX_ACCOUNT_ENTRIES, quota::KnownQuota};
use latchkey::id::Id;
use latchkey::label::ModelName;
use latchkey::snapshot::{self, Cooldown, Record};
use latchkey::sync::report::Report;
use latchkey::verdict::{Reason, Scope, quota::Window};

use super::accounts::known;
use super::sql::{self, JsonText, json_text, signed};
use super::sqlite::{self, Connection};
use super::switches::set_status;
use super::{Change, Result, Status, Store, corrupt};
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::id::AccountId;

/// The time for which a guess is kept after its end, in milliseconds: an Envoy that starts meanwhile lets one request
/// try, as the others do.
const GUESS_KEPT_MS: u64 = 10 * 60 * 1000;

/// The beginning of the reason that an account shows where one client key alone was told that it is of no use.
const SUSPICION: &str = "one client key was told that it is of no use (";

/// The health of one account.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// Its cooldowns, one for each scope. Some may have ended.
    pub entries: Vec<Cooldown>,
    /// The windows of its quota, and the time at which they were reported.
    pub quota: KnownQuota,
    /// Nothing that was learned until then counts.
    reset_at: u64,
    /// No guess about all of the account that was learned until then counts.
    recovered_at: u64,
    /// No death that was met until then counts: the platform was asked then, and the account was alive.
    alive_at: u64,
}

/// A change that a report made, for the log. Names are the accounts'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noticed {
    /// An account cools down.
    CoolingDown {
        /// The account's name.
        account: String,
        /// The end and the reason.
        cooldown: Cooldown,
        /// True if the one request that was let through meanwhile found it still so.
        again: bool,
    },
    /// An account has answered: guesses about it are over.
    Recovered {
        /// The account's name.
        account: String,
    },
    /// One client key has met an account that is of no use. It serves the others until that is confirmed.
    Suspected {
        /// The account's name.
        account: String,
        /// The platform's reason, in a word.
        reason: String,
        /// The party that met it.
        met: Met,
    },
    /// An account is dead until somebody sees to it; it has left the snapshot.
    Dead {
        /// The account's name.
        account: String,
        /// Its platform's id.
        platform: String,
        /// The kind of its credential.
        kind: CredentialKind,
        /// The platform's reason, in a word.
        reason: String,
        /// The party that met it last.
        met: Met,
    },
}

/// The request by which something was learned, as far as its Envoy said: the ids of its client key and its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Met {
    /// The client key.
    pub key: Option<Id>,
    /// The request.
    pub request: Option<Id>,
}

impl Health {
    /// Takes a report about the account at `now`. True if it says anything new.
    fn take(&mut self, report: &Report, now: u64) -> bool {
        match report {
            Report::CoolingDown {
                scope,
                until,
                guessed,
                reason,
                at,
                ..
            } => self.hold(
                Cooldown {
                    scope: scope.clone(),
                    until: *until,
                    guessed: *guessed,
                    reason: reason.clone(),
                    at: *at,
                },
                now,
            ),
            Report::Recovered { model, at, .. } => {
                self.recovered_at = self.recovered_at.max(*at);
                let before = self.entries.len();
                let model = model.as_ref().map(ModelName::as_str);
                self.entries
                    .retain(|one| !one.guessed || one.at > *at || !one.scope.covers(model));
                self.entries.len() != before
            }
            Report::Quota { windows, at, .. } => {
                let newer = KnownQuota::new(windows.clone(), *at);
                let is_newer = *at > self.quota.at.max(self.reset_at);
                if is_newer {
                    self.quota = self.quota.merged(&newer);
                }
                is_newer
            }
            Report::Dead { .. } | Report::Unauthorized { .. } => false,
        }
    }

    /// The scopes that cool down at `now`.
    fn cooling_scopes(&self, now: u64) -> Vec<Scope> {
        let running = self.entries.iter().filter(|one| !one.has_ended(now));
        running.map(|cooldown| cooldown.scope.clone()).collect()
    }

    fn hold(&mut self, new: Cooldown, now: u64) -> bool {
        let is_over = new.has_ended(now)
            || new.at <= self.reset_at
            || new.guessed && new.scope == Scope::Account && new.at <= self.recovered_at;
        if is_over {
            return false;
        }
        self.entries.retain(|one| !one.has_ended(now));
        match self.entries.iter_mut().find(|one| one.scope == new.scope) {
            Some(cooldown) if cooldown.yields_to(&new, now) => *cooldown = new,
            Some(_) => return false,
            None => {
                if self.entries.len() >= MAX_ACCOUNT_ENTRIES {
                    let ends = |(_, cooldown): &(usize, &Cooldown)| cooldown.until;
                    let first = self.entries.iter().enumerate().min_by_key(ends);
                    if let Some((index, _)) = first {
                        self.entries.swap_remove(index);
                    }
                }
                self.entries.push(new);
            }
        }
        true
    }
}

/// A row of `health`.
#[derive(sqlx::FromRow)]
struct HealthRow {
    account: String,
    #[sqlx(try_from = "JsonText<Vec<Window>>")]
    windows: Vec<Window>,
    #[sqlx(try_from = "i64")]
    windows_at: u64,
    #[sqlx(try_from = "i64")]
    reset_at: u64,
    #[sqlx(try_from = "i64")]
    recovered_at: u64,
    #[sqlx(try_from = "i64")]
    alive_at: u64,
}

/// A row of `health_entries`.
#[derive(sqlx::FromRow)]
struct EntryRow {
    account: String,
    #[sqlx(try_from = "JsonText<Scope>")]
    scope: Scope,
    #[sqlx(try_from = "i64")]
    until: u64,
    guessed: bool,
    #[sqlx(try_from = "String")]
    reason: Reason,
    #[sqlx(try_from = "i64")]
    at: u64,
}

macro_rules! select_health {
    ($rest:literal) => {
        concat!(
            "SELECT account, windows, windows_at, reset_at, recovered_at, alive_at FROM health ",
            $rest
        )
    };
}

macro_rules! select_entries {
    ($rest:literal) => {
        concat!(
            "SELECT account, scope, until, guessed = 1 AS guessed, reason, at FROM health_entries ",
            $rest
        )
    };
}

sql::statements! {
    ALL = select_health!("");
    ALL_ENTRIES = select_entries!("ORDER BY account, scope");
    OF_ACCOUNT = select_health!("WHERE account = $1");
    ENTRIES_OF_ACCOUNT = select_entries!("WHERE account = $1 ORDER BY scope");
    REVISION = "SELECT revision FROM health WHERE account = $1";
    SAVE = "INSERT INTO health (account, windows, windows_at, reset_at, recovered_at, alive_at, revision) \
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account) DO UPDATE SET windows = excluded.windows, \
            windows_at = excluded.windows_at, reset_at = excluded.reset_at, recovered_at = excluded.recovered_at, \
            alive_at = excluded.alive_at, revision = excluded.revision";
    SAVE_ENTRY = "INSERT INTO health_entries (account, scope, until, guessed, reason, at) \
                  VALUES ($1, $2, $3, $4, $5, $6)";
    DELETE_ENTRIES = "DELETE FROM health_entries WHERE account = $1";
    PRUNE = "DELETE FROM health_entries WHERE until + guessed * $1 <= $2";
}

impl From<HealthRow> for Health {
    /// The entries are rows of their own.
    fn from(row: HealthRow) -> Health {
        Health {
            entries: Vec::new(),
            quota: KnownQuota {
                at: row.windows_at,
                windows: row.windows,
            },
            reset_at: row.reset_at,
            recovered_at: row.recovered_at,
            alive_at: row.alive_at,
        }
    }
}

impl From<EntryRow> for Cooldown {
    fn from(row: EntryRow) -> Cooldown {
        Cooldown {
            scope: row.scope,
            until: row.until,
            guessed: row.guessed,
            reason: row.reason,
            at: row.at,
        }
    }
}

impl Store {
    /// Takes reports of Envoys. One about no account of ours, out of date or known already changes nothing.
    ///
    /// # Errors
    /// If the database fails; nothing is kept then.
    pub async fn take_reports(&self, reports: &[Report], now: UnixMillis) -> Result<Vec<Noticed>> {
        let mut of_accounts: BTreeMap<&Id, Vec<&Report>> = BTreeMap::new();
        for report in reports {
            match report {
                Report::Unauthorized { account, .. }
                | Report::CoolingDown { account, .. }
                | Report::Dead { account, .. }
                | Report::Recovered { account, .. }
                | Report::Quota { account, .. } => {
                    of_accounts.entry(account).or_default().push(report);
                }
            }
        }
        if of_accounts.is_empty() {
            return Ok(Vec::new());
        }
        let mut change = self.change().await?;
        let mut noticed = Vec::new();
        for (account, reports) in of_accounts {
            change
                .take_reports(account, &reports, now, &mut noticed)
                .await?;
        }
        change.commit().await?;
        Ok(noticed)
    }

    /// The health of every account of which anything is known, by its id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn health(&self) -> Result<BTreeMap<String, Health>> {
        let mut transaction = sqlite::begin_read(&self.pool).await?;
        let rows: Vec<HealthRow> = sqlx::query_as(ALL).fetch_all(&mut *transaction).await?;
        let of_account = |row: HealthRow| (row.account.clone(), row.into());
        let mut all: BTreeMap<String, Health> = rows.into_iter().map(of_account).collect();
        let entries: Vec<EntryRow> = sqlx::query_as(ALL_ENTRIES)
            .fetch_all(&mut *transaction)
            .await?;
        for entry in entries {
            if let Some(health) = all.get_mut(&entry.account) {
                health.entries.push(entry.into());
            }
        }
        Ok(all)
    }

    /// Has every Envoy forget an account's cooldowns and quota. One that is dead may serve requests again. Returns the
    /// status that it has then.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn reset(&self, name: &str, now: UnixMillis) -> Result<Status> {
        let mut change = self.change().await?;
        let account = known(change.sql(), name).await?;
        change.forget_health(&account.id, now).await?;
        let mut status = account.status;
        if status == Status::Dead || is_suspected(status, account.reason.as_deref()) {
            status = Status::Active;
            set_status(&mut change, &account.id, status, None, now).await?;
        }
        change.commit().await?;
        Ok(status)
    }

    /// Deletes cooldowns that have ended. Envoys pass over those by themselves, so that is no news.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn prune_health(&self, now: UnixMillis) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query(PRUNE)
            .bind(signed(GUESS_KEPT_MS))
            .bind(now)
            .execute(change.sql())
            .await?;
        change.commit().await
    }
}

/// Returns true if one client key alone was told that the account is of no use. The reason of an active one may also
/// be a refresh that failed.
pub fn is_suspected(status: Status, reason: Option<&str>) -> bool {
    status == Status::Active && reason.is_some_and(|reason| reason.starts_with(SUSPICION))
}

impl Change<'_> {
    /// Forgets everything that was learned about an account until `now`.
    pub(super) async fn forget_health(&mut self, id: &AccountId, now: UnixMillis) -> Result<()> {
        let reset_at = u64::try_from(now.0).unwrap_or(0);
        let forgotten = Health {
            reset_at,
            ..Health::default()
        };
        self.save_health(id, &forgotten, true).await?;
        self.forget_quota(id).await?;
        self.forget_probe(id).await
    }

    /// Keeps the health of an account; Envoys hear of it if it `is_news`.
    async fn save_health(&mut self, id: &AccountId, health: &Health, is_news: bool) -> Result<()> {
        let known: Option<i64> = sqlx::query_scalar(REVISION)
            .bind(id.as_str())
            .fetch_optional(self.sql())
            .await?;
        let revision = match known {
            Some(revision) if !is_news => revision,
            _ => self.next_revision().await?,
        };
        sqlx::query(SAVE)
            .bind(id.as_str())
            .bind(json_text(&health.quota.windows))
            .bind(signed(health.quota.at))
            .bind(signed(health.reset_at))
            .bind(signed(health.recovered_at))
            .bind(signed(health.alive_at))
            .bind(revision)
            .execute(self.sql())
            .await?;
        sqlx::query(DELETE_ENTRIES)
            .bind(id.as_str())
            .execute(self.sql())
            .await?;
        for cooldown in &health.entries {
            sqlx::query(SAVE_ENTRY)
                .bind(id.as_str())
                .bind(json_text(&cooldown.scope))
                .bind(signed(cooldown.until))
                .bind(i64::from(cooldown.guessed))
                .bind(cooldown.reason.as_str())
                .bind(signed(cooldown.at))
                .execute(self.sql())
                .await?;
        }
        Ok(())
    }
}

/// Has every Envoy forget the deaths of an account that were met until `at`.
pub(super) async fn found_alive(
    change: &mut Change<'_>,
    id: &AccountId,
    at: UnixMillis,
) -> Result<()> {
    let mut health = load(change.sql(), id.as_str()).await?;
    health.alive_at = health.alive_at.max(u64::try_from(at.0).unwrap_or(0));
    change.save_health(id, &health, true).await
}

/// The record of an account's health, for Envoys.
pub(super) async fn record(connection: &mut Connection, id: &str) -> Result<Record> {
    let health = load(connection, id).await?;
    Ok(Record::Health(snapshot::Health {
        id: Id::try_from(id).map_err(|_| corrupt("health.account", format!("{id:?}")))?,
        entries: health.entries,
        windows_at: health.quota.at,
        windows: health.quota.windows,
        reset_at: health.reset_at,
        alive_at: health.alive_at,
    }))
}

async fn load(connection: &mut Connection, id: &str) -> Result<Health> {
    let row: Option<HealthRow> = sqlx::query_as(OF_ACCOUNT)
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else {
        return Ok(Health::default());
    };
    let entries: Vec<EntryRow> = sqlx::query_as(ENTRIES_OF_ACCOUNT)
        .bind(id)
        .fetch_all(connection)
        .await?;
    Ok(Health {
        entries: entries.into_iter().map(Cooldown::from).collect(),
        ..row.into()
    })
}

#[cfg(test)]
mod tests {
    use latchkey::verdict::Reason;
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn account() -> Id {
        Id::try_from("acc_1").unwrap()
    }

    fn limited(until: u64, guessed: bool, at: u64) -> Report {
        Report::CoolingDown {
            account: account(),
            scope: Scope::Account,
            until,
            guessed,
            reason: Reason::rate_limited(),
            at,
        }
    }

    fn recovered(at: u64) -> Report {
        Report::Recovered {
            account: account(),
            model: None,
            at,
        }
    }

    #[test]
    fn a_late_report_of_a_guess_that_is_over_is_passed_over() {
        let mut health = Health::default();
        assert!(health.take(&limited(NOW + 50, true, NOW - 9), NOW));
        assert!(
            !health.take(&limited(NOW + 50, true, NOW - 9), NOW),
            "twice"
        );
        assert!(health.take(&recovered(NOW - 5), NOW));
        assert!(!health.take(&limited(NOW + 90, true, NOW - 6), NOW), "late");
        assert!(
            health.take(&limited(NOW + 90, false, NOW - 6), NOW),
            "no guess"
        );
        health.reset_at = NOW - 1;
        assert!(
            !health.take(&limited(NOW + 99, false, NOW - 1), NOW),
            "before the reset"
        );
    }

    proptest! {
        /// Two Envoys' reports lead to the same state in whichever order they come.
        #[test]
        fn the_order_of_reports_does_not_matter(
            one in (0..1_000_u64, 0..100_u64),
            other in (0..1_000_u64, 100..200_u64),
            guessed: bool,
            answered in 0..300_u64,
        ) {
            let limited = |(until, at): (u64, u64)| limited(NOW + until, guessed, NOW - 400 + at);
            let mut reports = [limited(one), limited(other), recovered(NOW - 400 + answered)];
            let mut states = Vec::new();
            for turn in 0..6 {
                reports.swap(turn % 2, turn % 2 + 1);
                let mut health = Health::default();
                for report in &reports {
                    health.take(report, NOW);
                }
                states.push(health);
            }
            for state in &states[1..] {
                prop_assert_eq!(state, &states[0]);
            }
        }
    }
}
