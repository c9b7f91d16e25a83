//! From an answer to its verdict.

use super::{
    ErrorBody, Quota, Reason, Rule, Scope, Verdict,
    rule::{Condition, MAX_COOL_DOWN_SECONDS, RuleScope, Ruling, TimeSource},
    time::{Unit, in_message, moment},
};
use crate::{
    header::{HeaderMap, HeaderName},
    label::ModelName,
};

/// The facts about an answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The quota that [`Quota::read`] found in the headers.
    pub quota: &'a Quota,
    /// The error in its body. None inside HTTP 2xx is a good answer.
    pub error: Option<&'a ErrorBody>,
    /// The model that was asked of the platform.
    pub model: Option<&'a str>,
}

/// Judges `answer` at `now`, in Unix milliseconds: by the first of `rules` that matches, else by the status
/// alone. A good answer is fine whatever the rules are.
///
/// No end of a cooldown is past, or further away than the rule's `max_seconds`.
pub fn judge(rules: &[Rule], answer: &Answer<'_>, now: u64) -> Verdict {
    if answer.is_success() && answer.error.is_none() {
        return Verdict::Fine;
    }
    let rule = rules.iter().find(|rule| rule.condition.holds(answer));
    match rule {
        Some(rule) => rule.ruling.verdict(answer, now),
        None => fallback(answer).verdict(answer, now),
    }
}

/// Judges an answer that no rule knows.
fn fallback(answer: &Answer<'_>) -> Ruling {
    let status = match answer.effective_status() {
        // One that nobody knows is passed on: the pool must not suffer from it.
        200..=299 => answer
            .error
            .and_then(ErrorBody::status_by_type)
            .unwrap_or(400),
        status => status,
    };
    let told = || {
        ["retry-after-ms", "retry-after"]
            .into_iter()
            .filter_map(|name| HeaderName::try_from(name).ok())
            .map(TimeSource::Header)
            .chain([TimeSource::Message])
            .collect()
    };
    match status {
        401 => Ruling::CredentialExpired,
        402 => Ruling::CoolingDown {
            scope: RuleScope::Account,
            until: told(),
            default_seconds: 3_600,
            max_seconds: 86_400,
            reason: Reason::known("billing"),
        },
        403 if answer.error.is_none_or(|error| !error.has_word()) => Ruling::CoolingDown {
            scope: RuleScope::Model,
            until: Vec::new(),
            default_seconds: 3_600,
            max_seconds: 3_600,
            reason: Reason::not_served(),
        },
        429 => Ruling::CoolingDown {
            scope: RuleScope::Account,
            until: told(),
            default_seconds: 30,
            max_seconds: 3_600,
            reason: Reason::rate_limited(),
        },
        400..=499 => Ruling::CallersFault,
        // 5xx, and what no API answers.
        _ => Ruling::PlatformTrouble { seconds: 5 },
    }
}

// === impl Answer ===

impl Answer<'_> {
    fn is_success(&self) -> bool {
        (200..=299).contains(&self.status)
    }

    /// The HTTP status, or the one that an error inside HTTP 200 names.
    fn effective_status(&self) -> u16 {
        let named = self.error.and_then(ErrorBody::status);
        match named {
            Some(named) if self.is_success() => named,
            _ => self.status,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.headers.first(name)?).ok()
    }

    /// Finds the time at which a cooldown ends by this source.
    fn moment(&self, source: &TimeSource, now: u64) -> Option<u64> {
        match source {
            TimeSource::Header(name) => {
                moment(self.header(name.as_str())?, Unit::of(name.as_str()), now)
            }
            TimeSource::Body(field) => moment(self.error?.field(field)?, Unit::of(field), now),
            TimeSource::Message => in_message(self.error?.message(), now),
            TimeSource::ExhaustedWindows(names) => self.quota.exhausted_until(names),
        }
    }
}

// === impl Condition ===

impl Condition {
    fn holds(&self, answer: &Answer<'_>) -> bool {
        let Self {
            status,
            code,
            message,
            header,
            in_stream,
        } = self;
        let error = answer.error;
        let status_fits = || {
            let actual = answer.effective_status();
            status.is_empty() || status.iter().any(|pattern| pattern.matches(actual))
        };
        let code_fits = || {
            let has = |code: &String| error.is_some_and(|error| error.has_code(code));
            code.is_empty() || code.iter().any(has)
        };
        let message_fits = || {
            let actual = error.map(|error| error.message().to_ascii_lowercase());
            let actual = actual.unwrap_or_default();
            message.is_empty() || message.iter().any(|pattern| pattern.matches(&actual))
        };
        let headers_fit = || {
            header.iter().all(|(name, values)| {
                let is =
                    |actual: &str| values.iter().any(|v| v.eq_ignore_ascii_case(actual.trim()));
                let actual = answer.header(name.as_str());
                actual.is_some_and(|actual| values.is_empty() || is(actual))
            })
        };
        in_stream.is_none_or(|wanted| wanted == answer.is_success())
            && status_fits()
            && code_fits()
            && headers_fit()
            && message_fits()
    }
}

