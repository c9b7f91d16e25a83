//! Accounts that are saved, renewed or refused.

use std::num::NonZeroU32;

use super::*;
use crate::base_url::BaseUrl;
use crate::cluster::ClusterKey;
use crate::egress::Proxy;

#[tokio::test]
async fn a_new_login_renews_the_account_of_its_name() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(store.needs_login(&held, "ended").await.unwrap());
    let new = |platform| NewAccount {
        name: "alice",
        platform,
        credential: tokens("access-9"),
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    };
    assert_eq!(
        store
            .save_account(new("codex"), &Terms::default(), true, NOW)
            .await
            .unwrap(),
        Saved::Renewed(id.clone())
    );
    let account = store.account(id.as_str()).await.unwrap();
    assert_eq!(
        (account.status, account.generation, account.reason),
        (Status::Active, 2, None)
    );
    for (platform, renew) in [("codex", false), ("openai", true)] {
        assert!(matches!(
            store
                .save_account(new(platform), &Terms::default(), renew, NOW)
                .await,
            Err(Error::NameTaken { .. })
        ));
    }
}

#[tokio::test]
async fn what_cannot_go_to_envoy_is_refused() {
    let Fixture { store, _outer, .. } = fixture().await;
    for (name, key) in [
        ("", "k"),
        ("-x", "k"),
        ("a\nb", "k"),
        ("é", "k"),
        ("ok", ""),
        ("ok", "k\r\nx: y"),
    ] {
        assert!(
            matches!(
                add_api_key(&store, name, key).await,
                Err(Error::Unfit { .. })
            ),
            "{name:?} {key:?}"
        );
    }
    assert_eq!(store.accounts().await.unwrap(), []);
    let unknown = store.disable("nobody", NOW).await.unwrap_err();
    assert!(
        matches!(&unknown, Error::Unknown { record: crate::fault::Kind::Account, name } if name == "nobody"),
        "{unknown}"
    );
}

#[tokio::test]
async fn a_login_that_was_waited_for_renews_only_what_still_waits_for_it() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let renew = async |generation| {
        let new = NewAccount {
            name: "alice",
            platform: "codex",
            credential: tokens("access-2"),
            vars: BTreeMap::from([("account_id".to_owned(), "ws-1".to_owned())]),
            credential_expires_at: None,
            base_url: None,
        };
        store.renew_login(&id, generation, new, NOW).await.unwrap()
    };
    assert!(!renew(1).await, "it needs none");
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(store.needs_login(&held, "over").await.unwrap());
    assert!(!renew(2).await, "another generation");
    assert!(renew(1).await);
    let account = store.account("alice").await.unwrap();
    assert_eq!((account.status, account.generation), (Status::Active, 2));
    let stored = store.credential(&id).await.unwrap();
    assert_eq!(stored.on_the_wire().expose_secret(), "access-2");
    store.remove_account(&id).await.unwrap();
    assert!(!renew(2).await, "it is gone");
    assert_eq!(store.accounts().await.unwrap(), []);
}

#[tokio::test]
async fn an_end_is_set_kept_published_and_taken_off() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["codex", "openai"]).await;
    let id = add_login(&store, "alice").await;
    let ends = |at: Option<UnixMillis>| Terms {
        expires_at: Some(at),
        ..Terms::default()
    };
    let set = async |terms: Terms| {
        let set = store.set_account("alice", AccountChanges::default(), &terms, NOW);
        set.await.unwrap();
    };
    let end = async || {
        let (records, _) = poll(&store, None, 0).await;
        let published = records.into_iter().find_map(|record| match record {
            Record::Account(account) if account.name.as_str() == "alice" => {
                Some(account.expires_at)
            }
            _ => None,
        });
        let known = store.account("alice").await.unwrap().expires_at;
        let millis = known.map(|time| u64::try_from(time.0).unwrap());
        assert_eq!(published, Some(millis));
        known
    };
    assert_eq!(end().await, None);
    set(ends(Some(NOW))).await;
    assert_eq!(end().await, Some(NOW));
    set(Terms {
        limits: LimitChanges {
            time_zone: Some(Some("Europe/Berlin".to_owned())),
            ..LimitChanges::default()
        },
        ..Terms::default()
    })
    .await;
    assert_eq!(end().await, Some(NOW), "what is not said stays");

    // Past its end, its login is kept fresh, as that of a disabled account is; and a new one leaves the end as it is.
    let entries = store.entries().await.unwrap();
    assert_eq!(entries[0].account, id);
    let held = claim(&store, &id, 1, LIFE).await;
    let fresh = tokens("access-2");
    assert!(store.commit(&held, &fresh, None, NOW).await.unwrap());
    assert_eq!(end().await, Some(NOW));
    set(ends(None)).await;
    assert_eq!(end().await, None);
}

