//! The next step with a refresh token that works once. Pure.

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

/// The use that an access token is of, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessToken {
    /// Nothing speaks against it.
    Serves,
    /// A request was refused with it. It may have been that request's fault.
    Doubted,
    /// The token has ended, or its platform refused it when we asked.
    OfNoUse,
}

/// Decides about sending a claimed refresh token, by what is known of the `access` token.
pub fn next_step(claim: &Claim, access: AccessToken, grace: Duration, now: UnixMillis) -> Step {
    let within_grace = claim
        .first_unanswered_at
        .is_none_or(|first| now.since(first) <= grace);
    match claim.unanswered {
        0 => Step::Call,
        1 if within_grace || access != AccessToken::Serves => Step::Call,
        _ if access != AccessToken::OfNoUse => Step::Hold,
        _ => Step::GiveUp,
    }
}
