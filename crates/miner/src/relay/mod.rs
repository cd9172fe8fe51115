//! What the miner is for: it carries challenges, reports and tokens between validators and workers.
//!
//! [`poll`] fetches challenges and starts a [`flow`] for each, which carries one through both phases and writes its
//! progress into the [`logbook`] and its times into [`hops`]; [`heartbeat`] reports the workers and keeps in
//! [`told`] what validators say of them; [`token`] fetches enrolment tokens.

pub(crate) mod flow;
pub(crate) mod heartbeat;
pub(crate) mod hops;
pub(crate) mod logbook;
pub(crate) mod poll;
pub(crate) mod token;
pub(crate) mod told;
