//! Tests of what the embedded profiles make of the platforms' own bytes: every fixture that an upstream answers with. Those
//! of platforms that the simulated platform plays are files of their own; of all others, each has its table of documented
//! answers in `tests/fixtures/verdicts`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use latchkey::header::HeaderMap;
use latchkey::verdict::{Answer, Beginning, ErrorBody, Look, Quota, Scope, Verdict, judge};

use super::*;

/// 2026-09-21T14:13:20Z, which the fixtures take for now.
const NOW: u64 = 1_790_000_000_000;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");

type Headers = &'static [(&'static str, &'static str)];

const NONE: Headers = &[];
const RETRY_AFTER: Headers = &[("retry-after", "2094")];

/// The headers that Claude sends with a 429 of a plan whose five hours are used up, as recorded.
const FIVE_HOURS_USED_UP: Headers = &[
    ("anthropic-ratelimit-unified-status", "rejected"),
    ("anthropic-ratelimit-unified-reset", "1790000500"),
    ("anthropic-ratelimit-unified-5h-status", "rejected"),
    ("anthropic-ratelimit-unified-5h-reset", "1790003600"),
    ("anthropic-ratelimit-unified-5h-utilization", "1.0"),
    ("anthropic-ratelimit-unified-7d-status", "allowed"),
    ("anthropic-ratelimit-unified-7d-reset", "1790111600"),
    ("anthropic-ratelimit-unified-7d-utilization", "0.59"),
    ("retry-after", "2094"),
];
const BOTH_USED_UP: Headers = &[
    ("anthropic-ratelimit-unified-5h-status", "rejected"),
    ("anthropic-ratelimit-unified-5h-reset", "1790003600"),
    ("anthropic-ratelimit-unified-7d-status", "rejected"),
    ("anthropic-ratelimit-unified-7d-reset", "1790111600"),
    ("anthropic-ratelimit-unified-7d_oi-status", "rejected"),
    ("anthropic-ratelimit-unified-7d_oi-reset", "1790211600"),
];
const WEEK_USED_UP: Headers = &[
    ("anthropic-ratelimit-unified-5h-status", "allowed"),
    ("anthropic-ratelimit-unified-5h-reset", "1790003600"),
    ("anthropic-ratelimit-unified-7d-status", "rejected"),
    ("anthropic-ratelimit-unified-7d-reset", "1790111600"),
    ("anthropic-ratelimit-unified-7d_oi-status", "allowed"),
];
const ONE_MODEL_USED_UP: Headers = &[
    ("anthropic-ratelimit-unified-status", "rejected"),
    ("anthropic-ratelimit-unified-5h-status", "allowed"),
    ("anthropic-ratelimit-unified-7d-status", "allowed"),
    ("anthropic-ratelimit-unified-7d_oi-status", "rejected"),
    ("anthropic-ratelimit-unified-7d_oi-reset", "1790211600"),
    ("retry-after", "2094"),
];
const CODEX_WEEK_USED_UP: Headers = &[
    ("x-codex-primary-used-percent", "40"),
    ("x-codex-primary-window-minutes", "300"),
    ("x-codex-primary-reset-at", "1790003600"),
    ("x-codex-secondary-used-percent", "100"),
    ("x-codex-secondary-window-minutes", "10080"),
    ("x-codex-secondary-reset-at", "1790111600"),
];

