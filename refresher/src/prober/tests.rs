use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use latchkey::id::Id;
use latchkey::snapshot::Record;
use latchkey::snapshot::page::Page;
use latchkey::sync::report::Report;
use latchkey::verdict::Reason;

use super::*;
use crate::clock::UnixMillis;
use crate::credential::Credential;
use crate::state::StateDir;
use crate::store::{NewAccount, Saved, Status, Terms};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const MINUTE: i64 = 60_000;

/// A clock that a test moves.
#[derive(Debug, Clone)]
struct Hand(Arc<AtomicI64>);

impl Clock for Hand {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

/// A platform that says what a test has it say, and counts who was asked about.
#[derive(Debug, Clone)]
struct Script {
    finding: Arc<Mutex<Finding>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Asks for Script {
    async fn ask(&self, _: &Profile, _: &Probe, outgoing: &Outgoing) -> Finding {
        let account = &outgoing.account;
        self.asked
            .lock()
            .unwrap()
            .push(account.name.as_str().to_owned());
        self.finding.lock().unwrap().clone()
    }
}

struct Fixture {
    _outer: tempfile::TempDir,
    prober: Prober<Script, Hand>,
    refused: Arc<Mutex<Vec<u64>>>,
}

impl Fixture {
    async fn new() -> Fixture {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
        let catalog = Catalog::load(None, ["codex".to_owned()].into()).unwrap();
        let platforms: Vec<_> = catalog.all_usable().map(Profile::publication).collect();
        store.publish_platforms(&platforms).await.unwrap();
        let refused = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&refused);
        let prober = Prober {
            store,
            catalog,
            asks: Script {
                finding: Arc::new(Mutex::new(Finding::Alive)),
                asked: Arc::default(),
            },
            clock: Hand(Arc::new(AtomicI64::new(NOW.0))),
            on_refused: Arc::new(move |_, generation| hears.lock().unwrap().push(generation)),
        };
        Fixture {
            _outer: outer,
            prober,
            refused,
        }
    }

    async fn add(&self, name: &str) -> AccountId {
        let new = NewAccount {
            name,
            platform: "openai",
            credential: Credential::ApiKey(format!("sk-{name}").into()),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url: None,
        };
        match self
            .prober
            .store
            .save_account(new, &Terms::default(), false, NOW)
            .await
            .unwrap()
        {
            Saved::Added(id) => id,
            Saved::Renewed(id) => panic!("{id} is not new"),
        }
    }

    /// A client key was told that the account is dead.
    async fn suspect(&self, account: &AccountId, reason: &str) {
        let at = self.prober.clock.now();
        let report = Report::Dead {
            account: Id::try_from(account.as_str()).unwrap(),
            generation: 1,
            reason: Reason::try_from(reason.to_owned()).unwrap(),
            at: at.0.try_into().unwrap(),
            confirmed: false,
            key: Id::try_from("key_1").ok(),
            request: None,
        };
        self.prober.store.take_reports(&[report], at).await.unwrap();
    }

    fn passes(&self, millis: i64) {
        self.prober.clock.0.fetch_add(millis, Ordering::Relaxed);
    }

    fn says(&self, finding: Finding) {
        *self.prober.asks.finding.lock().unwrap() = finding;
    }

    /// Returns who was asked about in a turn.
    async fn turn(&self) -> Vec<String> {
        self.prober.turn().await.unwrap();
        std::mem::take(&mut *self.prober.asks.asked.lock().unwrap())
    }

    async fn shown(&self, name: &str) -> (Status, bool) {
        let account = self.prober.store.account(name).await.unwrap();
        (account.status, account.reason.is_some())
    }

