//! The files that an installation takes along for the shell: completions and manual pages. Neither looks at any state.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::output::Out;
use super::{Cli, Error, Result};
use crate::app;
use crate::fault::Fault;
use crate::os_error::in_words;

/// The program's name.
const NAME: &str = "refresher";

/// Completions for a shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    ///
    /// # Errors
    /// If nobody can be told.
    pub fn run(&self, out: &Out) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), NAME, &mut script);
        Ok(out.print(&String::from_utf8_lossy(&script))?)
    }
}

/// The manual pages.
#[derive(Debug, Args)]
pub struct Man {
    /// The folder for them: ~/.local/share/man/man1, for example
    folder: PathBuf,
}

impl Man {
    /// Writes a page for each command.
    ///
    /// # Errors
    /// If the folder cannot be made or written.
    pub fn run(&self, out: &Out) -> Result<()> {
        let folder = self.folder.display();
        if self.folder.exists() && !self.folder.is_dir() {
            return Err(Error::Input(format!(
                "{folder}: expected a folder for the pages, found a file"
            )));
        }
        let written = fs::create_dir_all(&self.folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &self.folder));
        written.map_err(|error| {
            app::Error::new(
                Fault::Failed,
                format_args!(
                    "{folder}: cannot write the pages there: {}",
                    in_words(&error)
                ),
            )
        })?;
        Ok(out.print(&format!(
            "{folder}: has the manual pages, beginning with {NAME}.1\n"
        ))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_has_completions_and_every_command_a_page() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), NAME, &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("rotate-key"), "{shell}");
        }
        let folder = tempfile::tempdir().unwrap();
        let man = Man {
            folder: folder.path().join("man1"),
        };
        man.run(&Out::new(std::io::sink(), std::io::sink()))
            .unwrap();
        for page in [
            "refresher.1",
            "refresher-keys-create.1",
            "refresher-serve.1",
        ] {
            let text = fs::read_to_string(man.folder.join(page)).unwrap();
            assert!(text.contains(".TH"), "{page}");
        }
    }
}