#[rustfmt::skip]
const VERDICTS: &[(&str, u16, Headers, &str)] = &[
    ("anthropic/api_error.json", 500, NONE, "platform in trouble for 5 s"),
    ("anthropic/billing_error.json", 402, NONE, "dead: billing"),
    ("anthropic/claude_code_only.json", 400, NONE, "caller's fault"),
    ("anthropic/count_tokens.json", 200, NONE, "fine"),
    ("anthropic/credit_balance_too_low.json", 400, NONE, "dead: billing"),
    ("anthropic/enforced_spend_limit.json", 429, NONE, "account cools down for about 21600 s: spend_limit"),
    ("anthropic/error_event_overloaded.sse", 200, NONE, "platform in trouble for 5 s"),
    ("anthropic/extra_usage_required.json", 429, NONE, "caller's fault"),
    ("anthropic/extra_usage_required.json", 429, FIVE_HOURS_USED_UP, "caller's fault"),
    ("anthropic/fast_mode_credits.json", 429, NONE, "caller's fault"),
    ("anthropic/invalid_api_key.json", 401, NONE, "dead: invalid_api_key"),
    ("anthropic/invalid_body.json", 400, NONE, "caller's fault"),
    ("anthropic/message.json", 200, FIVE_HOURS_USED_UP, "fine"),
    ("anthropic/message.sse", 200, NONE, "fine"),
    ("anthropic/message_then_overloaded.sse", 200, NONE, "fine"),
    ("anthropic/missing_api_key.json", 401, NONE, "credential expired"),
    ("anthropic/missing_version.json", 400, NONE, "caller's fault"),
    ("anthropic/models.json", 200, NONE, "fine"),
    ("anthropic/not_found_error.json", 404, NONE, "caller's fault"),
    ("anthropic/oauth_not_allowed.json", 403, NONE, "dead: organization_disabled"),
    ("anthropic/oauth_not_supported.json", 401, NONE, "credential expired"),
    ("anthropic/oauth_token_expired.json", 401, NONE, "credential expired"),
    ("anthropic/oauth_token_revoked.json", 401, NONE, "credential expired"),
    ("anthropic/oauth_token_unknown.json", 401, NONE, "credential expired"),
    ("anthropic/organization_disabled.json", 400, NONE, "dead: organization_disabled"),
    ("anthropic/overloaded_error.json", 529, NONE, "platform in trouble for 5 s"),
    ("anthropic/permission_error.json", 403, NONE, "caller's fault"),
    ("anthropic/rate_limit_error.json", 429, BOTH_USED_UP, "account cools down for 111600 s: usage_limit"),
    ("anthropic/rate_limit_error.json", 429, FIVE_HOURS_USED_UP, "account cools down for 3600 s: usage_limit"),
    ("anthropic/rate_limit_error.json", 429, NONE, "model cools down for about 30 s: rate_limited"),
    ("anthropic/rate_limit_error.json", 429, ONE_MODEL_USED_UP, "model cools down for 2094 s: usage_limit"),
    ("anthropic/rate_limit_error.json", 429, RETRY_AFTER, "model cools down for 2094 s: rate_limited"),
    ("anthropic/rate_limit_error.json", 429, WEEK_USED_UP, "account cools down for 111600 s: usage_limit"),
    ("anthropic/third_party_extra_usage.json", 400, NONE, "caller's fault"),
    ("anthropic/timeout_error.json", 504, NONE, "platform in trouble for 5 s"),
    ("anthropic/usage_limits_specified.json", 400, NONE, "account cools down for 812800 s: spend_limit"),
    ("codex/cloudflare_blocked.html", 403, NONE, "platform in trouble for 30 s"),
    ("codex/cyber_policy.json", 400, NONE, "caller's fault"),
    ("codex/deactivated_workspace.json", 402, NONE, "dead: deactivated_workspace"),
    ("codex/error_event_usage_limit_reached.sse", 200, NONE, "account cools down for 3600 s: usage_limit"),
    ("codex/instructions_not_valid.json", 400, NONE, "caller's fault"),
    ("codex/misalignment_policy_violation.json", 400, NONE, "caller's fault"),
    ("codex/models.json", 200, NONE, "fine"),
    ("codex/model_not_supported.json", 400, NONE, "model cools down for about 3600 s: not_served"),
    ("codex/rate_limit_exceeded.json", 429, NONE, "account cools down for 1.5 s: rate_limited"),
    ("codex/response.sse", 200, CODEX_WEEK_USED_UP, "fine"),
    ("codex/response_failed_context_length_exceeded.sse", 200, NONE, "caller's fault"),
    ("codex/response_failed_insufficient_quota.sse", 200, NONE, "dead: billing"),
    ("codex/response_failed_rate_limit_exceeded.sse", 200, NONE, "account cools down for 1.5 s: rate_limited"),
    ("codex/response_failed_server_is_overloaded.sse", 200, NONE, "platform in trouble for 5 s"),
    ("codex/response_failed_slow_down.sse", 200, NONE, "platform in trouble for 5 s"),
    ("codex/response_incomplete.sse", 200, NONE, "fine"),
    ("codex/server_is_overloaded.json", 503, NONE, "platform in trouble for 5 s"),
    ("codex/slow_down.json", 503, NONE, "platform in trouble for 5 s"),
    ("codex/store_must_be_false.json", 400, NONE, "caller's fault"),
    ("codex/stream_must_be_true.json", 400, NONE, "caller's fault"),
    ("codex/token_expired.json", 401, NONE, "credential expired"),
    ("codex/token_invalidated.json", 401, NONE, "credential expired"),
    ("codex/token_revoked.json", 401, NONE, "credential expired"),
    ("codex/unauthorized.json", 401, NONE, "credential expired"),
    ("codex/usage_limit_reached.json", 429, CODEX_WEEK_USED_UP, "account cools down for 3600 s: usage_limit"),
    ("codex/usage_not_included.json", 429, NONE, "dead: plan"),
    ("openai/account_deactivated.json", 401, NONE, "dead: deactivated"),
    ("openai/billing_not_active.json", 429, NONE, "dead: billing"),
    ("openai/chat.json", 200, NONE, "fine"),
    ("openai/chat.sse", 200, NONE, "fine"),
    ("openai/context_length_exceeded.json", 400, NONE, "caller's fault"),
    ("openai/embeddings.json", 200, NONE, "fine"),
    ("openai/insufficient_quota.json", 429, NONE, "dead: billing"),
    ("openai/insufficient_permissions.json", 401, NONE, "credential expired"),
    ("openai/insufficient_permissions.json", 403, NONE, "credential expired"),
    ("openai/invalid_api_key.json", 401, NONE, "dead: invalid_api_key"),
    ("openai/invalid_body.json", 400, NONE, "caller's fault"),
    ("openai/missing_api_key.json", 401, NONE, "credential expired"),
    ("openai/model_forbidden.json", 403, NONE, "model cools down for about 3600 s: not_served"),
    ("openai/model_forbidden.json", 404, NONE, "model cools down for about 3600 s: not_served"),
    ("openai/models.json", 200, NONE, "fine"),
    ("openai/not_found.json", 404, NONE, "caller's fault"),
    ("openai/rate_limit_exceeded.json", 429, NONE, "model cools down for 1 s: rate_limited"),
    ("openai/rate_limit_exceeded.json", 429, RETRY_AFTER, "model cools down for 2094 s: rate_limited"),
    ("openai/organization_not_verified.json", 400, NONE, "model cools down for about 3600 s: not_served"),
    ("openai/request_too_large.json", 429, NONE, "caller's fault"),
    ("openai/response.json", 200, NONE, "fine"),
    ("openai/response.sse", 200, NONE, "fine"),
    ("openai/response_failed_insufficient_quota.sse", 200, NONE, "dead: billing"),
    ("openai/response_failed_server_is_overloaded.sse", 200, NONE, "platform in trouble for 5 s"),
    ("openai/response_failed_slow_down.sse", 200, NONE, "platform in trouble for 5 s"),
    ("openai/server_error.json", 500, NONE, "platform in trouble for 5 s"),
    ("openai/server_is_overloaded.json", 503, NONE, "platform in trouble for 5 s"),
    ("openai/slow_down.json", 429, NONE, "account cools down for about 10 s: rate_limited"),
    ("openai/slow_down.json", 429, RETRY_AFTER, "account cools down for 2094 s: rate_limited"),
    ("openai/slow_down.json", 503, NONE, "platform in trouble for 5 s"),
    ("openai/unsupported_country.json", 403, NONE, "account cools down for about 600 s: region"),
];

