//! The clusters that Envoy reads: one for each platform that has an account, and for each origin that accounts have of
//! their own ([`crate::cluster`]).
//!
//! Such a cluster is an aggregate of two: of the platform's hosts, and of the escape, which has the requests that find no
//! host, or no answer. The escape is a Unix socket, and a cluster whose hosts have names cannot have one among them: Envoy
//! takes its path for a name that nothing resolves. The filter's upstream role is the aggregate's.
//!
//! Where a platform or an account is reached by a proxy, the hosts are behind a tunnel ([`tunnel`]).
//!
//! Everything that says where a platform is and whom to trust there is in these clusters; the filter names one of them
//! and no more. Nothing in a cluster judges an account: it has no outlier detection and no active health checks, for the
//! failures of one account would then take the platform from all the others. The filter judges accounts.

mod attempt;
mod tunnel;

pub use attempt::capabilities;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::base_url::{Host, Origin};
use crate::cluster::{ClusterKey, PREFIX};
use crate::config;
use crate::egress::Proxy;
use crate::files::owned::read_owned_text;
use crate::files::{self, make_private_dir, replace_file};
use crate::platform::{Catalog, Profile};
use crate::state::StateDir;
use crate::store::Store;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

const HTTP_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The name of those options in a cluster.
const HTTP_OPTIONS_KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The most bytes of the file: a thousand clusters of 5 KiB each, several times.
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// The time for a connection, its TLS handshake with it.
const CONNECT_TIMEOUT: &str = "5s";

/// Connections and requests that a cluster may have at once: as many as the shipped listener lets in, 10,000 connections
/// of 100 streams. A lower bound would let one caller take the platform from all the others.
const CIRCUIT: u32 = 1_000_000;

/// Bytes that Envoy reads of a platform before the caller has taken them: as many as the listener's connections have.
/// Its own default is 1 MiB, which a caller who reads nothing would have it keep.
const CONNECTION_BUFFER_BYTES: u32 = 65_536;

/// The time that Envoy has to read the file, resolve a name and have a new cluster ready.
const SETTLE: Duration = Duration::from_millis(500);
/// The time that a cluster stays which no account uses: more than an Envoy needs to hear that its accounts are gone.
const LINGER: Duration = Duration::from_secs(10);

/// The reason why the file could not be kept current.
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
/// The socket of Envoy's admin interface in the shipped configurations.
pub const ADMIN_SOCKET: &str = "envoy-admin.sock";

/// The cluster of the escape, which no platform's is named like ([`crate::cluster::PREFIX`]).
const ESCAPE: &str = "latchkey_escape";

/// The time for one try of a DNS query, in seconds. Envoy waits for each name when it starts: with its own numbers a
/// resolver that is silent holds it, and so all other platforms, for over 100 s; with these, 10 s.
const DNS_TIMEOUT: u32 = 2;
/// The tries of a DNS query.
const DNS_TRIES: u32 = 2;

/// Clusters by name, as Envoy reads them.
pub type Clusters = BTreeMap<String, Value>;

/// Keeps the file of clusters current.
///
/// Envoy learns of a cluster from this file and of its accounts from the snapshot, and answers 503 to a request for an
/// account whose cluster it does not have. So a cluster is there before its first account, and leaves after its last.
#[derive(Debug)]
pub struct ClustersFile {
    path: PathBuf,
    catalog: Catalog,
    settings: config::Envoy,
    written: String,
    clusters: BTreeMap<String, Cluster>,
    /// An Envoy may have read the file already, and has to read it again for a cluster that it lacks.
    is_read: bool,
    /// A cluster is new, and Envoy has not had the time to take it in.
    is_settling: bool,
    settled: watch::Sender<u64>,
}

/// A cluster in the file.
#[derive(Debug)]
struct Cluster {
    value: Value,
    /// The time at which no account was found to use it any more.
    unused: Option<Instant>,
}

