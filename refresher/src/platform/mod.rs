//! Platform profiles: what a platform is, as data. A profile is read from TOML in two stages, as written (`raw`) and as
//! meant ([`Profile`]); [`catalog`] puts the embedded ones and the operator's together.

pub mod catalog;
mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method};
use reqwest::Url;
use serde::Deserialize;

pub use catalog::Catalog;

use crate::credential::CredentialKind;

/// The dialects that a route may name.
const DIALECTS: [&str; 3] = ["chat", "responses", "messages"];
/// The name that stands for the access token or API key in `headers.set`.
const CREDENTIAL: &str = "credential";

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
    /// `owned_by` in `/v1/models`.
    pub owner: String,
    /// A notice that the operator must acknowledge before the platform is on.
    pub terms: Option<String>,
    /// The credentials that its accounts may have.
    pub credentials: Vec<CredentialKind>,
    /// Model ids for `/v1/models`.
    pub models: Vec<String>,
    /// Where requests go.
    pub upstream: Upstream,
    /// Which requests it answers.
    pub routes: Vec<Route>,
    /// What the headers of a request become.
    pub headers: Headers,
    /// How to log in and refresh; present if `credentials` names `oauth`.
    pub oauth: Option<OAuth>,
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
    pub authority: String,
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

/// One request path that a platform answers.
#[derive(Debug, Clone)]
pub struct Route {
    /// The caller's path, exact.
    pub path: String,
    /// The methods.
    pub methods: Vec<Method>,
    /// The wire format of the body.
    pub dialect: String,
    /// The path at the platform.
    pub upstream: String,
}

/// What the headers of a request become.
#[derive(Debug, Clone)]
pub struct Headers {
    /// Put on, whatever the caller sent: name and template over `{credential}` and the account's variables.
    pub set: Vec<(HeaderName, String)>,
    /// Put on where the caller sent none.
    pub default: Vec<(HeaderName, HeaderValue)>,
    /// The caller's headers that may go out: a name, or a prefix and `*`.
    pub allow: Vec<String>,
}

/// How the body of a refresh request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshEncoding {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`, as RFC 6749 §6 has it.
    Form,
}

/// How to log in at a platform, refresh and revoke.
#[derive(Debug, Clone)]
pub struct OAuth {
    /// RFC 6749 §3.1.
    pub authorize_url: Url,
    /// RFC 6749 §3.2.
    pub token_url: Url,
    /// RFC 7009.
    pub revoke_url: Option<Url>,
    /// The public client.
    pub client_id: String,
    /// What to ask for.
    pub scopes: Vec<String>,
    /// More parameters of the authorization request.
    pub authorize_params: BTreeMap<String, String>,
    /// The host of the redirect URI: a loopback address (RFC 8252 §7.3) or `localhost`.
    pub redirect_host: String,
    /// Ports to try in order; 0 lets the operating system choose.
    pub redirect_ports: Vec<u16>,
    /// The path of the redirect URI.
    pub redirect_path: String,
    /// How the refresh request is written.
    pub refresh_encoding: RefreshEncoding,
    /// More parameters of the refresh request.
    pub refresh_params: BTreeMap<String, String>,
    /// A file of certificates to trust for these endpoints instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Account variable → JSON pointer (RFC 6901) into the id token's payload.
    pub claims: BTreeMap<String, String>,
    /// Error codes of the token endpoint that end the login for good.
    pub permanent_errors: Vec<String>,
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
        let profile = Profile {
            headers: headers(raw.headers)?,
            routes: raw
                .routes
                .into_iter()
                .enumerate()
                .map(|(n, raw)| route(n, raw))
                .collect::<Result<_, _>>()?,
            upstream: upstream(raw.upstream)?,
            oauth: raw.oauth.map(oauth).transpose()?,
            id: raw.id,
            name: raw.name,
            owner: raw.owner,
            terms: raw.terms.map(|terms| terms.trim().to_owned()),
            credentials: raw.credentials,
            models: raw.models,
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
                "expected \"oauth\", \"api_key\" or both, found none",
            ));
        }
        if self.routes.is_empty() {
            return Err(invalid("routes", "expected one [[routes]] at least"));
        }
        let wants_oauth = self.credentials.contains(&CredentialKind::OAuth);
        if wants_oauth && self.oauth.is_none() {
            return Err(invalid(
                "oauth",
                "credentials has \"oauth\", so an [oauth] table must say how to log in",
            ));
        }
        let claims = self
            .oauth
            .iter()
            .flat_map(|oauth| oauth.claims.keys())
            .collect::<BTreeSet<_>>();
        for variable in self.required_vars() {
            if !claims.contains(&variable) {
                let key = format!("headers.set uses {{{variable}}}");
                return Err(invalid(
                    key,
                    format!("expected {{{CREDENTIAL}}} or a name from [oauth.claims]"),
                ));
            }
        }
        Ok(())
    }

    /// The account variables that the headers use; an account without one of them cannot be used.
    pub fn required_vars(&self) -> BTreeSet<String> {
        let templates = self.headers.set.iter().map(|(_, template)| template);
        // `headers` has checked that every template reads.
        templates
            .flat_map(|template| variables(template).unwrap_or_default())
            .filter(|name| name != CREDENTIAL)
            .collect()
    }
}