#[tokio::test]
async fn an_account_has_its_platforms_limit_until_it_has_one_of_its_own() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["codex", "openai"]).await;
    let id = add_login(&store, "alice").await;
    add_api_key(&store, "team", "sk-1").await.unwrap();
    let set = async |limits: LimitChanges| {
        let terms = Terms {
            limits,
            ..Terms::default()
        };
        let set = store.set_account("alice", AccountChanges::default(), &terms, NOW);
        set.await.unwrap();
    };
    let streams = async |name: &str| {
        let (records, _) = poll(&store, None, 0).await;
        let accounts = records.into_iter().filter_map(|record| match record {
            Record::Account(account) => Some(account),
            _ => None,
        });
        let mut accounts = accounts.filter(|account| account.name.as_str() == name);
        let limit = accounts.next().unwrap().limits.concurrent_streams;
        limit.map(NonZeroU32::get)
    };
    assert_eq!(
        (streams("alice").await, streams("team").await),
        (Some(4), None)
    );
    // All Envoys are told what the others use of it.
    let limited = store.limited().await.unwrap();
    let limited: Vec<_> = limited
        .iter()
        .map(|(subject, _)| subject.id.as_str())
        .collect();
    assert_eq!(limited, [id.as_str()]);
    let at_once = |streams: Option<NonZeroU32>| LimitChanges {
        concurrent_streams: Some(streams),
        ..LimitChanges::default()
    };
    set(at_once(NonZeroU32::new(9))).await;
    assert_eq!(streams("alice").await, Some(9));
    assert_eq!(store.limited().await.unwrap().len(), 1);
    // None is none, whatever the platform says.
    set(at_once(None)).await;
    assert_eq!(streams("alice").await, None);
    assert_eq!(store.limited().await.unwrap(), []);
    let of_profile = LimitChanges {
        of_profile: true,
        ..LimitChanges::default()
    };
    set(of_profile).await;
    assert_eq!(streams("alice").await, Some(4));
}

/// Another start with another profile: what it says reaches accounts that are known already, and their days.
#[tokio::test]
async fn accounts_follow_the_limits_of_their_platforms_profile() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let mut codex = crate::platform::example().publication();
    codex.limits.limits.tokens_per_day = std::num::NonZeroU64::new(1_000);
    codex.limits.time_zone = Some("Asia/Shanghai".to_owned());
    store.publish_platforms(&[codex.clone()]).await.unwrap();
    let limited = store.limited().await.unwrap();
    let [(subject, settings)] = &limited[..] else {
        panic!("{limited:?}")
    };
    assert_eq!(
        (subject.id.as_str(), settings),
        (id.as_str(), &codex.limits)
    );
    let own = Terms {
        limits: LimitChanges {
            time_zone: Some(Some("Europe/Berlin".to_owned())),
            ..LimitChanges::default()
        },
        ..Terms::default()
    };
    let set = store.set_account("alice", AccountChanges::default(), &own, NOW);
    set.await.unwrap();
    let (_, header) = poll(&store, None, 0).await;
    codex.limits.limits.tokens_per_day = std::num::NonZeroU64::new(2_000);
    store.publish_platforms(&[codex.clone()]).await.unwrap();
    let (records, _) = poll(&store, Some(header.epoch), header.to).await;
    let limit = records.iter().find_map(|record| match record {
        Record::Account(account) => account.limits.tokens_per_day,
        _ => None,
    });
    assert_eq!(limit, std::num::NonZeroU64::new(2_000));
    let limited = store.limited().await.unwrap();
    assert_eq!(limited[0].1.time_zone.as_deref(), Some("Europe/Berlin"));

    codex.limits = crate::limits::LimitSettings::default();
    store.publish_platforms(&[codex]).await.unwrap();
    assert_eq!(store.limited().await.unwrap(), []);
}

