//! Reads a secret from standard input: of a person at a terminal, which does not show it, or of another program.
//!
//! A secret is whole or it is refused: half of one is another secret, which the platform refuses later with other words.
//!
//! The terminal is silenced before the prompt appears. `rpassword` prompts first, so that what is pasted at once is shown.

use std::io::{self, BufRead, IsTerminal, Stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::files::read_within;

/// The most bytes of a secret that a person or a program hands us. The longest known are below 4 KiB.
pub(super) const MAX_SECRET_BYTES: u64 = 16 * 1024;
/// The longest line that Linux's terminals take: the rest of a longer one is dropped before we see it.
const TERMINAL_LINE_BYTES: usize = 4095;

/// The secret that a person types or pastes at `prompt`, or all that another program writes.
///
/// # Errors
/// If it cannot be read, or is longer than [`MAX_SECRET_BYTES`] or what the terminal takes.
pub(super) fn read(prompt: &str) -> io::Result<Zeroizing<String>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return read_within(stdin.lock(), MAX_SECRET_BYTES).map(Zeroizing::new);
    }
    let _silence = Silence::over(&stdin)?;
    eprint!("{prompt}");
    line(stdin.lock())
}

/// A line that a terminal has taken whole.
fn line(terminal: impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    terminal.take(MAX_SECRET_BYTES).read_line(&mut line)?;
    if line.trim_end_matches('\n').len() >= TERMINAL_LINE_BYTES {
        return Err(io::Error::other(format!(
            "a terminal takes no more than {TERMINAL_LINE_BYTES} bytes of a line; write it to standard input from a file"
        )));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_terminal_cut_is_refused() {
        let whole = "k".repeat(TERMINAL_LINE_BYTES - 1);
        let read = line(format!("{whole}\nmore").as_bytes()).unwrap();
        assert_eq!(read.trim_end(), whole);
        let cut = line("k".repeat(TERMINAL_LINE_BYTES).as_bytes()).unwrap_err();
        assert!(cut.to_string().contains("4095 bytes"), "{cut}");
    }
}
