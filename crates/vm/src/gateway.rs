//! The worker's side of a VM gateway: when to enrol, connect, renew and wait (vm-and-gpu-host spec 1.2, 1.7 and 1.11).
//!
//! [`Machine`] decides and does nothing itself: an [`Event`] and a [`Moment`] go in, the next machine and the [`Action`]s
//! to carry out come out. The messages that the actions speak of are `byteleap_protocol::gateway`'s.

mod backoff;
mod machine;
mod validity;

pub use machine::{Action, Event, Loss, Machine, Moment, Renewal, State};
pub use validity::Validity;