/// The token endpoint's answers; no account is judged by them here.
const OF_THE_TOKEN_ENDPOINT: [&str; 5] = [
    "codex/token_empty_refresh_token.json",
    "codex/token_invalid_grant.json",
    "codex/token_refresh_token_expired.json",
    "codex/token_refresh_token_invalidated.json",
    "codex/token_refresh_token_reused.json",
];

/// The platforms whose fixtures are files of their own.
const PLAYED: [&str; 3] = ["anthropic", "codex", "openai"];

/// The platforms that answer as another one does.
const ALIKE: [(&str, &str); 2] = [
    ("azure-openai-deployments", "azure-openai"),
    ("zhipu-signed", "zhipu"),
];

/// The platforms that take over the rules of another one, which says something of that one.
const ON_TOP: [(&str, &str); 3] = [
    ("claude-code", "anthropic"),
    ("qianfan-iam", "qianfan"),
    ("gemini-code-assist", "gemini"),
];

/// An answer of a platform, and what it means.
#[derive(Clone)]
struct Case {
    platform: String,
    name: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    verdict: String,
}

/// The documented answers of a platform, as they are written down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Documented {
    answer: Vec<DocumentedAnswer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentedAnswer {
    name: String,
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body: String,
    verdict: String,
}

fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> =
        LazyLock::new(|| Catalog::load(None, BTreeSet::new()).unwrap());
    &CATALOG
}

