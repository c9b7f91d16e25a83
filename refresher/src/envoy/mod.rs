//! The questions of Envoy on the Unix socket: `GET /snapshot`, `POST /reports`, `POST /counts`, `GET /homes/THING`,
//! `GET /healthz`, `GET /metrics`, `GET /envoys` (docs/protocol.md).

pub mod clusters;
pub mod counts;
pub mod filter_file;
pub mod reports;
pub mod socket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Json, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use latchkey::home::ThingHash;
use latchkey::id::Id;
use latchkey::limit::settle::Counts;
use latchkey::snapshot::page::Epoch;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::counts::LimitSums;
use self::reports::{Batch, Records, Reports};
use crate::clock::{Clock, SystemClock};
use crate::id::AccountId;
use crate::metrics::{self, Metrics};
use crate::progress::{EnvoyView, LOOK_INTERVAL, Progress, Said};
use crate::store::{Home, Store, Taken};

/// The longest long poll. Proxies and the filter's own timeout are longer.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The time for which news waits for clusters that cannot be written: a part of the two seconds in which what is taken away
/// has to be out of use, as the same page may take a client key away.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// The most bytes of a batch of reports: some 10,000 of them.
const MAX_REPORTS_BYTES: usize = 1024 * 1024;
/// The most bytes of counts: 1,000 subjects of 300 each, with room to grow.
const MAX_COUNTS_BYTES: usize = 1024 * 1024;

/// Hears that a platform refused the credential of an account's generation.
pub type OnUnauthorized = Arc<dyn Fn(&AccountId, u64) + Send + Sync>;

/// The state that all handlers share.
#[derive(Clone)]
struct Shared {
    store: Store,
    reports: Arc<Reports>,
    /// An Envoy waits for the one before it: each takes a write to disk anyway.
    sums: Arc<tokio::sync::Mutex<LimitSums>>,
    settled: watch::Receiver<u64>,
    metrics: Metrics,
    progress: Progress,
    shutdown: CancellationToken,
}

/// The routes. News is told when `settled`, the revision up to which Envoy has the clusters, has reached it. Long polls
/// end when `shutdown` is cancelled.
pub fn router(
    store: Store,
    on_unauthorized: OnUnauthorized,
    settled: watch::Receiver<u64>,
    metrics: Metrics,
    progress: Progress,
    shutdown: CancellationToken,
) -> Router {
    let page = metrics::router(metrics.clone(), store.clone());
    let shared = Shared {
        reports: Arc::new(Reports::new(store.clone(), on_unauthorized)),
        sums: Arc::new(tokio::sync::Mutex::new(LimitSums::new(store.clone()))),
        store,
        settled,
        metrics,
        progress,
        shutdown,
    };
    Router::new()
        .route("/snapshot", get(snapshot))
        .route(
            "/reports",
            post(take_reports).layer(DefaultBodyLimit::max(MAX_REPORTS_BYTES)),
        )
        .route(
            "/counts",
            get(show_counts)
                .post(take_counts)
                .layer(DefaultBodyLimit::max(MAX_COUNTS_BYTES)),
        )
        .route("/homes/{thing}", get(show_home))
        .route("/envoys", get(show_envoys))
        .route("/healthz", get(healthz))
        .with_state(shared)
        .merge(page)
}

/// The query of a poll.
#[derive(Debug, Deserialize)]
struct Poll {
    /// The history that the poller holds; another than ours means that it holds nothing of it.
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    since: u64,
    /// Seconds.
    #[serde(default)]
    wait: u64,
}

async fn snapshot(
    State(shared): State<Shared>,
    Query(poll): Query<Poll>,
    said: Result<Query<Said>, QueryRejection>,
) -> Response {
    shared.metrics.polled();
    let epoch = Epoch::try_from(poll.epoch).ok();
    // Until it is answered, or the Envoy goes away.
    let _poll = match (said, shared.store.head().await) {
        (Ok(Query(said)), Ok((ours, _))) => {
            let now = std::time::Instant::now();
            shared.progress.begin(said, epoch == Some(ours), now)
        }
        _ => None,
    };
    let deadline = Instant::now() + Duration::from_secs(poll.wait).min(MAX_WAIT);
    let mut revisions = shared.store.revisions();
    loop {
        // Before the look: what changes during it wakes us.
        revisions.mark_unchanged();
        let page = match shared.store.page(epoch, poll.since).await {
            Ok(page) => page,
            Err(error) => return failed(&error),
        };
        if page.news
            && let Err(error) = shared.settle().await
        {
            return failed(&error);
        }
        if page.news || Instant::now() >= deadline || shared.shutdown.is_cancelled() {
            return ([(header::CONTENT_TYPE, "application/x-ndjson")], page.bytes).into_response();
        }
        tokio::select! {
            _ = revisions.changed() => {}
            () = sleep_until(deadline) => {}
            () = shared.shutdown.cancelled() => {}
        }
    }
}

