//! `refresher serve`: runs the refresh engine, the socket and the file of clusters until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::advice;
use crate::app::{self, App, Error, declared};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::ends;
use crate::envoy::clusters::ClustersFile;
use crate::envoy::socket::Socket;
use crate::envoy::{self, OnUnauthorized};
use crate::fault::Fault;
use crate::listen;
use crate::listen::host::HostNames;
use crate::login::pending::{self, PendingLogins};
use crate::metrics::{self, Counted, Metrics, Shown};
use crate::os_error::in_words;
use crate::platform::{Catalog, Profile, doors_with};
use crate::prober::{OnRefused, Platforms, Prober};
use crate::progress::Progress;
use crate::quotas::Quotas;
use crate::refresh::endpoint::TokenEndpoints;
use crate::refresh::engine::{self, Engine};
use crate::standing::Standing;
use crate::state::StateDir;
use crate::store::Store;
use crate::tasks::Tasks;

/// The pause between two deletions of health that has ended.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// The time that answers under way get to go out once the daemon is told to stop.
const ANSWERING_GRACE: Duration = Duration::from_secs(2);

/// The pause between two deletions of old records of requests.
const RECORDS_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The pause before the first deletion of old records. By then every Envoy that lost us has sent its batches again, and
/// the batches that are forgotten with the records are not missed.
const FIRST_PRUNE: Duration = Duration::from_secs(10 * 60);

/// The engine that renews what the store keeps, and counts it.
type Renewing = Engine<Store, Counted<TokenEndpoints>, SystemClock>;

/// Serves until SIGTERM, SIGINT or SIGHUP. A refresh in flight is finished and saved first, unless a second one comes.
///
/// # Errors
/// If another `serve` runs on the same state, or the socket or the file of clusters cannot be made.
pub async fn run(app: App, envoy: config::Envoy, shown: Option<Shown>) -> app::Result<()> {
    let mut lock = app.state.lock_serve()?;
    let waiting = declared::apply(&app, |name| std::env::var(name).ok().map(Into::into)).await?;
    lock.note(&app.store.fixed_keys())?;
    warn_of_unfinished_rotation(&app.store).await?;
    warn_of_idle_accounts(&app.store, &app.catalog).await?;
    publish(&app).await?;
    let clusters = write_clusters(&app, envoy).await?;
    let metrics = Metrics::default();
    let engine = engine(&app, &metrics)?;
    let listeners = Listeners::bind(&app.state, shown).await?;
    let mut stops = Stops::new()?;

    let mut tasks = Tasks::default();
    let logins = PendingLogins::new(app.store.clone(), app.catalog.clone());
    let envoys = spawn_envoys(&mut tasks, &app.store, &engine, &clusters, &metrics);
    listeners.answer(
        &mut tasks,
        envoys.merge(logins.router()),
        &app.store,
        metrics,
    )?;
    for (account, generation) in waiting {
        engine.report_unauthorized(&account, generation);
    }
    spawn_renewal(&mut tasks, &app, engine, logins);
    spawn_upkeep(&mut tasks, &app, clusters);
    let (socket, written) = (app.state.socket(), app.state.clusters());
    tracing::info!(socket = %socket.display(), clusters = %written.display(), "serving");

    let outcome = tasks.run(async || stops.next().await).await;
    let _ = std::fs::remove_file(socket);
    Ok(outcome?)
}

/// Publishes what the profiles say of platforms and doors.
async fn publish(app: &App) -> app::Result<()> {
    let usable = app.catalog.all_usable();
    let platforms: Vec<_> = usable.map(Profile::publication).collect();
    app.store.publish_platforms(&platforms).await?;
    let doors = doors_with(&app.config.session_headers);
    Ok(app.store.publish_doors(&doors).await?)
}

/// Writes the file of clusters as the accounts are now.
async fn write_clusters(app: &App, envoy: config::Envoy) -> app::Result<ClustersFile> {
    let mut clusters = ClustersFile::new(&app.state, app.catalog.clone(), envoy)?;
    if clusters.refresh(&app.store).await? {
        // Accounts may have moved to another cluster than the one that Envoy was told of.
        app.store.publish_anew().await?;
    }
    Ok(clusters)
}

fn engine(app: &App, metrics: &Metrics) -> app::Result<Renewing> {
    let endpoints = TokenEndpoints::new(app.catalog.all_usable())?;
    let counted = Counted(endpoints, metrics.clone());
    let (store, settings) = (app.store.clone(), app.config.refresh);
    Ok(Engine::new(store, counted, SystemClock, settings))
}

/// The listeners of the daemon.
struct Listeners {
    /// For Envoy and our own commands.
    socket: Socket,
    /// For those who read metrics, and the names by which it may be asked for.
    metrics: Option<(TcpListener, HostNames)>,
}

impl Listeners {
    async fn bind(state: &StateDir, shown: Option<Shown>) -> app::Result<Listeners> {
        let socket = Socket::bind(&state.socket()).await?;
        let metrics = match shown {
            Some(Shown { at, names }) => Some((listen_for_metrics(at).await?, names)),
            None => None,
        };
        Ok(Listeners { socket, metrics })
    }

