//! The rules by which a platform's answers are judged: data of its profile.
//!
//! A profile has them as `[[verdicts]]`, the first that matches decides. What no rule matches is
//! judged by its status alone ([`super::judge`]).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::Reason;
use crate::header::HeaderName;

/// The longest cooldown that a rule may give, in seconds: 32 days, a month's window.
pub const MAX_COOL_DOWN_SECONDS: u32 = 32 * 24 * 60 * 60;

/// The longest back-off from a platform in trouble, in seconds. Most overloads are over within
/// seconds, and an account that is left alone for minutes fails requests that it could serve.
pub const MAX_BACK_OFF_SECONDS: u32 = 60;

/// The most entries of one list.
const MAX_ENTRIES: usize = 64;

/// The longest code, header value or source of a time, in bytes.
const MAX_TEXT_BYTES: usize = 128;

/// The longest message of a rule, in bytes: whole ones are sentences.
const MAX_MESSAGE_BYTES: usize = 512;

/// Stands in a whole message for what differs from answer to answer: a date, a name.
const HOLE: &str = "{}";

/// The most that stands in such a place, in bytes.
const MAX_HOLE_BYTES: usize = 64;

/// The statuses that speak of the account whatever was asked: no access, no money, too much.
pub const OF_THE_ACCOUNT: [u16; 3] = [401, 402, 429];

/// A condition on an answer, and its meaning for the account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Rule {
    /// The conditions on the answer.
    #[serde(flatten)]
    pub condition: Condition,
    /// Its meaning.
    #[serde(flatten)]
    pub ruling: Ruling,
}

/// A [`Rule`] before its bounds are checked.
#[derive(Deserialize)]
struct Written {
    #[serde(flatten)]
    condition: Condition,
    #[serde(flatten)]
    ruling: Ruling,
}

/// The conditions on an answer: all that is given must hold, of a list one entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The HTTP status; for an error inside HTTP 200, the status that the error names, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<StatusPattern>,
    /// The error's code, type or status word, in any case; `html` is a page for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub code: Vec<String>,
    /// The error's message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub message: Vec<MessagePattern>,
    /// Headers that must be there with one of these values, in any case; no values mean any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<HeaderName, Vec<String>>,
    /// The place of the error: inside HTTP 200, or not. Left out, either is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_stream: Option<bool>,
}

/// A status (`429`) or a class of them (`"5xx"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenStatus", into = "WrittenStatus")]
pub enum StatusPattern {
    /// A single status.
    Exact(u16),
    /// All that start with this digit.
    Class(u16),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenStatus {
    Exact(u16),
    Class(String),
}

/// A pattern for a message, in any case of letters: the whole, or with a `*` where more may stand.
///
/// Platforms repeat the caller's input in their messages, at the beginning (`<member>: Extra inputs
/// are not permitted`) and inside. So only a rule of the caller's fault may look at a part: otherwise a
/// caller could have accounts taken out by sending the right sentence as the name of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MessagePattern {
    /// `text`: all of it, but for a full stop at its end. Between two of these parts, in lower case,
    /// stands a [`HOLE`].
    Whole(Vec<String>),
    /// `text*`: its beginning, in lower case.
    Start(String),
    /// `*text`: a part of it, in lower case.
    Anywhere(String),
}

/// The meaning of an answer for the account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Ruling {
    /// Nothing is wrong.
    Fine,
    /// The account may not be used for a while.
    CoolingDown {
        /// The part of the account that cools down.
        scope: RuleScope,
        /// The places where the end may stand. The first that names a moment to come is taken.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        until: Vec<TimeSource>,
        /// The seconds where no source has them: 1 to `max_seconds`.
        default_seconds: u32,
        /// The longest that is believed, at most [`MAX_COOL_DOWN_SECONDS`].
        max_seconds: u32,
        /// The reason, for people and metrics.
        #[serde(default = "Reason::rate_limited")]
        reason: Reason,
    },
    /// The credential is no longer accepted; a new one may be.
    CredentialExpired,
    /// The account is of no use until somebody sees to it.
    Dead {
        /// The reason, for people and metrics.
        reason: Reason,
    },
    /// The platform is at fault, with every account.
    PlatformTrouble {
        /// The seconds to leave it alone, at most [`MAX_BACK_OFF_SECONDS`].
        seconds: u32,
    },
    /// Any account would be answered so.
    CallersFault,
}

