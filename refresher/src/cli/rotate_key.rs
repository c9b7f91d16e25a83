//! `refresher rotate-key`: a new sealing key, and everything sealed anew with it.

use super::{CALLER, Context, Result};
use crate::app::rotation;
use crate::keys::RETIRED_VARIABLE;
use crate::store::{Retired, Step};

/// Rotates, and says what was done.
///
/// # Errors
/// If there is no key to change over to, or the keys or the database cannot be written. Every record can still be
/// opened, and the next run goes on from there.
pub async fn run(context: &Context) -> Result<()> {
    let Context { app, out, .. } = context;
    let mut rotation = rotation::begin(app, CALLER)?;
    let mut sealed = 0;
    loop {
        match rotation.step().await? {
            Step::Made(key) => out.print(&format!("Made the key {key}.\n"))?,
            Step::Resumed(key) => out.print(&format!("Going on with the key {key}.\n"))?,
            Step::Switched => out.print("New records are sealed with it from now on.\n")?,
            Step::Sealed(count) => sealed += count,
            Step::Forgot(count) => out.print(&format!(
                "Accounts sealed anew: {sealed}. Old keys forgotten: {count}.\n"
            ))?,
            Step::Done => break,
        }
    }
    match rotation.retired_keys() {
        None => {}
        Some(Retired::Variables) => out.print(&format!(
            "Nothing needs {RETIRED_VARIABLE} any more: unset it, and restart `refresher serve`.\n"
        ))?,
        Some(Retired::Given(place)) => out.print(&format!(
            "Nothing needs the keys after the first any more: remove them from {place}.\n"
        ))?,
    }
    out.print(
        "Backups made before this rotation need the old key. Unless you have it, make a new backup.\n",
    )?;
    Ok(())
}