    /// Answers at them, at the socket by `router`.
    fn answer(
        self,
        tasks: &mut Tasks,
        router: Router,
        store: &Store,
        metrics: Metrics,
    ) -> app::Result<()> {
        let shutdown = tasks.shutdown().clone();
        let answering = listen::serve(self.socket, router, listen::SOCKET, shutdown.clone());
        tasks.spawn_draining("socket", ANSWERING_GRACE, answering);
        if let Some((listener, names)) = self.metrics {
            tracing::info!(address = %listener.local_addr()?, "showing metrics");
            let router = names.guard(metrics::router(metrics, store.clone()));
            let showing = listen::serve(listener, router, listen::METRICS, shutdown);
            tasks.spawn_draining("metrics", ANSWERING_GRACE, showing);
        }
        Ok(())
    }
}

/// A listener for those who read metrics.
async fn listen_for_metrics(address: SocketAddr) -> app::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| {
        let why = in_words(&error);
        let sentence = format!("cannot listen on {address} for metrics: {why}");
        Error::new(Fault::MetricsAddressTaken, sentence)
    })
}

/// Starts to watch how far each Envoy is, and returns what answers them.
fn spawn_envoys(
    tasks: &mut Tasks,
    store: &Store,
    engine: &Renewing,
    clusters: &ClustersFile,
    metrics: &Metrics,
) -> Router {
    let progress = Progress::default();
    let watching = envoy::watch_progress(progress.clone(), store.clone(), metrics.clone());
    tasks.spawn("Envoys' progress", watching);
    let reported = engine.clone();
    let on_unauthorized: OnUnauthorized =
        Arc::new(move |account, generation| reported.report_unauthorized(account, generation));
    envoy::router(
        store.clone(),
        on_unauthorized,
        clusters.settled(),
        metrics.clone(),
        progress,
        tasks.shutdown().clone(),
    )
}

/// Starts what renews credentials, waits for people's logins, and asks platforms about accounts and quotas.
fn spawn_renewal(tasks: &mut Tasks, app: &App, engine: Renewing, logins: PendingLogins) {
    let confirmed = engine.clone();
    let on_refused: OnRefused =
        Arc::new(move |account, generation| confirmed.confirm_unauthorized(account, generation));
    let prober = Prober {
        store: app.store.clone(),
        catalog: app.catalog.clone(),
        asks: Platforms(SystemClock),
        clock: SystemClock,
        on_refused,
    };
    let quotas = Quotas {
        store: app.store.clone(),
        catalog: app.catalog.clone(),
        asks: Platforms(SystemClock),
        clock: SystemClock,
    };
    let stop = tasks.shutdown().clone();
    tasks.spawn_draining("refresh engine", engine::SHUTDOWN_LIMIT, async move {
        engine.run(stop).await;
    });
    let stop = tasks.shutdown().clone();
    tasks.spawn_draining("pending logins", pending::SHUTDOWN_LIMIT, async move {
        logins.run(stop).await;
    });
    tasks.spawn("probes", prober.run());
    tasks.spawn("quotas", quotas.run());
}

/// Starts what the daemon does again and again, whatever Envoy asks.
fn spawn_upkeep(tasks: &mut Tasks, app: &App, clusters: ClustersFile) {
    let keep_days = app.config.usage.keep_days;
    let (store, state) = (app.store.clone(), app.state.clone());
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
    let of = store.clone();
    let announcing = async move { ends::announce(&of, SystemClock).await };
    tasks.spawn("accounts' ends", announcing);
    tasks.spawn(
        "records",
        async move { prune_records(&store, keep_days).await },
    );
}

/// Deletes health that has ended, until dropped. A failure is logged.
async fn prune_health(store: &Store) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        if let Err(error) = store.prune_health(SystemClock.now()).await {
            tracing::warn!(%error, "cannot delete what has ended of accounts' health");
        }
        if let Err(error) = store.prune_homes(SystemClock.now()).await {
            tracing::warn!(%error, "cannot forget what platforms have forgotten");
        }
    }
}

/// Deletes old records of requests, until dropped.
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
    /// None where whoever started us had it ignored, as nohup does.
    hangup: Option<Signal>,
}

impl Stops {
    fn new() -> std::io::Result<Stops> {
        Ok(Stops {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: match ignores_hangup() {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = received(&mut self.hangup) => {}
        }
    }
}

/// Returns when the signal comes; never where there is none to wait for.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// True where SIGHUP is ignored, which a handler of ours would end (proc_pid_status(5)).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the first bit.
    ignored.is_some_and(|mask| mask & 1 == 1)
}

/// Warns of a new sealing key that a rotation has left unused.
async fn warn_of_unfinished_rotation(store: &Store) -> app::Result<()> {
    if let Some(key) = store.waiting_key().await? {
        let cure = advice::in_log(&Fault::UnfinishedRotation);
        tracing::warn!(%key, cure, "the first of the keys does not seal yet");
    }
    Ok(())
}

/// Warns of accounts that are dead or whose platform is off. [`PendingLogins`] warns of those whose login has ended.
async fn warn_of_idle_accounts(store: &Store, catalog: &Catalog) -> app::Result<()> {
    for account in store.accounts().await? {
        let name = account.name.clone();
        if Standing::stored(&account, SystemClock.now()) == Standing::Dead {
            let cure = advice::in_log(&Fault::Dead {
                account: account.name,
                platform: account.platform.clone(),
                has_key: account.kind.is_key(),
            });
            tracing::warn!(
                account = name,
                cure,
                reason = account.reason,
                "an account is dead"
            );
        }
        if let Err(error) = catalog.usable(&account.platform) {
            let error = Error::from(error);
            let cure = advice::in_log(&error.fault);
            tracing::warn!(account = name, %error, cure, "an account cannot be used");
        }
    }
    Ok(())
}
