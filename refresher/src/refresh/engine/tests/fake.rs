//! A ledger in memory, an authorization server with rotating, reuse-detecting refresh tokens, and processes that crash.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

use super::*;
use crate::credential::{Credential, CredentialKind, OAuthTokens};
use crate::egress::Proxy;
use crate::failing::Failing;
use crate::oauth::answer::{Grant, Outcome};
use crate::oauth::claims::IDENTITY;
use crate::refresh::ledger::{Claim, Claimed, RenewalOf, Retry, Vars};

/// The life of an access token.
pub const LIFE: Duration = Duration::from_secs(40 * 60);
/// The wall clock when a world begins.
const EPOCH: UnixMillis = UnixMillis(1_790_000_000_000);
const ROUND_TRIP: Duration = Duration::from_millis(100);

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn minutes(n: u64) -> Duration {
    seconds(n * 60)
}

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
pub struct Broken;

/// The fate of one call.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Answered,
    /// Answered after 20 seconds.
    Slow,
    LoseRequest,
    LoseAnswer,
    /// Taken by the server, answered after the client has given up.
    TooSlow,
    NoConnection,
    /// Something before the server answers with a page of its own.
    Page,
    Busy,
    /// "No", and no word on whether the login has ended.
    Refused,
    /// "Not now" after 20 seconds, and not for half an hour.
    BusyForLong,
}

/// The world outside the engines.
pub struct World {
    renewal: Renewal,
    started: Instant,
    accounts: Mutex<Vec<Row>>,
    in_flight: Mutex<(usize, usize)>,
    pub skew: AtomicI64,
    pub down: AtomicBool,
    pub server_grace: AtomicBool,
    pub broken_commits: AtomicU32,
    /// The seconds that what was read of the ledger takes to arrive.
    pub slow_reads: AtomicU64,
    /// The life of the server's tokens.
    pub life_millis: AtomicU64,
    /// Broken laws, in words.
    pub violations: Mutex<Vec<String>>,
}

struct Row {
    kind: CredentialKind,
    account: AccountId,
    // The ledger's side.
    generation: u64,
    refresh: String,
    issued_at: UnixMillis,
    credential_expires_at: UnixMillis,
    retry_at: Option<UnixMillis>,
    failures: u32,
    failing: Option<Failing>,
    unanswered: u32,
    /// The intents that were ever noted.
    journaled: u32,
    first_unanswered_at: Option<UnixMillis>,
    claim: Option<(String, Instant)>,
    reason: Option<String>,
    /// The owner, as the server told it.
    owner: Vars,
    // The server's side.
    n: usize,
    serial: u32,
    current: String,
    /// The last token that was spent, and for what.
    spent: Option<String>,
    revoked: bool,
    fates: VecDeque<Fate>,
    calls: u32,
    in_flight: u32,
    /// Refresh tokens whose fate an engine was told.
    answered: Vec<String>,
    unanswered_calls: HashMap<String, u32>,
}

impl World {
    /// A world of accounts whose refresh tokens work once.
    pub fn new(accounts: usize) -> Arc<World> {
        World::of(accounts, Renewal::SingleUse)
    }

    /// A world of accounts that are renewed so.
    pub fn of(accounts: usize, renewal: Renewal) -> Arc<World> {
        let row = |n| Row {
            account: AccountId::random(),
            kind: match renewal {
                Renewal::Person => CredentialKind::Session,
                _ => CredentialKind::OAuth,
            },
            generation: 1,
            refresh: token(n, 0),
            issued_at: EPOCH,
            credential_expires_at: EPOCH.plus(LIFE),
            retry_at: None,
            failures: 0,
            failing: None,
            unanswered: 0,
            journaled: 0,
            first_unanswered_at: None,
            claim: None,
            reason: None,
            owner: Vars::new(),
            n,
            serial: 0,
            current: token(n, 0),
            spent: None,
            revoked: false,
            fates: VecDeque::new(),
            calls: 0,
            in_flight: 0,
            answered: Vec::new(),
            unanswered_calls: HashMap::new(),
        };
        Arc::new(World {
            renewal,
            started: Instant::now(),
            accounts: Mutex::new((0..accounts).map(row).collect()),
            in_flight: Mutex::default(),
            skew: AtomicI64::new(0),
            down: AtomicBool::new(false),
            server_grace: AtomicBool::new(true),
            broken_commits: AtomicU32::new(0),
            slow_reads: AtomicU64::new(0),
            life_millis: AtomicU64::new(u64::try_from(LIFE.as_millis()).unwrap()),
            violations: Mutex::default(),
        })
    }

