//! Connections to an account's own base URL. A name may lead to another address at each question, so what is checked is what
//! is connected to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::{Network, Refused};
use crate::base_url::{BaseUrl, Host};

/// Refuses a base URL whose name leads to an address that does not belong to `network`. A name that is not found now is
/// checked when it is.
///
/// # Errors
/// Saying what the address is.
pub async fn require_reach(network: Network, url: &BaseUrl) -> Result<(), Refused> {
    url.check(network)?;
    let Host::Name(name) = &url.origin.host else {
        return Ok(());
    };
    let found = lookup(name.clone()).await.unwrap_or_default();
    found
        .into_iter()
        .try_for_each(|address| network.check(address))
}

/// The addresses of a name, by the system's resolver.
async fn lookup(name: String) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

/// Asks for the addresses of a name.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// A resolver that gives the HTTP client the addresses of its network and no others: what was checked is what is connected
/// to, however often a name changes its mind.
#[derive(Clone)]
pub struct Guarded {
    network: Network,
    lookup: Lookup,
}

impl Guarded {
    /// By the system's resolver.
    pub fn new(network: Network) -> Guarded {
        Guarded {
            network,
            lookup: Arc::new(|name| Box::pin(lookup(name))),
        }
    }

    async fn addresses(
        self,
        name: String,
    ) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
        let found = (self.lookup)(name).await?;
        // One address that does not belong there makes the name suspect, and none of the others is taken.
        for address in &found {
            self.network.check(*address)?;
        }
        Ok(Box::new(
            found.into_iter().map(|address| SocketAddr::new(address, 0)),
        ))
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(self.clone().addresses(name.as_str().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A client whose names lead to what the list says, one question after the other.
    fn client(network: Network, answers: Vec<Vec<IpAddr>>) -> reqwest::Client {
        let answers = Arc::new(Mutex::new(answers));
        let lookup: Lookup = Arc::new(move |_| {
            let next = answers.lock().unwrap().remove(0);
            Box::pin(async { Ok(next) })
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().no_proxy();
        let guarded = Guarded { network, lookup };
        builder
            .dns_resolver(Arc::new(guarded))
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    }

    /// A name that was good when it was looked at, and leads to this machine by the time it is connected to, gets no
    /// connection; nor does one that has such an address beside a good one.
    #[tokio::test]
    async fn a_name_that_changes_its_mind_gets_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let local: IpAddr = Ipv4Addr::LOCALHOST.into();
        let public: IpAddr = "203.0.113.7".parse().unwrap();
        let internet: IpAddr = "8.8.8.8".parse().unwrap();
        for answers in [vec![local], vec![internet, local], vec![public]] {
            let client = client(Network::Public, vec![answers]);
            let asked = client.get(format!("http://rebound.test:{port}/")).send();
            let error = asked.await.unwrap_err();
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            assert!(
                cause
                    .to_string()
                    .contains("expected the address of a platform"),
                "{cause}"
            );
        }
        let waited = timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(waited.is_err(), "a connection to a refused address");

        let client = client(Network::Own, vec![vec![local]]);
        let asked = tokio::spawn(client.get(format!("http://gpu.test:{port}/")).send());
        let accepted = timeout(Duration::from_secs(10), listener.accept()).await;
        assert!(accepted.unwrap().is_ok(), "the operator's own network");
        asked.abort();
    }
}
