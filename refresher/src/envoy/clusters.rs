//! The clusters that Envoy reads: one for each account, so that each has its own connections, limits and statistics.
//!
//! Everything that says where a platform is and whom to trust there is in these clusters; the filter names one of them
//! and no more. Accounts that are disabled keep theirs, so that enabling one takes effect at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::base_url::Host;
use crate::config;
use crate::files::{self, make_private_dir, replace_file};
use crate::id::AccountId;
use crate::platform::{Catalog, Profile};
use crate::state::StateDir;
use crate::store::{Account, Store, cluster_name};

/// Connections and requests that one account's cluster may have at once: what the filter lets through, Envoy carries.
const CIRCUIT: u32 = 4096;

/// How long Envoy may take to read the file, resolve a name and have a new cluster ready.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the cluster of an account that is gone stays: more than an Envoy needs to hear that it is gone.
const LINGER: Duration = Duration::from_secs(10);

/// Why the file could not be kept current.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The accounts cannot be read.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] files::Error),
}

/// The file name of the escape listener's socket, beside the refresher's own.
pub const ESCAPE_SOCKET: &str = "envoy-escape.sock";

/// Keeps the file of clusters current.
///
/// Envoy learns of an account's cluster from this file and of the account itself from the snapshot, and answers 503 to a
/// request for an account whose cluster it does not have. So a cluster is there before its account, and leaves after it.
#[derive(Debug)]
pub struct ClustersFile {
    path: PathBuf,
    catalog: Catalog,
    settings: config::Envoy,
    written: String,
    clusters: BTreeMap<AccountId, Cluster>,
    settled: watch::Sender<u64>,
}

/// An account that has a cluster.
#[derive(Debug)]
struct Cluster {
    account: Account,
    /// When the account was found to be gone.
    gone: Option<Instant>,
}

impl ClustersFile {
    /// The file in `state`, not written yet.
    ///
    /// # Errors
    /// If its directory cannot be made.
    pub fn new(
        state: &StateDir,
        catalog: Catalog,
        settings: config::Envoy,
    ) -> Result<ClustersFile, Error> {
        let path = state.clusters();
        make_private_dir(path.parent().unwrap_or(Path::new("/")))?;
        Ok(ClustersFile {
            path,
            catalog,
            settings,
            written: String::new(),
            clusters: BTreeMap::new(),
            settled: watch::Sender::new(0),
        })
    }

    /// The revision up to which Envoy has had the time to take the file in.
    pub fn settled(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// Writes the file if the accounts ask for another one than is there. Returns whether one has a new cluster.
    ///
    /// # Errors
    /// If the accounts cannot be read or the file cannot be written.
    pub async fn refresh(&mut self, store: &Store) -> Result<bool, Error> {
        let added = self.take_in(store.accounts().await?, Instant::now());
        let accounts = self.clusters.values().map(|cluster| &cluster.account);
        let wanted = discovery_response(accounts, &self.catalog, &self.settings);
        if wanted != self.written {
            replace_file(&self.path, wanted.as_bytes())?;
            tracing::info!(path = %self.path.display(), "wrote Envoy's clusters");
            self.written = wanted;
        }
        Ok(added)
    }

    /// Takes note of the accounts at `now`. Returns whether one is new.
    fn take_in(&mut self, accounts: Vec<Account>, now: Instant) -> bool {
        for cluster in self.clusters.values_mut() {
            cluster.gone.get_or_insert(now);
        }
        let mut added = false;
        for account in accounts {
            let (id, gone) = (account.id.clone(), None);
            let cluster = Cluster { account, gone };
            added |= self.clusters.insert(id, cluster).is_none();
        }
        self.clusters.retain(|_, cluster| {
            cluster
                .gone
                .is_none_or(|gone| now.saturating_duration_since(gone) < LINGER)
        });
        added
    }

    /// Follows the store until dropped. A failure is logged, and mended with the next change.
    pub async fn follow(mut self, store: &Store) {
        let mut revisions = store.revisions();
        let mut written = None;
        let mut leaving = false;
        loop {
            let revision = *revisions.borrow_and_update();
            // Most news is of accounts' health, and changes no cluster.
            let accounts = store.accounts_revision().await.ok();
            if leaving || accounts.is_none() || accounts != written {
                match self.refresh(store).await {
                    Ok(added) => {
                        written = accounts;
                        if added {
                            sleep(SETTLE).await;
                        }
                    }
                    Err(error) => {
                        written = None;
                        tracing::error!(%error, "cannot keep Envoy's clusters current");
                    }
                }
            }
            self.settled.send_replace(revision);
            leaving = self.clusters.values().any(|cluster| cluster.gone.is_some());
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(LINGER), if leaving => {}
            }
        }
    }
}

