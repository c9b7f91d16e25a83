//! The wire bytes in `tests/fixtures/`, and how their template places are filled.
//!
//! A fixture is valid as it lies there, so that other tests can use the same bytes.
//! Its template places are literals that occur nowhere else:
//!
//! | literal | filled with |
//! |---|---|
//! | `FIXTUREID` | a random id, the same in all of one answer |
//! | `fixture-model` | the asked model |
//! | `fixture text` | the whole answer text |
//! | `fixture delta` | one piece of the text; its event is repeated for each piece |
//! | `:1001`, `:2002`, `:3003` | input, output and total tokens |
//! | `1790000000`, `1790003600` | now, and an hour later, in Unix seconds |
//! | `"sequence_number":N` | numbered anew |

use http::StatusCode;

use crate::{
    answer::{Answer, Payload},
    clock::UnixMillis,
};

/// Seconds from now to the moment that fixtures give as the reset of a limit.
pub const RESET_SECONDS: u64 = 3600;

/// One file of `tests/fixtures/` and the status that a platform sends it with.
#[derive(Debug)]
pub struct Fixture {
    /// Path below `tests/fixtures/`.
    pub name: &'static str,
    status: u16,
    text: &'static str,
}

macro_rules! fixtures {
    ($($status:literal: $($name:literal),+;)+) => {
        /// Every fixture with the status it comes with.
        pub const ALL: &[Fixture] = &[$($(Fixture {
            name: $name,
            status: $status,
            text: include_str!(concat!("../../fixtures/", $name)),
        }),+),+];
    };
}

fixtures! {
    200:
        "anthropic/count_tokens.json", "anthropic/error_event_overloaded.sse",
        "anthropic/message.json", "anthropic/message.sse",
        "anthropic/message_then_overloaded.sse", "anthropic/models.json",
        "codex/error_event_usage_limit_reached.sse", "codex/models.json", "codex/response.sse",
        "codex/response_failed_context_length_exceeded.sse",
        "codex/response_failed_rate_limit_exceeded.sse",
        "codex/response_failed_server_is_overloaded.sse", "codex/response_failed_slow_down.sse", "codex/response_incomplete.sse",
        "openai/chat.json", "openai/chat.sse", "openai/embeddings.json", "openai/models.json",
        "openai/response.json", "openai/response.sse",
        "openai/response_failed_insufficient_quota.sse",
        "openai/response_failed_server_is_overloaded.sse", "openai/response_failed_slow_down.sse",
        "codex/response_failed_insufficient_quota.sse";
    400:
        "anthropic/credit_balance_too_low.json", "anthropic/invalid_body.json",
        "anthropic/missing_version.json", "anthropic/organization_disabled.json",
        "codex/cyber_policy.json", "codex/model_not_supported.json",
        "openai/organization_not_verified.json",
        "codex/instructions_not_valid.json",
        "codex/store_must_be_false.json", "codex/stream_must_be_true.json",
        "codex/token_empty_refresh_token.json", "codex/token_invalid_grant.json",
        "openai/context_length_exceeded.json", "openai/invalid_body.json",
        "anthropic/claude_code_only.json", "anthropic/third_party_extra_usage.json",
        "anthropic/usage_limits_specified.json", "codex/misalignment_policy_violation.json";
    401:
        "anthropic/invalid_api_key.json", "anthropic/missing_api_key.json",
        "anthropic/oauth_not_supported.json", "anthropic/oauth_token_expired.json",
        "anthropic/oauth_token_revoked.json", "anthropic/oauth_token_unknown.json",
        "codex/token_expired.json",
        "codex/token_invalidated.json", "codex/token_refresh_token_expired.json",
        "codex/token_refresh_token_invalidated.json", "codex/token_refresh_token_reused.json",
        "codex/unauthorized.json", "openai/invalid_api_key.json", "openai/missing_api_key.json",
        "codex/token_revoked.json", "openai/account_deactivated.json",
        "openai/insufficient_permissions.json";
    402: "anthropic/billing_error.json", "codex/deactivated_workspace.json";
    403:
        "anthropic/permission_error.json", "codex/cloudflare_blocked.html",
        "anthropic/oauth_not_allowed.json", "openai/model_forbidden.json",
        "openai/unsupported_country.json";
    404: "anthropic/not_found_error.json", "openai/not_found.json";
    429:
        "anthropic/rate_limit_error.json", "codex/rate_limit_exceeded.json",
        "codex/usage_limit_reached.json", "codex/usage_not_included.json",
        "openai/insufficient_quota.json", "openai/rate_limit_exceeded.json",
        "anthropic/enforced_spend_limit.json", "anthropic/extra_usage_required.json",
        "anthropic/fast_mode_credits.json", "openai/billing_not_active.json",
        "openai/request_too_large.json", "openai/slow_down.json";
    500: "anthropic/api_error.json", "openai/server_error.json";
    503:
        "codex/server_is_overloaded.json", "openai/server_is_overloaded.json",
        "codex/slow_down.json";
    504: "anthropic/timeout_error.json";
    529: "anthropic/overloaded_error.json";
}