#[tokio::test]
async fn a_key_that_is_renewed_keeps_its_accounts_end_unless_told_another() {
    let Fixture { store, _outer, .. } = fixture().await;
    let save = async |expires_at: Option<Option<UnixMillis>>| {
        let new = NewAccount {
            name: "trial",
            platform: "openai",
            credential: Credential::ApiKey("sk-1".into()),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url: None,
        };
        let terms = Terms {
            expires_at,
            ..Terms::default()
        };
        let saved = store.save_account(new, &terms, true, NOW);
        saved.await.unwrap();
        store.account("trial").await.unwrap().expires_at
    };
    let later = NOW.plus(LIFE);
    assert_eq!(save(Some(Some(NOW))).await, Some(NOW));
    assert_eq!(save(None).await, Some(NOW));
    assert_eq!(save(Some(Some(later))).await, Some(later));
    assert_eq!(save(Some(None)).await, None);
}

/// The address at which an account is reached goes to Envoy with it: authority, path and cluster. Accounts at one
/// origin share a cluster.
#[tokio::test]
async fn a_base_url_of_its_own_leads_an_account_elsewhere() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["codex", "openai"]).await;
    add_api_key(&store, "plain", "sk-plain").await.unwrap();
    let url = |text: &str| BaseUrl::parse(text).unwrap();
    let (first, second) = (url("https://eu.test:8443/v1"), url("https://us.test/x"));
    let save = async |name: &str, base_url: Option<&BaseUrl>| {
        let new = NewAccount {
            name,
            platform: "openai",
            credential: Credential::ApiKey("sk-1".into()),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url,
        };
        let terms = Terms::default();
        let saved = store.save_account(new, &terms, true, NOW);
        saved.await.unwrap();
    };
    let place = async |name: &str| {
        let (records, _) = poll(&store, None, 0).await;
        let account = records.into_iter().find_map(|record| match record {
            Record::Account(account) if account.name.as_str() == name => Some(account),
            _ => None,
        });
        let account = account.unwrap();
        let path = account.base_path.map(|path| path.as_str().to_owned());
        let authority = account.authority.as_str().to_owned();
        (account.cluster.to_string(), authority, path)
    };
    let clusters = async || {
        let keys = store.clusters().await.unwrap();
        keys.keys().map(ClusterKey::name).collect::<Vec<_>>()
    };
    let at_platform = (
        "latchkey-openai".to_owned(),
        "api.openai.com".to_owned(),
        None,
    );
    save("one", Some(&first)).await;
    save("two", Some(&url("https://eu.test:8443/other"))).await;
    let (cluster, authority, path) = place("one").await;
    assert_eq!(
        (authority.as_str(), path.as_deref()),
        ("eu.test:8443", Some("/v1"))
    );
    assert_eq!(place("two").await.0, cluster);
    assert_eq!(place("plain").await, at_platform);
    assert_eq!(
        clusters().await,
        ["latchkey-openai".to_owned(), cluster.clone()]
    );

    // A new key leaves it where it is, a new base URL moves it.
    save("one", None).await;
    assert_eq!(place("one").await.0, cluster);
    save("one", Some(&second)).await;
    assert_eq!(place("one").await.1, "us.test");
    assert_eq!(clusters().await.len(), 3);

    let set = async |base_url| {
        let changes = AccountChanges {
            base_url: Some(base_url),
            ..AccountChanges::default()
        };
        let terms = Terms::default();
        let set = store.set_account("one", changes, &terms, NOW);
        set.await.unwrap();
    };
    set(Some(&first)).await;
    assert_eq!(place("one").await.0, cluster);
    set(None).await;
    assert_eq!(place("one").await, at_platform);
}

