//! Libraries that are loaded before the C library (`LD_PRELOAD`) and change what a program meets.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use super::{program::output_of, source_root};

/// The longest that the compiler may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Compiles `tests/it/harness/NAME.c` into `folder`.
pub async fn compile(name: &str, folder: &Path) -> PathBuf {
    let library = folder.join(format!("{name}.so"));
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source_root().join(format!("tests/it/harness/{name}.c")));
    let compiled = output_of(compiler, LIMIT).await;
    assert!(compiled.status.success(), "{compiled:?}");
    library
}
