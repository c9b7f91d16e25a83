//! Rotation of the sealing key.

use super::{App, Caller, Result};
use crate::state::Lock;
use crate::store::{Retired, Rotation, Step};

/// A rotation under way. No other one runs beside it.
pub struct Running<'a> {
    rotation: Rotation<'a>,
    app: &'a App,
    _lock: Lock,
}

/// Begins a rotation, or goes on with one that was cut short.
///
/// # Errors
/// If another one is running.
pub fn begin(app: &App, caller: Caller) -> Result<Running<'_>> {
    let _lock = app.state.lock_rotation()?;
    caller.changes("rotation begun", "");
    Ok(Running {
        rotation: app.store.rotation(&app.state),
        app,
        _lock,
    })
}

impl Running<'_> {
    /// Takes the next step; what was done is on disk then.
    ///
    /// # Errors
    /// If there is no key to change over to, or the keys or the database cannot be written. Every record can still be
    /// opened, and the next rotation goes on from there.
    pub async fn step(&mut self) -> Result<Step> {
        Ok(self.rotation.step().await?)
    }

    /// The keys that are left to the operator to throw away.
    pub fn retired_keys(&self) -> Option<Retired> {
        self.app.store.retired_keys()
    }
}
