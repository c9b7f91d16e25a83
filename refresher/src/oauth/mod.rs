//! OAuth on the wire: the authorization request, the loopback callback, and the calls to a platform's endpoints.
//! When to call, and what a refusal means for the account, is `refresh`'s.

pub mod api_key;
pub mod authorize;
pub mod callback;
pub mod claims;
pub mod exchange;
pub mod http;
pub mod redirect;
pub mod refresh;
pub mod revoke;

#[cfg(test)]
mod tests;
