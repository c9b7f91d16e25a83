//! OAuth on the wire: the calls to a platform's endpoints, and what their answers say. When to call, and what a refusal
//! means for the account, is `refresh`'s; what a person does in a login is `login`'s.

pub mod answer;
pub mod api_key;
mod broken;
pub mod claims;
pub mod exchange;
pub mod http;
pub mod refresh;
pub mod revoke;
pub mod roots;
pub mod signed;

#[cfg(test)]
mod tests;
