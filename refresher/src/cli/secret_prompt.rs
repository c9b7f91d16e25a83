//! Asks a person at a terminal for a secret, which the terminal does not show.
//!
//! The terminal is silenced before the prompt appears. `rpassword` prompts first, so that what is pasted at once is shown.

use std::io::{self, BufRead, Read, Stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// The line that is typed or pasted at `prompt`, cut off after `limit` bytes.
///
/// # Errors
/// If standard input is not a terminal, or cannot be read.
pub(super) fn ask(prompt: &str, limit: u64) -> io::Result<Zeroizing<String>> {
    let stdin = io::stdin();
    let _silence = Silence::over(&stdin)?;
    eprint!("{prompt}");
    let mut line = Zeroizing::new(String::new());
    stdin.lock().take(limit).read_line(&mut line)?;
    Ok(line)
}

/// A terminal that shows nothing but line ends; as it was when dropped.
struct Silence<'t> {
    terminal: &'t Stdin,
    before: Termios,
}

impl Silence<'_> {
    fn over(terminal: &Stdin) -> io::Result<Silence<'_>> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(terminal, OptionalActions::Now, &silent)?;
        Ok(Silence { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
