//! Keeps the board of accounts that are out in shared data.

use super::quota;
use crate::{
    health::Board,
    host::{SharedData, shared_key},
    snapshot::bucket::{HEAD_KEY, Head},
};

/// The key of the board.
pub const BOARD_KEY: &str = shared_key!("board");

/// How often a change is tried while other VMs change the same key. Each lost try is a change
/// of theirs, so more than this means that there is something wrong.
const TRIES: usize = 64;

/// The board that shared data holds.
pub fn read(shared: &impl SharedData) -> Board {
    let value = shared.read(BOARD_KEY);
    value.map_or_else(Board::default, |(bytes, _)| Board::decode(&bytes))
}

/// Changes the board, and lets the head tell every VM. `change` may run more than once, on the
/// latest board; where it returns false nothing happens. Whether the board was changed.
pub fn update(shared: &mut impl SharedData, mut change: impl FnMut(&mut Board) -> bool) -> bool {
    for _ in 0..TRIES {
        let Some((bytes, token)) = shared.read(BOARD_KEY) else {
            return false;
        };
        let mut board = Board::decode(&bytes);
        if !change(&mut board) {
            return false;
        }
        if shared.swap(BOARD_KEY, &board.encode(), token) {
            return update_head(shared, |head| head.board = head.board.wrapping_add(1));
        }
    }
    false
}

/// Changes the head, of which several VMs change different parts. Whether it was changed.
pub fn update_head(shared: &mut impl SharedData, change: impl Fn(&mut Head)) -> bool {
    for _ in 0..TRIES {
        let Some((bytes, token)) = shared.read(HEAD_KEY) else {
            return false;
        };
        let mut head = Head::decode(&bytes).unwrap_or_default();
        change(&mut head);
        if shared.swap(HEAD_KEY, &head.encode(), token) {
            return true;
        }
    }
    false
}

/// Makes the keys where they are not there yet, so that swaps are safe.
pub fn prepare(shared: &mut impl SharedData) {
    if shared.read(HEAD_KEY).is_none() {
        shared.write(HEAD_KEY, &Head::default().encode());
    }
    if shared.read(BOARD_KEY).is_none() {
        shared.write(BOARD_KEY, &Board::default().encode());
    }
    quota::prepare(shared);
}
