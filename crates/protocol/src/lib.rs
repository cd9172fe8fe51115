//! Every message on every wire.
