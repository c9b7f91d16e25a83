//! The meaning of a token endpoint's answer for the login. Pure.
//!
//! RFC 6749's codes end a login, and what the profile lists besides: codes, and statuses of whatever an answer says. A 401
//! or 403 that says nothing known is no such answer: a proxy or a filter before the endpoint says that too, and nobody
//! should have to log in again for it. What the endpoint said is never quoted: only its status and error codes that are
//! known beforehand reach a message.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use latchkey::header::MAX_VALUE_BYTES;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::claims::{self, Claims, TOKEN_LIMIT};
use crate::clock::UnixMillis;
use crate::credential::{ClientCredentials, Credential, OAuthTokens, SignedKey};
use crate::failing::Failure;
use crate::platform::oauth::{Ends, Members};

/// The furthest expiry believed; a token that claims more is refreshed after a year.
pub const EXPIRY_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The longest life that a token claims for itself and is believed, where nobody else announced one as long: that of a
/// token that claims nothing. The claim is a hint that nobody verified; a platform that says otherwise answers 401, and the
/// next token is there at once.
pub const CLAIMED_LIFE: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Unix time up to here is in seconds, beyond it in milliseconds: the year 5138, and March of 1973.
const MAX_SECONDS: i64 = 100_000_000_000;

/// The refresh token is worth nothing any more (RFC 6749 §5.2, which sends it with 400).
const INVALID_GRANT: &str = "invalid_grant";

/// The client is not known, or may not do this (RFC 6749 §5.2): of no login that it has is there another answer.
const CLIENT_IS_REFUSED: [&str; 2] = ["invalid_client", "unauthorized_client"];

/// The server's own trouble, as RFC 6749 §4.1.2.1 names it.
const TROUBLE: [&str; 2] = ["server_error", "temporarily_unavailable"];

/// Error codes of RFC 6749 §5.2 and the like, safe to name in a message although no profile lists them.
const NAMEABLE: &[&str] = &[
    "access_denied",
    CLIENT_IS_REFUSED[0],
    INVALID_GRANT,
    "invalid_request",
    "invalid_scope",
    TROUBLE[0],
    TROUBLE[1],
    "token_expired",
    CLIENT_IS_REFUSED[1],
    "unsupported_grant_type",
];

/// A whole HTTP answer of a token endpoint.
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// From the `Retry-After` header.
    pub retry_after: Option<Duration>,
    /// The body, bounded by the client that read it. It may hold tokens.
    pub body: zeroize::Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Answer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The tokens in an answer. What is absent stays as it was (RFC 6749 §6; OpenAI's server leaves out what it keeps).
#[derive(Debug, Clone)]
pub struct Grant {
    /// The access token and its expiry, `None` where that is unknown.
    pub access: Option<(SecretString, Option<UnixMillis>)>,
    /// The refresh token.
    pub refresh: Option<SecretString>,
    /// OpenID Connect's id token.
    pub id: Option<SecretString>,
    /// The time when the login ends for good, which no refresh moves: the refresh token's end, where it is told.
    pub login_ends_at: Option<UnixMillis>,
    /// There was an access token, and it is longer than a header's value may be ([`MAX_VALUE_BYTES`]): no request could
    /// carry it.
    pub is_too_long: bool,
    /// The account's vars, as far as the answer itself tells them.
    pub vars: BTreeMap<String, String>,
}

impl Grant {
    /// Returns what this answer tells of the login's end: an end, that none is known any more, or nothing.
    pub fn login_end(&self) -> Option<Option<UnixMillis>> {
        (self.refresh.is_some() || self.login_ends_at.is_some()).then_some(self.login_ends_at)
    }

    /// The `old` credential with these tokens where there are any, and its expiry.
    pub fn over(
        self,
        old: &Credential,
        old_expiry: Option<UnixMillis>,
    ) -> (Credential, Option<UnixMillis>) {
        let (access, expires_at) = self
            .access
            .unwrap_or_else(|| (old.on_the_wire().clone(), old_expiry));
        let credential = match old {
            Credential::OAuth(old) => Credential::OAuth(OAuthTokens {
                access,
                refresh: self.refresh.unwrap_or_else(|| old.refresh.clone()),
                id: self.id.or_else(|| old.id.clone()),
                client: old.client.clone(),
            }),
            Credential::Client(old) => Credential::Client(ClientCredentials {
                access,
                // Where its secret buys tokens, a refresh token beside one is of no use.
                refresh: old
                    .refresh
                    .as_ref()
                    .map(|old| self.refresh.unwrap_or_else(|| old.clone())),
                ..old.clone()
            }),
            Credential::Signed(old) => Credential::Signed(SignedKey {
                token: access,
                ..old.clone()
            }),
            Credential::ApiKey(_) | Credential::Session(_) => old.clone(),
        };
        (credential, expires_at)
    }
}

/// The outcome of one call to a token endpoint.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// New tokens; the refresh token that was sent is spent.
    Fresh(Grant),
    /// No, for now. The refresh token that was sent is still good.
    Transient {
        /// The pause that the server asked for.
        retry_after: Option<Duration>,
        /// Refused or troubled.
        how: Failure,
        /// For the log.
        reason: String,
    },
    /// The login has ended; a person must log in again.
    Permanent {
        /// For the log and `refresher status`.
        reason: String,
    },
    /// Nothing was sent (no connection): the refresh token is as good as before.
    NotSent {
        /// For the log.
        reason: String,
    },
    /// A success whose body is no JSON: a page of something before the token endpoint, which then never saw the request;
    /// or one in the place of its answer.
    Page {
        /// For the log.
        reason: String,
    },
    /// The request went out, or may have, and no whole answer came: the refresh token may be spent.
    Unknown {
        /// For the log.
        reason: String,
    },
}

