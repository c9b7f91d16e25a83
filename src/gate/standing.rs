//! The rights that a request needs for as long as it is under way: its key, what that may use, and its account's place
//! in the pool.

use super::refusal::Refusal;
use crate::{
    header::HeaderText,
    id::Id,
    request::carried::Carried,
    snapshot::{Account, ClientKey, View},
};

/// Checks that a request of which more has yet to come may go on as it was sent on.
///
/// # Errors
/// The refusal, where that was taken away.
pub fn check(carried: &Carried, view: &View, now: u64) -> Result<(), Refusal> {
    let key = usable(view.key_of(&carried.key), now)?;
    let pool = view.pool(pool_of(carried, key)?);
    let mut members = pool.iter().flat_map(|pool| &pool.members);
    let is_member = members.any(|member| member.account == carried.account);
    let account = view.account(carried.account.as_str());
    let serves =
        |account: &Account| !account.has_expired(now) && view.platform(&account.platform).is_some();
    let asked = carried.asked.as_ref().or(carried.model.as_ref());
    let door = view.doors().and_then(|doors| doors.get(carried.door));
    let may_ask = door.is_some_and(|door| {
        let is_listed = || key.models.contain(asked.map(HeaderText::as_str));
        door.modelless || key.models.is_all() || carried.one_model && is_listed()
    });
    match is_member && may_ask && account.is_some_and(|account| serves(account)) {
        true => Ok(()),
        false => Err(Refusal::Withdrawn),
    }
}

/// Finds the pool of a request that was sent on. What was read of its body is what that one asked for: another one
/// cannot serve it.
pub(super) fn pool_of<'a>(carried: &Carried, key: &'a ClientKey) -> Result<&'a Id, Refusal> {
    let pool = key.pool_named(carried.pool.as_str().as_bytes());
    pool.ok_or(Refusal::Withdrawn)
}

/// Takes a client key that is there and has not ended.
pub(super) fn usable(key: Option<&ClientKey>, now: u64) -> Result<&ClientKey, Refusal> {
    let key = key.ok_or(Refusal::UnknownKey)?;
    match key.is_expired(now) {
        true => Err(Refusal::KeyExpired(key.name.clone())),
        false => Ok(key),
    }
}
