//! The refresh engine: drives [`schedule`](super::schedule) over the store and the token endpoint.
//!
//! Its laws, each held by a test:
//!
//! - One token call in flight for an account, across processes: whoever calls holds the ledger's claim, and a call is
//!   cut off before the claim can lapse.
//! - Nobody's cancellation cuts off a call: each runs as a task of its own.
//!
//! For refresh tokens that work once ([`Renewal::SingleUse`]) besides:
//!
//! - An intent is durable before a call leaves, and the new tokens are durable before anyone hears of them.
//! - A refresh token whose call was answered is never sent again, unless the answer was "not now".
//! - At most two calls with one token stay unanswered. After the first, the token is sent once more if it is still the
//!   store's (somebody else may have won): within the server's presumed grace for that, or else when the access token
//!   is of no more use and there is nothing left to lose.
//!
//! Any other renewal spends nothing: it leaves no intents, and a call without an answer is one more failure to back off
//! from.

mod ending;
mod flight;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::endpoint::TokenEndpoint;
use super::ledger::{Entry, Ledger};
use super::reports::RefusalReports;
use super::schedule::{self, BACKOFF_LIMIT, Jitter};
use crate::clock::{Clock, UnixMillis};
use crate::config;
use crate::credential::CredentialKind;
use crate::failing::Failure;
use crate::id::AccountId;

/// Token calls in flight at once, all accounts together: a start with hundreds of accounts due must not look like an
/// attack to the token endpoint.
pub const CALLS_LIMIT: usize = 8;
/// The longest call. The client's own timeout is shorter; this one makes the claim's life safe whatever it does.
pub const CALL_LIMIT: Duration = Duration::from_secs(35);
/// The life of a claim without a sign of life from its holder: a call and ample time to store its answer.
pub const CLAIM_LIFE: Duration = Duration::from_secs(60);
/// The longest sleep between two looks at the ledger: bounds what a jump of the clock, or an account stored by another
/// process, can delay.
const SLEEP_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a look at an account that came to nothing, so that a fault cannot make the loop spin.
const HICCUP: Duration = Duration::from_secs(1);
/// The time that a shutdown waits for calls in flight.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(40);

/// The outcome of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// New tokens are stored, as this generation.
    Done(u64),
    /// The account already has a newer generation than the one that was to be refreshed.
    Superseded,
    /// Not now.
    Later {
        /// The time when it will be tried again.
        at: UnixMillis,
        /// The kind of the failure; none where no call was made.
        how: Option<Failure>,
        /// The reason.
        reason: String,
    },
    /// The login has ended.
    NeedsLogin {
        /// The reason.
        reason: String,
    },
    /// Another process is at it.
    Busy,
    /// There is nothing to refresh: no such account, no refresh token, or it already needs a login.
    NotRefreshable,
}

type Flight<L> = Option<Result<Refreshed, Arc<<L as Ledger>::Error>>>;

/// See the module's documentation. Cheap to clone; all clones are one engine.
pub struct Engine<L: Ledger, E, C> {
    shared: Arc<Shared<L, E, C>>,
}

impl<L: Ledger, E, C> Clone for Engine<L, E, C> {
    fn clone(&self) -> Self {
        Engine {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<L: Ledger, E, C> fmt::Debug for Engine<L, E, C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Engine").finish_non_exhaustive()
    }
}

struct Shared<L: Ledger, E, C> {
    ledger: L,
    endpoint: E,
    clock: C,
    settings: config::Refresh,
    slots: Semaphore,
    flights: Mutex<HashMap<AccountId, watch::Receiver<Flight<L>>>>,
    reports: Mutex<RefusalReports>,
    wake: Notify,
    tasks: TaskTracker,
}

impl<L: Ledger, E: TokenEndpoint, C: Clock> Engine<L, E, C> {
    /// An engine at rest: [`Engine::run`] makes it look at the ledger.
    pub fn new(ledger: L, endpoint: E, clock: C, settings: config::Refresh) -> Self {
        let shared = Shared {
            ledger,
            endpoint,
            clock,
            settings,
            slots: Semaphore::new(CALLS_LIMIT),
            flights: Mutex::default(),
            reports: Mutex::default(),
            wake: Notify::new(),
            tasks: TaskTracker::new(),
        };
        Engine {
            shared: Arc::new(shared),
        }
    }

