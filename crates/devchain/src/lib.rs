//! The development chain.
