//! One caller takes no account from another.
