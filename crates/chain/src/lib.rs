//! The chain as the daemons see it.