async fn set_base_url(store: &Store, name: &str, url: Option<&BaseUrl>) -> Result<()> {
    let changes = AccountChanges {
        base_url: Some(url),
        ..AccountChanges::default()
    };
    let terms = Terms::default();
    store.set_account(name, changes, &terms, NOW).await
}

/// Does what somebody else who can write the database does.
async fn write(store: &Store, sql: &'static str) {
    sqlx::query(sql).execute(&store.pool).await.unwrap();
}

const EVIL: &str = "UPDATE accounts SET base_url = 'https://evil.test/v1'";

/// Whoever writes the database cannot send a credential to a host of theirs: no more than to another platform.
#[tokio::test]
async fn a_credential_opens_for_the_base_url_alone_that_it_was_sealed_for() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["codex"]).await;
    let id = add_login(&store, "alice").await;
    let own = BaseUrl::parse("https://eu.test/v1").unwrap();
    set_base_url(&store, "alice", Some(&own)).await.unwrap();
    let account = store.account("alice").await.unwrap();
    assert_eq!(account.generation, 2, "reports from the old place are old");
    store.credential(&id).await.unwrap();
    for edit in [EVIL, "UPDATE accounts SET base_url = NULL"] {
        write(&store, edit).await;
        let refused = store.credential(&id).await.unwrap_err();
        assert!(refused.to_string().contains("base URL"), "{refused}");
        let claimed = store.claim(&id, 2, NOW, LIFE, &single_use).await;
        assert!(matches!(claimed, Err(Error::Seal { .. })), "{claimed:?}");
        let (records, _) = poll(&store, None, 0).await;
        assert!(
            !records
                .iter()
                .any(|record| matches!(record, Record::Account(_)))
        );
        assert_eq!(store.left_out().await.unwrap().len(), 1);
        let moved = set_base_url(&store, "alice", None).await;
        assert_eq!(moved.is_err(), edit == EVIL, "{moved:?}");
    }
    // It is good where it was.
    write(
        &store,
        "UPDATE accounts SET base_url = 'https://eu.test/v1'",
    )
    .await;
    store.credential(&id).await.unwrap();
}

/// A new credential is not sealed for a place that somebody put there meanwhile.
#[tokio::test]
async fn a_new_credential_goes_to_no_base_url_that_its_owner_did_not_give() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let own = BaseUrl::parse("https://eu.test/v1").unwrap();
    let save = async |base_url: Option<&BaseUrl>| {
        let new = NewAccount {
            name: "alice",
            platform: "codex",
            credential: tokens("access-9"),
            vars: Vars::new(),
            credential_expires_at: None,
            base_url,
        };
        store.save_account(new, &Terms::default(), true, NOW).await
    };
    save(Some(&own)).await.unwrap();
    save(None).await.unwrap();
    let account = store.account("alice").await.unwrap();
    assert_eq!(account.base_url.as_deref(), Some(own.as_str()));

    write(&store, EVIL).await;
    let refused = save(None).await.unwrap_err();
    assert!(matches!(refused, Error::ForeignBaseUrl { .. }), "{refused}");
    save(Some(&own)).await.unwrap();

    // The same while a refresh is under way: its tokens are for the place that the claim was made for.
    let generation = store.account("alice").await.unwrap().generation;
    let held = claim(&store, &id, generation, LIFE).await;
    let moved = set_base_url(&store, "alice", None).await.unwrap_err();
    assert!(matches!(moved, Error::Refreshing { .. }), "{moved}");
    write(&store, EVIL).await;
    let new = tokens("access-10");
    assert!(store.commit(&held, &new, None, NOW).await.unwrap());
    let account = store.account("alice").await.unwrap();
    assert_eq!(account.base_url.as_deref(), Some(own.as_str()));
    store.credential(&id).await.unwrap();
    set_base_url(&store, "alice", None).await.unwrap();
    store.credential(&id).await.unwrap();
}

