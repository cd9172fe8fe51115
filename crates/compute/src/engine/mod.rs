//! What multiplies on GPUs, behind one trait: the vendor's compute server, whose client lives in the worker since it needs a
//! socket, and [`software`], which computes on the processor for tests and local networks.
//!
//! Calls block until they are done, as a CUDA engine's would, whose place this trait is: the caller keeps them off its runtime. An
//! engine says which GPUs it has, computes one challenge on all of them, and later shows numbers of that result. It keeps no
//! secret from the worker but its signing key: commitments carry their signature when they leave it.

pub mod software;

use std::fmt::Debug;
use std::sync::atomic::AtomicBool;

use byteleap_protocol::Object;
use byteleap_protocol::half::Half;
use byteleap_protocol::id::{GpuUuid, RowHash};
use byteleap_protocol::payload::Commitment;

use crate::gpu::GpuChallenge;

/// One GPU as its engine describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its name on every wire.
    pub uuid: GpuUuid,
    /// All that is known of it, `uuid` and `name` included: what a worker reports in `gpu_plugin`, unchanged (worker-miner spec
    /// 5.3).
    pub details: Object,
}

/// One GPU's result, committed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The GPU, the root over its row hashes, and the signature.
    pub commitment: Commitment,
    /// The leaves of the commitment, in row order.
    pub row_hashes: Vec<RowHash>,
}

/// Why an engine did not do what it was asked for; the text is what the worker reports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Nothing computes at present.
    #[error("no GPU engine: {0}")]
    Unavailable(String),
    /// The engine is there and refuses, or answers with something that cannot be used.
    #[error("the GPU engine failed: {0}")]
    Failed(String),
    /// The result is gone, or another one has taken its place.
    #[error("the GPU engine no longer has this result")]
    Gone,
    /// The work was no longer wanted.
    #[error("the computation was cancelled")]
    Cancelled,
}

/// Computes challenges on the GPUs of this machine. Every call blocks; calls may come from several threads.
pub trait GpuEngine: Debug + Send + Sync {
    /// The engine's name in configuration and logs.
    fn name(&self) -> &'static str;

    /// The GPUs that compute, looked up anew.
    ///
    /// # Errors
    /// [`EngineError`].
    fn devices(&self) -> Result<Vec<Device>, EngineError>;

    /// Computes a challenge on every GPU. The numbers of former results may be gone afterwards.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::Cancelled`] within a second after `is_cancelled` is set.
    fn submit(&self, challenge: &GpuChallenge, is_cancelled: &AtomicBool) -> Result<Vec<Committed>, EngineError>;

    /// Shows numbers of a result: one per coordinate, then every row in full, each in the order asked for. All of `rows` and
    /// `coordinates` lie below n.
    ///
    /// # Errors
    /// [`EngineError`].
    fn open(
        &self,
        challenge: &GpuChallenge,
        gpu: &GpuUuid,
        rows: &[u32],
        coordinates: &[(u32, u32)],
    ) -> Result<Vec<Half>, EngineError>;

    /// Lets go of what a GPU holds for [`Self::open`].
    ///
    /// # Errors
    /// [`EngineError`].
    fn release(&self, gpu: &GpuUuid) -> Result<(), EngineError>;
}
