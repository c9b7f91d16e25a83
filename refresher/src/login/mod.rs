//! Ways in: how a person, or the credential file of another program, makes an account.
//!
//! A [`Login`] is one login under way, as a state machine that does nothing itself: each event gives the next [`Step`],
//! and [`drive`] or a test carries it out. It begins with a [`Prompt`] for a person, goes on by what the person brings
//! back ([`Login::input`]), by asking the platform or by looking at its page ([`Login::poll`]), and ends with what was granted. [`finish`] makes
//! an account of that. What a platform offers is data in its profile ([`crate::platform::Flow`]); each flow is one file
//! here.
//!
//! - PKCE S256 always, and a one-time state of 256 random bits, taken once. An answer with another state is refused, and
//!   the login goes on waiting. Verifier and state are in memory alone.
//! - The listener for the browser is on 127.0.0.1 and open only while a login waits. `refresher login` asks `serve` for
//!   its port where all of the profile's are taken; `serve` then waits ten minutes before it makes new URLs.
//! - A login of an account that exists gives it a new generation. It is known by its `account_id` together with its
//!   `user_id`, or with its `email` where one of the two logins does not tell the `user_id`. A login that waits for an
//!   account counts only if it is that account's; else nothing is changed.

pub mod callback;
pub mod choice;
mod client;
pub mod code;
pub mod device;
pub mod drive;
pub mod finish;
pub mod import;
pub mod pasted;
pub mod pending;
pub mod redirect;
pub mod session;
pub mod setup;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use oauth2::url;
use reqwest::Url;

use self::client::ByClient;
use self::code::ByCode;
use self::device::ByDevice;
use self::redirect::{Denial, Refused};
use self::session::Visit;
use crate::clock::UnixMillis;
use crate::oauth::answer::Answer;
use crate::oauth::exchange::{self, Granted};
use crate::oauth::http::{self, CallError, Request};
use crate::platform::{OAuth, Profile, flow};

/// The pause of a login that only input can move: whoever polls it without end does not spin.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// One login under way.
#[derive(Debug)]
pub struct Login(Machine);

#[derive(Debug)]
enum Machine {
    Code(Box<ByCode>),
    Device(Box<ByDevice>),
    Client(Box<ByClient>),
    Session(Box<Visit>),
}

/// The next need of a login.
#[derive(Debug)]
pub enum Step {
    /// Show this to a person; then give their input, or poll.
    Prompt(Prompt),
    /// Send this, and give what came of it to [`Login::answered`].
    Send(Request),
    /// Open the platform's page for a person. What they do there ends the login.
    Visit(Box<Visit>),
    /// Wait, then [`Login::poll`].
    Wait(Duration),
    /// The login is complete.
    Granted(Box<Granted>),
    /// The login has ended without a grant.
    Failed(Error),
}

/// The page and the code that a person is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The page to open.
    pub url: Url,
    /// The code to type in there.
    pub code: Option<String>,
    /// The time that the platform gives for it, where it says so.
    pub lifetime: Option<Duration>,
}

