//! What proves an account: OAuth tokens or an API key. Opened, it lives in types that cannot be printed.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The kind of an account's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// Access and refresh token, kept fresh by the refresh engine.
    #[serde(rename = "oauth")]
    OAuth,
    /// A key that stays as it is.
    ApiKey,
}

impl CredentialKind {
    /// Its name in the database, in profiles and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialKind::OAuth => "oauth",
            CredentialKind::ApiKey => "api_key",
        }
    }

    /// The inverse of [`CredentialKind::as_str`].
    pub fn parse(name: &str) -> Option<CredentialKind> {
        [CredentialKind::OAuth, CredentialKind::ApiKey]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// What a token endpoint gave (RFC 6749 §5.1).
#[derive(Debug, Clone)]
pub struct OAuthTokens {
    /// Goes to the platform with each request.
    pub access: SecretString,
    /// Buys the next pair; most platforms take it once.
    pub refresh: SecretString,
    /// OpenID Connect's id token, where the platform gives one.
    pub id: Option<SecretString>,
}

/// A credential, opened.
#[derive(Debug, Clone)]
pub enum Credential {
    /// See [`OAuthTokens`].
    OAuth(OAuthTokens),
    /// An API key.
    ApiKey(SecretString),
}

impl Credential {
    /// Its kind.
    pub fn kind(&self) -> CredentialKind {
        match self {
            Credential::OAuth(_) => CredentialKind::OAuth,
            Credential::ApiKey(_) => CredentialKind::ApiKey,
        }
    }

    /// The part that `{credential}` stands for in a profile's headers: the access token or the API key.
    pub fn on_the_wire(&self) -> &SecretString {
        match self {
            Credential::OAuth(tokens) => &tokens.access,
            Credential::ApiKey(key) => key,
        }
    }

    /// The bytes that are sealed. Only the store calls this.
    pub(crate) fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        let record = match self {
            Credential::OAuth(tokens) => Plaintext::OAuth {
                access: tokens.access.expose_secret().into(),
                refresh: tokens.refresh.expose_secret().into(),
                id: tokens.id.as_ref().map(|id| id.expose_secret().into()),
            },
            Credential::ApiKey(key) => Plaintext::ApiKey {
                key: key.expose_secret().into(),
            },
        };
        // A struct of text always serialises.
        Zeroizing::new(serde_json::to_vec(&record).unwrap_or_default())
    }

    /// The inverse of [`Credential::to_plaintext`]; `None` if the bytes are something else.
    pub(crate) fn from_plaintext(bytes: &[u8]) -> Option<Credential> {
        Some(match serde_json::from_slice(bytes).ok()? {
            Plaintext::OAuth {
                access,
                refresh,
                id,
            } => Credential::OAuth(OAuthTokens {
                access: access.into_owned().into(),
                refresh: refresh.into_owned().into(),
                id: id.map(|id| id.into_owned().into()),
            }),
            Plaintext::ApiKey { key } => Credential::ApiKey(key.into_owned().into()),
        })
    }
}

/// What is inside a sealed credential.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Plaintext<'a> {
    #[serde(rename = "oauth")]
    OAuth {
        access: std::borrow::Cow<'a, str>,
        refresh: std::borrow::Cow<'a, str>,
        id: Option<std::borrow::Cow<'a, str>>,
    },
    ApiKey {
        key: std::borrow::Cow<'a, str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_survives_its_plaintext_and_never_prints() {
        let tokens = OAuthTokens {
            access: "ACCESS".into(),
            refresh: "REFRESH".into(),
            id: Some("IDTOKEN".into()),
        };
        for credential in [
            Credential::OAuth(tokens),
            Credential::ApiKey("APIKEY".into()),
        ] {
            let back = Credential::from_plaintext(&credential.to_plaintext()).unwrap();
            assert_eq!(back.to_plaintext(), credential.to_plaintext());
            let printed = format!("{credential:?}");
            assert!(
                !["ACCESS", "REFRESH", "IDTOKEN", "APIKEY"]
                    .iter()
                    .any(|secret| printed.contains(secret))
            );
        }
        assert!(Credential::from_plaintext(b"{}").is_none());
    }
}
