//! `refresher login`: a person logs an account in through their own browser.

use std::io::{self, BufRead, IsTerminal, Read};
use std::process::Stdio;

use clap::Args;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;

use super::output::{Out, line};
use super::proxy::ProxyFlag;
use super::terms::TermFlags;
use super::time::relative;
use super::{CALLER, Context, Error, number, secret_input, waiting};
use crate::app::logins::{self, Ask, Done, KeyAccount, Todo, Waiting};
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::files::{self, program};
use crate::login::choice::{Machine, Way};
use crate::login::finish::Finished;
use crate::login::redirect::QUERY_LIMIT;
use crate::os_error::in_words;

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
    /// The Google Cloud project of the account, for platforms that have projects [default: the one that it has here, else the
    /// one that its platform names]. A free tier keeps its platform's project
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
        let Context { app, out, .. } = context;
        let mut terms = self.terms.terms(app.now())?;
        terms.proxy = self.proxy.setting()?;
        let ask = Ask {
            platform: &self.platform,
            name: self.name.as_deref(),
            way: self.way(),
            machine: self.machine(),
            api_key: self.api_key,
            project: self.project.as_deref(),
            base_url: self.base_url.as_deref(),
            terms: &terms,
        };
        let begun = logins::begin(app, ask).await?;
        if let Some(name) = self.name.as_deref().filter(|_| begun.is_taken) {
            out.note(&format!(
                "The account {name} is here already: log in as the same user to renew it, or choose another --name."
            ));
        }
        if let Some(why) = begun.why {
            out.note(&format!("Another way than a browser here, because {why}. (--no-browser listens here all the same.)"));
        }
        let mut waiting = begun.start().await?;
        out.print(&told(&waiting, begun.platform()))?;
        let (limit, mut is_timed) = (waiting.limit, false);
        match &waiting.todo {
            Todo::Browse(url) | Todo::TypeCode { url, .. } => {
                self.open(url, out);
                is_timed = true;
            }
            // A terminal that somebody types at shows no clock.
            Todo::Paste(_) => logins::within(limit, paste(&mut waiting, out)).await??,
            Todo::GiveSecret => {
                let secret = tokio::task::spawn_blocking(client_secret).await??;
                let taken = waiting.input(secret.expose_secret());
                taken.map_err(|refused| refused.to_string())?;
            }
            Todo::Visit(_) | Todo::Nothing => {}
        }
        let finished = waiting.finish(CALLER);
        let done = match is_timed {
            true => waiting::shown(out, limit, finished).await?,
            false => finished.await?,
        };
        self.report(context, done).await
    }

    /// The way that was asked for.
    fn way(&self) -> Option<Way<'_>> {
        if self.paste {
            return Some(Way::Paste);
        }
        if self.device {
            return Some(Way::Code);
        }
        if self.session {
            return Some(Way::Session);
        }
        let client = self.client_id.as_deref().map(Way::Client);
        client.or(self.port.map(Way::Port))
    }

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

    /// Opens a browser where there is a display for one. Nothing depends on it: the URL was printed.
    fn open(&self, url: &Url, out: &Out) {
        if self.no_browser {
            return;
        }
        if let Err(refused) = open_browser(url) {
            let why = Error::from(refused).told();
            out.note(&format!(
                "No browser is opened here, so open the URL yourself: {why}"
            ));
        }
    }

    /// Says what was saved.
    async fn report(&self, context: &Context, done: Done) -> Result<(), Error> {
        let Context { app, out, .. } = context;
        out.print(&saved(&done.account, self.name.as_deref(), app.now()))?;
        let mut platforms = vec![self.platform.as_str()];
        let key = done.key?;
        if let Some(KeyAccount { name, platform }) = &key {
            out.print(&format!("{name}: added at {platform}\n"))?;
            platforms.push(platform);
        }
        context.tell_if_nobody_serves(&platforms).await
    }
}

/// Says what a person is to do for a login at `platform`.
fn told(waiting: &Waiting<'_>, platform: &str) -> String {
    let minutes = waiting.limit.as_secs().div_ceil(60);
    let begins = format!("Logging an account in at {platform}.");
    match &waiting.todo {
        Todo::Browse(url) => format!(
            "{begins} Open this URL in a browser on this machine:\n\n{url}\n\nWaiting up to {minutes} minutes for it. (A \
             browser on another machine? Stop this and use --paste.)\n"
        ),
        Todo::Paste(url) => format!(
            "{begins} Open this URL in any browser:\n\n{url}\n\nLog in there. The browser then shows a page that cannot be \
             reached, or a code. Copy the whole address of that page, or the code, paste it here and press Enter:\n"
        ),
        Todo::TypeCode { url, code } => format!(
            "{begins} Open this URL in any browser, and type the code in:\n\n{url}\n\n  {code}\n\nWaiting up to {minutes} \
             minutes for it.\n"
        ),
        Todo::Visit(url) => format!(
            "{begins} A browser opens at {url}, with a profile of its own that is removed afterwards. Log in there; it closes \
             by itself.\n\nWaiting up to {minutes} minutes for it.\n"
        ),
        Todo::GiveSecret | Todo::Nothing => String::new(),
    }
}

/// Words a login that was saved. `wanted` is the name that was asked for.
pub(super) fn saved(saved: &Finished, wanted: Option<&str>, now: UnixMillis) -> String {
    let Finished {
        id, name, is_new, ..
    } = saved;
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

fn expiry(saved: &Finished, now: UnixMillis) -> String {
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
async fn paste(waiting: &mut Waiting<'_>, out: &Out) -> Result<(), Error> {
    let mut left = 100 * QUERY_LIMIT as u64;
    loop {
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            let read = io::stdin().lock().take(left).read_line(&mut line);
            read.map(|_| line)
        });
        let line = line.await??;
        if line.is_empty() {
            return Err("standard input ended before the login's answer came".into());
        }
        left = left.saturating_sub(line.len() as u64);
        match waiting.input(&line) {
            Ok(()) => return Ok(()),
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

/// Has the desktop open `url` in its browser. One command of each system does that, so no library is needed; the runtime
/// collects the command when it has ended.
///
/// # Errors
/// If others could put another program in that command's place.
fn open_browser(url: &Url) -> Result<(), files::Error> {
    let (name, has_display) = if cfg!(target_os = "macos") {
        ("open", true)
    } else {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        ("xdg-open", set("DISPLAY") || set("WAYLAND_DISPLAY"))
    };
    if !has_display {
        return Ok(());
    }
    let Some(program) = program::find(name.as_ref())? else {
        tracing::debug!(name, "there is nothing here that opens a browser");
        return Ok(());
    };
    let mut command = Command::new(&program);
    command
        .arg(url.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        tracing::debug!(%error, program = %program.display(), "cannot open a browser");
    }
    Ok(())
}
