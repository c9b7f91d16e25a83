//! When the refresher last confirmed what shared data holds: with each answer to a poll, also one
//! that brings nothing new. An operator may bound how long an Envoy goes on without that.

use crate::{
    deadline::Deadline,
    host::{SharedData, shared_key},
};

const CONFIRMED_KEY: &str = shared_key!("confirmed");

/// Notes an answer at `now`.
pub fn note(shared: &mut impl SharedData, now: u64) {
    shared.write(CONFIRMED_KEY, &now.to_le_bytes());
}

/// The end of the `span` milliseconds after the last answer; past where there was none, or the
/// clock was set back since.
pub fn until(shared: &impl SharedData, span: u64) -> Deadline {
    let noted = shared.read(CONFIRMED_KEY);
    let at = noted.and_then(|(bytes, _)| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    at.map_or(Deadline::default(), |at| Deadline::after(at, span))
}
