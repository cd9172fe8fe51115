//! Who lies earns nothing and is told why: a lying worker behind the real miner, and a lying miner before the real
//! validator, each through the real wires.
//!
//! Every lie has a worker of its own that is named after it, so that a log, a table and an explanation say by themselves
//! which lie they speak of. An honest worker beside them shows that the catch is no accident. How often partial work is
//! caught when few rows are drawn is the validator's own test; here every row is opened.

mod client;
mod gpus;
mod miner;
mod session;
mod token;
mod work;
mod worker;
mod world;
