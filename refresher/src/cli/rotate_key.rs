//! `refresher rotate-key`: a new sealing key, and everything sealed anew with it.

use super::output::print;
use super::{Context, Error};
use crate::store::{Retired, Step};

/// Rotates, and says what was done.
///
/// # Errors
/// If there is no key to change over to, or the keys or the database cannot be written. Every record can still be
/// opened, and the next run goes on from there.
pub async fn run(context: &Context) -> Result<(), Error> {
    let _lock = context.state.lock_rotation()?;
    let mut rotation = context.store.rotation(&context.state);
    let mut sealed = 0;
    loop {
        match rotation.step().await? {
            Step::Made(key) => print(&format!("Made the key {key}.\n"))?,
            Step::Resumed(key) => print(&format!("Going on with the key {key}.\n"))?,
            Step::Switched => print("It seals from now on.\n")?,
            Step::Sealed(count) => sealed += count,
            Step::Forgot(count) => print(&format!(
                "Accounts sealed anew: {sealed}. Old keys forgotten: {count}.\n"
            ))?,
            Step::Done => break,
        }
    }
    match context.store.retired_keys() {
        Some(Retired::Variables) => print(
            "LATCHKEY_RETIRED_KEYS is of no more use here: unset it, and restart `refresher serve`.\n",
        )?,
        Some(Retired::Given(place)) => print(&format!(
            "All keys but the first are of no more use in {place}.\n"
        ))?,
        None => {}
    }
    print("Backups made before this rotation need the old key. Keep it, or make a new backup.\n")?;
    Ok(())
}
