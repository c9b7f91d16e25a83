//! The moments that platforms name, in every form in which they write them.
//!
//! A platform says "not before then" as a span or as a moment, in seconds, milliseconds, Go
//! durations, dates or a sentence. Forms are told apart by their shape, so that a
//! rule only names where to look. What is past, absurd or not a time at all is none.

use crate::text::decimal::decimal;

/// The furthest moment that is believed, in milliseconds from now: 400 days, above the longest
/// window of any platform (a year of a prepaid plan).
pub const MAX_AHEAD_MS: u64 = 400 * DAY_MS;

/// The longest text that is read as one time, in bytes. A date with a fraction and a zone has 32.
const MAX_TEXT_BYTES: usize = 64;

/// From this number on, in seconds, a number is a moment since 1970 and no span (2001-09-09).
const FIRST_UNIX_SECONDS: f64 = 1e9;

/// From this number on it is a moment in milliseconds: as seconds it would be the year 5138.
const FIRST_UNIX_MS: f64 = 1e11;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The unit of a bare number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `retry-after`, `resets_in_seconds`
    Seconds,
    /// `retry-after-ms`
    Milliseconds,
}

impl Unit {
    /// The unit that the name of a header or field says: milliseconds where it ends in `ms`.
    pub fn of(name: &str) -> Self {
        if name.ends_with("-ms") || name.ends_with("_ms") {
            Self::Milliseconds
        } else {
            Self::Seconds
        }
    }
}

/// The moment that a header's or a field's `text` names, in Unix milliseconds, if it is after
/// `now` and within [`MAX_AHEAD_MS`].
///
/// A number is a span in `unit` or, by its size, Unix seconds or milliseconds. Then Go durations
/// (`1m26s`), RFC 3339, and `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7). The two obsolete date
/// forms of that section are no times here: no platform writes them.
pub fn moment(text: &str, unit: Unit, now: u64) -> Option<u64> {
    let text = text.trim();
    if text.len() > MAX_TEXT_BYTES {
        return None;
    }
    let at = number(text, unit, now)
        .or_else(|| whole_span(text).map(|span| now.saturating_add(span)))
        .or_else(|| rfc3339(text))
        .or_else(|| http_date(text))?;
    ahead(at, now)
}

/// The words after which a sentence names a span.
const SPOKEN: [&str; 4] = ["try again in", "try again after", "retry in", "retry after"];

/// The words after which a sentence names a date.
const DATED: &str = "regain access on";

/// The moment that an error's sentence names: `… try again in 1.5s`, `… retry in 34.07s`,
/// `… regain access on 2026-04-01 at 00:00 UTC`. None where two sentences would: one of them may
/// repeat the caller's own text, the name of a model for example.
pub fn in_message(message: &str, now: u64) -> Option<u64> {
    let message = message.to_ascii_lowercase();
    let words = SPOKEN.iter().chain([&DATED]);
    if words
        .map(|words| message.matches(words).count())
        .sum::<usize>()
        > 1
    {
        return None;
    }
    let after = |words: &str| message.split_once(words).map(|(_, rest)| rest);
    let spoken = SPOKEN
        .into_iter()
        .filter_map(after)
        .find_map(|rest| span(rest).map(|(ms, _)| now.saturating_add(ms)));
    let at = spoken.or_else(|| {
        let mut words = after(DATED)?.split_whitespace();
        match [words.next()?, words.next()?, words.next()?, words.next()?] {
            [date, "at", time, "utc" | "utc."] => rfc3339(&format!("{date}t{time}:00z")),
            _ => None,
        }
    })?;
    ahead(at, now)
}

fn ahead(at: u64, now: u64) -> Option<u64> {
    let span = at.checked_sub(now)?;
    (1..=MAX_AHEAD_MS).contains(&span).then_some(at)
}

