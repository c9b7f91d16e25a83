//! The quota of an account in one form, whoever told it: answers to requests, the platform when it was asked, or who set
//! a limit for each day: the operator, or else the platform's profile.

use latchkey::health::quota::KnownQuota;
use latchkey::verdict::quota::Window;
use serde::Serialize;

use super::limits::Limits;
use crate::limits::Setting;
use crate::store::Asked;

/// The name of the window that a limit for each day makes.
const DAY: &str = "day";

/// One window of an account's quota.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quota {
    /// Its name, its used share, and when it starts anew.
    #[serde(flatten)]
    pub window: Window,
    /// The rest, of a sum that nobody knows: money.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<f64>,
    /// The source that told it.
    pub source: Source,
    /// The time of it, in Unix milliseconds; none for what is counted here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

/// The source that told a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The headers of answers to requests.
    Answers,
    /// The platform, when the refresher asked it.
    Platform,
    /// The operator, by a limit.
    Operator,
    /// The platform's profile, by a limit.
    Profile,
}

impl Source {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Source::Answers => "answers",
            Source::Platform => "platform",
            Source::Operator => "operator",
            Source::Profile => "profile",
        }
    }
}

/// Every window of an account: what is `known`, what its platform said when it was `asked`, and the day of its limits.
pub(super) fn of(known: KnownQuota, asked: Option<Asked>, limits: &Limits) -> Vec<Quota> {
    let (said, said_at) = asked.map_or_else(Default::default, |asked| {
        (asked.figures, u64::try_from(asked.at.0).unwrap_or_default())
    });
    let platform = said.iter().map(|figure| Quota {
        window: figure.window.clone(),
        left: figure.left,
        source: Source::Platform,
        at: Some(said_at),
    });
    let answers = known.windows.into_iter().map(|window| Quota {
        window,
        left: None,
        source: Source::Answers,
        at: Some(known.at),
    });
    let mut all: Vec<Quota> = Vec::new();
    for quota in platform.chain(answers) {
        match all
            .iter_mut()
            .find(|one| one.window.name == quota.window.name)
        {
            // What the platform said is among what is known, where no answer said anything else since.
            Some(held) if held.window == quota.window => {}
            Some(held) if held.at < quota.at => *held = quota,
            Some(_) => {}
            None => all.push(quota),
        }
    }
    all.extend(day(limits));
    all
}

/// The day of the limit.
fn day(limits: &Limits) -> Option<Quota> {
    let limit = limits.limits.tokens_per_day?.get();
    let used = limits.used.tokens_today.unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share = used as f64 / limit as f64 * 100.0;
    Some(Quota {
        window: Window {
            name: DAY.try_into().ok()?,
            used_percent: share.min(latchkey::verdict::quota::MAX_PERCENT),
            resets_at: limits.used.day_ends_at,
            exhausted: used >= limit,
        },
        left: None,
        source: match limits.of_profile.contains(&Setting::TokensPerDay) {
            true => Source::Profile,
            false => Source::Operator,
        },
        at: None,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::probe::quota::Figure;

    fn window(name: &str, used_percent: f64) -> Window {
        Window {
            name: name.try_into().unwrap(),
            used_percent,
            resets_at: Some(9),
            exhausted: used_percent >= 100.0,
        }
    }

    fn shown(all: &[Quota]) -> Vec<(&str, f64, Source, Option<u64>)> {
        let one = |one: &Quota| {
            let name = match one.window.name.as_str() {
                "5h" => "5h",
                "7d" => "7d",
                "balance" => "balance",
                _ => DAY,
            };
            (name, one.window.used_percent, one.source, one.at)
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn every_source_has_one_form_and_the_newest_word_counts() {
        let mut limits = Limits::default();
        limits.limits.tokens_per_day = NonZeroU64::new(200);
        limits.used.tokens_today = Some(50);
        limits.used.day_ends_at = Some(7);
        let figure = |window: Window, left| Figure { window, left };
        let asked = Asked {
            figures: vec![
                figure(window("5h", 40.0), None),
                figure(window("7d", 12.0), None),
                figure(window("balance", 0.0), Some(49.5)),
            ],
            at: UnixMillis(100),
        };
        // An answer said more of the five hours since; the week is as the platform said.
        let known = KnownQuota {
            at: 150,
            windows: vec![window("5h", 41.0), window("7d", 12.0)],
        };
        let all = of(known, Some(asked), &limits);
        assert_eq!(
            shown(&all),
            [
                ("5h", 41.0, Source::Answers, Some(150)),
                ("7d", 12.0, Source::Platform, Some(100)),
                ("balance", 0.0, Source::Platform, Some(100)),
                (DAY, 25.0, Source::Operator, None),
            ]
        );
        limits.of_profile.insert(Setting::TokensPerDay);
        let day = day(&limits).unwrap();
        assert_eq!(serde_json::to_value(&day).unwrap()["source"], "profile");
        let json = serde_json::to_value(&all[2]).unwrap();
        assert_eq!(json["source"], "platform");
        assert_eq!(
            (&json["left"], &json["name"]),
            (&49.5.into(), &"balance".into())
        );
        assert_eq!(of(KnownQuota::default(), None, &Limits::default()), []);
    }
}
