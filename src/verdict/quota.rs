//! The used part of an account's windows, from the headers of any answer, good ones too.
//!
//! Which headers those are is data of the platform's profile: [`Windows`].

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::time::{Unit, moment};
use crate::{
    header::{HeaderMap, HeaderName, HeaderText},
    label::WindowName,
    text::decimal::decimal,
};

/// The highest share that is kept, in percent. Overdrawn windows are real (Claude reports 1.04);
/// anything beyond this is nonsense.
pub const MAX_PERCENT: f64 = 1_000.0;

/// The headers in which a platform reports its windows: each window's name, and where it is read.
pub type Windows = BTreeMap<WindowName, WindowHeaders>;

/// The headers that report one window.
///
/// The used share is the first of these that the answer has: `used_percent`, `used_fraction`,
/// `limit` with `remaining`, a refusal. An answer without any of them does not report the window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowHeaders {
    /// The used share, from 0 to 100; more where an account may overdraw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_percent: Option<HeaderName>,
    /// The used share, from 0 to 1; more where an account may overdraw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_fraction: Option<HeaderName>,
    /// The size of the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<HeaderName>,
    /// The rest of `limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<HeaderName>,
    /// Says that the platform refuses requests because of the window. Without it, a window is
    /// exhausted where nothing of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedHeader>,
    /// The headers that say when the window starts anew; the first whose value is a moment to come decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resets: Vec<HeaderName>,
    /// The length of the window, in minutes. The window is then named by it (`5h`, `7d`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<HeaderName>,
}

/// The header value by which a platform says that it refuses requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedHeader {
    /// The header.
    pub header: HeaderName,
    /// Its value.
    pub value: HeaderText,
}

/// The windows of an account, as one answer reports them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// The windows, each name once.
    pub windows: Vec<Window>,
}

/// A limit, and the used part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its length (`5h`, `7d`) or what it counts (`requests`, `tokens`).
    pub name: WindowName,
    /// 0 to 1000; over 100 where the platform lets an account overdraw.
    #[serde(deserialize_with = "percent")]
    pub used_percent: f64,
    /// The time at which it starts anew, in Unix milliseconds, if that is known and to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<u64>,
    /// The platform refuses requests because of it.
    #[serde(default)]
    pub exhausted: bool,
}

// === impl WindowHeaders ===

impl WindowHeaders {
    /// Finds why these headers cannot report a window; none if they can.
    pub fn problem(&self) -> Option<&'static str> {
        if self.limit.is_some() != self.remaining.is_some() {
            return Some("expected limit and remaining together");
        }
        let reports = [&self.used_percent, &self.used_fraction, &self.limit];
        if reports.iter().all(|header| header.is_none()) && self.refused.is_none() {
            return Some("expected used_percent, used_fraction, limit with remaining, or refused");
        }
        None
    }

    /// The window called `name` that `headers` report, if they do.
    fn read(&self, name: &WindowName, headers: &Values<'_>) -> Option<Window> {
        let number = |header: &Option<HeaderName>| headers.number(header.as_ref()?);
        let refused = self.refused.as_ref().map(|refused| {
            let said = headers.text(&refused.header);
            said == Some(refused.value.as_str())
        });
        let counted = || {
            let (limit, remaining) = (number(&self.limit)?, number(&self.remaining)?);
            let share = ((limit - remaining) / limit * 100.0).clamp(0.0, 100.0);
            (limit > 0.0).then_some((share, remaining < 1.0))
        };
        let (used, is_spent) = number(&self.used_percent)
            .or_else(|| number(&self.used_fraction).map(|share| share * 100.0))
            .map(|percent| (percent, percent >= 100.0))
            .or_else(counted)
            .or_else(|| (refused == Some(true)).then_some((100.0, true)))?;
        Some(Window {
            name: match &self.minutes {
                Some(minutes) => by_length(headers.number(minutes)?)?,
                None => name.clone(),
            },
            used_percent: used.min(MAX_PERCENT),
            resets_at: self.resets.iter().find_map(|name| headers.moment(name)),
            exhausted: refused.unwrap_or(is_spent),
        })
    }
}

// === impl Quota ===

impl Quota {
    /// Reads what `headers` say of `windows` at `now`, in Unix milliseconds. Values that do not fit
    /// are as good as absent: platforms send empty ones, and `False`.
    pub fn read(windows: &Windows, headers: &HeaderMap, now: u64) -> Self {
        let headers = Values { headers, now };
        let mut read: Vec<Window> = Vec::new();
        for (name, window) in windows {
            let Some(window) = window.read(name, &headers) else {
                continue;
            };
            // Two windows that are named by their lengths may have the same one.
            if read.iter().all(|other| other.name != window.name) {
                read.push(window);
            }
        }
        Self { windows: read }
    }

    /// Finds the time at which the last of the exhausted windows among `names` starts anew; no names mean all.
    pub fn exhausted_until(&self, names: &[String]) -> Option<u64> {
        self.windows
            .iter()
            .filter(|window| {
                let is_named = |name: &String| name == window.name.as_str();
                names.is_empty() || names.iter().any(is_named)
            })
            .filter(|window| window.exhausted)
            .filter_map(|window| window.resets_at)
            .max()
    }
}