/// An error of the first stage; the toml crate says the key in its message.
fn from_toml(error: &toml::de::Error) -> Invalid {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let problem = lines.next().unwrap_or_default().to_owned();
    let key = lines
        .find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'))
        .unwrap_or("profile");
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
        authority: url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
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
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            key,
            "expected a URL without a user name or password",
        ));
    }
    Ok(url)
}

fn route(index: usize, raw: raw::Route) -> Result<Route, Invalid> {
    let key = |name: &str| format!("routes[{index}].{name}");
    for (name, path) in [("path", &raw.path), ("upstream", &raw.upstream)] {
        if !path.starts_with('/')
            || !path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
        {
            return Err(invalid(
                key(name),
                format!("expected an absolute path without a query, found {path:?}"),
            ));
        }
    }
    if !DIALECTS.contains(&raw.dialect.as_str()) {
        return Err(invalid(
            key("dialect"),
            format!("expected one of {DIALECTS:?}, found {:?}", raw.dialect),
        ));
    }
    let method = |text: &String| {
        Method::from_bytes(text.as_bytes())
            .map_err(|_| invalid(key("methods"), format!("{text:?} is no HTTP method")))
    };
    let methods = raw
        .methods
        .iter()
        .map(method)
        .collect::<Result<Vec<_>, _>>()?;
    if methods.is_empty() {
        return Err(invalid(key("methods"), "expected one method at least"));
    }
    Ok(Route {
        path: raw.path,
        methods,
        dialect: raw.dialect,
        upstream: raw.upstream,
    })
}

fn headers(raw: raw::Headers) -> Result<Headers, Invalid> {
    let mut set = Vec::new();
    for (name, template) in raw.set {
        let key = format!("headers.set.{name}");
        header_value(&key, &template)?;
        variables(&template).map_err(|problem| invalid(&key, problem))?;
        set.push((header_name(&key, &name)?, template));
    }
    let mut default = Vec::new();
    for (name, value) in raw.default {
        let key = format!("headers.default.{name}");
        default.push((header_name(&key, &name)?, header_value(&key, &value)?));
    }
    for (index, pattern) in raw.allow.iter().enumerate() {
        header_name(
            &format!("headers.allow[{index}]"),
            pattern.strip_suffix('*').unwrap_or(pattern),
        )?;
    }
    Ok(Headers {
        set,
        default,
        allow: raw.allow,
    })
}

fn header_name(key: &str, name: &str) -> Result<HeaderName, Invalid> {
    let lower = name.bytes().all(|byte| !byte.is_ascii_uppercase());
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .ok()
        .filter(|_| lower);
    parsed.ok_or_else(|| {
        invalid(
            key,
            format!("expected a header name in lower case, found {name:?}"),
        )
    })
}

/// Refuses CR, LF, NUL and every other byte that is not visible ASCII, space or tab.
fn header_value(key: &str, value: &str) -> Result<HeaderValue, Invalid> {
    let parsed = HeaderValue::from_str(value)
        .ok()
        .filter(|_| value.is_ascii());
    parsed.ok_or_else(|| invalid(key, format!("expected visible ASCII, found {value:?}")))
}

/// The names in braces of a template.
fn variables(template: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find(['{', '}']) {
        let end = rest[start..]
            .find('}')
            .filter(|end| *end > 1)
            .ok_or("a brace without its pair")?;
        let name = &rest[start + 1..start + end];
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            return Err(format!(
                "expected a name of lower-case letters and _ in braces, found {name:?}"
            ));
        }
        names.push(name.to_owned());
        rest = &rest[start + end + 1..];
    }
    Ok(names)
}

fn oauth(raw: raw::OAuth) -> Result<OAuth, Invalid> {
    for (name, pointer) in &raw.claims {
        if !pointer.starts_with('/') {
            let key = format!("oauth.claims.{name}");
            return Err(invalid(
                key,
                format!("expected a JSON pointer, which starts with /, found {pointer:?}"),
            ));
        }
    }
    if !raw.redirect_path.starts_with('/') {
        return Err(invalid(
            "oauth.redirect_path",
            "expected a path that starts with /",
        ));
    }
    let loopback = raw
        .redirect_host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    if !loopback && raw.redirect_host != "localhost" {
        return Err(invalid(
            "oauth.redirect_host",
            "expected a loopback address or localhost",
        ));
    }
    if raw.redirect_ports.is_empty() {
        return Err(invalid(
            "oauth.redirect_ports",
            "expected one port at least; 0 lets the system choose",
        ));
    }
    Ok(OAuth {
        authorize_url: web_url("oauth.authorize_url", &raw.authorize_url)?,
        token_url: web_url("oauth.token_url", &raw.token_url)?,
        revoke_url: raw
            .revoke_url
            .map(|url| web_url("oauth.revoke_url", &url))
            .transpose()?,
        client_id: raw.client_id,
        scopes: raw.scopes,
        authorize_params: raw.authorize_params,
        redirect_host: raw.redirect_host,
        redirect_ports: raw.redirect_ports,
        redirect_path: raw.redirect_path,
        refresh_encoding: raw.refresh_encoding,
        refresh_params: raw.refresh_params,
        ca_file: raw.ca_file,
        claims: raw.claims,
        permanent_errors: raw.errors.permanent,
    })
}

#[cfg(test)]
mod tests;
