//! Tokens and requests that were used.

use serde::Serialize;

use super::{App, Result};
use crate::clock::UnixMillis;
use crate::store::{By, EnvoyRequests, Sums};

/// The use of all requests since a time.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Since when, in Unix milliseconds.
    pub since: i64,
    /// A row for each group: the one with the most tokens first, days in order.
    pub rows: Vec<Sums>,
    /// Requests that began, as the Envoys count them.
    pub begun: u64,
    /// Requests that records came of.
    pub recorded: u64,
    /// Requests that began and have no record: under way, or ended with their Envoy.
    #[serde(skip)]
    pub unrecorded: u64,
}

/// Sums up by `by` the requests since `since`.
///
/// # Errors
/// If the store fails.
pub async fn report(app: &App, by: By, since: UnixMillis) -> Result<Report> {
    let rows = app.store.usage(by, since).await?;
    let envoys = app.store.envoys(since, usize::MAX).await?;
    let sum = |of: fn(&EnvoyRequests) -> u64| envoys.iter().map(of).sum();
    Ok(Report {
        since: since.0,
        rows,
        begun: sum(|one| one.begun),
        recorded: sum(|one| one.recorded),
        unrecorded: sum(EnvoyRequests::unrecorded),
    })
}