/// The platforms that are built in, but for those that answer as another one.
fn platforms() -> impl Iterator<Item = &'static Profile> {
    let is_own = |profile: &&Profile| ALIKE.iter().all(|(id, _)| *id != profile.id);
    catalog().all().filter(is_own)
}

fn platform(id: &str) -> snapshot::Platform {
    catalog().profile(id).unwrap().record.clone()
}

/// Every answer that is known of any platform.
fn cases() -> Vec<Case> {
    let played = VERDICTS.iter().map(|(name, status, headers, verdict)| {
        let (platform, _) = name.split_once('/').unwrap();
        let headers = headers.iter();
        Case {
            platform: platform.to_owned(),
            name: (*name).to_owned(),
            status: *status,
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: std::fs::read(Path::new(FIXTURES).join(name)).unwrap(),
            verdict: (*verdict).to_owned(),
        }
    });
    let mut cases: Vec<Case> = played.collect();
    for profile in platforms().filter(|profile| !PLAYED.contains(&&*profile.id)) {
        let path = Path::new(FIXTURES)
            .join("verdicts")
            .join(format!("{}.toml", profile.id));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let documented: Documented = toml::from_str(&text).unwrap();
        cases.extend(documented.answer.into_iter().map(|answer| Case {
            platform: profile.id.clone(),
            name: answer.name,
            status: answer.status,
            headers: answer.headers,
            body: answer.body.trim_start().as_bytes().to_vec(),
            verdict: answer.verdict,
        }));
    }
    cases
}

