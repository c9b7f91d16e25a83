//! The time for which the new tokens of a refresh exist in memory alone: from the token endpoint's answer until they are on the
//! disk. A kill within this window costs the account its login, so its p99 should be at most 10 ms.
//!
//! `cargo bench -p refresher --profile daemon --bench window` keeps as many refreshes in flight as the engine allows, in
//! a new database in cargo's folder for temporary files or in the folder that is named, and prints the window beside what
//! that disk takes to keep 4 KiB, since most of the window is waiting for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::Rng;
use refresher::clock::{Clock, SystemClock, UnixMillis};
use refresher::config::Refresh;
use refresher::credential::{Credential, CredentialKind, OAuthTokens, Renewal};
use refresher::egress::Proxy;
use refresher::id::AccountId;
use refresher::keys::KeySource;
use refresher::keys::file::KeyFile;
use refresher::oauth::answer::{Grant, Outcome};
use refresher::refresh::endpoint::TokenEndpoint;
use refresher::refresh::engine::{CALLS_LIMIT, Engine, Refreshed};
use refresher::refresh::ledger::{Claim, Claimed, Entry, Ledger, RenewalOf, Retry, Vars};
use refresher::state::StateDir;
use refresher::store::{Error, NewAccount, Result, Store, Terms};

const ACCOUNTS: usize = 64;
/// The number of times that each account is refreshed.
const ROUNDS: u64 = 40;
/// The least and the most that the token endpoint takes to answer, in milliseconds.
const ANSWER_MILLIS: std::ops::Range<u64> = 20..100;
/// As large as Codex's.
const TOKEN_BYTES: usize = 2048;
/// The number of times that the disk is asked by itself.
const PROBES: usize = 400;

/// The store, and how long each commit of new tokens took.
struct Timed {
    store: Store,
    windows: Arc<Mutex<Vec<Duration>>>,
}

impl Ledger for Timed {
    type Error = Error;

    async fn note_owner(
        &self,
        account: &AccountId,
        generation: u64,
        identity: &str,
        told: &Vars,
    ) -> Result<()> {
        let noted = self.store.note_owner(account, generation, identity, told);
        noted.await
    }

    async fn entries(&self) -> Result<Vec<Entry>> {
        self.store.entries().await
    }

    async fn claim(
        &self,
        account: &AccountId,
        seen: u64,
        now: UnixMillis,
        life: Duration,
        renewal_of: RenewalOf<'_>,
    ) -> Result<Claimed> {
        let claim = self.store.claim(account, seen, now, life, renewal_of);
        claim.await
    }

    async fn intend(&self, claim: &Claim, now: UnixMillis, life: Duration) -> Result<bool> {
        self.store.intend(claim, now, life).await
    }

    async fn commit(
        &self,
        claim: &Claim,
        credential: &Credential,
        credential_expires_at: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<bool> {
        let answered = Instant::now();
        let stored = self
            .store
            .commit(claim, credential, credential_expires_at, now)
            .await;
        self.windows
            .lock()
            .expect("no panic")
            .push(answered.elapsed());
        stored
    }

    async fn retry_later(&self, claim: &Claim, retry: Retry) -> Result<()> {
        self.store.retry_later(claim, retry).await
    }

    async fn note_login_end(
        &self,
        account: &AccountId,
        generation: u64,
        end: Option<UnixMillis>,
    ) -> Result<()> {
        self.store.note_login_end(account, generation, end).await
    }

    async fn needs_login(&self, claim: &Claim, reason: &str) -> Result<bool> {
        self.store.needs_login(claim, reason).await
    }
}

/// Answers every call with new tokens, after a while.
struct Endpoint;

impl TokenEndpoint for Endpoint {
    fn renewal(&self, _platform: &str, _kind: CredentialKind) -> Renewal {
        Renewal::SingleUse
    }

    async fn refresh(
        &self,
        _platform: &str,
        _credential: &Credential,
        _proxy: Option<&Proxy>,
    ) -> Outcome {
        let pause = rand::rng().random_range(ANSWER_MILLIS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let credential_expires_at = SystemClock.now().plus(Duration::from_secs(3600));
        Outcome::Fresh(Grant {
            access: Some(("a".repeat(TOKEN_BYTES).into(), Some(credential_expires_at))),
            refresh: Some("r".repeat(64).into()),
            id: Some("i".repeat(TOKEN_BYTES).into()),
            login_ends_at: None,
            is_too_long: false,
            vars: BTreeMap::new(),
        })
    }
}

#[tokio::main]
async fn main() {
    // Cargo's own `--bench` is passed over.
    let named = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let folder = named.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let windows = windows(folder.path()).await;
    println!("| µs | p50 | p90 | p99 | most |\n|---|--:|--:|--:|--:|");
    print("the disk: 4 KiB written and kept", probe(folder.path()));
    print(
        &format!("the window, {CALLS_LIMIT} refreshes at once"),
        windows,
    );
}

async fn windows(folder: &Path) -> Vec<Duration> {
    let state = StateDir::open(&folder.join("state")).expect("a state folder");
    let store = {
        let _lock = state.lock_setup().expect("nobody else's");
        let keys = KeySource::Vault(Box::new(KeyFile(state.key())));
        Store::open(&state, keys).await.expect("a new database")
    };
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        let name = format!("account {number}");
        let new = NewAccount {
            name: &name,
            platform: "codex",
            credential: Credential::OAuth(OAuthTokens {
                access: "a".into(),
                refresh: "r".into(),
                id: None,
                client: None,
            }),
            vars: BTreeMap::from([("account_id".to_owned(), format!("ws-{number}"))]),
            credential_expires_at: None,
            base_url: None,
        };
        store
            .save_account(new, &Terms::default(), true, SystemClock.now())
            .await
            .expect("a new account");
    }
    accounts.extend(
        store
            .entries()
            .await
            .expect("a database")
            .into_iter()
            .map(|entry| entry.account),
    );
    let windows = Arc::default();
    let ledger = Timed {
        store: store.clone(),
        windows: Arc::clone(&windows),
    };
    let engine = Engine::new(ledger, Endpoint, SystemClock, Refresh::default());
    let refreshing = join_all(accounts.iter().map(|account| async {
        let mut generation = 1;
        while generation <= ROUNDS {
            match engine
                .refresh(account, generation)
                .await
                .expect("a database")
            {
                // It may be what came of the last one, as long as that has not landed.
                Refreshed::Done(reached) => generation = reached,
                other => panic!("{other:?}"),
            }
            tokio::task::yield_now().await;
        }
    }));
    // As `serve` runs it.
    tokio::select! {
        _ = refreshing => {}
        () = store.keep_log_short() => {}
    }
    std::mem::take(&mut windows.lock().expect("no panic"))
}

/// The time that the disk takes, asked by one alone.
fn probe(folder: &Path) -> Vec<Duration> {
    let mut file = File::create(folder.join("probe")).expect("a file");
    let times = (0..PROBES).map(|_| {
        let begun = Instant::now();
        file.write_all(&[0; 4096]).expect("room");
        file.sync_data().expect("a disk");
        begun.elapsed()
    });
    times.collect()
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "| {what} | {} | {} | {} | {} |",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}
