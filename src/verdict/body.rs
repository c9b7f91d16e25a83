//! The error in an answer's body, of whatever shape.
//!
//! Platforms agree on nothing: `{"error":{code,type,message}}`, `{"error":"text"}`,
//! `{"detail":"text"}`, `{"detail":{code}}`, `{"type":"error","error":{…}}`, flat
//! `{code,message}` and `{error_code,error_msg}`, `[{"error":{…}}]`, `response.failed` with
//! `response.error`, or an HTML page. Reading is in one pass and keeps what came before a cut, so
//! that a body cut short is as good as its beginning.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::text::kind::text_of;

/// The part of an error's body that is read, in bytes. Real ones have less than 4 KiB; the rest
/// is echoed input.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest message that is kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 2 * 1024;

/// The longest code or field that is kept, in bytes; longer ones are no words.
const MAX_WORD_BYTES: usize = 256;

/// The most codes that are kept. An error has a code, a type and a status.
const MAX_CODES: usize = 8;

/// The most other fields that are kept.
const MAX_FIELDS: usize = 32;

/// The code given to a page for people: no API answered, but something before it.
const HTML: &str = "html";

/// A platform's own words for what went wrong. Bounded; the message may repeat what the caller
/// sent, so that `Debug` leaves it out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ErrorBody {
    codes: Vec<String>,
    message: String,
    status: Option<u16>,
    fields: Vec<(String, String)>,
}

// === impl ErrorBody ===

impl ErrorBody {
    /// Reads the beginning of a body; at most [`MAX_BODY_BYTES`] of it are looked at.
    pub fn read(body: &[u8]) -> Self {
        let body = text_of(body.get(..MAX_BODY_BYTES).unwrap_or(body));
        let mut error = Self::default();
        // The end of a cut body is an error of the parser's, and none of ours.
        let _ = Gather::into(&mut error).deserialize(&mut json(body));
        if error.is_empty() {
            error.read_text(body);
        }
        error
    }

    fn read_text(&mut self, body: &[u8]) {
        let beginning = body.get(..MAX_MESSAGE_BYTES).unwrap_or(body);
        match body.first() {
            Some(b'<') => self.add_code(HTML),
            Some(b'{' | b'[') | None => return,
            Some(_) => {}
        }
        self.add_message(&String::from_utf8_lossy(beginning));
    }

    /// Returns true if nothing was found in the body.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty() && self.message.is_empty()
    }

    /// Returns true if the error's code, type or status word is `code`, in any case. The code of an HTML page is
    /// `html`.
    pub fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|own| own.eq_ignore_ascii_case(code))
    }

    /// Returns true if the error has a code that is more than a status.
    pub fn has_word(&self) -> bool {
        let is_number = |code: &String| code.bytes().all(|byte| byte.is_ascii_digit());
        !self.codes.iter().all(is_number)
    }

    /// The first of its codes.
    pub fn code(&self) -> Option<&str> {
        self.codes.first().map(String::as_str)
    }

    /// All of its codes, types and status words, as they come.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        self.codes.iter().map(String::as_str)
    }

    /// The platform's message for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The HTTP status that the body names: errors inside HTTP 200 do.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The HTTP status that the error's type stands for with most platforms.
    pub(super) fn status_by_type(&self) -> Option<u16> {
        const TYPES: [(&str, u16); 10] = [
            ("authentication_error", 401),
            ("rate_limit_error", 429),
            ("rate_limit_exceeded", 429),
            ("api_error", 500),
            ("internal_error", 500),
            ("server_error", 500),
            ("server_is_overloaded", 503),
            ("service_unavailable_error", 503),
            ("timeout_error", 504),
            ("overloaded_error", 529),
        ];
        let mut types = TYPES.iter();
        types.find_map(|(code, status)| self.has_code(code).then_some(*status))
    }

    /// The HTTP status that an error inside HTTP 200 would have had outside of it, if that is known.
    pub fn likely_status(&self) -> Option<u16> {
        self.status().or_else(|| self.status_by_type())
    }

    /// Another field of the error or of its details, as text.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields.find_map(|(own, value)| (own == name).then_some(value.as_str()))
    }

    /// Takes in a field of the error by its name.
    pub(super) fn add(&mut self, key: &str, value: String) {
        match key {
            "code" | "type" | "status" | "reason" | "error_code" | "status_code" | "quotaId" => {
                self.add_status(&value);
                self.add_code(&value);
            }
            "message" | "msg" | "error_msg" | "error_description" => self.add_message(&value),
            _ => self.add_field(key, value),
        }
    }

    fn add_code(&mut self, code: &str) {
        // `"type":"error"` names the envelope.
        let is_word = !code.is_empty() && code.len() <= MAX_WORD_BYTES && code != "error";
        if is_word && self.codes.len() < MAX_CODES {
            self.codes.push(code.to_owned());
        }
    }

    fn add_message(&mut self, message: &str) {
        if self.message.is_empty() {
            let end = message.floor_char_boundary(MAX_MESSAGE_BYTES);
            self.message = message.get(..end).unwrap_or_default().to_owned();
        }
    }

    fn add_status(&mut self, status: &str) {
        let status = status.parse().ok().filter(|s| (400..=599).contains(s));
        self.status = self.status.or(status);
    }

    fn add_field(&mut self, name: &str, value: String) {
        let fits = name.len() <= MAX_WORD_BYTES && value.len() <= MAX_WORD_BYTES;
        if fits && self.fields.len() < MAX_FIELDS {
            self.fields.push((name.to_owned(), value));
        }
    }
}

