//! Notices that the database was put back from an older copy. A *mark* beside it, `high-water.json`, says how far it had
//! come: its history, its revision, and every account's generation. Where the database is behind its mark, refresh
//! tokens in it have been spent since, and a spent one must not be sent: the platform may end the login for it.

use std::collections::BTreeMap;
use std::path::Path;

use latchkey::snapshot::page::Epoch;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::begin_read;
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::files::owned::read_owned_text;
use crate::files::replace_file;
use crate::state::StateDir;
use crate::store::{Account, Result, Status, Store, head, sql, unsigned};

/// The most bytes read of a mark: those of 100,000 accounts and more.
const MAX_MARK_BYTES: u64 = 8 * 1024 * 1024;
/// The pause between two marks. Changes that a kill leaves unmarked are not missed when they are lost.
const MARK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(5);
/// The unanswered calls that the engine sees of a spent token: it sends such a token no more, and uses the access token
/// to its end.
const SPENT_CALLS: i64 = 2;

/// The reason why an account of an older copy ends with its access token.
pub const SPENT: &str = "its refresh token was spent after this copy of the database was made";

/// The warning where no mark can be written.
pub const UNMARKED: &str = "cannot mark how far the database is; an older copy would go unnoticed";

sql::statements! {
    GENERATIONS = "SELECT id, generation FROM accounts";
    DISTRUST = "UPDATE accounts SET unanswered = $1, first_unanswered_at = $2, reason = $3, updated_at = $2, \
                revision = $4 WHERE id = $5 AND kind = 'oauth' AND status <> 'needs_login' RETURNING name, platform";
}

/// A database that was put back from an older copy: its later changes are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderCopy {
    /// The accounts whose refresh tokens were spent after the copy was made.
    pub spent: Vec<Spent>,
}

/// An account whose refresh token must not be sent any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// The account's name.
    pub account: String,
    /// Its platform's id.
    pub platform: String,
}

/// The point that a database has reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    epoch: Epoch,
    revision: u64,
    generations: BTreeMap<String, u64>,
}

impl Mark {
    /// True if a database that is at `now` has lost something since this mark: its revision went back in one history,
    /// or an account's generation did, which grows in all of them.
    fn is_ahead_of(&self, now: &Mark) -> bool {
        let older = self.epoch == now.epoch && self.revision > now.revision;
        older || self.generations.keys().any(|id| self.outdates(now, id))
    }

    /// True if an account of the database at `now` had a later generation at this mark.
    fn outdates(&self, now: &Mark, id: &str) -> bool {
        let generations = self.generations.get(id).zip(now.generations.get(id));
        generations.is_some_and(|(marked, found)| marked > found)
    }
}

