use super::*;

#[tokio::test]
async fn commits_leave_the_log_to_who_writes_it_back_while_others_read() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let size = || fs::metadata(fixture.state.database()).unwrap().len();
    let before = size();
    let mut reader = store.pool.begin().await.unwrap();
    let count = "SELECT count(*) FROM accounts";
    let read: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut *reader)
        .await
        .unwrap();
    for number in 0..300 {
        let key = "x".repeat(16_000);
        add_api_key(store, &number.to_string(), &key).await.unwrap();
    }
    assert_eq!(size(), before, "more than SQLite's own 1,000 pages wait");
    store.write_log_back().await.unwrap();
    assert_eq!(size(), before, "somebody reads what was before");
    let read_again: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut *reader)
        .await
        .unwrap();
    assert_eq!((read, read_again), (0, 0));
    drop(reader);
    store.write_log_back().await.unwrap();
    assert!(size() > before + 1_000 * 4_096);
}