/// The reason why a login came to nothing. Each ends it: the cure is a new login.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform, or the person before it, said no.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// No tokens were given.
    #[error(transparent)]
    Exchange(#[from] exchange::Error),
    /// The device endpoint gave no code.
    #[error("the platform gave no device code: {0}")]
    NoDeviceCode(String),
    /// The device endpoint is turned off.
    #[error("the platform gave no device code: this way is turned off there (HTTP 404)")]
    DeviceOff,
    /// The platform has ended the login.
    #[error("nobody finished the login in time; start it again")]
    Lapsed,
    /// The platform's page gave no session.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// There can be no client for the platform.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The profile's redirect URI is no URL.
    #[error("the redirect URI of the platform's profile is no URL: {0}")]
    Redirect(#[from] url::ParseError),
}

impl Login {
    /// Starts a login whose browser will come back to `port` on this machine.
    ///
    /// # Errors
    /// If the profile has no token endpoint, or its redirect host and path make no URL.
    pub fn code(profile: &Profile, flow: &flow::Code, port: u16) -> Result<(Login, Prompt), Error> {
        let redirect_uri = flow.redirect_uri(port);
        Login::by_code(profile, &flow.authorize, redirect_uri, redirect::read)
    }

    /// Starts a login whose code a person pastes.
    ///
    /// # Errors
    /// If the profile has no token endpoint, or its redirect URI is no URL.
    pub fn pasted(profile: &Profile, flow: &flow::Pasted) -> Result<(Login, Prompt), Error> {
        let redirect_uri = flow.redirect_uri.clone();
        Login::by_code(profile, &flow.authorize, redirect_uri, pasted::read)
    }

    fn by_code(
        profile: &Profile,
        authorize: &flow::Authorize,
        redirect_uri: String,
        read: code::Read,
    ) -> Result<(Login, Prompt), Error> {
        let explanations = &profile.login.explanations;
        let login = ByCode::start(oauth(profile)?, authorize, explanations, redirect_uri, read)?;
        let prompt = login.prompt();
        Ok((Login(Machine::Code(Box::new(login))), prompt))
    }

    /// Starts a login by a code that a person types in at the platform. The first step asks the platform for it.
    ///
    /// # Errors
    /// If the profile has no token endpoint, or its redirect URI is no URL.
    pub fn device(profile: &Profile, flow: &flow::Device) -> Result<(Login, Step), Error> {
        let explanations = &profile.login.explanations;
        let (login, request) = ByDevice::start(oauth(profile)?, explanations, flow)?;
        Ok((Login(Machine::Device(Box::new(login))), Step::Send(request)))
    }

    /// Starts a login by a client of the account's own. Its input is the secret, which buys the first token.
    ///
    /// # Errors
    /// If the profile has no token endpoint.
    pub fn client(profile: &Profile, client_id: &str) -> Result<Login, Error> {
        let login = ByClient::start(oauth(profile)?, client_id);
        Ok(Login(Machine::Client(Box::new(login))))
    }

    /// Starts a login at the platform's own page, which the browser `program` opens.
    pub fn session(profile: &Profile, flow: &flow::Session, program: PathBuf) -> (Login, Prompt) {
        let visit = Visit::new(profile, flow, program);
        let prompt = Prompt {
            url: flow.url.clone(),
            code: None,
            lifetime: None,
        };
        (Login(Machine::Session(Box::new(visit))), prompt)
    }

    /// Takes what a person, or a browser for them, brings back.
    ///
    /// # Errors
    /// If it is not the answer to this login. The login waits on: whoever sent this did not know its secret.
    pub fn input(&mut self, text: &str) -> Result<Step, Refused> {
        match &mut self.0 {
            Machine::Code(login) => login.input(text),
            Machine::Client(login) => login.input(text),
            Machine::Device(_) | Machine::Session(_) => Err(Refused::Malformed),
        }
    }

    /// Goes on after a wait or a prompt.
    pub fn poll(&mut self) -> Step {
        match &mut self.0 {
            Machine::Code(_) | Machine::Client(_) => Step::Wait(IDLE),
            Machine::Device(login) => login.poll(),
            Machine::Session(visit) => Step::Visit(visit.clone()),
        }
    }

    /// Takes the answer to what was sent.
    pub fn answered(&mut self, answer: Result<Answer, CallError>, now: UnixMillis) -> Step {
        match &mut self.0 {
            Machine::Code(login) => login.answered(answer, now),
            Machine::Device(login) => login.answered(answer, now),
            Machine::Client(login) => login.answered(answer, now),
            // Nothing was sent.
            Machine::Session(_) => Step::Wait(IDLE),
        }
    }
}

fn oauth(profile: &Profile) -> Result<&OAuth, Error> {
    let none = || exchange::Error::NoOAuth(profile.id.clone());
    Ok(profile.oauth.as_ref().ok_or_else(none)?)
}

/// The URL holds the state, and a device's URL may hold its code.
impl fmt::Debug for Prompt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Prompt")
            .field("host", &self.url.host_str())
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// The step that a grant, or its lack, ends a login with.
fn ended(granted: Result<Granted, impl Into<Error>>) -> Step {
    match granted {
        Ok(granted) => Step::Granted(Box::new(granted)),
        Err(error) => Step::Failed(error.into()),
    }
}
