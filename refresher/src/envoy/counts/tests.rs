use latchkey::id::Id;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

use super::*;
use crate::clock::UnixMillis;
use crate::state::StateDir;
use crate::store::{DEFAULT_POOL, KeyChange, LimitChanges, Terms};

/// 2026-09-21T14:13:20Z
const NOW: u64 = 1_790_000_000_000;
const MINUTE: u64 = NOW / MINUTE_MS * MINUTE_MS;

struct Fixture {
    _outer: tempfile::TempDir,
    store: Store,
    key: Subject,
}

fn change(terms: Terms) -> KeyChange {
    KeyChange {
        terms,
        ..KeyChange::default()
    }
}

/// A store with a limited key whose day is Berlin's, and one without limits.
async fn fixture() -> Fixture {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
    let terms = change(Terms {
        limits: LimitChanges {
            tokens_per_day: Some(std::num::NonZeroU64::new(1_000)),
            time_zone: Some(Some("Europe/Berlin".to_owned())),
            ..LimitChanges::default()
        },
        expires_at: None,
        proxy: None,
    });
    let new = store
        .create_client_key("limited", DEFAULT_POOL, &terms, UnixMillis(0))
        .await
        .unwrap();
    store
        .create_client_key("free", DEFAULT_POOL, &KeyChange::default(), UnixMillis(0))
        .await
        .unwrap();
    let key = Subject::key(&Id::try_from(new.id.as_str()).unwrap());
    Fixture {
        _outer: outer,
        store,
        key,
    }
}

fn told(instance: u8, subject: &Subject, requests: u64, tokens: u64, streams: u64) -> Counts {
    let day = NOW - NOW % DAY_MS;
    Counts {
        instance: format!("{instance:032x}"),
        subjects: vec![Line {
            subject: subject.clone(),
            said: Said {
                minute: Span {
                    start: MINUTE,
                    end: MINUTE + MINUTE_MS,
                    requests,
                    tokens,
                },
                day: Span {
                    start: day,
                    end: day + DAY_MS,
                    requests,
                    tokens,
                },
                streams,
            },
        }],
    }
}

async fn take(sums: &mut LimitSums, counts: &Counts, now: u64) -> Said {
    sums.take(counts, now).await.unwrap().subjects[0].said
}

#[tokio::test]
async fn each_envoy_hears_of_the_others() {
    let Fixture { store, key, _outer } = fixture().await;
    let mut sums = LimitSums::new(store);
    let said = take(&mut sums, &told(1, &key, 3, 30, 2), NOW).await;
    assert_eq!(
        (said.minute.requests, said.day.tokens, said.streams),
        (0, 0, 0)
    );
    // Midnight in Berlin.
    assert_eq!(
        (said.day.start, said.day.end),
        (1_789_941_600_000, 1_790_028_000_000)
    );
    let said = take(&mut sums, &told(2, &key, 1, 5, 1), NOW + 1).await;
    assert_eq!(
        (said.minute.requests, said.day.tokens, said.streams),
        (3, 30, 2)
    );
    // Once more, and late: nothing is counted twice, and nothing is taken back.
    take(&mut sums, &told(1, &key, 3, 30, 0), NOW + 2).await;
    take(&mut sums, &told(1, &key, 2, 20, 0), NOW + 2).await;
    let said = take(&mut sums, &told(2, &key, 1, 5, 1), NOW + 3).await;
    assert_eq!(
        (said.minute.requests, said.minute.tokens, said.streams),
        (3, 30, 0)
    );
    let all = sums.all(NOW + 3).await.unwrap();
    assert_eq!(all.subjects.len(), 1);
    assert_eq!(
        (
            all.subjects[0].said.day.tokens,
            all.subjects[0].said.streams
        ),
        (35, 1)
    );
    // An Envoy that is gone has no streams, but used what it used.
    let said = take(&mut sums, &told(3, &key, 0, 0, 0), NOW + 30_003).await;
    assert_eq!((said.day.tokens, said.streams), (35, 0));
}

