//! Connects the filter to Envoy: the only place that names proxy-wasm.
//!
//! It holds no decision of its own: each callback becomes an event of [`crate::stream`], each
//! call of a [`Host`](crate::host::Host) or [`Stream`](crate::host::Stream) a hostcall.

mod contexts;
mod envoy;
#[cfg(feature = "fault-injection")]
mod fault;

use proxy_wasm::{traits::RootContext, types::LogLevel};

use self::{contexts::Root, envoy::Envoy};
use crate::stream::Turns;

thread_local! {
    /// The VM: Envoy runs each one's callbacks on one thread.
    static VM: Turns<Envoy> = Turns::new(Envoy);
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| -> Box<dyn RootContext> { Box::new(Root::new(id)) });
}}