/// The part of the account that cools down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleScope {
    /// The account.
    Account,
    /// The account for the model that was asked of it.
    Model,
}

/// A place of an answer where the end of a cooldown may stand. The form is told by the value
/// ([`super::time`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TimeSource {
    /// `header:retry-after`
    Header(HeaderName),
    /// `body:resets_at`: a field of the error or of its details.
    Body(String),
    /// `message`: "try again in 1.5s".
    Message,
    /// `exhausted_windows`, `exhausted_windows:5h,7d`: the latest end of the account's windows
    /// (of these names) that the answer says are used up.
    ExhaustedWindows(Vec<String>),
}

/// The reason why a rule is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRule(&'static str);

// === impl Rule ===

impl Rule {
    /// Returns true if it may take one model of an account out alone.
    pub fn limits_models(&self) -> bool {
        let scope = match &self.ruling {
            Ruling::CoolingDown { scope, .. } => Some(*scope),
            _ => None,
        };
        scope == Some(RuleScope::Model)
    }
}

impl TryFrom<Written> for Rule {
    type Error = InvalidRule;

    fn try_from(written: Written) -> Result<Self, InvalidRule> {
        let Written { condition, ruling } = written;
        condition.check()?;
        condition.bears(&ruling)?;
        ruling.check()?;
        Ok(Self { condition, ruling })
    }
}

impl Condition {
    fn check(&self) -> Result<(), InvalidRule> {
        let Self {
            status,
            code,
            message,
            header,
            in_stream: _,
        } = self;
        let sizes = [status.len(), code.len(), message.len(), header.len()];
        if sizes == [0; 4] {
            return Err(InvalidRule(
                "expected a status, code, message or header to match",
            ));
        }
        let values = || header.values();
        if sizes.iter().any(|size| *size > MAX_ENTRIES) || values().any(|v| v.len() > MAX_ENTRIES) {
            return Err(InvalidRule("expected at most 64 entries in a list"));
        }
        let fits = |text: &String| (1..=MAX_TEXT_BYTES).contains(&text.len());
        if !code.iter().chain(values().flatten()).all(fits) {
            return Err(InvalidRule("expected texts of 1 to 128 bytes"));
        }
        Ok(())
    }

    /// Refuses a `ruling` that says more than the condition can know.
    fn bears(&self, ruling: &Ruling) -> Result<(), InvalidRule> {
        let is_whole = |pattern: &MessagePattern| matches!(pattern, MessagePattern::Whole(_));
        if *ruling != Ruling::CallersFault && !self.message.iter().all(is_whole) {
            return Err(InvalidRule(
                "expected the whole message; a part of it ('*') is for callers_fault alone, since a \
                 caller can have its own text repeated in a message",
            ));
        }
        let says_more = [self.code.len(), self.message.len(), self.header.len()] != [0; 3];
        let alone = |statuses: &[StatusPattern]| self.status.iter().all(|of| statuses.contains(of));
        let fits = match ruling {
            _ if says_more => true,
            Ruling::Fine | Ruling::CallersFault => true,
            Ruling::PlatformTrouble { .. } => {
                let is_servers = |of: &StatusPattern| of.class() == 5;
                self.status.iter().all(is_servers)
            }
            Ruling::CoolingDown { .. } | Ruling::CredentialExpired | Ruling::Dead { .. } => {
                alone(&OF_THE_ACCOUNT.map(StatusPattern::Exact))
            }
        };
        if fits {
            return Ok(());
        }
        Err(InvalidRule(
            "expected a code, a header or a whole message as well: of the statuses, only 401, 402 and \
             429 speak of the account by themselves, and 5xx of the platform",
        ))
    }
}

