//! What every long-running process needs once.
