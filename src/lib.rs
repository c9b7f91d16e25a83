#![doc = include_str!("../ARCHITECTURE.md")]
//!
//! # This crate
//!
//! Everything but `shell` is host-free: it names no proxy-wasm, no clock and no random
//! source, and is compiled natively for tests, benches and the refresher, which shares the
//! [`snapshot`] types. `shell` connects it to Envoy and is built for wasm alone.
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::unreachable,
        clippy::arithmetic_side_effects,
        clippy::string_slice
    )
)]

/// The version of the filter.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod attempt;
pub mod budget;
mod deadline;
pub mod decode;
pub mod dialect;
pub mod gate;
pub mod hash;
pub mod header;
pub mod health;
mod hex;
pub mod home;
pub mod host;
pub mod id;
pub mod known;
pub mod label;
pub mod limit;
pub mod meter;
mod newtype;
pub mod request;
pub mod secret;
#[cfg(target_arch = "wasm32")]
mod shell;
pub mod snapshot;
pub mod stream;
pub mod sync;
pub mod text;
pub mod verdict;
pub mod worker;

#[cfg(test)]
mod house;
