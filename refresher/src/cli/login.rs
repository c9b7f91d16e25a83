//! `refresher login`: a person logs an account in through their own browser.

use std::io::{self, BufRead, IsTerminal, Read};
use std::process::{Command, Stdio};

use clap::Args;
use reqwest::Url;
use secrecy::SecretString;
use tokio::time::timeout;

use super::output::{Out, line};
use super::proxy::ProxyFlag;
use super::terms::TermFlags;
use super::time::relative;
use super::{CALLER, Context, Error, number, secret_input, waiting};
use crate::app::accounts;
use crate::app::daemon;
use crate::app::logins::{self, KeyAccount, KeyOffer, Saved};
use crate::base_url::BaseUrl;
use crate::browser::{self, Browser};
use crate::clock::{SystemClock, UnixMillis};
use crate::credential::CredentialKind;
use crate::login::callback::{self, LOGIN_LIMIT, Listener};
use crate::login::choice::{Choice, Machine};
use crate::login::drive::{self, Reached};
use crate::login::finish::Finished;
use crate::login::redirect::QUERY_LIMIT;
use crate::login::session::{self, Opened};
use crate::login::{self, Prompt, Step};
use crate::oauth::exchange::Granted;
use crate::oauth::http::HttpClient;
use crate::os_error::in_words;
use crate::platform::{Flow, Profile, flow};
use crate::store::Terms;
use crate::variable;

/// A login to make.
#[derive(Debug, Args)]
pub struct Login {
    /// A platform whose profile has [login], such as codex; `refresher platforms list` shows all
    platform: String,
    /// The account's name [default: its email address]
    #[arg(long)]
    name: Option<String>,
    /// Paste the address that the browser ends at, instead of listening for it: for a browser on another machine
    #[arg(long)]
    paste: bool,
    /// Type a code in at the platform, in a browser on any machine
    #[arg(long, conflicts_with = "paste")]
    device: bool,
    /// Log in with a client of the account's own, whose secret is read from standard input
    #[arg(long, value_name = "ID", conflicts_with_all = ["paste", "device", "port"])]
    client_id: Option<String>,
    /// Log in at the platform's own page, in a browser that is opened for it
    #[arg(long, conflicts_with_all = ["paste", "device", "port", "client_id", "no_browser"])]
    session: bool,
    /// Only print the URL, open no browser
    #[arg(long)]
    no_browser: bool,
    /// Listen on this port instead of the platform's own
    #[arg(
        long,
        value_name = "PORT",
        value_parser = number::within::<u16>(1, 65_535),
        allow_negative_numbers = true,
        conflicts_with_all = ["paste", "device"]
    )]
    port: Option<u16>,
    /// Also get an API key for the account, and add it as an account of the platform that takes it, on the same terms
    #[arg(long)]
    api_key: bool,
    /// The Google Cloud project that the account works in, where its platform has such [default: the one that the account
    /// has here, or else that its platform says]. A tier whose project is the platform's keeps that
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// The account's own address, if its platform's profile allows one
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    #[command(flatten)]
    proxy: ProxyFlag,
    #[command(flatten)]
    terms: TermFlags,
}

impl Login {
    /// Logs in and saves the account.
    ///
    /// # Errors
    /// With a message for a person; nothing is saved then.
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        let mut terms = self.terms.terms(context.app.now())?;
        terms.proxy = self.proxy.setting()?;
        let profile = context.app.catalog.usable(&self.platform)?;
        let base_url = accounts::checked_base_url(profile, self.base_url.as_deref()).await?;
        let profile = logins::way_out(&context.app, profile, self.name.as_deref(), &terms).await?;
        logins::check_project(&profile, self.project.as_deref())?;
        let profile = profile.with_client(variable::read)?;
        let profile = &*profile;
        let key_offer = self
            .api_key
            .then(|| logins::key_offer(profile))
            .transpose()?;
        if let Some(name) = &self.name
            && logins::is_taken(&context.app, profile, name).await?
        {
            context.out.note(&format!(
                "The account {name} is here already: log in as the same user to renew it, or choose another --name."
            ));
        }
        let session = Session {
            http: HttpClient::for_platform(profile)?,
            context,
            profile,
            login: &self,
            key_offer,
            terms,
            base_url,
        };
        match self.flow(profile, &context.out)? {
            Flow::Code(flow) => session.by_browser(flow).await,
            Flow::Pasted(flow) => session.by_paste(flow).await,
            Flow::Device(flow) => session.by_device(flow).await,
            Flow::Client => session.by_client().await,
            Flow::Session(flow) => session.by_session(flow).await,
            Flow::Import(_) => Err(format!(
                "platform {} has no login of its own; take one over: refresher import",
                profile.id
            )
            .into()),
        }
    }

    /// The way that was asked for, else the one that suits this machine, which is said.
    fn flow<'a>(&self, profile: &'a Profile, out: &Out) -> Result<&'a Flow, Error> {
        let fits = |flow: &&Flow| match flow {
            Flow::Pasted(_) if self.paste => true,
            Flow::Device(_) if self.device => true,
            Flow::Code(_) if self.port.is_some() => true,
            Flow::Client if self.client_id.is_some() => true,
            Flow::Session(_) if self.session => true,
            _ => false,
        };
        let is_asked = self.paste
            || self.device
            || self.session
            || self.port.is_some()
            || self.client_id.is_some();
        let flows = &profile.login.flows;
        let found = match is_asked {
            true => flows.iter().find(fits),
            false => self.machine().choose(flows).map(|Choice { flow, why }| {
                if let Some(why) = why {
                    out.note(&format!("Another way than a browser here, because {why}. (--no-browser listens here all the same.)"));
                }
                flow
            }),
        };
        found.ok_or_else(|| {
            let id = &profile.id;
            if profile.login.flows.is_empty() {
                format!("platform {id} has no [login] in its profile; its accounts are API keys: refresher accounts add NAME --platform {id}")
            } else {
                format!("platform {id} does not offer that way to log in; leave the flag out")
            }
            .into()
        })
    }
}

