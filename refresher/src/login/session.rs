//! A session: a person logs in at the platform's own page, in a browser that is opened for it, and what the profile names
//! is read when that has happened.
//!
//! Only the profile's site is read, and only what it names. The person types whatever the platform asks of them: no field
//! is filled and no check is answered for them. A session cannot be renewed; when it ends, the person logs in again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use latchkey::header::MAX_VALUE_BYTES;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::callback::LOGIN_LIMIT;
use crate::browser::{self, Browser, Page};
use crate::clock::{Clock, UnixMillis};
use crate::credential::Credential;
use crate::egress::Proxy;
use crate::oauth::answer::EXPIRY_LIMIT;
use crate::oauth::claims::{CLAIM_LIMIT, Claims};
use crate::oauth::exchange::Granted;
use crate::platform::Profile;
use crate::platform::flow::{Session, Source};

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// The pause between two questions to the site itself.
const ASK: Duration = Duration::from_secs(5);
/// Bytes of a page's answer.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// The reason why no session came of it. Nothing was saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The browser failed, or was closed.
    #[error(transparent)]
    Browser(#[from] browser::Error),
    /// The last window was closed.
    #[error("the browser was closed before the login was complete; start it again")]
    Closed,
    /// Nobody finished.
    #[error("nobody finished the login within {} minutes{}", LOGIN_LIMIT.as_secs() / 60, missing(.0))]
    TimedOut(Vec<String>),
    /// A value cannot go out.
    #[error(
        "expected {0}, as the site keeps it, to be visible ASCII and, with the others, at most {MAX_VALUE_BYTES} \
         bytes long; found something else; point [login.session] of the platform's profile elsewhere"
    )]
    Unfit(String),
}

fn missing(names: &[String]) -> String {
    if names.is_empty() {
        "; its sign in [login.session.done] of the platform's profile never came".to_owned()
    } else {
        format!("; the site has no {}", names.join(", "))
    }
}

/// A visit to a platform's page, for which a browser is opened.
#[derive(Debug, Clone)]
pub struct Visit {
    flow: Session,
    program: PathBuf,
    proxy: Option<Proxy>,
}

impl Visit {
    /// Describes the visit at `profile`, by the platform's proxy if it has one.
    pub(super) fn new(profile: &Profile, flow: &Session, program: PathBuf) -> Visit {
        Visit {
            flow: flow.clone(),
            program,
            proxy: profile.upstream.proxy.clone(),
        }
    }

    /// Opens the browser, waits until a person has logged in, and closes it.
    ///
    /// # Errors
    /// If the browser fails or is closed, or there is no session within [`LOGIN_LIMIT`].
    pub async fn run(&self, clock: &impl Clock) -> Result<Granted, Error> {
        let opened = Browser::open(&self.program, &self.flow.url, self.proxy.as_ref()).await?;
        let mut window = Opened::new(opened);
        let granted = capture(&mut window, &self.flow, clock).await;
        window.close().await;
        granted
    }
}

/// A cookie of the site.
#[derive(Debug, Clone)]
pub struct Cookie {
    name: String,
    value: SecretString,
    expires_at: Option<UnixMillis>,
}

/// A browser, as far as it is asked.
pub trait Window {
    /// The addresses of its pages.
    fn addresses(&mut self) -> impl Future<Output = Result<Vec<String>, browser::Error>> + Send;
    /// The cookies that a request to `site` has.
    fn cookies(
        &mut self,
        site: &Url,
    ) -> impl Future<Output = Result<Vec<Cookie>, browser::Error>> + Send;
    /// An entry of the local storage of `site`; none while no page of it is open.
    fn stored(
        &mut self,
        site: &Url,
        key: &str,
    ) -> impl Future<Output = Result<Option<SecretString>, browser::Error>> + Send;
    /// The text that `url` answers to a page of its site; none while no page of it is open.
    fn answer(
        &mut self,
        url: &Url,
    ) -> impl Future<Output = Result<Option<SecretString>, browser::Error>> + Send;
}

/// Waits until a person has logged in there, and reads the session.
///
/// # Errors
/// If the browser is closed, nobody finishes within [`LOGIN_LIMIT`], or what is there cannot go out.
pub async fn capture(
    window: &mut impl Window,
    flow: &Session,
    clock: &impl Clock,
) -> Result<Granted, Error> {
    let mut missing = Vec::new();
    let mut asked_at = None;
    let looking = async {
        loop {
            match look(window, flow, &mut asked_at).await {
                Ok(Look::Found(found)) => return granted(flow, &found, clock.now()),
                Ok(Look::Missing(names)) => missing = names,
                // A dialog of the page is open, or it is just going away.
                Err(browser::Error::Silent | browser::Error::Refused(_)) => {}
                Err(browser::Error::Closed) => return Err(Error::Closed),
                Err(error) => return Err(error.into()),
            }
            sleep(LOOK).await;
        }
    };
    match timeout(LOGIN_LIMIT, looking).await {
        Ok(granted) => granted,
        Err(_) => Err(Error::TimedOut(missing)),
    }
}

