use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use latchkey::snapshot::page::Page;
use latchkey::snapshot::{Health, Record};
use latchkey::verdict::quota::Window;

use super::*;
use crate::credential::Credential;
use crate::id::AccountId;
use crate::state::StateDir;
use crate::store::{NewAccount, Saved, Terms};

const NOW: i64 = 1_790_000_000_000;
const MINUTE: i64 = 60_000;

/// A clock that a test moves.
#[derive(Debug, Clone)]
struct Hand(Arc<AtomicI64>);

impl Clock for Hand {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

/// Platforms that say what a test has them say, and count who was asked about.
#[derive(Clone)]
struct Script {
    says: Arc<Mutex<Result<Vec<Figure>, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl AsksQuota for Script {
    async fn ask_quota(
        &self,
        profile: &Profile,
        _: &QuotaEndpoint,
        outgoing: &Outgoing,
    ) -> Result<Vec<Figure>, String> {
        assert_eq!(profile.record.id, outgoing.account.platform);
        let name = outgoing.account.name.as_str().to_owned();
        self.asked.lock().unwrap().push(name);
        self.says.lock().unwrap().clone()
    }
}

fn figure(used_percent: f64, resets_at: Option<i64>) -> Figure {
    Figure {
        window: Window {
            name: "5h".try_into().unwrap(),
            used_percent,
            resets_at: resets_at.map(|at| at.try_into().unwrap()),
            exhausted: used_percent >= 100.0,
        },
        left: None,
    }
}

struct Fixture {
    _outer: tempfile::TempDir,
    quotas: Quotas<Script, Hand>,
}

impl Fixture {
    async fn new() -> Fixture {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
        let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
        let platforms: Vec<_> = catalog.all_usable().map(Profile::publication).collect();
        store.publish_platforms(&platforms).await.unwrap();
        Fixture {
            _outer: outer,
            quotas: Quotas {
                store,
                catalog,
                asks: Script {
                    says: Arc::new(Mutex::new(Ok(Vec::new()))),
                    asked: Arc::default(),
                },
                clock: Hand(Arc::new(AtomicI64::new(NOW))),
            },
        }
    }

    async fn add(&self, name: &str, platform: &str) -> AccountId {
        let terms = Terms::default();
        let new = NewAccount {
            name,
            platform,
            credential: Credential::ApiKey(format!("sk-{name}").into()),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url: None,
        };
        let saved = self
            .quotas
            .store
            .save_account(new, &terms, false, UnixMillis(NOW));
        let (Saved::Added(id) | Saved::Renewed(id)) = saved.await.unwrap();
        id
    }

    fn says(&self, said: Result<Vec<Figure>, String>) {
        *self.quotas.asks.says.lock().unwrap() = said;
    }

    /// Makes all calls that are due; who was asked about.
    async fn calls(&self) -> Vec<String> {
        while self.quotas.turn().await.unwrap() == CALL_PAUSE {}
        std::mem::take(&mut *self.quotas.asks.asked.lock().unwrap())
    }

    fn passes(&self, millis: i64) {
        self.quotas.clock.0.fetch_add(millis, Ordering::Relaxed);
    }