/// Digits with at most one dot: no sign, no exponent, no `nan`.
fn number(text: &str, unit: Unit, now: u64) -> Option<u64> {
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return None;
    }
    let value = decimal(text)?;
    Some(match unit {
        _ if value >= FIRST_UNIX_MS => value as u64,
        Unit::Seconds if value >= FIRST_UNIX_SECONDS => (value * 1e3) as u64,
        Unit::Seconds => now.saturating_add((value * 1e3) as u64),
        Unit::Milliseconds => now.saturating_add(value as u64),
    })
}

fn whole_span(text: &str) -> Option<u64> {
    span(text).and_then(|(ms, rest)| rest.is_empty().then_some(ms))
}

/// The span at the start of `text`, in milliseconds, and what follows it: `1m26s`, `20 s`,
/// `2 seconds`.
fn span(text: &str) -> Option<(u64, &str)> {
    let mut total = None;
    let mut rest = text.trim_start();
    while let Some((ms, tail)) = quantity(rest) {
        total = Some(total.unwrap_or(0.0) + ms);
        rest = tail;
    }
    // The cast saturates.
    total.map(|ms: f64| (ms as u64, rest))
}

/// Reads a number with its unit.
fn quantity(text: &str) -> Option<(f64, &str)> {
    let (digits, rest) = split(text, |c| c.is_ascii_digit() || c == '.')?;
    let (unit, rest) = split(rest.trim_start(), char::is_alphabetic)?;
    let unit_ms = match unit {
        "ns" => 1e-6,
        "us" | "µs" | "μs" => 1e-3,
        "ms" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND_MS as f64,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE_MS as f64,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR_MS as f64,
        "d" | "day" | "days" => DAY_MS as f64,
        _ => return None,
    };
    let value = decimal(digits)?;
    Some((value * unit_ms, rest))
}

/// The characters at the start of `text` that `belong`, and the rest.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> Option<(&str, &str)> {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at_checked(end)
}

/// `2026-07-08T00:49:59.940321+00:00` (RFC 3339 §5.6), in Unix milliseconds.
fn rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-')?;
    let seconds = unix_ms([year, month, day], time)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => split(rest, |c| c.is_ascii_digit())?,
        None => ("0", rest),
    };
    let fraction = decimal(&format!("0.{fraction}"))?;
    let at = seconds.saturating_add((fraction * 1e3) as u64);
    if zone.eq_ignore_ascii_case("z") {
        return Some(at);
    }
    let offset = |text: &str| {
        let [hours, minutes] = numbers(text, ':')?;
        let minutes = hours.saturating_mul(60).saturating_add(minutes);
        Some(minutes.saturating_mul(MINUTE_MS))
    };
    match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
        (Some(east), _) => at.checked_sub(offset(east)?),
        (_, Some(west)) => at.checked_add(offset(west)?),
        _ => None,
    }
}

