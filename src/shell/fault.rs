//! Crashes of the VM on demand, for the end-to-end tests alone: what a bug of ours would do, or a changed dependency.

use proxy_wasm::hostcalls;

use crate::header::HeaderMap;

/// Crashes on a request with this header. With the other one, makes a call that the filter has no use for; where Envoy
/// refuses that, the SDK panics.
pub(super) fn on_headers(headers: &HeaderMap) {
    if headers.first("x-latchkey-crash").is_some() {
        std::process::abort();
    }
    if headers.first("x-latchkey-reach").is_some() {
        let _ = hostcalls::register_shared_queue("reach");
    }
}

/// Crashes on this answer to a poll.
pub(super) fn on_call_answer(body: &[u8]) {
    if body == b"crash" {
        std::process::abort();
    }
}