/// As the filter goes about it.
fn judged(
    platform: &snapshot::Platform,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Verdict {
    let headers: HeaderMap = headers.iter().copied().collect();
    let quota = Quota::read(&platform.quota, &headers, NOW);
    let error = match status {
        200..=299 => {
            let mut endpoints = platform.endpoints.iter();
            endpoints.find_map(|endpoint| {
                match Beginning::new(endpoint.dialect, true).look(body, true) {
                    Look::Error(failure) => Some(failure.error),
                    Look::Fine | Look::Empty | Look::NeedMore => None,
                }
            })
        }
        _ => Some(ErrorBody::read(body)),
    };
    let answer = Answer {
        status,
        headers: &headers,
        quota: &quota,
        error: error.as_ref(),
        model: Some("fixture-model"),
    };
    judge(&platform.verdicts, &answer, NOW)
}

fn in_words(verdict: &Verdict) -> String {
    let seconds = |until: u64| (until - NOW) as f64 / 1e3;
    match verdict {
        Verdict::Fine => "fine".to_owned(),
        Verdict::CoolingDown {
            scope,
            until,
            guessed,
            reason,
        } => {
            let what = match scope {
                Scope::Account => "account",
                Scope::Model(_) => "model",
            };
            let about = if *guessed { "about " } else { "" };
            let (seconds, reason) = (seconds(*until), reason.as_str());
            format!("{what} cools down for {about}{seconds} s: {reason}")
        }
        Verdict::CredentialExpired => "credential expired".to_owned(),
        Verdict::Dead { reason } => format!("dead: {}", reason.as_str()),
        Verdict::PlatformTrouble { until } => {
            format!("platform in trouble for {} s", seconds(*until))
        }
        Verdict::CallersFault => "caller's fault".to_owned(),
    }
}

impl Case {
    fn judged(&self, platform: &snapshot::Platform) -> Verdict {
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        judged(platform, self.status, &headers, &self.body)
    }
}

#[test]
fn every_answer_has_its_verdict() {
    for case in cases() {
        let verdict = case.judged(&platform(&case.platform));
        let Case {
            platform,
            name,
            status,
            verdict: expected,
            ..
        } = case;
        assert_eq!(in_words(&verdict), expected, "{platform}: {status} {name}");
    }
}

/// One word, or one status, is no verdict: what it means is the platform's.
#[test]
fn the_same_word_means_opposite_things() {
    let of = |id: &str, status: u16, body: &str| {
        in_words(&judged(&platform(id), status, NONE, body.as_bytes()))
    };
    let quota = r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
    assert_eq!(of("openai", 429, quota), "dead: billing");
    assert_eq!(
        of("qwen", 429, quota),
        "model cools down for about 30 s: rate_limited"
    );
    let busy = r#"{"error":{"code":"ServerOverloaded","message":"busy","type":"TooManyRequests"}}"#;
    assert_eq!(of("doubao", 429, busy), "platform in trouble for 5 s");
    assert_eq!(
        of("custom", 429, busy),
        "account cools down for about 30 s: rate_limited"
    );
    let model = r#"{"error":{"code":"invalid_model","message":"no","type":"access_denied"}}"#;
    assert_eq!(
        of("qianfan", 401, model),
        "model cools down for about 3600 s: not_served"
    );
    assert_eq!(of("openai", 401, model), "credential expired");
    let code = r#"{"code":11201,"message":"daily","sid":"s"}"#;
    assert_eq!(
        of("spark", 200, code),
        "model cools down for about 3600 s: usage_limit"
    );
    assert_eq!(of("openai", 200, code), "caller's fault");
    let moderated = r#"{"error":{"code":403,"message":"flagged"}}"#;
    assert_eq!(of("openrouter", 403, moderated), "caller's fault");
    assert_eq!(
        of("openai", 403, moderated),
        "model cools down for about 3600 s: not_served"
    );
}

#[test]
fn every_fixture_is_in_the_table() {
    let listed = VERDICTS.iter().map(|(name, ..)| *name);
    let listed: BTreeSet<&str> = listed.chain(OF_THE_TOKEN_ENDPOINT).collect();
    for id in PLAYED {
        for file in std::fs::read_dir(Path::new(FIXTURES).join(id)).unwrap() {
            let name = format!("{id}/{}", file.unwrap().file_name().display());
            assert!(listed.contains(name.as_str()), "{name}");
        }
    }
    for file in std::fs::read_dir(Path::new(FIXTURES).join("verdicts")).unwrap() {
        let path = file.unwrap().path();
        let id = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            catalog().profile(id).is_ok() && !PLAYED.contains(&id),
            "{}",
            path.display()
        );
    }
    for (id, other) in ALIKE {
        assert_eq!(platform(id).verdicts, platform(other).verdicts, "{id}");
    }
}

