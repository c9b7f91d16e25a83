//! `refresher rotate-key`: a new sealing key, and everything sealed anew with it.

use super::output::print;
use super::{Context, Error};
use crate::store::Step;

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
    if let Some(left) = context.store.after_rotation() {
        print(&format!("{left}\n"))?;
    }
    print(
        "A backup of before needs the key of before: keep that one with it, or make a new backup.\n",
    )?;
    Ok(())
}
