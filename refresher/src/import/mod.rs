//! Reads logins that other programs made, so that nobody has to log in twice. Nothing here stores anything.

pub mod codex;
