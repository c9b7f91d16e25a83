//! `refresher serve`: runs the refresh engine, the socket and the file of clusters until it is told to stop.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{Context, Error};
use crate::config;
use crate::envoy::ClustersFile;
use crate::platform::Profile;
use crate::store::Store;
use crate::sync::socket::Socket;
use crate::sync::{self, OnUnauthorized};

/// Serves until SIGTERM or SIGINT. A refresh in flight is finished and saved first.
///
/// # Errors
/// If another `serve` runs on the same state, or the socket or the file of clusters cannot be made.
pub async fn run(context: Context, envoy: config::Envoy) -> Result<(), Error> {
    let Context {
        state,
        config,
        catalog,
        store,
    } = context;
    let _lock = state.lock_serve()?;
    warn_of_idle_accounts(&store, &catalog).await?;
    let platforms: Vec<_> = catalog.all_usable().map(Profile::publication).collect();
    store.publish_platforms(&platforms).await?;

    let mut clusters = ClustersFile::new(&state, catalog.clone(), envoy)?;
    clusters.refresh(&store).await?;
    let socket = Socket::bind(&state.socket(), config.serve.allowed_uids).await?;

    let shutdown = CancellationToken::new();
    let on_unauthorized: OnUnauthorized = Arc::new(|_, _| {});
    let router = sync::router(store.clone(), on_unauthorized, shutdown.clone());
    let answering =
        axum::serve(socket, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let mut answering = tokio::spawn(answering.into_future());
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tracing::info!(socket = %state.socket().display(), clusters = %state.clusters().display(), "serving");

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = &mut answering => Err(format!("the socket ended on its own: {ended:?}").into()),
        () = store.watch() => Ok(()),
        () = clusters.follow(&store) => Ok(()),
    };
    tracing::info!("stopping");
    shutdown.cancel();
    store.close().await;
    let _ = std::fs::remove_file(state.socket());
    outcome
}

/// Says which accounts nobody can use because their platform is off.
async fn warn_of_idle_accounts(
    store: &Store,
    catalog: &crate::platform::Catalog,
) -> Result<(), Error> {
    for account in store.accounts().await? {
        if let Err(error) = catalog.usable(&account.platform) {
            tracing::warn!(account = account.name, %error, "an account cannot be used");
        }
    }
    Ok(())
}
