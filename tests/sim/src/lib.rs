//! The simulated platform: what the demo and the end-to-end tests log in to and send LLM requests to.
//!
//! One TLS port plays the OAuth servers of Codex and Claude Code and the upstreams of Codex, OpenAI and Anthropic;
//! it answers as the real ones do, is strict about what it takes (see [`headers`]), and records what
//! it gets. It has a web site at which a person logs in, and the first version of Baidu's chat. It also plays every other platform that we ship, as far as the
//! form of a request goes. One plain port is the [`control`] API, with which a test adds users and keys,
//! orders faults and reads the records; another, where it is wanted, has the pages that a person opens
//! in a browser that does not know the platform's certificate authority. It does not check tool calls, models or prices.
//!
//! [`simulation`] is the whole behaviour as a state machine without IO; [`server`], [`tls`] and
//! [`control`] are the shell around it.

pub mod answer;
mod baidu;
mod claude;
pub mod clock;
mod code_assist;
pub mod control;
mod deployment;
mod documented;
pub mod faults;
pub mod fixtures;
pub mod headers;
pub mod kept;
pub mod oauth;
pub mod platform;
pub mod profiles;
pub mod record;
pub mod server;
mod signed;
pub mod simulation;
pub mod stats;
pub mod things;
pub mod tls;
pub mod token_endpoint;
pub mod upstream;
mod web;