impl ClustersFile {
    /// Takes over the file in `state` where there is one: what an Envoy has read stays there until it needs it no more.
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
        let found = read_file(state);
        let unused = None;
        let clusters = found.as_ref().map(clusters_in).unwrap_or_default();
        Ok(ClustersFile {
            path,
            catalog,
            settings,
            written: String::new(),
            clusters: clusters
                .into_iter()
                .map(|(name, value)| (name, Cluster { value, unused }))
                .collect(),
            is_read: found.is_some(),
            is_settling: false,
            settled: watch::Sender::new(0),
        })
    }

    /// The revision up to which Envoy has had the time to take the file in.
    pub fn settled(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// Writes the file if the accounts ask for another one than is there. Returns `true` if an Envoy that has read the
    /// file lacks a cluster that is in it now.
    ///
    /// # Errors
    /// If the accounts cannot be read or the file cannot be written.
    pub async fn refresh(&mut self, store: &Store) -> Result<bool, Error> {
        let keys = store.clusters().await?;
        let wanted = clusters(keys, &self.catalog, &self.settings);
        let is_new = self.take_in(wanted, Instant::now()) && self.is_read;
        let clusters = self.clusters.values().map(|cluster| &cluster.value);
        let wanted = discovery_response(clusters);
        if wanted != self.written {
            replace_file(&self.path, wanted.as_bytes())?;
            tracing::info!(path = %self.path.display(), "wrote Envoy's clusters");
            self.written = wanted;
        }
        self.is_read = true;
        self.is_settling |= is_new;
        Ok(is_new)
    }

    /// Takes note of the clusters that accounts use at `now`. Returns `true` if one is new, or leads elsewhere than
    /// before: what is sent to it before Envoy has taken the change in would go to the old place.
    fn take_in(&mut self, wanted: Clusters, now: Instant) -> bool {
        for cluster in self.clusters.values_mut() {
            cluster.unused.get_or_insert(now);
        }
        let mut is_new = false;
        for (name, value) in wanted {
            let before = self.clusters.get(&name);
            is_new |= before.is_none_or(|before| before.value != value);
            let unused = None;
            self.clusters.insert(name, Cluster { value, unused });
        }
        self.clusters.retain(|_, cluster| {
            cluster
                .unused
                .is_none_or(|unused| now.saturating_duration_since(unused) < LINGER)
        });
        is_new
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
                    Ok(_) => written = accounts,
                    Err(error) => {
                        written = None;
                        tracing::error!(%error, "cannot keep Envoy's clusters current");
                    }
                }
            }
            if std::mem::take(&mut self.is_settling) {
                sleep(SETTLE).await;
            }
            self.settled.send_replace(revision);
            leaving = self
                .clusters
                .values()
                .any(|cluster| cluster.unused.is_some());
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(LINGER), if leaving => {}
            }
        }
    }
}

/// The clusters of `keys`, each with the proxy of the account that has it for itself, but for those of platforms that are
/// off.
pub fn clusters(
    keys: impl IntoIterator<Item = (ClusterKey, Option<Proxy>)>,
    catalog: &Catalog,
    settings: &config::Envoy,
) -> Clusters {
    let named = |(key, proxy): (ClusterKey, Option<Proxy>)| {
        let (name, profile) = (key.name(), catalog.usable(&key.platform).ok()?);
        let profile = profile.by(proxy.as_ref());
        let origin = key.origin.as_ref().unwrap_or(&profile.upstream.url.origin);
        Some(cluster(&name, origin, &profile, settings))
    };
    keys.into_iter().filter_map(named).flatten().collect()
}

/// The clusters of a file that [`discovery_response`] wrote.
pub fn clusters_in(response: &Value) -> Clusters {
    let resources = response["resources"].as_array().into_iter().flatten();
    let named = |cluster: &Value| Some((cluster["name"].as_str()?.to_owned(), cluster.clone()));
    resources.filter_map(named).collect()
}

/// The filter that the clusters of such a file name.
pub fn filter_in(response: &Value) -> Option<PathBuf> {
    let resources = response["resources"].as_array().into_iter().flatten();
    let named = |cluster: &Value| {
        let filters =
            &cluster["typed_extension_protocol_options"][HTTP_OPTIONS_KEY]["http_filters"];
        let code = &filters[0]["typed_config"]["config"]["vm_config"]["code"];
        code["local"]["filename"].as_str().map(PathBuf::from)
    };
    resources.filter_map(named).next()
}

/// True where one of the clusters has Envoy trust the certificates in `file`.
pub fn names_file(clusters: &Clusters, file: &Path) -> bool {
    let named = json!({ "filename": file }).to_string();
    let mut clusters = clusters.values();
    clusters.any(|cluster| cluster.to_string().contains(&named))
}

/// Reads the file of clusters in `state`; none where there is none, others could have written it, or it is no JSON.
pub fn read_file(state: &StateDir) -> Option<Value> {
    let text = read_owned_text(&state.clusters(), MAX_FILE_BYTES).ok()??;
    serde_json::from_str(&text).ok()
}

