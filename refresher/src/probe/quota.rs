//! The used part of an account's quota, as its platform says when it is asked: what the answer of a profile's quota
//! endpoint means, and when the next call is due.

use std::time::Duration;

use latchkey::label::WindowName;
use latchkey::snapshot::Account;
use latchkey::verdict::Reason;
use latchkey::verdict::quota::{MAX_PERCENT, Window, by_length};
use latchkey::verdict::time::{Unit, moment};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::send;
use crate::clock::{Clock, UnixMillis};
use crate::platform::Profile;
use crate::platform::quota::{Places, Pointer, QuotaEndpoint, Sign};

/// The doublings of the time between calls after calls in a row that told nothing: 32 times as long.
const MAX_DOUBLINGS: u32 = 5;
/// The time for which a window that says no end keeps its account out after the next call was due.
const GRACE: Duration = Duration::from_secs(60);

/// One window as a platform told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its used share, and when it starts anew.
    #[serde(flatten)]
    pub window: Window,
    /// The rest, of a sum that nobody knows: money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<f64>,
}

/// The record of the calls about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// The time when the last one left.
    pub asked_at: Option<UnixMillis>,
    /// The calls in a row that told nothing.
    pub failures: u32,
    /// The time when an answer to a request last reported windows, or a call did.
    pub heard_at: UnixMillis,
}

/// An account that is out, as its quota is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Out {
    /// Its end, in Unix milliseconds.
    pub until: u64,
    /// The platform did not say when.
    pub guessed: bool,
}

/// Returns the reason of an account whose quota is used up: the profiles' own word.
pub fn used_up() -> Option<Reason> {
    Reason::try_from("usage_limit".to_owned()).ok()
}

/// Returns when the next call about an account is due, at `now`.
pub fn due(endpoint: &QuotaEndpoint, calls: &Calls, now: UnixMillis) -> UnixMillis {
    let Some(asked_at) = calls.asked_at else {
        return now;
    };
    let doubled = 1_u32 << calls.failures.min(MAX_DOUBLINGS);
    let next = asked_at.plus(endpoint.every.saturating_mul(doubled));
    let heard = calls.heard_at.plus(endpoint.every);
    let spares = endpoint.unless_heard && calls.heard_at <= now;
    // A clock that was set back must not keep anybody from asking for years.
    match asked_at > now {
        true => now,
        false if spares => next.max(heard),
        false => next,
    }
}

/// Asks the platform of `profile` about the quota of `account`; `tls`: the account's own base URL speaks TLS, if it has one.
///
/// # Errors
/// In a sentence, if it tells none.
pub async fn ask(
    profile: &Profile,
    endpoint: &QuotaEndpoint,
    account: &Account,
    tls: Option<bool>,
    clock: &impl Clock,
) -> Result<Vec<Figure>, String> {
    let answer = send(profile, &endpoint.call, account, tls).await?;
    if !(200..300).contains(&answer.status) {
        return Err(format!("it answered {}", answer.status));
    }
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let body = body.ok_or("it answered no JSON")?;
    let figures = read(endpoint, &body, clock.now());
    match figures.is_empty() {
        true => Err("its answer says nothing of a window".to_owned()),
        false => Ok(figures),
    }
}

/// Reads the windows of an answer. A figure that is not there, or is none, is as good as absent.
pub fn read(endpoint: &QuotaEndpoint, answer: &Value, now: UnixMillis) -> Vec<Figure> {
    let windows = endpoint.windows.iter();
    let mut figures: Vec<Figure> = Vec::new();
    for figure in windows.filter_map(|(name, places)| read_one(name, places, answer, now)) {
        // Two windows that are named by their lengths may have the same one.
        let is_new = |other: &Figure| other.window.name != figure.window.name;
        if figures.iter().all(is_new) {
            figures.push(figure);
        }
    }
    let refuses = |sign: &Sign| answer.pointer(sign.at.as_str()) == Some(&sign.is);
    match endpoint.refused.as_ref().map(refuses) {
        None => {}
        Some(false) => figures
            .iter_mut()
            .for_each(|one| one.window.exhausted = false),
        Some(true) if figures.iter().any(|one| one.window.exhausted) => {}
        Some(true) => figures
            .iter_mut()
            .for_each(|one| one.window.exhausted = true),
    }
    figures
}

