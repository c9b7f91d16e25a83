//! Times as people write and read them: one grammar for every flag, one form for every table.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use crate::clock::UnixMillis;

/// A time as a flag says it: a span from or before now, the beginning of a day in UTC, or a moment.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// `30d`, `12h`, `1h 30m`.
    Span(Span),
    /// `2027-01-31` or `2027-01-31T12:00:00Z`.
    At(UnixMillis),
}

impl FromStr for When {
    /// The sentence ends there: what was expected depends on the flag.
    type Err = NotATime;

    fn from_str(text: &str) -> Result<When, NotATime> {
        let text = text.trim();
        let at = |time: Timestamp| When::At(UnixMillis(time.as_millisecond()));
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(at(moment));
        }
        // A day alone: jiff drops a time behind it that has no zone.
        if let Some(day) = text
            .parse::<Date>()
            .ok()
            .filter(|_| text.len() == DAY_LENGTH)
        {
            let start = day
                .to_zoned(TimeZone::UTC)
                .map_err(|_| NotATime::NoSuchDay)?;
            return Ok(at(start.timestamp()));
        }
        if text.parse::<Date>().is_err() && is_written_as_a_day(text) {
            return Err(NotATime::NoSuchDay);
        }
        match text.parse::<Span>() {
            Ok(span) if span.is_positive() => Ok(When::Span(span)),
            _ => Err(NotATime::Else),
        }
    }
}

/// The characters of `2027-01-31`.
const DAY_LENGTH: usize = 10;

/// The reason why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotATime {
    /// Text that is written as a day which no calendar has.
    NoSuchDay,
    /// Text that is something else.
    Else,
}

/// True for `2027-02-30`, and for a moment on such a day.
fn is_written_as_a_day(text: &str) -> bool {
    let day = text.get(..10).unwrap_or_default().bytes().enumerate();
    let fits = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    let rest = text.get(10..).unwrap_or_default();
    day.len() == 10 && day.into_iter().all(fits) && (rest.is_empty() || rest.starts_with('T'))
}

impl When {
    /// The time, where a span begins at `now`.
    pub fn after(self, now: UnixMillis) -> Option<UnixMillis> {
        self.resolve(now, |now, span| now.checked_add(span))
    }

    /// The time, where a span ends at `now`.
    pub fn before(self, now: UnixMillis) -> Option<UnixMillis> {
        self.resolve(now, |now, span| now.checked_sub(span))
    }

    fn resolve(
        self,
        now: UnixMillis,
        apply: impl Fn(&Zoned, Span) -> Result<Zoned, jiff::Error>,
    ) -> Option<UnixMillis> {
        match self {
            When::At(time) => Some(time),
            When::Span(span) => {
                let now = Timestamp::from_millisecond(now.0).ok()?;
                let time = apply(&now.to_zoned(TimeZone::UTC), span).ok()?;
                Some(UnixMillis(time.timestamp().as_millisecond()))
            }
        }
    }
}

/// A time for people: `in 3h 20m`, `5m ago`, `now`.
pub fn relative(time: UnixMillis, now: UnixMillis) -> String {
    let (ahead, behind) = (time.since(now).as_secs(), now.since(time).as_secs());
    match (ahead, behind) {
        (0, 0) => "now".to_owned(),
        (0, _) => format!("{} ago", span(now.since(time))),
        (_, _) => format!("in {}", span(time.since(now))),
    }
}

/// A moment for people, to the minute: `2026-08-01 00:00 UTC`.
pub fn minute(time: UnixMillis) -> String {
    Timestamp::from_millisecond(time.0).map_or_else(
        |_| "the beginning".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

/// A length of time for people, in its two largest units: `3h 20m`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(minutes, "m", seconds % 60, "s"),
        3600..86400 => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-21T14:13:20Z
    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    #[test]
    fn a_moment_without_a_zone_is_none() {
        for text in [
            "2027-01-31T12:00",
            "2027-01-31T12:00:00",
            "2027-01-31 12:00",
        ] {
            assert_eq!(text.parse::<When>().err(), Some(NotATime::Else), "{text}");
        }
        assert_eq!(
            "2027-02-30".parse::<When>().err(),
            Some(NotATime::NoSuchDay)
        );
    }

    #[test]
    fn spans_days_and_moments_are_read() {
        let when = |text: &str| text.parse::<When>().ok();
        for (text, seconds) in [
            ("30d", 30 * 86_400),
            ("12h", 43_200),
            ("90m", 5_400),
            ("1h 30m", 5_400),
            ("2w", 14 * 86_400),
        ] {
            let read = when(text).unwrap();
            assert_eq!(
                read.after(NOW),
                Some(UnixMillis(NOW.0 + seconds * 1_000)),
                "{text}"
            );
            assert_eq!(
                read.before(NOW),
                Some(UnixMillis(NOW.0 - seconds * 1_000)),
                "{text}"
            );
        }
        for (text, seconds) in [
            ("2026-09-22", 35_200),
            ("2026-09-21T14:13:21Z", 1),
            ("2026-09-21T16:13:22+02:00", 2),
            ("2026-09-21", 35_200 - 86_400),
        ] {
            let time = Some(UnixMillis(NOW.0 + seconds * 1_000));
            let read = when(text).unwrap();
            assert_eq!((read.after(NOW), read.before(NOW)), (time, time), "{text}");
        }
        for wrong in ["2026-13-01", "2027-02-30", "2027-02-30T12:00:00Z"] {
            assert_eq!(
                wrong.parse::<When>().err(),
                Some(NotATime::NoSuchDay),
                "{wrong}"
            );
        }
        for wrong in [
            "",
            "d",
            "7",
            "0d",
            "-1d",
            "soon",
            "2026-13-01",
            "99999999999d",
            "é",
        ] {
            assert!(when(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn times_read_well() {
        for (seconds, text) in [
            (0, "now"),
            (59, "in 59s"),
            (90, "in 1m 30s"),
            (3600, "in 1h"),
            (100_000, "in 1d 3h"),
            (-7300, "2h 1m ago"),
        ] {
            assert_eq!(relative(UnixMillis(NOW.0 + seconds * 1000), NOW), text);
        }
        assert_eq!(minute(NOW), "2026-09-21 14:13 UTC");
    }
}
