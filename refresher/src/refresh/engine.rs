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

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use latchkey::header::MAX_VALUE_BYTES;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::endpoint::TokenEndpoint;
use super::ledger::{Claim, Claimed, Entry, Ledger, Retry, Vars};
use super::reports::Reports;
use super::schedule::{self, BACKOFF_LIMIT, Jitter, backoff};
use super::step::{AccessToken, Step, next_step};
use crate::advice;
use crate::clock::{Clock, UnixMillis};
use crate::config;
use crate::credential::{CredentialKind, Renewal};
use crate::failing::{Failing, Failure};
use crate::fault::Fault;
use crate::id::AccountId;
use crate::oauth::answer::{Grant, Outcome};
use crate::oauth::claims::IDENTITY;

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
/// The pause before a token is sent again after an unanswered call: what cut the first one off may pass.
const REPLAY_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a look at an account that came to nothing, so that a fault cannot make the loop spin.
const HICCUP: Duration = Duration::from_secs(1);
/// The longest pause between two tries to store tokens that exist nowhere else.
const COMMIT_PAUSE_LIMIT: Duration = Duration::from_secs(10);
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
    reports: Mutex<Reports>,
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

    /// One refresh, from claim to landing.
    async fn fly(&self, account: &AccountId, seen: u64) -> Result<Refreshed, L::Error> {
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

    /// Notes what the answer `told` of the login's end. Lost with a crash, it is told again by the next refresh.
    async fn note_login_end(&self, claim: &Claim, told: Option<Option<UnixMillis>>) {
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
    async fn note_owner(&self, claim: &Claim, told: &Vars) {
        if !told.contains_key(IDENTITY) {
            return;
        }
        let (account, generation) = (&claim.account, claim.generation + 1);
        let noted = self.ledger.note_owner(account, generation, IDENTITY, told);
        if let Err(error) = noted.await {
            warn!(account = claim.name, %error, "cannot note whose account it is");
        }
    }

    fn done(&self, claim: &Claim) -> Refreshed {
        let generation = claim.generation + 1;
        info!(
            account = claim.name,
            platform = claim.platform,
            generation,
            "refreshed"
        );
        Refreshed::Done(generation)
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

    /// Stores the new tokens, however often that takes: they exist nowhere else and the old ones are spent.
    async fn commit(&self, claim: &Claim, grant: Grant) -> Refreshed {
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

    async fn later(
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
    async fn hold(&self, claim: &Claim, now: UnixMillis) -> Result<Refreshed, L::Error> {
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

    async fn end_login(&self, claim: &Claim, reason: &str) -> Result<Refreshed, L::Error> {
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

/// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
