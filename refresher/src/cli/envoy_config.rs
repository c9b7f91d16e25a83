//! `refresher envoy-config`, and the flags that say where Envoy finds its files.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Result};
use crate::app::{accounts, envoy_files};
use crate::envoy::clusters::discovery_response;

/// Flags that say where Envoy finds its files.
#[derive(Debug, Args)]
pub struct EnvoyFiles {
    /// The filter's file, as Envoy sees the path [default: `wasm` of [envoy] in config.toml, else the path in envoy/clusters.json]
    #[arg(long, value_name = "FILE")]
    pub wasm: Option<PathBuf>,
    /// Do not check the filter and the certificates: Envoy sees other files than this machine, as in another container
    #[arg(long)]
    pub envoy_elsewhere: bool,
}

/// Flags of `envoy-config`.
#[derive(Debug, Args)]
pub struct EnvoyConfig {
    #[command(flatten)]
    files: EnvoyFiles,
}

impl EnvoyConfig {
    /// Prints the clusters.
    ///
    /// # Errors
    /// If others could change a file that they name, or the store fails.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let envoy = app.envoy(self.files.wasm);
        if !self.files.envoy_elsewhere {
            envoy_files::require_safe(&envoy, &app.catalog)?;
        }
        let clusters = accounts::clusters(app, &envoy).await?;
        Ok(out.print(&discovery_response(clusters.values()))?)
    }
}
