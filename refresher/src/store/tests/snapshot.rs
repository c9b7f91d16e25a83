//! Tests of what pollers are told, whole and in pieces, and of what wakes them.

use super::*;

#[tokio::test]
async fn a_poller_that_applies_deltas_holds_what_one_that_starts_anew_gets() {
    let Fixture { store, _outer, .. } = fixture().await;
    let (records, header) = poll(&store, None, 0).await;
    assert_eq!(keys(&records), [(Kind::Pool, "default".to_owned(), false)]);
    let epoch = Some(header.epoch);
    let mut held = BTreeMap::new();
    let mut since = header.to;
    let alice = add_login(&store, "alice").await;
    let team = ["team".to_owned()];
    for step in 0..12 {
        match step {
            0 => publish(&store, &["codex", "openai"]).await,
            1 => drop(add_api_key(&store, "team", "sk-1").await.unwrap()),
            2 => assert!(store.disable("team", NOW).await.unwrap()),
            3 => drop(
                store
                    .create_client_key("laptop", DEFAULT_POOL, &KeyChange::default(), NOW)
                    .await
                    .unwrap(),
            ),
            4 => publish(&store, &["codex"]).await,
            5 => store.create_pool("spare", Policy::FillFirst).await.unwrap(),
            6 => store
                .add_to_pool("spare", &team, None, Tier::try_from(3).ok())
                .await
                .unwrap(),
            7 => {
                let change = KeyChange {
                    may_choose_account: true,
                    may_choose_pools: vec!["spare".to_owned()],
                    models: serde_json::from_str(r#"["gpt-5*"]"#).ok(),
                    demands: DemandChange {
                        tier: Some(Some(latchkey::dialect::ServiceTier::Flex)),
                        ..DemandChange::default()
                    },
                    rules: RuleChange {
                        untranslated: Some(true),
                        ..RuleChange::default()
                    },
                    ..KeyChange::default()
                };
                store.set_client_key("laptop", &change).await.unwrap();
            }
            8 => {
                let models = serde_json::from_str(r#"["o3"]"#).unwrap();
                let maps = serde_json::from_str(r#"["o3=east-7"]"#).unwrap();
                let terms = Terms {
                    expires_at: Some(Some(NOW)),
                    ..Terms::default()
                };
                let changes = AccountChanges {
                    models: Some(&models),
                    maps: Some(&maps),
                    ..AccountChanges::default()
                };
                store
                    .set_account("alice", changes, &terms, NOW)
                    .await
                    .unwrap();
            }
            9 => drop(store.revoke_client_key("laptop", NOW).await.unwrap()),
            10 => store.remove_pool("spare").await.unwrap(),
            _ => store.remove_account(&alice).await.unwrap(),
        }
        let (delta, header) = poll(&store, epoch, since).await;
        assert!(
            !header.reset && header.from == since && !header.more,
            "{header:?}"
        );
        since = header.to;
        for record in delta {
            let key = (record.key().0, record.key().1.clone());
            match record {
                Record::Removed(_) => held.remove(&key),
                record => held.insert(key, record),
            };
        }
        let (all, header) = poll(&store, None, 0).await;
        assert!(header.reset && header.to == since);
        let all: BTreeMap<_, _> = all
            .into_iter()
            .map(|record| ((record.key().0, record.key().1.clone()), record))
            .collect();
        assert_eq!(held, all, "step {step}");
    }
    assert!(poll(&store, epoch, since).await.0.is_empty());
    assert!(!store.page(epoch, since).await.unwrap().news);
}

#[tokio::test]
async fn a_snapshot_longer_than_a_page_comes_in_several() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["openai"]).await;
    let long = "k".repeat(15_000);
    for number in 0..150 {
        add_api_key(&store, &format!("account {number}"), &long)
            .await
            .unwrap();
    }
    let (mut epoch, mut since, mut pages, mut seen) = (None, 0, 0, 0);
    loop {
        let bytes = store.page(epoch, since).await.unwrap().bytes;
        assert!(
            bytes.len() < latchkey::snapshot::page::MAX_PAGE_BYTES + 1024,
            "{}",
            bytes.len()
        );
        let (records, header) = poll(&store, epoch, since).await;
        assert_eq!(header.reset, pages == 0);
        (pages, seen) = (pages + 1, seen + records.len());
        (epoch, since) = (Some(header.epoch), header.to);
        if !header.more {
            break;
        }
    }
    // 150 accounts, one platform, one pool.
    assert_eq!((pages, seen), (3, 152));
}

#[tokio::test]
async fn a_restored_backup_begins_a_new_epoch() {
    let Fixture { store, _outer, .. } = fixture().await;
    let (_, header) = poll(&store, None, 0).await;
    let (_, anew) = poll(&store, Some(header.epoch), header.to + 1).await;
    assert!(anew.reset && anew.from == 0);
    assert_ne!(anew.epoch, header.epoch);
}

#[tokio::test]
async fn a_change_wakes_who_waits_here_and_in_other_processes() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    let other = open(&state).await.unwrap();
    let (mut here, mut there) = (store.revisions(), other.revisions());
    let watching = tokio::spawn({
        let other = other.clone();
        async move { other.watch().await }
    });
    add_login(&store, "alice").await;
    assert!(here.has_changed().unwrap());
    let (_, revision) = store.head().await.unwrap();
    tokio::time::timeout(
        Duration::from_secs(5),
        there.wait_for(|seen| *seen == revision),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(*here.borrow_and_update(), revision);
    watching.abort();
}

#[tokio::test]
async fn a_swapped_credential_is_not_published() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["openai"]).await;
    add_api_key(&store, "one", "sk-1").await.unwrap();
    add_api_key(&store, "two", "sk-2").await.unwrap();
    sqlx::query(
        "UPDATE accounts SET credential = (SELECT credential FROM accounts WHERE name = 'one')",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    let (records, _) = poll(&store, None, 0).await;
    let accounts = records
        .iter()
        .filter(|record| matches!(record, Record::Account(_)))
        .count();
    assert_eq!(accounts, 1);
}

