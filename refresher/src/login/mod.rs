//! Ways in: how a person, or the credential file of another program, makes an account.

pub mod callback;
pub mod code;
pub mod import_codex;
pub mod pasted;
pub mod pending;
pub mod redirect;