impl Store {
    /// Compares the database with its mark, then marks how far it is. A database behind its mark begins a new history,
    /// and refresh tokens that have been spent since are not sent. Hold [`StateDir::lock_setup`] meanwhile.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn check_high_water(
        &self,
        state: &StateDir,
        now: UnixMillis,
    ) -> Result<Option<OlderCopy>> {
        let older = match self.mark_ahead(state).await? {
            Some((mark, found)) => Some(OlderCopy {
                spent: self.distrust_spent(&mark, &found, now).await?,
            }),
            None => None,
        };
        // A full disk must not keep anybody from looking.
        if let Err(error) = self.write_mark(state).await {
            tracing::warn!(%error, "{UNMARKED}");
        }
        Ok(older)
    }

    /// Returns what [`Store::check_high_water`] would say, with nothing changed: for those who only look.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn older_copy(&self, state: &StateDir) -> Result<Option<OlderCopy>> {
        let Some((mark, found)) = self.mark_ahead(state).await? else {
            return Ok(None);
        };
        let is_spent = |account: &Account| {
            account.kind == CredentialKind::OAuth
                && account.status != Status::NeedsLogin
                && mark.outdates(&found, account.id.as_str())
        };
        let spent = self.accounts().await?.into_iter().filter(is_spent);
        let spent = spent.map(|account| Spent {
            account: account.name,
            platform: account.platform,
        });
        Ok(Some(OlderCopy {
            spent: spent.collect(),
        }))
    }

    /// The mark and the point of the database, where that is behind.
    async fn mark_ahead(&self, state: &StateDir) -> Result<Option<(Mark, Mark)>> {
        // Before the database is looked at: what others write meanwhile cannot seem lost.
        let mark = read_mark(&state.high_water());
        let found = self.mark().await?;
        Ok(mark
            .filter(|mark| mark.is_ahead_of(&found))
            .map(|mark| (mark, found)))
    }

    /// Marks how far the database is, if it has moved on. Hold [`StateDir::lock_setup`] meanwhile.
    ///
    /// # Errors
    /// If the database fails, or the mark cannot be written.
    pub async fn write_mark(&self, state: &StateDir) -> Result<()> {
        let path = state.high_water();
        let mark = self.mark().await?;
        if read_mark(&path).as_ref() == Some(&mark) {
            return Ok(());
        }
        // A struct of text and numbers always serialises.
        let text = serde_json::to_vec(&mark).unwrap_or_default();
        Ok(replace_file(&path, &text)?)
    }

    /// Writes marks as the database moves on, until dropped. A failure is logged and looked past.
    pub async fn keep_mark(&self, state: &StateDir) {
        let mut revisions = self.revisions();
        while revisions.changed().await.is_ok() {
            let marked = async {
                let _lock = state.lock_setup()?;
                self.write_mark(state).await
            };
            if let Err(error) = marked.await {
                tracing::warn!(%error, "{UNMARKED}");
            }
            sleep(MARK_INTERVAL).await;
        }
    }

    async fn mark(&self) -> Result<Mark> {
        let mut transaction = begin_read(&self.pool).await?;
        let (epoch, revision) = head(&mut transaction).await?;
        let rows: Vec<(String, i64)> = sqlx::query_as(GENERATIONS)
            .fetch_all(&mut *transaction)
            .await?;
        let generations = rows
            .into_iter()
            .map(|(id, generation)| Ok((id, unsigned("accounts.generation", generation)?)));
        Ok(Mark {
            epoch,
            revision,
            generations: generations.collect::<Result<_>>()?,
        })
    }

    /// Begins a new history: Envoy may hold what this database never had. Accounts whose tokens have been replaced since
    /// keep their access token to its end; they are returned.
    async fn distrust_spent(
        &self,
        mark: &Mark,
        found: &Mark,
        now: UnixMillis,
    ) -> Result<Vec<Spent>> {
        let mut change = self.change().await?;
        change.new_epoch().await?;
        let mut spent = Vec::new();
        for id in found
            .generations
            .keys()
            .filter(|id| mark.outdates(found, id))
        {
            let revision = change.next_revision().await?;
            let account: Option<(String, String)> = sqlx::query_as(DISTRUST)
                .bind(SPENT_CALLS)
                .bind(now)
                .bind(SPENT)
                .bind(revision)
                .bind(id)
                .fetch_optional(change.sql())
                .await?;
            spent.extend(account.map(|(account, platform)| Spent { account, platform }));
        }
        change.commit().await?;
        Ok(spent)
    }
}

/// True if a mark says that there was a database.
pub(super) fn is_marked(state: &StateDir) -> bool {
    read_mark(&state.high_water()).is_some()
}

/// Reads the mark, if there is a whole one. A broken mark keeps nobody from starting.
fn read_mark(path: &Path) -> Option<Mark> {
    match read_owned_text(path, MAX_MARK_BYTES) {
        Ok(text) => serde_json::from_str(&text?)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "not a mark of how far the database was; made anew");
            })
            .ok(),
        Err(error) => {
            tracing::warn!(%error, "cannot tell whether the database is an older copy");
            None
        }
    }
}
