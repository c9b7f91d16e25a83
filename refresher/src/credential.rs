//! The credentials that prove an account: OAuth tokens, an API key, a client of its own. Opened, each lives in types that
//! cannot be printed.

use std::borrow::Cow;

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
    /// A client's id and secret, which buy access tokens (RFC 6749 §4.4).
    ClientCredentials,
    /// A key that signs tokens here and goes nowhere.
    SignedKey,
    /// A session that a web site gave a person who logged in there.
    Session,
}

/// The way in which a credential stays alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// By a refresh token that works once. A call whose answer is lost may have spent it, so each is noted durably before
    /// it leaves.
    SingleUse,
    /// By a refresh token that survives its use. A call whose answer is lost is made again.
    Reusable,
    /// By a secret that lives long: the token on the wire is made of it as often as needed.
    Minted,
    /// By a person alone, who logs in again when it has ended or is refused.
    Person,
    /// Not at all: the credential stays as it is.
    None,
}

impl CredentialKind {
    const ALL: [CredentialKind; 5] = [
        CredentialKind::OAuth,
        CredentialKind::ApiKey,
        CredentialKind::ClientCredentials,
        CredentialKind::SignedKey,
        CredentialKind::Session,
    ];

    /// Its name in the database, in profiles and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialKind::OAuth => "oauth",
            CredentialKind::ApiKey => "api_key",
            CredentialKind::ClientCredentials => "client_credentials",
            CredentialKind::SignedKey => "signed_key",
            CredentialKind::Session => "session",
        }
    }

    /// True for a key that a person copied, who may copy another one.
    pub fn is_key(self) -> bool {
        matches!(self, CredentialKind::ApiKey | CredentialKind::SignedKey)
    }

    /// The inverse of [`CredentialKind::as_str`].
    pub fn parse(name: &str) -> Option<CredentialKind> {
        CredentialKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

impl TryFrom<String> for CredentialKind {
    type Error = String;

    fn try_from(name: String) -> Result<CredentialKind, String> {
        CredentialKind::parse(&name).ok_or_else(|| format!("{name:?} is no kind of credential"))
    }
}

/// The tokens of a login (RFC 6749 §5.1).
#[derive(Debug, Clone)]
pub struct OAuthTokens {
    /// Goes to the platform with each request.
    pub access: SecretString,
    /// Buys the next pair; most platforms take it once.
    pub refresh: SecretString,
    /// OpenID Connect's id token, where the platform gives one.
    pub id: Option<SecretString>,
    /// The client that the person logged in to, where it is not the platform's own.
    pub client: Option<OwnClient>,
}

/// A client of the operator's own, to which people log in.
#[derive(Debug, Clone)]
pub struct OwnClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: SecretString,
}

/// A client of an account's own, and the token that it got last.
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// The token endpoint, if not the platform's.
    pub token_url: Option<String>,
    /// The client's id; empty for the platform's own.
    pub client_id: String,
    /// The client's secret; empty for a client that has none.
    pub client_secret: SecretString,
    /// Buys the next token, where it is not the secret that does.
    pub refresh: Option<SecretString>,
    /// Goes to the platform with each request.
    pub access: SecretString,
}

/// A key that signs tokens, and the token that it signed last.
#[derive(Debug, Clone)]
pub struct SignedKey {
    /// The key, in the form that its platform gives it out.
    pub key: SecretString,
    /// Goes to the platform with each request.
    pub token: SecretString,
}

/// A credential, opened.
#[derive(Debug, Clone)]
pub enum Credential {
    /// See [`OAuthTokens`].
    OAuth(OAuthTokens),
    /// An API key.
    ApiKey(SecretString),
    /// See [`ClientCredentials`].
    Client(ClientCredentials),
    /// See [`SignedKey`].
    Signed(SignedKey),
    /// Cookies and tokens of a web site, in the form in which they go out.
    Session(SecretString),
}