    /// The health of an account, as Envoys learn it.
    async fn health(&self, account: &AccountId) -> Option<Health> {
        let page = self.quotas.store.page(None, 0).await.unwrap();
        let page = Page::parse(&page.bytes).unwrap();
        page.lines()
            .find_map(|line| match Record::from_line(line).unwrap() {
                Record::Health(health) if health.id.as_str() == account.as_str() => Some(health),
                _ => None,
            })
    }
}

#[tokio::test]
async fn platforms_are_asked_now_and_then_and_ever_less_where_they_tell_nothing() {
    let fixture = Fixture::new().await;
    fixture.says(Ok(vec![figure(10.0, None)]));
    for (name, platform) in [("one", "deepseek"), ("two", "moonshot"), ("none", "openai")] {
        fixture.add(name, platform).await;
    }
    assert_eq!(
        fixture.calls().await,
        ["one", "two"],
        "each of its platform's, at once"
    );
    assert_eq!(fixture.calls().await, [""; 0]);
    fixture.passes(15 * MINUTE - 1);
    assert_eq!(fixture.calls().await, [""; 0]);
    fixture.says(Err("it answered 503".to_owned()));
    fixture.passes(1);
    assert_eq!(fixture.calls().await, ["one", "two"]);
    fixture.passes(30 * MINUTE - 1);
    assert_eq!(
        fixture.calls().await,
        [""; 0],
        "twice as long after one that told nothing"
    );
    fixture.passes(1);
    assert_eq!(fixture.calls().await, ["one", "two"]);
    fixture
        .quotas
        .store
        .disable("one", UnixMillis(NOW))
        .await
        .unwrap();
    fixture.passes(60 * MINUTE);
    assert_eq!(fixture.calls().await, ["two"], "the other is out of use");
}

/// A used-up quota takes the account out in every Envoy until the platform's time, and nobody has to bring it back.
#[tokio::test]
async fn an_account_whose_quota_is_used_up_is_out_until_it_starts_anew() {
    let fixture = Fixture::new().await;
    let account = fixture.add("one", "deepseek").await;
    fixture.says(Ok(vec![figure(62.0, Some(NOW + 60 * MINUTE))]));
    fixture.calls().await;
    let health = fixture.health(&account).await.unwrap();
    assert_eq!(
        health.windows,
        [figure(62.0, Some(NOW + 60 * MINUTE)).window]
    );
    assert_eq!(health.entries, []);

    fixture.passes(15 * MINUTE);
    fixture.says(Ok(vec![figure(100.0, Some(NOW + 60 * MINUTE))]));
    fixture.calls().await;
    let health = fixture.health(&account).await.unwrap();
    let [held] = &health.entries[..] else {
        panic!("{health:?}");
    };
    let end = u64::try_from(NOW + 60 * MINUTE).unwrap();
    assert_eq!(
        (held.until, held.guessed, held.reason.as_str()),
        (end, false, "usage_limit")
    );
    assert!(!held.has_ended(end - 1) && held.has_ended(end));
    let asked = fixture.quotas.store.quotas().await.unwrap();
    assert_eq!(
        asked[account.as_str()].figures,
        [figure(100.0, Some(NOW + 60 * MINUTE))]
    );

    // A person has it forgotten: it may serve, until the platform says so again.
    let now = fixture.quotas.clock.now();
    fixture.quotas.store.reset("one", now).await.unwrap();
    assert_eq!(fixture.health(&account).await.unwrap().entries, []);
    assert_eq!(
        fixture.quotas.store.quotas().await.unwrap()[account.as_str()].figures,
        []
    );
}

/// An answer about a credential that is another by now says nothing of the account.
#[tokio::test]
async fn an_answer_about_an_older_credential_is_passed_over() {
    let fixture = Fixture::new().await;
    let account = fixture.add("one", "deepseek").await;
    let store = &fixture.quotas.store;
    let askable = store.askable("deepseek").await.unwrap().remove(0);
    let asking = store
        .begin_asking(&askable, UnixMillis(NOW))
        .await
        .unwrap()
        .unwrap();
    assert!(
        store
            .begin_asking(&askable, UnixMillis(NOW))
            .await
            .unwrap()
            .is_none(),
        "one at a time"
    );
    let new = NewAccount {
        name: "one",
        platform: "deepseek",
        credential: Credential::ApiKey("sk-another".into()),
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    };
    store
        .save_account(new, &Terms::default(), true, UnixMillis(NOW))
        .await
        .unwrap();
    let figures = [figure(100.0, None)];
    let out = quota::out(&figures, Duration::from_secs(900), UnixMillis(NOW));
    let noticed = store
        .end_asking(&asking, &figures, out, UnixMillis(NOW))
        .await
        .unwrap();
    assert_eq!(noticed, []);
    let health = fixture.health(&account).await.unwrap();
    assert_eq!((health.entries, health.windows), (Vec::new(), Vec::new()));
}
