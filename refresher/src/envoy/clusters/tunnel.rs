//! Hosts that are reached by a proxy and in no other way.
//!
//! TLS to the platform goes into a connection within Envoy, to the internal listener `latchkey_egress` (envoy/envoy.yaml).
//! That has the proxy make a tunnel to the host, and finds in the endpoint's metadata by which cluster the proxy is
//! reached, where the tunnel leads, and how the proxy is asked for it. The platform's own address is nowhere in these
//! clusters but in what the proxy is told: where there is no proxy, no listener or no tunnel, there is no connection.
//!
//! Envoy's `http_11_proxy` transport socket would need no listener. Up to 1.40 it has no credentials for the proxy, takes
//! the proxy's address and not its name, and cannot speak TLS to it.

use serde_json::{Value, json};

use super::{
    CLUSTER, circuit_breakers, connected_to, http_1, idle_timeout, load_assignment, tls_socket,
    tls_to,
};
use crate::base_url::{Host, Origin};
use crate::config;
use crate::egress::Proxy;
use crate::platform::Profile;

/// The listener that makes tunnels, and the name of the metadata in which it is told of them.
const LISTENER: &str = "latchkey_egress";
const METADATA: &str = "latchkey.egress";

/// The time for the proxy's connection, the tunnel and TLS in it: two ways more than without a proxy.
const CONNECT_TIMEOUT: &str = "10s";

/// Closes a proxy's idle connection. A tunnel has its connection for itself, and leaves none idle.
const IDLE: &str = "60s";

/// The hosts of an origin, behind the proxy that the cluster `through` leads to.
pub(super) fn hosts_behind(
    name: &str,
    through: &str,
    proxy: &Proxy,
    origin: &Origin,
    profile: &Profile,
    settings: &config::Envoy,
) -> Value {
    let Origin { host, port, .. } = origin;
    let to = match host {
        Host::Address(address) if address.is_ipv6() => format!("[{address}]:{port}"),
        host => format!("{host}:{port}"),
    };
    let mut told = json!({ "cluster": through, "to": to });
    if let Some(authorization) = proxy.authorization() {
        told["authorization"] = authorization.as_str().into();
    }
    let inner = json!({ "envoy_internal_address": { "server_listener_name": LISTENER, "endpoint_id": name } });
    let mut assignment = load_assignment(name, &json!({ "address": inner }));
    assignment["endpoints"][0]["lb_endpoints"][0]["metadata"] =
        json!({ "filter_metadata": { METADATA: told } });
    let raw = || {
        json!({
            "name": "envoy.transport_sockets.raw_buffer",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
            },
        })
    };
    json!({
        "@type": CLUSTER,
        "name": name,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": assignment,
        "circuit_breakers": circuit_breakers(),
        "typed_extension_protocol_options": http_1(&idle_timeout(profile)),
        "transport_socket": {
            "name": "envoy.transport_sockets.internal_upstream",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
                "passthrough_metadata": [{ "kind": { "host": {} }, "name": METADATA }],
                "transport_socket": tls_to(origin, profile, settings).unwrap_or_else(raw),
            },
        },
    })
}

/// The proxy itself.
pub(super) fn proxy(name: &str, proxy: &Proxy, settings: &config::Envoy) -> Value {
    let mut cluster = connected_to(name, &proxy.host, proxy.port, CONNECT_TIMEOUT, IDLE);
    if proxy.tls {
        cluster["transport_socket"] = tls_socket(&proxy.host, &settings.trusted_ca);
    }
    cluster
}

#[cfg(test)]
mod tests {
    use super::super::{Clusters, ESCAPE, clusters, hosts_name};
    use super::*;
    use crate::cluster::ClusterKey;
    use crate::id::AccountId;
    use crate::platform::Catalog;

    const TLS: &str = "/transport_socket/typed_config/transport_socket/typed_config";
    const TOLD: &str =
        "/load_assignment/endpoints/0/lb_endpoints/0/metadata/filter_metadata/latchkey.egress";

    fn clusters_by(proxy: &str) -> (String, Clusters) {
        let catalog = Catalog::load(None, Default::default()).unwrap();
        let proxy = Proxy::parse(proxy, None).unwrap();
        let key = ClusterKey::of("openai", None).alone(Some(AccountId::random()));
        let name = key.name();
        let keys = [(ClusterKey::of("openai", None), None), (key, Some(proxy))];
        (name, clusters(keys, &catalog, &config::Envoy::default()))
    }

    #[test]
    fn an_account_with_a_proxy_has_no_way_around_it() {
        let (name, clusters) = clusters_by("http://user:secret@proxy.test:3128");
        assert_eq!(clusters.len(), 6, "{:?}", clusters.keys());
        let hosts = &clusters[&hosts_name(&name)];
        let text = hosts.to_string();
        assert!(!text.contains("socket_address"), "{text}");
        let told = hosts.pointer(TOLD).unwrap();
        let through = told["cluster"].as_str().unwrap();
        assert_eq!(told["to"], "api.openai.com:443");
        assert_eq!(told["authorization"], "Basic dXNlcjpzZWNyZXQ=");
        assert_eq!(hosts.pointer(TLS).unwrap()["sni"], "api.openai.com");
        let proxy = clusters[through].to_string();
        assert!(
            proxy.contains("proxy.test") && !proxy.contains("openai.com"),
            "{proxy}"
        );
        let parts = &clusters[&name]["cluster_type"]["typed_config"]["clusters"];
        assert_eq!(*parts, json!([hosts_name(&name), ESCAPE]));
        // The others of its platform know nothing of it.
        let others = clusters[&hosts_name("latchkey-openai")].to_string();
        assert!(
            !others.contains("proxy.test") && !others.contains(LISTENER),
            "{others}"
        );
    }

    #[test]
    fn a_proxy_over_tls_is_verified_and_one_without_a_user_is_told_of_none() {
        let (name, clusters) = clusters_by("https://proxy.test");
        let told = clusters[&hosts_name(&name)].pointer(TOLD).unwrap();
        assert!(told.get("authorization").is_none());
        let proxy = &clusters[told["cluster"].as_str().unwrap()];
        let tls = &proxy["transport_socket"]["typed_config"];
        assert_eq!(tls["sni"], "proxy.test");
        assert!(tls.to_string().contains("match_typed_subject_alt_names"));
    }

    #[test]
    fn all_accounts_of_a_platform_that_has_a_proxy_leave_by_it() {
        let profile = include_str!("../../../platforms/anthropic.toml")
            .replace("[upstream]", "[upstream]\nproxy = 'http://proxy.test:3128'");
        let profile = Profile::from_table(profile.parse().unwrap()).unwrap();
        let origin = &profile.upstream.url.origin;
        let clusters =
            super::super::cluster("latchkey-a", origin, &profile, &config::Envoy::default());
        let hosts = &clusters["latchkey_hosts-a"];
        assert_eq!(hosts.pointer(TOLD).unwrap()["cluster"], "latchkey_proxy-a");
        assert!(clusters.contains_key("latchkey_proxy-a"));
        let refused = include_str!("../../../platforms/anthropic.toml")
            .replace("[upstream]", "[upstream]\nproxy = 'socks5://proxy.test'");
        let refused = Profile::from_table(refused.parse().unwrap()).unwrap_err();
        assert_eq!(refused.key, "upstream.proxy");
    }
}
