//! One extrinsic from signature to verdict: mortal, submitted once, watched while the node reports on it, and then looked
//! for in the finalised chain (chain spec 4.4). The node's report only says when to look: what it lost from sight, on its
//! way or with its connection, is found all the same, by the sender's nonce, and never sent again from here.

use std::time::Duration;

use serde_json::Value;
use subxt::SubstrateConfig;
use subxt::client::OnlineClientAtBlockImpl;
use subxt::config::Hasher;
use subxt::config::substrate::{BlakeTwo256, SubstrateExtrinsicParamsBuilder};
use subxt::error::{DispatchError, ExtrinsicError};
use subxt::rpcs::{UserError, rpc_params};
use subxt::transactions::{Payload, SubmittableTransaction, TransactionStatus};
use subxt::utils::{AccountId32, H256, MultiSignature};
use tokio::time::timeout;

use super::At;
use super::connection::Connection;
use super::fault::{Fault, node_answer};
use crate::{Block, ChainError, Receipt, Signer};

/// Blocks during which the extrinsic is valid.
const ERA_BLOCKS: u32 = 64;

/// Blocks beyond the era until a final block must have been seen.
const FINALITY_BLOCKS: u32 = 10;

/// Answers of the pool: "already imported" and "priority is too low", which both mean that it holds an extrinsic of this
/// nonce already.
const ALREADY_PENDING: [i32; 2] = [1013, 1014];

type PinnedClient = OnlineClientAtBlockImpl<SubstrateConfig>;

/// An extrinsic, signed and encoded.
pub(super) type Extrinsic = SubmittableTransaction<SubstrateConfig, PinnedClient>;

/// How an extrinsic is found again once it is sent.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) hash: H256,
    pub(super) sender: AccountId32,
    pub(super) nonce: u64,
    /// The first block of its era.
    pub(super) birth: Block,
}

impl Sent {
    /// The first block that may not hold it any more.
    fn death(&self) -> Block {
        self.birth + u64::from(ERA_BLOCKS)
    }
}

/// What the chain says of an extrinsic that was sent.
pub(super) enum Fate {
    /// It is in a finalised block, and its call succeeded or was refused there.
    Decided(Result<Receipt, ChainError>),
    /// Up to this finalised block it is in none, and may still come.
    Open(Block),
}

/// How long an extrinsic's fate is waited for. A chain of quick blocks that falls behind its pace is still given the time
/// of a slow answer.
pub(super) fn patience(call_limit: Duration, slot: Duration) -> Duration {
    call_limit.max(slot * (ERA_BLOCKS + FINALITY_BLOCKS))
}

/// Signs `call` with an era that begins at the pinned block.
pub(super) fn sign(at: &At, call: &impl Payload, nonce: u64, by: &dyn Signer) -> Result<(Extrinsic, Sent), Fault> {
    let params = SubstrateExtrinsicParamsBuilder::<SubstrateConfig>::new()
        .mortal_from_unchecked(u64::from(ERA_BLOCKS), at.block_number(), at.block_hash())
        .nonce(nonce)
        .build();
    let mut signable = at.tx().create_signable_offline(call, params)?;
    let signature = MultiSignature::Sr25519(by.sign(&signable.signer_payload()?).0);
    let sender = AccountId32(by.hotkey().0);
    let extrinsic = signable.sign_with_account_and_signature(&sender, &signature)?;
    let sent = Sent { hash: extrinsic.hash(), sender, nonce, birth: at.block_number() };
    Ok((extrinsic, sent))
}

/// Hands the extrinsic to the node, once, and listens until the node has no more to say of it: that it is final, or that it
/// was lost, or nothing within `patience`. What became of it is then for the chain to tell; `Some` is why the node will not
/// have it any more.
///
/// # Errors
/// The pool turned it away.
pub(super) async fn send(
    extrinsic: &Extrinsic,
    call_limit: Duration,
    patience: Duration,
) -> Result<Option<String>, ChainError> {
    let mut progress = match timeout(call_limit, extrinsic.submit_and_watch()).await {
        Ok(Ok(progress)) => progress,
        Ok(Err(ExtrinsicError::ErrorSubmittingTransaction(error))) => {
            return node_answer(&error).and_then(pool_refusal).map_or(Ok(None), Err);
        }
        Ok(Err(_)) | Err(_) => return Ok(None),
    };
    let last_word = async {
        while let Some(Ok(status)) = progress.next().await {
            match status {
                TransactionStatus::Invalid { message } => return Some(message),
                TransactionStatus::InFinalizedBlock(_)
                | TransactionStatus::Error { .. }
                | TransactionStatus::Dropped { .. } => break,
                TransactionStatus::Validated
                | TransactionStatus::Broadcasted
                | TransactionStatus::InBestBlock(_)
                | TransactionStatus::NoLongerInBestBlock => {}
            }
        }
        None
    };
    Ok(timeout(patience, last_word).await.unwrap_or(None))
}

