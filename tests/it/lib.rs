//! Empty: this package is its one test binary, `main.rs`, and Cargo wants a library beside it.
