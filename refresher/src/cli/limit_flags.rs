//! The flags by which limits are set, and how limits and what is used of them are shown.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use latchkey::id::Id;
use latchkey::limit::settle::{Others, Said};
use latchkey::limit::{Subject, SubjectKind};
use serde_json::{Value, json};

use super::{Context, Error, daemon};
use crate::clock::UnixMillis;
use crate::day::Zone;
use crate::envoy::counts::Sums;
use crate::store::{LimitChanges, LimitSettings, Terms};

/// The largest limit: far above what a platform could deliver, and exact in every JSON reader.
const MAX_LIMIT: u64 = 1_000_000_000_000_000;

/// A number, or the word that takes a limit off.
type Setting<T> = Option<T>;

/// Limits to be set.
#[derive(Debug, Clone, Args)]
struct LimitFlags {
    /// Requests a minute of the clock, or none
    #[arg(long, value_name = "N|none", value_parser = small)]
    rpm: Option<Setting<NonZeroU32>>,
    /// Tokens a minute of the clock, or none
    #[arg(long, value_name = "N|none", value_parser = large)]
    tpm: Option<Setting<NonZeroU64>>,
    /// Tokens a day, or none
    #[arg(long, value_name = "N|none", value_parser = large)]
    tokens_per_day: Option<Setting<NonZeroU64>>,
    /// Where the day begins at midnight: an IANA name such as Europe/Berlin, or none for UTC
    #[arg(long, value_name = "ZONE|none", value_parser = zone)]
    time_zone: Option<Setting<String>>,
    /// Requests served at the same time, or none
    #[arg(long, value_name = "N|none", value_parser = small)]
    streams: Option<Setting<NonZeroU32>>,
}

/// The terms of an account or a client key to be set: its limits and its end.
#[derive(Debug, Clone, Args)]
pub struct TermFlags {
    #[command(flatten)]
    limits: LimitFlags,
    /// When it ends: in a time such as 30d or 12h, at the start of a day (2027-01-31, UTC), at a moment
    /// (2027-01-31T12:00:00Z), or none
    #[arg(long, value_name = "TIME|none")]
    expires: Option<String>,
}

fn number(text: &str, most: u64) -> Result<Setting<NonZeroU64>, String> {
    if text == "none" {
        return Ok(None);
    }
    let number = text
        .parse()
        .ok()
        .filter(|number: &NonZeroU64| number.get() <= most);
    let number = number.ok_or_else(|| format!("expected a number from 1 to {most}, or none"))?;
    Ok(Some(number))
}

fn small(text: &str) -> Result<Setting<NonZeroU32>, String> {
    let number = number(text, u32::MAX.into())?;
    Ok(number.and_then(|number| NonZeroU32::try_from(number).ok()))
}

fn large(text: &str) -> Result<Setting<NonZeroU64>, String> {
    number(text, MAX_LIMIT)
}

fn zone(text: &str) -> Result<Setting<String>, String> {
    if text == "none" {
        return Ok(None);
    }
    Ok(Some(Zone::parse(text)?.name().to_owned()))
}

/// When an account or a key ends, from what `--expires` says at `now`.
fn end(text: &str, now: UnixMillis) -> Result<Option<UnixMillis>, String> {
    let expected = "expected --expires as a time from now (30d, 12h), a day (2027-01-31), a moment (2027-01-31T12:00:00Z) or none";
    if text == "none" {
        return Ok(None);
    }
    let now = Timestamp::from_millisecond(now.0).map_err(|_| expected)?;
    let end = if let Ok(moment) = text.parse::<Timestamp>() {
        moment
    } else if let Ok(day) = text.parse::<Date>() {
        let start = day.to_zoned(TimeZone::UTC);
        start.map_err(|_| expected)?.timestamp()
    } else {
        let span: Span = text.parse().map_err(|_| expected)?;
        let end = now.to_zoned(TimeZone::UTC).checked_add(span);
        end.map_err(|_| expected)?.timestamp()
    };
    if end <= now {
        return Err(format!("{expected}; {text} is not after now"));
    }
    Ok(Some(UnixMillis(end.as_millisecond())))
}

impl LimitFlags {
    /// What they change.
    fn changes(&self) -> LimitChanges {
        LimitChanges {
            requests_per_minute: self.rpm,
            tokens_per_minute: self.tpm,
            tokens_per_day: self.tokens_per_day,
            concurrent_streams: self.streams,
            time_zone: self.time_zone.clone(),
        }
    }
}

