//! The flags that set limits and ends, and how limits are shown.

use std::num::{NonZeroU32, NonZeroU64};

use clap::Args;

use super::time::{NotATime, When, minute};
use super::{Error, number};
use crate::app::limits::Limits;
use crate::clock::UnixMillis;
use crate::day::{TimeOfDay, Zone};
use crate::limits::{MAX_LIMIT, Setting};
use crate::store::{LimitChanges, Terms};

/// A value, or the word that takes a limit off.
type Given<T> = Option<T>;

/// Limits to be set.
#[derive(Debug, Clone, Args)]
struct LimitFlags {
    /// Requests a minute of the clock, or none
    #[arg(long, value_name = "N|none", value_parser = small, allow_negative_numbers = true)]
    rpm: Option<Given<NonZeroU32>>,
    /// Tokens a minute of the clock, or none
    #[arg(long, value_name = "N|none", value_parser = large, allow_negative_numbers = true)]
    tpm: Option<Given<NonZeroU64>>,
    /// Tokens a day, or none
    #[arg(long, value_name = "N|none", value_parser = large, allow_negative_numbers = true)]
    tokens_per_day: Option<Given<NonZeroU64>>,
    /// The time zone of the day: an IANA name such as Europe/Berlin, or none for UTC
    #[arg(long, value_name = "ZONE|none", value_parser = zone)]
    time_zone: Option<Given<String>>,
    /// The beginning of the day there: a time such as 08:00, or none for midnight
    #[arg(long, value_name = "HH:MM|none", value_parser = time_of_day)]
    day_starts: Option<Given<TimeOfDay>>,
    /// Requests served at the same time, or none for no limit
    #[arg(long, value_name = "N|none", value_parser = small, allow_negative_numbers = true)]
    streams: Option<Given<NonZeroU32>>,
}

/// The terms of an account or a client key to be set: its limits and its end.
#[derive(Debug, Clone, Args)]
pub struct TermFlags {
    #[command(flatten)]
    limits: LimitFlags,
    /// Its end: in a time such as 30d or 12h, at the start of a day (2027-01-31, UTC), at a moment
    /// (2027-01-31T12:00:00Z), or none
    #[arg(long, value_name = "TIME|none", allow_hyphen_values = true)]
    expires: Option<String>,
}

fn number(text: &str, most: u64) -> Result<Given<NonZeroU64>, String> {
    if text == "none" {
        return Ok(None);
    }
    let number = number::whole(text).filter(|number| *number <= most);
    let number = number.and_then(NonZeroU64::new);
    let expected = || {
        format!(
            "expected a number from 1 to {most} (10k, 5M and 10_000 are numbers too), or none; found {text:?}"
        )
    };
    Ok(Some(number.ok_or_else(expected)?))
}

fn small(text: &str) -> Result<Given<NonZeroU32>, String> {
    let number = number(text, u32::MAX.into())?;
    Ok(number.and_then(|number| NonZeroU32::try_from(number).ok()))
}

fn large(text: &str) -> Result<Given<NonZeroU64>, String> {
    number(text, MAX_LIMIT)
}

fn zone(text: &str) -> Result<Given<String>, String> {
    if text == "none" {
        return Ok(None);
    }
    Ok(Some(Zone::parse(text)?.name().to_owned()))
}

fn time_of_day(text: &str) -> Result<Given<TimeOfDay>, String> {
    match text {
        "none" => Ok(None),
        text => TimeOfDay::parse(text),
    }
}

/// The end of an account or a key, from the text of `--expires` at `now`.
fn end(text: &str, now: UnixMillis) -> Result<Option<UnixMillis>, String> {
    if text == "none" {
        return Ok(None);
    }
    const EXPECTED: &str = "--expires: expected a time from now (30d, 12h), a day (2027-01-31), a moment (2027-01-31T12:00:00Z) or none";
    if ["never", "no", "off", "forever"].contains(&text) {
        return Err(format!("for no end, give --expires none; found {text:?}"));
    }
    let when = text.parse::<When>().map_err(|error| match error {
        NotATime::NoSuchDay => format!("--expires: expected a day that exists; found {text:?}"),
        NotATime::Else => format!("{EXPECTED}; found {text:?}"),
    })?;
    let end = when.after(now).ok_or_else(|| {
        format!("--expires: expected a time before the year 10000; found {text:?}")
    })?;
    if end <= now {
        return Err(format!(
            "--expires: expected a time after now, which is {}; {text} is past",
            minute(now)
        ));
    }
    Ok(Some(end))
}

impl LimitFlags {
    /// The changes that they ask for.
    fn changes(&self) -> LimitChanges {
        LimitChanges {
            of_profile: false,
            requests_per_minute: self.rpm,
            tokens_per_minute: self.tpm,
            tokens_per_day: self.tokens_per_day,
            concurrent_streams: self.streams,
            time_zone: self.time_zone.clone(),
            day_starts: self.day_starts,
        }
    }
}

impl TermFlags {
    /// The changes that they ask for, at `now`.
    ///
    /// # Errors
    /// If the end is none that is known, or past.
    pub fn terms(&self, now: UnixMillis) -> Result<Terms, Error> {
        let expires_at = self.expires.as_deref().map(|text| end(text, now));
        let expires_at = expires_at.transpose().map_err(Error::Input)?;
        Ok(Terms {
            limits: self.limits.changes(),
            expires_at,
            proxy: None,
        })
    }
}

