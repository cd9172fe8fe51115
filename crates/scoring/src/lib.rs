//! Facts in, scores and weights out: what every miner of the subnet earns, and why.
//!
//! [`score`] is one pure function over plain data. It knows no SQL, no clock and no network: whoever calls it gathers
//! the [`Facts`] of one instant and states the [`Rules`]; the same facts under the same rules give the same [`Round`],
//! bit for bit and in whatever order they were gathered, so that a stored round can be replayed and explained.
//!
//! The modules follow the data:
//! [`rules`] (which profile, which windows) and [`facts`] (challenges, presence, leases) come in;
//! [`presence`] turns five-minute buckets into availability;
//! [`measure`] counts all of it, whatever the profile; of a stored round it is had again, and from here on a replay goes;
//! [`performance`] turns challenges into one number per worker;
//! [`lease`] turns leases into one number per miner;
//! [`round`] puts them together into weights; [`reason`] names why a number is zero,
//! and [`raise`] what would raise a weight.
//!
//! It does not turn weights into the chain's 16-bit values (that is `byteleap-chain`), nor decide when to submit them.
//! Formulas: validator spec, chapter 5.

#![forbid(unsafe_code)]

pub mod facts;
pub mod lease;
pub mod measure;
pub mod performance;
pub mod presence;
pub mod raise;
pub mod reason;
pub mod round;
pub mod rules;

pub use facts::Facts;
pub use measure::{Measures, measure};
pub use raise::{Raise, Remedy, raises};
pub use round::{MinerScore, Outcome, Round, WorkerScore, score, weigh};
pub use rules::{Profile, ProfileName, Rules};

/// How many workers of one miner count, for leases and for challenges alike (validator spec 5.1).
pub const WORKER_CAP: usize = 100;