impl Ruling {
    fn check(&self) -> Result<(), InvalidRule> {
        match self {
            Self::CoolingDown {
                until,
                default_seconds,
                max_seconds,
                ..
            } => {
                let in_order = (1..=*max_seconds).contains(default_seconds);
                if !in_order || *max_seconds > MAX_COOL_DOWN_SECONDS || until.len() > MAX_ENTRIES {
                    return Err(InvalidRule(
                        "expected 1 <= default_seconds <= max_seconds <= 2764800",
                    ));
                }
            }
            Self::PlatformTrouble { seconds } => {
                if !(1..=MAX_BACK_OFF_SECONDS).contains(seconds) {
                    return Err(InvalidRule("expected seconds from 1 to 60"));
                }
            }
            Self::Fine | Self::CredentialExpired | Self::Dead { .. } | Self::CallersFault => {}
        }
        Ok(())
    }
}

// === impl StatusPattern ===

impl StatusPattern {
    /// Returns true if `status` is such.
    pub fn matches(self, status: u16) -> bool {
        match self {
            Self::Exact(exact) => status == exact,
            Self::Class(class) => status / 100 == class,
        }
    }

    /// The first digit of what it matches.
    fn class(self) -> u16 {
        match self {
            Self::Exact(status) => status / 100,
            Self::Class(class) => class,
        }
    }
}

impl TryFrom<WrittenStatus> for StatusPattern {
    type Error = InvalidRule;

    fn try_from(written: WrittenStatus) -> Result<Self, InvalidRule> {
        let class = match &written {
            WrittenStatus::Exact(status @ 100..=599) => return Ok(Self::Exact(*status)),
            WrittenStatus::Exact(_) => None,
            WrittenStatus::Class(class) => match class.as_bytes() {
                [digit @ b'1'..=b'5', b'x', b'x'] => Some(digit.saturating_sub(b'0')),
                _ => None,
            },
        };
        class
            .map(|digit| Self::Class(digit.into()))
            .ok_or(InvalidRule("expected a status such as 429 or \"5xx\""))
    }
}

impl From<StatusPattern> for WrittenStatus {
    fn from(pattern: StatusPattern) -> Self {
        match pattern {
            StatusPattern::Exact(status) => Self::Exact(status),
            StatusPattern::Class(class) => Self::Class(format!("{class}xx")),
        }
    }
}

// === impl MessagePattern ===

impl MessagePattern {
    /// Returns true if a message, in lower case, is such.
    pub fn matches(&self, lower_case_message: &str) -> bool {
        match self {
            Self::Whole(parts) => is_whole(parts, without_stop(lower_case_message)),
            Self::Start(start) => lower_case_message.starts_with(start),
            Self::Anywhere(part) => lower_case_message.contains(part),
        }
    }
}

/// A message without white space around it and a full stop at its end.
fn without_stop(message: &str) -> &str {
    let message = message.trim();
    message.strip_suffix('.').unwrap_or(message)
}

/// Returns true if `message` is the `parts` with a short word or two between each two of them.
fn is_whole(parts: &[String], message: &str) -> bool {
    let [first, rest @ ..] = parts else {
        return false;
    };
    let Some(mut left) = message.strip_prefix(first.as_str()) else {
        return false;
    };
    let [middle @ .., last] = rest else {
        return left.is_empty();
    };
    for part in middle {
        match left.split_once(part.as_str()) {
            Some((hole, after)) if fits_hole(hole) => left = after,
            _ => return false,
        }
    }
    left.strip_suffix(last.as_str()).is_some_and(fits_hole)
}

/// Returns true if a text may stand in a [`HOLE`]: words, dates and masked keys (`sk-***yz`), and no sentence.
fn fits_hole(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b" _-.,:/*".contains(&byte);
    (1..=MAX_HOLE_BYTES).contains(&text.len()) && text.bytes().all(legal)
}

impl TryFrom<String> for MessagePattern {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Self, InvalidRule> {
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(InvalidRule("expected a message of at most 512 bytes"));
        }
        let text = text.to_ascii_lowercase();
        let unended = text.strip_suffix('*');
        let pattern = match (text.strip_prefix('*'), unended) {
            (Some(part), _) => Self::Anywhere(part.strip_suffix('*').unwrap_or(part).to_owned()),
            (None, Some(start)) => Self::Start(start.to_owned()),
            (None, None) => {
                let parts = without_stop(&text).split(HOLE);
                Self::Whole(parts.map(str::to_owned).collect())
            }
        };
        let says = match &pattern {
            Self::Whole(parts) => !parts.iter().any(String::is_empty),
            Self::Start(text) | Self::Anywhere(text) => !text.is_empty(),
        };
        if says {
            Ok(pattern)
        } else {
            Err(InvalidRule(
                "expected words in a message, and before and after each {} of a whole one",
            ))
        }
    }
}