/// The identity of an account is sealed with it, and cannot be made another's.
#[tokio::test]
async fn what_is_known_of_an_account_opens_for_it_alone() {
    let Fixture { store, _outer, .. } = fixture().await;
    let (alice, bob) = (
        add_login(&store, "alice").await,
        add_login(&store, "bob").await,
    );
    assert_eq!(store.vars(&alice).await.unwrap()["account_id"], "ws-1");
    let copy = "UPDATE accounts SET vars = (SELECT vars FROM accounts WHERE name = 'alice')";
    write(&store, copy).await;
    store.vars(&bob).await.unwrap_err();
    let known = store.known_accounts().await.unwrap();
    let known: Vec<_> = known
        .iter()
        .map(|known| (known.account.name.as_str(), known.vars.is_some()))
        .collect();
    assert_eq!(known, [("alice", true), ("bob", false)]);
}

/// A proxy goes with the account in one transaction, is sealed with its password, and is nobody else's. One that cannot be
/// opened takes the account out of use: it is not reached in another way.
#[tokio::test]
async fn an_account_leaves_by_its_own_proxy_or_is_out_of_use() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["codex", "openai"]).await;
    let proxy = Proxy::parse("http://user:the-secret@proxy.test:3128", None).unwrap();
    for name in ["plain", "other", "third"] {
        add_api_key(&store, name, "sk-1").await.unwrap();
    }
    let new = NewAccount {
        name: "alice",
        platform: "codex",
        credential: tokens("access-1"),
        vars: BTreeMap::from([("account_id".to_owned(), "ws-1".to_owned())]),
        credential_expires_at: Some(NOW.plus(LIFE)),
        base_url: None,
    };
    let terms = Terms {
        proxy: Some(Some(proxy.clone())),
        ..Terms::default()
    };
    let Saved::Added(id) = store.save_account(new, &terms, false, NOW).await.unwrap() else {
        panic!("it is new");
    };
    assert_eq!(store.proxy(&id).await.unwrap(), Some(proxy.clone()));
    let clusters = store.clusters().await.unwrap();
    let own = format!("latchkey-codex-VIA-{id}");
    let names: Vec<_> = clusters.keys().map(ClusterKey::name).collect();
    assert_eq!(names, [own.clone(), "latchkey-openai".to_owned()]);
    let cluster = async || {
        let (records, _) = poll(&store, None, 0).await;
        records.into_iter().find_map(|record| match record {
            Record::Account(account) if account.name.as_str() == "alice" => {
                Some(account.cluster.to_string())
            }
            _ => None,
        })
    };
    assert_eq!(cluster().await, Some(own.clone()));
    assert_eq!(claim(&store, &id, 1, LIFE).await.proxy, Some(proxy.clone()));

    // Somebody writes another proxy into the database.
    write(
        &store,
        "UPDATE egress SET proxy = (SELECT vars FROM accounts WHERE name = 'plain')",
    )
    .await;
    assert!(store.proxy(&id).await.is_err());
    store.publish_anew().await.unwrap();
    assert_eq!(cluster().await, None);
    assert_eq!(store.left_out().await.unwrap().len(), 1);
    let renewal = store.claim(&id, 1, NOW, LIFE, &single_use).await;
    assert!(
        renewal.is_err() || matches!(renewal, Ok(Claimed::Busy)),
        "{renewal:?}"
    );

    let terms = Terms {
        proxy: Some(None),
        ..Terms::default()
    };
    let set = store.set_account("alice", AccountChanges::default(), &terms, NOW);
    set.await.unwrap();
    assert_eq!(cluster().await.as_deref(), Some("latchkey-codex"));
}

