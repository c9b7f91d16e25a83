//! A login that a person makes, from the question to the account: [`begin`] checks what can be checked before anybody logs
//! in, [`Begun::start`] says what the person does, and [`Waiting::finish`] saves the account.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, timeout};

use super::key::{self, KeyAccount};
use super::{App, Caller, Error, Result, check_project, way_out};
use crate::app::{accounts, daemon};
use crate::base_url::BaseUrl;
use crate::browser;
use crate::clock::SystemClock;
use crate::fault::{Fault, Kind};
use crate::login::callback::{self, LOGIN_LIMIT, Listener};
use crate::login::choice::{Choice, Machine, Way};
use crate::login::drive::{self, Reached};
use crate::login::finish::{Finished, Whose, finish};
use crate::login::redirect::Refused;
use crate::login::{self, Login, Prompt, Step, session};
use crate::oauth::http::HttpClient;
use crate::platform::{Flow, Profile};
use crate::store::{self, Terms};
use crate::variable;

/// A login that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The platform's id.
    pub platform: &'a str,
    /// The account's name; without it, its email address.
    pub name: Option<&'a str>,
    /// The way in; without it, the one that suits the machine.
    pub way: Option<Way<'a>>,
    /// The machine at which the person is.
    pub machine: Machine,
    /// The account gets an API key as well, and an account of that key.
    pub api_key: bool,
    /// The project that the account works in.
    pub project: Option<&'a str>,
    /// The address at which the account is reached, if not its platform's.
    pub base_url: Option<&'a str>,
    /// The account's limits, its end and its proxy.
    pub terms: &'a Terms,
}

/// A login that may be made.
pub struct Begun<'a> {
    app: &'a App,
    ask: Ask<'a>,
    /// The platform, as the account reaches it.
    profile: Profile,
    flow: Flow,
    base_url: Option<BaseUrl>,
    http: HttpClient,
    /// True if an account has the name already: a login of another person will be refused.
    pub is_taken: bool,
    /// The reason why the way is not the platform's most comfortable one.
    pub why: Option<&'static str>,
}

/// A login that waits for its person.
pub struct Waiting<'a> {
    begun: &'a Begun<'a>,
    login: Login,
    /// The next step, where it is known.
    step: Option<Step>,
    /// The listener that a browser comes back to, and its path.
    door: Option<(Listener, &'a str)>,
    /// The task of the person.
    pub todo: Todo,
    /// The time that they have.
    pub limit: Duration,
}

/// The task of a person for a login.
#[derive(Debug)]
pub enum Todo {
    /// Open this URL in a browser on this machine, which comes back by itself.
    Browse(Url),
    /// Open this URL in any browser, and give the address where that ends to [`Waiting::input`].
    Paste(Url),
    /// Open this URL in any browser, and type the code in there.
    TypeCode {
        /// The URL.
        url: Url,
        /// The code.
        code: String,
    },
    /// Give the secret of the account's own client to [`Waiting::input`].
    GiveSecret,
    /// Log in at this page, in the browser that [`Waiting::finish`] opens.
    Visit(Url),
    /// Nothing: the platform has granted the login.
    Nothing,
}

/// A login that was saved.
#[derive(Debug)]
pub struct Done {
    /// Its account.
    pub account: Finished,
    /// The account of its API key, where one was asked for; or why there is none.
    pub key: Result<Option<KeyAccount>>,
}

/// The reason why a login is not all that was asked for.
#[derive(Debug)]
struct Failed {
    /// The account that was saved all the same.
    account: Option<Finished>,
    error: Error,
}