/// A value that was read, and its end where that is known.
type Found = (SecretString, Option<UnixMillis>);

enum Look {
    /// All is there.
    Found(BTreeMap<String, Found>),
    /// These names are not; none if the sign is.
    Missing(Vec<String>),
}

async fn look(
    window: &mut impl Window,
    flow: &Session,
    asked_at: &mut Option<Instant>,
) -> Result<Look, browser::Error> {
    let addresses = window.addresses().await?;
    if addresses.is_empty() {
        return Err(browser::Error::Closed);
    }
    let cookies = window.cookies(&flow.site).await?;
    let cookie = |name: &str| cookies.iter().find(|cookie| cookie.name == name);
    let sources = || flow.secrets.iter().chain(&flow.claims);
    let mut found = BTreeMap::new();
    for (name, source) in sources() {
        let value = match source {
            Source::Cookie(cookie_name) => {
                cookie(cookie_name).map(|cookie| (cookie.value.clone(), cookie.expires_at))
            }
            Source::LocalStorage { key, at } => {
                let text = window.stored(&flow.site, key).await?;
                text.and_then(|text| member(text, at.as_deref()))
                    .map(|value| (value, None))
            }
            Source::Page { .. } => None,
        };
        // What is empty is not there yet.
        if let Some(value) = value.filter(|(value, _)| !value.expose_secret().is_empty()) {
            found.insert(name.clone(), value);
        }
    }
    let lacks = |found: &BTreeMap<String, Found>, is_asked: bool| -> Vec<String> {
        let is_of = |source: &Source| matches!(source, Source::Page { .. }) == is_asked;
        let lacking =
            sources().filter(|(name, source)| is_of(source) && !found.contains_key(*name));
        lacking.map(|(name, _)| name.clone()).collect()
    };
    let missing = lacks(&found, false);
    let has_cookie = flow
        .done
        .cookie
        .as_deref()
        .is_none_or(|name| cookie(name).is_some());
    let is_there = |wanted: &Url| addresses.iter().any(|address| begins(address, wanted));
    let is_done = has_cookie && flow.done.address.as_ref().is_none_or(is_there);
    if !missing.is_empty() || !is_done {
        return Ok(Look::Missing(missing));
    }
    // The site itself is asked once the login has happened, and then politely.
    if asked_at.is_none_or(|at| at.elapsed() >= ASK) {
        for (name, source) in sources() {
            let Source::Page { url, at } = source else {
                continue;
            };
            *asked_at = Some(Instant::now());
            let text = window.answer(url).await?;
            if let Some(value) = text.and_then(|text| member(text, Some(at))) {
                found.insert(name.clone(), (value, None));
            }
        }
    }
    let missing = lacks(&found, true);
    Ok(if missing.is_empty() {
        Look::Found(found)
    } else {
        Look::Missing(missing)
    })
}

/// True for `wanted` and what is below it: the same origin, and a path that begins with its own.
fn begins(address: &str, wanted: &Url) -> bool {
    Url::parse(address).is_ok_and(|address| {
        address.origin() == wanted.origin() && address.path().starts_with(wanted.path())
    })
}

