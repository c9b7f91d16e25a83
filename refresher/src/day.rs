//! When a day begins and ends where the operator lives.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use latchkey::limit::DAY_MS;

use crate::store::LimitSettings;

/// A time zone by its IANA name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

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
        known.map(Zone).ok_or_else(|| {
            format!("expected the IANA name of a time zone, such as Europe/Berlin or UTC; found {name:?}")
        })
    }

    /// That of some limits. A name that was known when it was set and no more is taken for UTC.
    pub fn of(settings: &LimitSettings) -> Zone {
        let named = settings.time_zone.as_deref();
        named.map_or(Zone(TimeZone::UTC), |name| {
            Zone::parse(name).unwrap_or_else(|_| {
                tracing::warn!(
                    name,
                    "this machine does not know that time zone any more; its days are those of UTC"
                );
                Zone(TimeZone::UTC)
            })
        })
    }

    /// The name as the database spells it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The day that `now` is in. It begins at midnight, or at the first moment after it where the clocks skip that.
    pub fn day_at(&self, now: u64) -> Day {
        self.try_day_at(now).unwrap_or(Day {
            start: now - now % DAY_MS,
            end: (now - now % DAY_MS).saturating_add(DAY_MS),
        })
    }

    /// None at the ends of time.
    fn try_day_at(&self, now: u64) -> Option<Day> {
        let now = Timestamp::from_millisecond(i64::try_from(now).ok()?).ok()?;
        let start = now.to_zoned(self.0.clone()).start_of_day().ok()?;
        let end = start.tomorrow().ok()?.start_of_day().ok()?;
        let ms = |time: &jiff::Zoned| u64::try_from(time.timestamp().as_millisecond()).ok();
        let (start, end) = (ms(&start)?, ms(&end)?);
        (start < end).then_some(Day { start, end })
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
        let end_of_time = Zone::parse("Europe/Berlin").unwrap().day_at(u64::MAX);
        assert!(end_of_time.start <= end_of_time.end);
    }
}
