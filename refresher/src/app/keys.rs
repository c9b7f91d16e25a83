//! Client keys: what callers present to the gateway.

use std::num::NonZeroU32;

use latchkey::dialect::Demands;
use latchkey::limit::SubjectKind;
use latchkey::snapshot::Models;
use serde::Serialize;

use super::limits::{Limits, Use};
use super::{App, Caller, Error, Result};
use crate::clock::UnixMillis;
use crate::fault::Fault;
use crate::id::ClientKeyId;
use crate::limits::Effective;
use crate::store::{ClientKey, KeyChange, NewClientKey, Rules};

/// The requests at the same time of a new key whose maker says nothing of them: more than a team of people has under
/// way, and few enough that what goes wrong with one key leaves the gateway to the others.
pub const NEW_KEY_STREAMS: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// The state of a client key, from what the operator set and the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Callers may use it.
    InUse {
        /// Until when, if the operator set an end.
        until: Option<UnixMillis>,
    },
    /// A key that is past its end.
    Expired {
        /// Since when.
        since: UnixMillis,
    },
    /// The operator took it back.
    Revoked {
        /// Since when.
        since: UnixMillis,
    },
}

/// A client key as it is shown. Times are Unix milliseconds.
#[derive(Debug, Serialize)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The first characters of the key.
    pub prefix: String,
    /// The pool that serves it.
    pub pool: String,
    /// The models it may ask for; none means all.
    pub models: Models,
    /// The rules for its requests.
    #[serde(flatten)]
    pub rules: Rules,
    /// The operator's demands on its requests.
    pub demands: Demands,
    /// Its caller may choose the account.
    pub may_choose_account: bool,
    /// The pools that its caller may choose.
    pub may_choose_pools: Vec<String>,
    /// The time of its making.
    pub created_at: i64,
    /// The time at which it was taken back.
    pub revoked_at: Option<i64>,
    /// Its end, which may be past.
    pub expires_at: Option<i64>,
    /// Its limits, and what is used of them.
    pub limits: Limits,
    /// The outcome of the times above.
    #[serde(skip)]
    pub state: State,
}

impl KeyView {
    fn new(key: ClientKey, used: &Use, now: UnixMillis) -> KeyView {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(since), _) => State::Revoked { since },
            (None, Some(since)) if since <= now => State::Expired { since },
            (None, until) => State::InUse { until },
        };
        let limits = Effective {
            settings: key.limits,
            ..Effective::default()
        };
        KeyView {
            limits: used.of(SubjectKind::Key, key.id.as_str(), limits),
            id: key.id.to_string(),
            name: key.name,
            prefix: key.prefix,
            pool: key.pool,
            models: key.models,
            rules: key.rules,
            demands: key.demands,
            may_choose_account: key.may_choose_account,
            may_choose_pools: key.may_choose_pools,
            created_at: key.created_at.0,
            revoked_at: key.revoked_at.map(|time| time.0),
            expires_at: key.expires_at.map(|time| time.0),
            state,
        }
    }
}

/// Every client key, in order of making.
///
/// # Errors
/// If the store fails.
pub async fn list(app: &App) -> Result<Vec<KeyView>> {
    let keys = app.store.client_keys().await?;
    let now = app.now();
    let used = Use::now(app).await?;
    let views = keys.into_iter().map(|key| KeyView::new(key, &used, now));
    Ok(views.collect())
}

/// Makes a client key, which has [`NEW_KEY_STREAMS`] unless its rights say another number or none. The answer is the
/// only place that ever has the key itself.
///
/// # Errors
/// If the name is taken, or there is no such pool.
pub async fn create(
    app: &App,
    caller: Caller,
    name: &str,
    pool: &str,
    mut rights: KeyChange,
) -> Result<NewClientKey> {
    let streams = &mut rights.terms.limits.concurrent_streams;
    streams.get_or_insert(Some(NEW_KEY_STREAMS));
    let new = app.store.create_client_key(name, pool, &rights, app.now());
    let new = new.await?;
    caller.changes("key made", name);
    Ok(new)
}

/// Changes what a client key may do; its id.
///
/// # Errors
/// If nothing is to change, or there is no such key or pool.
pub async fn set(app: &App, caller: Caller, key: &str, change: &KeyChange) -> Result<ClientKeyId> {
    if *change == KeyChange::default() {
        return Err(Error::new(Fault::NoChange, "expected at least one change"));
    }
    let id = app.store.set_client_key(key, change).await?;
    caller.changes("key changed", key);
    Ok(id)
}

/// Refuses a client key from now on; its id.
///
/// # Errors
/// If there is no such key.
pub async fn revoke(app: &App, caller: Caller, key: &str) -> Result<ClientKeyId> {
    let revoked = app.store.revoke_client_key(key, app.now()).await;
    let id = match revoked.map_err(Error::from) {
        Err(error) if matches!(error.fault, Fault::Unknown { .. }) => {
            let keys = app.store.client_keys().await?;
            let mut of_that_name = keys
                .iter()
                .filter(|one| one.name == key || one.id.as_str() == key);
            return Err(match of_that_name.next() {
                Some(_) => Error::new(
                    error.fault,
                    format_args!("client key {key:?} is revoked already"),
                ),
                None => error,
            });
        }
        outcome => outcome?,
    };
    caller.changes("key revoked", key);
    Ok(id)
}
