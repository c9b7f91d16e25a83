//! The downstream filter's context: carries out the gate's decision.

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext},
    types::{Action, MapType},
};

use super::{envoy, vm};
use crate::{
    dialect::{Dialect, Refusal},
    gate::{CLUSTER_HEADER, Decision, Forward},
};

/// One request at the gate.
#[derive(Debug)]
pub(super) struct GateContext;

impl Context for GateContext {}

impl HttpContext for GateContext {
    fn on_http_request_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        let headers = envoy::request_headers();
        let decision = vm::with(|vm| vm.decide(&headers))
            .unwrap_or_else(|| Decision::Reply(Refusal::NotReady.reply(Dialect::Chat)));
        match decision {
            Decision::Forward(forward) => forward_to(&forward),
            Decision::Reply(reply) => {
                envoy::send(&reply);
                return Action::Pause;
            }
        }
        Action::Continue
    }
}

fn forward_to(forward: &Forward) {
    for name in &forward.strip {
        let _ = hostcalls::remove_map_value(MapType::HttpRequestHeaders, name);
    }
    envoy::set_account_property(forward.account.id.as_str());
    let cluster = Some(forward.account.cluster.as_str());
    let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, CLUSTER_HEADER, cluster);
}
