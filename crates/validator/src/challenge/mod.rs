//! A challenge from the first row in the database to its verdict.

pub mod state;