impl Login {
    /// The machine that this runs on. Whoever wants no browser opened opens one.
    fn machine(&self) -> Machine {
        let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_attended = io::stdin().is_terminal();
        let machine = Machine::of(has, cfg!(target_os = "macos"), is_attended);
        Machine {
            has_browser: machine.has_browser || self.no_browser,
            ..machine
        }
    }
}

struct Session<'a> {
    context: &'a Context,
    profile: &'a Profile,
    http: HttpClient,
    login: &'a Login,
    key_offer: Option<KeyOffer<'a>>,
    terms: Terms,
    base_url: Option<BaseUrl>,
}

impl Session<'_> {
    async fn by_browser(&self, flow: &flow::Code) -> Result<(), Error> {
        let ports = self
            .login
            .port
            .map_or_else(|| flow.redirect_ports.clone(), |port| vec![port]);
        let listener = self.listen(&ports).await?;
        let (login, Prompt { url, .. }) = login::Login::code(self.profile, flow, listener.port())?;
        self.context.out.print(&format!(
            "Logging an account in at {}. Open this URL in a browser on this machine:\n\n{url}\n\nWaiting up to {} \
             minutes for it. (A browser on another machine? Stop this and use --paste.)\n",
            self.profile.name,
            LOGIN_LIMIT.as_secs() / 60,
        ))?;
        self.open(&url);
        let finish = |login, step| self.finish(login, step);
        let received = listener.receive(&flow.redirect_path, login, finish);
        waiting::shown(&self.context.out, LOGIN_LIMIT, received).await?
    }

    /// A running `serve` gives its port up to us if there is no other.
    async fn listen(&self, ports: &[u16]) -> Result<Listener, callback::Error> {
        match Listener::bind(ports).await {
            Err(taken @ callback::Error::Ports { .. }) => {
                if daemon::yield_port(&self.context.app.state, &self.profile.id).await {
                    Listener::bind(ports).await
                } else {
                    Err(taken)
                }
            }
            bound => bound,
        }
    }

    async fn by_paste(&self, flow: &flow::Pasted) -> Result<(), Error> {
        let (login, Prompt { url, .. }) = login::Login::pasted(self.profile, flow)?;
        self.context.out.print(&format!(
            "Logging an account in at {}. Open this URL in any browser:\n\n{url}\n\nLog in there. The browser then \
             shows a page that cannot be reached, or a code. Copy the whole address of that page, or the code, paste it \
             here and press Enter:\n",
            self.profile.name,
        ))?;
        let out = self.context.out.clone();
        // A terminal that somebody types at shows no clock.
        let pasted = tokio::task::spawn_blocking(move || pasted(login, &out));
        let pasted = timeout(LOGIN_LIMIT, pasted).await;
        let (login, step) = pasted.map_err(|_| login::Error::Lapsed)???;
        self.finish(login, step).await
    }

    async fn by_device(&self, flow: &flow::Device) -> Result<(), Error> {
        let (mut login, step) = login::Login::device(self.profile, flow)?;
        let prompt = match drive::run(&self.http, &mut login, step, &SystemClock).await? {
            Reached::Prompt(prompt) => prompt,
            Reached::Granted(granted) => return self.save(*granted).await,
        };
        let (url, code) = (&prompt.url, prompt.code.unwrap_or_default());
        let limit = prompt.lifetime.unwrap_or(LOGIN_LIMIT);
        self.context.out.print(&format!(
            "Logging an account in at {}. Open this URL in any browser, and type the code in:\n\n{url}\n\n  {code}\n\n\
             Waiting up to {} minutes for it.\n",
            self.profile.name,
            limit.as_secs().div_ceil(60),
        ))?;
        self.open(url);
        let step = login.poll();
        let finished = timeout(limit, self.finish(login, step));
        let finished = waiting::shown(&self.context.out, limit, finished).await;
        finished.map_err(|_| login::Error::Lapsed)?
    }

    async fn by_client(&self) -> Result<(), Error> {
        let client_id = self.login.client_id.as_deref();
        let client_id = client_id
            .ok_or("this platform's accounts bring a client of their own; give --client-id")?;
        let secret = tokio::task::spawn_blocking(client_secret).await??;
        let (login, step) = login::Login::client(self.profile, client_id, secret)?;
        self.finish(login, step).await
    }

    async fn by_session(&self, flow: &flow::Session) -> Result<(), Error> {
        let named = self.context.app.config.browser.as_deref();
        let program = browser::find(named).map_err(session::Error::from)?;
        self.context.out.print(&format!(
            "Logging an account in at {}. A browser opens at {}, with a profile of its own that is removed \
             afterwards. Log in there; it closes by itself.\n\nWaiting up to {} minutes for it.\n",
            self.profile.name,
            flow.url,
            LOGIN_LIMIT.as_secs() / 60,
        ))?;
        let opened = Browser::open(&program, &flow.url, self.profile.upstream.proxy.as_ref()).await;
        let mut window = Opened::new(opened.map_err(session::Error::from)?);
        let granted = session::capture(&mut window, flow, &SystemClock).await;
        window.close().await;
        self.save(granted?).await
    }

    /// Completes the login from `step`, saves the account and says so. The browser's page waits for it.
    async fn finish(&self, mut login: login::Login, step: Step) -> Result<(), Error> {
        let granted = drive::complete(&self.http, &mut login, step, &SystemClock).await?;
        self.save(granted).await
    }

    async fn save(&self, granted: Granted) -> Result<(), Error> {
        let (name, terms) = (self.login.name.as_deref(), &self.terms);
        let Context { app, out, .. } = self.context;
        let project = self.login.project.as_deref();
        let granted = logins::set_up(app, self.profile, granted, name, project).await?;
        let base_url = self.base_url.as_ref();
        let new = logins::save(app, CALLER, self.profile, granted, name, terms, base_url).await?;
        out.print(&saved(&new, name, app.now()))?;
        let mut platforms = vec![self.profile.id.clone()];
        if let Some(offer) = self.key_offer {
            let added = logins::add_api_key(app, CALLER, offer, &new, terms);
            let KeyAccount { name, platform } = added.await?;
            out.print(&format!("{name}: added at {platform}\n"))?;
            platforms.push(platform);
        }
        let platforms: Vec<&str> = platforms.iter().map(String::as_str).collect();
        self.context.tell_if_nobody_serves(&platforms).await
    }

    /// Opens a browser where there is a display for one. Nothing depends on it: the URL was printed.
    fn open(&self, url: &Url) {
        if !self.login.no_browser {
            open_browser(url);
        }
    }
}