impl Shared {
    /// Keeps what a batch says of requests, unless that is kept already.
    async fn keep(&self, batch: &Records) -> Result<(), crate::store::Error> {
        let Records {
            batch,
            records,
            malformed,
            begun,
        } = batch;
        let taken = self
            .store
            .take_records(*batch, records, begun.as_ref(), SystemClock.now())
            .await?;
        match taken {
            Taken::New => self.metrics.ingested(records, *malformed),
            Taken::Known => self.metrics.repeated(records),
        }
        if *malformed > 0 && taken == Taken::New {
            tracing::warn!(
                malformed,
                "passed over records of requests that cannot be read"
            );
        }
        Ok(())
    }

    /// Waits until Envoy has the clusters of all that the store holds now.
    async fn settle(&self) -> Result<(), crate::store::Error> {
        let (_, revision) = self.store.head().await?;
        let mut settled = self.settled.clone();
        let reached = settled.wait_for(|settled| *settled >= revision);
        if timeout(SETTLE_LIMIT, reached).await.is_err() {
            tracing::warn!(
                "Envoy's clusters are not current; telling it of the accounts all the same"
            );
        }
        Ok(())
    }
}

async fn take_reports(State(shared): State<Shared>, Json(mut batch): Json<Batch>) -> Response {
    let kept = match batch.take_records() {
        Ok(Some(records)) => shared.keep(&records).await,
        Ok(None) => Ok(()),
        Err(reports::InvalidId) => {
            let expected = "batch: expected 32 hex digits\n";
            return (StatusCode::BAD_REQUEST, expected).into_response();
        }
    };
    if let Err(error) = kept {
        return failed(&error);
    }
    match shared.reports.take(batch).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failed(&error),
    }
}

/// The Envoy that is asked about.
#[derive(Debug, Deserialize)]
struct Named {
    /// The client key that names the thing.
    key: Id,
}

/// The account that has a thing, for a gate that does not know.
async fn show_home(
    State(shared): State<Shared>,
    Path(thing): Path<String>,
    Query(named): Query<Named>,
) -> Response {
    let Some(thing) = ThingHash::parse(&thing) else {
        return (StatusCode::BAD_REQUEST, "expected 32 hex digits\n").into_response();
    };
    match shared
        .store
        .home(&thing, &named.key, SystemClock.now())
        .await
    {
        Ok(Home::At(account)) => account.into_response(),
        Ok(Home::Others) => StatusCode::FORBIDDEN.into_response(),
        Ok(Home::Nowhere) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failed(&error),
    }
}

async fn take_counts(State(shared): State<Shared>, Json(counts): Json<Counts>) -> Response {
    match shared.sums.lock().await.take(&counts, unix_ms()).await {
        Ok(others) => Json(others).into_response(),
        Err(counts::Error::Store(error)) => failed(&error),
        Err(error @ counts::Error::Malformed) => {
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
    }
}

/// The use of all limits now, for the command line.
async fn show_counts(State(shared): State<Shared>) -> Response {
    match shared.sums.lock().await.all(unix_ms()).await {
        Ok(all) => Json(all).into_response(),
        Err(error) => failed(&error),
    }
}

/// Answers the command line with how far each Envoy is.
async fn show_envoys(State(shared): State<Shared>) -> Response {
    match shared.store.head().await {
        Ok((_, revision)) => {
            let views = shared.progress.look(revision, std::time::Instant::now());
            Json::<Vec<EnvoyView>>(views).into_response()
        }
        Err(error) => failed(&error),
    }
}

/// Watches how far each Envoy is, until dropped. A failure is logged where it matters: with the polls.
pub async fn watch_progress(progress: Progress, store: Store, metrics: Metrics) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if let Ok((_, revision)) = store.head().await {
            let views = progress.look(revision, std::time::Instant::now());
            metrics.show_progress(&views);
        }
    }
}

fn unix_ms() -> u64 {
    u64::try_from(SystemClock.now().0).unwrap_or_default()
}

async fn healthz(State(shared): State<Shared>) -> Response {
    match shared.store.head().await {
        Ok((_, revision)) => {
            Json(serde_json::json!({ "status": "ok", "revision": revision })).into_response()
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &crate::store::Error) -> Response {
    tracing::error!(%error, "cannot answer Envoy");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "the database failed; the refresher's log says how\n",
    )
        .into_response()
}

#[cfg(test)]
mod tests;
