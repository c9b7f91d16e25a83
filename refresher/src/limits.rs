//! Limits of accounts and client keys, and where their day begins. For an account what its operator set holds, and for
//! the rest what its platform's profile says. What is used of them is not known here.

use std::collections::BTreeSet;

use latchkey::limit::Limits;
use serde::{Deserialize, Serialize};

use crate::day::TimeOfDay;

/// The largest limit: far above what a platform could deliver, and exact in every JSON reader.
pub const MAX_LIMIT: u64 = 1_000_000_000_000_000;

/// The most that an account or a client key may use, and the place where its day begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitSettings {
    /// The limits.
    #[serde(flatten)]
    pub limits: Limits,
    /// The IANA name of the zone in which the day begins; UTC where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The time of day at which it begins there; midnight where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_starts: Option<TimeOfDay>,
}

/// One of [`LimitSettings`], by its name in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// [`Limits::requests_per_minute`]
    RequestsPerMinute,
    /// [`Limits::tokens_per_minute`]
    TokensPerMinute,
    /// [`Limits::tokens_per_day`]
    TokensPerDay,
    /// [`Limits::concurrent_streams`]
    ConcurrentStreams,
    /// [`LimitSettings::time_zone`]
    TimeZone,
    /// [`LimitSettings::day_starts`]
    DayStarts,
}

/// The words of an operator about an account's limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnLimits {
    /// The limits that the operator set.
    pub set: LimitSettings,
    /// The limits that the operator took off, whatever the profile says.
    pub lifted: BTreeSet<Setting>,
}

/// The limits that hold for an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// The limits.
    pub settings: LimitSettings,
    /// The limits among them that the profile says.
    pub of_profile: BTreeSet<Setting>,
}

impl LimitSettings {
    /// Returns true if no setting is set.
    pub fn is_none(&self) -> bool {
        *self == LimitSettings::default()
    }
}

// === impl OwnLimits ===

impl OwnLimits {
    /// The limits that hold where the profile says `defaults`. Its `day_starts` is a time in its own time zone, and
    /// counts in no other.
    pub fn over(&self, defaults: &LimitSettings) -> Effective {
        let mut of_profile = BTreeSet::new();
        let mut pick = Pick {
            lifted: &self.lifted,
            of_profile: &mut of_profile,
        };
        let (own, below) = (&self.set.limits, &defaults.limits);
        let limits = Limits {
            requests_per_minute: pick.of(
                Setting::RequestsPerMinute,
                own.requests_per_minute,
                below.requests_per_minute,
            ),
            tokens_per_minute: pick.of(
                Setting::TokensPerMinute,
                own.tokens_per_minute,
                below.tokens_per_minute,
            ),
            tokens_per_day: pick.of(
                Setting::TokensPerDay,
                own.tokens_per_day,
                below.tokens_per_day,
            ),
            concurrent_streams: pick.of(
                Setting::ConcurrentStreams,
                own.concurrent_streams,
                below.concurrent_streams,
            ),
        };
        let (own, below) = (self.set.time_zone.as_ref(), defaults.time_zone.as_ref());
        let has_own_zone = own.is_some() || self.lifted.contains(&Setting::TimeZone);
        let time_zone = pick.of(Setting::TimeZone, own, below).cloned();
        let starts = defaults.day_starts.filter(|_| !has_own_zone);
        let day_starts = pick.of(Setting::DayStarts, self.set.day_starts, starts);
        Effective {
            settings: LimitSettings {
                limits,
                time_zone,
                day_starts,
            },
            of_profile,
        }
    }
}

/// The choice between what an operator set and what a profile says.
struct Pick<'a> {
    lifted: &'a BTreeSet<Setting>,
    of_profile: &'a mut BTreeSet<Setting>,
}

impl Pick<'_> {
    fn of<T>(&mut self, setting: Setting, own: Option<T>, default: Option<T>) -> Option<T> {
        if own.is_some() || self.lifted.contains(&setting) {
            return own;
        }
        if default.is_some() {
            self.of_profile.insert(setting);
        }
        default
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use super::*;

    fn settings(text: &str) -> LimitSettings {
        serde_json::from_str(text).unwrap()
    }

    /// A profile that says all there is to say.
    fn defaults() -> LimitSettings {
        let defaults = settings(
            r#"{"requests_per_minute":1,"tokens_per_minute":2,"tokens_per_day":3,"concurrent_streams":4,
                "time_zone":"Asia/Shanghai","day_starts":"08:00"}"#,
        );
        let again = serde_json::to_string(&defaults).unwrap();
        assert_eq!(settings(&again), defaults);
        defaults
    }

    #[test]
    fn what_an_operator_did_not_set_is_the_profiles() {
        let all = OwnLimits::default().over(&defaults());
        assert_eq!((all.settings, all.of_profile.len()), (defaults(), 6));
        assert_eq!(
            OwnLimits::default().over(&LimitSettings::default()),
            Effective::default()
        );

        let own = OwnLimits {
            set: settings(r#"{"tokens_per_day":30,"day_starts":"09:00"}"#),
            lifted: [Setting::ConcurrentStreams, Setting::TokensPerMinute].into(),
        };
        let Effective {
            settings,
            of_profile,
        } = own.over(&defaults());
        assert_eq!(settings.limits.requests_per_minute, NonZeroU32::new(1));
        assert_eq!(settings.limits.tokens_per_minute, None);
        assert_eq!(settings.limits.tokens_per_day, NonZeroU64::new(30));
        assert_eq!(settings.limits.concurrent_streams, None);
        assert_eq!(settings.time_zone.as_deref(), Some("Asia/Shanghai"));
        assert_eq!(settings.day_starts.unwrap().to_string(), "09:00");
        assert_eq!(
            of_profile,
            [Setting::RequestsPerMinute, Setting::TimeZone].into()
        );
    }

    #[test]
    fn a_profiles_time_of_day_counts_in_its_own_zone_alone() {
        let elsewhere = OwnLimits {
            set: settings(r#"{"time_zone":"Europe/Berlin"}"#),
            ..OwnLimits::default()
        };
        let utc = OwnLimits {
            lifted: [Setting::TimeZone].into(),
            ..OwnLimits::default()
        };
        for (own, zone) in [(elsewhere, Some("Europe/Berlin")), (utc, None)] {
            let found = own.over(&defaults());
            assert_eq!(found.settings.time_zone.as_deref(), zone);
            assert_eq!(found.settings.day_starts, None, "{zone:?}");
            assert!(!found.of_profile.contains(&Setting::DayStarts), "{zone:?}");
        }
    }
}