impl fmt::Debug for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorBody")
            .field("codes", &self.codes)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

pub(super) fn json(body: &[u8]) -> serde_json::Deserializer<serde_json::de::SliceRead<'_>> {
    serde_json::Deserializer::from_slice(body)
}

/// Collects an error from a JSON value; yields whether the value says anything at all, which
/// `null`, `false`, `""` and `{}` do not.
pub(super) struct Gather<'a> {
    error: &'a mut ErrorBody,
    wanted: Wanted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Every field may tell something.
    All,
    /// Every field may, and a word in place of fields is no code: lists of details repeat what the
    /// request named.
    Details,
    /// A whole answer: only its `error` is one. The rest repeats the request.
    ErrorAlone,
}

impl Wanted {
    /// The same of an element of a list.
    fn in_list(self) -> Self {
        match self {
            Self::All => Self::Details,
            other => other,
        }
    }
}

impl<'a> Gather<'a> {
    pub(super) fn into(error: &'a mut ErrorBody) -> Self {
        let wanted = Wanted::All;
        Self { error, wanted }
    }

    fn again(&mut self, wanted: Wanted) -> Gather<'_> {
        Gather {
            error: self.error,
            wanted,
        }
    }

    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        let wanted = match key.as_str() {
            "error" => Some(Wanted::All),
            // Google's lists of quotas that were exceeded are `violations`.
            "detail" | "details" | "violations" => Some(Wanted::Details),
            "response" => Some(Wanted::ErrorAlone),
            _ => None,
        };
        if let Some(wanted) = wanted {
            map.next_value_seed(self.again(wanted))?;
            return Ok(());
        }
        if self.wanted == Wanted::ErrorAlone {
            map.next_value::<IgnoredAny>()?;
            return Ok(());
        }
        let Some(value) = map.next_value_seed(Scalar)? else {
            return Ok(());
        };
        self.error.add(&key, value);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Gather<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Gather<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
        let mut says = false;
        while let Some(key) = map.next_key::<String>()? {
            self.field(key, &mut map)?;
            says = true;
        }
        Ok(says)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<bool, A::Error> {
        let mut says = false;
        while let Some(element) = seq.next_element_seed(self.again(self.wanted.in_list()))? {
            says |= element;
        }
        Ok(says)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        // `{"error":"invalid_grant"}` (RFC 6749 §5.2) is a code, `{"error":"Not found"}` is not.
        let is_word = text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if self.wanted == Wanted::All && is_word {
            self.error.add_code(text);
        }
        self.error.add_message(text);
        Ok(!text.is_empty())
    }

    fn visit_bool<E>(self, says: bool) -> Result<bool, E> {
        Ok(says)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }
}

