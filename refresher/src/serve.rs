//! `refresher serve`: runs the refresh engine, the socket and the file of clusters until it is told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::advice::enable_command;
use crate::cli::{Context, Error};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::envoy::clusters::ClustersFile;
use crate::envoy::socket::Socket;
use crate::envoy::{self, OnUnauthorized};
use crate::listen;
use crate::login::pending::{self, PendingLogins};
use crate::metrics::{self, Counted, Metrics};
use crate::platform::{Catalog, Profile, doors};
use crate::refresh::endpoint::TokenEndpoints;
use crate::refresh::engine::{self, Engine};
use crate::state::StateDir;
use crate::store::{Status, Store};
use crate::tasks::Tasks;

/// How often what has ended of accounts' health is deleted.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// The time that answers under way get to go out once the daemon is told to stop.
const ANSWERING_GRACE: Duration = Duration::from_secs(2);

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
    store.publish_doors(doors()).await?;

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

    let reported = engine.clone();
    let on_unauthorized: OnUnauthorized =
        Arc::new(move |account, generation| reported.report_unauthorized(account, generation));
    let logins = PendingLogins::new(store.clone(), catalog);

    let mut tasks = Tasks::default();
    let shutdown = tasks.shutdown().clone();
    let router = envoy::router(
        store.clone(),
        on_unauthorized,
        clusters.settled(),
        metrics.clone(),
        shutdown.clone(),
    )
    .merge(logins.router());
    let answering = listen::serve(socket, router, listen::SOCKET, shutdown.clone());
    tasks.spawn_draining("socket", ANSWERING_GRACE, answering);
    if let Some(listener) = scraped {
        let router = metrics::router(metrics, store.clone());
        let showing = listen::serve(listener, router, listen::METRICS, shutdown.clone());
        tasks.spawn_draining("metrics", ANSWERING_GRACE, showing);
    }
    let stop = shutdown.clone();
    tasks.spawn_draining("refresh engine", engine::SHUTDOWN_LIMIT, async move {
        engine.run(stop).await;
    });
    let stop = shutdown.clone();
    tasks.spawn_draining("pending logins", pending::SHUTDOWN_LIMIT, async move {
        logins.run(stop).await;
    });
    spawn_upkeep(&mut tasks, &store, &state, clusters, &config.usage);
    tracing::info!(socket = %state.socket().display(), clusters = %state.clusters().display(), "serving");

    let outcome = tasks.run(async || stops.next().await).await;
    let _ = std::fs::remove_file(state.socket());
    Ok(outcome?)
}

/// Starts what the daemon does again and again, whatever Envoy asks.
fn spawn_upkeep(
    tasks: &mut Tasks,
    store: &Store,
    state: &StateDir,
    clusters: ClustersFile,
    settings: &config::Usage,
) {
    let keep_days = settings.keep_days;
    let (store, state) = (store.clone(), state.clone());
    let of = store.clone();
    tasks.spawn(
        "changes of other processes",
        async move { of.watch().await },
    );
    let of = store.clone();
    tasks.spawn("high-water mark", async move { of.keep_mark(&state).await });
    let of = store.clone();
    tasks.spawn("database log", async move { of.keep_log_short().await });
    let of = store.clone();
    tasks.spawn(
        "Envoy's clusters",
        async move { clusters.follow(&of).await },
    );
    let of = store.clone();
    tasks.spawn("health", async move { prune_health(&of).await });
    tasks.spawn(
        "records",
        async move { prune_records(&store, keep_days).await },
    );
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
