//! The control API: how a test sets up the platform and looks at what it saw.
//!
//! Plain HTTP/1.1, on loopback unless `--listen` says otherwise, JSON, no authentication. Errors are 400 or 404 with a text.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /users` | `{email, account_id, plan?, access_lifetime_seconds?}` | 204; adds or replaces |
//! | `POST /users/{email}/expire_access` | – | `{"changed": N}`; its access tokens are refused as expired |
//! | `POST /users/{email}/revoke_access` | – | `{"changed": N}`; its access tokens are refused as invalidated |
//! | `POST /users/{email}/revoke_login` | – | `{"changed": N}`; its refresh tokens are refused as invalidated |
//! | `POST /clients` | `{client_id, client_secret, email}` | 204; adds or replaces |
//! | `POST /api_keys` | `{platform, key, name}` | 204; adds or replaces; `platform: null`: a key of the documented platform `name` |
//! | `DELETE /api_keys/{name}` | – | `{"changed": N}`; the keys of that name are refused |
//! | `GET /requests?path=…` | – | array of [`Record`](crate::record::Record), oldest first |
//! | `DELETE /requests` | – | 204 |
//! | `GET /stats` | – | [`Stats`](crate::stats::Stats) |
//! | `DELETE /stats` | – | 204 |
//! | `POST /faults` | [`Fault`] | `{"id": N}` |
//! | `DELETE /faults`, `DELETE /faults/{id}` | – | 204 |
//! | `POST /settings` | [`Settings`], each key optional | 204 |

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    clock::UnixMillis,
    faults::Fault,
    oauth::{Client, OAuth, User},
    platform::Platform,
    record::Record,
    server::Shared,
    simulation::ApiKey,
    stats::Stats,
};

/// Most deltas a stream may be told to have.
const MAX_EVENTS: usize = 10_000;

/// The body of `POST /settings`; absent keys stay as they are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Wait before each event of a stream but the first.
    pub event_delay_ms: Option<u64>,
    /// In how many deltas a stream carries its text, 1 to 10,000.
    pub events: Option<usize>,
    /// Seconds in which a replayed refresh token is answered with the same new pair.
    pub grace_seconds: Option<u64>,
    /// Take any port in the redirect URI.
    pub any_redirect_port: Option<bool>,
    /// One more `host:port` at which requests may come, as by a way of the test's own.
    pub authority: Option<String>,
    /// Lifetime of access tokens of users that have none of their own.
    pub default_access_lifetime_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewApiKey {
    platform: Option<Platform>,
    key: String,
    name: String,
}

#[derive(Deserialize)]
struct RequestFilter {
    path: Option<String>,
}

type Refusal = (StatusCode, String);

/// The control API over that simulation.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/users", post(upsert_user))
        .route("/users/{email}/{action}", post(change_user))
        .route("/clients", post(upsert_client))
        .route("/api_keys", post(upsert_api_key))
        .route("/api_keys/{name}", delete(remove_api_key))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/stats", get(stats).delete(reset_stats))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route("/settings", post(change_settings))
        .with_state(shared)
}

async fn upsert_user(State(shared): State<Shared>, Json(user): Json<User>) -> StatusCode {
    shared.change(|simulation| simulation.oauth.upsert_user(user));
    StatusCode::NO_CONTENT
}

async fn upsert_client(State(shared): State<Shared>, Json(client): Json<Client>) -> StatusCode {
    shared.change(|simulation| simulation.oauth.upsert_client(client));
    StatusCode::NO_CONTENT
}

async fn change_user(
    State(shared): State<Shared>,
    Path((email, action)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    shared.change(|simulation| {
        let oauth: &mut OAuth = &mut simulation.oauth;
        if oauth.user(&email).is_none() {
            return Err((StatusCode::NOT_FOUND, format!("no user {email}")));
        }
        let changed = match action.as_str() {
            "expire_access" => oauth.expire_access(&email, UnixMillis::now()),
            "revoke_access" => oauth.revoke_access(&email),
            "revoke_login" => oauth.revoke_login(&email),
            _ => return Err((StatusCode::NOT_FOUND, format!("no action {action}"))),
        };
        Ok(Json(json!({"changed": changed})))
    })
}

async fn upsert_api_key(State(shared): State<Shared>, Json(new): Json<NewApiKey>) -> StatusCode {
    let NewApiKey {
        platform,
        key,
        name,
    } = new;
    shared.change(|simulation| simulation.api_keys.insert(key, ApiKey { platform, name }));
    StatusCode::NO_CONTENT
}

async fn remove_api_key(State(shared): State<Shared>, Path(name): Path<String>) -> Json<Value> {
    let changed = shared.change(|simulation| {
        let before = simulation.api_keys.len();
        simulation.api_keys.retain(|_, key| key.name != name);
        before - simulation.api_keys.len()
    });
    Json(json!({"changed": changed}))
}

async fn requests(
    State(shared): State<Shared>,
    Query(filter): Query<RequestFilter>,
) -> Json<Vec<Record>> {
    Json(shared.lock().records.list(filter.path.as_deref()))
}

async fn clear_requests(State(shared): State<Shared>) -> StatusCode {
    shared.lock().records.clear();
    StatusCode::NO_CONTENT
}

async fn stats(State(shared): State<Shared>) -> Json<Stats> {
    Json(shared.lock().stats.clone())
}

async fn reset_stats(State(shared): State<Shared>) -> StatusCode {
    shared.lock().stats.reset();
    StatusCode::NO_CONTENT
}

async fn add_fault(
    State(shared): State<Shared>,
    Json(fault): Json<Fault>,
) -> Result<Json<Value>, Refusal> {
    fault
        .validate()
        .map_err(|reason| (StatusCode::BAD_REQUEST, reason))?;
    Ok(Json(json!({"id": shared.lock().faults.add(fault)})))
}

async fn clear_faults(State(shared): State<Shared>) -> StatusCode {
    shared.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(shared): State<Shared>, Path(id): Path<u64>) -> StatusCode {
    match shared.lock().faults.remove(id) {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    }
}

async fn change_settings(
    State(shared): State<Shared>,
    Json(settings): Json<Settings>,
) -> Result<StatusCode, Refusal> {
    if settings
        .events
        .is_some_and(|events| !(1..=MAX_EVENTS).contains(&events))
    {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("events must be in 1..={MAX_EVENTS}"),
        ));
    }
    let simulation = &mut *shared.lock();
    simulation.authorities.extend(settings.authority);
    let (pacing, policy) = (&mut simulation.pacing, &mut simulation.oauth.policy);
    set(
        &mut pacing.event_delay,
        settings.event_delay_ms.map(Duration::from_millis),
    );
    set(&mut pacing.events, settings.events);
    set(&mut policy.grace_seconds, settings.grace_seconds);
    set(&mut policy.any_redirect_port, settings.any_redirect_port);
    set(
        &mut policy.default_access_lifetime_seconds,
        settings.default_access_lifetime_seconds,
    );
    Ok(StatusCode::NO_CONTENT)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
