//! What to do with a refresh token that works once. Pure.

use std::time::Duration;

use super::ledger::Claim;
use crate::clock::UnixMillis;

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send it.
    Call,
    /// Leave it alone while the access token serves.
    Hold,
    /// The login is over.
    GiveUp,
}

/// Decides about sending a claimed refresh token. `usable`: the access token still serves.
pub fn next_step(claim: &Claim, usable: bool, grace: Duration, now: UnixMillis) -> Step {
    let within_grace = claim
        .first_unanswered_at
        .is_none_or(|first| now.since(first) <= grace);
    match claim.unanswered {
        0 => Step::Call,
        1 if within_grace || !usable => Step::Call,
        _ if usable => Step::Hold,
        _ => Step::GiveUp,
    }
}