    /// Starts an engine, as a process would.
    pub fn start(self: &Arc<World>, settings: Refresh) -> Process {
        let side = Side {
            world: Arc::clone(self),
            alive: Arc::new(AtomicBool::new(true)),
        };
        let engine = Engine::new(side.clone(), side.clone(), side.clone(), settings);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (engine, shutdown) = (engine.clone(), shutdown.clone());
            async move { engine.run(shutdown).await }
        });
        Process {
            side,
            engine,
            shutdown,
            running,
        }
    }

    fn row<T>(&self, n: usize, look: impl FnOnce(&mut Row) -> T) -> T {
        look(&mut lock(&self.accounts)[n])
    }

    fn row_of<T>(&self, account: &AccountId, look: impl FnOnce(&mut Row) -> T) -> T {
        look(
            lock(&self.accounts)
                .iter_mut()
                .find(|row| row.account == *account)
                .unwrap(),
        )
    }

    pub fn account(&self, n: usize) -> AccountId {
        self.row(n, |row| row.account.clone())
    }

    pub fn calls(&self, n: usize) -> u32 {
        self.row(n, |row| row.calls)
    }

    pub fn owner(&self, n: usize) -> Option<String> {
        let row = &lock(&self.accounts)[n];
        row.owner.get(IDENTITY).cloned()
    }

    pub fn generation(&self, n: usize) -> u64 {
        self.row(n, |row| row.generation)
    }

    pub fn credential_expires_at(&self, n: usize) -> UnixMillis {
        self.row(n, |row| row.credential_expires_at)
    }

    /// Says why the account needs a login, if it does.
    pub fn reason(&self, n: usize) -> Option<String> {
        self.row(n, |row| row.reason.clone())
    }

    /// Returns the kind of its refreshes' failures.
    pub fn failing(&self, n: usize) -> Option<Failing> {
        self.row(n, |row| row.failing.clone())
    }

    pub fn fate(&self, n: usize, fate: Fate) {
        self.row(n, |row| row.fates.push_back(fate));
    }

    pub fn clear_fates(&self, n: usize) {
        self.row(n, |row| row.fates.clear());
    }

    pub fn revoke(&self, n: usize) {
        self.row(n, |row| row.revoked = true);
    }

    /// The calls that the ledger holds for unanswered.
    pub fn journaled(&self, n: usize) -> u32 {
        self.row(n, |row| row.journaled)
    }

    pub fn most_in_flight(&self) -> usize {
        lock(&self.in_flight).1
    }

    /// Returns true if the ledger holds the token that the server would take.
    pub fn agrees(&self, n: usize) -> bool {
        self.row(n, |row| row.refresh == row.current)
    }

    /// True while the access token serves.
    pub fn is_fresh(&self, n: usize) -> bool {
        self.credential_expires_at(n) > self.now()
    }

    /// A person logs in again.
    pub fn log_in(&self, n: usize) {
        let now = self.now();
        self.row(n, |row| {
            row.rotate();
            row.refresh = row.current.clone();
            row.renew(now);
        });
    }

    fn life(&self) -> Duration {
        Duration::from_millis(self.life_millis.load(Ordering::Relaxed))
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(EPOCH.plus(self.started.elapsed()).0 + self.skew.load(Ordering::Relaxed))
    }

    fn violation(&self, law: String) {
        lock(&self.violations).push(law);
    }
}

/// The refresh token of the `n`th account after `serial` rotations.
fn token(n: usize, serial: u32) -> String {
    format!("refresh-{n}-{serial}")
}