impl Credential {
    /// Its kind.
    pub fn kind(&self) -> CredentialKind {
        match self {
            Credential::OAuth(_) => CredentialKind::OAuth,
            Credential::ApiKey(_) => CredentialKind::ApiKey,
            // A refresh token makes it a login, whoever it was given to.
            Credential::Client(client) if client.refresh.is_some() => CredentialKind::OAuth,
            Credential::Client(_) => CredentialKind::ClientCredentials,
            Credential::Signed(_) => CredentialKind::SignedKey,
            Credential::Session(_) => CredentialKind::Session,
        }
    }

    /// True for a client of an account's own, with a refresh token or without.
    pub fn is_client(&self) -> bool {
        matches!(self, Credential::Client(_))
    }

    /// The part that `{credential}` stands for in a profile's headers: a token or the API key.
    pub fn on_the_wire(&self) -> &SecretString {
        match self {
            Credential::OAuth(tokens) => &tokens.access,
            Credential::ApiKey(key) => key,
            Credential::Client(client) => &client.access,
            Credential::Signed(signed) => &signed.token,
            Credential::Session(session) => session,
        }
    }

    /// The same kind of credential with nothing in it: that of an account that is logged out. None for a key, which is no
    /// login.
    pub fn emptied(&self) -> Option<Credential> {
        let nothing = || SecretString::from("");
        match self {
            Credential::OAuth(_) => Some(Credential::OAuth(OAuthTokens {
                access: nothing(),
                refresh: nothing(),
                id: None,
                client: None,
            })),
            Credential::Client(client) => Some(Credential::Client(ClientCredentials {
                token_url: None,
                client_id: String::new(),
                client_secret: nothing(),
                refresh: client.refresh.as_ref().map(|_| nothing()),
                access: nothing(),
            })),
            Credential::Session(_) => Some(Credential::Session(nothing())),
            Credential::ApiKey(_) | Credential::Signed(_) => None,
        }
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        !self.is_on_the_wire() && !self.awaits_token()
    }

    /// True if it has what goes to the platform with a request.
    fn is_on_the_wire(&self) -> bool {
        !self.on_the_wire().expose_secret().is_empty()
    }

    /// True if its first token is still to be bought.
    pub fn awaits_token(&self) -> bool {
        let is_there = |secret: &SecretString| !secret.expose_secret().is_empty();
        match self {
            Credential::Client(client) if !self.is_on_the_wire() => {
                let refresh = client.refresh.as_ref();
                refresh.map_or_else(|| is_there(&client.client_secret), is_there)
            }
            _ => false,
        }
    }

    /// OpenID Connect's id token, where the credential has one.
    pub fn id_token(&self) -> Option<&SecretString> {
        match self {
            Credential::OAuth(tokens) => tokens.id.as_ref(),
            Credential::ApiKey(_)
            | Credential::Client(_)
            | Credential::Signed(_)
            | Credential::Session(_) => None,
        }
    }

