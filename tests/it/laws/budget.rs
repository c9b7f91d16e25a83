//! One caller takes no memory, connection or upload from another.
