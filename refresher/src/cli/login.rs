//! `refresher login`: a person logs an account in through their own browser.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::process::{Command, Stdio};

use clap::Args;
use oauth2::{CsrfToken, PkceCodeVerifier, RedirectUrl};
use reqwest::Url;

use super::limit_flags::TermFlags;
use super::output::{print, relative};
use super::{Context, Error, daemon};
use crate::clock::{Clock, SystemClock};
use crate::credential::Credential;
use crate::login::callback::{self, LOGIN_LIMIT, Listener};
use crate::login::code::Authorization;
use crate::login::pasted::read_pasted;
use crate::login::redirect::{QUERY_LIMIT, Returned};
use crate::oauth::api_key::api_key;
use crate::oauth::claims::{EMAIL, IDENTITY, is_same_account};
use crate::oauth::exchange::{self, exchange};
use crate::oauth::http::HttpClient;
use crate::platform::{OAuth, Profile};
use crate::store::{Account, NewAccount, Saved, Terms};

/// Where a key from `--api-key` is an account: the exchange is OpenAI's own.
const API_KEY_PLATFORM: &str = "openai";

/// Which login, and how.
#[derive(Debug, Args)]
pub struct Login {
    /// The platform: codex, or one of yours that has [oauth]
    platform: String,
    /// What to call the account [default: its email address]
    #[arg(long)]
    name: Option<String>,
    /// Paste the address that the browser ends at, instead of listening for it: for a browser on another machine
    #[arg(long)]
    paste: bool,
    /// Only print the URL, open no browser
    #[arg(long)]
    no_browser: bool,
    /// Listen on this port instead of the platform's own
    #[arg(long, value_name = "PORT", conflicts_with = "paste")]
    port: Option<u16>,
    /// Also get an API key for the account, and add it as an account of the openai platform, on the same terms
    #[arg(long)]
    api_key: bool,
    #[command(flatten)]
    terms: TermFlags,
}

impl Login {
    /// Logs in and saves the account.
    ///
    /// # Errors
    /// With a message for a person; nothing is saved then.
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        let profile = context.catalog.usable(&self.platform)?;
        let oauth = profile
            .oauth
            .as_ref()
            .ok_or_else(|| exchange::Error::NoOAuth(profile.id.clone()))?;
        let terms = self.terms.terms(SystemClock.now())?;
        let flow = Flow {
            http: HttpClient::for_platform(oauth)?,
            context,
            profile,
            oauth,
            login: &self,
            terms,
        };
        if self.paste {
            flow.by_paste().await
        } else {
            flow.by_browser().await
        }
    }
}

struct Flow<'a> {
    context: &'a Context,
    profile: &'a Profile,
    oauth: &'a OAuth,
    http: HttpClient,
    login: &'a Login,
    terms: Terms,
}

