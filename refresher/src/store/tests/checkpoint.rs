use super::*;

async fn fill(store: &Store, names: std::ops::Range<u32>) {
    for number in names {
        let key = "x".repeat(16_000);
        add_api_key(store, &number.to_string(), &key).await.unwrap();
    }
}

#[tokio::test]
async fn commits_leave_the_log_to_who_writes_it_back_while_others_read() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let size = || fs::metadata(fixture.state.database()).unwrap().len();
    let before = size();
    fill(store, 0..300).await;
    assert_eq!(size(), before, "more than SQLite's own 1,000 pages wait");
    store.write_log_back().await.unwrap();
    let written = size();
    assert!(written > before + 1_000 * 4_096);

    let mut reader = store.pool.begin().await.unwrap();
    let count = "SELECT count(*) FROM accounts";
    let read: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut *reader)
        .await
        .unwrap();
    fill(store, 300..400).await;
    store.write_log_back().await.unwrap();
    assert_eq!(size(), written, "somebody reads what was before");
    let again: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut *reader)
        .await
        .unwrap();
    assert_eq!((read, again), (300, 300));
    reader.rollback().await.unwrap();
    store.write_log_back().await.unwrap();
    assert!(size() > written);
}
