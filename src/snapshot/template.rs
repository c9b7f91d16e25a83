//! Header values with places for an account's own: `Bearer {credential}`.

use serde::{Deserialize, Serialize};

use super::Account;
use crate::{header::HeaderText, newtype::invalid_text};

/// The name of the place that takes the account's credential.
const CREDENTIAL: &str = "credential";

/// A header value with `{credential}` and `{name}` places, where `name` is one of the account's
/// `vars`. There is no way to write a literal brace: no credential header needs one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HeaderText", into = "HeaderText")]
pub struct Template {
    text: HeaderText,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Credential,
    Var(String),
}

invalid_text! {
    /// A text that is not a [`Template`].
    InvalidTemplate, "expected a header value with places of the form {{credential}} or {{name}}"
}

/// Room for what a value has beside the credential, in bytes: the name of a scheme.
const USUAL_BYTES: usize = 16;

// === impl Template ===

impl Template {
    /// The value for `account`, or none where it lacks a variable.
    pub fn render(&self, account: &Account) -> Option<String> {
        let var = |name: &str| Some(account.vars.get(name)?.as_str());
        self.fill(account.credential.expose(), var)
    }

    /// The value with these in its places, or none where a variable is not there.
    pub fn fill<'a>(
        &self,
        credential: &str,
        var: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<String> {
        // A credential has kilobytes, and most values begin with something else.
        let room = match self.has_credential() {
            true => credential.len().saturating_add(USUAL_BYTES),
            false => 0,
        };
        let mut value = String::with_capacity(room);
        for part in &self.parts {
            value.push_str(match part {
                Part::Literal(text) => text,
                Part::Credential => credential,
                Part::Var(name) => var(name)?,
            });
        }
        Some(value)
    }

    /// Returns true if it has a place for the credential.
    pub fn has_credential(&self) -> bool {
        self.parts.contains(&Part::Credential)
    }

    /// Returns true if it has a place for anything of the account.
    pub fn is_accounts(&self) -> bool {
        self.has_credential() || self.vars().next().is_some()
    }

    /// The names of the account variables that it needs.
    pub fn vars(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Var(name) => Some(name.as_str()),
            Part::Literal(_) | Part::Credential => None,
        })
    }
}

impl TryFrom<HeaderText> for Template {
    type Error = InvalidTemplate;

    fn try_from(text: HeaderText) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').ok_or(InvalidTemplate)?;
            let legal = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            if literal.contains('}') || name.is_empty() || !name.bytes().all(legal) {
                return Err(InvalidTemplate);
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(match name {
                CREDENTIAL => Part::Credential,
                name => Part::Var(name.to_owned()),
            });
            rest = tail;
        }
        if rest.contains('}') {
            return Err(InvalidTemplate);
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { text, parts })
    }
}

impl From<Template> for HeaderText {
    fn from(template: Template) -> Self {
        template.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture;

    fn template(text: &str) -> Result<Template, InvalidTemplate> {
        Template::try_from(HeaderText::try_from(text).unwrap())
    }

    #[test]
    fn places_are_filled_from_the_account() {
        let account = fixture::account("acc_1", "codex");
        let render = |text| template(text).unwrap().render(&account);
        assert_eq!(
            render("Bearer {credential}").unwrap(),
            "Bearer token-of-acc_1"
        );
        assert_eq!(render("{account_id}/x").unwrap(), "ws-acc_1/x");
        assert_eq!(render("plain").unwrap(), "plain");
        assert_eq!(render("{nobody}"), None);
    }

    #[test]
    fn stray_braces_are_refused() {
        for bad in ["{", "}", "{}", "a}b{c}", "{A}", "{a", "{a{b}}", "{a}}"] {
            assert_eq!(template(bad), Err(InvalidTemplate), "{bad}");
        }
    }
}