/// A text, number or boolean as text; none for `null` and for what has parts.
pub(super) struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<String>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<String>, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<String>, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<String>, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<String>, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<String>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> ErrorBody {
        ErrorBody::read(body.as_bytes())
    }

    #[test]
    fn every_shape_gives_its_code_and_message() {
        for (body, codes, message) in [
            (
                r#"{"error":{"message":"m","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
                vec!["requests", "rate_limit_exceeded"],
                "m",
            ),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"},"request_id":"r"}"#,
                vec!["overloaded_error"],
                "m",
            ),
            (r#"{"error":"Not found"}"#, vec![], "Not found"),
            (
                "\u{feff}\n{\"error\":{\"code\":\"insufficient_quota\",\"message\":\"m\"}}",
                vec!["insufficient_quota"],
                "m",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"d"}"#,
                vec!["invalid_grant"],
                "invalid_grant",
            ),
            (r#"{"detail":"Unauthorized"}"#, vec![], "Unauthorized"),
            // What repeats the names in a request says nothing of an account.
            (
                r#"{"error":{"message":"m","details":["insufficient_quota"]}}"#,
                vec![],
                "m",
            ),
            (
                r#"{"error":["insufficient_quota"]}"#,
                vec![],
                "insufficient_quota",
            ),
            (
                r#"{"detail":"insufficient_quota"}"#,
                vec![],
                "insufficient_quota",
            ),
            (
                r#"{"detail":{"code":"deactivated_workspace"}}"#,
                vec!["deactivated_workspace"],
                "",
            ),
            (
                r#"{"code":"Arrearage","message":"m"}"#,
                vec!["Arrearage"],
                "m",
            ),
            (r#"{"error_code":18,"error_msg":"m"}"#, vec!["18"], "m"),
            (
                r#"{"code":10007,"message":"m","sid":"s"}"#,
                vec!["10007"],
                "m",
            ),
            (
                r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#,
                vec!["429", "RESOURCE_EXHAUSTED"],
                "m",
            ),
            (
                r#"{"error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
                vec!["rate_limit_error", "enforced_spend_limit_reached"],
                "m",
            ),
            (
                r#"{"type":"response.failed","response":{"instructions":"x","status":"failed","error":{"code":"slow_down","message":"m"},"metadata":{"code":"echo"}}}"#,
                vec!["response.failed", "slow_down"],
                "m",
            ),
            ("<!DOCTYPE html><p>no", vec!["html"], "<!DOCTYPE html><p>no"),
            ("upstream connect error", vec![], "upstream connect error"),
            ("", vec![], ""),
            ("{\"a\":", vec![], ""),
        ] {
            let error = read(body);
            assert_eq!(error.codes, codes, "{body}");
            assert_eq!(error.message(), message, "{body}");
        }
    }

    #[test]
    fn details_and_times_are_fields() {
        let error = read(
            r#"{"error":{"code":429,"resets_at":1790003600,"resets_in_seconds":1.5,"eligible_promo":null,"details":[{"@type":"RetryInfo","retryDelay":"34.07s"}]},"status":401}"#,
        );
        assert_eq!(error.field("resets_at"), Some("1790003600"));
        assert_eq!(error.field("resets_in_seconds"), Some("1.5"));
        assert_eq!(error.field("retryDelay"), Some("34.07s"));
        assert_eq!(error.field("eligible_promo"), None);
        assert_eq!(error.status(), Some(429));
    }

    #[test]
    fn a_cut_body_is_as_good_as_its_beginning() {
        let body =
            r#"{"error":{"code":"usage_limit_reached","resets_at":1790003600,"message":"The usa"#;
        let error = read(body);
        assert!(error.has_code("Usage_Limit_Reached"));
        assert_eq!(error.field("resets_at"), Some("1790003600"));
        let long = format!(
            r#"{{"error":{{"code":"x","message":"{}"}}}}"#,
            "é".repeat(60_000)
        );
        assert!(read(&long).has_code("x"));
    }

    #[test]
    fn debug_shows_no_message() {
        let shown = format!("{:?}", read(r#"{"error":{"code":"c","message":"hush"}}"#));
        assert!(shown.contains('c') && !shown.contains("hush"), "{shown}");
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let key = prop::sample::select(vec![
            "error", "detail", "details", "response", "code", "type", "message", "status", "x",
        ]);
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u32>().prop_map(Into::into),
            "\\PC{0,20}".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((key.clone(), inner), 0..5).prop_map(|entries| {
                    let entries = entries.into_iter().map(|(k, v)| (k.to_owned(), v));
                    serde_json::Value::Object(entries.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            ErrorBody::read(&body);
        }

        #[test]
        fn a_beginning_never_says_more_than_the_whole(value in any_json(), cut in any::<prop::sample::Index>()) {
            let body = value.to_string();
            let whole = read(&body);
            let part = ErrorBody::read(&body.as_bytes()[..cut.index(body.len() + 1)]);
            if body.starts_with(['{', '[']) {
                // The last may be a number that was cut.
                let certain = part.codes.len().saturating_sub(1);
                prop_assert!(whole.codes.starts_with(&part.codes[..certain]), "{:?}", part);
            }
            prop_assert!(part.codes.len() <= MAX_CODES && part.fields.len() <= MAX_FIELDS);
            prop_assert!(part.message.len() <= MAX_MESSAGE_BYTES);
        }
    }

    #[test]
    fn deep_nesting_ends_the_reading() {
        let body = r#"{"error":"#.repeat(5_000);
        assert!(read(&body).is_empty());
        assert!(read(&"[".repeat(60_000)).is_empty());
    }
}
