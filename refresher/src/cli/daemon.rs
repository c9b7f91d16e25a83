//! What commands ask of a running `serve`, over its socket. Nothing depends on an answer.

use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde::de::DeserializeOwned;

use crate::state::StateDir;

/// How long a running `serve` may take to answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// What the running `serve` answers at `path`; none where none runs, or it does not.
pub async fn ask<T: DeserializeOwned>(state: &StateDir, path: &str) -> Option<T> {
    let answer = send(state, Method::GET, path).await?;
    answer.json().await.ok()
}

/// Asks the running `serve` for the port that it holds for logins at `platform`. True if it gave it up.
pub async fn yield_port(state: &StateDir, platform: &str) -> bool {
    let path = format!("/logins/{platform}/yield");
    send(state, Method::POST, &path).await.is_some()
}

async fn send(state: &StateDir, method: Method, path: &str) -> Option<Response> {
    if !state.is_served() {
        return None;
    }
    // No TLS is spoken on the socket, but there is no client without.
    let tls = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::ring::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .ok()?
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .unix_socket(state.socket())
        .timeout(ASK_LIMIT)
        .build()
        .ok()?;
    let url = format!("http://refresher{path}");
    let answer = client.request(method, url).send().await.ok()?;
    answer.error_for_status().ok()
}
