//! The flag that says by which proxy an account leaves.

use std::fmt;

use clap::Args;

use super::{Error, Result};
use crate::egress::Proxy;

/// The variable of a proxy's password, whose URL everybody on this machine can see while we run.
const PASSWORD_VARIABLE: &str = "LATCHKEY_PROXY_PASSWORD";

/// The proxy of an account to be set.
#[derive(Args)]
pub struct ProxyFlag {
    /// A proxy for all of the account's traffic, its login and its refreshes included: http://USER@HOST:PORT, or https://;
    /// the password stands in $LATCHKEY_PROXY_PASSWORD or behind USER. none: the platform's way
    #[arg(long, value_name = "URL|none")]
    proxy: Option<String>,
}

/// A URL may have a password in it.
impl fmt::Debug for ProxyFlag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProxyFlag").finish_non_exhaustive()
    }
}

impl ProxyFlag {
    /// The change that it asks for: `Some(None)` for no proxy, `None` for as it is.
    ///
    /// # Errors
    /// If it is no proxy that Envoy can leave by.
    pub fn setting(&self) -> Result<Option<Option<Proxy>>> {
        let Some(text) = self.proxy.as_deref() else {
            return Ok(None);
        };
        if text == "none" {
            return Ok(Some(None));
        }
        let password = std::env::var(PASSWORD_VARIABLE).ok();
        let proxy = Proxy::parse(text, password.as_deref());
        let proxy = proxy.map_err(|error| Error::Input(format!("--proxy: {error}")))?;
        Ok(Some(Some(proxy)))
    }
}