fn read_one(name: &WindowName, places: &Places, answer: &Value, now: UnixMillis) -> Option<Figure> {
    let answer = match (&places.list, &places.item) {
        (Some(list), Some(sign)) => {
            let mut items = answer.pointer(list.as_str())?.as_array()?.iter();
            items.find(|item| item.pointer(sign.at.as_str()) == Some(&sign.is))?
        }
        _ => answer,
    };
    let at = |place: &Option<Pointer>| answer.pointer(place.as_ref()?.as_str());
    let number = |place: &Option<Pointer>| number(at(place)?);
    let limit = number(&places.limit).filter(|limit| *limit > 0.0);
    let rest = number(&places.remaining).or_else(|| Some(limit? - number(&places.used)?));
    let share = number(&places.used_percent)
        .or_else(|| Some(number(&places.used_fraction)? * 100.0))
        .or_else(|| Some((1.0 - number(&places.left_fraction)?) * 100.0))
        .or_else(|| Some((limit? - rest?) / limit? * 100.0));
    // A limit that is not there is none: only a sum has a rest without one.
    let left = rest.filter(|_| places.limit.is_none() && share.is_none());
    let used = share.or_else(|| left.map(|left| if left > 0.0 { 0.0 } else { 100.0 }))?;
    let name = match &places.seconds {
        Some(_) => by_length(number(&places.seconds)? / 60.0)?,
        None => name.clone(),
    };
    let now = u64::try_from(now.0).unwrap_or_default();
    let resets = places.resets.iter().find_map(|place| {
        let text = match answer.pointer(place.as_str())? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        moment(&text, Unit::of(place.as_str()), now)
    });
    Some(Figure {
        window: Window {
            name,
            used_percent: used.clamp(0.0, MAX_PERCENT),
            resets_at: resets,
            exhausted: used >= 100.0,
        },
        left,
    })
}

