//! Tests of what Envoys learn, in the store and on its way to every Envoy.

use latchkey::snapshot::Health as Published;
use latchkey::sync::report::Report;
use latchkey::verdict::quota::Window;
use latchkey::verdict::{Reason, Scope};

use super::*;
use crate::store::Noticed;

const AT: u64 = NOW.0 as u64;

fn id(account: &AccountId) -> latchkey::id::Id {
    account.as_str().try_into().unwrap()
}

fn limited(account: &AccountId, until: u64, at: u64) -> Report {
    Report::CoolingDown {
        account: id(account),
        scope: Scope::Account,
        until,
        guessed: false,
        reason: Reason::rate_limited(),
        at,
    }
}

fn dead(account: &AccountId, generation: u64, at: u64) -> Report {
    said_dead(account, generation, at, true)
}

fn said_dead(account: &AccountId, generation: u64, at: u64, confirmed: bool) -> Report {
    Report::Dead {
        account: id(account),
        generation,
        reason: Reason::try_from("deactivated".to_owned()).unwrap(),
        at,
        confirmed,
        key: Some(latchkey::id::Id::try_from("key_1").unwrap()),
        request: Some(latchkey::id::Id::try_from("req-1").unwrap()),
    }
}

fn quota(account: &AccountId, used_percent: f64, at: u64) -> Report {
    let window = Window {
        name: "5h".try_into().unwrap(),
        used_percent,
        resets_at: Some(at + 1_000),
        exhausted: false,
    };
    Report::Quota {
        account: id(account),
        windows: vec![window],
        at,
    }
}

/// The health records after `since`, and the revision that they lead to.
async fn published(store: &Store, since: u64) -> (Vec<Published>, u64) {
    let (epoch, _) = store.head().await.unwrap();
    let (records, header) = poll(store, Some(epoch), since).await;
    let health = records.into_iter().filter_map(|record| match record {
        Record::Health(health) => Some(health),
        _ => None,
    });
    (health.collect(), header.to)
}

#[tokio::test]
async fn what_one_envoy_reports_every_envoy_is_told_once() {
    let Fixture { store, _outer, .. } = fixture().await;
    let account = add_login(&store, "alice").await;
    let (nothing, start) = published(&store, 0).await;
    assert_eq!(nothing, []);

    let reports = [
        limited(&account, AT + 60_000, AT),
        quota(&account, 62.0, AT),
    ];
    let noticed = store.take_reports(&reports, NOW).await.unwrap();
    assert!(
        matches!(&noticed[..], [Noticed::CoolingDown { account, .. }] if account == "alice"),
        "{noticed:?}"
    );
    let (told, revision) = published(&store, start).await;
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].entries.len(), told[0].entries[0].at), (1, AT));
    assert_eq!(
        (told[0].windows_at, told[0].windows[0].used_percent),
        (AT, 62.0)
    );

    // The same again, from before, and of nobody that we know.
    let stranger = AccountId::random();
    for old in [
        reports[0].clone(),
        reports[1].clone(),
        limited(&account, AT + 30_000, AT - 1),
        quota(&account, 1.0, AT - 1),
        limited(&stranger, AT + 60_000, AT),
    ] {
        assert_eq!(store.take_reports(&[old], NOW).await.unwrap(), []);
    }
    assert_eq!(published(&store, revision).await, (vec![], revision));
}

#[tokio::test]
async fn a_dead_account_leaves_the_snapshot_until_it_is_enabled() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["codex"]).await;
    let account = add_login(&store, "alice").await;
    let is_published = async || {
        let (records, _) = poll(&store, None, 0).await;
        keys(&records).contains(&(Kind::Account, account.to_string(), false))
    };
    assert_eq!(
        store
            .take_reports(&[dead(&account, 2, AT)], NOW)
            .await
            .unwrap(),
        []
    );
    assert!(is_published().await, "another generation's report");

    // One key's word alone takes nobody out. People see it, once.
    let suspected = said_dead(&account, 1, AT, false);
    let noticed = store
        .take_reports(&[suspected.clone(), suspected.clone()], NOW)
        .await
        .unwrap();
    assert!(
        matches!(&noticed[..], [Noticed::Suspected { met, .. }] if met.key.is_some()),
        "{noticed:?}"
    );
    assert!(is_published().await, "one key's word");
    let shown = store.account("alice").await.unwrap();
    assert!(shown.reason.unwrap().contains("not confirmed"));
    let recovered = Report::Recovered {
        account: id(&account),
        model: None,
        at: AT,
    };
    let noticed = store
        .take_reports(&[recovered.clone(), recovered], NOW)
        .await
        .unwrap();
    assert!(
        matches!(&noticed[..], [Noticed::Recovered { .. }]),
        "{noticed:?}"
    );
    assert_eq!(store.account("alice").await.unwrap().reason, None);
    store.take_reports(&[suspected], NOW).await.unwrap();
    assert!(store.account("alice").await.unwrap().reason.is_some());
    store.reset("alice", NOW).await.unwrap();
    let shown = store.account("alice").await.unwrap();
    assert_eq!((shown.status, shown.reason), (Status::Active, None));
    let later = UnixMillis(NOW.0 + 1);
    let after = later.0.try_into().unwrap();
    let noticed = store
        .take_reports(&[dead(&account, 1, after), dead(&account, 1, after)], later)
        .await
        .unwrap();
    assert!(
        matches!(&noticed[..], [Noticed::Dead { .. }]),
        "{noticed:?}"
    );
    let shown = store.account("alice").await.unwrap();
    assert_eq!(shown.status, Status::Dead);
    assert!(shown.reason.unwrap().contains("deactivated"));
    assert!(!is_published().await);

    // Its login is kept fresh, and that does not bring it back.
    let held = claim(&store, &account, 1, LIFE).await;
    assert!(
        store
            .commit(&held, &tokens("access-2"), None, NOW)
            .await
            .unwrap()
    );
    let shown = store.account("alice").await.unwrap();
    assert_eq!((shown.status, shown.reason.is_some()), (Status::Dead, true));

    assert!(store.enable("alice", NOW).await.unwrap());
    assert!(is_published().await);
    assert_eq!(
        store
            .take_reports(&[dead(&account, 2, AT)], NOW)
            .await
            .unwrap(),
        []
    );
    assert_eq!(
        store.account("alice").await.unwrap().status,
        Status::Active,
        "a late report of what was seen to"
    );
}

