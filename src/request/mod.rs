//! A request: what its head and its body say, what is carried from try to try, and what is
//! recorded of it in the end.

pub mod body;
pub mod carried;
mod digits;
pub mod form;
mod head;
mod lacks;
pub mod opening;
pub mod peek;
pub mod record;
pub mod session;
pub mod things;

#[cfg(test)]
pub(crate) use self::head::PROXY_KEY_HEADER;
pub(crate) use self::head::{CODING_HEADER, Head, KEY_HEADERS, OWN_KEY_HEADER, stripped};
pub use self::{
    head::{ACCOUNT_HEADER, POOL_HEADER, split_target},
    lacks::Lacks,
};

/// The deepest that values of a body may be nested. No platform reads so deep, so no more of such a body is read.
const MAX_DEPTH: u32 = 1024;
