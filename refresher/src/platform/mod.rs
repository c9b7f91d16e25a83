//! Platform profiles: what a platform is, as data. A profile is read from TOML in two stages, as written (`raw`) and as
//! meant ([`Profile`]); [`catalog`] puts the embedded ones and the operator's together.

pub mod accents;
mod api_key;
pub mod catalog;
mod convert;
mod doors;
mod error;
pub mod flow;
mod layers;
mod limits;
pub mod oauth;
pub mod probe;
pub mod quota;
mod raw;
pub mod session;
mod signing;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;

use latchkey::header::HeaderText;
use latchkey::id::Id;
use latchkey::snapshot::{self, Endpoint};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

pub use api_key::{KeyForm, NotAKey};
pub use catalog::Catalog;
use convert::{
    endpoints, fit, from_toml, headers, invalid, omitted, query, require_unreserved, rule,
    upstream, web_url, windows,
};
pub use doors::{doors, doors_with};
pub use flow::{Flow, WaysIn};
pub use oauth::{Encoding, NoClient, OAuth};
use probe::Probe;
use quota::QuotaEndpoint;
pub use signing::Signing;

use crate::address::Network;
use crate::base_url::BaseUrl;
use crate::cluster::MAX_PLATFORM_BYTES;
use crate::credential::{CredentialKind, OwnClient};
use crate::egress::Proxy;
use crate::limits::LimitSettings;

/// A value that does not fit, and where it is.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Invalid {
    /// The key, as written in TOML.
    pub key: String,
    /// The sentence: what was expected and what was found.
    pub problem: String,
}

/// A platform, as the rest of the refresher knows it. Every value has been checked.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Lower-case letters, digits, `-` and `_`.
    pub id: String,
    /// For people.
    pub name: String,
    /// A notice that the operator must acknowledge before the platform is on.
    pub terms: Option<String>,
    /// The credentials that its accounts may have.
    pub credentials: Vec<CredentialKind>,
    /// The form of its API keys.
    pub api_keys: KeyForm,
    /// The limits of an account for which the operator set no others.
    pub limits: LimitSettings,
    /// The target of requests.
    pub upstream: Upstream,
    /// The making of tokens from an account's key; none where the key itself goes out.
    pub signing: Option<Signing>,
    /// The token endpoint; present if a credential of `credentials` comes from one.
    pub oauth: Option<OAuth>,
    /// The cheapest call that proves a credential; none where none is known.
    pub probe: Option<Probe>,
    /// The call by which the platform is asked about an account's quota, if it has one.
    pub quota_endpoint: Option<QuotaEndpoint>,
    /// The ways to log in.
    pub login: WaysIn,
    /// Endpoints, headers and models: what Envoy has to know.
    pub record: snapshot::Platform,
}

/// The target of a platform's requests.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Scheme, host, port and path; [`NOWHERE`] where each account has its own.
    pub url: BaseUrl,
    /// The base URLs that accounts may have for themselves.
    pub of_accounts: OwnBaseUrl,
    /// The network that those may lead into.
    pub network: Network,
    /// A file of certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The seconds after which Envoy closes a connection that nothing is sent on.
    pub idle_seconds: u16,
    /// The proxy by which everything leaves for it, of accounts that have none of their own.
    pub proxy: Option<Proxy>,
}

/// The idle time where a profile says none: servers and load balancers close such a connection after a minute or later,
/// and a request that comes at that moment is lost.
const IDLE_SECONDS: u16 = 50;

/// The base URLs that a platform's accounts have for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnBaseUrl {
    /// None: all are where the platform is.
    None,
    /// One, or none.
    Optional,
    /// One each: the platform itself is nowhere.
    Required,
}

/// The base URL of a platform that is nowhere itself: a name that nobody can ever have (RFC 2606 §2), so that an account
/// that lost its own reaches nobody.
const NOWHERE: &str = "https://the-account-has-no-base-url.invalid";

/// The part of a request that an account's credential goes into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Into a header.
    #[default]
    Header,
    /// Into a query parameter.
    Query,
    /// Into a header, as a token that the account's key signs.
    Signed,
}

/// A platform to be published, and the `:authority` of its accounts' requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The record that Envoy gets.
    pub record: snapshot::Platform,
    /// Host, and port where it is not the scheme's own.
    pub authority: HeaderText,
    /// The limits of its accounts that have no others.
    pub limits: LimitSettings,
}