impl From<MessagePattern> for String {
    fn from(pattern: MessagePattern) -> Self {
        match pattern {
            MessagePattern::Whole(parts) => parts.join(HOLE),
            MessagePattern::Start(start) => format!("{start}*"),
            MessagePattern::Anywhere(part) => format!("*{part}"),
        }
    }
}

// === impl TimeSource ===

impl TryFrom<String> for TimeSource {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Self, InvalidRule> {
        const EXPECTED: InvalidRule = InvalidRule(
            "expected header:NAME, body:FIELD, message, exhausted_windows or \
             exhausted_windows:NAME,NAME",
        );
        if text.len() > MAX_TEXT_BYTES {
            return Err(EXPECTED);
        }
        match text.split_once(':') {
            None if text == "message" => Ok(Self::Message),
            None if text == "exhausted_windows" => Ok(Self::ExhaustedWindows(Vec::new())),
            Some(("header", name)) => HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| EXPECTED),
            Some(("body", field)) if !field.is_empty() => Ok(Self::Body(field.to_owned())),
            Some(("exhausted_windows", names)) if !names.split(',').any(str::is_empty) => Ok(
                Self::ExhaustedWindows(names.split(',').map(str::to_owned).collect()),
            ),
            _ => Err(EXPECTED),
        }
    }
}

impl From<TimeSource> for String {
    fn from(source: TimeSource) -> Self {
        match source {
            TimeSource::Header(name) => format!("header:{}", name.as_str()),
            TimeSource::Body(field) => format!("body:{field}"),
            TimeSource::Message => "message".to_owned(),
            TimeSource::ExhaustedWindows(names) if names.is_empty() => {
                "exhausted_windows".to_owned()
            }
            TimeSource::ExhaustedWindows(names) => format!("exhausted_windows:{}", names.join(",")),
        }
    }
}

// === impl InvalidRule ===

