//! Keeps credentials alive: decides when to renew, calls the token endpoint, and knows what an answer means.
//!
//! [`schedule`] is pure; [`engine`] drives it over two seams, the [`ledger`] (the store) and the token [`endpoint`]. How a
//! request looks on the wire is `oauth`'s.

pub mod endpoint;
pub mod engine;
pub mod ledger;
mod reports;
pub mod schedule;
