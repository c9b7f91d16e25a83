//! The filter in its upstream role, and what Envoy allows it.
//!
//! `vm_config` and the capabilities must be the same as in envoy/envoy.yaml: gate and attempt share what a VM remembers only
//! within one VM, and Envoy 1.40 makes another one for other capabilities. (1.39 takes those of whichever came first.)

use serde_json::{Value, json};

use crate::config;

/// The hostcalls that the filter makes, one a line.
const CALLS: &str = include_str!("../../../../tools/wasm-exports/imports.txt");
/// The filter's exports, the callbacks that Envoy may call among them.
const EXPORTS: &str = include_str!("../../../../tools/wasm-exports/keep.txt");
/// The beginning of a callback's name. Envoy asks nobody about exports of other names.
const CALLBACK: &str = "proxy_on_";

/// The capabilities of the filter: the calls that it makes and the callbacks that it has.
pub fn capabilities() -> impl Iterator<Item = &'static str> {
    names(CALLS).chain(names(EXPORTS).filter(|name| name.starts_with(CALLBACK)))
}

fn names(list: &'static str) -> impl Iterator<Item = &'static str> {
    let names = list.lines().map(str::trim);
    names.filter(|name| !name.is_empty() && !name.starts_with('#'))
}

/// The attempt.
pub fn filter(settings: &config::Envoy) -> Value {
    let allowed = capabilities().map(|name| (name.to_owned(), json!({})));
    let restriction = json!({ "allowed_capabilities": allowed.collect::<serde_json::Map<_, _>>() });
    let mut plugin = json!({
        "name": "latchkey.attempt",
        "root_id": "attempt",
        "vm_config": {
            "vm_id": "latchkey",
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "local": { "filename": settings.wasm() } },
        },
        "failure_policy": "FAIL_RELOAD",
        "reload_config": { "backoff": { "base_interval": "0.010s" } },
        "allow_on_headers_stop_iteration": true,
        "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "{}" },
    });
    let restricted = match settings.version.restricts_vms() {
        true => &mut plugin["vm_config"],
        false => &mut plugin,
    };
    restricted["capability_restriction_config"] = restriction;
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": plugin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_may_do_what_it_does_and_no_more() {
        let all: Vec<_> = capabilities().collect();
        assert!(all.contains(&"proxy_http_call") && all.contains(&"proxy_on_request_headers"));
        for never in ["proxy_done", "proxy_grpc_call", "malloc", "fd_write"] {
            assert!(!all.contains(&never), "{never}");
        }
    }

    #[test]
    fn each_envoy_reads_what_the_filter_may_do_where_it_looks_for_it() {
        let of = |version: &str| {
            let version = version.to_owned().try_into().unwrap();
            let filter = filter(&config::Envoy {
                version,
                ..config::Envoy::default()
            });
            let place = |path: &str| {
                filter
                    .pointer(&format!("/config{path}/capability_restriction_config"))
                    .cloned()
            };
            (place("/vm_config"), place(""))
        };
        let (vm, plugin) = of("1.40");
        assert!(vm.is_some() && plugin.is_none());
        assert_eq!(of("1.39.3"), (None, vm));
    }
}
