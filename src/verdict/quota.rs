//! How much of its windows an account has used, from the headers of any answer, good ones too.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::time::{Unit, moment};
use crate::{header::HeaderMap, label::WindowName};

/// The highest share that is kept, in percent. Overdrawn windows are real (Claude reports 1.04);
/// anything beyond this is nonsense.
const MAX_PERCENT: f64 = 1_000.0;

/// Which headers a platform reports its windows in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// `x-codex-{primary,secondary}-*`: ChatGPT's plans, on every answer.
    Codex,
    /// `anthropic-ratelimit-unified-*` (Claude's plans) and `anthropic-ratelimit-*` (API keys).
    Anthropic,
    /// `x-ratelimit-*`: OpenAI's API, and most that speak like it.
    Openai,
}

/// The windows of an account, as one answer reports them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// Each name once.
    pub windows: Vec<Window>,
}

/// One limit and how much of it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its length (`5h`, `7d`) or what it counts (`requests`, `tokens`).
    pub name: WindowName,
    /// 0 to 1000; over 100 where the platform lets an account overdraw.
    #[serde(deserialize_with = "percent")]
    pub used_percent: f64,
    /// When it starts anew, in Unix milliseconds, if that is known and to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<u64>,
    /// Whether the platform refuses requests because of it.
    #[serde(default)]
    pub exhausted: bool,
}

// === impl Quota ===

impl Quota {
    /// Reads what `headers` say at `now`, in Unix milliseconds. Values that do not fit are as
    /// good as absent: platforms send empty ones, and `False`.
    pub fn read(family: Family, headers: &HeaderMap, now: u64) -> Self {
        let headers = Values { headers, now };
        let windows = match family {
            Family::Codex => codex(&headers),
            Family::Anthropic => anthropic(&headers),
            Family::Openai => counted(&headers, &["requests", "tokens"], |window, what| {
                format!("x-ratelimit-{what}-{window}")
            }),
        };
        Self { windows }
    }

    /// When the last of the exhausted windows among `names` starts anew; no names mean all.
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
    fn text(&self, name: &str) -> Option<&str> {
        let value = std::str::from_utf8(self.headers.first(name)?).ok()?.trim();
        (!value.is_empty()).then_some(value)
    }

    fn number(&self, name: &str) -> Option<f64> {
        let value: f64 = self.text(name)?.parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    }

    fn moment(&self, name: &str) -> Option<u64> {
        moment(self.text(name)?, Unit::of(name), self.now)
    }
}

/// The slots say nothing: a free plan has its week in the first one, and a second one of no
/// length. A window is what its minutes say.
fn codex(headers: &Values<'_>) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for slot in ["primary", "secondary"] {
        let header = |what: &str| format!("x-codex-{slot}-{what}");
        let used = headers.number(&header("used-percent"));
        let minutes = headers.number(&header("window-minutes"));
        let (Some(used), Some(minutes)) = (used, minutes) else {
            continue;
        };
        let Ok(name) = WindowName::try_from(length(minutes as u64)) else {
            continue;
        };
        let window = Window {
            name,
            used_percent: used.min(MAX_PERCENT),
            resets_at: headers
                .moment(&header("reset-at"))
                .or_else(|| headers.moment(&header("reset-after-seconds"))),
            exhausted: used >= 100.0,
        };
        if minutes >= 1.0 && windows.iter().all(|other| other.name != window.name) {
            windows.push(window);
        }
    }
    windows
}

/// Others may report windows too: what they say is as bounded as what is read here.
fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let percent = f64::deserialize(deserializer)?;
    if (0.0..=MAX_PERCENT).contains(&percent) {
        Ok(percent)
    } else {
        Err(Error::custom("used_percent: expected 0 to 1000"))
    }
}

/// `5h`, `7d`, `90m`.
fn length(minutes: u64) -> String {
    match (minutes / 1_440, minutes / 60) {
        (days, _) if minutes.is_multiple_of(1_440) => format!("{days}d"),
        (_, hours) if minutes.is_multiple_of(60) => format!("{hours}h"),
        _ => format!("{minutes}m"),
    }
}

/// A subscription has the unified windows, a key the counted ones.
fn anthropic(headers: &Values<'_>) -> Vec<Window> {
    let mut windows = Vec::new();
    for window in ["5h", "7d", "7d_oi"] {
        let header = |what: &str| format!("anthropic-ratelimit-unified-{window}-{what}");
        let exhausted = headers.text(&header("status")) == Some("rejected");
        let fraction = headers.number(&header("utilization"));
        let fraction = fraction.or(exhausted.then_some(1.0));
        let (Some(fraction), Ok(name)) = (fraction, WindowName::try_from(window)) else {
            continue;
        };
        windows.push(Window {
            name,
            used_percent: (fraction * 100.0).min(MAX_PERCENT),
            resets_at: headers.moment(&header("reset")),
            exhausted,
        });
    }
    windows.extend(counted(
        headers,
        &["requests", "tokens", "input-tokens", "output-tokens"],
        |window, what| format!("anthropic-ratelimit-{window}-{what}"),
    ));
    windows
}

/// Windows of which the platform says the limit and what remains.
fn counted(
    headers: &Values<'_>,
    windows: &[&str],
    name: impl Fn(&str, &str) -> String,
) -> Vec<Window> {
    let window = |window: &&str| {
        let limit = headers.number(&name(window, "limit"))?;
        let remaining = headers.number(&name(window, "remaining"))?;
        let label = WindowName::try_from(*window).ok()?;
        (limit > 0.0).then(|| Window {
            name: label,
            used_percent: ((limit - remaining) / limit * 100.0).clamp(0.0, 100.0),
            resets_at: headers.moment(&name(window, "reset")),
            exhausted: remaining < 1.0,
        })
    };
    windows.iter().filter_map(window).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn read(family: Family, headers: &[(&str, &str)]) -> Vec<(String, f64, Option<u64>, bool)> {
        Quota::read(family, &headers.iter().copied().collect(), NOW)
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
            Family::Codex,
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
            Family::Codex,
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
        assert_eq!(read(Family::Codex, &broken), []);
    }

    #[test]
    fn a_subscription_reports_fractions() {
        let quota = read(
            Family::Anthropic,
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
            Family::Anthropic,
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
            Family::Openai,
            &[
                ("x-ratelimit-limit-tokens", "2000000"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "1m26s"),
            ],
        );
        assert_eq!(openai, [("tokens".to_owned(), 100.0, Some(86), true)]);
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
            family in prop::sample::select(vec![Family::Codex, Family::Anthropic, Family::Openai]),
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
            for window in Quota::read(family, &headers, NOW).windows {
                prop_assert!((0.0..=MAX_PERCENT).contains(&window.used_percent), "{:?}", window);
                prop_assert!(window.resets_at.is_none_or(|at| at > NOW), "{:?}", window);
            }
        }
    }
}
