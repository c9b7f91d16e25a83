//! One refresh of an account, from its claim to its landing.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{CALL_LIMIT, CLAIM_LIFE, Refreshed, Shared, lock};
use crate::clock::{Clock, UnixMillis};
use crate::credential::Renewal;
use crate::failing::Failure;
use crate::id::AccountId;
use crate::oauth::answer::Outcome;
use crate::refresh::endpoint::TokenEndpoint;
use crate::refresh::ledger::{Claim, Claimed, Ledger, Retry};
use crate::refresh::step::{AccessToken, Step, next_step};

/// The pause before a token is sent again after an unanswered call: what cut the first one off may pass.
const REPLAY_PAUSE: Duration = Duration::from_secs(1);

impl<L: Ledger, E: TokenEndpoint, C: Clock> Shared<L, E, C> {
    /// One refresh, from claim to landing.
    pub(super) async fn fly(&self, account: &AccountId, seen: u64) -> Result<Refreshed, L::Error> {
        let Ok(_slot) = self.slots.acquire().await else {
            return Ok(Refreshed::Busy); // Shutting down.
        };
        let now = self.clock.now();
        let renewal_of = |platform: &str, kind| self.endpoint.renewal(platform, kind);
        let claimed = self
            .ledger
            .claim(account, seen, now, CLAIM_LIFE, &renewal_of);
        let claim = match claimed.await? {
            Claimed::Ours(claim) => *claim,
            Claimed::Busy => return Ok(Refreshed::Busy),
            Claimed::Moved => return Ok(Refreshed::Superseded),
            Claimed::NotRefreshable => return Ok(Refreshed::NotRefreshable),
        };
        lock(&self.reports).answered(account, claim.generation, Instant::now());
        match claim.renewal {
            Renewal::SingleUse => self.spend(claim, now).await,
            Renewal::Reusable | Renewal::Minted | Renewal::None => self.renew(&claim).await,
            Renewal::Person => self.watch(&claim, now).await,
        }
    }

    /// Ends a login that a person alone can renew, if it is over. Until then there is nothing to do for it.
    async fn watch(&self, claim: &Claim, now: UnixMillis) -> Result<Refreshed, L::Error> {
        if claim.credential_expires_at.is_some_and(|end| end <= now) {
            return self.end_login(claim, "its session has ended").await;
        }
        if lock(&self.reports).confirms(&claim.account, claim.generation) {
            let reason = "the platform refuses its session";
            return self.end_login(claim, reason).await;
        }
        let retry = Retry {
            at: now,
            failures: claim.failures,
            failing: claim.failing.clone(),
            unanswered: claim.unanswered,
        };
        self.ledger.retry_later(claim, retry).await?;
        Ok(Refreshed::NotRefreshable)
    }

    /// Makes one call that spends nothing.
    async fn renew(&self, claim: &Claim) -> Result<Refreshed, L::Error> {
        match self.call(claim).await {
            // A refresh token that was to survive its use was replaced: the new one exists nowhere else.
            Outcome::Fresh(grant)
                if claim.renewal == Renewal::Reusable && grant.refresh.is_some() =>
            {
                Ok(self.commit(claim, grant).await)
            }
            Outcome::Fresh(grant) if grant.access.is_some() => {
                let now = self.clock.now();
                let (told, owner) = (grant.login_end(), grant.vars.clone());
                let (credential, credential_expires_at) = grant.over(&claim.credential, None);
                let stored = self
                    .ledger
                    .commit(claim, &credential, credential_expires_at, now);
                Ok(if stored.await? {
                    self.note_login_end(claim, told).await;
                    self.note_owner(claim, &owner).await;
                    self.done(claim)
                } else {
                    Refreshed::Superseded
                })
            }
            Outcome::Fresh(_) => {
                let reason = "the answer has no access token".to_owned();
                self.later(claim, None, Failure::Troubled, reason).await
            }
            Outcome::Permanent { reason } => self.end_login(claim, &reason).await,
            Outcome::Transient {
                retry_after,
                how,
                reason,
            } => self.later(claim, retry_after, how, reason).await,
            Outcome::Page { reason } => self.later(claim, None, Failure::Troubled, reason).await,
            Outcome::NotSent { reason } | Outcome::Unknown { reason } => {
                self.later(claim, None, Failure::Unreached, reason).await
            }
        }
    }

    async fn call(&self, claim: &Claim) -> Outcome {
        let proxy = claim.proxy.as_ref();
        let call = self
            .endpoint
            .refresh(&claim.platform, &claim.credential, proxy);
        timeout(CALL_LIMIT, call)
            .await
            .unwrap_or_else(|_| Outcome::Unknown {
                reason: "no answer in time".into(),
            })
    }

    /// Spends a refresh token that works once, by the laws.
    async fn spend(&self, mut claim: Claim, mut now: UnixMillis) -> Result<Refreshed, L::Error> {
        let mut intended = claim.unanswered == 0; // By the claim itself.
        loop {
            match next_step(&claim, self.standing(&claim, now), self.settings.grace, now) {
                Step::Call => {}
                Step::Hold => return self.hold(&claim, now).await,
                Step::GiveUp => {
                    return self
                        .end_login(
                            &claim,
                            "the refresh token may be spent: two calls went unanswered, or an older copy of the database was put back",
                        )
                        .await;
                }
            }
            if !std::mem::take(&mut intended)
                && !self.ledger.intend(&claim, now, CLAIM_LIFE).await?
            {
                return Ok(Refreshed::Superseded);
            }
            match self.call(&claim).await {
                Outcome::Fresh(grant) => return Ok(self.commit(&claim, grant).await),
                Outcome::Permanent { reason } => return self.end_login(&claim, &reason).await,
                Outcome::Transient {
                    retry_after,
                    how,
                    reason,
                } => return self.later(&claim, retry_after, how, reason).await,
                Outcome::NotSent { reason } => {
                    return self.later(&claim, None, Failure::Unreached, reason).await;
                }
                // It counts as one call without an answer, however often it comes: such pages alone never end a login.
                Outcome::Page { reason } => {
                    claim.unanswered = claim.unanswered.max(1);
                    claim.first_unanswered_at.get_or_insert(now);
                    return self.later(&claim, None, Failure::Troubled, reason).await;
                }
                Outcome::Unknown { reason } => {
                    warn!(
                        account = claim.name,
                        reason, "a refresh call went unanswered"
                    );
                    claim.unanswered += 1;
                    claim.first_unanswered_at.get_or_insert(now);
                    sleep(REPLAY_PAUSE).await;
                    now = self.clock.now();
                }
            }
        }
    }

    /// Returns what is known of the use of an access token.
    fn standing(&self, claim: &Claim, now: UnixMillis) -> AccessToken {
        let reports = lock(&self.reports);
        let (account, generation) = (&claim.account, claim.generation);
        let is_over = claim.credential_expires_at.is_none_or(|end| end <= now);
        if is_over || reports.confirms(account, generation) {
            AccessToken::OfNoUse
        } else if reports.names(account, generation) {
            AccessToken::Doubted
        } else {
            AccessToken::Serves
        }
    }
}
