//! The platform gets exactly the caller's bytes, or nothing.