fn account_of(token: &str) -> usize {
    token
        .split('-')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap()
}

impl Row {
    fn rotate(&mut self) {
        self.serial += 1;
        self.spent = Some(std::mem::replace(
            &mut self.current,
            token(self.n, self.serial),
        ));
    }

    fn renew(&mut self, now: UnixMillis) {
        self.generation += 1;
        (self.issued_at, self.credential_expires_at) = (now, now.plus(LIFE));
        (self.retry_at, self.first_unanswered_at, self.reason) = (None, None, None);
        (self.failures, self.failing, self.unanswered) = (0, None, 0);
    }

    fn holds(&self, claim: &Claim) -> bool {
        self.generation == claim.generation
            && self
                .claim
                .as_ref()
                .is_some_and(|(token, _)| *token == claim.token)
    }

    fn entry(&self) -> Entry {
        Entry {
            account: self.account.clone(),
            kind: self.kind,
            generation: self.generation,
            issued_at: self.issued_at,
            credential_expires_at: Some(self.credential_expires_at),
            retry_at: self.retry_at,
        }
    }
}

/// A running engine.
pub struct Process {
    side: Side,
    engine: Engine<Side, Side, Side>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Process {
    pub fn engine(&self) -> Engine<Side, Side, Side> {
        self.engine.clone()
    }

    pub fn now(&self) -> UnixMillis {
        self.side.now()
    }

    /// From here on nothing that this process does reaches anything, and nothing reaches it.
    pub fn crash(&self) {
        self.side.alive.store(false, Ordering::Relaxed);
        self.running.abort();
    }

    pub async fn shut_down(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }
}

/// A process's view of the world.
#[derive(Clone)]
pub struct Side {
    world: Arc<World>,
    alive: Arc<AtomicBool>,
}

impl Side {
    async fn breathe(&self) {
        if !self.alive.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// A transaction: a moment, and a crash may come before or after it.
    async fn transact<T>(&self, work: impl FnOnce(&World) -> T) -> T {
        sleep(Duration::from_millis(1)).await;
        self.breathe().await;
        let result = work(&self.world);
        tokio::task::yield_now().await;
        self.breathe().await;
        result
    }
}

impl Clock for Side {
    fn now(&self) -> UnixMillis {
        self.world.now()
    }
}

impl Ledger for Side {
    type Error = Broken;

    async fn note_login_end(
        &self,
        _: &AccountId,
        _: u64,
        _: Option<UnixMillis>,
    ) -> Result<(), Broken> {
        Ok(())
    }

    async fn note_owner(
        &self,
        account: &AccountId,
        generation: u64,
        _: &str,
        told: &Vars,
    ) -> Result<(), Broken> {
        self.world.row_of(account, |row| {
            if row.generation == generation {
                row.owner.clone_from(told);
            }
        });
        Ok(())
    }

    async fn entries(&self) -> Result<Vec<Entry>, Broken> {
        let refreshable = |row: &&Row| row.reason.is_none();
        let entries = self
            .transact(|world| {
                lock(&world.accounts)
                    .iter()
                    .filter(refreshable)
                    .map(Row::entry)
                    .collect()
            })
            .await;
        sleep(seconds(self.world.slow_reads.load(Ordering::Relaxed))).await;
        Ok(entries)
    }