/// The values that fill the template places of one answer.
#[derive(Clone, Debug)]
pub struct Fill {
    /// Random, `[0-9a-f]`.
    pub id: String,
    /// The model that the request named.
    pub model: String,
    /// The answer text.
    pub text: String,
    /// In how many deltas a stream carries the text.
    pub pieces: usize,
    /// Tokens of the request.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// The time at which the answer is made.
    pub now: UnixMillis,
}

impl Fixture {
    /// The fixture of that path below `tests/fixtures/`.
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|fixture| fixture.name == name)
    }

    /// The status that the platform sends these bytes with.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The answer: status, content type and the filled body.
    pub fn answer(&self, fill: &Fill) -> Answer {
        let mut answer = match self.name.rsplit_once('.') {
            Some((_, "sse")) => Answer::events(fill.events(self.text)),
            Some((_, "html")) => Answer::whole(self.status(), "text/html", fill.text(self.text)),
            _ => Answer::json(self.status(), fill.text(self.text)),
        };
        answer.status = self.status();
        answer
    }
}

/// The fixture of a name that is known when this crate is built: a wrong one does not compile.
macro_rules! fixture {
    ($name:literal) => {
        const { $crate::fixtures::named($name) }
    };
}
pub(crate) use fixture;

/// Checks a fixture at compile time, for `fixture!`.
///
/// # Panics
///
/// If there is no such fixture.
pub(crate) const fn named(name: &str) -> &'static Fixture {
    let mut index = 0;
    while index < ALL.len() {
        if equal(ALL[index].name.as_bytes(), name.as_bytes()) {
            return &ALL[index];
        }
        index += 1;
    }
    panic!("no such fixture in fixtures.rs");
}

const fn equal(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < left.len() && index < right.len() && left[index] == right[index] {
        index += 1;
    }
    index == left.len() && index == right.len()
}

impl Fill {
    /// Fills a whole text.
    fn text(&self, template: &str) -> String {
        self.fill(template, &self.text)
    }

    /// Fills a stream and cuts it into its events, each with its closing blank line.
    fn events(&self, template: &str) -> Vec<String> {
        let mut events = Vec::new();
        for event in template.split_inclusive("\n\n") {
            if event.contains("fixture delta") {
                events.extend(pieces(&self.text, self.pieces).map(|piece| self.fill(event, piece)));
            } else {
                events.push(self.fill(event, &self.text));
            }
        }
        for (number, event) in events.iter_mut().enumerate() {
            renumber(event, number);
        }
        events
    }

