//! `[limits]` of a profile: what holds for an account of the platform until its operator sets another limit.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use latchkey::limit::Limits;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::{Invalid, fit, invalid};
use crate::day::{TimeOfDay, Zone};
use crate::limits::{LimitSettings, MAX_LIMIT};

/// The key that `streams` of `[limits]` had once.
const OLD_STREAMS: &str = "concurrent_streams";

/// The table as it is written; its keys are the flags of `refresher accounts set`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    rpm: Option<Small>,
    tpm: Option<Large>,
    tokens_per_day: Option<Large>,
    streams: Option<Small>,
    time_zone: Option<String>,
    day_starts: Option<String>,
}

/// A whole number from 1 to `MOST`.
#[derive(Debug, Clone, Copy)]
struct Whole<const MOST: u64>(NonZeroU64);

type Small = Whole<{ u32::MAX as u64 }>;
type Large = Whole<MAX_LIMIT>;

impl<'de, const MOST: u64> Deserialize<'de> for Whole<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeVisitor::<MOST>)
    }
}

struct WholeVisitor<const MOST: u64>;

impl<const MOST: u64> Visitor<'_> for WholeVisitor<MOST> {
    type Value = Whole<MOST>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a whole number from 1 to {MOST}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let whole = NonZeroU64::new(number).filter(|_| number <= MOST);
        whole
            .map(Whole)
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

impl Raw {
    /// Checks the values.
    pub fn check(self) -> Result<LimitSettings, Invalid> {
        let small =
            |limit: Option<Small>| limit.and_then(|limit| NonZeroU32::try_from(limit.0).ok());
        let large = |limit: Option<Large>| limit.map(|limit| limit.0);
        let zone = self.time_zone.as_deref().map(Zone::parse).transpose();
        let zone = fit("limits.time_zone", zone)?;
        let starts = self.day_starts.as_deref().map(TimeOfDay::parse);
        let starts = fit("limits.day_starts", starts.transpose())?;
        Ok(LimitSettings {
            limits: Limits {
                requests_per_minute: small(self.rpm),
                tokens_per_minute: large(self.tpm),
                tokens_per_day: large(self.tokens_per_day),
                concurrent_streams: small(self.streams),
            },
            time_zone: zone.map(|zone| zone.name().to_owned()),
            day_starts: starts.flatten(),
        })
    }
}

/// Refuses the key that was there before `[limits]`, with the new one's name.
pub(super) fn refuse_old(profile: &toml::Table) -> Result<(), Invalid> {
    match profile.contains_key(OLD_STREAMS) {
        true => Err(invalid(
            OLD_STREAMS,
            "expected streams in the table [limits] in its place",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Profile;

    /// The codex profile with this `[limits]`.
    fn with(limits: &str) -> Result<LimitSettings, Invalid> {
        let text = include_str!("../../platforms/codex.toml");
        let mut table: toml::Table = text.parse().unwrap();
        table.insert(
            "limits".into(),
            limits.parse::<toml::Table>().unwrap().into(),
        );
        Profile::from_table(table).map(|profile| profile.limits)
    }

    #[test]
    fn limits_are_read() {
        let limits = with(
            "rpm = 60\ntpm = 1_000\ntokens_per_day = 500_000\nstreams = 4\ntime_zone = 'asia/shanghai'\nday_starts = '08:00'",
        );
        let limits = serde_json::to_value(limits.unwrap()).unwrap();
        assert_eq!(
            limits,
            serde_json::json!({
                "requests_per_minute": 60, "tokens_per_minute": 1_000, "tokens_per_day": 500_000,
                "concurrent_streams": 4, "time_zone": "Asia/Shanghai", "day_starts": "08:00",
            })
        );
        assert!(with("").unwrap().is_none());
        assert!(with("day_starts = '00:00'").unwrap().is_none());
    }

    #[test]
    fn what_is_no_limit_is_refused_with_its_key() {
        for (wrong, key, says) in [
            (
                "rpm = 0",
                "limits.rpm",
                "expected a whole number from 1 to 4294967295",
            ),
            (
                "rpm = '60'",
                "limits.rpm",
                "expected a whole number from 1 to 4294967295",
            ),
            (
                "streams = -1",
                "limits.streams",
                "expected a whole number from 1 to 4294967295",
            ),
            (
                "streams = 4_294_967_296",
                "limits.streams",
                "expected a whole number from 1 to 4294967295",
            ),
            (
                "tpm = 1.5",
                "limits.tpm",
                "expected a whole number from 1 to 1000000000000000",
            ),
            (
                "tokens_per_day = 1_000_000_000_000_001",
                "limits.tokens_per_day",
                "expected a whole number from 1 to 1000000000000000",
            ),
            (
                "time_zone = 'China'",
                "limits.time_zone",
                "expected the IANA name of a time zone, such as Europe/Berlin or UTC; found \"China\"",
            ),
            (
                "day_starts = '8am'",
                "limits.day_starts",
                "expected a time of day from 00:00 to 23:59, such as 08:00; found \"8am\"",
            ),
            (
                "requests_per_day = 1",
                "limits.requests_per_day",
                "unknown field `requests_per_day`",
            ),
        ] {
            let error = with(wrong).unwrap_err();
            assert_eq!(error.key, key, "{error}");
            assert!(error.problem.contains(says), "{error}");
        }
    }
}