/// Writes the file that Envoy's filesystem CDS reads (envoy.service.discovery.v3.DiscoveryResponse).
pub fn discovery_response<'a>(clusters: impl IntoIterator<Item = &'a Value>) -> String {
    let resources: Vec<&Value> = clusters.into_iter().collect();
    let resources = json!(resources);
    let version = crate::id::hex(&Sha256::digest(resources.to_string())[..8]);
    format!(
        "{:#}\n",
        json!({ "version_info": version, "resources": resources })
    )
}

/// The cluster of that name, which leads to an origin of a platform, with those that it consists of.
pub fn cluster(
    name: &str,
    origin: &Origin,
    profile: &Profile,
    settings: &config::Envoy,
) -> Clusters {
    let hosts = hosts_name(name);
    let mut clusters = Clusters::from([
        (name.to_owned(), aggregate(name, &hosts, settings)),
        (ESCAPE.to_owned(), escape(settings.escape.as_deref())),
    ]);
    let value = match &profile.upstream.proxy {
        None => hosts_of(&hosts, origin, profile, settings),
        Some(proxy) => {
            let through = named_like("latchkey_proxy-", name);
            let value = tunnel::hosts_behind(&hosts, &through, proxy, origin, profile, settings);
            let proxy = tunnel::proxy(&through, proxy, settings);
            clusters.insert(through, proxy);
            value
        }
    };
    clusters.insert(hosts, value);
    clusters
}

/// The name of the hosts of the cluster of that name, which no platform's cluster has.
pub fn hosts_name(cluster: &str) -> String {
    named_like("latchkey_hosts-", cluster)
}

/// The name of a part of the cluster of that name.
fn named_like(part: &str, cluster: &str) -> String {
    let owner = cluster.strip_prefix(PREFIX).unwrap_or(cluster);
    format!("{part}{owner}")
}

/// A platform's hosts and the escape. The attempt works here, whichever of them a request goes to.
fn aggregate(name: &str, hosts: &str, settings: &config::Envoy) -> Value {
    json!({
        "@type": CLUSTER,
        "name": name,
        "cluster_type": { "name": "envoy.clusters.aggregate", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
            "clusters": [hosts, ESCAPE],
        } },
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": CONNECT_TIMEOUT,
        "circuit_breakers": circuit_breakers(),
        "typed_extension_protocol_options": {
            HTTP_OPTIONS_KEY: {
                "@type": HTTP_OPTIONS,
                "explicit_http_config": { "http_protocol_options": {} },
                "http_filters": [
                    { "name": "latchkey.attempt", "typed_config": attempt::filter(settings) },
                    {
                        "name": "envoy.filters.http.upstream_codec",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
                        },
                    },
                ],
            },
        },
    })
}

/// The hosts of an origin. They are spoken to in HTTP/1.1, as every platform speaks that.
fn hosts_of(name: &str, origin: &Origin, profile: &Profile, settings: &config::Envoy) -> Value {
    let idle = idle_timeout(profile);
    let mut cluster = connected_to(name, &origin.host, origin.port, CONNECT_TIMEOUT, &idle);
    if let Some(socket) = tls_to(origin, profile, settings) {
        cluster["transport_socket"] = socket;
    }
    cluster
}

/// Ends an idle connection before the platform does it: what is sent at that moment is lost.
fn idle_timeout(profile: &Profile) -> String {
    format!("{}s", profile.upstream.idle_seconds)
}

/// A cluster of one host that is connected to over TCP and spoken to in HTTP/1.1.
fn connected_to(name: &str, host: &Host, port: u16, connect_timeout: &str, idle: &str) -> Value {
    let address = json!({ "socket_address": { "address": host.to_string(), "port_value": port } });
    let mut cluster = json!({
        "@type": CLUSTER,
        "name": name,
        "connect_timeout": connect_timeout,
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER_BYTES,
        "load_assignment": load_assignment(name, &json!({ "address": address })),
        "circuit_breakers": circuit_breakers(),
        "upstream_connection_options": {
            "tcp_keepalive": { "keepalive_time": 60, "keepalive_interval": 15, "keepalive_probes": 4 },
        },
        "typed_extension_protocol_options": http_1(idle),
    });
    match host {
        Host::Address(_) => cluster["type"] = "STATIC".into(),
        Host::Name(_) => {
            cluster["cluster_type"] = json!({ "name": "envoy.clusters.dns", "typed_config": dns() })
        }
    }
    cluster
}

/// HTTP/1.1, on connections that are closed after a time without a request.
fn http_1(idle: &str) -> Value {
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": HTTP_OPTIONS,
        "explicit_http_config": { "http_protocol_options": {} },
        "common_http_protocol_options": { "idle_timeout": idle },
    } })
}

