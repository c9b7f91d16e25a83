//! Platform profiles: what a platform is, as data. A profile is read from TOML in two stages, as written (`raw`) and as
//! meant ([`Profile`]); [`catalog`] puts the embedded ones and the operator's together.

pub mod catalog;
pub mod flow;
mod layers;
pub mod oauth;
mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use latchkey::header::{HeaderName, HeaderText, NamePattern};
use latchkey::id::Id;
use latchkey::label::WindowName;
use latchkey::snapshot::{self, HeaderPlan, Route, Template};
use latchkey::verdict::Rule;
use latchkey::verdict::quota::{WindowHeaders, Windows};
use reqwest::Url;
use serde::de::value::Error as ValueError;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};

pub use catalog::Catalog;
pub use flow::{Flow, WaysIn};
pub use oauth::{Encoding, OAuth};

use crate::credential::{CredentialKind, Renewal};

/// A value that does not fit, and where it is.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Invalid {
    /// The key, as written in TOML.
    pub key: String,
    /// What was expected and what was found.
    pub problem: String,
}

fn invalid(key: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid {
        key: key.into(),
        problem: problem.into(),
    }
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
    /// Where requests go.
    pub upstream: Upstream,
    /// The token endpoint; present if a credential of `credentials` comes from one.
    pub oauth: Option<OAuth>,
    /// How to log in.
    pub login: WaysIn,
    /// Routes, headers and models: what Envoy has to know.
    pub record: snapshot::Platform,
}

/// Where a platform's requests go.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Whether to speak TLS: `https`.
    pub tls: bool,
    /// The name or address to connect to.
    pub host: Host,
    /// The port, also where the URL leaves it out.
    pub port: u16,
    /// `:authority` of requests: host, and port where it is not the scheme's own.
    pub authority: HeaderText,
    /// A file of certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// A host to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// To be resolved.
    Name(String),
    /// As it is.
    Address(IpAddr),
}

/// A platform to be published, and the `:authority` of its accounts' requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The record that Envoy gets.
    pub record: snapshot::Platform,
    /// Host, and port where it is not the scheme's own.
    pub authority: HeaderText,
}

impl Profile {
    /// Reads a profile from TOML, merged or not.
    ///
    /// # Errors
    /// Naming the key and what is wrong with it.
    pub fn from_table(table: toml::Table) -> Result<Profile, Invalid> {
        let raw: raw::Profile = table
            .try_into()
            .map_err(|error: toml::de::Error| from_toml(&error))?;
        let models = raw.models.iter().enumerate();
        let routes = raw.routes.into_iter().enumerate();
        let verdicts = raw.verdicts.into_iter().enumerate();
        let profile = Profile {
            upstream: upstream(raw.upstream)?,
            oauth: raw.oauth.map(oauth::Raw::check).transpose()?,
            login: raw.login.check()?,
            record: snapshot::Platform {
                id: fit("id", Id::try_from(raw.id.as_str()))?,
                owner: fit("owner", HeaderText::try_from(raw.owner))?,
                routes: routes
                    .map(|(index, raw)| route(index, raw))
                    .collect::<Result<_, _>>()?,
                headers: headers(raw.headers)?,
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
                quota: windows(raw.quota)?,
            },
            id: raw.id,
            name: raw.name,
            terms: raw.terms.map(|terms| terms.trim().to_owned()),
            credentials: raw.credentials,
        };
        profile.check()?;
        Ok(profile)
    }

    /// The rules that tie one key to another.
    fn check(&self) -> Result<(), Invalid> {
        let legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        if self.id.is_empty() || !self.id.bytes().all(legal) {
            return Err(invalid(
                "id",
                format!(
                    "expected lower-case letters, digits, - and _, found {:?}",
                    self.id
                ),
            ));
        }
        if self.credentials.is_empty() {
            return Err(invalid(
                "credentials",
                "expected one kind of credential at least",
            ));
        }
        if self.record.routes.is_empty() {
            return Err(invalid("routes", "expected one [[routes]] at least"));
        }
        self.check_logins()?;
        let claims = self
            .oauth
            .iter()
            .flat_map(|oauth| oauth.claims.keys())
            .map(String::as_str)
            .collect();
        if let Some(variable) = self.required_vars().difference(&claims).next() {
            return Err(invalid(
                "headers.set",
                format!(
                    "expected {{credential}} or a name from [oauth.claims], found {{{variable}}}"
                ),
            ));
        }
        Ok(())
    }

