//! Connects the pure modules to Envoy: the only place that names proxy-wasm.
//!
//! It holds no decision of its own. One [`vm::Vm`] serves every context of a worker: Envoy runs a
//! VM's callbacks one at a time, on one thread.

mod attempt;
mod config;
mod envoy;
#[cfg(feature = "fault-injection")]
mod fault;
mod gate;
mod held;
mod root;
mod sent;
mod stats;
mod vm;

use proxy_wasm::{traits::RootContext, types::LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| -> Box<dyn RootContext> { Box::new(root::Root::new(id)) });
}}
