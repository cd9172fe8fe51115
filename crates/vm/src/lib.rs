//! Tenants' virtual machines: what a worker and its VM gateway settle before a machine is touched.
//!
//! It holds the decisions, complete in themselves, and does not run them: nothing here opens a socket or speaks to a
//! hypervisor, and no daemon uses it yet, so `vmgw.enable` has no effect. The messages themselves are
//! `byteleap_protocol::gateway`'s.
//!
//! The modules follow a lease. [`gateway`] decides when to ask for a token, enrol, connect, renew and wait;
//! [`state_file`] keeps the credentials that an enrolment yields, in the file that the deployed Python worker reads and
//! writes; [`request`] turns what a gateway asks for into a machine that is safe to make, or into the reason why not.
#![forbid(unsafe_code)]

pub mod gateway;
pub mod request;
pub mod state_file;
mod timestamp;
