//! The end of a refresh: what is stored of it, logged, and told.

use std::time::Duration;

use latchkey::header::MAX_VALUE_BYTES;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{Refreshed, Shared};
use crate::advice;
use crate::clock::{Clock, UnixMillis};
use crate::failing::{Failing, Failure};
use crate::fault::Fault;
use crate::oauth::answer::Grant;
use crate::oauth::claims::IDENTITY;
use crate::refresh::endpoint::TokenEndpoint;
use crate::refresh::ledger::{Claim, Ledger, Retry, Vars};
use crate::refresh::schedule::{BACKOFF_LIMIT, Jitter, backoff};

/// The longest pause between two tries to store tokens that exist nowhere else.
const COMMIT_PAUSE_LIMIT: Duration = Duration::from_secs(10);

impl<L: Ledger, E: TokenEndpoint, C: Clock> Shared<L, E, C> {
    /// Stores the new tokens, however often that takes: they exist nowhere else and the old ones are spent.
    pub(super) async fn commit(&self, claim: &Claim, grant: Grant) -> Refreshed {
        if grant.is_too_long {
            warn!(
                account = claim.name,
                platform = claim.platform,
                most_bytes = MAX_VALUE_BYTES,
                "the access token granted is longer than a header may be; the account keeps the one that it has"
            );
        }
        let now = self.clock.now();
        let still_good = claim.credential_expires_at.filter(|end| *end > now);
        let (told, owner) = (grant.login_end(), grant.vars.clone());
        let (credential, credential_expires_at) = grant.over(&claim.credential, still_good);
        let mut failures = 0;
        loop {
            let stored = self
                .ledger
                .commit(claim, &credential, credential_expires_at, now)
                .await;
            match stored {
                Ok(true) => {
                    self.note_login_end(claim, told).await;
                    self.note_owner(claim, &owner).await;
                    return self.done(claim);
                }
                Ok(false) => return Refreshed::Superseded,
                Err(error) => {
                    error!(account = claim.name, %error, "cannot store new tokens; trying until it works");
                    failures += 1;
                    sleep(backoff(failures, None, Jitter::random()).min(COMMIT_PAUSE_LIMIT)).await;
                }
            }
        }
    }

    pub(super) async fn later(
        &self,
        claim: &Claim,
        retry_after: Option<Duration>,
        how: Failure,
        reason: String,
    ) -> Result<Refreshed, L::Error> {
        let now = self.clock.now();
        let failures = claim.failures.saturating_add(1);
        let pause = backoff(failures, retry_after, Jitter::random());
        let at = now.plus(pause);
        warn!(
            account = claim.name,
            reason,
            failures,
            retry_in_seconds = pause.as_secs(),
            "a refresh failed for now"
        );
        let retry = Retry {
            at,
            failures,
            failing: Some(noted(claim, how, &reason, at, now)),
            unanswered: claim.unanswered,
        };
        self.ledger.retry_later(claim, retry).await?;
        let how = Some(how);
        Ok(Refreshed::Later { at, how, reason })
    }

    /// Leaves a token that may be spent alone while the access token still serves.
    pub(super) async fn hold(&self, claim: &Claim, now: UnixMillis) -> Result<Refreshed, L::Error> {
        let at = now
            .plus(BACKOFF_LIMIT)
            .min(claim.credential_expires_at.unwrap_or(now));
        let reason = String::from(
            "the refresh token may be spent, so the access token is used to its end first",
        );
        warn!(account = claim.name, reason, "a refresh is held back");
        let retry = Retry {
            at,
            failures: claim.failures,
            failing: claim.failing.clone(),
            unanswered: claim.unanswered,
        };
        self.ledger.retry_later(claim, retry).await?;
        let how = None;
        Ok(Refreshed::Later { at, how, reason })
    }

    pub(super) async fn end_login(
        &self,
        claim: &Claim,
        reason: &str,
    ) -> Result<Refreshed, L::Error> {
        if !self.ledger.needs_login(claim, reason).await? {
            return Ok(Refreshed::Superseded);
        }
        error!(
            account = claim.name,
            reason,
            cure = advice::in_log(&Fault::NeedsLogin {
                account: claim.name.clone(),
                platform: claim.platform.clone(),
                is_client: claim.credential.is_client(),
            }),
            "the login has ended: a person must see to it"
        );
        Ok(Refreshed::NeedsLogin {
            reason: reason.to_owned(),
        })
    }

    /// Notes what the answer `told` of the login's end. Lost with a crash, it is told again by the next refresh.
    pub(super) async fn note_login_end(&self, claim: &Claim, told: Option<Option<UnixMillis>>) {
        let Some(end) = told.filter(|end| *end != claim.login_ends_at) else {
            return;
        };
        let (account, generation) = (&claim.account, claim.generation + 1);
        let noted = self.ledger.note_login_end(account, generation, end);
        if let Err(error) = noted.await {
            warn!(account = claim.name, %error, "cannot note when the login ends for good");
        }
    }

    /// Has an account that was imported without a name for its owner know it, so that a later login finds it.
    pub(super) async fn note_owner(&self, claim: &Claim, told: &Vars) {
        if !told.contains_key(IDENTITY) {
            return;
        }
        let (account, generation) = (&claim.account, claim.generation + 1);
        let noted = self.ledger.note_owner(account, generation, IDENTITY, told);
        if let Err(error) = noted.await {
            warn!(account = claim.name, %error, "cannot note whose account it is");
        }
    }

    pub(super) fn done(&self, claim: &Claim) -> Refreshed {
        let generation = claim.generation + 1;
        info!(
            account = claim.name,
            platform = claim.platform,
            generation,
            "refreshed"
        );
        Refreshed::Done(generation)
    }
}

/// Returns what is kept of a failure. At each the log says that a person should look, once that is so: they come ever more
/// slowly. `at`: when the next try is.
fn noted(claim: &Claim, how: Failure, reason: &str, at: UnixMillis, now: UnixMillis) -> Failing {
    let failing = Failing::noted(claim.failing.as_ref(), how, reason, now);
    if !failing.is_stuck(claim.credential_expires_at, now) {
        return failing;
    }
    error!(
        account = claim.name,
        reason = failing.reason,
        failing_for_seconds = now.since(failing.since).as_secs(),
        meaning = failing.how.meaning(),
        cure = advice::in_log(&Fault::RefreshLater {
            account: claim.name.clone(),
            platform: claim.platform.clone(),
            how: Some(failing.how),
            is_client: claim.credential.is_client(),
            at: at.0,
        }),
        "an account's access token cannot be renewed: a person should see to it"
    );
    failing
}