    async fn claim(
        &self,
        account: &AccountId,
        generation: u64,
        now: UnixMillis,
        life: Duration,
        renewal_of: RenewalOf<'_>,
    ) -> Result<Claimed, Broken> {
        let renewal = renewal_of("test", CredentialKind::OAuth);
        let claim = |row: &mut Row| {
            if row.reason.is_some() {
                return Claimed::NotRefreshable;
            }
            if row.generation != generation {
                return Claimed::Moved;
            }
            if row
                .claim
                .as_ref()
                .is_some_and(|(_, lapses)| *lapses > Instant::now())
            {
                return Claimed::Busy;
            }
            let token = crate::id::random_base32(16);
            row.claim = Some((token.clone(), Instant::now() + life));
            let claim = Claim {
                account: row.account.clone(),
                name: "test".into(),
                platform: "test".into(),
                generation,
                base_url: None,
                proxy: None,
                token,
                credential: Credential::OAuth(OAuthTokens {
                    access: "access".into(),
                    refresh: row.refresh.clone().into(),
                    id: None,
                    client: None,
                }),
                renewal,
                credential_expires_at: Some(row.credential_expires_at),
                login_ends_at: None,
                failures: row.failures,
                failing: row.failing.clone(),
                unanswered: row.unanswered,
                first_unanswered_at: row.first_unanswered_at,
            };
            if renewal == Renewal::SingleUse {
                row.unanswered = row.unanswered.max(1);
                row.journaled += 1;
                row.first_unanswered_at.get_or_insert(now);
            }
            Claimed::Ours(Box::new(claim))
        };
        Ok(self.transact(|world| world.row_of(account, claim)).await)
    }

    async fn intend(&self, claim: &Claim, now: UnixMillis, life: Duration) -> Result<bool, Broken> {
        let intend = |row: &mut Row| {
            let ours = row.holds(claim);
            if ours {
                row.unanswered += 1;
                row.journaled += 1;
                row.first_unanswered_at.get_or_insert(now);
                row.claim = Some((claim.token.clone(), Instant::now() + life));
            }
            ours
        };
        Ok(self
            .transact(|world| world.row_of(&claim.account, intend))
            .await)
    }

    async fn commit(
        &self,
        claim: &Claim,
        credential: &Credential,
        credential_expires_at: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<bool, Broken> {
        let broken = &self.world.broken_commits;
        if broken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
        {
            return Err(Broken);
        }
        let commit = |row: &mut Row| {
            let current = row.generation == claim.generation;
            if current {
                row.refresh = refresh_token(credential).into();
                row.renew(now);
                row.credential_expires_at = credential_expires_at.unwrap();
                row.claim.take_if(|(token, _)| *token == claim.token);
            }
            current
        };
        Ok(self
            .transact(|world| world.row_of(&claim.account, commit))
            .await)
    }

    async fn retry_later(&self, claim: &Claim, retry: Retry) -> Result<(), Broken> {
        let note = |row: &mut Row| {
            if row.holds(claim) {
                (row.retry_at, row.failures, row.unanswered) =
                    (Some(retry.at), retry.failures, retry.unanswered);
                row.failing = retry.failing;
                if retry.unanswered == 0 {
                    row.first_unanswered_at = None;
                }
                row.claim = None;
            }
        };
        self.transact(|world| world.row_of(&claim.account, note))
            .await;
        Ok(())
    }

    async fn needs_login(&self, claim: &Claim, reason: &str) -> Result<bool, Broken> {
        let end = |row: &mut Row| {
            let ours = row.holds(claim);
            if ours {
                (row.reason, row.claim) = (Some(reason.to_owned()), None);
            }
            ours
        };
        Ok(self
            .transact(|world| world.row_of(&claim.account, end))
            .await)
    }
}

/// Counts a call in flight, also one that the engine gives up.
struct InFlight<'a>(&'a World, AccountId);

impl<'a> InFlight<'a> {
    fn new(world: &'a World, account: AccountId) -> InFlight<'a> {
        world.row_of(&account, |row| {
            row.calls += 1;
            row.in_flight += 1;
            if row.in_flight > 1 {
                world.violation(format!("{} calls in flight for one account", row.in_flight));
            }
        });
        let mut in_flight = lock(&world.in_flight);
        in_flight.0 += 1;
        in_flight.1 = in_flight.1.max(in_flight.0);
        InFlight(world, account)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.row_of(&self.1, |row| row.in_flight -= 1);
        lock(&self.0.in_flight).0 -= 1;
    }
}

impl TokenEndpoint for Side {
    fn renewal(&self, _platform: &str, _kind: CredentialKind) -> Renewal {
        self.world.renewal
    }

