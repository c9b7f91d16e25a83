//! Crashes of the VM on demand, for the end-to-end tests alone: what a bug of ours would do.

use crate::header::HeaderMap;

/// Crashes on a request with this header.
pub(super) fn on_headers(headers: &HeaderMap) {
    if headers.first("x-latchkey-crash").is_some() {
        std::process::abort();
    }
}

/// Crashes on this answer to a poll.
pub(super) fn on_call_answer(body: &[u8]) {
    if body == b"crash" {
        std::process::abort();
    }
}
