//! The refresher: logs LLM accounts in, keeps their credentials fresh and sealed, and publishes them to Envoy.
//!
//! Read top-down: `cli` parses and prints, `serve` runs the daemon's `tasks`, `app` is what both can do, `envoy`
//! answers Envoy and writes its clusters, `login` makes accounts, `refresh` keeps their credentials alive, `oauth`
//! talks to token endpoints. Below them `store` keeps everything, [`platform`] says what a platform is, [`keys`] guards
//! what is kept. `fault` says what went wrong, `advice` what to do about it.

mod address;
mod advice;
mod app;
pub mod base_url;
pub mod browser;
pub mod cli;
pub mod clock;
mod cluster;
pub mod config;
pub mod credential;
mod day;
pub mod egress;
mod ends;
pub mod envoy;
mod failing;
mod fault;
mod files;
mod guarded;
#[cfg(test)]
mod house;
pub mod id;
pub mod keys;
mod limits;
pub mod listen;
pub mod log;
mod login;
pub mod metrics;
pub mod oauth;
mod os_error;
pub mod platform;
mod probe;
mod prober;
pub mod progress;
mod quotas;
pub mod refresh;
mod serve;
mod standing;
pub mod state;
pub mod store;
mod tasks;
mod toml_place;
mod variable;
