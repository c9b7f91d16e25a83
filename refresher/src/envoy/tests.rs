//! The routes over a real socket, asked by a plain HTTP/1.1 client.

use std::sync::Mutex;

use latchkey::snapshot::page::{Page, PageHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::socket::Socket;
use super::*;
use crate::clock::UnixMillis;
use crate::listen;
use crate::state::StateDir;
use crate::store::{By, DEFAULT_POOL, KeyChange, LimitChanges, Terms};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

struct Server {
    _outer: tempfile::TempDir,
    state: StateDir,
    store: Store,
    reported: Arc<Mutex<Vec<(String, u64)>>>,
    shutdown: CancellationToken,
}

async fn start() -> Server {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
    let reported: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
    let heard = Arc::clone(&reported);
    let on_unauthorized: OnUnauthorized = Arc::new(move |account, generation| {
        heard
            .lock()
            .unwrap()
            .push((account.to_string(), generation))
    });
    let shutdown = CancellationToken::new();
    let settled = store.revisions();
    let router = router(
        store.clone(),
        on_unauthorized,
        settled,
        Metrics::default(),
        Progress::default(),
        shutdown.clone(),
    );
    let _lock = state.lock_serve().unwrap();
    let socket = Socket::bind(&state.socket()).await.unwrap();
    tokio::spawn(listen::serve(
        socket,
        router,
        listen::SOCKET,
        shutdown.clone(),
    ));
    Server {
        _outer: outer,
        state,
        store,
        reported,
        shutdown,
    }
}

impl Server {
    /// The status and the body of the answer to one request.
    async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, Vec<u8>) {
        let mut stream = UnixStream::connect(self.state.socket()).await.unwrap();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: refresher\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may answer, and close, before it has read a body that it refuses.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let end = answer
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .unwrap()
            + 4;
        let status = std::str::from_utf8(&answer[9..12])
            .unwrap()
            .parse()
            .unwrap();
        (status, answer.split_off(end))
    }

    async fn poll(&self, query: &str) -> PageHeader {
        let (status, body) = self.ask("GET", &format!("/snapshot?{query}"), "").await;
        assert_eq!(status, 200);
        Page::parse(&body).unwrap().header
    }
}

fn epoch_of(header: &PageHeader) -> String {
    header.epoch.into()
}

#[tokio::test]
async fn a_poll_is_answered_at_once_or_when_something_changes_or_in_the_end() {
    let server = start().await;
    let first = server.poll("since=0&wait=60").await;
    assert!(first.reset && first.records == 1);
    let query = format!("epoch={}&since={}", epoch_of(&first), first.to);

    let started = Instant::now();
    let empty = server.poll(&format!("{query}&wait=1")).await;
    assert_eq!(
        (empty.records, empty.from, empty.to),
        (0, first.to, first.to)
    );
    assert!(started.elapsed() >= Duration::from_secs(1));

    let query = format!("{query}&wait=60");
    let waiting = server.poll(&query);
    let changing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server
            .store
            .create_client_key("laptop", DEFAULT_POOL, &KeyChange::default(), NOW)
            .await
            .unwrap();
        Instant::now()
    };
    let (delta, changed_at) = tokio::join!(waiting, changing);
    assert!(changed_at.elapsed() < Duration::from_secs(5));
    assert_eq!((delta.records, delta.from), (1, first.to));

    let stranger = server
        .poll("epoch=00000000000000000000000000000000&since=1&wait=60")
        .await;
    assert!(stranger.reset && stranger.from == 0);
}

#[tokio::test]
async fn how_far_an_envoy_is_is_known_by_its_polls() {
    let server = start().await;
    let first = server.poll("since=0").await;
    let instance = "ab".repeat(16);
    let query = format!(
        "epoch={}&since={to}&held={to}&instance={instance}&node=n&unread=2&first_unread=key/key_1&wait=0",
        epoch_of(&first),
        to = first.to
    );
    server.poll(&query).await;
    let (status, body) = server.ask("GET", "/envoys", "").await;
    assert_eq!(status, 200);
    let envoys: Vec<EnvoyView> = serde_json::from_slice(&body).unwrap();
    let expected = EnvoyView {
        instance,
        node: Some("n".to_owned()),
        revision: first.to,
        unread: 2,
        behind_seconds: None,
        why: None,
        gone_seconds: None,
    };
    assert_eq!(envoys, [expected]);
    // What cannot be read of that costs no poll.
    server.poll("since=0&unread=many&node=a%0Ab").await;
}