/// TLS to an origin, if it speaks that.
fn tls_to(origin: &Origin, profile: &Profile, settings: &config::Envoy) -> Option<Value> {
    let ca_file = &profile.upstream.ca_file;
    let ca_file = ca_file.as_deref().unwrap_or(&settings.trusted_ca);
    origin.tls.then(|| tls_socket(&origin.host, ca_file))
}

fn tls_socket(host: &Host, ca_file: &Path) -> Value {
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": tls_context(host, ca_file) })
}

/// The escape, for a request that the platform gave no answer to: Envoy's own listener, in plain text.
fn escape(socket: Option<&Path>) -> Value {
    let socket = socket.unwrap_or(Path::new(ESCAPE_SOCKET));
    json!({
        "@type": CLUSTER,
        "name": ESCAPE,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": load_assignment(ESCAPE, &json!({ "address": { "pipe": { "path": socket } } })),
        "circuit_breakers": circuit_breakers(),
    })
}

/// A cluster's one endpoint.
fn load_assignment(name: &str, endpoint: &Value) -> Value {
    json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": endpoint }] }] })
}

fn circuit_breakers() -> Value {
    json!({ "thresholds": [{
        "max_connections": CIRCUIT, "max_pending_requests": CIRCUIT, "max_requests": CIRCUIT,
        // Requests that wait for one connection all go to the escape when it fails.
        "max_retries": CIRCUIT,
    }] })
}

/// Resolves a name as long as its records say it lasts. IPv4 first: a host without IPv6 routes may still get AAAA.
fn dns() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_lookup_family": "V4_PREFERRED",
        "dns_refresh_rate": "30s",
        "respect_dns_ttl": true,
        // A name that was not found is asked for again soon.
        "dns_failure_refresh_rate": { "base_interval": "1s", "max_interval": "10s" },
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "query_timeout_seconds": DNS_TIMEOUT,
                "query_tries": DNS_TRIES,
            },
        },
    })
}