/// The mark of what comes from the profile of an account's platform.
const OF_PROFILE: &str = "profile's";

/// Returns where the day of its limits begins, and when, if not at midnight: `Europe/Berlin 08:00`.
fn day_of(limits: &Limits) -> String {
    let zone = limits.time_zone.as_deref().unwrap_or("UTC");
    let starts = limits.day_starts.map(|time| format!(" {time}"));
    format!("{zone}{}", starts.unwrap_or_default())
}

/// Says where and when the day of its limits begins, and if the profile says so: `Asia/Shanghai (profile's)`.
pub fn zone_of(limits: &Limits) -> String {
    let of_profile = |setting| limits.of_profile.contains(&setting);
    let day = day_of(limits);
    match of_profile(Setting::TimeZone) || of_profile(Setting::DayStarts) {
        true => format!("{day} ({OF_PROFILE})"),
        false => day,
    }
}

/// Limits and what is used of them, for people: `3/60 requests/min, 200/5000 tokens/day (UTC)`; empty where there is no
/// limit. A limit that comes with the platform says so: `4 streams (profile's)`.
pub fn limits(limits: &Limits) -> String {
    let part = |setting, used: Option<u64>, limit: Option<u64>, unit: &str, day: Option<&str>| {
        let used = used.map_or_else(String::new, |used| format!("{used}/"));
        let mark = limits.of_profile.contains(&setting).then_some(OF_PROFILE);
        let notes: Vec<&str> = mark.into_iter().chain(day).collect();
        let notes = match notes.is_empty() {
            true => String::new(),
            false => format!(" ({})", notes.join(", ")),
        };
        limit.map(|limit| format!("{used}{limit} {unit}{notes}"))
    };
    let day = day_of(limits);
    let Limits {
        limits: most, used, ..
    } = limits;
    let parts = [
        part(
            Setting::RequestsPerMinute,
            used.requests_this_minute,
            most.requests_per_minute.map(|limit| limit.get().into()),
            "requests/min",
            None,
        ),
        part(
            Setting::TokensPerMinute,
            used.tokens_this_minute,
            most.tokens_per_minute.map(NonZeroU64::get),
            "tokens/min",
            None,
        ),
        part(
            Setting::TokensPerDay,
            used.tokens_today,
            most.tokens_per_day.map(NonZeroU64::get),
            "tokens/day",
            Some(&day),
        ),
        part(
            Setting::ConcurrentStreams,
            used.streams,
            most.concurrent_streams.map(|limit| limit.get().into()),
            "streams",
            None,
        ),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-21T14:13:20Z
    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    #[test]
    fn an_end_is_after_now_or_none() {
        assert_eq!(end("1m", NOW), Ok(Some(UnixMillis(NOW.0 + 60_000))));
        assert_eq!(end("none", NOW), Ok(None));
        for (wrong, says) in [
            ("soon", "--expires: expected a time from now"),
            ("-1d", "--expires: expected a time from now"),
            ("never", "for no end, give --expires none"),
            ("2027-02-30", "a day that exists; found \"2027-02-30\""),
            (
                "2026-09-21",
                "which is 2026-09-21 14:13 UTC; 2026-09-21 is past",
            ),
            ("2026-09-21T14:13:20Z", "is past"),
        ] {
            let refused = end(wrong, NOW).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn what_is_the_profiles_is_marked() {
        let mut all = Limits::default();
        all.limits.requests_per_minute = NonZeroU32::new(60);
        all.limits.tokens_per_day = NonZeroU64::new(5_000);
        all.time_zone = Some("Asia/Shanghai".to_owned());
        all.used.tokens_today = Some(200);
        assert_eq!(
            (&*limits(&all), &*zone_of(&all)),
            (
                "60 requests/min, 200/5000 tokens/day (Asia/Shanghai)",
                "Asia/Shanghai"
            )
        );
        all.of_profile = [
            Setting::RequestsPerMinute,
            Setting::TokensPerDay,
            Setting::TimeZone,
        ]
        .into();
        assert_eq!(
            (&*limits(&all), &*zone_of(&all)),
            (
                "60 requests/min (profile's), 200/5000 tokens/day (profile's, Asia/Shanghai)",
                "Asia/Shanghai (profile's)"
            )
        );
    }

    #[test]
    fn limits_are_read_and_taken_off() {
        assert_eq!(small("60"), Ok(NonZeroU32::new(60)));
        assert_eq!(small("1k"), Ok(NonZeroU32::new(1_000)));
        assert_eq!(large("5M"), Ok(NonZeroU64::new(5_000_000)));
        assert_eq!(large("none"), Ok(None));
        assert_eq!(zone("europe/berlin"), Ok(Some("Europe/Berlin".to_owned())));
        assert_eq!(zone("none"), Ok(None));
        for wrong in ["0", "-1", "1.5", "", "4294967296", "many"] {
            assert!(small(wrong).is_err(), "{wrong}");
        }
        assert!(large("1000000000000001").is_err());
        assert!(zone("Mars/Olympus").is_err());
    }
}
