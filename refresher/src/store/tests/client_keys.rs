//! The rights of client keys.

use latchkey::dialect::{Demands, EffortWord, ServiceTier};

use super::*;

#[tokio::test]
async fn what_a_key_may_do_is_given_and_taken() {
    let Fixture { store, _outer, .. } = fixture().await;
    store.create_pool("other", Policy::Sticky).await.unwrap();
    let rights = KeyChange {
        models: serde_json::from_str(r#"["gpt-5*"]"#).ok(),
        may_choose_account: true,
        ..KeyChange::default()
    };
    store
        .create_client_key("laptop", DEFAULT_POOL, &rights, NOW)
        .await
        .unwrap();
    let key = async || store.client_keys().await.unwrap().remove(0);
    assert!(key().await.may_choose_account && !key().await.models.is_all());
    let more = KeyChange {
        may_choose_pools: vec!["other".to_owned()],
        rules: RuleChange {
            maps: serde_json::from_str(r#"["smart=gpt-7"]"#).ok(),
            exact_model: Some(true),
            ..RuleChange::default()
        },
        ..KeyChange::default()
    };
    store.set_client_key("laptop", &more).await.unwrap();
    assert!(key().await.may_choose_account, "it keeps what it had");
    assert_eq!(key().await.may_choose_pools, ["other"]);
    let demands = |change: DemandChange| KeyChange {
        demands: change,
        ..KeyChange::default()
    };
    let both = demands(DemandChange {
        effort: Some(Some(EffortWord::High)),
        tier: Some(Some(ServiceTier::Flex)),
        ..DemandChange::default()
    });
    store.set_client_key("laptop", &both).await.unwrap();
    let other = demands(DemandChange {
        effort: Some(None),
        max_effort: Some(Some(EffortWord::Low)),
        ..DemandChange::default()
    });
    store.set_client_key("laptop", &other).await.unwrap();
    let demanded = Demands {
        effort: None,
        max_effort: Some(EffortWord::Low),
        tier: Some(ServiceTier::Flex),
    };
    assert_eq!(key().await.demands, demanded);
    let less = KeyChange {
        rules: RuleChange {
            exact_model: Some(false),
            ..RuleChange::default()
        },
        models: Some(latchkey::snapshot::Models::default()),
        no_choice: true,
        ..KeyChange::default()
    };
    store.set_client_key("laptop", &less).await.unwrap();
    let key = key().await;
    assert!(!key.rules.exact_model && key.rules.maps.served("smart").is_some());
    assert!(key.models.is_all() && !key.may_choose_account && key.may_choose_pools.is_empty());
    let nowhere = KeyChange {
        pool: Some("nowhere".to_owned()),
        ..KeyChange::default()
    };
    assert!(store.set_client_key("laptop", &nowhere).await.is_err());
}
