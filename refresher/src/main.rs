//! The `refresher` program.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use refresher::cli::Cli;
use refresher::log;
use tokio::runtime::Runtime;

fn main() -> io::Result<ExitCode> {
    log::start();
    log::harden();
    let runtime = Runtime::new()?;
    let code = runtime.block_on(Cli::parse().run());
    // A look-up of a name that hangs must not hold up the end.
    runtime.shutdown_background();
    Ok(code)
}
