//! Asks platforms how much is used of their accounts' quotas, where their profiles say how.
//!
//! The store says who is to be asked about and keeps what came of it; when, is [`crate::probe::quota`]'s. One call at a
//! time leaves here, for an account whose last one was long ago, whichever process made it.

use std::time::Duration;

use tokio::time::sleep;

use crate::clock::{Clock, UnixMillis};
use crate::platform::quota::QuotaEndpoint;
use crate::platform::{Catalog, Profile};
use crate::probe::quota::{self, Figure};
use crate::prober::Platforms;
use crate::store::{self, Askable, Noticed, Outgoing, Store};

/// The longest pause between two looks at what is due: a new account is asked about then at the latest.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The pause between two calls, whatever accounts they are about.
const CALL_PAUSE: Duration = Duration::from_secs(1);

/// Asks platforms about quotas.
pub trait AsksQuota: Send + Sync {
    /// Asks the platform of `profile` about an account.
    ///
    /// # Errors
    /// In a sentence, if it tells nothing.
    fn ask_quota(
        &self,
        profile: &Profile,
        endpoint: &QuotaEndpoint,
        outgoing: &Outgoing,
    ) -> impl Future<Output = Result<Vec<Figure>, String>> + Send;
}

impl<C: Clock> AsksQuota for Platforms<C> {
    async fn ask_quota(
        &self,
        profile: &Profile,
        endpoint: &QuotaEndpoint,
        outgoing: &Outgoing,
    ) -> Result<Vec<Figure>, String> {
        let profile = profile.by(outgoing.proxy.as_ref());
        quota::ask(&profile, endpoint, &outgoing.account, outgoing.tls, &self.0).await
    }
}

/// Asks about quotas until it is dropped.
pub struct Quotas<A, C> {
    /// The record of what is due, and of what came of it.
    pub store: Store,
    /// The platforms.
    pub catalog: Catalog,
    /// The asker of platforms.
    pub asks: A,
    /// The time.
    pub clock: C,
}

impl<A: AsksQuota, C: Clock> Quotas<A, C> {
    /// Makes the calls that are due, until dropped. A call that is cut off counts as made.
    pub async fn run(self) {
        loop {
            let pause = self.turn().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot ask platforms about the quotas of accounts");
                LOOK_INTERVAL
            });
            sleep(pause).await;
        }
    }

    /// Makes the call that has been due for longest, if one is; the pause until the next look.
    async fn turn(&self) -> store::Result<Duration> {
        let now = self.clock.now();
        let mut next: Option<(Option<UnixMillis>, &Profile, &QuotaEndpoint, Askable)> = None;
        for profile in self.catalog.all_usable() {
            let Some(endpoint) = &profile.quota_endpoint else {
                continue;
            };
            for one in self.store.askable(&profile.id).await? {
                let due = quota::due(endpoint, &one.calls, now);
                let waits_since = one.calls.asked_at;
                if due <= now && next.as_ref().is_none_or(|(since, ..)| waits_since < *since) {
                    next = Some((waits_since, profile, endpoint, one));
                }
            }
        }
        let Some((_, profile, endpoint, one)) = next else {
            return Ok(LOOK_INTERVAL);
        };
        self.ask(profile, endpoint, &one).await?;
        Ok(CALL_PAUSE)
    }

    async fn ask(
        &self,
        profile: &Profile,
        endpoint: &QuotaEndpoint,
        one: &Askable,
    ) -> store::Result<()> {
        let account = &one.name;
        let asking = match self.store.begin_asking(one, self.clock.now()).await {
            Ok(Some(asking)) => asking,
            Ok(None) => return Ok(()),
            // It counts as asked about, and keeps nobody else from it.
            Err(error) => {
                tracing::warn!(account, %error, "cannot ask about the quota of an account");
                return Ok(());
            }
        };
        let told = self.asks.ask_quota(profile, endpoint, &asking.outgoing);
        let figures = match told.await {
            Ok(figures) => figures,
            Err(why) => {
                tracing::debug!(
                    account,
                    why,
                    "a platform does not tell the quota of an account"
                );
                return self.store.asked_in_vain(&asking).await;
            }
        };
        let now = self.clock.now();
        let out = quota::out(&figures, endpoint.every, now);
        for noticed in self.store.end_asking(&asking, &figures, out, now).await? {
            if let Noticed::CoolingDown {
                account, cooldown, ..
            } = noticed
            {
                let end = UnixMillis(i64::try_from(cooldown.until).unwrap_or(i64::MAX));
                tracing::info!(
                    account,
                    seconds = end.since(now).as_secs(),
                    guessed = cooldown.guessed,
                    "the quota of an account is used up, as its platform says that was asked: other accounts serve until then"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
