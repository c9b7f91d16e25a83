//! `refresher serve`.

use std::net::SocketAddr;

use clap::Args;

use super::envoy_config::EnvoyFiles;
use super::{Context, Result, number};
use crate::app::{Error, accounts, envoy_files};
use crate::fault::Fault;
use crate::listen::host::HostNames;
use crate::metrics::Shown;

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    files: EnvoyFiles,
    /// Show metrics to Prometheus there as well, at /metrics; for example 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    metrics_listen: Option<SocketAddr>,
    /// Let --metrics-listen be an address that other machines reach
    #[arg(long, requires = "metrics_listen")]
    metrics_anywhere: bool,
    /// Answer metrics requests for this host name too, besides addresses and localhost; may be given several times
    #[arg(long, value_name = "NAME", requires = "metrics_listen")]
    metrics_host: Vec<String>,
}

fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    number::parsed(
        text,
        "an IP address and a port, like 127.0.0.1:9464 or [::1]:9464",
    )
}

impl Serve {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// If it cannot begin, or a part of it ends by itself.
    pub async fn run(self, context: &Context) -> Result<()> {
        if let Some(address) = self.metrics_listen {
            check_address(address, self.metrics_anywhere)?;
        }
        let app = context.app.clone();
        let envoy = app.envoy(self.files.wasm);
        let names = HostNames::of(self.metrics_host);
        let shown = self.metrics_listen.map(|at| Shown { at, names });
        if !self.files.envoy_elsewhere {
            let clusters = accounts::clusters(&app, &envoy).await?;
            envoy_files::require(&envoy, &app.catalog, &clusters)?;
        }
        Ok(crate::serve::run(app, envoy, shown).await?)
    }
}

/// Refuses to show metrics to other machines, unless `anywhere` was asked for.
fn check_address(address: SocketAddr, anywhere: bool) -> std::result::Result<(), Error> {
    if address.ip().is_loopback() || anywhere {
        return Ok(());
    }
    let sentence = format!(
        "--metrics-listen {address}: expected an address of this machine alone, like 127.0.0.1:9464; the page says \
         which accounts there are and how much they are used"
    );
    Err(Error::new(Fault::MetricsExposed, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_stay_on_this_machine_unless_told() {
        let address = |text: &str| text.parse().unwrap();
        for local in ["127.0.0.1:9464", "[::1]:9464", "127.8.8.8:1"] {
            assert!(check_address(address(local), false).is_ok());
        }
        for open in ["0.0.0.0:9464", "[::]:9464", "10.0.0.7:9464"] {
            let refused = check_address(address(open), false).unwrap_err();
            assert_eq!(refused.fault, Fault::MetricsExposed);
            assert!(check_address(address(open), true).is_ok());
        }
    }
}
