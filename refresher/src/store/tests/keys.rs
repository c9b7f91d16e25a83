//! The bound of a sealing key.

use super::*;

#[tokio::test]
async fn a_key_is_exhausted_across_restarts() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    sqlx::query("UPDATE sealing_keys SET seals = ?")
        // An account is two records.
        .bind(signed(seal::SEALS_PER_KEY - 2))
        .execute(&store.pool)
        .await
        .unwrap();
    add_api_key(&store, "last", "sk-1").await.unwrap();
    store.close().await;
    let store = open(&state).await.unwrap();
    let error = add_api_key(&store, "one too many", "sk-2")
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        Error::Seal {
            source: seal::Error::Exhausted,
            ..
        }
    ));
}