    /// The rules that tie a kind of credential to where it comes from.
    fn check_logins(&self) -> Result<(), Invalid> {
        let takes = |kind| self.credentials.contains(&kind);
        let (logins, clients) = (
            takes(CredentialKind::OAuth),
            takes(CredentialKind::ClientCredentials),
        );
        let Some(oauth) = &self.oauth else {
            return match (logins || clients, self.login.flows.is_empty()) {
                (true, _) => Err(invalid(
                    "oauth",
                    "credentials has a kind that a token endpoint gives, so an [oauth] table must name it",
                )),
                (false, false) => Err(invalid("login", "expected an [oauth] table beside it")),
                (false, true) => Ok(()),
            };
        };
        if logins && oauth.client_id.is_empty() {
            return Err(invalid(
                "oauth.client_id",
                "expected the client that people log in to",
            ));
        }
        if logins && self.login.flows.is_empty() {
            return Err(invalid(
                "login",
                "credentials has \"oauth\", so a [login] table must say how to log in",
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
        let device = self.login.device().map(|device| &device.authorize_url);
        oauth.flatten().chain(device)
    }

    /// How a credential of that kind stays alive.
    pub fn renewal(&self, kind: CredentialKind) -> Renewal {
        match kind {
            CredentialKind::OAuth => self
                .oauth
                .as_ref()
                .map_or(Renewal::SingleUse, |oauth| oauth.renewal),
            CredentialKind::ClientCredentials => Renewal::Minted,
            CredentialKind::ApiKey => Renewal::None,
        }
    }

    /// What the store publishes of it.
    pub fn publication(&self) -> Publication {
        Publication {
            record: self.record.clone(),
            authority: self.upstream.authority.clone(),
        }
    }

    /// The account variables that the headers use; an account without one of them cannot be used.
    pub fn required_vars(&self) -> BTreeSet<&str> {
        self.record.headers.vars().collect()
    }
}

/// An error of the first stage; the toml crate says the key in its message.
fn from_toml(error: &toml::de::Error) -> Invalid {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let problem = lines.next().unwrap_or_default().to_owned();
    let table = lines.find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    let named = problem.strip_prefix("unknown field `");
    let unknown = named.and_then(|rest| rest.split_once('`').map(|(key, _)| key));
    let key = match (table, unknown) {
        (Some(table), Some(key)) => format!("{table}.{key}"),
        (Some(key), None) | (None, Some(key)) => key.to_owned(),
        (None, None) => "profile".to_owned(),
    };
    invalid(key, problem)
}

fn upstream(raw: raw::Upstream) -> Result<Upstream, Invalid> {
    let key = "upstream.base_url";
    let url = web_url(key, &raw.base_url)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(
            key,
            "expected scheme, host and port alone; paths belong in [[routes]]",
        ));
    }
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Upstream {
        tls: url.scheme() == "https",
        host: bare
            .parse()
            .map_or_else(|_| Host::Name(host.to_owned()), Host::Address),
        port: url.port_or_known_default().unwrap_or_default(),
        authority: fit(
            key,
            HeaderText::try_from(
                url.port()
                    .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            ),
        )?,
        ca_file: raw.ca_file,
    })
}

fn web_url(key: &str, text: &str) -> Result<Url, Invalid> {
    let url = Url::parse(text)
        .map_err(|error| invalid(key, format!("expected a URL, found {text:?}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid(
            key,
            format!("expected an http or https URL with a host, found {text:?}"),
        ));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(invalid(
            key,
            format!(
                "expected https: over plain http to another machine, credentials could be read on the way; found {text:?}"
            ),
        ));
    }
    if url.fragment().is_some() {
        return Err(invalid(key, "expected a URL without a fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            key,
            "expected a URL without a user name or password",
        ));
    }
    Ok(url)
}

/// True for a page or an endpoint that nothing between here and there can read.
pub(crate) fn is_web(url: &Url) -> bool {
    url.has_host() && (url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)))
}

