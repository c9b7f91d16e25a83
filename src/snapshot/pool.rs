//! An ordered set of accounts and how one of them is picked.

use serde::{Deserialize, Serialize};

use super::ModelMaps;
use crate::{id::Id, newtype::invalid_text};

/// The largest weight: enough for shares of a hundredth of a percent.
pub const MAX_WEIGHT: u32 = 10_000;

/// The last tier.
pub const MAX_TIER: u32 = 99;

/// The most members, so that a pool fits in a record whatever their weights and tiers.
pub const MAX_MEMBERS: usize = 16_000;

/// The accounts that serve a client key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The id, for example `default`.
    pub id: Id,
    /// The way in which an account is picked.
    pub policy: Policy,
    /// The accounts, in the operator's order. One that the snapshot does not hold is passed over.
    pub members: Vec<Member>,
    /// The models that others serve.
    #[serde(default, skip_serializing_if = "ModelMaps::is_empty")]
    pub maps: ModelMaps,
    /// No request of it is translated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untranslated: bool,
    /// Each model serves itself or is not served.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact_model: bool,
}

/// An account's place in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The account.
    pub account: Id,
    /// Its share of the sessions, relative to the other members'.
    #[serde(default)]
    pub weight: Weight,
    /// The turn in which it is used: an account of a later tier only where none of an earlier one may be.
    #[serde(default, skip_serializing_if = "Tier::is_first")]
    pub tier: Tier,
}

/// The way in which an account is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The same account for the same session, the same on every worker and every Envoy.
    Sticky,
    /// Each account in turn, as often as its weight says.
    RoundRobin,
    /// The account that has used least of its windows.
    MostQuotaLeft,
    /// The account of which a window starts anew first: what is left of it would be lost.
    SoonestResetFirst,
    /// The account with the fewest requests under way.
    LeastInFlight,
    /// The first account in the operator's order, until it is out.
    FillFirst,
}

/// A place in the order of use, 0 to [`MAX_TIER`]; 0, the first, unless told.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct Tier(u8);

invalid_text! {
    /// A number that is not a [`Tier`].
    InvalidTier, "expected a tier from 0 to {MAX_TIER}"
}

/// A share from 1 to [`MAX_WEIGHT`]; 1 unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u32);

invalid_text! {
    /// A number that is not a [`Weight`].
    InvalidWeight, "expected a weight from 1 to {MAX_WEIGHT}"
}

// === impl Policy ===

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 6] = [
        Self::Sticky,
        Self::RoundRobin,
        Self::MostQuotaLeft,
        Self::SoonestResetFirst,
        Self::LeastInFlight,
        Self::FillFirst,
    ];

    /// Its name, as in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::RoundRobin => "round_robin",
            Self::MostQuotaLeft => "most_quota_left",
            Self::SoonestResetFirst => "soonest_reset_first",
            Self::LeastInFlight => "least_in_flight",
            Self::FillFirst => "fill_first",
        }
    }

    /// The policy of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == name)
    }
}

// === impl Tier ===

impl Tier {
    /// Returns true if it is the first.
    pub fn is_first(&self) -> bool {
        self.0 == 0
    }
}

impl TryFrom<u32> for Tier {
    type Error = InvalidTier;

    fn try_from(tier: u32) -> Result<Self, InvalidTier> {
        match u8::try_from(tier) {
            Ok(number) if tier <= MAX_TIER => Ok(Self(number)),
            _ => Err(InvalidTier),
        }
    }
}

impl From<Tier> for u32 {
    fn from(tier: Tier) -> Self {
        tier.0.into()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ModelMap, Record, model::MAX_PATTERN_BYTES, model_map::MAX_MAPS};

    #[test]
    fn the_largest_pool_fits_in_a_record() {
        let member = Member {
            account: Id::try_from(format!("acc_{}", "A".repeat(16))).unwrap(),
            weight: MAX_WEIGHT.try_into().unwrap(),
            tier: MAX_TIER.try_into().unwrap(),
        };
        let map = format!("{0}={0}", "m".repeat(MAX_PATTERN_BYTES));
        let pool = Record::Pool(Pool {
            id: Id::try_from("x".repeat(crate::id::MAX_ID_BYTES)).unwrap(),
            policy: Policy::SoonestResetFirst,
            members: vec![member; MAX_MEMBERS],
            maps: vec![ModelMap::try_from(map).unwrap(); MAX_MAPS]
                .try_into()
                .unwrap(),
            untranslated: true,
            exact_model: true,
        });
        assert!(pool.to_line().is_ok());
    }

    #[test]
    fn the_names_of_policies_are_those_of_the_records() {
        for policy in Policy::ALL {
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(json, format!("\"{}\"", policy.as_str()));
            assert_eq!(Policy::parse(policy.as_str()), Some(policy));
        }
        assert_eq!(Policy::parse("random"), None);
    }

    #[test]
    fn the_first_tier_is_not_written() {
        let member = r#"{"account":"acc_1","weight":2}"#;
        let read: Member = serde_json::from_str(member).unwrap();
        assert!(read.tier.is_first());
        assert_eq!(serde_json::to_string(&read).unwrap(), member);
        let late = member.replace("}", r#","tier":99}"#);
        let read: Member = serde_json::from_str(&late).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), late);
        let beyond = late.replace("99", "100");
        assert!(serde_json::from_str::<Member>(&beyond).is_err());
    }
}
