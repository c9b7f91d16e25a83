//! The request headers that each platform takes: the simulator's own lists, written from what real
//! clients send, so that whatever a gateway adds or forgets to take off is refused.
//!
//! They are what Codex CLI, Claude Code and the official OpenAI and Anthropic SDKs send.

use http::{HeaderMap, header};

use crate::platform::Platform;

/// HTTP itself, and what every client sends.
const COMMON: &[&str] = &[
    "accept",
    "accept-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "user-agent",
];

/// Codex's own, and the OpenAI SDK's: its callers speak the same Responses API.
const CODEX: &[&str] = &[
    "authorization",
    "chatgpt-account-id",
    "conversation_id",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "originator",
    "session-id",
    "session_id",
    "thread-id",
    "version",
    "x-client-request-id",
    "x-codex-*",
    "x-oai-attestation",
    "x-openai-account-routing-override",
    "x-openai-fedramp",
    "x-openai-internal-codex-residency",
    "x-openai-internal-codex-responses-lite",
    "x-openai-memgen-request",
    "x-openai-subagent",
    "x-responsesapi-include-timing-metrics",
    "x-stainless-*",
];

/// The OpenAI SDK's, and Codex's in API key mode.
const OPENAI: &[&str] = &[
    "authorization",
    "conversation_id",
    "idempotency-key",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "originator",
    "session-id",
    "session_id",
    "thread-id",
    "version",
    "x-client-request-id",
    "x-codex-*",
    "x-openai-internal-codex-responses-lite",
    "x-openai-memgen-request",
    "x-openai-subagent",
    "x-stainless-*",
];

const ANTHROPIC: &[&str] = &[
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "anthropic-version",
    "authorization",
    "x-api-key",
    "x-app",
    "x-claude-code-agent-id",
    "x-claude-code-parent-agent-id",
    "x-claude-code-session-id",
    "x-client-request-id",
    "x-stainless-*",
];

/// Headers that can carry a credential; a request has at most one, once.
pub const CREDENTIALS: &[&str] = &[
    "api-key",
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
];

/// The reason for which a request was refused before anybody looked at its credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The header at fault, in lower case.
    pub header: String,
    /// The mistake in it; never its value.
    pub reason: &'static str,
}

/// Checks names, credential count, content encoding and authority of an upstream request.
///
/// `authorities` are the simulator's own `host:port`; `authority` is `host` or `:authority`.
pub fn check(
    platform: Platform,
    headers: &HeaderMap,
    authority: Option<&str>,
    authorities: &[String],
) -> Result<(), Refusal> {
    let platform_headers = match platform {
        Platform::Codex => CODEX,
        Platform::OpenAi => OPENAI,
        Platform::Anthropic => ANTHROPIC,
    };
    only(headers, platform_headers, authority, authorities)
}

/// The same of a platform that takes `platform_headers` beside those that every client sends.
pub fn only<'a>(
    headers: &HeaderMap,
    platform_headers: impl IntoIterator<Item = &'a &'static str>,
    authority: Option<&str>,
    authorities: &[String],
) -> Result<(), Refusal> {
    let platform_headers: Vec<&str> = platform_headers.into_iter().copied().collect();
    for name in headers.keys() {
        let name = name.as_str();
        if !listed(COMMON, name) && !listed(&platform_headers, name) {
            return refuse(name, "not in the platform's allow-list");
        }
    }
    let mut credentials = CREDENTIALS
        .iter()
        .flat_map(|name| headers.get_all(*name).iter().map(move |_| *name));
    if let (Some(_), Some(second)) = (credentials.next(), credentials.next()) {
        return refuse(second, "more than one credential");
    }
    if headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .any(|value| value != "identity")
    {
        return refuse("accept-encoding", "only identity is taken");
    }
    if !authority.is_some_and(|authority| authorities.iter().any(|own| own == authority)) {
        return refuse("host", "not this platform's authority");
    }
    Ok(())
}

fn listed(list: &[&str], name: &str) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => *entry == name,
    })
}

fn refuse(header: &str, reason: &'static str) -> Result<(), Refusal> {
    Err(Refusal {
        header: header.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn refused(platform: Platform, headers: &[(&str, &str)], authority: &str) -> Option<String> {
        let map = headers
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().expect("name"),
                    HeaderValue::from_str(value).expect("value"),
                )
            })
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            });
        check(platform, &map, Some(authority), &["sim:1".to_owned()])
            .err()
            .map(|refusal| refusal.header)
    }

    #[test]
    fn takes_what_codex_sends() {
        let headers = [
            ("version", "0.169.0"),
            ("x-codex-beta-features", "remote_compaction_v2"),
            ("x-client-request-id", "t"),
            ("session-id", "s"),
            ("thread-id", "t"),
            ("accept", "text/event-stream"),
            ("content-type", "application/json"),
            ("authorization", "Bearer a"),
            ("chatgpt-account-id", "i"),
            ("originator", "codex_exec"),
            ("user-agent", "codex_exec/0.169.0"),
            ("host", "sim:1"),
            ("content-length", "2"),
        ];
        assert_eq!(refused(Platform::Codex, &headers, "sim:1"), None);
    }

    /// Seen on the wire from codex 0.169.0 with a provider of its own and an API key.
    #[test]
    fn takes_what_codex_sends_with_an_api_key() {
        let headers = [
            ("x-codex-beta-features", "remote_compaction_v2"),
            ("x-codex-window-id", "t:0"),
            ("x-codex-turn-metadata", "{}"),
            ("x-openai-internal-codex-responses-lite", "true"),
            ("x-client-request-id", "t"),
            ("session-id", "s"),
            ("thread-id", "t"),
            ("accept", "text/event-stream"),
            ("content-type", "application/json"),
            ("authorization", "Bearer sk-1"),
            ("originator", "codex_exec"),
            ("user-agent", "codex_exec/0.169.0"),
            ("content-length", "2"),
        ];
        assert_eq!(refused(Platform::OpenAi, &headers, "sim:1"), None);
    }

    #[test]
    fn refuses_what_a_gateway_adds() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-envoy-attempt-count",
            "x-envoy-expected-rq-timeout-ms",
            "x-latchkey-cluster",
            "x-request-id",
            "cookie",
            "via",
            "forwarded",
            "te",
            "content-encoding",
        ] {
            for platform in Platform::ALL {
                assert_eq!(
                    refused(platform, &[(name, "x")], "sim:1").as_deref(),
                    Some(name),
                    "{platform:?}"
                );
            }
        }
    }

    #[test]
    fn refuses_a_second_credential_wherever_it_is() {
        let both = [("x-api-key", "a"), ("authorization", "Bearer b")];
        assert_eq!(
            refused(Platform::Anthropic, &both, "sim:1").as_deref(),
            Some("x-api-key")
        );
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert_eq!(
            refused(Platform::OpenAi, &twice, "sim:1").as_deref(),
            Some("authorization")
        );
    }

    #[test]
    fn refuses_another_authority_and_compression() {
        assert_eq!(
            refused(Platform::OpenAi, &[], "gateway:80").as_deref(),
            Some("host")
        );
        let gzip = [("accept-encoding", "gzip")];
        assert_eq!(
            refused(Platform::OpenAi, &gzip, "sim:1").as_deref(),
            Some("accept-encoding")
        );
    }
}