impl Flow<'_> {
    async fn by_browser(&self) -> Result<(), Error> {
        let ports = self
            .login
            .port
            .map_or_else(|| self.oauth.redirect_ports.clone(), |port| vec![port]);
        let listener = self.listen(&ports).await?;
        let Authorization {
            url,
            redirect_uri,
            state,
            verifier,
        } = Authorization::start(self.oauth, listener.port())?;
        print(&format!(
            "Logging an account in at {}. Open this URL in a browser on this machine:\n\n{url}\n\nWaiting up to {} \
             minutes for it. (A browser on another machine? Stop this and use --paste.)\n",
            self.profile.name,
            LOGIN_LIMIT.as_secs() / 60,
        ))?;
        if !self.login.no_browser {
            open_browser(&url);
        }
        let finish = |returned| self.finish(returned, redirect_uri, verifier);
        listener
            .receive(&self.oauth.redirect_path, state, finish)
            .await?
    }

    /// A running `serve` gives its port up to us if there is no other.
    async fn listen(&self, ports: &[u16]) -> Result<Listener, callback::Error> {
        match Listener::bind(ports).await {
            Err(taken @ callback::Error::Ports { .. }) => {
                if daemon::yield_port(&self.context.state, &self.profile.id).await {
                    Listener::bind(ports).await
                } else {
                    Err(taken)
                }
            }
            bound => bound,
        }
    }

    async fn by_paste(&self) -> Result<(), Error> {
        let port = self
            .oauth
            .redirect_ports
            .first()
            .copied()
            .unwrap_or_default();
        let Authorization {
            url,
            redirect_uri,
            state,
            verifier,
        } = Authorization::start(self.oauth, port)?;
        print(&format!(
            "Logging an account in at {}. Open this URL in any browser:\n\n{url}\n\nAfter the login the browser ends \
             at a page that does not load. Copy its address from the address bar and paste it here:\n",
            self.profile.name,
        ))?;
        let returned = tokio::task::spawn_blocking(move || pasted(&state)).await??;
        self.finish(returned, redirect_uri, verifier).await
    }

    /// Redeems the code, saves the account and says so. The browser's page waits for it.
    async fn finish(
        &self,
        returned: Returned,
        redirect_uri: RedirectUrl,
        verifier: PkceCodeVerifier,
    ) -> Result<(), Error> {
        let code = match returned {
            Returned::Code(code) => code,
            Returned::Denied(denial) => return Err(denial.into()),
        };
        let now = SystemClock.now();
        let login = exchange(
            &self.http,
            self.profile,
            &code,
            &redirect_uri,
            &verifier,
            now,
        )
        .await?;
        let id_token = login.tokens.id.clone();
        let name = save(
            self.context,
            self.profile,
            login,
            self.login.name.as_deref(),
            &self.terms,
        )
        .await?;
        if self.login.api_key {
            let id_token = id_token
                .ok_or("the platform gave no id token, so there is no API key to be had")?;
            let key = api_key(&self.http, self.oauth, &id_token, now).await?;
            let new = NewAccount {
                name: &format!("{name} API key"),
                platform: API_KEY_PLATFORM,
                credential: Credential::ApiKey(key),
                vars: BTreeMap::new(),
                expires_at: None,
            };
            let store = &self.context.store;
            store.save_account_on(new, &self.terms, true, now).await?;
            print(&format!("{name} API key: added at {API_KEY_PLATFORM}\n"))?;
        }
        Ok(())
    }
}

/// Saves a login on these terms and says what it is; its account's name.
///
/// # Errors
/// If the account cannot have the name, or the store fails.
pub(super) async fn save(
    context: &Context,
    profile: &Profile,
    login: exchange::Login,
    wanted: Option<&str>,
    terms: &Terms,
) -> Result<String, Error> {
    let now = SystemClock.now();
    let (name, renew) = name(
        &context.store.accounts().await?,
        &profile.id,
        &login.vars,
        wanted,
    )?;
    let new = NewAccount {
        name: &name,
        platform: &profile.id,
        credential: Credential::OAuth(login.tokens),
        vars: login.vars.clone(),
        expires_at: login.expires_at,
    };
    let saved = context.store.save_account_on(new, terms, renew, now);
    let (id, what) = match saved.await? {
        Saved::Added(id) => (id, "added"),
        Saved::Renewed(id) => (id, "has the new login"),
    };
    let vars = login
        .vars
        .iter()
        .map(|(name, value)| line(name, value))
        .collect::<String>();
    let expiry = match login.expires_at {
        Some(expires_at) if expires_at > now => {
            format!("{}; refreshed before that", relative(expires_at, now))
        }
        Some(expires_at) => {
            format!(
                "{}; refreshed as soon as `refresher serve` runs",
                relative(expires_at, now)
            )
        }
        None => "unknown; refreshed when the platform asks for it".to_owned(),
    };
    let platform = line("platform", &profile.name);
    print(&format!(
        "{name} ({id}): {what}\n{platform}{vars}{}",
        line("expires", &expiry)
    ))?;
    if wanted.is_some_and(|wanted| wanted != name) {
        print(&format!(
            "This login was here already, as {name}; it keeps that name.\n"
        ))?;
    }
    Ok(name)
}

fn line(name: &str, value: &str) -> String {
    format!("  {name:10}  {value}\n")
}

/// What to call the account of a login, and whether it takes the place of one that has the name. A login of an account
/// that is here already goes to that account, whatever it is to be called.
fn name(
    accounts: &[Account],
    platform: &str,
    vars: &BTreeMap<String, String>,
    wanted: Option<&str>,
) -> Result<(String, bool), Error> {
    let is_same =
        |account: &&Account| account.platform == platform && is_same_account(&account.vars, vars);
    if let Some(same) = accounts.iter().find(is_same) {
        return Ok((same.name.clone(), true));
    }
    let holder = |name: &str| accounts.iter().find(|account| account.name == name);
    if let Some(wanted) = wanted {
        return match holder(wanted) {
            None => Ok((wanted.to_owned(), false)),
            // A platform that does not tell its accounts apart leaves that to their names.
            Some(held) if held.platform == platform && !held.vars.contains_key(IDENTITY) => {
                Ok((wanted.to_owned(), true))
            }
            Some(held) => Err(format!(
                "the account {wanted:?} is another one, at {}; log in there, or choose another --name",
                held.platform
            )
            .into()),
        };
    }
    let first = vars.get(EMAIL).map_or(platform, String::as_str);
    let numbered = (2..).map(|n| format!("{first}-{n}"));
    let free = std::iter::once(first.to_owned())
        .chain(numbered)
        .find(|name| holder(name).is_none());
    Ok((free.unwrap_or_else(|| first.to_owned()), false))
}

