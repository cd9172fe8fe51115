//! `chain_*`: blocks by number and hash, and the streams of new heads. Unless a test wants
//! it otherwise, every block is final at once, so that the head, the best and the finalised block are one.

use std::sync::Arc;

use jsonrpsee::{
    PendingSubscriptionSink,
    core::{RegisterMethodError, SubscriptionError},
    types::{ErrorObjectOwned, Params},
};
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Module,
    params::{BlockNumber, Hash, HeaderJson, Hex, message},
};
use crate::{block::Block, node::Node};

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    module.register_method("chain_getBlockHash", |params, node, _| {
        let number: Option<BlockNumber> = params.sequence().optional_next()?;
        let node = node.read();
        let hash = match number {
            None => Some(node.blocks().head().hash),
            Some(number) => number.get().and_then(|number| node.blocks().hash(number)),
        };
        Ok::<_, ErrorObjectOwned>(hash.map(Hash))
    })?;
    module.register_alias("chain_getHead", "chain_getBlockHash")?;
    module.register_method("chain_getFinalizedHead", |_, node, _| {
        Ok::<_, ErrorObjectOwned>(Hash(node.read().finalised().hash))
    })?;
    module.register_method("chain_getHeader", |params, node, _| {
        let node = node.read();
        Ok::<_, ErrorObjectOwned>(block(&node, &params)?.map(|block| HeaderJson::from(&block.header)))
    })?;
    module.register_method("chain_getBlock", |params, node, _| {
        let node = node.read();
        Ok::<_, ErrorObjectOwned>(block(&node, &params)?.map(signed_block))
    })?;

    type Follow = fn(&Node) -> watch::Receiver<u32>;
    for (subscribe, notification, unsubscribe, follow) in [
        ("chain_subscribeNewHeads", "chain_newHead", "chain_unsubscribeNewHeads", Node::follow as Follow),
        ("chain_subscribeAllHeads", "chain_allHead", "chain_unsubscribeAllHeads", Node::follow),
        (
            "chain_subscribeFinalizedHeads",
            "chain_finalizedHead",
            "chain_unsubscribeFinalizedHeads",
            Node::follow_finalised,
        ),
    ] {
        module.register_subscription(subscribe, notification, unsubscribe, move |_, sink, node, _| {
            let head = follow(&node.read());
            heads(sink, node, head)
        })?;
    }
    Ok(())
}

/// The block of the hash that is named, the head if none is; `None` if there is no such block.
fn block<'a>(node: &'a Node, params: &Params<'_>) -> Result<Option<&'a Block>, ErrorObjectOwned> {
    let hash: Option<Hash> = params.sequence().optional_next()?;
    Ok(match hash {
        None => Some(node.blocks().head()),
        Some(Hash(hash)) => node.blocks().by_hash(&hash),
    })
}

fn signed_block(block: &Block) -> Value {
    let extrinsics: Vec<Hex> = block.extrinsics.iter().cloned().map(Hex).collect();
    json!({
        "block": { "header": HeaderJson::from(&block.header), "extrinsics": extrinsics },
        "justifications": null,
    })
}

/// Sends the head at once and then every later block, in order and without a gap as long as the client keeps up with
/// what is kept.
async fn heads(
    sink: PendingSubscriptionSink,
    node: Arc<RwLock<Node>>,
    mut head: watch::Receiver<u32>,
) -> Result<(), SubscriptionError> {
    let sink = sink.accept().await?;
    let mut silence = node.read().follow_silence();
    let mut next = *head.borrow_and_update();
    loop {
        silence.wait_for(|silent| !silent).await?;
        let newest = *head.borrow();
        while next <= newest
            && let Some(header) = header(&node, next)
        {
            sink.send(message(&header)?).await?;
            next += 1;
        }
        tokio::select! {
            () = sink.closed() => return Ok(()),
            changed = head.changed() => changed?,
        }
        // A client that fell behind what is kept goes on with the head.
        let newest = *head.borrow_and_update();
        if next <= newest && header(&node, next).is_none() {
            next = newest;
        }
    }
}

fn header(node: &RwLock<Node>, number: u32) -> Option<HeaderJson> {
    node.read().blocks().by_number(number).map(|block| HeaderJson::from(&block.header))
}
