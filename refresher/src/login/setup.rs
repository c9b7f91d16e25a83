//! The needs of an account at its platform beside a login, met before it is saved: `[login] setup` of a profile.

pub mod code_assist;

use crate::oauth::exchange::Granted;
use crate::oauth::http;
use crate::platform::Profile;
use crate::platform::flow::{PROJECT, Setup};
use crate::store::Vars;

/// The reason why an account cannot be used, though its person has logged in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There can be no client for the platform.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The platform does not say what the account needs, and its operator did not either.
    #[error("{0}")]
    NotSaid(String),
    /// The platform does not have the account, or does not answer.
    #[error("{0}")]
    Refused(String),
}

/// Checks what an operator says of an account.
///
/// # Errors
/// Saying what was expected.
pub fn check(setup: Setup, given: &str) -> Result<(), &'static str> {
    let (fits, expected) = match setup {
        Setup::CodeAssist => (code_assist::is_project(given), code_assist::A_PROJECT),
    };
    fits.then_some(()).ok_or(expected)
}

/// Finds what the account of a login needs, and adds it to what is known of it. `profile`: the platform as the account
/// reaches it. What is `given`, by its operator or from before, goes before what the platform says by itself.
///
/// # Errors
/// If the platform does not have the account, or does not answer. Nothing was saved then.
pub async fn complete(
    profile: &Profile,
    mut granted: Granted,
    given: &Vars,
) -> Result<Granted, Error> {
    match profile.login.setup {
        None => {}
        Some(Setup::CodeAssist) => {
            let access = granted.credential.on_the_wire();
            let given = given.get(PROJECT).map(String::as_str);
            let project = code_assist::project(profile, access, given).await?;
            granted.vars.insert(PROJECT.to_owned(), project);
        }
    }
    Ok(granted)
}