#[tokio::test]
async fn a_reset_and_a_new_credential_forget_what_was_learned() {
    let Fixture { store, _outer, .. } = fixture().await;
    let account = add_login(&store, "alice").await;
    let reports = [
        limited(&account, AT + 60_000, AT),
        quota(&account, 99.0, AT),
    ];
    store.take_reports(&reports, NOW).await.unwrap();
    let (_, before) = published(&store, 0).await;
    assert_eq!(store.reset("alice", NOW).await.unwrap(), Status::Active);
    let (told, revision) = published(&store, before).await;
    assert_eq!((told[0].reset_at, told[0].windows.len()), (AT, 0));
    assert_eq!(told[0].entries, []);
    assert_eq!(store.take_reports(&reports, NOW).await.unwrap(), [], "late");
    assert_eq!(published(&store, revision).await.1, revision);

    let later = UnixMillis(NOW.0 + 5);
    let news = [limited(&account, AT + 60_000, AT + 2)];
    assert_eq!(store.take_reports(&news, later).await.unwrap().len(), 1);
    let new = NewAccount {
        name: "alice",
        platform: "codex",
        credential: tokens("access-9"),
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    };
    store
        .save_account(new, &Terms::default(), true, later)
        .await
        .unwrap();
    let health = store.health().await.unwrap();
    assert_eq!(health[account.as_str()].entries, []);
}

#[tokio::test]
async fn what_has_ended_is_deleted_and_a_guess_later() {
    let Fixture { store, _outer, .. } = fixture().await;
    let account = add_login(&store, "alice").await;
    let guess = Report::CoolingDown {
        account: id(&account),
        scope: Scope::Model("opus".try_into().unwrap()),
        until: AT + 1_000,
        guessed: true,
        reason: Reason::rate_limited(),
        at: AT,
    };
    let reports = [limited(&account, AT + 1_000, AT), guess];
    store.take_reports(&reports, NOW).await.unwrap();
    let (_, revision) = published(&store, 0).await;
    let count = async |after: i64| {
        store.prune_health(UnixMillis(NOW.0 + after)).await.unwrap();
        store.health().await.unwrap()[account.as_str()]
            .entries
            .len()
    };
    assert_eq!(count(999).await, 2);
    assert_eq!(count(1_000).await, 1);
    assert_eq!(count(1_000 + 599_999).await, 1);
    assert_eq!(count(1_000 + 600_000).await, 0);
    assert_eq!(
        published(&store, revision).await.1,
        revision,
        "that is no news"
    );
    store.remove_account(&account).await.unwrap();
    assert!(store.health().await.unwrap().is_empty());
}

/// A refresh cures a refusal of a login's token. Where its refresh token may be spent, the platform is asked first.
#[tokio::test]
async fn a_login_whose_refresh_token_may_be_spent_is_asked_about_where_a_request_is_refused() {
    let Fixture { store, _outer, .. } = fixture().await;
    let account = add_login(&store, "alice").await;
    let refused = [Report::Unauthorized {
        account: id(&account),
        generation: 1,
    }];
    store.take_reports(&refused, NOW).await.unwrap();
    assert_eq!(store.due_probes().await.unwrap(), []);
    let _unanswered = claim(&store, &account, 1, LIFE).await;
    store.take_reports(&refused, NOW).await.unwrap();
    let due = store.due_probes().await.unwrap();
    assert_eq!(due.len(), 1, "{due:?}");
    assert_eq!(due[0].account, account);
}
