//! `refresher serve`: runs the refresh engine, the socket and the file of clusters until it is told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latchkey::id::Id;
use latchkey::sync::tally::Origin;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::advice::enable_command;
use crate::cli::{Context, Error};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::envoy::clusters::ClustersFile;
use crate::envoy::socket::Socket;
use crate::envoy::{self, OnUnauthorized};
use crate::listen;
use crate::lost::Watch;
use crate::metrics::{self, Counted, Metrics};
use crate::oauth::refresh::TokenEndpoints;
use crate::pending_logins::PendingLogins;
use crate::platform::{Catalog, Profile};
use crate::refresh::engine::Engine;
use crate::store::{Status, Store};

/// How often what has ended of accounts' health is deleted.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// How long answers on the socket may take to get out once all long polls have ended.
const ANSWERING_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked whether an Envoy has fallen silent.
const SILENCE_INTERVAL: Duration = Duration::from_secs(2);
/// How often old records of requests are taken away.
const RECORDS_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The pause before the first time: by then every Envoy that lost us has sent again what it had, and what is forgotten
/// of batches is not missed.
const FIRST_PRUNE: Duration = Duration::from_secs(10 * 60);

/// Serves until SIGTERM or SIGINT. A refresh in flight is finished and saved first, unless a second one comes.
///
/// # Errors
/// If another `serve` runs on the same state, or the socket or the file of clusters cannot be made.
pub async fn run(
    context: Context,
    envoy: config::Envoy,
    metrics_at: Option<SocketAddr>,
) -> Result<(), Error> {
    let Context {
        state,
        config,
        catalog,
        store,
    } = context;
    let mut lock = state.lock_serve()?;
    lock.note(&store.fixed_keys())?;
    if let Some(key) = store.waiting_key().await? {
        tracing::warn!(%key, cure = "refresher rotate-key", "the first of the keys does not seal yet");
    }
    warn_of_idle_accounts(&store, &catalog).await?;
    warn_of_wasm(&envoy.wasm);
    let platforms: Vec<_> = catalog.all_usable().map(Profile::publication).collect();
    store.publish_platforms(&platforms).await?;

    let mut clusters = ClustersFile::new(&state, catalog.clone(), envoy)?;
    clusters.refresh(&store).await?;
    let metrics = Metrics::default();
    let endpoints = Counted(TokenEndpoints::new(catalog.all_usable())?, metrics.clone());
    let engine = Engine::new(store.clone(), endpoints, SystemClock, config.refresh);
    let socket = Socket::bind(&state.socket()).await?;
    let scraped = match metrics_at {
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
            format!("--metrics-listen {address}: cannot listen there: {error}; choose another port")
        })?),
        None => None,
    };
    let mut stops = Stops::new()?;

    let shutdown = CancellationToken::new();
    let reported = engine.clone();
    let on_unauthorized: OnUnauthorized =
        Arc::new(move |account, generation| reported.report_unauthorized(account, generation));
    let logins = PendingLogins::new(store.clone(), catalog);
    let router = envoy::router(
        store.clone(),
        on_unauthorized,
        clusters.settled(),
        metrics.clone(),
        shutdown.clone(),
    )
    .merge(logins.router());
    let answering = listen::serve(socket, router, listen::SOCKET, shutdown.clone());
    let mut answering = tokio::spawn(answering);
    let mut refreshing = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { engine.run(shutdown).await }
    });
    let mut awaiting = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { logins.run(shutdown).await }
    });
    tracing::info!(socket = %state.socket().display(), clusters = %state.clusters().display(), "serving");

    let outcome = tokio::select! {
        () = stops.next() => Ok(()),
        ended = &mut answering => Err(Error::from(format!("the socket ended on its own: {ended:?}"))),
        ended = &mut refreshing => Err(Error::from(format!("the refresh engine ended on its own: {ended:?}"))),
        ended = &mut awaiting => Err(Error::from(format!("the pending logins ended on their own: {ended:?}"))),
        () = store.watch() => Ok(()),
        () = store.keep_mark(&state) => Ok(()),
        () = store.keep_log_short() => Ok(()),
        () = clusters.follow(&store) => Ok(()),
        ended = show_metrics(scraped, metrics, &store, &shutdown) => Err(Error::from(format!("metrics ended on their own: {ended:?}"))),
        () = prune_health(&store) => Ok(()),
        () = prune_records(&store, config.usage.keep_days) => Ok(()),
        () = miss_silent(&store, config.usage.lost_after) => Ok(()),
    };
    tracing::info!("stopping");
    shutdown.cancel();
    let finish = async {
        // The engine bounds its own wait: a token that was rotated must be saved.
        if !refreshing.is_finished()
            && let Err(error) = refreshing.await
        {
            tracing::error!(%error, "the refresh engine did not stop in order");
        }
        if !awaiting.is_finished()
            && let Err(error) = awaiting.await
        {
            tracing::error!(%error, "the pending logins did not stop in order");
        }
        if !answering.is_finished() && timeout(ANSWERING_LIMIT, answering).await.is_err() {
            tracing::warn!("a caller on the socket kept its connection; cut it off");
        }
    };
    tokio::select! {
        () = finish => {}
        () = stops.next() => {
            tracing::warn!("told again to stop, so at once: refresh calls in flight count as unanswered");
        }
    }
    let _ = std::fs::remove_file(state.socket());
    outcome
}