/// A finite number, also one that is written as text: money often is.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Until when an account with these windows is out, if one of them is exhausted.
pub fn out(figures: &[Figure], every: Duration, now: UnixMillis) -> Option<Out> {
    let exhausted = figures.iter().map(|figure| &figure.window);
    let exhausted: Vec<&Window> = exhausted.filter(|window| window.exhausted).collect();
    let told = exhausted.iter().filter_map(|window| window.resets_at).max();
    let next_call = u64::try_from(now.plus(every).plus(GRACE).0).unwrap_or_default();
    exhausted.first().map(|_| Out {
        until: told.unwrap_or(next_call),
        guessed: told.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::Catalog;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const EVERY: Duration = Duration::from_secs(900);

    fn endpoint(platform: &str) -> QuotaEndpoint {
        let catalog = Catalog::load(None, ["codex".to_owned()].into()).unwrap();
        let profile = catalog.usable(platform).unwrap();
        profile.quota_endpoint.clone().expect(platform)
    }

    /// A window's name, its share used, the seconds until it resets, and what else is told.
    type Said = (String, f64, Option<u64>, bool, Option<f64>);

    fn said(platform: &str, answer: &Value) -> Vec<Said> {
        let figures = read(&endpoint(platform), answer, NOW);
        let seconds = |at: u64| (at - 1_790_000_000_000) / 1_000;
        let shown = figures.into_iter().map(|Figure { window, left }| {
            let resets = window.resets_at.map(seconds);
            (
                window.name.to_string(),
                window.used_percent,
                resets,
                window.exhausted,
                left,
            )
        });
        shown.collect()
    }

    /// The answers that the platforms document, or that their own clients read.
    #[test]
    fn the_documented_answer_of_each_platform_is_read() {
        let codex = |allowed: bool, used: u32| {
            json!({"plan_type": "plus", "rate_limit": {"allowed": allowed, "limit_reached": !allowed,
                "primary_window": {"used_percent": used, "limit_window_seconds": 18_000,
                    "reset_after_seconds": 3_600, "reset_at": 1_790_003_600},
                "secondary_window": {"used_percent": 12, "limit_window_seconds": 604_800,
                    "reset_after_seconds": 86_400, "reset_at": 1_790_086_400}}, "credits": null})
        };
        let week = ("7d".to_owned(), 12.0, Some(86_400), false, None);
        for (allowed, used, exhausted) in
            [(true, 42, false), (false, 100, true), (true, 100, false)]
        {
            let five = (
                "5h".to_owned(),
                f64::from(used),
                Some(3_600),
                exhausted,
                None,
            );
            assert_eq!(said("codex", &codex(allowed, used)), [five, week.clone()]);
        }
        let free = json!({"rate_limit": {"allowed": true, "primary_window": {"used_percent": 3,
            "limit_window_seconds": 604_800, "reset_at": 1_790_086_400}, "secondary_window": null}});
        assert_eq!(
            said("codex", &free),
            [("7d".to_owned(), 3.0, Some(86_400), false, None)]
        );

        let deepseek = |available: bool, total: &str| {
            json!({"is_available": available, "balance_infos": [{"currency": "CNY",
                "total_balance": total, "granted_balance": "10.00", "topped_up_balance": "100.00"}]})
        };
        let money = |used: f64, exhausted, left| {
            [("balance".to_owned(), used, None, exhausted, Some(left))]
        };
        assert_eq!(
            said("deepseek", &deepseek(true, "110.00")),
            money(0.0, false, 110.0)
        );
        assert_eq!(
            said("deepseek", &deepseek(false, "0.00")),
            money(100.0, true, 0.0)
        );
        assert_eq!(
            said("deepseek", &deepseek(false, "0.01")),
            money(0.0, true, 0.01)
        );

        let moonshot = |available: f64| {
            json!({"code": 0, "data": {"available_balance": available, "voucher_balance": 46.5,
                "cash_balance": 3.0}, "scode": "0x0", "status": true})
        };
        assert_eq!(said("moonshot", &moonshot(49.5)), money(0.0, false, 49.5));
        assert_eq!(said("moonshot", &moonshot(-0.5)), money(100.0, true, -0.5));

        let openrouter = |limit: Value, remaining: Value| {
            json!({"data": {"label": "sk-or-v1-au7...890", "limit": limit, "limit_remaining": remaining,
                "limit_reset": "monthly", "usage": 25.5, "is_free_tier": false}})
        };
        let key = |used, exhausted| [("key".to_owned(), used, None, exhausted, None)];
        assert_eq!(
            said("openrouter", &openrouter(json!(100), json!(74.5))),
            key(25.5, false)
        );
        assert_eq!(
            said("openrouter", &openrouter(json!(100), json!(-1))),
            key(101.0, true)
        );
        assert_eq!(
            said("openrouter", &openrouter(Value::Null, Value::Null)),
            []
        );
    }

    #[test]
    fn what_is_no_figure_is_none() {
        for odd in [
            json!(null),
            json!([]),
            json!({"is_available": true, "balance_infos": []}),
            json!({"balance_infos": [{"total_balance": "NaN"}]}),
            json!({"balance_infos": [{"total_balance": {"a": 1}}]}),
        ] {
            assert_eq!(said("deepseek", &odd), [], "{odd}");
        }
    }

    /// Windows that are items of a list stand in any order.
    #[test]
    fn an_item_of_a_list_is_found_by_its_sign() {
        let endpoint = QuotaEndpoint {
            windows: toml::from_str(
                "hours = { list = '/data/limits', item = { at = '/type', is = 'TOKENS' }, used_percent = '/percentage', \
                 resets = ['/nextResetTime'] }",
            )
            .unwrap(),
            ..endpoint("deepseek")
        };
        let endpoint = QuotaEndpoint {
            refused: None,
            ..endpoint
        };
        let answer = json!({"data": {"limits": [
            {"type": "TIME", "percentage": 1}, {"type": "TOKENS", "percentage": 42, "nextResetTime": 1_790_003_600_000_i64},
        ]}});
        let figures = read(&endpoint, &answer, NOW);
        let [Figure { window, left: None }] = &figures[..] else {
            panic!("{figures:?}");
        };
        assert_eq!(
            (window.used_percent, window.resets_at),
            (42.0, Some(1_790_003_600_000))
        );
        assert_eq!(read(&endpoint, &json!({"data": {"limits": []}}), NOW), []);
    }

    #[test]
    fn an_account_is_out_until_the_last_of_its_windows_starts_anew() {
        let figure = |exhausted, resets_at| Figure {
            window: Window {
                name: WindowName::try_from("w".to_owned()).unwrap(),
                used_percent: 100.0,
                resets_at,
                exhausted,
            },
            left: None,
        };
        assert_eq!(out(&[figure(false, Some(9))], EVERY, NOW), None);
        let told = out(
            &[
                figure(true, Some(7)),
                figure(true, None),
                figure(false, Some(9)),
            ],
            EVERY,
            NOW,
        );
        assert_eq!(
            told,
            Some(Out {
                until: 7,
                guessed: false
            })
        );
        let guessed = out(&[figure(true, None)], EVERY, NOW).unwrap();
        assert_eq!((guessed.until, guessed.guessed), (1_790_000_960_000, true));
    }

    #[test]
    fn calls_keep_their_distance() {
        let endpoint = endpoint("codex");
        let due = |asked_at: Option<i64>, failures, heard_at| {
            let calls = Calls {
                asked_at: asked_at.map(UnixMillis),
                failures,
                heard_at: UnixMillis(heard_at),
            };
            due(&endpoint, &calls, NOW).0 - NOW.0
        };
        let now = NOW.0;
        assert_eq!(due(None, 0, 0), 0);
        assert_eq!(due(Some(now - 1_000), 0, 0), 899_000);
        assert_eq!(due(Some(now), 2, 0), 3_600_000);
        assert_eq!(due(Some(now), u32::MAX, 0), 32 * 900_000);
        assert_eq!(
            due(Some(now - 900_000), 0, now - 100_000),
            800_000,
            "an answer told it"
        );
        assert_eq!(
            due(Some(now + 86_400_000), 0, 0),
            0,
            "the clock was set back"
        );
    }
}