/// Reads a token endpoint's answer, whose parts stand at `members`. `ends` is what ends a login by the profile.
pub fn classify(answer: &Answer, members: &Members, ends: &Ends, now: UnixMillis) -> Outcome {
    let body: Option<Map<String, Value>> = serde_json::from_slice(&answer.body).ok();
    let success = (200..300).contains(&answer.status);
    if success && let Some(grant) = body.as_ref().and_then(|body| grant(body, members, now)) {
        return match grant.access.is_none() && grant.refresh.is_none() {
            false => Outcome::Fresh(grant),
            // What was sent is still good: the answer has nothing in its place.
            true => Outcome::Transient {
                retry_after: None,
                how: Failure::Troubled,
                reason: format!("the access token granted is longer than {MAX_VALUE_BYTES} bytes"),
            },
        };
    }
    let code = body.as_ref().and_then(error_code);
    let reason = reason(answer.status, code, &ends.codes);
    if is_permanent(answer.status, code, ends) {
        Outcome::Permanent { reason }
    } else if success && is_page(answer) {
        Outcome::Page {
            reason: format!(
                "HTTP {} with a page in place of the token endpoint's answer",
                answer.status
            ),
        }
    } else if success && code.is_none() {
        // It was accepted, so the refresh token may be spent, but the new one cannot be read.
        Outcome::Unknown {
            reason: format!("HTTP {} without readable tokens", answer.status),
        }
    } else {
        Outcome::Transient {
            retry_after: answer.retry_after,
            how: failure(answer.status, code),
            reason,
        }
    }
}

/// True for a body that is something else than JSON. One that is cut short, or empty, may have had tokens in it.
pub fn is_page(answer: &Answer) -> bool {
    let first = answer.body.iter().find(|byte| !byte.is_ascii_whitespace());
    first.is_some_and(|first| !matches!(first, b'{' | b'[' | b'"'))
        && serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_err()
}

fn is_permanent(status: u16, code: Option<&str>, ends: &Ends) -> bool {
    let is = |code: &str, known: &str| known.eq_ignore_ascii_case(code);
    let listed = |code: &str| ends.codes.iter().any(|known| is(code, known));
    let refuses_client = |code: &str| CLIENT_IS_REFUSED.iter().any(|known| is(code, known));
    match (status, code) {
        (status, _) if ends.statuses.contains(&status) => true,
        (400 | 401, Some(code)) if is(code, INVALID_GRANT) => true,
        (401, Some(code)) if refuses_client(code) => true,
        (200..=299, Some(code)) => listed(code),
        (_, Some(code)) => !is(code, INVALID_GRANT) && listed(code),
        (_, None) => false,
    }
}

/// Sorts failures: a "no" to the login, its client or the sender, which as a rule does not pass by itself; or trouble
/// of the server's.
fn failure(status: u16, code: Option<&str>) -> Failure {
    let is_trouble = |code: &str| TROUBLE.iter().any(|known| known.eq_ignore_ascii_case(code));
    match status {
        _ if code.is_some_and(is_trouble) => Failure::Troubled,
        // Request Timeout, Too Early, Too Many Requests.
        408 | 425 | 429 => Failure::Troubled,
        200..=299 | 400..=499 => Failure::Refused,
        _ => Failure::Troubled,
    }
}

/// `error.code` of an object, else `error` if it is text, else `code`.
fn error_code(body: &Map<String, Value>) -> Option<&str> {
    match body.get("error") {
        Some(Value::Object(error)) => error.get("code").and_then(Value::as_str),
        Some(Value::String(code)) => Some(code),
        _ => body.get("code").and_then(Value::as_str),
    }
}

/// The answer in words. A code is named only if we knew it before the server said it: a hostile or broken server could
/// echo a token in its place.
pub fn reason(status: u16, code: Option<&str>, permanent: &[String]) -> String {
    let known = permanent
        .iter()
        .map(String::as_str)
        .chain(NAMEABLE.iter().copied());
    match code.and_then(|code| {
        known
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(code))
    }) {
        Some(code) => format!("{code} (HTTP {status})"),
        None if (300..400).contains(&status) => {
            format!("HTTP {status}, a redirect, which is not followed")
        }
        None => format!("HTTP {status}"),
    }
}

/// The error code of an answer, as the server wrote it: to compare, not to show.
pub fn error_code_of(answer: &Answer) -> Option<String> {
    let body: Map<String, Value> = serde_json::from_slice(&answer.body).ok()?;
    error_code(&body).map(str::to_owned)
}