impl fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidRule {}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"status":[429,"5xx"],"code":["a"],"message":["you"],"header":{"x-a":["b"],"x-c":[]},"in_stream":true,"verdict":"cooling_down","scope":"model","until":["header:retry-after","body:resets_at","message","exhausted_windows","exhausted_windows:5h,7d"],"default_seconds":5,"max_seconds":60,"reason":"slow"}"#;

    fn read(json: &str) -> Result<Rule, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_rule_survives_being_written() {
        let rule = read(WHOLE).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), WHOLE);
        let newer = WHOLE.replace("\"status\"", "\"colour\":\"blue\",\"status\"");
        assert_eq!(read(&newer).unwrap(), rule);
        for verdict in [
            r#"{"status":[401],"verdict":"credential_expired"}"#,
            r#"{"status":[402],"verdict":"dead","reason":"billing"}"#,
            r#"{"status":["5xx"],"verdict":"platform_trouble","seconds":5}"#,
            r#"{"message":["*extra usage"],"verdict":"callers_fault"}"#,
            r#"{"code":["none"],"verdict":"fine"}"#,
        ] {
            let rule = read(verdict).unwrap();
            assert_eq!(serde_json::to_string(&rule).unwrap(), verdict);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [
            r#"{"status":[401],"verdict":"tired"}"#,
            r#"{"status":[401]}"#,
            r#"{"verdict":"fine"}"#,
            r#"{"in_stream":true,"verdict":"fine"}"#,
            r#"{"status":[42],"verdict":"fine"}"#,
            r#"{"status":["6xx"],"verdict":"fine"}"#,
            r#"{"code":[""],"verdict":"fine"}"#,
            r#"{"message":[""],"verdict":"callers_fault"}"#,
            r#"{"message":["*"],"verdict":"callers_fault"}"#,
            r#"{"message":["*is disabled"],"verdict":"dead","reason":"banned"}"#,
            r#"{"message":["you are disabled*"],"verdict":"dead","reason":"banned"}"#,
            r#"{"code":["a"],"message":["whole","part*"],"verdict":"credential_expired"}"#,
            r#"{"message":["busy*"],"verdict":"platform_trouble","seconds":5}"#,
            r#"{"message":["back on {}"],"verdict":"dead","reason":"banned"}"#,
            r#"{"message":["{} is back"],"verdict":"callers_fault"}"#,
            r#"{"message":["back on {}{} at noon"],"verdict":"callers_fault"}"#,
            r#"{"status":[400],"verdict":"dead","reason":"banned"}"#,
            r#"{"status":[401,403],"verdict":"credential_expired"}"#,
            r#"{"status":["4xx"],"verdict":"cooling_down","scope":"account","default_seconds":1,"max_seconds":1}"#,
            r#"{"status":[503],"verdict":"cooling_down","scope":"account","default_seconds":1,"max_seconds":1}"#,
            r#"{"status":[404],"verdict":"platform_trouble","seconds":5}"#,
            r#"{"header":{"X-A":[]},"verdict":"fine"}"#,
            r#"{"status":[402],"verdict":"dead"}"#,
            r#"{"status":[402],"verdict":"dead","reason":"a b"}"#,
            r#"{"status":[500],"verdict":"platform_trouble","seconds":0}"#,
            r#"{"status":[500],"verdict":"platform_trouble","seconds":61}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for (from, to) in [
            ("\"default_seconds\":5", "\"default_seconds\":0"),
            ("\"default_seconds\":5", "\"default_seconds\":61"),
            ("\"max_seconds\":60", "\"max_seconds\":9999999"),
            ("\"scope\":\"model\"", "\"scope\":\"world\""),
            ("header:retry-after", "header:Retry-After"),
            ("exhausted_windows:5h,7d", "exhausted_windows:5h,"),
            ("\"message\",", "\"moon\","),
        ] {
            assert!(
                WHOLE.contains(from) && read(&WHOLE.replacen(from, to, 1)).is_err(),
                "{to}"
            );
        }
    }

    #[test]
    fn a_message_is_whole_or_a_part() {
        let matches = |pattern: &str, message: &str| {
            let pattern = MessagePattern::try_from(pattern.to_owned()).unwrap();
            pattern.matches(&message.to_ascii_lowercase())
        };
        let back = "Back on {} at {} UTC.";
        for (pattern, message) in [
            ("It is gone", "it is gone."),
            ("It is gone.", " It is gone "),
            (back, "Back on 2026-10-01 at 00:00 UTC."),
            (back, "Back on sk-***yz at 00:00 UTC."),
            ("it is*", "It is gone"),
            ("*is", "It is gone"),
            ("*is*", "It is gone"),
        ] {
            assert!(matches(pattern, message), "{pattern}: {message}");
        }
        for (pattern, message) in [
            ("It is gone", "It is gone: Extra inputs are not permitted"),
            ("It is gone", "messages.0: It is gone"),
            ("It is gone", ""),
            (back, "Back on  at 00:00 UTC."),
            (
                back,
                "Back on 2026-10-01 at 00:00 UTC.: Extra inputs are not permitted",
            ),
            (back, "Back on 'x' at 00:00 UTC."),
            (back, "Back on 2026-10-01 at UTC"),
            ("it is*", "So it is"),
            ("*gone", "It is"),
        ] {
            assert!(!matches(pattern, message), "{pattern}: {message}");
        }
        let long = "x".repeat(MAX_HOLE_BYTES + 1);
        assert!(!matches(back, &format!("Back on {long} at 00:00 UTC")));
    }

    #[test]
    fn statuses_match_exactly_or_by_class() {
        let matches = |pattern: &str, status| {
            serde_json::from_str::<StatusPattern>(pattern)
                .unwrap()
                .matches(status)
        };
        assert!(matches("429", 429) && !matches("429", 428));
        assert!(matches("\"5xx\"", 529) && !matches("\"5xx\"", 499));
    }
}
