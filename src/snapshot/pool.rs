//! An ordered set of accounts and how one of them is picked.

use serde::{Deserialize, Serialize};

use crate::id::Id;

/// The largest weight: enough for shares of a hundredth of a percent.
pub const MAX_WEIGHT: u32 = 10_000;

/// What serves a client key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// For example `default`.
    pub id: Id,
    /// How an account is picked.
    pub policy: Policy,
    /// The accounts, in the operator's order. One that the snapshot does not hold is passed over.
    pub members: Vec<Member>,
}

/// An account's place in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The account.
    pub account: Id,
    /// Its share of the sessions, relative to the other members'.
    #[serde(default)]
    pub weight: Weight,
}

/// How an account is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The same account for the same session, the same on every worker and every Envoy.
    Sticky,
    /// Each account in turn.
    RoundRobin,
}

/// A share from 1 to [`MAX_WEIGHT`]; 1 unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u32);

/// Why a number is not a [`Weight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidWeight;

// === impl Weight ===

impl Weight {
    /// The share as a number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0)
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<u32> for Weight {
    type Error = InvalidWeight;

    fn try_from(weight: u32) -> Result<Self, InvalidWeight> {
        match weight {
            1..=MAX_WEIGHT => Ok(Self(weight)),
            _ => Err(InvalidWeight),
        }
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

// === impl InvalidWeight ===

impl std::fmt::Display for InvalidWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "expected a weight from 1 to {MAX_WEIGHT}")
    }
}

impl std::error::Error for InvalidWeight {}
