//! The clusters that the fake refresher gives Envoy.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// The cluster of an account.
pub fn name(account: &str) -> String {
    format!("latchkey-{account}")
}

/// Writes `clusters.json` into `folder` and moves it into place: one cluster for each account, all of them leading to
/// the TLS port at 127.0.0.1.
pub fn write<'a>(
    folder: &Path,
    accounts: impl IntoIterator<Item = &'a str>,
    port: u16,
    ca_file: &Path,
    wasm: &Path,
) {
    let resources: Vec<Value> = accounts
        .into_iter()
        .map(|account| cluster(account, port, ca_file, wasm))
        .collect();
    let (new, place) = (folder.join("clusters.new"), folder.join("clusters.json"));
    fs::write(&new, json!({"resources": resources}).to_string()).expect("written");
    fs::rename(new, place).expect("moved");
}

fn cluster(account: &str, port: u16, ca_file: &Path, wasm: &Path) -> Value {
    let name = name(account);
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": "127.0.0.1", "port_value": port}
            }}}]}],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"validation_context": {"trusted_ca": {"filename": ca_file}}},
            },
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": [
                    {"name": "latchkey.attempt", "typed_config": attempt(wasm)},
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

/// The filter as the attempt, in the same VM as the gate of the shipped configuration.
fn attempt(wasm: &Path) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {
            "name": "latchkey.attempt",
            "root_id": "attempt",
            "vm_config": {
                "vm_id": "latchkey",
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": wasm}},
            },
            "failure_policy": "FAIL_RELOAD",
            "reload_config": {"backoff": {"base_interval": "0.010s"}},
            "allow_on_headers_stop_iteration": true,
        },
    })
}