#[tokio::test]
async fn of_what_a_login_tells_only_what_headers_use_is_published() {
    let Fixture { store, _outer, .. } = fixture().await;
    let catalog = Catalog::load(None, ["codex".to_owned()].into()).unwrap();
    let mut codex = catalog.usable("codex").unwrap().publication();
    let platforms = [codex.clone()];
    store.publish_platforms(&platforms).await.unwrap();
    let told = [
        ("account_id", "ws-1"),
        ("email", "alice@example.com"),
        ("plan", "team"),
        ("user_id", "user-1"),
    ];
    let new = NewAccount {
        name: "alice",
        platform: "codex",
        credential: tokens("access-1"),
        vars: told.map(|(name, value)| (name.into(), value.into())).into(),
        credential_expires_at: None,
        base_url: None,
    };
    store
        .save_account(new, &Terms::default(), false, NOW)
        .await
        .unwrap();
    let published = async |epoch, since| {
        let (records, header) = poll(&store, epoch, since).await;
        let vars = records.into_iter().find_map(|record| match record {
            Record::Account(account) => Some(account.vars.into_keys().collect::<Vec<_>>()),
            _ => None,
        });
        (vars.unwrap(), header)
    };
    let (vars, header) = published(None, 0).await;
    assert_eq!(vars, ["account_id"]);

    // A header that is new in the profile comes with what it needs of accounts that are known already.
    let name = "x-plan".try_into().unwrap();
    let plan = latchkey::header::HeaderText::try_from("{plan}")
        .unwrap()
        .try_into()
        .unwrap();
    codex.record.headers.set.push((name, plan));
    store.publish_platforms(&[codex]).await.unwrap();
    let (vars, _) = published(Some(header.epoch), header.to).await;
    assert_eq!(vars, ["account_id", "plan"]);
}