impl Profile {
    /// Reads a profile from TOML, merged or not.
    ///
    /// # Errors
    /// Naming the key and what is wrong with it.
    pub fn from_table(table: toml::Table) -> Result<Profile, Invalid> {
        limits::refuse_old(&table)?;
        let raw: raw::Profile = table
            .try_into()
            .map_err(|error: toml::de::Error| from_toml(&error))?;
        let models = raw.models.iter().enumerate();
        let verdicts = raw.verdicts.into_iter().enumerate();
        let upstream = upstream(raw.upstream)?;
        let mut profile = Profile {
            signing: raw.signing.map(signing::Raw::check).transpose()?,
            oauth: raw.oauth.map(oauth::Raw::check).transpose()?,
            login: raw.login.check(&raw.credentials)?,
            record: snapshot::Platform {
                id: fit("id", Id::try_from(raw.id.as_str()))?,
                owner: fit("owner", HeaderText::try_from(raw.owner))?,
                base_path: upstream.url.path.clone(),
                endpoints: accents::put(raw.accents, endpoints(raw.endpoints)?)?,
                headers: headers(raw.headers)?,
                query: query(raw.query)?,
                models: models
                    .map(|(index, model)| {
                        fit(
                            format!("models[{index}]"),
                            HeaderText::try_from(model.as_str()),
                        )
                    })
                    .collect::<Result<_, _>>()?,
                verdicts: verdicts
                    .map(|(index, table)| rule(index, table))
                    .collect::<Result<_, _>>()?,
                elsewhere: raw.elsewhere,
                quota: windows(raw.quota)?,
            },
            probe: None,
            quota_endpoint: None,
            limits: raw.limits.check()?,
            upstream,
            id: raw.id,
            name: raw.name,
            terms: raw.terms.map(|terms| terms.trim().to_owned()),
            credentials: raw.credentials,
            api_keys: raw.api_key,
        };
        profile.check(raw.auth)?;
        let dialect = profile.record.endpoints.first().map(|one| one.dialect);
        if let Some(dialect) = dialect {
            let plan = &profile.record.headers;
            let probe = raw.probe.map(|raw| raw.check("probe", dialect, plan));
            let quota = raw.quota_endpoint.map(|raw| raw.check(dialect, plan));
            (profile.probe, profile.quota_endpoint) = (probe.transpose()?, quota.transpose()?);
        }
        if raw.auth != Auth::Query {
            profile.check_places()?;
        }
        Ok(profile)
    }

    /// The rules that tie one key to another.
    fn check(&self, auth: Auth) -> Result<(), Invalid> {
        let legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        if self.id.is_empty() || !self.id.bytes().all(legal) {
            return Err(invalid(
                "id",
                "expected lower-case letters, digits, - and _",
            ));
        }
        if self.id.len() > MAX_PLATFORM_BYTES {
            let problem = format!("expected at most {MAX_PLATFORM_BYTES} characters");
            return Err(invalid("id", problem));
        }
        if self.credentials.is_empty() {
            return Err(invalid(
                "credentials",
                "expected at least one kind of credential",
            ));
        }
        if self.record.endpoints.is_empty() {
            return Err(invalid("endpoints", "expected one endpoint at least"));
        }
        let in_headers = self.record.headers.has_credential();
        let in_query = self.record.query.has_credential();
        match auth {
            Auth::Header | Auth::Signed if !in_headers || in_query => {
                return Err(invalid(
                    "headers.set",
                    "expected a header with {credential} here and none in query.set; or auth = \"query\"",
                ));
            }
            Auth::Query if !in_query || in_headers => {
                return Err(invalid(
                    "query.set",
                    "expected a parameter with {credential} here and none in headers.set; or auth = \"header\"",
                ));
            }
            Auth::Header | Auth::Query | Auth::Signed => {}
        }
        if (auth == Auth::Signed) != self.signing.is_some() {
            let problem = "expected auth = \"signed\" and a [signing] table, both or neither";
            return Err(invalid("signing", problem));
        }
        if self.signing.is_some() && self.credentials != [CredentialKind::ApiKey] {
            let problem = "expected [\"api_key\"] where auth is \"signed\": the key is what signs";
            return Err(invalid("credentials", problem));
        }
        if self.credentials.contains(&CredentialKind::SignedKey) {
            let problem = "expected \"api_key\" and auth = \"signed\" in place of \"signed_key\"";
            return Err(invalid("credentials", problem));
        }
        self.check_logins()?;
        let of_tokens = self
            .oauth
            .iter()
            .flat_map(|oauth| oauth.claims.keys().chain(oauth.answer.claims.keys()));
        let of_session = self.login.session().into_iter();
        let of_session = of_session.flat_map(|session| session.claims.keys());
        let claims = of_tokens.chain(of_session).map(String::as_str);
        let mut claims: BTreeSet<&str> = claims.collect();
        claims.extend(self.login.setup.map(flow::Setup::var));
        if let Some(variable) = self.required_vars().difference(&claims).next() {
            let record = &self.record;
            let key = if record.headers.vars().any(|used| used == *variable) {
                "headers.set"
            } else if record.query.vars().any(|used| used == *variable) {
                "query.set"
            } else {
                "endpoints"
            };
            return Err(invalid(
                key,
                format!(
                    "expected {{credential}} or a name from [oauth.claims], [oauth.answer.claims] or [login.session.claims], found {{{variable}}}"
                ),
            ));
        }
        Ok(())
    }

