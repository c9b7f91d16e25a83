//! The reports of Envoys about one account: what they change of its health and its status, and who is told.

use latchkey::id::Id;
use latchkey::sync::report::Report;
use latchkey::verdict::Reason;

use super::super::sql;
use super::super::switches::set_status;
use super::super::{Change, Result, Status};
use super::{Health, Met, Noticed, SUSPICION, is_suspected, load};
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::id::AccountId;
use crate::probe::schedule;

/// The account that reports are about.
#[derive(sqlx::FromRow)]
struct ReportedRow {
    name: String,
    platform: String,
    #[sqlx(try_from = "String")]
    kind: CredentialKind,
    #[sqlx(try_from = "String")]
    status: Status,
    reason: Option<String>,
    #[sqlx(try_from = "i64")]
    generation: u64,
    /// A refresh call went unanswered, so the refresh token may be spent.
    unanswered: bool,
}

/// An account as reports find it, and change it.
struct Reported {
    id: AccountId,
    row: ReportedRow,
    health: Health,
    now: UnixMillis,
}

/// The word of a report that an account is dead.
struct Death<'a> {
    generation: u64,
    reason: &'a Reason,
    at: u64,
    /// The platform itself says so, not one client key.
    confirmed: bool,
    met: Met,
}

impl ReportedRow {
    /// True if word of `generation` is of the credential that the account has, and serves with.
    fn is_current(&self, generation: u64) -> bool {
        generation == self.generation && self.status == Status::Active
    }

    /// True if a refusal of its credential may be the end of it. Where a refresh cures it, the refresh tells.
    fn may_end_by_refusal(&self) -> bool {
        match self.kind {
            CredentialKind::ApiKey | CredentialKind::Session => true,
            CredentialKind::OAuth => self.unanswered,
            CredentialKind::ClientCredentials | CredentialKind::SignedKey => false,
        }
    }
}

sql::statements! {
    REPORTED = "SELECT name, platform, kind, status, reason, generation, unanswered > 0 AS unanswered FROM accounts \
                WHERE id = $1";
}

impl Change<'_> {
    /// Takes reports about one account, and adds to `noticed` what they changed.
    pub(in crate::store) async fn take_reports(
        &mut self,
        id: &Id,
        reports: &[&Report],
        now: UnixMillis,
        noticed: &mut Vec<Noticed>,
    ) -> Result<()> {
        let row: Option<ReportedRow> = sqlx::query_as(REPORTED)
            .bind(id.as_str())
            .fetch_optional(self.sql())
            .await?;
        let (Some(row), Some(id)) = (row, AccountId::parse(id.as_str())) else {
            return Ok(());
        };
        let health = load(self.sql(), id.as_str()).await?;
        let mut account = Reported {
            id,
            row,
            health,
            now,
        };
        let mut changed = false;
        let millis = u64::try_from(now.0).unwrap_or(0);
        for report in reports {
            let earlier = account.health.cooling_scopes(millis);
            let is_news = account.health.take(report, millis);
            changed |= is_news;
            match report {
                Report::Dead {
                    generation,
                    reason,
                    at,
                    confirmed,
                    key,
                    request,
                    ..
                } => {
                    let death = Death {
                        generation: *generation,
                        reason,
                        at: *at,
                        confirmed: *confirmed,
                        met: Met {
                            key: key.clone(),
                            request: request.clone(),
                        },
                    };
                    self.take_death(&mut account, death, noticed).await?;
                }
                Report::Unauthorized { generation, .. } => {
                    self.take_refusal(&account, *generation).await?;
                }
                Report::Recovered { .. } => {
                    self.take_recovery(&mut account, is_news, noticed).await?;
                }
                Report::CoolingDown { scope, .. } if is_news => {
                    let mut entries = account.health.entries.iter();
                    let held = entries.find(|held| held.scope == *scope);
                    noticed.extend(held.map(|held| Noticed::CoolingDown {
                        account: account.row.name.clone(),
                        cooldown: held.clone(),
                        again: earlier.contains(scope),
                    }));
                }
                Report::CoolingDown { .. } | Report::Quota { .. } => {}
            }
        }
        // That a guess is over is kept also where none was known: its report may be late.
        let is_recovery = |report: &&Report| matches!(report, Report::Recovered { .. });
        if changed || reports.iter().any(is_recovery) {
            self.save_health(&account.id, &account.health, changed)
                .await?;
        }
        Ok(())
    }

    /// Takes the word that the account is dead. The platform's own ends it; one client key's has the platform asked.
    async fn take_death(
        &mut self,
        account: &mut Reported,
        death: Death<'_>,
        noticed: &mut Vec<Noticed>,
    ) -> Result<()> {
        let Reported {
            id,
            row,
            health,
            now,
        } = account;
        let is_known =
            |one: &Noticed| matches!(one, Noticed::Dead { account, .. } if *account == row.name);
        if !row.is_current(death.generation)
            || death.at <= health.reset_at.max(health.alive_at)
            || noticed.iter().any(is_known)
        {
            return Ok(());
        }
        let reason = death.reason.as_str();
        if death.confirmed {
            let why = format!("the platform says that it is of no use ({reason})");
            set_status(self, id, Status::Dead, Some(&why), *now).await?;
            noticed.push(Noticed::Dead {
                account: row.name.clone(),
                platform: row.platform.clone(),
                kind: row.kind,
                reason: reason.to_owned(),
                met: death.met,
            });
            return Ok(());
        }
        self.plan_probe(id, row.generation, death.reason, *now)
            .await?;
        let why = format!("{SUSPICION}{reason}); not confirmed");
        if row.reason.as_ref() != Some(&why) {
            set_status(self, id, Status::Active, Some(&why), *now).await?;
            noticed.push(Noticed::Suspected {
                account: row.name.clone(),
                reason: reason.to_owned(),
                met: death.met,
            });
            row.reason = Some(why);
        }
        Ok(())
    }

    /// Takes the word that the account's credential is refused. One caller's word is not enough: the platform itself is
    /// asked.
    async fn take_refusal(&mut self, account: &Reported, generation: u64) -> Result<()> {
        let Reported { id, row, now, .. } = account;
        if !row.is_current(generation) || !row.may_end_by_refusal() {
            return Ok(());
        }
        match schedule::refused() {
            Some(reason) => self.plan_probe(id, row.generation, &reason, *now).await,
            None => Ok(()),
        }
    }

    /// Takes the word that the account has answered, which ends a suspicion.
    async fn take_recovery(
        &mut self,
        account: &mut Reported,
        is_news: bool,
        noticed: &mut Vec<Noticed>,
    ) -> Result<()> {
        let Reported { id, row, now, .. } = account;
        let was_suspected = is_suspected(row.status, row.reason.as_deref());
        if was_suspected {
            set_status(self, id, Status::Active, None, *now).await?;
            row.reason = None;
        }
        if is_news || was_suspected {
            noticed.push(Noticed::Recovered {
                account: row.name.clone(),
            });
        }
        Ok(())
    }
}
