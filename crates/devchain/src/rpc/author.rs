//! `author_*`: submitting extrinsics and watching what becomes of them.

use std::sync::Arc;

use jsonrpsee::{
    PendingSubscriptionSink,
    core::{RegisterMethodError, SubscriptionError},
    types::{ErrorObjectOwned, Params},
};
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    Module,
    params::{Hash, Hex, message},
};
use crate::{extrinsic::Refusal, node::Node, pool::Status};

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("author_submitExtrinsic", |params, node, _| {
        let extrinsic: Hex = params.one()?;
        node.write().submit(extrinsic.0).map(Hash).map_err(ErrorObjectOwned::from)
    })?;
    module.register_method("author_pendingExtrinsics", |_, node, _| {
        node.read().pool().iter().map(|extrinsic| Hex(extrinsic.to_vec())).collect::<Vec<_>>()
    })?;
    module.register_subscription(
        "author_submitAndWatchExtrinsic",
        "author_extrinsicUpdate",
        "author_unwatchExtrinsic",
        |params, sink, node, _| submit_and_watch(params, sink, node),
    )?;
    Ok(())
}

async fn submit_and_watch(
    params: Params<'static>,
    sink: PendingSubscriptionSink,
    node: Arc<RwLock<Node>>,
) -> Result<(), SubscriptionError> {
    let mut statuses = match submit(params, node).await {
        Ok(statuses) => statuses,
        Err(refusal) => {
            sink.reject(refusal).await;
            return Ok(());
        }
    };
    let sink = sink.accept().await?;
    loop {
        tokio::select! {
            () = sink.closed() => return Ok(()),
            status = statuses.recv() => match status {
                Some(status) => sink.send(message(&status_json(status))?).await?,
                // The extrinsic left the pool: everything is said.
                None => return Ok(()),
            },
        }
    }
}

/// Checks the signature on a thread that may take its time.
async fn submit(params: Params<'static>, node: Arc<RwLock<Node>>) -> Result<mpsc::Receiver<Status>, ErrorObjectOwned> {
    let extrinsic: Hex = params.one()?;
    match tokio::task::spawn_blocking(move || node.write().submit_and_watch(extrinsic.0)).await {
        Ok(statuses) => Ok(statuses?),
        Err(_) => Err(jsonrpsee::types::ErrorCode::InternalError.into()),
    }
}

fn status_json(status: Status) -> Value {
    match status {
        Status::Future => json!("future"),
        Status::Ready => json!("ready"),
        Status::InBlock(hash) => json!({ "inBlock": Hash(hash) }),
        Status::Finalized(hash) => json!({ "finalized": Hash(hash) }),
        Status::Invalid => json!("invalid"),
    }
}

impl From<Refusal> for ErrorObjectOwned {
    /// The code and words of a real node: a short message, the reason as data.
    fn from(refusal: Refusal) -> Self {
        let (code, message) = match refusal {
            Refusal::BadFormat(_) => (1001, "Extrinsic has invalid format"),
            Refusal::BadSignature | Refusal::Stale | Refusal::AncientBirthBlock | Refusal::Custom(_) => {
                (1010, "Invalid Transaction")
            }
            Refusal::CannotLookup => (1011, "Unknown Transaction Validity"),
            Refusal::AlreadyImported => (1013, "Transaction Already Imported"),
            Refusal::TooLowPriority => (1014, "Priority is too low"),
            Refusal::PoolFull => (1016, "Immediately Dropped"),
        };
        Self::owned(code, message, Some(refusal.to_string()))
    }
}
