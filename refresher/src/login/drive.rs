//! Carries out the steps of a login: sends what it wants sent, opens what it wants opened, and waits where it
//! waits.

use tokio::time::sleep;

use super::{Error, Login, Prompt, Step, ended};
use crate::clock::Clock;
use crate::oauth::exchange::Granted;
use crate::oauth::http::HttpClient;

/// The point that a login has come to.
#[derive(Debug)]
pub enum Reached {
    /// A person must be shown something.
    Prompt(Prompt),
    /// The login is complete.
    Granted(Box<Granted>),
}

/// Goes on from `step` to the next point where somebody must do something. How long a person may take is the caller's to
/// bound.
///
/// # Errors
/// If the login comes to nothing.
pub async fn run(
    http: &HttpClient,
    login: &mut Login,
    mut step: Step,
    clock: &impl Clock,
) -> Result<Reached, Error> {
    loop {
        step = match step {
            Step::Send(request) => {
                let answer = http.send(&request).await;
                login.answered(answer, clock.now())
            }
            Step::Visit(visit) => ended(visit.run(clock).await),
            Step::Wait(pause) => {
                sleep(pause).await;
                login.poll()
            }
            Step::Prompt(prompt) => return Ok(Reached::Prompt(prompt)),
            Step::Granted(granted) => return Ok(Reached::Granted(granted)),
            Step::Failed(error) => return Err(error),
        };
    }
}

/// Goes on from `step` to the grant. A prompt on the way was shown before, and is waited out.
///
/// # Errors
/// If the login comes to nothing.
pub async fn complete(
    http: &HttpClient,
    login: &mut Login,
    mut step: Step,
    clock: &impl Clock,
) -> Result<Granted, Error> {
    loop {
        match run(http, login, step, clock).await? {
            Reached::Prompt(_) => step = login.poll(),
            Reached::Granted(granted) => return Ok(*granted),
        }
    }
}