    async fn refresh(
        &self,
        _platform: &str,
        credential: &Credential,
        _proxy: Option<&Proxy>,
    ) -> Outcome {
        self.breathe().await;
        let sent = refresh_token(credential);
        let world = &self.world;
        let account = world.row(account_of(sent), |row| row.account.clone());
        let in_flight = InFlight::new(world, account.clone());
        let fate = world.row_of(&account, |row| {
            let is_spent = row.answered.iter().any(|known| known == sent);
            if world.renewal == Renewal::SingleUse && is_spent {
                world.violation(format!("{sent} was sent again after its answer"));
            }
            row.fates.pop_front().unwrap_or(Fate::Answered)
        });
        if world.down.load(Ordering::Relaxed) {
            return Outcome::Transient {
                retry_after: None,
                how: Failure::Troubled,
                reason: "HTTP 503".into(),
            };
        }
        match fate {
            Fate::NoConnection => {
                return Outcome::NotSent {
                    reason: "connection refused".into(),
                };
            }
            Fate::Busy => {
                return Outcome::Transient {
                    retry_after: None,
                    how: Failure::Troubled,
                    reason: "HTTP 429".into(),
                };
            }
            Fate::Refused => {
                return Outcome::Transient {
                    retry_after: None,
                    how: Failure::Refused,
                    reason: "HTTP 403".into(),
                };
            }
            Fate::Page => {
                return Outcome::Page {
                    reason: "a page".into(),
                };
            }
            Fate::BusyForLong => {
                sleep(seconds(20)).await;
                return Outcome::Transient {
                    retry_after: Some(minutes(30)),
                    how: Failure::Troubled,
                    reason: "HTTP 503".into(),
                };
            }
            Fate::Answered | Fate::Slow | Fate::LoseRequest | Fate::LoseAnswer | Fate::TooSlow => {}
        }
        world.row_of(&account, |row| {
            *row.unanswered_calls.entry(sent.to_owned()).or_default() += 1
        });
        let outcome = world.row_of(&account, |row| {
            let grace = world.server_grace.load(Ordering::Relaxed);
            let takes = !row.revoked
                && (world.renewal != Renewal::SingleUse
                    || row.current == sent
                    || (grace && row.spent.as_deref() == Some(sent)));
            if matches!(fate, Fate::LoseRequest) {
                return Outcome::Unknown {
                    reason: "reset".into(),
                };
            }
            if !takes {
                return Outcome::Permanent {
                    reason: "refresh_token_reused (HTTP 401)".into(),
                };
            }
            if world.renewal == Renewal::SingleUse && row.current == sent {
                row.rotate();
            }
            let access = SecretString::from(format!("access-{}", row.serial));
            Outcome::Fresh(Grant {
                access: Some((access, Some(world.now().plus(world.life())))),
                refresh: Some(row.current.clone().into()),
                id: None,
                login_ends_at: None,
                is_too_long: false,
                vars: Vars::from([(IDENTITY.to_owned(), format!("org-{}", row.n))]),
            })
        });
        let round_trip = match fate {
            Fate::Slow => seconds(20),
            Fate::TooSlow => seconds(50),
            _ => ROUND_TRIP,
        };
        sleep(round_trip).await;
        drop(in_flight);
        self.breathe().await;
        if matches!(fate, Fate::LoseAnswer | Fate::LoseRequest) {
            return Outcome::Unknown {
                reason: "reset".into(),
            };
        }
        world.row_of(&account, |row| {
            row.answered.push(sent.to_owned());
            row.unanswered_calls.remove(sent);
        });
        outcome
    }
}

impl World {
    /// The most calls with one token that stayed unanswered.
    pub fn most_unanswered(&self, n: usize) -> u32 {
        self.row(n, |row| {
            row.unanswered_calls.values().copied().max().unwrap_or(0)
        })
    }
}

fn refresh_token(credential: &Credential) -> &str {
    match credential {
        Credential::OAuth(tokens) => tokens.refresh.expose_secret(),
        other => panic!("{other:?}"),
    }
}
