//! The downstream filter's context: carries out the gate's decisions.

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext},
    types::{Action, MapType},
};

use super::{envoy, vm};
use crate::{
    attempt::{REDIRECT_STATUS, STATUS_HEADER},
    dialect::{Dialect, Refusal},
    gate::{CLUSTER_HEADER, Decision, Forward},
};

/// The header that Envoy itself sets on a request that it runs again.
const RUN_AGAIN_HEADER: &str = "x-envoy-original-url";

/// One pass of one request at the gate.
#[derive(Debug)]
pub(super) struct GateContext {
    id: u32,
}

impl Context for GateContext {}

impl HttpContext for GateContext {
    fn on_http_request_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        match carry_out(self.id) {
            Done::SentOn => Action::Continue,
            // Envoy keeps the body too: the gate's plugin does not set allow_on_headers_stop_iteration.
            Done::Answered | Done::Waits => Action::Pause,
        }
    }

    /// Puts an answer right that was to become a redirect and could not: the request's body was
    /// too large to be kept for a second pass.
    fn on_http_response_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        let Some(status) = envoy::response_header(STATUS_HEADER) else {
            return Action::Continue;
        };
        envoy::set_response_header(STATUS_HEADER, None);
        // A platform may send such a header too, but its redirects never get here.
        if envoy::response_header(":status").as_deref() == Some(REDIRECT_STATUS.as_bytes()) {
            envoy::set_response_header(":status", Some(&status));
            envoy::set_response_header("location", None);
        }
        Action::Continue
    }
}

impl Drop for GateContext {
    fn drop(&mut self) {
        vm::with(|vm| vm.forget(self.id));
    }
}

// === impl GateContext ===

impl GateContext {
    /// The context that Envoy calls by this number.
    pub(super) fn new(id: u32) -> Self {
        Self { id }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Done {
    SentOn,
    Answered,
    Waits,
}

/// Decides about the request of the effective context, and does what was decided.
fn carry_out(id: u32) -> Done {
    let headers = envoy::request_headers();
    #[cfg(feature = "fault-injection")]
    super::fault::on_request(&headers);
    let passed = headers
        .first(RUN_AGAIN_HEADER)
        .and_then(|_| envoy::passage());
    let decision = vm::with(|vm| vm.decide(id, &headers, passed.as_ref()))
        .unwrap_or_else(|| Decision::Reply(Refusal::NotReady.reply(Dialect::Chat)));
    match decision {
        Decision::Forward(forward) => {
            send_on(&forward);
            Done::SentOn
        }
        Decision::Reply(reply) => {
            envoy::send(&reply);
            Done::Answered
        }
        Decision::Wait => Done::Waits,
    }
}

fn send_on(forward: &Forward) {
    for name in &forward.strip {
        let _ = hostcalls::remove_map_value(MapType::HttpRequestHeaders, name);
    }
    envoy::set_passage(&forward.passage);
    let cluster = Some(forward.account.cluster.as_str());
    let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, CLUSTER_HEADER, cluster);
}

/// Decides anew about the requests that wait; called by the root context `root`.
pub(super) fn look_at_waiting(root: u32) {
    let waiting = vm::with(vm::Vm::waiting).unwrap_or_default();
    if waiting.is_empty() {
        return;
    }
    for id in waiting {
        // A request whose caller has gone has no context any more.
        if hostcalls::set_effective_context(id).is_ok() && carry_out(id) == Done::SentOn {
            let _ = hostcalls::resume_http_request();
        }
    }
    let _ = hostcalls::set_effective_context(root);
}