#[tokio::test]
async fn a_shutdown_ends_long_polls() {
    let server = start().await;
    let first = server.poll("").await;
    let query = format!("epoch={}&since={}&wait=60", epoch_of(&first), first.to);
    let ending = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.shutdown.cancel();
    };
    let (header, ()) = tokio::join!(server.poll(&query), ending);
    assert_eq!(header.records, 0);
}

#[tokio::test]
async fn a_batch_of_reports_is_applied_once() {
    let server = start().await;
    let (account, other) = (AccountId::random(), AccountId::random());
    let batch = serde_json::json!({ "batch": "0123", "reports": [
        { "account": account.as_str(), "generation": 7, "kind": "unauthorized" },
        { "account": other.as_str(), "generation": 1, "kind": "a kind of tomorrow" },
        { "account": "../etc", "generation": 1, "kind": "unauthorized" },
    ] });
    for _ in 0..2 {
        assert_eq!(
            server.ask("POST", "/reports", &batch.to_string()).await.0,
            204
        );
    }
    assert_eq!(*server.reported.lock().unwrap(), [(account.to_string(), 7)]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let server = start().await;
    assert_eq!(server.ask("GET", "/snapshot?since=-1", "").await.0, 400);
    assert_eq!(server.ask("POST", "/reports", "{").await.0, 400);
    assert_eq!(server.ask("POST", "/reports", "{}").await.0, 422);
    assert_eq!(
        server
            .ask("POST", "/reports", &" ".repeat(MAX_REPORTS_BYTES + 1))
            .await
            .0,
        413
    );
    assert_eq!(server.ask("GET", "/accounts", "").await.0, 404);
    let (status, body) = server.ask("GET", "/healthz", "").await;
    assert_eq!(status, 200);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("\"status\":\"ok\"")
    );
}

/// A batch of records as a filter sends it, with what is odd in it.
fn batch_of(records: &[serde_json::Value]) -> String {
    let batch = "0123456789abcdef".repeat(2);
    serde_json::json!({ "batch": batch, "reports": [], "records": records }).to_string()
}

#[tokio::test]
async fn records_are_kept_once_and_a_malformed_one_costs_no_other() {
    let server = start().await;
    let good = serde_json::json!({
        "at": NOW.0, "key": "key_1", "pool": "default", "dialect": "chat", "status": 200, "attempts": 1,
        "duration_ms": 9, "completeness": "whole", "colour": "blue",
    });
    let mut odd = good.clone();
    odd["status"] = (-1).into();
    let body = batch_of(&[good.clone(), odd, serde_json::json!("x"), good]);
    for _ in 0..2 {
        assert_eq!(server.ask("POST", "/reports", &body).await.0, 204);
    }
    let sums = server.store.usage(By::Key, UnixMillis(0)).await.unwrap();
    assert_eq!((sums.len(), sums[0].requests), (1, 2));
    let (status, page) = server.ask("GET", "/metrics", "").await;
    let page = String::from_utf8(page).unwrap();
    assert_eq!(status, 200);
    for outcome in ["ingested\"} 2", "duplicate\"} 2", "malformed\"} 2"] {
        let line = format!("latchkey_records_total{{outcome=\"{outcome}");
        assert!(page.contains(&line), "{page}");
    }
    let nameless = body.replace("0123", "wxyz");
    assert_eq!(server.ask("POST", "/reports", &nameless).await.0, 400);
}

