//! What an account needs at its platform beside a login, and is asked for before it is saved: `[login] setup` of a profile.

pub mod code_assist;

use crate::oauth::exchange::Granted;
use crate::platform::Profile;
use crate::platform::flow::{PROJECT, Setup};
use crate::store::Vars;

/// Why an account cannot be used, though its person has logged in.
pub type Error = code_assist::Error;

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
