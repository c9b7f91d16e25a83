//! The objects that a platform has around a dialect's bodies: `{"model": …, "project": …, "request": {…}}` around a request,
//! `{"response": {…}}` around an answer or each event of it.

use serde::{Deserialize, Serialize};

use super::{Account, Template};
use crate::{header::HeaderText, newtype::invalid_text, text::out::Out};

/// The place of a member's value that takes the model, as the platform names it.
pub const MODEL: &str = "model";

/// The place that takes a name of the request, which no other one has.
const REQUEST_ID: &str = "request_id";

/// The largest body that is put into such an object, in bytes: it is held whole.
pub const MAX_WRAPPED_BYTES: usize = 16 * 1024 * 1024;

/// The objects in which a platform's requests and answers stand. On the wire it is one list of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Wrapper {
    /// The member of a request in which the dialect's own stands.
    pub request: String,
    /// The member of an answer, or of each event of a stream, in which the dialect's own stands. What has it not is as it is
    /// in the dialect.
    pub answer: String,
    /// The other members of a request, which stand before it. They are texts, with places for the model, the request's id
    /// and the account's variables.
    pub members: Vec<(String, Template)>,
}

invalid_text! {
    /// Texts that are no [`Wrapper`].
    InvalidWrapper, "expected the members of request and answer, then names and values in turn"
}

// === impl Wrapper ===

impl Wrapper {
    /// Writes the texts before a request's body and behind it, where `model` serves it; none where a member needs what the
    /// request or the account does not have.
    pub fn around(
        &self,
        account: &Account,
        model: Option<&str>,
        request_id: &str,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let value = |name: &str| match name {
            MODEL => model,
            REQUEST_ID => Some(request_id),
            name => Some(account.vars.get(name)?.as_str()),
        };
        let mut is_whole = true;
        let mut out = Out::default();
        out.object(|out| {
            for (name, template) in &self.members {
                // No body has the credential in it.
                let text = template.fill("", value);
                is_whole &= text.is_some();
                out.name(name).word(&text.unwrap_or_default());
            }
            out.name(&self.request).raw("");
        });
        let mut before = out.into_bytes();
        let behind = before.split_off(before.len().saturating_sub(1));
        is_whole.then_some((before, behind))
    }

    /// Returns true if its requests name the model.
    pub fn names_model(&self) -> bool {
        self.places().any(|name| name == MODEL)
    }

    /// The names of the account variables that it needs.
    pub fn vars(&self) -> impl Iterator<Item = &str> {
        self.places()
            .filter(|name| ![MODEL, REQUEST_ID].contains(name))
    }

    fn places(&self) -> impl Iterator<Item = &str> {
        self.members
            .iter()
            .flat_map(|(_, template)| template.vars())
    }
}

impl TryFrom<Vec<String>> for Wrapper {
    type Error = InvalidWrapper;

    fn try_from(texts: Vec<String>) -> Result<Self, InvalidWrapper> {
        let mut texts = texts.into_iter();
        let mut next = || texts.next();
        let request = next().ok_or(InvalidWrapper)?;
        let answer = next().ok_or(InvalidWrapper)?;
        let mut members = Vec::new();
        while let Some(name) = next() {
            let text = next().and_then(|text| HeaderText::try_from(text).ok());
            let template = text.and_then(|text| Template::try_from(text).ok());
            members.push((name, template.ok_or(InvalidWrapper)?));
        }
        Ok(Self {
            request,
            answer,
            members,
        })
    }
}

impl From<Wrapper> for Vec<String> {
    fn from(wrapper: Wrapper) -> Self {
        let members = wrapper.members.into_iter();
        let members = members
            .flat_map(|(name, template)| [name, HeaderText::from(template).as_str().to_owned()]);
        [wrapper.request, wrapper.answer]
            .into_iter()
            .chain(members)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture;

    #[test]
    fn a_body_stands_in_the_last_member() {
        let text = r#"["request","response","model","{model}","project","p/{account_id}","id","{request_id}"]"#;
        let wrapper: Wrapper = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&wrapper).unwrap(), text);
        assert!(wrapper.names_model());
        assert_eq!(wrapper.vars().collect::<Vec<_>>(), ["account_id"]);
        let mut account = fixture::account("acc_1", "codex");
        let made = |account: &Account, model| {
            let (before, behind) = wrapper.around(account, model, "r-1")?;
            Some(String::from_utf8([before, b"{}".to_vec(), behind].concat()).unwrap())
        };
        assert_eq!(
            made(&account, Some("a\"b")).unwrap(),
            r#"{"model":"a\"b","project":"p/ws-acc_1","id":"r-1","request":{}}"#
        );
        assert_eq!(made(&account, None), None);
        for bad in ["[]", r#"["a"]"#, r#"["a","b","c"]"#, r#"["a","b","c","{"]"#] {
            assert!(serde_json::from_str::<Wrapper>(bad).is_err(), "{bad}");
        }
        account.vars.clear();
        assert_eq!(made(&account, Some("m")), None);
    }
}