/// Whoever can write the database, and has no sealing key, has no say in where and how a credential goes: not by what a
/// platform or the doors say, nor by what others of them say.
#[tokio::test]
async fn what_was_published_is_used_as_it_was_published_or_not_at_all() {
    for (kind, written) in [
        (
            Kind::Platform,
            "UPDATE platforms SET authority = 'evil.example' WHERE id = 'openai'",
        ),
        (
            Kind::Platform,
            "UPDATE platforms SET record = replace(record, '\"authorization\"', '\"x-tell\"') WHERE id = 'openai'",
        ),
        (
            Kind::Platform,
            "UPDATE platforms SET limits = '{\"tokens_per_day\":1}' WHERE id = 'openai'",
        ),
        (
            Kind::Platform,
            "UPDATE platforms SET (record, authority, limits, seal) = (SELECT record, authority, limits, seal \
             FROM platforms WHERE id = 'anthropic') WHERE id = 'openai'",
        ),
        (
            Kind::Platform,
            "UPDATE platforms SET seal = x'' WHERE id = 'openai'",
        ),
        (
            Kind::Platform,
            "UPDATE platforms SET seal = (SELECT key_check FROM meta) WHERE id = 'openai'",
        ),
        (
            Kind::Doors,
            "UPDATE doors SET record = replace(record, '/v1/models', '/v1/model')",
        ),
        (Kind::Doors, "UPDATE doors SET seal = x''"),
    ] {
        let Fixture { store, _outer, .. } = fixture().await;
        let publish_all = async || {
            publish(&store, &["openai", "anthropic"]).await;
            store.publish_doors(crate::platform::doors()).await.unwrap();
        };
        publish_all().await;
        add_api_key(&store, "one", "sk-one").await.unwrap();
        let (records, header) = poll(&store, None, 0).await;
        let before = keys(&records);
        // What stands is not published anew.
        publish_all().await;
        assert_eq!(store.head().await.unwrap().1, header.to);
        for sql in [
            written,
            "UPDATE platforms SET revision = revision + 1000",
            "UPDATE doors SET revision = revision + 1000",
            "UPDATE accounts SET revision = revision + 1000",
            "UPDATE meta SET revision = revision + 1000",
        ] {
            sqlx::query(sql).execute(&store.pool).await.unwrap();
        }
        let gone = |(of, id): (Kind, &str)| match kind {
            Kind::Platform => id == "openai" || of == Kind::Account,
            _ => of == kind,
        };
        let (records, header) = poll(&store, Some(header.epoch), header.to).await;
        assert!(records.len() >= 4, "{records:?}");
        for (of, id, is_removed) in keys(&records) {
            assert_eq!(is_removed, gone((of, &id)), "{written}: {of:?} {id}");
        }
        let left_out = store.left_out().await.unwrap();
        let is_it =
            |one: &LeftOut| gone((one.kind, &one.id)) && one.why.contains("publishes them anew");
        assert!(
            !left_out.is_empty() && left_out.iter().all(is_it),
            "{left_out:?}"
        );
        if kind == Kind::Platform {
            let asked = store.asked_account("one").await;
            assert!(matches!(asked, Err(Error::NotPublished)), "{asked:?}");
        }
        // The daemon's next start.
        publish_all().await;
        assert_eq!(store.left_out().await.unwrap(), []);
        let (records, _) = poll(&store, Some(header.epoch), header.to).await;
        assert!(keys(&records).iter().all(|(_, _, is_removed)| !is_removed));
        let (records, _) = poll(&store, None, 0).await;
        let mut after = keys(&records);
        after.retain(|one| before.contains(one));
        assert_eq!(after.len(), before.len(), "{written}");
    }
}
