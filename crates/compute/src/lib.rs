//! The arithmetic of challenges.
