//! Stores the new tokens of refreshes, which exist nowhere else yet: those that wait for the writer together go in one
//! transaction, so that none waits for the disk as often as there are others.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::write_queue::Turn;
use crate::clock::UnixMillis;
use crate::credential::Credential;
use crate::keys::seal::Binding;
use crate::refresh::ledger::Claim;
use crate::store::{Change, Result, Store, signed, sql};

sql::statements! {
    CURRENT = "SELECT generation, credential FROM accounts WHERE id = $1";
    STORE = "UPDATE accounts SET generation = $1, credential = $2, issued_at = $3, credential_expires_at = $4, \
             base_url = $8, \
             status = CASE status WHEN 'needs_login' THEN 'active' ELSE status END, \
             reason = CASE WHEN status IN ('disabled', 'dead') THEN reason END, \
             claim_token = nullif(claim_token, $7), \
             claim_until = CASE claim_token WHEN $7 THEN NULL ELSE claim_until END, \
             unanswered = 0, first_unanswered_at = NULL, failures = 0, failing = 'null', \
             retry_at = NULL, updated_at = $3, revision = $5 WHERE id = $6";
}

/// New tokens that wait, at most one for each refresh in flight.
#[derive(Debug, Default)]
pub(in crate::store) struct NewTokens(Mutex<Vec<Waiting>>);

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    credential: Credential,
    credential_expires_at: Option<UnixMillis>,
    now: UnixMillis,
    /// Hears `true` if the generation was still the claim's; dropped if the transaction failed.
    stored: oneshot::Sender<bool>,
}

impl NewTokens {
    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// [`Ledger::commit`](crate::refresh::ledger::Ledger::commit). Whoever gets the turn stores for all who wait, and
    /// alone hears of an error: the others try themselves.
    pub(in crate::store) async fn store_tokens(
        &self,
        claim: &Claim,
        credential: &Credential,
        credential_expires_at: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<bool> {
        loop {
            let (sender, mut stored) = oneshot::channel();
            self.new_tokens.lock().push(Waiting {
                claim: claim.clone(),
                credential: credential.clone(),
                credential_expires_at,
                now,
                stored: sender,
            });
            let answer = loop {
                tokio::select! {
                    biased;
                    answer = &mut stored => break answer,
                    turn = self.writers.urgent() => self.store_waiting(turn).await?,
                }
            };
            if let Ok(stored) = answer {
                return Ok(stored);
            }
        }
    }

    async fn store_waiting(&self, turn: Turn<'_>) -> Result<()> {
        let waiting = mem::take(&mut *self.new_tokens.lock());
        if waiting.is_empty() {
            return Ok(());
        }
        let mut change = self.begin(turn).await?;
        let mut stored = Vec::with_capacity(waiting.len());
        for new in &waiting {
            stored.push(change.store_tokens(new).await?);
        }
        change.commit().await?;
        for (new, stored) in waiting.into_iter().zip(stored) {
            // Nobody listens where the refresh was cancelled.
            let _ = new.stored.send(stored);
        }
        Ok(())
    }
}

impl Change<'_> {
    /// False, and nothing changed, if the account has another generation by now than the claim's, and other tokens.
    async fn store_tokens(&mut self, new: &Waiting) -> Result<bool> {
        let claim = &new.claim;
        let current: Option<(i64, Vec<u8>)> = sqlx::query_as(CURRENT)
            .bind(claim.account.as_str())
            .fetch_optional(self.sql())
            .await?;
        let generation = claim.generation + 1;
        let credential = &new.credential;
        match current {
            Some((current, _)) if current == signed(claim.generation) => {}
            // Whoever stored for all was cancelled when the disk had them and before it could say so.
            Some((current, sealed)) if current == signed(generation) => {
                let binding = Binding {
                    record: claim.account.as_str(),
                    generation,
                    platform: &claim.platform,
                    kind: credential.kind().as_str(),
                    base_url: claim.base_url.as_deref(),
                };
                let stored = self.store.open_credential(binding, &sealed)?;
                return Ok(stored.to_plaintext() == credential.to_plaintext());
            }
            _ => return Ok(false),
        }
        let sealed = self
            .seal(
                claim.account.as_str(),
                generation,
                &claim.platform,
                claim.base_url.as_deref(),
                credential,
            )
            .await?;
        let revision = self.next_revision().await?;
        sqlx::query(STORE)
            .bind(signed(generation))
            .bind(sealed)
            .bind(new.now)
            .bind(new.credential_expires_at)
            .bind(revision)
            .bind(claim.account.as_str())
            .bind(&claim.token)
            .bind(&claim.base_url)
            .execute(self.sql())
            .await?;
        Ok(true)
    }
}