/// A rule without which every answer is judged the same could say anything. What platforms have in common says something of
/// one of them.
#[test]
fn every_rule_matters_to_an_answer() {
    let cases = cases();
    let matters = |id: &str, index: usize| {
        let whole = platform(id);
        let mut without = whole.clone();
        without.verdicts.remove(index);
        let mut own = cases.iter().filter(|case| case.platform == id);
        own.any(|case| case.judged(&whole) != case.judged(&without))
    };
    let common = platform("custom").verdicts;
    for profile in platforms() {
        let rules = &profile.record.verdicts;
        let mut below = ON_TOP.iter().filter(|(id, _)| *id == profile.id);
        let below = below.next().map(|(_, below)| platform(below).verdicts);
        let is_common = |rule| {
            profile.id != "custom" && common.contains(rule)
                || below.as_ref().is_some_and(|below| below.contains(rule))
        };
        for (index, rule) in rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| !is_common(rule))
        {
            assert!(
                matters(&profile.id, index),
                "{}: verdicts[{index}] {rule:?}",
                profile.id
            );
        }
    }
}

#[test]
fn rules_reach_the_filter_as_they_are() {
    for profile in catalog().all() {
        let record = snapshot::Record::Platform(profile.record.clone());
        let line = record.to_line().unwrap();
        assert_eq!(
            snapshot::Record::from_line(line.as_bytes()).unwrap(),
            record
        );
    }
}

/// Every way in which a platform repeats what a caller sent, with each sentence and each word of a rule in it.
#[test]
fn no_caller_can_have_an_account_taken_out_by_what_it_sends() {
    use latchkey::verdict::{Rule, rule::Ruling};
    let names_an_account = |rule: &&Rule| rule.ruling != Ruling::CallersFault;
    for Profile {
        id,
        record: platform,
        ..
    } in platforms()
    {
        let rules = platform.verdicts.iter().filter(names_an_account);
        let echoes = rules.flat_map(|rule| {
            let messages = rule.condition.message.iter().cloned().map(String::from);
            let messages = messages.map(|text| text.replace("{}", "2026-10-01"));
            messages.chain(rule.condition.code.iter().cloned())
        });
        let mut echoes: Vec<String> = echoes.collect();
        echoes.push("please try again in 500h".to_owned());
        for echo in echoes {
            let name = serde_json::to_string(&echo).unwrap();
            for error in [
                format!(
                    r#"{{"type":"invalid_request_error","message":"{echo}: Extra inputs are not permitted"}}"#
                ),
                format!(
                    r#"{{"type":"invalid_request_error","message":"messages.0.content.0: Input tag '{echo}' found using 'type' does not match any of the expected tags"}}"#
                ),
                format!(r#"{{"type":"invalid_request_error","message":"Unknown name: {echo}"}}"#),
                format!(
                    r#"{{"type":"invalid_request_error","param":{name},"message":"Unknown parameter: '{echo}'."}}"#
                ),
                format!(r#"{{"type":"invalid_request_error","message":"no","details":[{name}]}}"#),
                format!(
                    r#"{{"type":"invalid_request_error","message":"no","details":[{{"loc":["body",{name}],"input":{{{name}:1}},"msg":"Extra inputs are not permitted"}}]}}"#
                ),
            ] {
                for body in [
                    format!(r#"{{"type":"error","error":{error}}}"#),
                    format!(r#"{{"detail":[{error}]}}"#),
                ] {
                    for status in [400, 404, 413, 422] {
                        let verdict = judged(platform, status, NONE, body.as_bytes());
                        assert_eq!(verdict, Verdict::CallersFault, "{id}: {status} {body}");
                    }
                }
            }
        }
    }
}
