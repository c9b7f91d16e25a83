//! `[quota_endpoint]` of a profile: the call by which the platform itself is asked how much of an account's quota is used,
//! and the places of its answer where that stands.

use std::collections::BTreeMap;
use std::time::Duration;

use latchkey::dialect::Dialect;
use latchkey::health::quota::MAX_WINDOWS;
use latchkey::label::WindowName;
use latchkey::snapshot::HeaderPlan;
use serde::Deserialize;

use super::probe::{self, Probe};
use super::{Invalid, fit, invalid};

/// The seconds from one call about an account to the next, unless the profile says others.
const EVERY_SECONDS: u32 = 900;
/// The fewest: more often is not polite. And the most.
const EVERY_BOUNDS: std::ops::RangeInclusive<u32> = 60..=86_400;
/// The longest JSON pointer, in bytes.
const MAX_POINTER_BYTES: usize = 256;

/// The call, and what its answer says.
#[derive(Debug, Clone)]
pub struct QuotaEndpoint {
    /// The call.
    pub call: Probe,
    /// The time from one call about an account to the next.
    pub every: Duration,
    /// An answer to a request that reported windows is as good as a call.
    pub unless_heard: bool,
    /// The sign that the platform refuses requests. Without it, a window is exhausted where nothing of it is left.
    pub refused: Option<Sign>,
    /// The windows, by name.
    pub windows: BTreeMap<WindowName, Places>,
}

/// A value at a place of the answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// The place.
    pub at: Pointer,
    /// The value.
    pub is: serde_json::Value,
}

/// The places where the figures of one window stand. Its used share is the first of these that is there: `used_percent`,
/// `used_fraction`, `left_fraction`, `limit` with `remaining` or `used`. `remaining` alone is the rest of a sum that nobody
/// knows, as of money.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Places {
    /// A list of the answer; the other places are in the first of its items that has `item`.
    pub list: Option<Pointer>,
    /// The sign of the item.
    pub item: Option<Sign>,
    /// The used share, from 0 to 100.
    pub used_percent: Option<Pointer>,
    /// The used share, from 0 to 1.
    pub used_fraction: Option<Pointer>,
    /// The rest, from 0 to 1.
    pub left_fraction: Option<Pointer>,
    /// The size of the window.
    pub limit: Option<Pointer>,
    /// The rest of it.
    pub remaining: Option<Pointer>,
    /// The used part of `limit`.
    pub used: Option<Pointer>,
    /// The length of the window, which is named by it then (`5h`, `7d`).
    pub seconds: Option<Pointer>,
    /// The time when the window starts anew; the first that is a moment to come decides.
    #[serde(default)]
    pub resets: Vec<Pointer>,
}

/// A JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer(String);

/// `[quota_endpoint]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default)]
    method: probe::Asks,
    path: String,
    #[serde(default)]
    root: bool,
    #[serde(default)]
    omit: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    every_seconds: Option<u32>,
    #[serde(default)]
    unless_heard: bool,
    refused: Option<Sign>,
    #[serde(default)]
    windows: BTreeMap<String, Places>,
}

// === impl Pointer ===

impl Pointer {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Pointer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Pointer, &'static str> {
        match text.starts_with('/') && text.len() <= MAX_POINTER_BYTES {
            true => Ok(Pointer(text)),
            false => Err("expected a JSON pointer, which starts with / and has at most 256 bytes"),
        }
    }
}

// === impl Places ===

impl Places {
    /// Finds why no window can be read there; none if one can.
    fn problem(&self) -> Option<&'static str> {
        if self.list.is_some() != self.item.is_some() {
            return Some("expected list and item together");
        }
        let shares = [&self.used_percent, &self.used_fraction, &self.left_fraction];
        let says = shares.iter().any(|place| place.is_some())
            || self.remaining.is_some()
            || self.limit.is_some() && self.used.is_some();
        (!says).then_some(
            "expected used_percent, used_fraction, left_fraction, remaining, or limit with remaining or used",
        )
    }
}

