//! `[login.session]` of a profile: the page at which a person logs in, and what proves it afterwards, as data. The browser
//! and the reading are `login::session`'s.

use std::collections::BTreeMap;

use latchkey::header::HeaderText;
use latchkey::snapshot::Template;
use reqwest::Url;
use serde::Deserialize;

use super::{Invalid, fit, invalid, web_url};

/// The most values that a login reads: each is looked for twice a second.
const MAX_READ: usize = 16;

/// See [`super::Flow::Session`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The page that is opened.
    pub url: Url,
    /// The page whose cookies, storage and answers are read; nothing of another site is.
    pub site: Url,
    /// The sign that the login has happened, beside the presence of all secrets.
    pub done: Done,
    /// The secrets that prove the account, by name.
    pub secrets: BTreeMap<String, Source>,
    /// The claims of the account, by the name of their variable.
    pub claims: BTreeMap<String, Source>,
    /// The credential that goes out, made of the secrets.
    pub credential: Template,
}

/// The signs that a login has happened. Each that is named must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// A cookie of the site.
    pub cookie: Option<String>,
    /// The beginning of a page's address.
    pub address: Option<Url>,
}

/// A place where a site keeps something about its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The cookie of that name.
    Cookie(String),
    /// An entry of the page's local storage.
    LocalStorage {
        /// Its key.
        key: String,
        /// The place in it, if it is JSON.
        at: Option<String>,
    },
    /// A member of a JSON answer of the site.
    Page {
        /// The address at which the site answers it.
        url: Url,
        /// A JSON pointer (RFC 6901).
        at: String,
    },
}

/// `[login.session]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    url: String,
    site: Option<String>,
    credential: String,
    secrets: BTreeMap<String, RawSource>,
    #[serde(default)]
    claims: BTreeMap<String, RawSource>,
    #[serde(default)]
    done: RawDone,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDone {
    cookie: Option<String>,
    address: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    cookie: Option<String>,
    local_storage: Option<String>,
    page: Option<String>,
    at: Option<String>,
}

impl Raw {
    pub(super) fn check(self) -> Result<Session, Invalid> {
        let url = web_url("login.session.url", &self.url)?;
        let site = match &self.site {
            Some(site) => web_url("login.session.site", site)?,
            None => url.clone(),
        };
        let sources = |table: &str, raw: BTreeMap<String, RawSource>| {
            let source = |(name, source): (String, RawSource)| {
                let key = format!("login.session.{table}.{name}");
                let source = source.check(&key, &site)?;
                Ok((name, source))
            };
            raw.into_iter().map(source).collect::<Result<_, Invalid>>()
        };
        let secrets: BTreeMap<String, Source> = sources("secrets", self.secrets)?;
        let claims: BTreeMap<String, Source> = sources("claims", self.claims)?;
        let key = "login.session.credential";
        let text = fit(key, HeaderText::try_from(self.credential))?;
        let credential = fit(key, Template::try_from(text))?;
        let is_named = |name: &str| credential.vars().any(|used| used == name);
        if credential.has_credential()
            || credential.vars().any(|name| !secrets.contains_key(name))
            || !secrets.keys().all(|name| is_named(name))
        {
            let problem =
                "expected each name of [login.session.secrets] in it, as {name}, and no other";
            return Err(invalid(key, problem));
        }
        let found = secrets.len() + claims.len();
        if secrets.is_empty() || found > MAX_READ {
            let problem =
                format!("expected one secret at least, and {MAX_READ} secrets and claims at most");
            return Err(invalid("login.session.secrets", problem));
        }
        let done = self.done.check()?;
        let is_asked = |source: &Source| matches!(source, Source::Page { .. });
        if secrets.values().all(is_asked) && done == Done::default() {
            let problem = "expected a cookie or an address that tells that the login has happened, as no secret does so \
                           without asking the site";
            return Err(invalid("login.session.done", problem));
        }
        Ok(Session {
            url,
            site,
            done,
            secrets,
            claims,
            credential,
        })
    }
}

impl RawDone {
    fn check(self) -> Result<Done, Invalid> {
        let address = self.address.as_deref();
        let address = address.map(|address| web_url("login.session.done.address", address));
        Ok(Done {
            cookie: self.cookie,
            address: address.transpose()?,
        })
    }
}

impl RawSource {
    fn check(self, key: &str, site: &Url) -> Result<Source, Invalid> {
        if self.at.as_ref().is_some_and(|at| !at.starts_with('/')) {
            let problem = "expected a JSON pointer, which starts with /";
            return Err(invalid(format!("{key}.at"), problem));
        }
        match (self.cookie, self.local_storage, self.page, self.at) {
            (Some(name), None, None, None) => Ok(Source::Cookie(name)),
            (None, Some(key), None, at) => Ok(Source::LocalStorage { key, at }),
            (None, None, Some(page), Some(at)) => {
                let url = site.join(&page).ok();
                let url = url.filter(|url| url.origin() == site.origin());
                let url = url.ok_or_else(|| {
                    let problem =
                        "expected a path, or a URL of the same scheme, host and port as `site`";
                    invalid(format!("{key}.page"), problem)
                })?;
                Ok(Source::Page { url, at })
            }
            _ => Err(invalid(
                key,
                "expected one of `cookie`, `local_storage` (with or without `at`) and `page` (with `at`)",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Session, Invalid> {
        toml::from_str::<Raw>(text).unwrap().check()
    }

    const WHOLE: &str = "url = 'https://chat.example/login'\ncredential = 'sid={sid}; t={token}'\n\
        [secrets]\nsid = { cookie = 'sessionid' }\ntoken = { local_storage = 'user', at = '/token' }\n\
        [claims]\naccount_id = { page = '/api/me', at = '/id' }\n\
        [done]\naddress = 'https://chat.example/app'\n";

    #[test]
    fn a_session_is_read_of_one_site() {
        let session = read(WHOLE).unwrap();
        assert_eq!(session.site, session.url);
        let Source::Page { url, .. } = &session.claims["account_id"] else {
            panic!("{session:?}")
        };
        assert_eq!(url.as_str(), "https://chat.example/api/me");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (from, to, key) in [
            ("sid={sid}; ", "", "login.session.credential"),
            ("{sid}", "{other}", "login.session.credential"),
            ("{sid}", "{credential}", "login.session.credential"),
            (
                "'https://chat.example/login'",
                "'http://chat.example/'",
                "login.session.url",
            ),
            (
                "'/api/me'",
                "'https://elsewhere.example/me'",
                "login.session.claims.account_id.page",
            ),
            (
                "'/api/me'",
                "'//elsewhere.example/me'",
                "login.session.claims.account_id.page",
            ),
            (", at = '/id'", "", "login.session.claims.account_id"),
            ("'/token'", "'token'", "login.session.secrets.token.at"),
            (
                "cookie = 'sessionid'",
                "cookie = 'a', page = '/b'",
                "login.session.secrets.sid",
            ),
            (
                "'https://chat.example/app'",
                "'app'",
                "login.session.done.address",
            ),
        ] {
            assert!(WHOLE.contains(from), "{from}");
            assert_eq!(
                read(&WHOLE.replace(from, to)).unwrap_err().key,
                key,
                "{from} -> {to}"
            );
        }
        let asked = "url = 'https://chat.example/'\ncredential = '{token}'\n\
                     secrets.token = { page = '/session', at = '/token' }\n";
        assert_eq!(read(asked).unwrap_err().key, "login.session.done");
        assert!(read(&format!("{asked}done.cookie = 'a'")).is_ok());
    }
}