    /// The bytes that are sealed. Only the store calls this.
    pub(crate) fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        let record = match self {
            Credential::OAuth(tokens) => Plaintext::OAuth {
                access: tokens.access.expose_secret().into(),
                refresh: tokens.refresh.expose_secret().into(),
                id: tokens.id.as_ref().map(|id| id.expose_secret().into()),
                client: tokens.client.as_ref().map(|client| PlainClient {
                    id: client.id.as_str().into(),
                    secret: client.secret.expose_secret().into(),
                }),
            },
            Credential::ApiKey(key) => Plaintext::ApiKey {
                key: key.expose_secret().into(),
            },
            Credential::Client(client) => Plaintext::ClientCredentials {
                token_url: client.token_url.as_deref().map(Cow::from),
                refresh: client
                    .refresh
                    .as_ref()
                    .map(|token| token.expose_secret().into()),
                client_id: client.client_id.as_str().into(),
                client_secret: client.client_secret.expose_secret().into(),
                access: client.access.expose_secret().into(),
            },
            Credential::Signed(signed) => Plaintext::SignedKey {
                key: signed.key.expose_secret().into(),
                token: signed.token.expose_secret().into(),
            },
            Credential::Session(session) => Plaintext::Session {
                session: session.expose_secret().into(),
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
                client,
            } => Credential::OAuth(OAuthTokens {
                access: access.into_owned().into(),
                refresh: refresh.into_owned().into(),
                id: id.map(|id| id.into_owned().into()),
                client: client.map(|client| OwnClient {
                    id: client.id.into_owned(),
                    secret: client.secret.into_owned().into(),
                }),
            }),
            Plaintext::ApiKey { key } => Credential::ApiKey(key.into_owned().into()),
            Plaintext::ClientCredentials {
                token_url,
                client_id,
                client_secret,
                refresh,
                access,
            } => Credential::Client(ClientCredentials {
                token_url: token_url.map(Cow::into_owned),
                refresh: refresh.map(|token| token.into_owned().into()),
                client_id: client_id.into_owned(),
                client_secret: client_secret.into_owned().into(),
                access: access.into_owned().into(),
            }),
            Plaintext::SignedKey { key, token } => Credential::Signed(SignedKey {
                key: key.into_owned().into(),
                token: token.into_owned().into(),
            }),
            Plaintext::Session { session } => Credential::Session(session.into_owned().into()),
        })
    }
}

/// The client inside of a sealed login.
#[derive(Serialize, Deserialize)]
struct PlainClient<'a> {
    id: Cow<'a, str>,
    secret: Cow<'a, str>,
}

/// The inside of a sealed credential.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Plaintext<'a> {
    #[serde(rename = "oauth")]
    OAuth {
        access: Cow<'a, str>,
        refresh: Cow<'a, str>,
        id: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<PlainClient<'a>>,
    },
    ApiKey {
        key: Cow<'a, str>,
    },
    ClientCredentials {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_url: Option<Cow<'a, str>>,
        client_id: Cow<'a, str>,
        client_secret: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refresh: Option<Cow<'a, str>>,
        access: Cow<'a, str>,
    },
    SignedKey {
        key: Cow<'a, str>,
        token: Cow<'a, str>,
    },
    Session {
        session: Cow<'a, str>,
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
            client: None,
        };
        let own = OAuthTokens {
            client: Some(OwnClient {
                id: "its-id".to_owned(),
                secret: "CLIENTSECRET".into(),
            }),
            ..tokens.clone()
        };
        let client = ClientCredentials {
            token_url: None,
            client_id: "its-id".into(),
            client_secret: "CLIENTSECRET".into(),
            refresh: None,
            access: "ACCESS".into(),
        };
        let renewed = ClientCredentials {
            token_url: Some("https://id.test/token".into()),
            refresh: Some("REFRESH".into()),
            ..client.clone()
        };
        let signed = SignedKey {
            key: "SIGNINGKEY".into(),
            token: "TOKEN".into(),
        };
        for credential in [
            Credential::OAuth(tokens),
            Credential::OAuth(own),
            Credential::ApiKey("APIKEY".into()),
            Credential::Client(client),
            Credential::Client(renewed),
            Credential::Signed(signed),
            Credential::Session("SESSION".into()),
        ] {
            let back = Credential::from_plaintext(&credential.to_plaintext()).unwrap();
            assert_eq!(back.to_plaintext(), credential.to_plaintext());
            assert_eq!(
                CredentialKind::parse(back.kind().as_str()),
                Some(back.kind())
            );
            let printed = format!("{credential:?}");
            assert!(
                ![
                    "ACCESS",
                    "REFRESH",
                    "TOKEN",
                    "APIKEY",
                    "CLIENTSECRET",
                    "SIGNINGKEY",
                    "SESSION"
                ]
                .iter()
                .any(|secret| printed.contains(secret))
            );
        }
        assert!(Credential::from_plaintext(b"{}").is_none());
    }
}