// === impl Raw ===

impl Raw {
    pub(super) fn check(
        self,
        dialect: Dialect,
        plan: &HeaderPlan,
    ) -> Result<QuotaEndpoint, Invalid> {
        const AT: &str = "quota_endpoint";
        let seconds = self.every_seconds.unwrap_or(EVERY_SECONDS);
        if !EVERY_BOUNDS.contains(&seconds) {
            let problem = "expected 60 to 86400 seconds";
            return Err(invalid(format!("{AT}.every_seconds"), problem));
        }
        if !(1..=MAX_WINDOWS).contains(&self.windows.len()) {
            let problem = format!("expected 1 to {MAX_WINDOWS} windows");
            return Err(invalid(format!("{AT}.windows"), problem));
        }
        let window = |(name, places): (String, Places)| {
            let at = format!("{AT}.windows.{name}");
            match places.problem() {
                Some(problem) => Err(invalid(at, problem)),
                None => Ok((fit(at, WindowName::try_from(name))?, places)),
            }
        };
        let call = probe::Raw {
            method: self.method,
            path: self.path,
            root: self.root,
            omit: self.omit,
            headers: self.headers,
            body: self.body,
            disproves: Vec::new(),
        };
        Ok(QuotaEndpoint {
            call: call.check(AT, dialect, plan)?,
            every: Duration::from_secs(seconds.into()),
            unless_heard: self.unless_heard,
            refused: self.refused,
            windows: self
                .windows
                .into_iter()
                .map(window)
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Profile;

    fn read(endpoint: &str) -> Result<Profile, Invalid> {
        let text = format!(
            "id = 'own'\nname = 'Own'\nowner = 'own'\ncredentials = ['api_key']\n\
             upstream.base_url = 'https://own.test/v1'\nendpoints.chat.generate = {{ path = '/c' }}\n\
             headers = {{ set = {{ authorization = 'Bearer {{credential}}' }}, allow = [] }}\n[quota_endpoint]\n{endpoint}\n"
        );
        Profile::from_table(text.parse().unwrap())
    }

    #[test]
    fn an_endpoint_says_where_each_figure_is() {
        let fits = read("path = '/quota'\nwindows.day.remaining = '/left'").unwrap();
        let fits = fits.quota_endpoint.unwrap();
        assert_eq!(fits.every, Duration::from_secs(900));
        assert!(!fits.unless_heard && fits.windows.len() == 1);
        for (bad, key) in [
            ("windows.day.remaining = '/left'", "quota_endpoint"),
            ("path = '/quota'", "quota_endpoint.windows"),
            (
                "path = 'quota'\nwindows.day.remaining = '/left'",
                "quota_endpoint.path",
            ),
            (
                "path = '/quota'\nwindows.day.remaining = 'left'",
                "quota_endpoint.windows.day.remaining",
            ),
            (
                "path = '/quota'\nwindows.day.limit = '/all'",
                "quota_endpoint.windows.day",
            ),
            (
                "path = '/quota'\nwindows.day.every = '/all'",
                "quota_endpoint.windows.day.every",
            ),
            (
                "path = '/quota'\nwindows.'é'.remaining = '/left'",
                "quota_endpoint.windows.é",
            ),
            (
                "path = '/quota'\nwindows.day = { list = '/all', remaining = '/left' }",
                "quota_endpoint.windows.day",
            ),
            (
                "path = '/quota'\nevery_seconds = 59\nwindows.day.remaining = '/left'",
                "quota_endpoint.every_seconds",
            ),
            (
                "path = '/quota'\nheaders.host = 'x'\nwindows.day.remaining = '/left'",
                "quota_endpoint.headers.host",
            ),
        ] {
            let refused = read(bad).unwrap_err();
            assert_eq!(refused.key, key, "{bad}: {refused}");
        }
    }
}
