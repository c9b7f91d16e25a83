//! The query parameters that a platform gets with each request, a credential among them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    Account, Template,
    path::{push_escape, unescaped},
};
use crate::newtype::{checked_text, invalid_text};

/// The longest name of a parameter, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The name of a query parameter: 1 to 64 of `A-Z a-z 0-9 - . _ ~`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ParameterName(String);

checked_text! {
    ParameterName, InvalidParameter;
}

invalid_text! {
    /// A text that is not a [`ParameterName`].
    InvalidParameter, "expected a query parameter: 1 to {MAX_NAME_BYTES} letters, digits, -, ., _ and ~"
}

/// The parameters that go out in place of whatever the caller sent by their names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QueryPlan(pub Vec<(ParameterName, Template)>);

/// Returns true if a byte stands for itself wherever it is in a URL (RFC 3986 §2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

// === impl ParameterName ===

impl ParameterName {
    fn check(text: &str) -> Result<(), InvalidParameter> {
        let fits = (1..=MAX_NAME_BYTES).contains(&text.len());
        let fits = fits && text.bytes().all(is_unreserved);
        fits.then_some(()).ok_or(InvalidParameter)
    }
}

/// A text as it stands in a query: itself, as with most credentials, or its escaped form.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_unreserved) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) {
            escaped.push(char::from(byte));
        } else {
            push_escape(byte, &mut escaped);
        }
    }
    Cow::Owned(escaped)
}

// === impl QueryPlan ===

impl QueryPlan {
    /// Returns true if it sets nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the account variables that it needs, each as often as it is used.
    pub fn vars(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(_, template)| template.vars())
    }

    /// Returns true if a credential goes out in it.
    pub fn has_credential(&self) -> bool {
        self.0.iter().any(|(_, template)| template.has_credential())
    }

    /// The caller's query with the parameters of `account`; none where it lacks a variable. A plan
    /// that sets nothing changes nothing.
    pub fn with(&self, query: &[u8], account: &Account) -> Option<Vec<u8>> {
        let mut query = self.without(query);
        for (name, template) in &self.0 {
            let mut text = String::from(if query.is_empty() { "" } else { "&" });
            text.push_str(name.as_str());
            text.push('=');
            text.push_str(&escaped(&template.render(account)?));
            query.extend_from_slice(text.as_bytes());
        }
        Some(query)
    }

    /// A query without the parameters that are set here, the caller's own of their names included.
    fn without(&self, query: &[u8]) -> Vec<u8> {
        if self.is_empty() {
            return query.to_vec();
        }
        let kept: Vec<&[u8]> = query
            .split(|byte| *byte == b'&')
            .filter(|parameter| !parameter.is_empty() && !self.sets(parameter))
            .collect();
        kept.join(&b'&')
    }

    /// Returns true if a parameter of the query is set here, however its name is escaped.
    fn sets(&self, parameter: &[u8]) -> bool {
        let key = parameter.split(|byte| *byte == b'=').next();
        let key = std::str::from_utf8(key.unwrap_or_default());
        let key = key.ok().and_then(unescaped);
        key.is_some_and(|key| self.0.iter().any(|(name, _)| name.as_str() == key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::fixture;

    fn plan() -> QueryPlan {
        serde_json::from_str(r#"[["key","{credential}"],["ws","{account_id}"]]"#).unwrap()
    }

    #[test]
    fn the_credential_goes_out_once() {
        let mut account = fixture::account("acc_1", "codex");
        account.credential = crate::secret::Secret::new("a b&key=c");
        let with = |query: &str| {
            let query = plan().with(query.as_bytes(), &account).unwrap();
            String::from_utf8(query).unwrap()
        };
        assert_eq!(with(""), "key=a%20b%26key%3Dc&ws=ws-acc_1");
        assert_eq!(
            with("alt=sse&key=x&k%65y=y&ws"),
            "alt=sse&key=a%20b%26key%3Dc&ws=ws-acc_1"
        );
        account.vars.clear();
        assert_eq!(plan().with(b"", &account), None);
    }

    #[test]
    fn names_are_plain() {
        assert!(ParameterName::try_from("api-version".to_owned()).is_ok());
        for bad in ["", "a=b", "a&b", "a b", "%61", &"x".repeat(65)] {
            let refused = ParameterName::try_from(bad.to_owned());
            assert_eq!(refused, Err(InvalidParameter), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_of_the_plan_is_left_when_it_is_taken_out(query in "[a-cekwsy=&%0-9]{0,30}") {
            let account = fixture::account("acc_1", "codex");
            let with = plan().with(query.as_bytes(), &account).unwrap();
            let without = plan().without(&with);
            prop_assert_eq!(&without, &plan().without(query.as_bytes()));
            prop_assert!(!String::from_utf8(without).unwrap().contains("token-of"));
            prop_assert_eq!(QueryPlan::default().with(query.as_bytes(), &account).unwrap(), query.as_bytes());
        }
    }
}