/// Unix milliseconds as RFC 3339 in UTC, to the second.
pub fn to_rfc3339(at: u64) -> String {
    let seconds = at / 1_000;
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days, from 1 March of the year 0, in eras of 400 years.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / 146_097, days % 146_097);
    let leap_free = day
        .saturating_sub(day / 1_460)
        .saturating_add(day / 36_524)
        .saturating_sub(day / 146_096);
    let year = leap_free / 365;
    let before = year
        .saturating_mul(365)
        .saturating_add(year / 4)
        .saturating_sub(year / 100);
    let day = day.saturating_sub(before);
    let month = day.saturating_mul(5).saturating_add(2) / 153;
    let before = month.saturating_mul(153).saturating_add(2) / 5;
    let day = day.saturating_sub(before).saturating_add(1);
    let year = era.saturating_mul(400).saturating_add(year);
    let (year, month) = match month {
        0..=9 => (year, month.saturating_add(3)),
        _ => (year.saturating_add(1), month.saturating_sub(9)),
    };
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        time / 3_600,
        time / 60 % 60,
        time % 60
    )
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, IMF-fixdate), in Unix milliseconds.
fn http_date(text: &str) -> Option<u64> {
    let (_weekday, text) = text.split_once(", ")?;
    let mut words = text.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (time, zone, end) = (words.next()?, words.next()?, words.next());
    if zone != "GMT" || end.is_some() || year.len() != 4 {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month)?;
    let month = u64::try_from(month).ok()?.saturating_add(1);
    unix_ms([year.parse().ok()?, month, day.parse().ok()?], time)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `count` numbers of digits alone between `separator`s.
fn numbers<const COUNT: usize>(text: &str, separator: char) -> Option<[u64; COUNT]> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    let parts: Vec<u64> = text.split(separator).map(number).collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// A date (year, month from 1, day from 1) and a time `08:49:37` of UTC, in Unix milliseconds.
/// None outside the calendar or before 1970.
fn unix_ms([year, month, day]: [u64; 3], time: &str) -> Option<u64> {
    const DAYS_BEFORE_MONTH: [u64; 13] =
        [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];
    /// Leap days from year 1 to 1969.
    const LEAP_DAYS_BEFORE_1970: u64 = 477;

    let [hour, minute, second] = numbers(time, ':')?;
    let years = year.checked_sub(1970)?;
    let month_index = usize::try_from(month).ok()?;
    let before = *DAYS_BEFORE_MONTH.get(month_index.checked_sub(1)?)?;
    let until = *DAYS_BEFORE_MONTH.get(month_index)?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = until
        .saturating_sub(before)
        .saturating_add(u64::from(leap && month == 2));
    // 60 is a leap second.
    let fits = year <= 9999 && (1..=length).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let past = year.saturating_sub(1);
    let leap_days = (past / 4)
        .saturating_sub(past / 100)
        .saturating_add(past / 400)
        .saturating_sub(LEAP_DAYS_BEFORE_1970);
    let days = years
        .saturating_mul(365)
        .saturating_add(leap_days)
        .saturating_add(before)
        .saturating_add(u64::from(leap && month > 2))
        .saturating_add(day.saturating_sub(1));
    Some(
        days.saturating_mul(DAY_MS)
            .saturating_add(hour.saturating_mul(HOUR_MS))
            .saturating_add(minute.saturating_mul(MINUTE_MS))
            .saturating_add(second.saturating_mul(SECOND_MS)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-09-21T14:13:20Z
    const NOW: u64 = 1_790_000_000_000;

    fn in_seconds(text: &str) -> Option<f64> {
        moment(text, Unit::Seconds, NOW).map(|at| (at - NOW) as f64 / 1e3)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0..253_402_300_800_u64) {
            prop_assert_eq!(rfc3339(&to_rfc3339(seconds * 1_000)), Some(seconds * 1_000));
        }
    }

    #[test]
    fn every_form_is_read() {
        for (text, seconds) in [
            ("2094", 2094.0),
            ("1.5", 1.5),
            ("1790003600", 3600.0),
            ("1790003600000", 3600.0),
            ("12ms", 0.012),
            ("1m26s", 86.0),
            ("6h0m0s", 21_600.0),
            ("1m26.5s", 86.5),
            ("34.07s", 34.07),
            ("900ms", 0.9),
            ("2026-09-21T14:13:21Z", 1.0),
            ("2026-09-21t14:13:20.250z", 0.25),
            ("2026-09-21T16:13:21+02:00", 1.0),
            ("2026-09-21T08:43:21-05:30", 1.0),
            ("Mon, 21 Sep 2026 14:14:20 GMT", 60.0),
        ] {
            assert_eq!(in_seconds(text), Some(seconds), "{text}");
        }
        assert_eq!(
            moment("1500", Unit::of("retry-after-ms"), NOW),
            Some(NOW + 1500)
        );
    }

    #[test]
    fn what_is_no_time_to_come_is_none() {
        for text in [
            "",
            "0",
            "-5",
            "NaN",
            "inf",
            "1e3",
            "1.2.3",
            ".",
            "False",
            "1789999999",
            "999999999",
            "99999999999999999999",
            "5 parsecs",
            "1m30",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-09-21T14:13:21",
            "2026-09-21",
            "2036-09-21T14:13:21Z",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Monday, 21-Sep-26 14:14:20 GMT",
            "Mon Sep 21 14:14:20 2026",
            "Mon, 21 Sep 2026 14:14:20 CET",
            "Mon, 21 Sep 26 14:14:20 GMT",
            "Mon, 21 Brumaire 2026 14:14:20 GMT",
        ] {
            assert_eq!(in_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn known_dates_are_their_moments() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date, Some(784_111_777_000));
        assert_eq!(rfc3339("2024-02-29T23:59:60Z"), Some(1_709_251_200_000));
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
    }

    #[test]
    fn sentences_are_read() {
        for (text, seconds) in [
            ("Rate limit reached. Please try again in 1.5s.", Some(1.5)),
            ("Please Try Again In 20 s", Some(20.0)),
            ("try again in 350ms. Visit …", Some(0.35)),
            ("try again in 2 seconds", Some(2.0)),
            (
                "reached max request: 3, please try again after 1 seconds",
                Some(1.0),
            ),
            ("Please try again in 1m30s.", Some(90.0)),
            ("Please retry in 34.07s", Some(34.07)),
            (
                "You will regain access on 2026-10-01 at 00:00 UTC.",
                Some(812_800.0),
            ),
            ("Please try again later.", None),
            (
                "Limit for try again in 9h reached. Please try again in 2s.",
                None,
            ),
            ("try again in the morning", None),
            ("try again in 5", None),
            ("You will regain access on Monday", None),
        ] {
            let found = in_message(text, NOW).map(|at| (at - NOW) as f64 / 1e3);
            assert_eq!(found, seconds, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_goes_astray(
            text in "[0-9a-zA-Zµ:.,+ -]{0,40}|\\PC{0,40}",
            now in prop_oneof![Just(0), Just(NOW), Just(u64::MAX), any::<u64>()],
        ) {
            let sentence = format!("try again in {text}");
            for at in [
                moment(&text, Unit::Seconds, now),
                moment(&text, Unit::Milliseconds, now),
                in_message(&sentence, now),
                in_message(&format!("regain access on {text}"), now),
            ] {
                prop_assert!(at.is_none_or(|at| at > now && at - now <= MAX_AHEAD_MS));
            }
        }

        #[test]
        fn dates_agree_with_their_seconds(seconds in NOW / 1000 + 1..NOW / 1000 + 400 * 86_400) {
            let days = seconds / 86_400;
            let clock = seconds % 86_400;
            // Walks the calendar day by day from 2026-01-01, where the code computes.
            let (mut day, mut month, mut year, mut left) = (1, 0, 2026, days - 20_454);
            let length = |month: usize, year: u64| match month {
                1 if year.is_multiple_of(4) => 29,
                1 => 28,
                3 | 5 | 8 | 10 => 30,
                _ => 31,
            };
            while left > 0 {
                left -= 1;
                day += 1;
                if day > length(month, year) {
                    (day, month) = (1, month + 1);
                }
                if month == 12 {
                    (month, year) = (0, year + 1);
                }
            }
            let time = format!("{:02}:{:02}:{:02}", clock / 3600, clock / 60 % 60, clock % 60);
            let name = MONTHS[month];
            let month = month + 1;
            for text in [
                format!("{year}-{month:02}-{day:02}T{time}Z"),
                format!("Mon, {day:02} {name} {year} {time} GMT"),
            ] {
                prop_assert_eq!(moment(&text, Unit::Seconds, NOW), Some(seconds * 1000), "{}", text);
            }
        }
    }
}
