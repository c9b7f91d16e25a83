//! Carries out the steps of a login: sends what it wants sent, opens what it wants opened, and waits where it
//! waits.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

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

/// Goes on from `step` to the next point where somebody must do something. Nothing is waited for past `until`; what was
/// sent by then is not cut off, as its answer may be the grant.
///
/// # Errors
/// If the login comes to nothing.
pub async fn run(
    http: &HttpClient,
    login: &mut Login,
    mut step: Step,
    clock: &impl Clock,
    until: Instant,
) -> Result<Reached, Error> {
    loop {
        step = match step {
            Step::Send(request) => {
                let answer = http.send(&request).await;
                login.answered(answer, clock.now())
            }
            Step::Visit(visit) => ended(visit.run(clock).await),
            Step::Wait(pause) => {
                if pause > until.saturating_duration_since(Instant::now()) {
                    sleep_until(until).await;
                    return Err(Error::Lapsed);
                }
                sleep(pause).await;
                login.poll()
            }
            Step::Prompt(prompt) => return Ok(Reached::Prompt(prompt)),
            Step::Granted(granted) => return Ok(Reached::Granted(granted)),
            Step::Failed(error) => return Err(error),
        };
    }
}

/// Goes on from `step` to the grant. A prompt on the way was shown before, and is waited out, within `limit`.
///
/// # Errors
/// If the login comes to nothing.
pub async fn complete(
    http: &HttpClient,
    login: &mut Login,
    mut step: Step,
    clock: &impl Clock,
    limit: Duration,
) -> Result<Granted, Error> {
    let until = Instant::now() + limit;
    loop {
        match run(http, login, step, clock, until).await? {
            Reached::Prompt(_) => step = login.poll(),
            Reached::Granted(granted) => return Ok(*granted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::platform::{Flow, example};

    #[tokio::test(start_paused = true)]
    async fn a_login_that_nobody_answers_lapses_at_its_limit() {
        let profile = example();
        let flows = &profile.login.flows;
        let pasted = flows.iter().find_map(|flow| match flow {
            Flow::Pasted(flow) => Some(flow),
            _ => None,
        });
        let (mut login, _) = Login::pasted(&profile, pasted.unwrap()).unwrap();
        let http = HttpClient::for_platform(&profile).unwrap();
        let (begun, limit) = (Instant::now(), Duration::from_secs(600));
        let step = login.poll();
        let lapsed = complete(&http, &mut login, step, &SystemClock, limit).await;
        assert!(matches!(lapsed, Err(Error::Lapsed)), "{lapsed:?}");
        assert_eq!(begun.elapsed(), limit);
    }
}