// === impl Ruling ===

impl Ruling {
    fn verdict(&self, answer: &Answer<'_>, now: u64) -> Verdict {
        let after = |seconds: u32| now.saturating_add(u64::from(seconds).saturating_mul(1_000));
        match self {
            Self::Fine => Verdict::Fine,
            Self::CoolingDown {
                scope,
                until,
                default_seconds,
                max_seconds,
                reason,
            } => {
                let told = until.iter().find_map(|source| answer.moment(source, now));
                let latest = after((*max_seconds).min(MAX_COOL_DOWN_SECONDS));
                Verdict::CoolingDown {
                    scope: scope.of(answer.model),
                    until: told.unwrap_or_else(|| after(*default_seconds)).min(latest),
                    guessed: told.is_none_or(|told| told > latest),
                    reason: reason.clone(),
                }
            }
            Self::CredentialExpired => Verdict::CredentialExpired,
            Self::Dead { reason } => Verdict::Dead {
                reason: reason.clone(),
            },
            Self::PlatformTrouble { seconds } => Verdict::PlatformTrouble {
                until: after(*seconds),
            },
            Self::CallersFault => Verdict::CallersFault,
        }
    }
}

impl RuleScope {
    /// A request without a model that has a name cools the account down.
    fn of(self, model: Option<&str>) -> Scope {
        let model = model.and_then(|model| ModelName::try_from(model).ok());
        match (self, model) {
            (Self::Model, Some(model)) => Scope::Model(model),
            _ => Scope::Account,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::verdict::quota::Windows;

    const NOW: u64 = 1_790_000_000_000;

    /// Claude's five hours and week.
    const WINDOWS: &str = r#"{
        "5h": {"refused": {"header": "anthropic-ratelimit-unified-5h-status", "value": "rejected"},
            "resets": ["anthropic-ratelimit-unified-5h-reset"]},
        "7d": {"refused": {"header": "anthropic-ratelimit-unified-7d-status", "value": "rejected"},
            "resets": ["anthropic-ratelimit-unified-7d-reset"]}}"#;

    fn rules(json: &str) -> Vec<Rule> {
        serde_json::from_str(json).unwrap()
    }

    fn judged(rules: &[Rule], status: u16, headers: &[(&str, &str)], body: &str) -> Verdict {
        let headers = headers.iter().copied().collect();
        let windows: Windows = serde_json::from_str(WINDOWS).unwrap();
        let quota = Quota::read(&windows, &headers, NOW);
        let error = (!body.is_empty()).then(|| ErrorBody::read(body.as_bytes()));
        let answer = Answer {
            status,
            headers: &headers,
            quota: &quota,
            error: error.as_ref(),
            model: Some("m"),
        };
        judge(rules, &answer, NOW)
    }

    fn cooling(scope: Scope, seconds: u64, guessed: bool) -> Verdict {
        Verdict::CoolingDown {
            scope,
            until: NOW + seconds * 1000,
            guessed,
            reason: Reason::rate_limited(),
        }
    }

    fn cooling_for(scope: Scope, seconds: u64, reason: &'static str) -> Verdict {
        Verdict::CoolingDown {
            scope,
            until: NOW + seconds * 1000,
            guessed: true,
            reason: Reason::known(reason),
        }
    }

    fn trouble() -> Verdict {
        Verdict::PlatformTrouble { until: NOW + 5000 }
    }

    #[test]
    fn without_rules_the_status_speaks() {
        for (status, verdict) in [
            (200, Verdict::Fine),
            (204, Verdict::Fine),
            (302, trouble()),
            (400, Verdict::CallersFault),
            (401, Verdict::CredentialExpired),
            (402, cooling_for(Scope::Account, 3_600, "billing")),
            (
                403,
                cooling_for(Scope::Model("m".try_into().unwrap()), 3_600, "not_served"),
            ),
            (408, Verdict::CallersFault),
            (409, Verdict::CallersFault),
            (429, cooling(Scope::Account, 30, true)),
            (500, trouble()),
            (529, trouble()),
        ] {
            assert_eq!(judged(&[], status, &[], ""), verdict, "{status}");
        }
        for (body, is_the_callers) in [
            (r#"{"error":{"code":403,"message":"no"}}"#, false),
            (r#"{"detail":"no"}"#, false),
            (r#"{"error":{"type":"permission_error"}}"#, true),
            ("<html>", true),
        ] {
            let verdict = judged(&[], 403, &[], body);
            assert_eq!(verdict == Verdict::CallersFault, is_the_callers, "{body}");
            assert_eq!(verdict.is_not_served(), !is_the_callers, "{body}");
        }
        let retry = [("retry-after", "7")];
        assert_eq!(
            judged(&[], 429, &retry, ""),
            cooling(Scope::Account, 7, false)
        );
        let retry = [("retry-after", "0")];
        let sentence = r#"{"error":{"message":"Please try again in 2s."}}"#;
        assert_eq!(
            judged(&[], 429, &retry, sentence),
            cooling(Scope::Account, 2, false)
        );
    }

    #[test]
    fn inside_200_the_error_speaks() {
        for (body, verdict) in [
            (r#"{"error":{"type":"overloaded_error"}}"#, trouble()),
            (r#"{"error":{"type":"server_error"}}"#, trouble()),
            (
                r#"{"error":{"code":"rate_limit_exceeded"}}"#,
                cooling(Scope::Account, 30, true),
            ),
            (
                r#"{"error":{"code":429}}"#,
                cooling(Scope::Account, 30, true),
            ),
            (
                r#"{"error":{},"status_code":401}"#,
                Verdict::CredentialExpired,
            ),
            (
                r#"{"error":{"code":"a_new_policy"}}"#,
                Verdict::CallersFault,
            ),
            (r#"{"error":"no"}"#, Verdict::CallersFault),
        ] {
            assert_eq!(judged(&[], 200, &[], body), verdict, "{body}");
        }
        // Outside, the status is not the body's to say.
        assert_eq!(
            judged(&[], 400, &[], r#"{"status":401}"#),
            Verdict::CallersFault
        );
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let rules = rules(
            r#"[
                {"code":["quota"],"in_stream":true,"verdict":"fine"},
                {"status":["4xx"],"code":["QUOTA"],"header":{"x-plan":["Free"]},"verdict":"dead","reason":"plan"},
                {"message":["gone fishing"],"verdict":"dead","reason":"gone"},
                {"code":["quota"],"verdict":"cooling_down","scope":"model","until":["body:a","header:x-b"],"default_seconds":9,"max_seconds":60}
            ]"#,
        );
        let quota = r#"{"error":{"code":"quota","a":"soon"}}"#;
        let model = || Scope::Model("m".try_into().unwrap());
        let plan = [("x-plan", "free ")];
        let dead = |reason: &str| Verdict::Dead {
            reason: reason.to_owned().try_into().unwrap(),
        };
        assert_eq!(judged(&rules, 200, &[], quota), Verdict::Fine);
        assert_eq!(judged(&rules, 403, &plan, quota), dead("plan"));
        assert_eq!(judged(&rules, 503, &plan, quota), cooling(model(), 9, true));
        let soon = [("x-b", "1m")];
        assert_eq!(
            judged(&rules, 429, &soon, quota),
            cooling(model(), 60, false)
        );
        let late = [("x-b", "61")];
        assert_eq!(
            judged(&rules, 429, &late, quota),
            cooling(model(), 60, true)
        );
        assert_eq!(
            judged(&rules, 400, &[], r#"{"detail":"Gone fishing"}"#),
            dead("gone")
        );
        assert_eq!(
            judged(
                &rules,
                400,
                &[],
                r#"{"detail":"gone fishing: Extra inputs are not permitted"}"#
            ),
            Verdict::CallersFault
        );
    }

    proptest! {
        #[test]
        fn no_answer_cools_longer_than_its_rule(
            status in prop_oneof![Just(429_u16), 100_u16..=599],
            values in prop::collection::vec("[0-9a-z.:-]{0,20}", 3),
            max in 1_u32..=MAX_COOL_DOWN_SECONDS,
            now in prop_oneof![Just(NOW), any::<u64>()],
        ) {
            let rules = rules(&format!(
                r#"[{{"status":[429],"verdict":"cooling_down","scope":"account","until":["header:retry-after","body:resets_at","message"],"default_seconds":1,"max_seconds":{max}}}]"#
            ));
            let headers = [("retry-after", values[0].as_str())].into_iter().collect();
            let body = format!(r#"{{"resets_at":"{}","message":"try again in {}"}}"#, values[1], values[2]);
            let error = ErrorBody::read(body.as_bytes());
            let answer = Answer {
                status,
                headers: &headers,
                quota: &Quota::default(),
                error: Some(&error),
                model: None,
            };
            if let Verdict::CoolingDown { until, .. } = judge(&rules, &answer, now) {
                prop_assert!(until >= now && until - now <= u64::from(max) * 1000);
            }
        }
    }
}
