//! The refresher: logs LLM accounts in, keeps their credentials fresh and sealed, and publishes them to Envoy.
//!
//! Read top-down: `cli` parses and prints, `serve` runs the daemon's `tasks`, `app` is what both can do, `envoy`
//! answers Envoy and writes its clusters, `login` makes accounts, `refresh` keeps their credentials alive, `oauth`
//! talks to token endpoints. Below them `store` keeps everything, [`platform`] says what a platform is, [`keys`] guards
//! what is kept. `fault` says what went wrong, `advice` what to do about it.

pub mod address;
pub mod advice;
pub mod app;
pub mod base_url;
pub mod browser;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod credential;
pub mod day;
pub mod egress;
pub mod ends;
pub mod envoy;
pub mod failing;
pub mod fault;
pub mod files;
pub mod guarded;
#[cfg(test)]
mod house;
pub mod id;
pub mod keys;
pub mod limits;
pub mod listen;
pub mod log;
pub mod login;
pub mod metrics;
pub mod oauth;
pub mod os_error;
pub mod platform;
pub mod probe;
pub mod prober;
pub mod progress;
pub mod quotas;
pub mod refresh;
pub mod serve;
pub mod standing;
pub mod state;
pub mod store;
pub mod tasks;
pub mod toml_place;
pub mod variable;