struct Values<'a> {
    headers: &'a HeaderMap,
    now: u64,
}

impl Values<'_> {
    fn text(&self, name: &HeaderName) -> Option<&str> {
        let value = std::str::from_utf8(self.headers.first(name.as_str())?).ok()?;
        let value = value.trim();
        (!value.is_empty()).then_some(value)
    }

    fn number(&self, name: &HeaderName) -> Option<f64> {
        let value = decimal(self.text(name)?)?;
        (value.is_finite() && value >= 0.0).then_some(value)
    }

    fn moment(&self, name: &HeaderName) -> Option<u64> {
        moment(self.text(name)?, Unit::of(name.as_str()), self.now)
    }
}

/// Bounds what others report of windows as what is read here is bounded.
fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let percent = f64::deserialize(deserializer)?;
    if (0.0..=MAX_PERCENT).contains(&percent) {
        Ok(percent)
    } else {
        Err(Error::custom("used_percent: expected 0 to 1000"))
    }
}

/// The name of a window of this many minutes (`5h`, `7d`, `90m`). A window of no length is none.
pub fn by_length(minutes: f64) -> Option<WindowName> {
    let minutes = minutes as u64;
    let name = match (minutes / 1_440, minutes / 60) {
        _ if minutes == 0 => return None,
        (days, _) if minutes.is_multiple_of(1_440) => format!("{days}d"),
        (_, hours) if minutes.is_multiple_of(60) => format!("{hours}h"),
        _ => format!("{minutes}m"),
    };
    WindowName::try_from(name).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    const CODEX: &str = r#"{
        "primary": {"minutes": "x-codex-primary-window-minutes", "used_percent": "x-codex-primary-used-percent",
            "resets": ["x-codex-primary-reset-at", "x-codex-primary-reset-after-seconds"]},
        "secondary": {"minutes": "x-codex-secondary-window-minutes", "used_percent": "x-codex-secondary-used-percent",
            "resets": ["x-codex-secondary-reset-at"]}}"#;
    const ANTHROPIC: &str = r#"{
        "5h": {"used_fraction": "anthropic-ratelimit-unified-5h-utilization", "resets": ["anthropic-ratelimit-unified-5h-reset"],
            "refused": {"header": "anthropic-ratelimit-unified-5h-status", "value": "rejected"}},
        "7d": {"used_fraction": "anthropic-ratelimit-unified-7d-utilization", "resets": ["anthropic-ratelimit-unified-7d-reset"],
            "refused": {"header": "anthropic-ratelimit-unified-7d-status", "value": "rejected"}},
        "7d_oi": {"used_fraction": "anthropic-ratelimit-unified-7d_oi-utilization",
            "refused": {"header": "anthropic-ratelimit-unified-7d_oi-status", "value": "rejected"}},
        "requests": {"limit": "anthropic-ratelimit-requests-limit", "remaining": "anthropic-ratelimit-requests-remaining",
            "resets": ["anthropic-ratelimit-requests-reset"]},
        "tokens": {"limit": "anthropic-ratelimit-tokens-limit", "remaining": "anthropic-ratelimit-tokens-remaining"}}"#;
    const OPENAI: &str = r#"{
        "tokens": {"limit": "x-ratelimit-limit-tokens", "remaining": "x-ratelimit-remaining-tokens",
            "resets": ["x-ratelimit-reset-tokens"]}}"#;

    fn windows(json: &str) -> Windows {
        serde_json::from_str(json).unwrap()
    }

    fn read(json: &str, headers: &[(&str, &str)]) -> Vec<(String, f64, Option<u64>, bool)> {
        Quota::read(&windows(json), &headers.iter().copied().collect(), NOW)
            .windows
            .into_iter()
            .map(|w| {
                let seconds = w.resets_at.map(|at| (at - NOW) / 1000);
                (w.name.to_string(), w.used_percent, seconds, w.exhausted)
            })
            .collect()
    }

    #[test]
    fn codex_windows_are_what_their_minutes_say() {
        let windows = read(
            CODEX,
            &[
                ("x-codex-primary-used-percent", "12.5"),
                ("x-codex-primary-window-minutes", "300"),
                ("x-codex-primary-reset-after-seconds", "13873"),
                ("x-codex-primary-reset-at", ""),
                ("x-codex-secondary-used-percent", "100"),
                ("x-codex-secondary-window-minutes", "10080"),
                ("x-codex-secondary-reset-at", "1790086400"),
                ("x-codex-credits-has-credits", "False"),
            ],
        );
        assert_eq!(
            windows,
            [
                ("5h".to_owned(), 12.5, Some(13_873), false),
                ("7d".to_owned(), 100.0, Some(86_400), true),
            ]
        );
        let free = read(
            CODEX,
            &[
                ("x-codex-primary-used-percent", "3"),
                ("x-codex-primary-window-minutes", "10080"),
                ("x-codex-primary-reset-at", "1790086400"),
                ("x-codex-secondary-used-percent", "0"),
                ("x-codex-secondary-window-minutes", "0"),
                ("x-codex-secondary-reset-at", ""),
            ],
        );
        assert_eq!(free, [("7d".to_owned(), 3.0, Some(86_400), false)]);
        let broken = [
            ("x-codex-primary-used-percent", "True"),
            ("x-codex-primary-window-minutes", "300"),
            ("x-codex-secondary-used-percent", "NaN"),
            ("x-codex-secondary-window-minutes", "10080"),
        ];
        assert_eq!(read(CODEX, &broken), []);
    }

    #[test]
    fn a_subscription_reports_fractions() {
        let quota = read(
            ANTHROPIC,
            &[
                ("anthropic-ratelimit-unified-status", "rejected"),
                ("anthropic-ratelimit-unified-5h-status", "rejected"),
                ("anthropic-ratelimit-unified-5h-reset", "1790003600"),
                ("anthropic-ratelimit-unified-5h-utilization", "1.04"),
                ("anthropic-ratelimit-unified-7d-status", "allowed"),
                ("anthropic-ratelimit-unified-7d-reset", "1790086400"),
                ("anthropic-ratelimit-unified-7d-utilization", "0.59"),
                ("anthropic-ratelimit-unified-7d_oi-status", "rejected"),
            ],
        );
        assert_eq!(
            quota,
            [
                ("5h".to_owned(), 104.0, Some(3600), true),
                ("7d".to_owned(), 59.0, Some(86_400), false),
                ("7d_oi".to_owned(), 100.0, None, true),
            ]
        );
    }

    #[test]
    fn keys_report_what_remains() {
        let anthropic = read(
            ANTHROPIC,
            &[
                ("anthropic-ratelimit-requests-limit", "4000"),
                ("anthropic-ratelimit-requests-remaining", "3000"),
                ("anthropic-ratelimit-requests-reset", "2026-09-21T14:14:20Z"),
                ("anthropic-ratelimit-tokens-limit", "0"),
                ("anthropic-ratelimit-tokens-remaining", "0"),
            ],
        );
        assert_eq!(anthropic, [("requests".to_owned(), 25.0, Some(60), false)]);
        let openai = read(
            OPENAI,
            &[
                ("x-ratelimit-limit-tokens", "2000000"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "1m26s"),
            ],
        );
        assert_eq!(openai, [("tokens".to_owned(), 100.0, Some(86), true)]);
    }

    #[test]
    fn headers_that_report_nothing_are_named() {
        let problem = |json| {
            serde_json::from_str::<WindowHeaders>(json)
                .unwrap()
                .problem()
        };
        assert_eq!(problem(r#"{"used_percent": "x-used"}"#), None);
        assert_eq!(
            problem(r#"{"limit": "x-limit", "remaining": "x-left"}"#),
            None
        );
        assert_eq!(
            problem(r#"{"limit": "x-limit"}"#),
            Some("expected limit and remaining together")
        );
        assert!(problem(r#"{"resets": ["x-reset"]}"#).is_some());
        assert_eq!(
            problem(r#"{"refused": {"header": "x-status", "value": "no"}}"#),
            None
        );
    }

    #[test]
    fn the_last_exhausted_window_counts() {
        let window = |name: &str, resets_at, exhausted| Window {
            name: name.try_into().unwrap(),
            used_percent: 1.0,
            resets_at,
            exhausted,
        };
        let quota = Quota {
            windows: vec![
                window("5h", Some(5), true),
                window("7d", Some(7), true),
                window("30d", Some(30), false),
                window("7d_oi", Some(9), true),
            ],
        };
        assert_eq!(quota.exhausted_until(&[]), Some(9));
        let names = ["5h".to_owned(), "7d".to_owned(), "30d".to_owned()];
        assert_eq!(quota.exhausted_until(&names), Some(7));
        assert_eq!(quota.exhausted_until(&names[2..]), None);
    }

    proptest! {
        #[test]
        fn no_header_gives_nonsense(
            json in prop::sample::select(vec![CODEX, ANTHROPIC, OPENAI]),
            values in prop::collection::vec("[0-9.e-]{0,9}|rejected|False|\\PC{0,8}", 12),
        ) {
            let names = [
                "x-codex-primary-used-percent", "x-codex-primary-window-minutes",
                "x-codex-primary-reset-at", "x-codex-primary-reset-after-seconds",
                "anthropic-ratelimit-unified-5h-utilization", "anthropic-ratelimit-unified-5h-status",
                "anthropic-ratelimit-unified-5h-reset", "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining", "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
            ];
            let headers = names.into_iter().zip(values.iter().map(String::as_str)).collect();
            for window in Quota::read(&windows(json), &headers, NOW).windows {
                prop_assert!((0.0..=MAX_PERCENT).contains(&window.used_percent), "{:?}", window);
                prop_assert!(window.resets_at.is_none_or(|at| at > NOW), "{:?}", window);
            }
        }
    }
}
