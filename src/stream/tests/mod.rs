//! Scenarios: what a caller and a platform send, step by step, and what becomes of it.

mod answers;
mod beginnings;
mod blame;
mod budget;
mod calls;
mod coded;
mod cost;
mod envoy;
mod exact;
mod failover;
mod gate;
mod homes;
mod interrupted;
mod maps;
mod pairs;
mod translated;
mod waits;
mod withdrawal;
mod wrapped;

use super::Vm;
