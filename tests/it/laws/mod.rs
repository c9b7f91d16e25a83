//! The laws of safety (SECURITY.md), each tried by its attacks on the shipped configuration. One module a law.

/// The platform gets exactly the caller's bytes, or nothing.
mod bytes;

/// One caller takes no account from another.
mod blame;

/// One caller takes no memory, connection or upload from another.
mod budget;

/// A thing that is taken away is out of use in two seconds, whatever else is wrong.
mod withdrawal;

/// Only the owner decides where a credential goes.
mod owner;

/// Only an answer is an answer.
mod answers;

/// Nothing spins.
mod spinning;

/// What exists in one account alone goes back to that account.
mod homes;