/// TLS towards `host` and nobody else. An address has no server name (RFC 6066 §3).
fn tls_context(host: &Host, ca_file: &Path) -> Value {
    let san_type = match host {
        Host::Name(_) => "DNS",
        Host::Address(_) => "IP_ADDRESS",
    };
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
            "validation_context": {
                "trusted_ca": { "filename": ca_file },
                "match_typed_subject_alt_names": [{ "san_type": san_type, "matcher": { "exact": host.to_string() } }],
            },
        },
    });
    if let Host::Name(name) = host {
        context["sni"] = name.as_str().into();
    }
    context
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::platform::Profile;

    const NAME: &str = "latchkey-anthropic";

    fn clusters_at(base_url: &str) -> Clusters {
        let text = include_str!("../../platforms/anthropic.toml")
            .replace("https://api.anthropic.com", base_url);
        let profile = Profile::from_table(text.parse().unwrap()).unwrap();
        let origin = &profile.upstream.url.origin;
        cluster(NAME, origin, &profile, &config::Envoy::default())
    }

    fn cluster_at(base_url: &str) -> Value {
        clusters_at(base_url)[&hosts_name(NAME)].clone()
    }

    fn address(cluster: &Value) -> &Value {
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        &endpoint["address"]["socket_address"]
    }

    #[test]
    fn idle_connections_are_closed_before_the_platform_does_it() {
        for (own, seconds) in [("", "50s"), ("idle_seconds = 4", "4s")] {
            let text = include_str!("../../platforms/anthropic.toml")
                .replace("[upstream]", &format!("[upstream]\n{own}"));
            let profile = Profile::from_table(text.parse().unwrap()).unwrap();
            let origin = &profile.upstream.url.origin;
            let clusters = cluster(NAME, origin, &profile, &config::Envoy::default());
            let options = &clusters[&hosts_name(NAME)]["typed_extension_protocol_options"];
            let common = &options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
            assert_eq!(
                common["common_http_protocol_options"]["idle_timeout"],
                seconds
            );
        }
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
    }

    /// The escape is a file, which is no host of a cluster whose hosts have names.
    #[test]
    fn every_platform_has_the_escape_behind_its_hosts_and_the_filter_before_both() {
        for url in ["https://api.test", "https://127.0.0.1:1", "http://[::1]:1"] {
            let clusters = clusters_at(url);
            let hosts = hosts_name(NAME);
            assert_eq!(clusters.len(), 3);
            let aggregate = &clusters[NAME];
            let parts = &aggregate["cluster_type"]["typed_config"]["clusters"];
            assert_eq!(*parts, json!([hosts, ESCAPE]));
            let options = &aggregate["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
            let names: Vec<_> = (0..2)
                .map(|n| &options["http_filters"][n]["name"])
                .collect();
            assert_eq!(
                names,
                ["latchkey.attempt", "envoy.filters.http.upstream_codec"]
            );
            for (name, is_file) in [(hosts.as_str(), false), (ESCAPE, true)] {
                let address = clusters[name].pointer(
                    "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/pipe/path",
                );
                assert_eq!(address.is_some(), is_file, "{name}");
                let options = clusters[name]["typed_extension_protocol_options"].to_string();
                assert!(!options.contains("http_filters"), "{name}");
            }
            let is_named = clusters[&hosts].get("cluster_type").is_some();
            assert_eq!(is_named, url.ends_with("test"));
        }
    }

    fn file_with(clusters: &[&str]) -> ClustersFile {
        let cluster = |name: &&str| {
            let (value, unused) = (json!({ "name": name }), None);
            ((*name).to_owned(), Cluster { value, unused })
        };
        ClustersFile {
            path: PathBuf::new(),
            catalog: Catalog::load(None, BTreeSet::new()).unwrap(),
            settings: config::Envoy::default(),
            written: String::new(),
            clusters: clusters.iter().map(cluster).collect(),
            is_read: true,
            is_settling: false,
            settled: watch::Sender::new(0),
        }
    }

    fn wanted(names: &[&str]) -> Clusters {
        let named = |name: &&str| ((*name).to_owned(), json!({ "name": name }));
        names.iter().map(named).collect()
    }

    #[test]
    fn a_cluster_that_leads_elsewhere_is_as_good_as_new() {
        let mut file = file_with(&["latchkey-codex"]);
        let elsewhere =
            Clusters::from([("latchkey-codex".to_owned(), json!({ "to": "elsewhere" }))]);
        let start = Instant::now();
        assert!(!file.take_in(wanted(&["latchkey-codex"]), start));
        assert!(file.take_in(elsewhere.clone(), start));
        assert!(!file.take_in(elsewhere, start));
    }

    #[test]
    fn a_cluster_is_new_once_and_leaves_after_its_last_account() {
        let mut file = file_with(&["latchkey-acc_OLD"]);
        let start = Instant::now();
        assert!(file.take_in(wanted(&["latchkey-codex"]), start));
        assert!(!file.take_in(wanted(&["latchkey-codex"]), start + LINGER / 2));
        let names = |file: &ClustersFile| file.clusters.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&file), ["latchkey-acc_OLD", "latchkey-codex"]);
        assert!(!file.take_in(wanted(&["latchkey-codex"]), start + LINGER));
        assert_eq!(names(&file), ["latchkey-codex"]);
        assert!(!file.take_in(wanted(&[]), start + LINGER));
        // It is used again before it left.
        assert!(!file.take_in(wanted(&["latchkey-codex"]), start + LINGER * 3 / 2));
        assert!(!file.take_in(wanted(&["latchkey-codex"]), start + LINGER * 9));
        assert_eq!(names(&file), ["latchkey-codex"]);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let clusters = wanted(&["latchkey-a", "latchkey-b"]);
        let written = discovery_response(clusters.values());
        let read: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(clusters_in(&read), clusters);
        assert!(clusters_in(&json!({ "resources": "no list" })).is_empty());
    }

    #[test]
    fn a_platform_that_is_off_has_no_cluster() {
        let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
        let keys =
            ["openai", "codex", "unknown"].map(|platform| (ClusterKey::of(platform, None), None));
        let found = clusters(keys, &catalog, &config::Envoy::default());
        let names = ["latchkey-openai", ESCAPE, "latchkey_hosts-openai"];
        assert_eq!(found.keys().collect::<Vec<_>>(), names);
    }

    /// Accounts share a cluster: what is held against a host or a cluster is held against all of them.
    #[test]
    fn nothing_in_a_cluster_judges_an_account_or_bounds_what_the_listener_lets_in() {
        for (name, cluster) in clusters_at("https://api.test") {
            for judge in ["outlier_detection", "health_checks"] {
                assert!(cluster.get(judge).is_none(), "{name}: {judge}");
            }
            let thresholds = cluster["circuit_breakers"]["thresholds"][0]
                .as_object()
                .unwrap();
            assert_eq!(thresholds.len(), 4, "{name}");
            assert!(
                thresholds
                    .values()
                    .all(|bound| bound.as_u64() >= Some(1_000_000))
            );
        }
    }
}