/// A filter that is broken, or believes a platform everything, may say all this: no number makes a sum overflow, here or
/// in SQLite.
#[tokio::test]
async fn the_largest_numbers_are_taken_and_summed_up() {
    let server = start().await;
    let most = u64::MAX;
    let terms = KeyChange {
        terms: Terms {
            limits: LimitChanges {
                tokens_per_day: Some(std::num::NonZeroU64::new(most)),
                ..LimitChanges::default()
            },
            expires_at: None,
            proxy: None,
        },
        ..KeyChange::default()
    };
    let key = server
        .store
        .create_client_key("laptop", DEFAULT_POOL, &terms, NOW)
        .await
        .unwrap();

    let reports = serde_json::json!([
        { "kind": "unauthorized", "account": "acc_1", "generation": most },
        { "kind": "dead", "account": "acc_1", "generation": most, "reason": "gone", "at": most },
        { "kind": "recovered", "account": "acc_1", "at": most },
        { "kind": "cooling_down", "account": "acc_1", "scope": "account", "until": most, "guessed": true,
          "reason": "overloaded", "at": most },
        { "kind": "quota", "account": "acc_1", "at": most, "windows": [
            { "name": "5h", "used_percent": 1.0, "resets_at": most },
        ] },
    ]);
    let record = serde_json::json!({
        "at": most, "key": key.id.as_str(), "pool": "default", "account": "acc_1", "platform": "codex", "dialect": "chat",
        "status": 200, "attempts": u32::MAX, "first_byte_ms": most, "duration_ms": most, "completeness": "whole",
        "count": u32::MAX, "estimate": true, "usage": { "input": most, "output": most, "cached_input": most,
            "cache_write": most, "reasoning": most, "total": most },
    });
    for batch in 0..2 {
        let body = serde_json::json!({
            "batch": format!("{batch:032x}"), "reports": reports, "records": [record, record],
        });
        let (status, _) = server.ask("POST", "/reports", &body.to_string()).await;
        assert_eq!(status, 204);
    }
    for by in [By::Key, By::Account, By::Model, By::Day] {
        let sums = server.store.usage(by, UnixMillis(0)).await.unwrap();
        assert_eq!((sums.len(), sums[0].requests), (1, 4 * u64::from(u32::MAX)));
        assert!(sums[0].total > 0);
    }
    assert_eq!(server.ask("GET", "/metrics", "").await.0, 200);

    let span = serde_json::json!({ "start": 0, "end": most, "requests": most, "tokens": most });
    let mut told = Vec::new();
    for instance in [1, 2, 3, 1] {
        let counts = serde_json::json!({ "instance": format!("{instance:032x}"), "subjects": [
            { "kind": "key", "id": key.id.as_str(), "minute": span, "day": span, "streams": most },
        ] });
        let (status, body) = server.ask("POST", "/counts", &counts.to_string()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        told = body;
    }
    let others: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let others = &others["subjects"][0];
    for (span, number) in [("minute", "tokens"), ("day", "requests"), ("day", "tokens")] {
        assert_eq!(others[span][number], most, "{others}");
    }
    assert_eq!(others["streams"], most);
    assert_eq!(server.ask("GET", "/counts", "").await.0, 200);
}

/// An older filter does not say how many requests began, a newer one may say it in a way that is not known here.
#[tokio::test]
async fn what_began_comes_with_a_batch_and_a_strange_one_costs_no_record() {
    let server = start().await;
    let instance = "0123456789abcdef".repeat(2);
    let said = |requests: u64| serde_json::json!({"instance": instance, "requests": requests});
    let record = serde_json::json!({
        "at": NOW.0, "key": "key_1", "pool": "default", "dialect": "chat", "status": 200, "attempts": 1,
        "duration_ms": 9, "completeness": "whole",
    });
    let mut strange = said(9);
    strange["requests"] = "many".into();
    let mut foreign = said(9);
    foreign["instance"] = "a\nb".into();
    let batch = |number: u128| format!("{number:032x}");
    let alone =
        serde_json::json!({"batch": batch(6), "reports": [], "begun": said(5), "records": []});
    for body in [
        alone.clone(),
        alone,
        serde_json::json!({"batch": batch(1), "reports": [], "begun": said(3), "records": [record]}),
        serde_json::json!({"batch": batch(2), "reports": [], "begun": strange, "records": [record]}),
        serde_json::json!({"batch": batch(3), "reports": [], "begun": foreign, "records": [record]}),
        serde_json::json!({"batch": batch(4), "reports": [], "begun": said(u64::MAX), "records": [record]}),
        serde_json::json!({"batch": batch(5), "reports": [], "records": [record]}),
    ] {
        let (status, _) = server.ask("POST", "/reports", &body.to_string()).await;
        assert_eq!(status, 204, "{body}");
    }
    let envoys = server.store.envoys(UnixMillis(0), 9).await.unwrap();
    let envoys: Vec<_> = envoys.iter().map(|one| (one.begun, one.recorded)).collect();
    assert_eq!(envoys, [(8, 1)]);
    let sums = server.store.usage(By::Key, UnixMillis(0)).await.unwrap();
    assert_eq!(sums[0].requests, 5);
}