/// Checks a login that is to be made, before anybody logs in.
///
/// # Errors
/// If it could not be saved, or its platform offers no such way.
pub async fn begin<'a>(app: &'a App, ask: Ask<'a>) -> Result<Begun<'a>> {
    let profile = app.catalog.usable(ask.platform)?;
    let base_url = accounts::checked_base_url(profile, ask.base_url).await?;
    let profile = way_out(app, profile, ask.name, ask.terms).await?;
    check_project(&profile, ask.project)?;
    let profile = profile.with_client(variable::read)?.into_owned();
    if ask.api_key {
        key::offer(&profile)?;
    }
    let is_taken = match ask.name {
        Some(name) => is_taken(app, &profile, name).await?,
        None => false,
    };
    let http = HttpClient::for_platform(&profile)?;
    let choice = ask.machine.choose(&profile.login.flows, ask.way);
    let Choice { flow, why } = choice.ok_or_else(|| no_such_way(&profile))?;
    Ok(Begun {
        flow: flow.clone(),
        app,
        ask,
        profile,
        base_url,
        http,
        is_taken,
        why,
    })
}

/// The platform has no login of the kind that was asked for.
fn no_such_way(profile: &Profile) -> Error {
    let platform = profile.id.clone();
    if profile.login.flows.is_empty() {
        let sentence = format!("platform {platform} has no [login] in its profile");
        return Error::new(Fault::KeysAlone { platform }, sentence);
    }
    let sentence = format!("platform {platform} does not offer that way to log in");
    Error::new(Fault::NoSuchWay, sentence)
}

/// True if an account has the name of a login that is to be made, and may get it.
///
/// # Errors
/// If the name is that of an account that cannot get such a login, or the store fails.
async fn is_taken(app: &App, profile: &Profile, name: &str) -> Result<bool> {
    let account = match app.store.account(name).await {
        Err(store::Error::Unknown { .. }) => return Ok(false),
        found => found?,
    };
    if account.platform == profile.id && !account.kind.is_key() {
        return Ok(true);
    }
    let what = if account.kind.is_key() {
        "an API key"
    } else {
        "a login"
    };
    let sentence = format!(
        "{name:?} is the name of another account: {what} at {}",
        account.platform
    );
    let (kind, name) = (Kind::Account, name.to_owned());
    Err(Error::new(Fault::NameTaken { kind, name }, sentence))
}

// === impl Begun ===