/// The error code of an answer in words, as in [`Outcome`]'s reasons, for an exchange that failed.
pub fn refusal(answer: &Answer) -> String {
    refusal_by(answer, &[])
}

/// The same, where the profile's `permanent` codes may be named too.
pub fn refusal_by(answer: &Answer, permanent: &[String]) -> String {
    let body: Option<Map<String, Value>> = serde_json::from_slice(&answer.body).ok();
    reason(answer.status, body.as_ref().and_then(error_code), permanent)
}

/// The tokens in a body; `None` if there are none. One that no request could carry is left out.
pub fn grant(body: &Map<String, Value>, members: &Members, now: UnixMillis) -> Option<Grant> {
    let token = |name: &str| {
        member(body, name)
            .and_then(Value::as_str)
            .filter(|token| is_token(token))
            .map(SecretString::from)
    };
    let access = token(&members.access_token);
    let is_long = |access: &SecretString| access.expose_secret().len() > MAX_VALUE_BYTES;
    let is_too_long = access.as_ref().is_some_and(is_long);
    let access = access.filter(|access| !is_long(access)).map(|access| {
        let lifetime = member(body, &members.expires_in).and_then(claims::lifetime);
        let end = members.expires_at.as_deref();
        let end = end.and_then(|name| moment(member(body, name)?));
        let announced = end.or(lifetime.map(|lifetime| now.plus(lifetime)));
        let expires_at = expiry(&access, announced, now);
        (access, expires_at)
    });
    let (refresh, id) = (token("refresh_token"), token("id_token"));
    let login_ends_at = login_end(body, refresh.as_ref(), now);
    let told = members.claims.iter();
    let vars = told.filter_map(|(name, pointer)| {
        let told = claims::text(member(body, pointer)?)?;
        Some((name.clone(), told))
    });
    (access.is_some() || refresh.is_some() || is_too_long).then_some(Grant {
        access,
        refresh,
        id,
        login_ends_at,
        is_too_long,
        vars: vars.collect(),
    })
}

/// The members in which servers tell how long a refresh token lives: those of Google and GitHub, and of Keycloak.
const REFRESH_LIFETIMES: [&str; 2] = ["refresh_token_expires_in", "refresh_expires_in"];

/// Returns the end of a refresh token issued `now`: its announced lifetime, else its `exp`. Only a hint, so one that
/// seems to be past is not believed. Keycloak says 0 for a token without an end.
fn login_end(
    body: &Map<String, Value>,
    refresh: Option<&SecretString>,
    now: UnixMillis,
) -> Option<UnixMillis> {
    let lifetimes = REFRESH_LIFETIMES.iter().filter_map(|name| body.get(*name));
    let announced = lifetimes.filter_map(claims::lifetime).next();
    match announced {
        Some(lifetime) => Some(now.plus(lifetime)),
        None => Claims::decode_unverified(refresh?).and_then(|claims| claims.expiry()),
    }
    .filter(|end| *end > now)
}

/// A token goes into a header: visible ASCII (RFC 6749 appendix A.12), and bounded.
pub(crate) fn is_token(token: &str) -> bool {
    (1..=TOKEN_LIMIT).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A member of a body: by its name, or by a JSON pointer.
fn member<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(path) = name.strip_prefix('/') else {
        return body.get(name);
    };
    match path.split_once('/') {
        None => body.get(path),
        Some((first, _)) => body.get(first)?.pointer(path.get(first.len()..)?),
    }
}

/// A time as RFC 3339 has it, or Unix time.
fn moment(value: &Value) -> Option<UnixMillis> {
    match value {
        Value::String(text) => {
            let time: Timestamp = text.trim().parse().ok()?;
            Some(UnixMillis(time.as_millisecond()))
        }
        value => match value.as_i64()? {
            seconds @ 0..=MAX_SECONDS => Some(UnixMillis(seconds * 1_000)),
            milliseconds => Some(UnixMillis(milliseconds)),
        },
    }
}

/// Returns the end of a token issued just `now`: its `exp` as far as that is [believed](believed), else its announced
/// end, at most [`EXPIRY_LIMIT`] away. A new token that seems to have expired already shows that the clocks disagree, and is believed in neither.
fn expiry(
    access: &SecretString,
    announced: Option<UnixMillis>,
    now: UnixMillis,
) -> Option<UnixMillis> {
    let is_to_come = |end: &UnixMillis| *end > now;
    let announced = announced.filter(is_to_come);
    let claimed = Claims::decode_unverified(access).and_then(|claims| claims.expiry());
    let claimed = claimed.filter(is_to_come);
    let expires = claimed
        .map(|end| believed(end, announced, now))
        .or(announced)?;
    Some(expires.min(now.plus(EXPIRY_LIMIT)))
}

/// The end that a token claims, but no later than in [`CLAIMED_LIFE`], or than somebody announced.
pub fn believed(claimed: UnixMillis, announced: Option<UnixMillis>, now: UnixMillis) -> UnixMillis {
    let latest = now.plus(CLAIMED_LIFE);
    claimed.min(announced.map_or(latest, |announced| announced.max(latest)))
}

#[cfg(test)]
mod tests;
