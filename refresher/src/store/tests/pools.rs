//! Pools and their members.

use latchkey::snapshot::ModelMaps;

use super::*;

#[tokio::test]
async fn a_pool_has_what_was_put_into_it_in_that_order() {
    let Fixture { store, _outer, .. } = fixture().await;
    for name in ["a", "b", "c"] {
        add_api_key(&store, name, "sk").await.unwrap();
    }
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let (two, late) = (Weight::try_from(2).ok(), Tier::try_from(1).ok());
    store.create_pool("team", Policy::FillFirst).await.unwrap();
    store
        .add_to_pool("team", &names(&["c", "a"]), None, None)
        .await
        .unwrap();
    store
        .add_to_pool("team", &names(&["b"]), two, late)
        .await
        .unwrap();
    store
        .add_to_pool("team", &names(&["c"]), two, None)
        .await
        .unwrap();
    let shown = async || {
        let pools = store.pools().await.unwrap();
        let team = pools.iter().find(|pool| pool.id == "team").unwrap();
        let show = |member: &PoolMember| {
            format!(
                "{} {} {}",
                member.account,
                u32::from(member.weight),
                u32::from(member.tier)
            )
        };
        (
            team.policy,
            team.members.iter().map(show).collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        shown().await,
        (Policy::FillFirst, names(&["c 2 0", "a 1 0", "b 2 1"]))
    );
    let refused = store
        .add_to_pool("team", &names(&["b", "nobody"]), None, late)
        .await;
    assert!(matches!(
        refused,
        Err(Error::Unknown {
            record: crate::fault::Kind::Account,
            ..
        })
    ));
    let refused = store.drop_from_pool("team", &names(&["a", "a"])).await;
    assert!(
        matches!(refused, Err(Error::NotInPool { .. })),
        "{refused:?}"
    );
    assert_eq!(shown().await.1.len(), 3, "nothing was changed");
    store.drop_from_pool("team", &names(&["c"])).await.unwrap();
    store
        .set_pool("team", Some(Policy::LeastInFlight), &RuleChange::default())
        .await
        .unwrap();
    assert_eq!(
        shown().await,
        (Policy::LeastInFlight, names(&["a 1 0", "b 2 1"]))
    );
    let maps: ModelMaps = serde_json::from_str(r#"["claude-*=gpt-7"]"#).unwrap();
    let change = RuleChange {
        maps: Some(maps.clone()),
        ..RuleChange::default()
    };
    store.set_pool("team", None, &change).await.unwrap();
    let change = RuleChange {
        untranslated: Some(true),
        ..RuleChange::default()
    };
    store.set_pool("team", None, &change).await.unwrap();
    let pools = store.pools().await.unwrap();
    let team = pools.into_iter().find(|pool| pool.id == "team").unwrap();
    let rules = Rules {
        maps,
        untranslated: true,
        exact_model: false,
    };
    assert_eq!((team.policy, team.rules), (Policy::LeastInFlight, rules));

    for (id, is_taken) in [("team", true), ("two words", false), ("", false)] {
        let refused = store.create_pool(id, Policy::Sticky).await.unwrap_err();
        assert_eq!(
            matches!(refused, Error::NameTaken { .. }),
            is_taken,
            "{refused}"
        );
    }
    let unknown = store
        .set_pool("other", Some(Policy::Sticky), &RuleChange::default())
        .await
        .unwrap_err();
    assert!(
        matches!(
            unknown,
            Error::Unknown {
                record: crate::fault::Kind::Pool,
                ..
            }
        ),
        "{unknown}"
    );
}

#[tokio::test]
async fn a_pool_that_keys_need_stays() {
    let Fixture { store, _outer, .. } = fixture().await;
    for pool in ["own", "chosen"] {
        store.create_pool(pool, Policy::Sticky).await.unwrap();
    }
    let rights = KeyChange {
        may_choose_pools: vec!["chosen".to_owned()],
        ..KeyChange::default()
    };
    store
        .create_client_key("laptop", "own", &rights, NOW)
        .await
        .unwrap();
    for pool in ["own", "chosen"] {
        let refused = store.remove_pool(pool).await.unwrap_err();
        assert!(
            matches!(&refused, Error::PoolInUse { keys, .. } if keys == &["laptop"]),
            "{refused}"
        );
    }
    let refused = store.remove_pool(DEFAULT_POOL).await.unwrap_err();
    assert!(matches!(refused, Error::DefaultPool));
    let change = KeyChange {
        pool: Some(DEFAULT_POOL.to_owned()),
        ..KeyChange::default()
    };
    store.set_client_key("laptop", &change).await.unwrap();
    store.remove_pool("own").await.unwrap();
    store.revoke_client_key("laptop", NOW).await.unwrap();
    store.remove_pool("chosen").await.unwrap();
    store.create_pool("own", Policy::Sticky).await.unwrap();
    let gone = store.set_client_key("laptop", &change).await;
    assert!(gone.is_err(), "it is revoked");
}