/// The text, or the scalar in it that a JSON pointer leads to.
fn member(text: SecretString, at: Option<&str>) -> Option<SecretString> {
    let Some(at) = at else {
        return Some(text);
    };
    let value: Value = serde_json::from_str(text.expose_secret()).ok()?;
    match value.pointer(at)? {
        Value::String(text) if !text.is_empty() => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// Makes the credential of what was found. It ends with the first of its cookies and tokens.
fn granted(
    flow: &Session,
    found: &BTreeMap<String, Found>,
    now: UnixMillis,
) -> Result<Granted, Error> {
    let is_visible = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let mut ends = Vec::new();
    for name in flow.secrets.keys() {
        let Some((value, expires_at)) = found.get(name) else {
            return Err(Error::Unfit(name.clone()));
        };
        if !is_visible(value.expose_secret()) {
            return Err(Error::Unfit(name.clone()));
        }
        let claims = Claims::decode_unverified(value);
        ends.extend(*expires_at);
        ends.extend(claims.and_then(|claims| claims.expiry()));
    }
    let value = |name: &str| Some(found.get(name)?.0.expose_secret());
    let on_the_wire = flow.credential.fill("", value);
    let on_the_wire = on_the_wire.filter(|text| text.len() <= MAX_VALUE_BYTES);
    let on_the_wire = on_the_wire.ok_or_else(|| {
        let names: Vec<&str> = flow.secrets.keys().map(String::as_str).collect();
        Error::Unfit(names.join(", "))
    })?;
    let mut vars = BTreeMap::new();
    for name in flow.claims.keys() {
        let value = value(name).filter(|value| value.len() <= CLAIM_LIMIT && is_visible(value));
        let value = value.ok_or_else(|| Error::Unfit(name.clone()))?;
        vars.insert(name.clone(), value.to_owned());
    }
    Ok(Granted {
        credential: Credential::Session(on_the_wire.into()),
        credential_expires_at: ends
            .into_iter()
            .min()
            .map(|at| at.min(now.plus(EXPIRY_LIMIT))),
        login_ends_at: None,
        vars,
    })
}

/// A browser's window, with the pages that were attached to.
#[derive(Debug)]
pub struct Opened {
    browser: Browser,
    pages: Vec<Page>,
    /// By the pages' ids.
    sessions: BTreeMap<String, String>,
}

impl Opened {
    /// Reads in this browser.
    pub fn new(browser: Browser) -> Opened {
        Opened {
            browser,
            pages: Vec::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// Ends the browser, and waits until its profile is gone.
    pub async fn close(self) {
        self.browser.close().await;
    }

    /// Asks a page.
    async fn ask(
        &mut self,
        page: &Page,
        method: &'static str,
        parameters: Value,
    ) -> Result<Value, browser::Error> {
        let session = match self.sessions.get(&page.target) {
            Some(session) => session.clone(),
            None => {
                let session = self.browser.attach(page).await?;
                self.sessions.insert(page.target.clone(), session.clone());
                session
            }
        };
        let answer = self.browser.call(Some(&session), method, parameters).await;
        // The page may have been put into another process, to which there is another session.
        if matches!(answer, Err(browser::Error::Refused(_))) {
            self.sessions.remove(&page.target);
        }
        answer
    }

    /// The text that an expression has in a page of that site.
    async fn text_in(
        &mut self,
        site: &Url,
        expression: String,
    ) -> Result<Option<SecretString>, browser::Error> {
        let is_of_site =
            |page: &&Page| Url::parse(&page.url).is_ok_and(|url| url.origin() == site.origin());
        let Some(page) = self.pages.iter().find(is_of_site).cloned() else {
            return Ok(None);
        };
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask(&page, "Runtime.evaluate", parameters).await?;
        Ok(answer["result"]["value"].as_str().map(SecretString::from))
    }
}

impl Window for Opened {
    async fn addresses(&mut self) -> Result<Vec<String>, browser::Error> {
        self.pages = self.browser.pages().await?;
        let pages = &self.pages;
        self.sessions
            .retain(|target, _| pages.iter().any(|page| page.target == *target));
        Ok(pages.iter().map(|page| page.url.clone()).collect())
    }

    async fn cookies(&mut self, site: &Url) -> Result<Vec<Cookie>, browser::Error> {
        let Some(page) = self.pages.first().cloned() else {
            return Ok(Vec::new());
        };
        let parameters = json!({"urls": [site.as_str()]});
        let answer = self.ask(&page, "Network.getCookies", parameters).await?;
        let cookie = |cookie: &Value| {
            // A cookie of the browser's session has -1 there.
            let expires = cookie["expires"].as_f64().filter(|seconds| *seconds > 0.0);
            Some(Cookie {
                name: cookie["name"].as_str()?.to_owned(),
                value: cookie["value"].as_str()?.into(),
                expires_at: expires.map(|seconds| UnixMillis((seconds * 1000.0) as i64)),
            })
        };
        let cookies = answer["cookies"].as_array();
        Ok(cookies.into_iter().flatten().filter_map(cookie).collect())
    }

    async fn stored(
        &mut self,
        site: &Url,
        key: &str,
    ) -> Result<Option<SecretString>, browser::Error> {
        let expression = format!("localStorage.getItem({})", Value::from(key));
        self.text_in(site, expression).await
    }

    async fn answer(&mut self, url: &Url) -> Result<Option<SecretString>, browser::Error> {
        let expression = format!(
            "fetch({}, {{credentials: 'include', headers: {{accept: 'application/json'}}}})\
             .then(answer => answer.ok ? answer.text() : '')\
             .then(text => text.length <= {ANSWER_LIMIT} ? text : '')",
            Value::from(url.as_str())
        );
        self.text_in(url, expression).await
    }
}

#[cfg(test)]
mod tests;