/// True if the URL's host is this machine by its very name: no resolver is asked.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn route(index: usize, raw: raw::Route) -> Result<Route, Invalid> {
    let key = |name: &str| format!("routes[{index}].{name}");
    let is_method = |method: &String| {
        !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase())
    };
    if raw.methods.is_empty() || !raw.methods.iter().all(is_method) {
        return Err(invalid(
            key("methods"),
            format!("expected methods in upper case, found {:?}", raw.methods),
        ));
    }
    let dialect = raw.dialect.as_str().into_deserializer();
    Ok(Route {
        path: fit(key("path"), raw.path.try_into())?,
        methods: fit(
            key("methods"),
            raw.methods.into_iter().map(HeaderText::try_from).collect(),
        )?,
        dialect: fit(
            key("dialect"),
            Deserialize::deserialize(dialect).map_err(|error: ValueError| error),
        )?,
        upstream: fit(key("upstream"), raw.upstream.try_into())?,
        requires: raw.requires,
        include_usage: raw.include_usage,
        free: raw.free,
    })
}

fn rule(index: usize, written: toml::Table) -> Result<Rule, Invalid> {
    let problem = "expected a key that this verdict uses, with a value";
    exact(&format!("verdicts[{index}]"), written, problem)
}

/// The windows whose usage the platform reports in headers.
fn windows(raw: BTreeMap<String, toml::Table>) -> Result<Windows, Invalid> {
    let window = |(name, written)| {
        let at = format!("quota.{name}");
        let problem = "expected a key that a window has: used_percent, used_fraction, limit, remaining, refused, \
                       resets or minutes, with a value";
        let headers: WindowHeaders = exact(&at, written, problem)?;
        match headers.problem() {
            Some(problem) => Err(invalid(at, problem)),
            None => Ok((fit(at, WindowName::try_from(name))?, headers)),
        }
    };
    raw.into_iter().map(window).collect()
}

/// Reads one of the snapshot's own types, which must come back as it was written. The type lets keys pass that it does
/// not know, for the sake of newer refreshers; here such a key is a mistake.
fn exact<T: DeserializeOwned + Serialize>(
    at: &str,
    written: toml::Table,
    problem: &str,
) -> Result<T, Invalid> {
    let message = |error: toml::de::Error| error.message().trim().to_owned();
    let value: T = fit(at, written.clone().try_into().map_err(message))?;
    let meant = fit(at, toml::Table::try_from(&value))?;
    match written.keys().find(|key| !meant.contains_key(*key)) {
        Some(key) => Err(invalid(format!("{at}.{key}"), problem)),
        None => Ok(value),
    }
}

fn headers(raw: raw::Headers) -> Result<HeaderPlan, Invalid> {
    let mut plan = HeaderPlan {
        set: Vec::new(),
        default: Vec::new(),
        allow: Vec::new(),
    };
    for (name, template) in raw.set {
        let key = format!("headers.set.{name}");
        let template = fit(&key, HeaderText::try_from(template))?;
        plan.set.push((
            fit(&key, HeaderName::try_from(name))?,
            fit(&key, Template::try_from(template))?,
        ));
    }
    for (name, value) in raw.default {
        let key = format!("headers.default.{name}");
        plan.default.push((
            fit(&key, HeaderName::try_from(name))?,
            fit(&key, HeaderText::try_from(value))?,
        ));
    }
    for (index, pattern) in raw.allow.into_iter().enumerate() {
        plan.allow.push(fit(
            format!("headers.allow[{index}]"),
            NamePattern::try_from(pattern),
        )?);
    }
    Ok(plan)
}

/// Names the key of a value that the snapshot's types refuse: CR, LF and NUL among them.
fn fit<T, E: fmt::Display>(key: impl Into<String>, value: Result<T, E>) -> Result<T, Invalid> {
    value.map_err(|error| invalid(key, error.to_string()))
}

/// The profile of Codex, for tests.
#[cfg(test)]
pub(crate) fn example() -> Profile {
    let catalog = Catalog::load(None, ["codex".to_owned()].into()).unwrap();
    catalog.usable("codex").unwrap().clone()
}

#[cfg(test)]
mod tests;