/// Words a login that was saved. `wanted` is the name that was asked for.
pub(super) fn saved(saved: &Saved, wanted: Option<&str>, now: UnixMillis) -> String {
    let Finished { id, name, is_new } = &saved.account;
    let what = if *is_new {
        "added"
    } else {
        "has the new login"
    };
    let vars = saved.vars.iter();
    let vars: String = vars.map(|(name, value)| line(name, value)).collect();
    let platform = line("platform", &saved.platform);
    let expires = line("expires", &expiry(saved, now));
    let kept = match wanted {
        Some(wanted) if wanted != name => {
            format!("This login was here already, as {name}; it keeps that name.\n")
        }
        _ => String::new(),
    };
    format!("{name} ({id}): {what}\n{platform}{vars}{expires}{kept}")
}

fn expiry(saved: &Saved, now: UnixMillis) -> String {
    let is_session = saved.kind == CredentialKind::Session;
    match saved.credential_expires_at {
        Some(expires_at) if is_session => {
            format!("{}; log in again by then", relative(expires_at, now))
        }
        None if is_session => "unknown; log in again when the platform refuses it".to_owned(),
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
    }
}

/// Reads lines from standard input until one is this login's answer.
fn pasted(mut login: login::Login, out: &Out) -> Result<(login::Login, Step), Error> {
    let mut input = io::stdin().lock().take(100 * QUERY_LIMIT as u64);
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err("standard input ended before the login's answer came".into());
        }
        match login.input(&line) {
            Ok(step) => return Ok((login, step)),
            Err(refused) => out.print(&format!("{refused}. Paste it again:\n"))?,
        }
    }
}

/// The secret that a person types unseen, or another program writes.
fn client_secret() -> Result<SecretString, Error> {
    let secret =
        secret_input::read("Paste the client's secret (it is not shown) and press Enter: ")
            .map_err(|error| {
                let why = in_words(&error);
                format!("cannot read the client's secret from standard input: {why}")
            })?;
    match secret.trim() {
        "" => Err("expected the client's secret on standard input, found none".into()),
        secret => Ok(secret.into()),
    }
}

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