    /// Returns what Envoys are told of when the account was found alive.
    async fn alive_at(&self) -> u64 {
        let page = self.prober.store.page(None, 0).await.unwrap().bytes;
        let page = Page::parse(&page).unwrap();
        let records = page.lines().map(|line| Record::from_line(line).unwrap());
        let health = records.filter_map(|record| match record {
            Record::Health(health) => Some(health.alive_at),
            _ => None,
        });
        health.max().unwrap_or_default()
    }
}

/// A 401 for a key says that a request was refused, not yet that the key is: one caller may have brought it about. So the
/// platform is asked, and its own refusal takes the account out; a good answer leaves it in.
#[tokio::test]
async fn a_key_that_its_platform_refuses_is_of_no_use() {
    for (finding, expected) in [
        (Finding::Refused, (Status::Dead, true)),
        (Finding::Alive, (Status::Active, false)),
    ] {
        let fixture = Fixture::new().await;
        let account = fixture.add("team").await;
        let of = |generation| Report::Unauthorized {
            account: Id::try_from(account.as_str()).unwrap(),
            generation,
        };
        let store = &fixture.prober.store;
        store.take_reports(&[of(2)], NOW).await.unwrap();
        assert!(fixture.turn().await.is_empty(), "of another credential");
        store.take_reports(&[of(1)], NOW).await.unwrap();
        fixture.says(finding);
        assert_eq!(fixture.turn().await, ["team"]);
        assert_eq!(fixture.shown("team").await, expected);
        assert!(fixture.turn().await.is_empty());
    }
}

/// A session has no key and no refresh token: a refusal that one request met has its platform asked, whether or not its end
/// is known, and only the platform's own refusal is passed on, to whoever ends logins.
#[tokio::test]
async fn a_session_that_a_request_was_refused_with_is_asked_about() {
    for end in [None, Some(NOW.plus(Duration::from_secs(24 * 60 * 60)))] {
        let fixture = Fixture::new().await;
        let new = NewAccount {
            name: "web",
            platform: "openai",
            credential: Credential::Session("sid=1".into()),
            vars: BTreeMap::new(),
            credential_expires_at: end,
            base_url: None,
        };
        let store = &fixture.prober.store;
        let saved = store.save_account(new, &Terms::default(), false, NOW).await;
        let Saved::Added(account) = saved.unwrap() else {
            panic!("it is new")
        };
        let refused = Report::Unauthorized {
            account: Id::try_from(account.as_str()).unwrap(),
            generation: 1,
        };
        store
            .take_reports(std::slice::from_ref(&refused), NOW)
            .await
            .unwrap();
        assert_eq!(fixture.turn().await, ["web"]);
        assert_eq!(fixture.shown("web").await, (Status::Active, false));
        assert!(fixture.refused.lock().unwrap().is_empty(), "it is alive");
        fixture.passes(MINUTE);
        let now = fixture.prober.clock.now();
        store.take_reports(&[refused], now).await.unwrap();
        fixture.says(Finding::Refused);
        assert_eq!(fixture.turn().await, ["web"]);
        assert_eq!(*fixture.refused.lock().unwrap(), [1]);
        assert_eq!(fixture.shown("web").await, (Status::Active, false));
    }
}

fn dead() -> Finding {
    let reason = Reason::try_from("deactivated".to_owned()).unwrap();
    Finding::Dead { reason }
}

fn unknown() -> Finding {
    Finding::Unknown {
        why: "no answer".to_owned(),
    }
}

#[tokio::test]
async fn a_dead_account_becomes_so_for_good() {
    let fixture = Fixture::new().await;
    let account = fixture.add("one").await;
    fixture.suspect(&account, "invalid_api_key").await;
    fixture.says(dead());
    assert_eq!(fixture.turn().await, ["one"]);
    assert_eq!(fixture.shown("one").await, (Status::Dead, true));
    fixture.passes(9 * MINUTE);
    assert!(fixture.turn().await.is_empty());
}

#[tokio::test]
async fn an_account_that_was_slandered_is_back_and_its_platform_is_asked_ever_later() {
    let fixture = Fixture::new().await;
    let account = fixture.add("one").await;
    fixture.suspect(&account, "invalid_api_key").await;
    assert_eq!(fixture.shown("one").await, (Status::Active, true));
    assert_eq!(fixture.turn().await, ["one"]);
    assert_eq!(fixture.shown("one").await, (Status::Active, false));
    assert_eq!(fixture.alive_at().await, u64::try_from(NOW.0).unwrap());
    // What was met before the platform was asked is late, and asks nothing.
    fixture.suspect(&account, "invalid_api_key").await;
    assert_eq!(fixture.shown("one").await, (Status::Active, false));
    let mut minutes = Vec::new();
    for minute in 1..=16 {
        fixture.passes(MINUTE);
        fixture.suspect(&account, "invalid_api_key").await;
        if !fixture.turn().await.is_empty() {
            minutes.push(minute);
        }
    }
    assert_eq!(minutes, [1, 3, 7, 15]);
}

#[tokio::test]
async fn what_tells_nothing_is_asked_again_and_not_for_ever() {
    let fixture = Fixture::new().await;
    let account = fixture.add("one").await;
    fixture.suspect(&account, "deactivated").await;
    fixture.says(unknown());
    let mut calls = 0;
    for _ in 0..600 {
        calls += fixture.turn().await.len();
        fixture.passes(MINUTE);
    }
    assert_eq!(calls, 8);
    assert_eq!(fixture.shown("one").await, (Status::Active, true));
    fixture.suspect(&account, "deactivated").await;
    assert_eq!(fixture.turn().await, ["one"], "told again");
    // A refused API key has no successor.
    fixture.says(Finding::Refused);
    fixture.passes(90 * MINUTE);
    fixture.suspect(&account, "deactivated").await;
    assert_eq!(fixture.turn().await, ["one"]);
    assert!(fixture.refused.lock().unwrap().is_empty());
}

/// A key without money is known all the same: its list of models proves nothing.
#[tokio::test]
async fn what_no_call_could_tell_is_not_asked() {
    let fixture = Fixture::new().await;
    let account = fixture.add("one").await;
    fixture.suspect(&account, "billing").await;
    assert!(fixture.turn().await.is_empty());
    assert_eq!(fixture.prober.store.due_probes().await.unwrap(), []);
    assert_eq!(fixture.shown("one").await, (Status::Active, true));
}

#[tokio::test]
async fn a_few_a_minute_leave_in_all_and_one_at_a_time_for_an_account() {
    let fixture = Fixture::new().await;
    for number in 0..9 {
        let account = fixture.add(&format!("a{number}")).await;
        fixture.suspect(&account, "invalid_api_key").await;
    }
    // Another process asks about the first.
    let store = &fixture.prober.store;
    let first = &store.due_probes().await.unwrap()[0].account;
    let MayAsk::Yes(held) = store.begin_probe(first, NOW, CLAIM_LIFE).await.unwrap() else {
        panic!("it is due")
    };
    let asked = fixture.turn().await;
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(!asked.contains(&held.name));
    assert!(store.end_probe(&held, &Next::Alive, NOW).await.unwrap());
    assert!(
        !store.end_probe(&held, &Next::Alive, NOW).await.unwrap(),
        "once"
    );
    assert!(fixture.turn().await.is_empty());
    fixture.passes(MINUTE);
    assert_eq!(fixture.turn().await.len(), 3);
}

/// Whoever is asked while somebody sees to the account speaks of what is no more.
#[tokio::test]
async fn an_answer_about_an_earlier_state_changes_nothing() {
    let fixture = Fixture::new().await;
    let account = fixture.add("one").await;
    fixture.suspect(&account, "invalid_api_key").await;
    let store = &fixture.prober.store;
    let begin = store.begin_probe(&account, NOW, CLAIM_LIFE);
    let MayAsk::Yes(held) = begin.await.unwrap() else {
        panic!("it is due")
    };
    store.disable("one", NOW).await.unwrap();
    let Finding::Dead { reason } = dead() else {
        unreachable!()
    };
    let next = Next::Dead(reason);
    assert!(!store.end_probe(&held, &next, NOW).await.unwrap());
    assert_eq!(fixture.shown("one").await.0, Status::Disabled);
    store.enable("one", NOW).await.unwrap();
    // A person's word ends what was to be asked.
    fixture.passes(MINUTE);
    fixture.suspect(&account, "invalid_api_key").await;
    store
        .reset("one", fixture.prober.clock.now())
        .await
        .unwrap();
    assert!(fixture.turn().await.is_empty());
    assert_eq!(fixture.shown("one").await, (Status::Active, false));
}