/// Reads lines from standard input until one is this login's answer.
fn pasted(state: &CsrfToken) -> Result<Returned, Error> {
    let mut input = io::stdin().lock().take(100 * QUERY_LIMIT as u64);
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err("standard input ended before the login's answer came".into());
        }
        match read_pasted(&line, state) {
            Ok(returned) => return Ok(returned),
            Err(refused) => print(&format!("{refused}. Paste it again:\n"))?,
        }
    }
}

/// Opens a browser where there is a display for one. Nothing depends on it: the URL was printed.
fn open_browser(url: &Url) {
    let (program, has_display) = if cfg!(target_os = "macos") {
        ("open", true)
    } else {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        ("xdg-open", set("DISPLAY") || set("WAYLAND_DISPLAY"))
    };
    if has_display {
        let mut command = Command::new(program);
        command
            .arg(url.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Err(error) = command.spawn() {
            tracing::debug!(%error, program, "cannot open a browser");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(identity: Option<&str>) -> BTreeMap<String, String> {
        let identity = identity.map(|identity| (IDENTITY.to_owned(), identity.to_owned()));
        identity
            .into_iter()
            .chain([(EMAIL.to_owned(), "a@example.com".to_owned())])
            .collect()
    }

    fn account(name: &str, platform: &str, identity: Option<&str>) -> Account {
        Account::example(name, platform, vars(identity))
    }

    fn named(
        accounts: &[Account],
        identity: Option<&str>,
        wanted: Option<&str>,
    ) -> Option<(String, bool)> {
        name(accounts, "codex", &vars(identity), wanted).ok()
    }

    #[test]
    fn a_second_login_of_an_account_goes_to_it_whatever_its_name() {
        let accounts = [
            account("alice", "codex", Some("1")),
            account("other", "other", Some("2")),
        ];
        assert_eq!(
            named(&accounts, Some("1"), None),
            Some(("alice".into(), true))
        );
        assert_eq!(
            named(&accounts, Some("1"), Some("bob")),
            Some(("alice".into(), true))
        );
        assert_eq!(
            named(&accounts, Some("2"), Some("bob")),
            Some(("bob".into(), false))
        );
    }

    #[test]
    fn a_second_member_of_a_workspace_is_another_account() {
        let accounts = [account("a@example.com", "codex", Some("1"))];
        let mut other = vars(Some("1"));
        other.insert(EMAIL.to_owned(), "b@example.com".to_owned());
        assert_eq!(
            name(&accounts, "codex", &other, None).unwrap(),
            ("b@example.com".into(), false)
        );
        assert!(name(&accounts, "codex", &other, Some("a@example.com")).is_err());
    }

    #[test]
    fn another_accounts_name_is_not_taken_over() {
        let accounts = [
            account("alice", "codex", Some("1")),
            account("key", "openai", None),
        ];
        assert_eq!(named(&accounts, Some("2"), Some("alice")), None);
        assert_eq!(named(&accounts, Some("2"), Some("key")), None);
        let nameless = [account("alice", "codex", None)];
        assert_eq!(
            named(&nameless, None, Some("alice")),
            Some(("alice".into(), true))
        );
    }

    #[test]
    fn the_default_name_is_the_email_address_and_then_numbered() {
        let mut accounts = vec![];
        for (identity, expected) in [
            ("1", "a@example.com"),
            ("2", "a@example.com-2"),
            ("3", "a@example.com-3"),
        ] {
            let (name, renew) = named(&accounts, Some(identity), None).unwrap();
            assert_eq!((name.as_str(), renew), (expected, false));
            accounts.push(account(&name, "codex", Some(identity)));
        }
        assert_eq!(
            name(&[], "codex", &BTreeMap::new(), None).unwrap(),
            ("codex".into(), false)
        );
    }
}
