//! Counters over everything since the start or the last reset.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;

use crate::oauth::FamilyId;

/// Refusals that are listed; older ones are dropped, the count goes on.
const MAX_REFUSALS: usize = 1000;

/// The counters, as the control API shows them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// `POST /oauth/token`, whatever came of it.
    pub token_calls: u64,
    /// Refresh tokens that were answered with tokens, replays in the grace window included.
    pub refreshes: u64,
    /// Access tokens that clients bought with their secret.
    pub minted: u64,
    /// The most refreshes of one login that were being answered at the same time.
    pub refresh_in_flight_max_per_family: u64,
    /// Replays of spent refresh tokens outside the grace window.
    pub reuse_detected: u64,
    /// `POST /oauth/revoke` of a known token.
    pub revocations: u64,
    /// Requests to the LLM endpoints, refused ones included.
    pub requests: u64,
    /// Tokens of the requests whose answers report usage.
    pub input_tokens: u64,
    /// Tokens of those answers.
    pub output_tokens: u64,
    /// The number of requests that were refused for a header.
    pub refused_count: u64,
    /// The last of them.
    pub refused: VecDeque<RefusedRequest>,
    /// Requests with an expired access token.
    pub expired_token_uses: u64,
    /// Requests with another credential that the platform did not take.
    pub rejected_credentials: u64,
    #[serde(skip)]
    in_flight: HashMap<FamilyId, u64>,
}

/// A request that was refused for one of its headers.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedRequest {
    /// Path without query.
    pub path: String,
    /// The header at fault.
    pub header: String,
    /// The mistake in it.
    pub reason: &'static str,
}

impl Stats {
    /// Counts a refused request.
    pub fn refuse(&mut self, refused: RefusedRequest) {
        self.refused_count += 1;
        self.refused.push_back(refused);
        if self.refused.len() > MAX_REFUSALS {
            self.refused.pop_front();
        }
    }

    /// A refresh of that login begins to be answered.
    pub fn refresh_begins(&mut self, family: FamilyId) {
        let in_flight = self.in_flight.entry(family).or_default();
        *in_flight += 1;
        self.refresh_in_flight_max_per_family =
            self.refresh_in_flight_max_per_family.max(*in_flight);
    }

    /// A refresh of that login has been answered or given up.
    pub fn refresh_ends(&mut self, family: FamilyId) {
        if let Some(in_flight) = self.in_flight.get_mut(&family) {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// Sets the counters to zero; what is in flight stays so.
    pub fn reset(&mut self) {
        *self = Self {
            in_flight: std::mem::take(&mut self.in_flight),
            ..Self::default()
        };
    }
}