impl TermFlags {
    /// What they change, at `now`.
    ///
    /// # Errors
    /// If the end is none that is known, or past.
    pub fn terms(&self, now: UnixMillis) -> Result<Terms, String> {
        let ends_at = self.expires.as_deref().map(|text| end(text, now));
        let ends_at = ends_at.transpose()?;
        Ok(Terms {
            limits: self.limits.changes(),
            ends_at,
        })
    }
}

/// What is used of each limit now.
#[derive(Debug, Default)]
pub struct Use {
    said: HashMap<Subject, Said>,
    /// Whether minutes and streams are known, which only a running `serve` knows.
    live: bool,
}

impl Use {
    /// Asks the running `serve`; where there is none, the store, which knows the days.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn of(context: &Context, now: UnixMillis) -> Result<Use, Error> {
        let asked: Option<Others> = daemon::ask(&context.state, "/counts").await;
        let live = asked.is_some();
        let all = match asked {
            Some(all) => all,
            None => {
                let now = u64::try_from(now.0).unwrap_or_default();
                Sums::new(context.store.clone()).all(now).await?
            }
        };
        let said = all
            .subjects
            .into_iter()
            .map(|line| (line.subject, line.said));
        Ok(Use {
            said: said.collect(),
            live,
        })
    }

    fn said(&self, kind: SubjectKind, id: &str) -> Option<&Said> {
        let id = Id::try_from(id).ok()?;
        self.said.get(&Subject { kind, id })
    }

    /// For people: `3/60 requests/min, 200/5000 tokens/day (UTC)`; empty where there is no limit.
    pub fn text(&self, kind: SubjectKind, id: &str, settings: &LimitSettings) -> String {
        let said = self.said(kind, id);
        let live = said.filter(|_| self.live);
        let limits = &settings.limits;
        let part = |used: Option<u64>, limit: Option<String>, unit: &str| {
            let used = used.map_or_else(String::new, |used| format!("{used}/"));
            limit.map(|limit| format!("{used}{limit} {unit}"))
        };
        let day = format!(
            "tokens/day ({})",
            settings.time_zone.as_deref().unwrap_or("UTC")
        );
        let parts = [
            part(
                live.map(|said| said.minute.requests),
                limits.requests_per_minute.map(|limit| limit.to_string()),
                "requests/min",
            ),
            part(
                live.map(|said| said.minute.tokens),
                limits.tokens_per_minute.map(|limit| limit.to_string()),
                "tokens/min",
            ),
            part(
                said.map(|said| said.day.tokens),
                limits.tokens_per_day.map(|limit| limit.to_string()),
                &day,
            ),
            part(
                live.map(|said| said.streams),
                limits.concurrent_streams.map(|limit| limit.to_string()),
                "streams",
            ),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// For machines: the limits, and what is used of them; null where that is not known.
    pub fn json(&self, kind: SubjectKind, id: &str, settings: &LimitSettings) -> Value {
        let said = self.said(kind, id);
        let live = said.filter(|_| self.live);
        let mut limits = json!(settings.limits);
        limits["time_zone"] = json!(settings.time_zone);
        limits["used"] = json!({
            "requests_this_minute": live.map(|said| said.minute.requests),
            "tokens_this_minute": live.map(|said| said.minute.tokens),
            "tokens_today": said.map(|said| said.day.tokens),
            "day_ends_at": said.map(|said| said.day.end),
            "streams": live.map(|said| said.streams),
        });
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-21T14:13:20Z
    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    #[test]
    fn ends_are_read() {
        for (text, seconds) in [
            ("30d", 30 * 86_400),
            ("12h", 43_200),
            ("90m", 5_400),
            ("2w", 14 * 86_400),
            ("2026-09-22", 35_200),
            ("2026-09-21T14:13:21Z", 1),
            ("2026-09-21T16:13:22+02:00", 2),
        ] {
            let expected = UnixMillis(NOW.0 + seconds * 1_000);
            assert_eq!(end(text, NOW), Ok(Some(expected)), "{text}");
        }
        assert_eq!(end("none", NOW), Ok(None));
        for wrong in [
            "",
            "30",
            "soon",
            "-1d",
            "2026-09-21",
            "2026-09-21T14:13:20Z",
        ] {
            assert!(end(wrong, NOW).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_read_and_taken_off() {
        assert_eq!(small("60"), Ok(NonZeroU32::new(60)));
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