/// Looks for an extrinsic in the finalised chain up to the pinned block. The sender's nonce tells whether a block holds
/// it; the block's events tell how its call fared.
pub(super) async fn look(connection: &Connection, at: &At, sent: &Sent) -> Result<Fate, Fault> {
    let head = at.block_number();
    if at.tx().account_nonce(&sent.sender).await? <= sent.nonce {
        let expired = head >= sent.death();
        let fate =
            if expired { Fate::Decided(Err(ChainError::Expired { nonce: sent.nonce })) } else { Fate::Open(head) };
        return Ok(fate);
    }
    for number in sent.birth + 1..=head.min(sent.death()) {
        let hash = connection.block_hash(number).await?;
        let hash = hash.ok_or_else(|| Fault::Lost(format!("has no block {number} below its finalised head")))?;
        if extrinsics(connection, hash).await?.contains(&sent.hash) {
            return Ok(Fate::Decided(verdict(&connection.client.at_block(hash).await?, sent.hash).await?));
        }
    }
    let replaced = format!("another extrinsic of this key took nonce {}: this one can be in no block", sent.nonce);
    Ok(Fate::Decided(Err(ChainError::Pool(replaced))))
}

/// The hashes of a block's extrinsics. The plain request, since a node that has dropped the block's state still has these.
async fn extrinsics(connection: &Connection, block: H256) -> Result<Vec<H256>, Fault> {
    let body: Value = connection.rpc.request("chain_getBlock", rpc_params![block]).await?;
    let extrinsics = body["block"]["extrinsics"].as_array();
    let hash = |extrinsic: &Value| {
        let bytes = hex::decode(extrinsic.as_str()?.trim_start_matches("0x")).ok()?;
        Some(BlakeTwo256.hash(&bytes))
    };
    extrinsics
        .and_then(|extrinsics| extrinsics.iter().map(hash).collect())
        .ok_or_else(|| Fault::Lost(format!("has no body for its block {block:?}")))
}

/// How the call of an extrinsic of this block fared.
async fn verdict(at: &At, hash: H256) -> Result<Result<Receipt, ChainError>, Fault> {
    let extrinsics = at.extrinsics().fetch().await?;
    let extrinsic = extrinsics.iter().flatten().find(|extrinsic| extrinsic.hash() == hash);
    let extrinsic = extrinsic
        .ok_or_else(|| ChainError::Unsupported("our own extrinsic does not decode in its block".to_owned()))?;
    for event in extrinsic.events().await?.iter() {
        let event = event?;
        if (event.pallet_name(), event.event_name()) == ("System", "ExtrinsicFailed") {
            let error = DispatchError::decode_from(event.field_bytes(), at.metadata());
            return Ok(Err(
                error.map_or_else(|error| ChainError::Unsupported(error.to_string()), |error| refusal(&error))
            ));
        }
    }
    Ok(Ok(Receipt { block: at.block_number(), hash: hash.0, reveal_round: None }))
}

/// A dispatch error by pallet and name; those of no pallet are the runtime's own.
fn refusal(error: &DispatchError) -> ChainError {
    if let DispatchError::Module(module) = error
        && let Ok(details) = module.details()
    {
        return ChainError::Refused { pallet: details.pallet.name().to_owned(), name: details.variant.name.clone() };
    }
    ChainError::Refused { pallet: "Runtime".to_owned(), name: format!("{error:?}") }
}

/// What the pool's answer means (4.4); `None` if it holds an extrinsic of this nonce already, so that the chain must tell.
fn pool_refusal(answer: &UserError) -> Option<ChainError> {
    if ALREADY_PENDING.contains(&answer.code) {
        return None;
    }
    let detail = answer.data.as_ref().map_or("", |data| data.get().trim_matches('"'));
    let meaning = match detail.strip_prefix("Custom error: ") {
        Some("3") => "no such subnet",
        Some("4") => "unknown hotkey",
        Some("6") => return Some(ChainError::TooSoon(1)),
        Some("10") => "hotkey is not registered on the subnet",
        Some("11") => "bad axon address",
        Some("12") => return Some(ChainError::TooSoon(1)),
        Some("13") => "bad axon port",
        Some("15") => "bad reveal round",
        Some("18") => "uids and weights of different length",
        Some("255") => "bad request",
        _ => return Some(ChainError::Pool(format!("{} ({}) {detail}", answer.message, answer.code))),
    };
    Some(ChainError::Pool(meaning.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32, data: &str) -> UserError {
        let text = format!(r#"{{"code":{code},"message":"Invalid Transaction","data":{data}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_rate_limit_of_the_pool_is_a_reason_to_wait() {
        for custom in [6, 12] {
            let refused = pool_refusal(&answer(1010, &format!(r#""Custom error: {custom}""#)));
            assert_eq!(refused, Some(ChainError::TooSoon(1)));
        }
    }

    #[test]
    fn a_refusal_by_number_is_told_in_words() {
        let refused = pool_refusal(&answer(1010, r#""Custom error: 10""#));
        assert_eq!(refused, Some(ChainError::Pool("hotkey is not registered on the subnet".to_owned())));
        let other = pool_refusal(&answer(1010, r#""Transaction is outdated""#));
        let meaning = "Invalid Transaction (1010) Transaction is outdated".to_owned();
        assert_eq!(other, Some(ChainError::Pool(meaning)));
    }

    #[test]
    fn of_an_extrinsic_that_the_pool_holds_already_the_chain_must_tell() {
        for code in [1013, 1014] {
            assert_eq!(pool_refusal(&answer(code, "null")), None);
        }
    }
}