/// What Envoy's filesystem CDS reads (envoy.service.discovery.v3.DiscoveryResponse).
pub fn discovery_response<'a>(
    accounts: impl IntoIterator<Item = &'a Account>,
    catalog: &Catalog,
    settings: &config::Envoy,
) -> String {
    let mut accounts: Vec<&Account> = accounts.into_iter().collect();
    accounts.sort_by(|one, other| one.id.cmp(&other.id));
    let cluster = |account: &&Account| {
        let profile = catalog.usable(&account.platform).ok()?;
        Some(cluster(
            &cluster_name(account.id.as_str()),
            profile,
            settings,
        ))
    };
    let resources: Vec<Value> = accounts.iter().filter_map(cluster).collect();
    let version = crate::id::hex(&Sha256::digest(Value::from(resources.clone()).to_string())[..8]);
    format!(
        "{:#}\n",
        json!({ "version_info": version, "resources": resources })
    )
}

/// The cluster of that name, which leads to a platform.
pub fn cluster(name: &str, profile: &Profile, settings: &config::Envoy) -> Value {
    let (url, ca_file) = (&profile.upstream.url, &profile.upstream.ca_file);
    let address = match &url.host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    };
    let endpoint = json!({
        "endpoint": { "address": { "socket_address": { "address": address, "port_value": url.port } } }
    });
    let mut cluster = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [
            { "lb_endpoints": [endpoint] },
            { "priority": 1, "lb_endpoints": [escape(settings.escape.as_deref())] },
        ] },
        "circuit_breakers": { "thresholds": [{
            "max_connections": CIRCUIT, "max_pending_requests": CIRCUIT, "max_requests": CIRCUIT,
            // Requests that wait for one connection all go to the escape when it fails.
            "max_retries": CIRCUIT,
        }] },
        "upstream_connection_options": {
            "tcp_keepalive": { "keepalive_time": 60, "keepalive_interval": 15, "keepalive_probes": 4 },
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol_options(settings),
        },
    });
    match url.host {
        Host::Address(_) => cluster["type"] = "STATIC".into(),
        Host::Name(_) => {
            cluster["cluster_type"] = json!({ "name": "envoy.clusters.dns", "typed_config": dns() })
        }
    }
    if url.tls {
        let ca_file = ca_file.as_deref().unwrap_or(&settings.trusted_ca);
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": tls(&url.host, ca_file),
        });
        cluster["transport_socket_matches"] = json!([{
            "name": "escape",
            "match": { "escape": true },
            "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
                },
            },
        }]);
    }
    cluster
}

/// The endpoint for a request that the platform gave no answer to: Envoy's own escape listener, in plain text.
fn escape(socket: Option<&Path>) -> Value {
    let socket = socket.unwrap_or(Path::new(ESCAPE_SOCKET));
    json!({
        "endpoint": { "address": { "pipe": { "path": socket } } },
        "metadata": { "filter_metadata": { "envoy.transport_socket_match": { "escape": true } } },
    })
}

/// Resolves a name as long as its records say it lasts. IPv4 first: a host without IPv6 routes may still get AAAA.
fn dns() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_lookup_family": "V4_PREFERRED",
        "dns_refresh_rate": "30s",
        "respect_dns_ttl": true,
    })
}

