//! The beginning and the end of a day where the operator lives.

use std::fmt;
use std::num::NonZeroU16;

use jiff::civil::{self, Date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use latchkey::limit::DAY_MS;
use serde::{Deserialize, Serialize};

/// A time zone by its IANA name, and the time at which days begin there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    zone: TimeZone,
    starts: civil::Time,
}

/// A time of day but midnight, to the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TimeOfDay(NonZeroU16);

/// A day, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Its first millisecond.
    pub start: u64,
    /// The first one after it.
    pub end: u64,
}

impl Zone {
    /// The zone of that IANA name, in any case: the system's database first, then the one built in.
    ///
    /// # Errors
    /// Saying what was expected.
    pub fn parse(name: &str) -> Result<Zone, String> {
        // Names that are no zones of a place depend on the machine.
        let known = jiff::tz::db().get(name).ok();
        let at_midnight = |zone| Zone {
            zone,
            starts: civil::Time::midnight(),
        };
        known.map(at_midnight).ok_or_else(|| {
            format!("expected the IANA name of a time zone, such as Europe/Berlin or UTC; found {name:?}")
        })
    }

    /// Returns the zone of some limits: the name of its zone, none for UTC, and the time at which days begin, none for
    /// midnight. A name that was known when it was set and no more is taken for UTC.
    pub fn of(named: Option<&str>, starts: Option<TimeOfDay>) -> Zone {
        let named = named.unwrap_or("UTC");
        let zone = Zone::parse(named).map_or_else(
            |_| {
                tracing::warn!(
                    name = named,
                    "this machine does not know that time zone any more; its days are those of UTC"
                );
                TimeZone::UTC
            },
            |known| known.zone,
        );
        let starts = starts.map_or(civil::Time::midnight(), TimeOfDay::time);
        Zone { zone, starts }
    }

    /// The name as the database spells it.
    pub fn name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The day that `now` is in. It begins at its time of day, or at the first moment after it where the clocks skip that.
    pub fn day_at(&self, now: u64) -> Day {
        self.try_day_at(now).unwrap_or(Day {
            start: now - now % DAY_MS,
            end: (now - now % DAY_MS).saturating_add(DAY_MS),
        })
    }

    /// None at the ends of time.
    fn try_day_at(&self, now: u64) -> Option<Day> {
        let now = Timestamp::from_millisecond(i64::try_from(now).ok()?).ok()?;
        let starts = |date: Date| {
            date.to_datetime(self.starts)
                .to_zoned(self.zone.clone())
                .ok()
        };
        let date = now.to_zoned(self.zone.clone()).date();
        let (start, end) = match starts(date)? {
            // Before its beginning, it is still the day before.
            later if later.timestamp() > now => (starts(date.yesterday().ok()?)?, later),
            start => (start, starts(date.tomorrow().ok()?)?),
        };
        let ms = |time: &Zoned| u64::try_from(time.timestamp().as_millisecond()).ok();
        let (start, end) = (ms(&start)?, ms(&end)?);
        (start < end).then_some(Day { start, end })
    }
}

// === impl TimeOfDay ===

impl TimeOfDay {
    /// Reads `08:00`; none for midnight.
    ///
    /// # Errors
    /// Saying what was expected.
    pub fn parse(text: &str) -> Result<Option<TimeOfDay>, String> {
        let digits = |part: &str, most: u16| {
            let is_short = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            let number: Option<u16> = part.parse().ok().filter(|number| *number <= most);
            number.filter(|_| is_short)
        };
        let parts = text.split_once(':');
        let minutes =
            parts.and_then(|(hour, minute)| Some(digits(hour, 23)? * 60 + digits(minute, 59)?));
        let minutes = minutes.ok_or_else(|| {
            format!("expected a time of day from 00:00 to 23:59, such as 08:00; found {text:?}")
        })?;
        Ok(NonZeroU16::new(minutes).map(TimeOfDay))
    }

    /// So many minutes after midnight; none for midnight, and for what is no time of day.
    pub fn of_minutes(minutes: u32) -> Option<TimeOfDay> {
        let minutes = u16::try_from(minutes)
            .ok()
            .filter(|minutes| *minutes < 24 * 60)?;
        NonZeroU16::new(minutes).map(TimeOfDay)
    }

    /// The minutes since midnight.
    pub fn minutes(self) -> u16 {
        self.0.get()
    }

