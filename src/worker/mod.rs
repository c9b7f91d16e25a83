//! One worker: what the contexts of a VM share between requests.

pub mod places;