impl Begun<'_> {
    /// The name of the platform.
    pub fn platform(&self) -> &str {
        &self.profile.name
    }

    /// Starts the login, up to where its person must do something.
    ///
    /// # Errors
    /// If the way needs something that is not there: a port, a browser, a client's id; or the platform refuses.
    pub async fn start(&self) -> Result<Waiting<'_>> {
        let profile = &self.profile;
        match &self.flow {
            Flow::Code(flow) => {
                let ports = match self.ask.way {
                    Some(Way::Port(port)) => vec![port],
                    _ => flow.redirect_ports.clone(),
                };
                let listener = self.listen(&ports).await?;
                let (login, Prompt { url, .. }) = Login::code(profile, flow, listener.port())?;
                let door = Some((listener, &*flow.redirect_path));
                let waiting = self.waiting(login, Todo::Browse(url));
                Ok(Waiting { door, ..waiting })
            }
            Flow::Pasted(flow) => {
                let (login, Prompt { url, .. }) = Login::pasted(profile, flow)?;
                Ok(self.waiting(login, Todo::Paste(url)))
            }
            Flow::Device(flow) => {
                let (mut login, step) = Login::device(profile, flow)?;
                let until = Instant::now() + LOGIN_LIMIT;
                match drive::run(&self.http, &mut login, step, &SystemClock, until).await? {
                    Reached::Prompt(Prompt {
                        url,
                        code,
                        lifetime,
                    }) => {
                        let code = code.unwrap_or_default();
                        let waiting = self.waiting(login, Todo::TypeCode { url, code });
                        let limit = lifetime.unwrap_or(LOGIN_LIMIT);
                        Ok(Waiting { limit, ..waiting })
                    }
                    Reached::Granted(granted) => {
                        let step = Some(Step::Granted(granted));
                        let waiting = self.waiting(login, Todo::Nothing);
                        Ok(Waiting { step, ..waiting })
                    }
                }
            }
            Flow::Client => {
                let Some(Way::Client(id)) = self.ask.way else {
                    let sentence = "this platform's accounts bring a client of their own";
                    return Err(Error::new(Fault::NeedsClient, sentence));
                };
                Ok(self.waiting(Login::client(profile, id)?, Todo::GiveSecret))
            }
            Flow::Session(flow) => {
                let named = self.app.config.browser.as_deref();
                let program = browser::find(named).map_err(session::Error::from)?;
                let (login, Prompt { url, .. }) = Login::session(profile, flow, program);
                Ok(self.waiting(login, Todo::Visit(url)))
            }
            Flow::Import(_) => {
                let sentence = format!("platform {} has no login of its own", profile.id);
                Err(Error::new(Fault::ImportsAlone, sentence))
            }
        }
    }

    fn waiting(&self, login: Login, todo: Todo) -> Waiting<'_> {
        Waiting {
            begun: self,
            login,
            step: None,
            door: None,
            todo,
            limit: LOGIN_LIMIT,
        }
    }

    /// Listens on one of `ports`. A running `serve` gives its port up if there is no other.
    async fn listen(&self, ports: &[u16]) -> Result<Listener, callback::Error> {
        match Listener::bind(ports).await {
            Err(taken @ callback::Error::Ports { .. }) => {
                if daemon::yield_port(&self.app.state, &self.profile.id).await {
                    Listener::bind(ports).await
                } else {
                    Err(taken)
                }
            }
            bound => bound,
        }
    }

    /// Completes the login from `step`, for whose person it waits within `limit`, and saves its account. The limit ends no
    /// call and no saving.
    async fn complete(
        &self,
        caller: Caller,
        mut login: Login,
        step: Step,
        limit: Duration,
    ) -> Result<Done, Failed> {
        let Begun { app, ask, .. } = self;
        let granted = drive::complete(&self.http, &mut login, step, &SystemClock, limit);
        let granted = granted.await.map_err(Error::from)?;
        let whose = Whose::Anybody {
            name: ask.name,
            terms: ask.terms,
            base_url: self.base_url.as_ref(),
            project: ask.project,
        };
        let account = finish(&app.store, &self.profile, granted, whose, app.now());
        let account = account.await.map_err(Error::from)?;
        caller.changes("account logged in", &account.name);
        let key = match ask.api_key {
            true => self.add_key(caller, &account).await.map(Some),
            false => Ok(None),
        };
        match key {
            Ok(key) => Ok(Done {
                account,
                key: Ok(key),
            }),
            Err(error) => Err(Failed {
                account: Some(account),
                error,
            }),
        }
    }

    async fn add_key(&self, caller: Caller, account: &Finished) -> Result<KeyAccount> {
        let offer = key::offer(&self.profile)?;
        key::add(self.app, caller, offer, account, self.ask.terms).await
    }
}

// === impl Waiting ===

impl Waiting<'_> {
    /// Takes what the person brings.
    ///
    /// # Errors
    /// If it is not the answer to this login, which waits on.
    pub fn input(&mut self, text: &str) -> Result<(), Refused> {
        self.step = Some(self.login.input(text)?);
        Ok(())
    }

    /// Waits until the person is done, and saves the account. Where their browser came back here, it is shown what came of
    /// it.
    ///
    /// # Errors
    /// If they are not done in time, or the login comes to nothing. Nothing was saved then.
    pub async fn finish(self, caller: Caller) -> Result<Done> {
        let Waiting {
            begun,
            mut login,
            step,
            door,
            limit,
            ..
        } = self;
        let complete = |login, step| begun.complete(caller, login, step, limit);
        let done = match door {
            Some((listener, path)) => listener.receive(path, login, complete).await?,
            None => {
                let step = step.unwrap_or_else(|| login.poll());
                complete(login, step).await
            }
        };
        match done {
            Ok(done) => Ok(done),
            Err(Failed {
                account: Some(account),
                error,
            }) => Ok(Done {
                account,
                key: Err(error),
            }),
            Err(Failed { error, .. }) => Err(error),
        }
    }
}

/// Does what a door does for a login that waits, within its limit.
///
/// # Errors
/// If it takes longer.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T> {
    let done = timeout(limit, work).await;
    done.map_err(|_| login::Error::Lapsed.into())
}

// === impl Failed ===

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed {
            account: None,
            error,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}
