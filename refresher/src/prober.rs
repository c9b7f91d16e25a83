//! Asks platforms about the accounts that one client key says are dead: whether they are is not one caller's to say.
//!
//! The store says who is to be asked about and keeps what came of it ([`crate::probe::schedule`]). Here calls leave, one
//! after the other: one for an account at a time, whichever process makes it, and a few a minute in all.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::advice;
use crate::clock::Clock;
use crate::credential::CredentialKind;
use crate::fault::Fault;
use crate::id::AccountId;
use crate::platform::probe::Probe;
use crate::platform::{Catalog, Profile};
use crate::probe::schedule::{self, Next};
use crate::probe::{self, Finding};
use crate::store::{self, Due, MayAsk, Outgoing, Probing, Store};

/// The longest pause between two looks at what is due: what another process has stored is seen then at the latest.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The pause between two looks while the store changes all the time.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The life of the right to ask: longer than a call and what is stored of it take.
const CLAIM_LIFE: Duration = Duration::from_secs(30);

/// Hears that a platform refused the credential of an account's generation.
pub type OnRefused = Arc<dyn Fn(&AccountId, u64) + Send + Sync>;

/// Asks platforms about accounts.
pub trait Asks: Send + Sync {
    /// Asks the platform of `profile` about an account.
    fn ask(
        &self,
        profile: &Profile,
        probe: &Probe,
        outgoing: &Outgoing,
    ) -> impl Future<Output = Finding> + Send;
}

/// Asks platforms themselves.
#[derive(Debug)]
pub struct Platforms<C>(pub C);

impl<C: Clock> Asks for Platforms<C> {
    async fn ask(&self, profile: &Profile, probe: &Probe, outgoing: &Outgoing) -> Finding {
        let profile = profile.by(outgoing.proxy.as_ref());
        probe::ask(&profile, probe, &outgoing.account, outgoing.tls, &self.0).await
    }
}

/// Asks about accounts until it is dropped.
pub struct Prober<A, C> {
    /// The record of what is due, and of what came of it.
    pub store: Store,
    /// The platforms.
    pub catalog: Catalog,
    /// The asker of platforms.
    pub asks: A,
    /// The time.
    pub clock: C,
    /// Told where a refresh may help, or a person's login.
    pub on_refused: OnRefused,
}

impl<A: Asks, C: Clock> Prober<A, C> {
    /// Makes the calls that are due, until dropped. A call that is cut off counts as made.
    pub async fn run(self) {
        let mut revisions = self.store.revisions();
        loop {
            revisions.mark_unchanged();
            let pause = self.turn().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot ask platforms about accounts that are said to be dead");
                LOOK_INTERVAL
            });
            tokio::select! {
                () = sleep(pause) => {}
                _ = revisions.changed() => sleep(LOOK_PAUSE).await,
            }
        }
    }

    /// Makes the calls that are due; the pause until the next look.
    async fn turn(&self) -> store::Result<Duration> {
        let mut pause = LOOK_INTERVAL;
        for due in self.store.due_probes().await? {
            let wait = due.due_at.since(self.clock.now());
            match wait.is_zero() {
                // One that cannot be asked must not keep the others from being asked.
                true => {
                    if let Err(error) = self.probe(&due).await {
                        let account = &due.account;
                        tracing::warn!(%account, %error, "cannot ask about an account that is said to be dead");
                        self.store.call_off_probe(account).await?;
                    }
                }
                false => pause = pause.min(wait.max(LOOK_PAUSE)),
            }
        }
        Ok(pause)
    }

    async fn probe(&self, due: &Due) -> store::Result<()> {
        let profile = self.catalog.usable(&due.platform).ok();
        let asked = profile.and_then(|profile| {
            let probe = profile.probe.as_ref()?;
            let tells = schedule::is_refusal(&due.reason) || probe.disproves(&due.reason);
            tells.then_some((profile, probe))
        });
        // No call could tell: it is a second client key's to say.
        let Some((profile, probe)) = asked else {
            return self.store.call_off_probe(&due.account).await;
        };
        let now = self.clock.now();
        let may = self.store.begin_probe(&due.account, now, CLAIM_LIFE);
        let MayAsk::Yes(probing) = may.await? else {
            return Ok(());
        };
        let finding = self.asks.ask(profile, probe, &probing.outgoing).await;
        let account = &probing.outgoing.account;
        let renewable =
            due.kind == CredentialKind::Session || account.credential_expires_at.is_some();
        if finding == Finding::Refused && renewable {
            (self.on_refused)(&due.account, account.generation);
        }
        let reason = &probing.reason;
        let disproves = schedule::is_refusal(reason) || probe.disproves(reason);
        let now = self.clock.now();
        let next = schedule::next(&finding, reason, disproves, renewable, probing.asked, now);
        if self.store.end_probe(&probing, &next, now).await? {
            tell(&probing, due, &finding, &next);
        }
        Ok(())
    }
}

/// Says in the log what came of a call.
fn tell(probing: &Probing, due: &Due, finding: &Finding, next: &Next) {
    let (account, said) = (&probing.name, probing.reason.as_str());
    match next {
        Next::Dead(reason) => {
            let cure = advice::in_log(&Fault::Dead {
                account: account.clone(),
                platform: due.platform.clone(),
                has_key: due.kind.is_key(),
            });
            tracing::warn!(
                account,
                reason = reason.as_str(),
                cure,
                "an account is dead and out of use: the platform was asked, and says that it is of no use"
            );
        }
        Next::Alive => tracing::info!(
            account,
            said,
            "an account is alive: one client key was told that it is of no use, and the platform was asked"
        ),
        Next::Again(_) => tracing::debug!(account, said, ?finding, "a platform is asked again"),
        Next::Rest => tracing::info!(
            account,
            said,
            ?finding,
            "the platform does not tell whether an account is of use; it serves the client keys that were told nothing else"
        ),
    }
}

#[cfg(test)]
mod tests;
