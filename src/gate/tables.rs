//! Tables of accounts, made from the snapshot when they are first needed.

use super::{refusal::Refusal, select::Table};
use crate::{
    id::Id,
    known::Known,
    snapshot::{Door, DoorId, View},
};

/// Tables made from the snapshot, by pool and door.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) by_pool: Known<Id, Known<DoorId, Table>>,
    version: u64,
}

// === impl Tables ===

impl Tables {
    /// The table of `pool` for `door`, which some platform has to serve. There are no more of them
    /// than pools and doors.
    pub(super) fn get(
        &mut self,
        view: &View,
        pool: &Id,
        door: &Door,
    ) -> Result<Option<&mut Table>, Refusal> {
        if self.version != view.version() {
            self.by_pool.clear();
            self.version = view.version();
        }
        let known = self
            .by_pool
            .get(pool)
            .is_some_and(|tables| tables.contains_key(&door.id));
        if !known {
            let mut platforms = view.platforms();
            if !platforms.any(|platform| platform.endpoint_for(door).is_some()) {
                return Ok(None);
            }
            let table = Table::new(view, view.pool(pool).ok_or(Refusal::NoPool)?, door);
            let tables = self.by_pool.entry(pool.clone()).or_default();
            tables.insert(door.id, table);
        }
        let tables = self.by_pool.get_mut(pool);
        Ok(tables.and_then(|tables| tables.get_mut(&door.id)))
    }
}