#[tokio::test]
async fn a_day_outlives_the_process_and_ends_at_its_end() {
    let Fixture { store, key, _outer } = fixture().await;
    let mut sums = LimitSums::new(store.clone());
    take(&mut sums, &told(1, &key, 3, 400, 2), NOW).await;
    drop(sums);
    let mut sums = LimitSums::new(store.clone());
    let said = take(&mut sums, &told(2, &key, 1, 5, 1), NOW).await;
    assert_eq!((said.day.tokens, said.minute.requests), (400, 0));
    let midnight = 1_790_028_000_000;
    let late = take(&mut sums, &told(2, &key, 1, 5, 1), midnight - 1).await;
    assert_eq!(late.day.tokens, 400);
    // Its day of UTC is not over, but Berlin's is: what was used before midnight is not of today.
    let all = sums.all(midnight).await.unwrap();
    assert_eq!(
        (
            all.subjects[0].said.day.start,
            all.subjects[0].said.day.tokens
        ),
        (midnight, 0)
    );
    sums.store.keep_day_counts(&[], midnight).await.unwrap();
    assert!(store.day_counts().await.unwrap().is_empty());
}

/// The first counts after a start come while the store fails: what was used today is known once it does no more.
#[tokio::test]
async fn a_store_that_fails_at_first_costs_nobodys_day() {
    let Fixture {
        store,
        key,
        _outer: outer,
    } = fixture().await;
    let mut before = LimitSums::new(store.clone());
    take(&mut before, &told(1, &key, 3, 400, 2), NOW).await;
    let database = outer.path().join("state").join("latchkey.db");
    let options = SqliteConnectOptions::new().filename(database);
    let mut beside = SqliteConnection::connect_with(&options).await.unwrap();
    let mut name = async |id: &str| {
        let named = sqlx::query("UPDATE day_counts SET id = $1").bind(id.to_owned());
        named.execute(&mut beside).await.unwrap();
    };
    name("no id").await;
    let mut sums = LimitSums::new(store);
    let first = told(2, &key, 1, 5, 1);
    sums.take(&first, NOW).await.unwrap_err();
    name(key.id.as_str()).await;
    assert_eq!(take(&mut sums, &first, NOW).await.day.tokens, 400);
}

#[tokio::test]
async fn who_has_no_limits_and_what_is_malformed_is_not_counted() {
    let Fixture { store, key, _outer } = fixture().await;
    let mut sums = LimitSums::new(store.clone());
    let stranger = Subject::key(&Id::try_from("key_unknown").unwrap());
    let others = sums.take(&told(1, &stranger, 1, 1, 1), NOW).await.unwrap();
    assert_eq!(others, Others::default());
    let mut wrong = told(1, &key, 1, 1, 1);
    wrong.instance = "../../etc".to_owned();
    assert!(matches!(
        sums.take(&wrong, NOW).await,
        Err(Error::Malformed)
    ));
    let mut many = told(1, &key, 1, 1, 1);
    many.subjects = vec![many.subjects[0].clone(); MAX_LINES + 1];
    assert!(matches!(sums.take(&many, NOW).await, Err(Error::Malformed)));
    let off = LimitChanges {
        tokens_per_day: Some(None),
        ..LimitChanges::default()
    };
    let terms = change(Terms {
        limits: off,
        expires_at: None,
        proxy: None,
    });
    store.set_client_key("limited", &terms).await.unwrap();
    assert_eq!(
        sums.take(&told(1, &key, 1, 1, 1), NOW).await.unwrap(),
        Others::default()
    );
}

#[tokio::test]
async fn instances_are_bounded_and_none_is_lost() {
    let Fixture { store, key, _outer } = fixture().await;
    let mut sums = LimitSums::new(store.clone());
    for instance in 1..=200 {
        take(
            &mut sums,
            &told(instance, &key, 1, 10, 0),
            NOW + u64::from(instance),
        )
        .await;
    }
    assert!(sums.subjects[&key].instances.len() <= MAX_INSTANCES + 1);
    assert!(store.day_counts().await.unwrap().len() <= MAX_INSTANCES + 1);
    assert_eq!(
        sums.all(NOW + 300).await.unwrap().subjects[0]
            .said
            .day
            .tokens,
        2_000
    );
    let mut again = LimitSums::new(store);
    assert_eq!(
        again.all(NOW + 300).await.unwrap().subjects[0]
            .said
            .day
            .tokens,
        2_000
    );
}

/// Returns what the sums say of a day's tokens.
async fn today(sums: &mut LimitSums, now: u64) -> (u64, u64) {
    let all = sums.all(now).await.unwrap();
    let day = all.subjects[0].said.day;
    (day.start, day.tokens)
}