    fn time(self) -> civil::Time {
        let [hour, minute] =
            [self.minutes() / 60, self.minutes() % 60].map(|part| i8::try_from(part).unwrap_or(0));
        civil::Time::new(hour, minute, 0, 0).unwrap_or(civil::Time::midnight())
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.minutes();
        write!(formatter, "{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<TimeOfDay, String> {
        let time = TimeOfDay::parse(&text)?;
        time.ok_or_else(|| "expected a time of day but midnight".to_owned())
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        let time: Timestamp = text.parse().unwrap();
        u64::try_from(time.as_millisecond()).unwrap()
    }

    #[test]
    fn days_begin_at_the_zones_midnight_also_where_clocks_change() {
        for (zone, now, start, end) in [
            (
                "UTC",
                "2026-06-01T12:00:00Z",
                "2026-06-01T00:00:00Z",
                "2026-06-02T00:00:00Z",
            ),
            // Summer time begins: 23 hours. It ends: 25.
            (
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-25T00:30:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            (
                "europe/berlin",
                "2026-10-25T23:00:00Z",
                "2026-10-25T23:00:00Z",
                "2026-10-26T23:00:00Z",
            ),
            // The clocks skip midnight: the day begins at one.
            (
                "America/Sao_Paulo",
                "2018-11-04T12:00:00Z",
                "2018-11-04T03:00:00Z",
                "2018-11-05T02:00:00Z",
            ),
            (
                "Asia/Kathmandu",
                "2026-06-01T18:15:00Z",
                "2026-06-01T18:15:00Z",
                "2026-06-02T18:15:00Z",
            ),
            // The island skipped 30 December 2011.
            (
                "Pacific/Apia",
                "2011-12-30T09:59:59Z",
                "2011-12-29T10:00:00Z",
                "2011-12-30T10:00:00Z",
            ),
        ] {
            let day = Zone::parse(zone).unwrap().day_at(at(now));
            let expected = Day {
                start: at(start),
                end: at(end),
            };
            assert_eq!(day, expected, "{zone} {now}");
        }
        assert_eq!(
            Zone::parse("europe/berlin").unwrap().name(),
            "Europe/Berlin"
        );
        for wrong in ["", "Europe/Atlantis", "CET+1", "../etc/passwd"] {
            assert!(Zone::parse(wrong).is_err(), "{wrong}");
        }
        // The quota of a day that begins at eight, also where clocks change, and where they skip that hour.
        for (zone, starts, now, start, end) in [
            (
                "Asia/Shanghai",
                "08:00",
                "2026-06-01T00:00:00Z",
                "2026-06-01T00:00:00Z",
                "2026-06-02T00:00:00Z",
            ),
            (
                "Asia/Shanghai",
                "08:00",
                "2026-05-31T23:59:59Z",
                "2026-05-31T00:00:00Z",
                "2026-06-01T00:00:00Z",
            ),
            (
                "America/Los_Angeles",
                "23:30",
                "2026-06-01T12:00:00Z",
                "2026-06-01T06:30:00Z",
                "2026-06-02T06:30:00Z",
            ),
            (
                "Europe/Berlin",
                "02:30",
                "2026-03-29T00:59:00Z",
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:30:00Z",
            ),
            (
                "Europe/Berlin",
                "02:30",
                "2026-03-29T01:30:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-30T00:30:00Z",
            ),
        ] {
            let starts_at = TimeOfDay::parse(starts).unwrap();
            let day = Zone::of(Some(zone), starts_at).day_at(at(now));
            let expected = Day {
                start: at(start),
                end: at(end),
            };
            assert_eq!(day, expected, "{zone} {starts} {now}");
        }
        assert_eq!(TimeOfDay::parse("00:00"), Ok(None));
        let time = TimeOfDay::parse("23:59").unwrap().unwrap();
        assert_eq!(
            (time.to_string().as_str(), TimeOfDay::of_minutes(1439)),
            ("23:59", Some(time))
        );
        for wrong in [
            "", "8:00", "24:00", "08:60", "08", "08:00:00", "+8:00", "08:0a",
        ] {
            assert!(TimeOfDay::parse(wrong).is_err(), "{wrong}");
        }
        let end_of_time = Zone::parse("Europe/Berlin").unwrap().day_at(u64::MAX);
        assert!(end_of_time.start <= end_of_time.end);
    }
}
