//! Replays the kept inputs of every decoder, so that what was once found stays mended.

#![cfg(test)]

mod corpus;