    fn fill(&self, template: &str, text: &str) -> String {
        let total = self.input_tokens + self.output_tokens;
        let text = json_escaped(text);
        template
            .replace(":1001", &format!(":{}", self.input_tokens))
            .replace(":2002", &format!(":{}", self.output_tokens))
            .replace(":3003", &format!(":{total}"))
            .replace("1790000000", &self.now.seconds().to_string())
            .replace(
                "1790003600",
                &self.now.plus_seconds(RESET_SECONDS).seconds().to_string(),
            )
            .replace("FIXTUREID", &self.id)
            .replace("fixture-model", &json_escaped(&self.model))
            .replace("fixture text", &text)
            .replace("fixture delta", &text)
    }
}

impl Payload {
    /// Leaves out the events that hold `needle`.
    pub fn without_events(self, needle: &str) -> Self {
        match self {
            Self::Events(events) => Self::Events(
                events
                    .into_iter()
                    .filter(|event| !event.contains(needle))
                    .collect(),
            ),
            whole @ Self::Whole(_) => whole,
        }
    }
}

/// The text in at most `count` pieces of about the same length, cut between characters.
pub fn pieces(text: &str, count: usize) -> impl Iterator<Item = &str> {
    let size = text.len().div_ceil(count.max(1)).max(1);
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut at = size.min(rest.len());
        while !rest.is_char_boundary(at) {
            at += 1;
        }
        let (piece, tail) = rest.split_at(at);
        rest = tail;
        Some(piece)
    })
}

fn renumber(event: &mut String, number: usize) {
    const KEY: &str = "\"sequence_number\":";
    if let Some(start) = event.find(KEY).map(|at| at + KEY.len()) {
        let digits = event[start..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        event.replace_range(start..start + digits, &number.to_string());
    }
}

fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn fill() -> Fill {
        Fill {
            id: "abc".into(),
            model: "m\"1".into(),
            text: "Grüße: \"he said\"\n1001 fine".into(),
            pieces: 4,
            input_tokens: 7,
            output_tokens: 9,
            now: UnixMillis(1_000_000),
        }
    }

    fn data(event: &str) -> Option<Value> {
        let line = event.lines().find_map(|line| line.strip_prefix("data: "))?;
        serde_json::from_str(line).ok()
    }

    #[test]
    fn every_filled_fixture_is_still_wire_format() {
        for fixture in ALL {
            match fixture.answer(&fill()).body {
                Payload::Whole(body) if fixture.name.ends_with(".json") => {
                    serde_json::from_slice::<Value>(&body).expect(fixture.name);
                }
                Payload::Whole(_) => {}
                Payload::Events(events) => {
                    for event in events {
                        assert!(event.ends_with("\n\n"), "{}: {event:?}", fixture.name);
                        assert!(
                            data(&event).is_some() || event == "data: [DONE]\n\n",
                            "{}: {event:?}",
                            fixture.name
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_file_is_in_the_list() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");
        for platform in ["anthropic", "codex", "openai"] {
            for entry in std::fs::read_dir(format!("{root}/{platform}")).expect("directory") {
                let file = entry.expect("entry").file_name();
                let name = format!("{platform}/{}", file.to_string_lossy());
                assert!(
                    Fixture::find(&name).is_some(),
                    "{name} is not in fixtures.rs"
                );
            }
        }
    }

    #[test]
    fn deltas_add_up_to_the_text_and_numbers_run() {
        let Payload::Events(events) = fixture!("codex/response.sse").answer(&fill()).body else {
            panic!("not a stream");
        };
        let values: Vec<Value> = events.iter().filter_map(|event| data(event)).collect();
        let text: String = values
            .iter()
            .filter(|value| value["type"] == "response.output_text.delta")
            .filter_map(|value| value["delta"].as_str())
            .collect();
        assert_eq!(text, fill().text);
        for (number, value) in values.iter().enumerate() {
            assert_eq!(value["sequence_number"], number);
        }
        let usage = &values.last().expect("completed")["response"]["usage"];
        assert_eq!(
            (&usage["input_tokens"], &usage["total_tokens"]),
            (&7.into(), &16.into())
        );
    }
}