/// TLS towards `host` and nobody else. An address has no server name (RFC 6066 §3).
fn tls(host: &Host, ca_file: &Path) -> Value {
    let (san_type, exact) = match host {
        Host::Name(name) => ("DNS", name.clone()),
        Host::Address(address) => ("IP_ADDRESS", address.to_string()),
    };
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
            "validation_context": {
                "trusted_ca": { "filename": ca_file },
                "match_typed_subject_alt_names": [{ "san_type": san_type, "matcher": { "exact": exact } }],
            },
        },
    });
    if let Host::Name(name) = host {
        context["sni"] = name.as_str().into();
    }
    context
}

/// HTTP/1.1, which every platform speaks (HTTP/2 by ALPN is not to be had where a cluster has a plain-text endpoint,
/// the escape); and the attempt, which puts the credential on.
fn protocol_options(settings: &config::Envoy) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http_protocol_options": {} },
        "common_http_protocol_options": { "idle_timeout": "300s" },
        "http_filters": [
            { "name": "latchkey.attempt", "typed_config": attempt(&settings.wasm) },
            {
                "name": "envoy.filters.http.upstream_codec",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
                },
            },
        ],
    })
}

/// The filter in its upstream role. `vm_config` must be the same as in envoy/envoy.yaml: gate and attempt share data
/// only within one VM.
fn attempt(wasm: &Path) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {
            "name": "latchkey.attempt",
            "root_id": "attempt",
            "vm_config": {
                "vm_id": "latchkey",
                "runtime": "envoy.wasm.runtime.v8",
                "code": { "local": { "filename": wasm } },
            },
            "failure_policy": "FAIL_RELOAD",
            "reload_config": { "backoff": { "base_interval": "0.010s" } },
            "allow_on_headers_stop_iteration": true,
            "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "{}" },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Profile;

    fn cluster_at(base_url: &str) -> Value {
        let text = include_str!("../../platforms/anthropic.toml")
            .replace("https://api.anthropic.com", base_url);
        let profile = Profile::from_table(text.parse().unwrap()).unwrap();
        cluster("latchkey-acc_A", &profile, &config::Envoy::default())
    }

    fn address(cluster: &Value) -> &Value {
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        &endpoint["address"]["socket_address"]
    }

    #[test]
    fn a_name_is_resolved_sent_as_sni_and_verified() {
        let cluster = cluster_at("https://api.test:8443");
        assert_eq!(cluster["cluster_type"]["name"], "envoy.clusters.dns");
        assert_eq!(
            address(&cluster),
            &json!({ "address": "api.test", "port_value": 8443 })
        );
        let tls = &cluster["transport_socket"]["typed_config"];
        assert_eq!(tls["sni"], "api.test");
        let san = &tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"];
        assert_eq!(
            san,
            &json!([{ "san_type": "DNS", "matcher": { "exact": "api.test" } }])
        );
    }

    #[test]
    fn an_address_is_verified_and_has_no_sni() {
        for (url, bare) in [
            ("https://127.0.0.1:1", "127.0.0.1"),
            ("https://[::1]:1", "::1"),
        ] {
            let cluster = cluster_at(url);
            assert_eq!(
                (&cluster["type"], &address(&cluster)["address"]),
                (&json!("STATIC"), &json!(bare))
            );
            let tls = &cluster["transport_socket"]["typed_config"];
            assert!(tls.get("sni").is_none());
            let san =
                &tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"];
            assert_eq!(
                san[0],
                json!({ "san_type": "IP_ADDRESS", "matcher": { "exact": bare } })
            );
        }
    }

    #[test]
    fn plain_http_has_no_tls_and_speaks_http_1() {
        let cluster = cluster_at("http://127.0.0.1:1");
        assert!(cluster.get("transport_socket").is_none());
        let options = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        assert!(
            options.get("auto_config").is_none() && options.get("explicit_http_config").is_some()
        );
        assert_eq!(
            options["http_filters"][1]["name"],
            "envoy.filters.http.upstream_codec"
        );
    }
}
