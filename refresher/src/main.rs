//! The `refresher` program.

use std::process::ExitCode;

use clap::Parser;
use refresher::cli::Cli;
use refresher::log;

#[tokio::main]
async fn main() -> ExitCode {
    log::start();
    log::harden();
    Cli::parse().run().await
}