async fn set_zone(store: &Store, zone: Option<&str>) {
    let terms = change(Terms {
        limits: LimitChanges {
            time_zone: Some(zone.map(str::to_owned)),
            ..LimitChanges::default()
        },
        expires_at: None,
        proxy: None,
    });
    store.set_client_key("limited", &terms).await.unwrap();
}

/// As when a profile says another zone at the next start.
#[tokio::test]
async fn another_zone_forgets_nothing_where_nobody_counted_meanwhile() {
    let Fixture { store, key, _outer } = fixture().await;
    let mut sums = LimitSums::new(store.clone());
    take(&mut sums, &told(1, &key, 3, 400, 2), NOW).await;
    take(&mut sums, &told(2, &key, 1, 30, 1), NOW).await;
    drop(sums);
    let utc = NOW - NOW % DAY_MS;
    for (zone, start) in [
        (None, utc),
        // Midnight in Shanghai, and in Berlin.
        (Some("Asia/Shanghai"), utc - 8 * 3_600_000),
        (Some("Europe/Berlin"), utc - 2 * 3_600_000),
    ] {
        set_zone(&store, zone).await;
        for _ in 0..2 {
            let mut sums = LimitSums::new(store.clone());
            assert_eq!(today(&mut sums, NOW).await, (start, 430), "{zone:?}");
        }
        let rows = store.day_counts().await.unwrap();
        assert!(rows.iter().all(|row| row.day.start == start), "{rows:?}");
        assert_eq!(rows.len(), 2);
    }
    // A day that is over is not carried over, neither in its zone nor into another one.
    let mut sums = LimitSums::new(store.clone());
    assert_eq!(today(&mut sums, NOW + DAY_MS).await.1, 0);
    set_zone(&store, None).await;
    let mut sums = LimitSums::new(store);
    assert_eq!(today(&mut sums, NOW + DAY_MS).await, (utc + DAY_MS, 0));
}

/// A day has 23 hours where the clocks go forward, and 25 where they go back. It is over when it is over, in its zone and in
/// another one that holds from the next start on.
#[tokio::test]
async fn a_day_of_another_length_is_carried_over_to_its_end() {
    let hour = 3_600_000;
    // 2026-03-29 and 2026-10-25 in Berlin.
    let short = (1_774_738_800_000, 1_774_821_600_000);
    let long = (1_792_879_200_000, 1_792_969_200_000);
    assert_eq!(short.1 - short.0, DAY_MS - hour);
    assert_eq!(long.1 - long.0, DAY_MS + hour);
    for (start, end) in [short, long] {
        for zone in [
            "Europe/Berlin",
            "UTC",
            "Etc/GMT-1",
            "Etc/GMT-2",
            "Asia/Shanghai",
        ] {
            let Fixture { store, key, _outer } = fixture().await;
            set_zone(&store, Some(zone)).await;
            let count = DayCount {
                subject: key,
                day: Day { start, end },
                instance: format!("{:032x}", 1),
                used: Some(Used {
                    requests: 1,
                    tokens: 400,
                }),
            };
            // As at a restart in its last minute, and at one in the first minute of the next.
            for (now, tokens) in [(end - 60_000, 400), (end + 60_000, 0)] {
                store
                    .keep_day_counts(std::slice::from_ref(&count), 0)
                    .await
                    .unwrap();
                let mut sums = LimitSums::new(store.clone());
                let found = today(&mut sums, now).await;
                let day = Zone::parse(zone).unwrap().day_at(now);
                assert_eq!(found, (day.start, tokens), "{zone} {now}");
                for row in store.day_counts().await.unwrap() {
                    let gone = DayCount { used: None, ..row };
                    store.keep_day_counts(&[gone], 0).await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn another_zone_forgets_nothing() {
    let Fixture { store, key, _outer } = fixture().await;
    let mut sums = LimitSums::new(store.clone());
    take(&mut sums, &told(1, &key, 3, 400, 2), NOW).await;
    set_zone(&store, None).await;
    let said = take(&mut sums, &told(2, &key, 0, 0, 0), NOW + 1).await;
    assert_eq!((said.day.start, said.day.tokens), (NOW - NOW % DAY_MS, 400));
    // Nothing is left of the zone before, which could be taken for that of another day.
    for row in store.day_counts().await.unwrap() {
        assert_eq!(row.day.start, NOW - NOW % DAY_MS);
    }
    let mut again = LimitSums::new(store);
    assert_eq!(
        again.all(NOW + 2).await.unwrap().subjects[0]
            .said
            .day
            .tokens,
        400
    );
}
