//! Nothing spins.
