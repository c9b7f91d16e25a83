//! Keeps the board of accounts that are out in shared data.

use crate::{
    health::Board,
    host::{Changed, SharedData, shared_key},
    snapshot::bucket::{HEAD_KEY, Head},
};

/// The key of the board.
const BOARD_KEY: &str = shared_key!("board");

/// The board that shared data holds.
pub fn read(shared: &impl SharedData) -> Board {
    let value = shared.read(BOARD_KEY);
    value.map_or_else(Board::default, |(bytes, _)| Board::decode(&bytes))
}

/// Changes the board, and lets the head tell every VM. `change` may run more than once, on the
/// latest board; where it returns false nothing happens. Returns true if the board was changed.
pub fn update(shared: &mut impl SharedData, mut change: impl FnMut(&mut Board) -> bool) -> bool {
    let changed = shared.update(BOARD_KEY, |bytes| {
        let mut board = Board::decode(&bytes);
        change(&mut board).then(|| board.encode())
    });
    changed == Changed::Done && update_head(shared, |head| head.board = head.board.wrapping_add(1))
}

/// Changes the head, of which several VMs change different parts. Returns true if it was changed.
pub fn update_head(shared: &mut impl SharedData, mut change: impl FnMut(&mut Head)) -> bool {
    let changed = shared.update(HEAD_KEY, |bytes| {
        let mut head = Head::decode(&bytes).unwrap_or_default();
        change(&mut head);
        Some(head.encode())
    });
    changed == Changed::Done
}

/// Makes the keys where they are not there yet, so that swaps are safe.
pub fn prepare(shared: &mut impl SharedData) {
    if shared.read(HEAD_KEY).is_none() {
        shared.write(HEAD_KEY, &Head::default().encode());
    }
    if shared.read(BOARD_KEY).is_none() {
        shared.write(BOARD_KEY, &Board::default().encode());
    }
}
