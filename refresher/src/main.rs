//! The `refresher` program.

use std::io;
use std::process::ExitCode;

use refresher::cli::Cli;
use refresher::log;
use tokio::runtime::Runtime;

fn main() -> io::Result<ExitCode> {
    // Of the program alone, so that a new commit compiles nothing else anew. `make build` says it.
    let cli = Cli::of_command_line(option_env!("LATCHKEY_COMMIT"));
    log::start(cli.is_daemon());
    log::harden();
    let runtime = Runtime::new()?;
    let code = runtime.block_on(cli.run());
    // A look-up of a name that hangs must not hold up the end.
    runtime.shutdown_background();
    Ok(code)
}