    /// Refreshes what is due until `shutdown`, then waits for the calls in flight, at most [`SHUTDOWN_LIMIT`].
    pub async fn run(&self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let pause = self.start_due().await;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.shared.wake.notified() => {}
                () = sleep(pause) => {}
            }
        }
        self.shared.slots.close();
        self.shared.tasks.close();
        if timeout(SHUTDOWN_LIMIT, self.shared.tasks.wait())
            .await
            .is_err()
        {
            warn!("shutting down with refresh calls in flight; they count as unanswered");
        }
    }

    /// Notes that a request met a refusal of `generation` of an account's token. If that is the current generation it is
    /// refreshed at once, however many say so. It ends no login: it is one caller's word.
    pub fn report_unauthorized(&self, account: &AccountId, generation: u64) {
        lock(&self.shared.reports).note(account, generation);
        self.shared.wake.notify_one();
    }

    /// Notes that the platform refused `generation` of an account's token when we asked about it ourselves. What only a
    /// person can renew has ended then.
    pub fn confirm_unauthorized(&self, account: &AccountId, generation: u64) {
        lock(&self.shared.reports).confirm(account, generation);
        self.shared.wake.notify_one();
    }

    /// Refreshes an account now if `seen` is still its generation, whatever the schedule says, and waits for the
    /// outcome. If a refresh of the account is in flight, its outcome is the answer.
    pub async fn refresh(
        &self,
        account: &AccountId,
        seen: u64,
    ) -> Result<Refreshed, Arc<L::Error>> {
        let mut flight = self.start(account, seen);
        let landed = flight.wait_for(Option::is_some).await;
        // The sender goes without a word only if its task panicked or the engine is shutting down.
        landed
            .ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or(Ok(Refreshed::Busy))
    }

    /// Starts whatever is due; how long to sleep until the next look.
    async fn start_due(&self) -> Duration {
        // What lands while the ledger is read may be read as it was before, without the pause that it was given.
        let flying: HashSet<AccountId> = lock(&self.shared.flights).keys().cloned().collect();
        let entries = match self.shared.ledger.entries().await {
            Ok(entries) => entries,
            Err(error) => {
                error!(%error, "cannot read which accounts are due for a refresh");
                return HICCUP;
            }
        };
        lock(&self.shared.reports).keep(
            &entries
                .iter()
                .map(|entry| &entry.account)
                .collect::<HashSet<_>>(),
        );
        let mut pause = SLEEP_LIMIT;
        for entry in entries {
            if flying.contains(&entry.account)
                || lock(&self.shared.flights).contains_key(&entry.account)
            {
                continue; // Its landing wakes the loop.
            }
            let wait = self.shared.wait(&entry);
            if wait.is_zero() {
                self.start(&entry.account, entry.generation);
            } else {
                pause = pause.min(wait);
            }
        }
        pause
    }

    /// Joins the flight of an account, or starts one as a task that nobody's cancellation reaches.
    fn start(&self, account: &AccountId, seen: u64) -> watch::Receiver<Flight<L>> {
        let mut flights = lock(&self.shared.flights);
        if let Some(flight) = flights.get(account) {
            return flight.clone();
        }
        let (landing, flight) = watch::channel(None);
        flights.insert(account.clone(), flight.clone());
        let landed = Landed {
            shared: Arc::clone(&self.shared),
            account: account.clone(),
        };
        self.shared.tasks.spawn(async move {
            let outcome = landed.shared.fly(&landed.account, seen).await.map_err(Arc::new);
            let idle = match &outcome {
                Err(error) => {
                    error!(account = %landed.account, %error, "a refresh was given up for now: the store failed");
                    true
                }
                Ok(outcome) => matches!(outcome, Refreshed::Busy | Refreshed::NotRefreshable),
            };
            landing.send_replace(Some(outcome));
            if idle {
                sleep(HICCUP).await;
            }
        });
        flight
    }
}

/// Ends a flight, also if its task panics.
struct Landed<L: Ledger, E, C> {
    shared: Arc<Shared<L, E, C>>,
    account: AccountId,
}

impl<L: Ledger, E, C> Drop for Landed<L, E, C> {
    fn drop(&mut self) {
        lock(&self.shared.flights).remove(&self.account);
        self.shared.wake.notify_one();
    }
}

impl<L: Ledger, E: TokenEndpoint, C: Clock> Shared<L, E, C> {
    /// Returns the time until an account is due.
    fn wait(&self, entry: &Entry) -> Duration {
        let now = self.clock.now();
        let jitter = Jitter::of(&entry.account, entry.generation);
        let (issued, expires) = (entry.issued_at, entry.credential_expires_at);
        let scheduled = match entry.kind {
            CredentialKind::Session => expires.map_or(Duration::MAX, |end| end.since(now)),
            _ => schedule::wait(issued, expires, self.settings.floor, jitter, now),
        };
        let reported = self.reported_wait(entry);
        let wanted = reported.map_or(scheduled, |reported| reported.min(scheduled));
        // A pause longer than any we ask for was noted under a clock that has since jumped back.
        let retry = entry.retry_at.map_or(Duration::ZERO, |at| at.since(now));
        wanted.max(if retry > BACKOFF_LIMIT {
            Duration::ZERO
        } else {
            retry
        })
    }

    /// Returns the time until an account is due for a report; `None` if none asks for anything.
    fn reported_wait(&self, entry: &Entry) -> Option<Duration> {
        let (account, generation) = (&entry.account, entry.generation);
        let reports = lock(&self.reports);
        let is_session = entry.kind == CredentialKind::Session;
        // Nothing but its end could come of it, and that is not one caller's to say.
        if is_session && !reports.confirms(account, generation) {
            return None;
        }
        reports.wait(account, generation, Instant::now())
    }
}

/// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
