//! OAuth on the wire: the authorization request, the loopback callback, and the calls to a platform's token endpoint.
//! When to call, and what a refusal means for the account, is `refresh`'s.

pub mod claims;
