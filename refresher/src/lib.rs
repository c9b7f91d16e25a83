//! The refresher: logs LLM accounts in, keeps their credentials fresh and sealed, and publishes them to Envoy.
//!
//! Read top-down: `cli` parses and prints, `serve` runs the daemon, `listen` takes connections, `sync` answers Envoy,
//! `envoy` writes its clusters, `refresh` and `oauth` talk to token endpoints, `pending_logins` waits for people. Below
//! them `store` keeps everything, [`platform`] says what a platform is, [`seal`] and [`key_source`] guard what is kept.

pub mod cli;
pub mod config;
pub mod credential;
pub mod envoy;
pub mod id;
pub mod import;
pub mod kernel_keyring;
pub mod key_file;
pub mod key_source;
pub mod limits;
pub mod listen;
pub mod log;
pub mod lost;
pub mod metrics;
pub mod oauth;
pub mod pending_logins;
pub mod platform;
pub mod refresh;
pub mod seal;
pub mod serve;
pub mod state;
pub mod store;
pub mod sync;
