//! A challenge in the worker: [`run`] computes and commits, [`cache`] keeps what was committed to, [`prove`] opens it, [`record`]
//! tells people what became of it.

pub mod cache;
pub mod prove;
pub mod record;
pub mod run;