    /// Checks that the credential goes out once, and in one header, wherever a request goes.
    fn check_places(&self) -> Result<(), Invalid> {
        let headers = &self.record.headers.set;
        let check = |at: &str, endpoint: &Endpoint| {
            let out = headers.iter().filter(|(name, template)| {
                template.has_credential() && !endpoint.omit.contains(name)
            });
            match out.count() {
                1 => Ok(()),
                _ => Err(invalid(
                    at,
                    "expected one header of headers.set with {credential} to go out here; omit names those that do not",
                )),
            }
        };
        for endpoint in &self.record.endpoints {
            let (dialect, operation) = (endpoint.dialect.word(), endpoint.operation.as_str());
            check(&format!("endpoints.{dialect}.{operation}"), endpoint)?;
        }
        let quota = self.quota_endpoint.as_ref();
        let quota = quota.map(|quota| ("quota_endpoint", &quota.call));
        let calls = self.probe.as_ref().map(|probe| ("probe", probe));
        let mut calls = calls.into_iter().chain(quota);
        calls.try_for_each(|(at, call)| check(at, &call.endpoint))
    }

    /// The rules that tie a kind of credential to the flows that give it.
    fn check_logins(&self) -> Result<(), Invalid> {
        let flows = &self.login.flows;
        for kind in [
            CredentialKind::OAuth,
            CredentialKind::ClientCredentials,
            CredentialKind::Session,
        ] {
            let name = kind.as_str();
            let is_given = flows.iter().any(|flow| flow.gives() == kind);
            if self.credentials.contains(&kind) && !is_given {
                return Err(invalid(
                    "login",
                    format!("credentials has {name:?}, so a [login] table must say how to get it"),
                ));
            }
        }
        let Some(oauth) = &self.oauth else {
            let needs_none = |flow| matches!(flow, &Flow::Session(_));
            return match flows.iter().all(needs_none) {
                true => Ok(()),
                false => Err(invalid(
                    "oauth",
                    "a [login] table needs an [oauth] table beside it, which names the token endpoint",
                )),
            };
        };
        let by_code = self
            .login
            .device()
            .is_some_and(|device| device.by_code.is_some());
        if oauth.exchange_state && by_code {
            let problem = "expected no [login.device.by_code] beside it: its code has no state";
            return Err(invalid("oauth.exchange_state", problem));
        }
        let has_client = !oauth.client_id.is_empty() || oauth.client_env.is_some();
        if self.credentials.contains(&CredentialKind::OAuth) && !has_client {
            return Err(invalid(
                "oauth.client_id",
                "expected the client that people log in to",
            ));
        }
        Ok(())
    }

    /// The endpoints that the refresher itself calls.
    pub fn endpoints(&self) -> impl Iterator<Item = &Url> {
        let oauth = self
            .oauth
            .iter()
            .flat_map(|oauth| [Some(&oauth.token_url), oauth.revoke_url.as_ref()]);
        let device = self.login.device().into_iter().flat_map(|device| {
            let polled = device.by_code.as_ref().map(|by_code| &by_code.poll_url);
            [Some(&device.authorize_url), polled]
        });
        oauth.chain(device).flatten()
    }

    /// The platform as an account reaches it that has this proxy of its own, if it has one.
    pub fn by(&self, proxy: Option<&Proxy>) -> Cow<'_, Profile> {
        let Some(proxy) = proxy else {
            return Cow::Borrowed(self);
        };
        let mut profile = self.clone();
        profile.upstream.proxy = Some(proxy.clone());
        Cow::Owned(profile)
    }

    /// The platform with the client to which people log in, where that is the operator's own; `variable` reads the
    /// environment.
    ///
    /// # Errors
    /// If it is not there.
    pub fn with_client(
        &self,
        variable: impl Fn(&str) -> Option<SecretString>,
    ) -> Result<Cow<'_, Profile>, NoClient> {
        let oauth = self.oauth.as_ref();
        let Some(env) = oauth.and_then(|oauth| oauth.client_env.as_ref()) else {
            return Ok(Cow::Borrowed(self));
        };
        let read = |name: &str| {
            variable(name).ok_or_else(|| NoClient {
                platform: self.id.clone(),
                env: env.clone(),
                missing: name.to_owned(),
            })
        };
        let (id, secret) = (read(&env.id)?, read(&env.secret)?);
        let id = id.expose_secret().to_owned();
        let mut profile = self.clone();
        if let Some(oauth) = &mut profile.oauth {
            oauth.client_id.clone_from(&id);
            oauth.own_client = Some(OwnClient { id, secret });
        }
        Ok(Cow::Owned(profile))
    }

    /// Returns the part of it that the store publishes.
    pub fn publication(&self) -> Publication {
        Publication {
            record: self.record.clone(),
            authority: self.upstream.url.authority.clone(),
            limits: self.limits.clone(),
        }
    }

    /// The account variables that requests need; an account without one of them cannot be used.
    pub fn required_vars(&self) -> BTreeSet<&str> {
        self.record.vars().collect()
    }
}

/// The profile of Codex, for tests.
#[cfg(test)]
pub(crate) fn example() -> Profile {
    // To load all profiles takes longer than most tests that need this one.
    static EXAMPLE: std::sync::LazyLock<Profile> = std::sync::LazyLock::new(|| {
        let catalog = Catalog::load(None, ["codex".to_owned()].into()).unwrap();
        catalog.usable("codex").unwrap().clone()
    });
    EXAMPLE.clone()
}

#[cfg(test)]
mod tests;