/// Shows metrics to scrapers where there is a listener, until dropped.
async fn show_metrics(
    listener: Option<TcpListener>,
    metrics: Metrics,
    store: &Store,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    tracing::info!(address = %listener.local_addr()?, "showing metrics");
    let router = metrics::router(metrics, store.clone());
    listen::serve(listener, router, listen::METRICS, shutdown.clone()).await;
    Ok(())
}

/// Deletes what has ended, until dropped. A failure is logged and looked past.
async fn prune_health(store: &Store) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        if let Err(error) = store.prune_health(SystemClock.now()).await {
            tracing::warn!(%error, "cannot delete what has ended of accounts' health");
        }
    }
}

/// Takes old records of requests away, until dropped.
async fn prune_records(store: &Store, keep_days: u32) {
    let mut pause = FIRST_PRUNE;
    loop {
        tokio::time::sleep(pause).await;
        pause = RECORDS_INTERVAL;
        match store.prune_records(keep_days, SystemClock.now()).await {
            Ok(0) => {}
            Ok(requests) => {
                tracing::info!(requests, keep_days, "took old records of requests away")
            }
            Err(error) => tracing::warn!(%error, "cannot take old records of requests away"),
        }
    }
}

/// Has the requests count as lost of Envoys that have fallen silent, until dropped.
async fn miss_silent(store: &Store, after: Duration) {
    let mut watch = Watch::new(after);
    loop {
        tokio::time::sleep(SILENCE_INTERVAL).await;
        if let Err(error) = miss_once(store, &mut watch).await {
            tracing::warn!(%error, "cannot look whether an Envoy has fallen silent");
        }
    }
}

async fn miss_once(store: &Store, watch: &mut Watch) -> crate::store::Result<()> {
    for silent in watch.silent(store.untold().await?, Instant::now()) {
        let now = SystemClock.now();
        if !store.miss(&silent, now).await? {
            continue;
        }
        let Origin { instance, vm, node } = &silent.origin;
        let (node, requests) = (node.as_ref().map(Id::as_str), silent.requests);
        let silent_seconds = now.since(silent.heard_at).as_secs();
        tracing::warn!(
            instance,
            node,
            vm,
            requests,
            silent_seconds,
            "a worker of an Envoy has fallen silent: the requests that were under way or not yet reported when it was \
             last heard of are lost, unless it speaks again"
        );
    }
    Ok(())
}

/// The signals that tell a daemon to stop.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn new() -> std::io::Result<Stops> {
        Ok(Stops {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says which accounts nobody can use because their platform is off or they are dead. Of those whose login has ended,
/// [`PendingLogins`] says it.
async fn warn_of_idle_accounts(store: &Store, catalog: &Catalog) -> Result<(), Error> {
    for account in store.accounts().await? {
        if account.status == Status::Dead {
            let cure = enable_command(&account.name);
            tracing::warn!(
                account = account.name,
                cure,
                reason = account.reason,
                "an account is dead"
            );
        }
        if let Err(error) = catalog.usable(&account.platform) {
            tracing::warn!(account = account.name, %error, "an account cannot be used");
        }
    }
    Ok(())
}

/// Says where Envoy may not find the filter: it would refuse every cluster then. It may see other files than we do.
fn warn_of_wasm(wasm: &Path) {
    let wasm_path = wasm.display();
    let cure = "give the path as Envoy sees it: --wasm, or `wasm` of [envoy] in config.toml";
    if wasm.is_relative() {
        tracing::warn!(%wasm_path, cure, "the filter's path is relative: Envoy looks from where it was started");
    } else if !wasm.is_file() {
        tracing::warn!(%wasm_path, cure, "the filter is not there, unless Envoy sees other files than we do");
    }
}
